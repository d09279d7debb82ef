//! The audit log as the engine has it: what is recorded, what is read, what is proven (design.md §2.8).
//!
//! A record goes through the queue, which gives it its place, and the writer, which brings it to the disk,
//! into the tail in memory; a full unit of the tail becomes a sealed file. Readers see tail and sealed files as one log.
//!
//! Invariant: only what is durable is read, proven or signed. Nothing that is recorded is lost or changed without being
//! found out.
//! Not here: what a record says and how it is hashed (`audit`), what is in the files (`store`).

mod checkpoints;
mod committer;
mod condition;
mod decisions;
mod decoded;
mod ended;
mod erasing;
mod options;
mod pipeline;
mod placer;
mod proofs;
mod pruning;
mod queue;
mod reader;
mod recovery;
mod running;
mod sealer;
mod tail;
mod tail_index;
mod units;
mod verify;
mod verify_unit;
mod waiting;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use condition::Condition;
pub use erasing::EraseRequest;
pub use options::{AuditOptions, Durability, OnAuditFailure};
pub use proofs::InclusionProof;
pub use queue::AuditQueue;
pub use reader::RecordPage;
pub use recovery::{AuditOpenError, Opened};
pub use running::LeftAs;
pub(crate) use sealer::{ActorFiles, Sealer, SessionFiles, Task};
pub use verify::{LogFiles, Progress, ReadTail, Verification, verify_files};

use checkpoints::Checkpoints;
use decoded::DecodedTiles;
use sealer::SealerInbox;
use tail::Tail;
use units::{UnitInfo, Units};
use waiting::Waiting;

use crate::audit::merkle::Tree;
use crate::audit::note::{SignerKey, VerifierKey};
use crate::policy::time::Timestamp;
use crate::store::disk::Disk;
use crate::store::{Journal, JournalError};

/// Opens a journal whose first sequence is known only once other files are read.
pub type OpenJournal = Box<dyn FnOnce(u64) -> Result<Box<dyn Journal>, JournalError> + Send>;

/// Where the log is kept.
pub struct AuditStores {
    /// Opens what is recorded first, the stream of the audit log; without any files it begins with the sequence given.
    pub journal: OpenJournal,
    /// The files beside it.
    pub disk: Arc<dyn Disk>,
    /// The directory of these files. It exists.
    pub directory: PathBuf,
    /// What signs the checkpoints. Its name is the log's.
    pub key: SignerKey,
}

/// Why the log does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuditError {
    /// Nothing can be recorded now.
    #[error("the audit log cannot be written now: {0}; try again")]
    NotWritable(String),
    /// A file cannot be read, or is damaged.
    #[error("the audit log cannot be read: {0}")]
    NotReadable(String),
    /// The records were removed.
    #[error("records before sequence {first} have been removed: begin at {first} or later")]
    Removed {
        /// The oldest record kept.
        first: u64,
    },
    /// A place where no record is yet.
    #[error("sequence {wanted} is beyond the newest record, {newest}: begin there")]
    NotReached {
        /// The place asked for.
        wanted: u64,
        /// The newest record.
        newest: u64,
    },
    /// A field of the question is wrong.
    #[error("`{field}` {description}")]
    Invalid {
        /// Its name in the request.
        field: &'static str,
        /// What is wrong with it.
        description: String,
    },
    /// Too many read it already.
    #[error("too many ended sessions are being looked for in the audit log: try again in a moment")]
    Busy,
    /// The service is ending.
    #[error("the service is shutting down: try again on another or later")]
    ShuttingDown,
}

/// What the threads of the log share.
pub(crate) struct Shared {
    options: AuditOptions,
    pub(crate) queue: AuditQueue,
    tail: Tail,
    units: Units,
    tree: Mutex<Tree>,
    decoded: DecodedTiles,
    /// The newest durable record.
    newest: watch::Sender<u64>,
    waiting: Waiting,
    /// Odd while a write is under way.
    commits: AtomicU64,
    closing: AtomicBool,
    /// The writer has ended: what is durable now is all there will be.
    written: AtomicBool,
    condition: Arc<Condition>,
    checkpoints: Mutex<Checkpoints>,
    inbox: SealerInbox,
    /// Held by whoever needs the files to stay as they are.
    layout: Mutex<()>,
}

impl Shared {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checkpoints(&self) -> MutexGuard<'_, Checkpoints> {
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layout(&self) -> MutexGuard<'_, ()> {
        self.layout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    fn set_failed(&self, failed: bool) {
        self.queue.set_failed(failed);
        self.condition.set_audit(self.queue.is_writable());
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn is_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    fn wake_sealer(&self) {
        self.inbox.wake();
    }
}

fn not_in_time() -> AuditError {
    AuditError::NotWritable("the disk did not take the record in time".to_owned())
}

/// The audit log.
pub struct AuditLog {
    shared: Arc<Shared>,
    verifier: VerifierKey,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl AuditLog {
    /// Where records are pushed. One is durable once [`AuditLog::newest`] has reached its sequence.
    pub fn queue(&self) -> &AuditQueue {
        &self.shared.queue
    }

    /// How it is kept.
    pub fn options(&self) -> &AuditOptions {
        &self.shared.options
    }

    /// The key that verifies the checkpoints.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The newest durable record now. What looks at it twice must not do so through a receiver: one that holds a look open
    /// while it takes another waits for the writer, who waits for the first look to end.
    pub fn newest_sequence(&self) -> u64 {
        self.shared.newest()
    }

    /// The newest durable record; changes whenever there are more. Its sender is gone once the service has ended.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.shared.newest.subscribe()
    }

    /// The oldest record kept; the next one where there is none.
    pub fn first_sequence(&self) -> u64 {
        self.shared.first_sequence()
    }

    /// Waits until a record is durable, but no longer than the configured deadline. To be polled whenever it is woken:
    /// others on its thread wait for that.
    pub(crate) async fn durable(&self, sequence: u64) -> Result<(), AuditError> {
        let waiting = self.shared.waiting.durable(sequence);
        tokio::time::timeout(self.shared.options.deadline, waiting).await.map_err(|_| not_in_time())
    }

    /// The same for whoever might not be polled when it is woken; the deadline counts from `begun`.
    pub(crate) async fn durable_apart(&self, sequence: u64, begun: Instant) -> Result<(), AuditError> {
        let waiting = self.shared.waiting.durable_apart(sequence);
        tokio::time::timeout_at(begun + self.shared.options.deadline, waiting).await.map_err(|_| not_in_time())
    }

    /// Waits until a record is durable, on a thread that may wait.
    pub(crate) fn wait_durable(&self, sequence: u64, timeout: Duration) -> Result<(), AuditError> {
        let started = Instant::now();
        while self.shared.newest() < sequence {
            self.shared.queue.check_writable()?;
            if started.elapsed() > timeout {
                return Err(AuditError::NotWritable("the disk did not take the records in time".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Notes a write that takes too long, and one that has ended. To be called often.
    pub(crate) fn watch_disk(&self, watch: &mut DiskWatch) {
        let commits = self.shared.commits.load(Ordering::Acquire);
        if commits != watch.commits || commits.is_multiple_of(2) {
            *watch = DiskWatch { commits, since: tokio::time::Instant::now() };
        }
        let stuck = watch.since.elapsed() >= self.shared.options.deadline;
        if self.shared.queue.set_stuck(stuck) {
            if stuck {
                tracing::error!(
                    "the disk takes no records of the audit log: connections are not let through until it does"
                );
            } else {
                tracing::info!("the disk takes records of the audit log again");
            }
        }
        // Always: two who tell at once may have told in the other order.
        self.shared.condition.set_audit(self.shared.queue.is_writable());
    }

    /// The oldest record that may be of a time or later.
    pub(crate) fn first_since(&self, time: Timestamp) -> u64 {
        let units = self.shared.units.list();
        let old = units.iter().take_while(|unit| unit.max_time < time.micros()).last();
        old.map_or(self.first_sequence(), UnitInfo::next_sequence)
    }

    /// Notes that the log was ended in order, once everything that was queued is on the disk.
    pub(crate) fn end(&self) {
        if self.shared.newest() < self.shared.queue.last_sequence() {
            return;
        }
        if let Err(error) = running::end(&*self.shared.units.disk, self.shared.units.directory()) {
            tracing::warn!(%error, "the next start will take this end for a crash");
        }
    }

    /// Writes what is queued and ends the writer. Nothing can be recorded afterwards.
    pub(crate) fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the audit writer ended by a panic");
        }
    }
}

/// Since when a write is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskWatch {
    commits: u64,
    since: tokio::time::Instant,
}

impl DiskWatch {
    /// How often to look.
    pub(crate) const INTERVAL: Duration = Duration::from_millis(100);

    pub(crate) fn new() -> Self {
        Self { commits: 0, since: tokio::time::Instant::now() }
    }
}
