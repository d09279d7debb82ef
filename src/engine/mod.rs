//! The engine joins the policy with the store: it decides, it changes, and it knows which policy is current.
//!
//! Invariant: what decides is durable, and every decision is on the record. Deciding takes no lock and waits for nothing;
//! a change is answered when it is durable and visible.
//! Not here: gRPC, generated types, and which adapters stand behind the ports.

mod actors;
mod advance;
mod apply;
pub mod audit;
mod background;
pub mod backup;
mod batch;
pub mod change;
mod change_log;
pub mod check;
pub mod clock;
mod commands;
pub mod counters;
mod deadlines;
pub mod directory;
mod expiry;
mod follower;
mod history;
mod judging;
mod keeper;
mod lookups;
mod mirror;
pub mod outcome;
pub mod parallel;
mod planning;
pub mod preview;
pub mod prospect;
mod published;
pub mod question;
mod read_back;
mod recount;
mod recovery;
mod replay;
pub mod revoked;
mod scales;
pub mod session_calls;
mod session_files;
pub mod sessions;
pub mod shadow;
mod staged;
mod start;
mod timekeeping;
mod unconfirmed;
mod witnesses;
mod writer;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use thiserror::Error;
use tokio::sync::watch;

pub use history::{HistoryError, RevisionDetail, RevisionEntry};
pub use read_back::Faults;
pub use recovery::RecoveryError;
pub use replay::{Flipped, Replay};
pub use session_files::SessionStores;
pub use witnesses::{SeenMore, SessionsDisagree};

use audit::{AuditLog, AuditOptions, AuditStores, Condition, Obstacle};
use check::DecisionIds;
use clock::Clock;
use commands::Commands;
use directory::Directory;
use history::History;
use keeper::KeeperInbox;
use lookups::Lookups;
use session_files::Renewals;
use sessions::{SessionOptions, SessionTable};

use crate::audit::lineage::Lineage;
use crate::lifeline::Supervisor;
use crate::locks::IgnorePoison;
use crate::policy::limits::Limits;
use crate::policy::plan::Etags;
use crate::policy::problems::Nat64Prefix;
use crate::store::backup::BackupFiles;
use crate::store::{Redaction, Snapshots, StateStores};

/// The stores that the engine keeps its data in.
pub struct Stores {
    /// Every acknowledged change of the policy. An actor can be erased from it.
    pub journal: Box<dyn Redaction>,
    /// Shortens the replay of the journal.
    pub snapshots: Box<dyn Snapshots>,
    /// The mirror: a copy of the policy that can be rebuilt, and the match counts of the rules.
    pub state: Box<dyn StateStores>,
    /// The audit log.
    pub audit: AuditStores,
    /// The active sessions and their renewals.
    pub sessions: SessionStores,
    /// Which history they hold.
    pub lineage: Lineage,
    /// All of their files, for backups; none where they cannot be copied.
    pub backup: Option<Box<dyn BackupFiles>>,
    /// Kept until the stores are closed, such as the lock on their directory.
    pub keep: Box<dyn Send + Sync>,
}

/// How the engine works.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How large a policy may become.
    pub limits: Limits,
    /// How the audit log is kept.
    pub audit: AuditOptions,
    /// How long sessions last, and how many there may be.
    pub sessions: SessionOptions,
    /// The translators whose addresses problems are looked for at, beside the well-known prefix.
    pub nat64_prefixes: Vec<Nat64Prefix>,
    /// The stores hold a backup that was never in use: it may have any number of changes that the audit log has no record
    /// of.
    pub restored: bool,
}

/// Why the engine does not start.
#[derive(Debug, Error)]
pub enum OpenError {
    /// What is stored cannot be used.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The operating system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    /// The sessions' journal cannot be read.
    #[error("the journal of the sessions: {0}")]
    Sessions(#[from] crate::store::JournalError),
    /// A snapshot of the sessions cannot be read.
    #[error("the saved sessions: {0}")]
    SessionSnapshot(#[from] crate::store::SnapshotError),
    /// The audit log cannot be read back.
    #[error(transparent)]
    Audit(#[from] audit::AuditError),
    /// The saved sessions have seen another audit log than there is.
    #[error(transparent)]
    SessionsDisagree(#[from] witnesses::SessionsDisagree),
    /// The audit log lacks records of changes.
    #[error(transparent)]
    AuditBehind(#[from] witnesses::AuditBehind),
    /// Several faults.
    #[error(transparent)]
    Several(Faults),
    /// The operating system gives no random numbers.
    #[error("cannot draw a random number: {0}")]
    Random(String),
    /// What belongs to the start cannot be written.
    #[error("{0}")]
    Write(io::Error),
}

/// The policy service without its edges.
pub struct Engine {
    directory: Arc<Directory>,
    clock: Clock,
    decision_ids: DecisionIds,
    sessions: Arc<SessionTable>,
    audit: Arc<AuditLog>,
    renewals: Arc<Renewals>,
    lookups: Lookups,
    condition: Arc<Condition>,
    keeper: Arc<KeeperInbox>,
    history: Arc<History>,
    commands: Arc<Commands>,
    threads: Mutex<Threads>,
    closing: Closing,
    nat64_prefixes: Vec<Nat64Prefix>,
    lineage: Lineage,
    backup_files: Option<Box<dyn BackupFiles>>,
    /// See [`Stores::keep`]; dropped last.
    _keep: Box<dyn Send + Sync>,
}

/// The engine's threads, in the order in which they end.
#[derive(Default)]
struct Threads {
    /// Those of the policy.
    policy: Vec<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    sealer: Option<JoinHandle<()>>,
    renewals: Option<JoinHandle<()>>,
}

/// How far closing has come.
#[derive(Default)]
struct Closing {
    begun: AtomicBool,
    /// The thread whose end is waited for.
    awaited: Mutex<String>,
}

impl Engine {
    /// Which policy is current.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The clock of decisions and changes.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The audit log.
    pub fn audit(&self) -> Arc<AuditLog> {
        Arc::clone(&self.audit)
    }

    /// The etags that are current.
    pub fn etags(&self) -> Etags {
        Etags::of_lineage(self.lineage.number())
    }

    /// Which history this is (design.md §2.11).
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// See [`Options::nat64_prefixes`].
    pub fn nat64_prefixes(&self) -> &[Nat64Prefix] {
        &self.nat64_prefixes
    }

    /// The active sessions.
    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    /// Whether changes can be made durable and decisions recorded; follows the failures and recoveries of both journals and
    /// of the data directory, and failed threads.
    pub fn writable(&self) -> watch::Receiver<bool> {
        self.condition.writable()
    }

    /// Why the engine cannot go on; none while it can. A thread that ended is not started again: the process has to be.
    pub fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.condition.failure().follow()
    }

    /// Refuses everything from now on, for this reason.
    pub fn fail(&self, reason: &str) {
        self.condition.fail(reason);
    }

    /// Notes whether the data directory is where it was opened. While it is not, nothing counts as durable. True if that is
    /// new.
    pub fn set_directory_gone(&self, gone: bool) -> bool {
        self.condition.set(Obstacle::DirectoryGone, gone)
    }

    /// Whether the data directory is gone.
    pub fn is_directory_gone(&self) -> bool {
        self.condition.has(Obstacle::DirectoryGone)
    }

    /// Takes no more changes and no more Checks, finishes those under way, and returns when everything is durable, or cannot
    /// be made durable within a few seconds: see [`Engine::unrecorded`]. A second call returns at once.
    pub fn close(&self) {
        if self.closing.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        self.condition.failure().begin_end();
        self.commands.close();
        let threads = std::mem::take(&mut *self.threads.lock().ignore_poison());
        threads.policy.into_iter().for_each(|thread| self.join(thread));
        self.keeper.stop();
        threads.keeper.into_iter().for_each(|thread| self.join(thread));
        // After the keeper nothing is recorded any more.
        self.set_awaited("audit-writer");
        self.audit.close();
        threads.sealer.into_iter().for_each(|thread| self.join(thread));
        self.renewals.close();
        threads.renewals.into_iter().for_each(|thread| self.join(thread));
        self.audit.end();
    }

    /// How many decisions and changes are not on record. After [`Engine::close`]: those that could not be recorded, and are
    /// lost.
    pub fn unrecorded(&self) -> u64 {
        self.audit.unrecorded()
    }

    /// The thread that [`Engine::close`] waits for, or waited for last.
    pub fn awaited(&self) -> String {
        self.closing.awaited.lock().ignore_poison().clone()
    }

    fn set_awaited(&self, thread: &str) {
        thread.clone_into(&mut self.closing.awaited.lock().ignore_poison());
    }

    fn join(&self, thread: JoinHandle<()>) {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        self.set_awaited(&name);
        if thread.join().is_err() {
            tracing::error!(thread = name, "a thread ended by a panic");
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}
