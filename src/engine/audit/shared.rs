//! What the threads of the audit log share.
//!
//! Invariant: a lock that is held while another is taken is the outer one in this order: `layout`, the tail, `tree`,
//! `checkpoints`; nobody waits for the disk under `tree`.
//! Not here: what is done with it (`committer`, `sealer`, `eraser`, `pruner`, `reader`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::checkpoints::Checkpoints;
use super::condition::Condition;
use super::decoded::DecodedTiles;
use super::error::AuditError;
use super::inbox::MaintenanceInbox;
use super::options::AuditOptions;
use super::queue::AuditQueue;
use super::tail::Tail;
use super::units::Units;
use super::waiting::Waiting;
use crate::audit::merkle::{MerkleTree, TreeHead};
use crate::locks::IgnorePoison;
use crate::store::folder::Folder;

/// How often a thread that waits for the disk looks.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// See the module.
pub(crate) struct Shared {
    pub(super) options: AuditOptions,
    pub(super) queue: AuditQueue,
    pub(super) tail: Tail,
    pub(super) units: Units,
    /// Small files beside the units.
    pub(super) folder: Folder,
    pub(super) tree: Mutex<MerkleTree>,
    pub(super) decoded: DecodedTiles,
    /// The newest durable record.
    pub(super) newest: watch::Sender<u64>,
    pub(super) waiting: Waiting,
    /// Odd while a write is under way.
    pub(super) commits: AtomicU64,
    pub(super) closing: AtomicBool,
    /// The writer has ended: what is durable now is all there will be.
    pub(super) written: AtomicBool,
    pub(super) condition: Arc<Condition>,
    pub(super) checkpoints: Mutex<Checkpoints>,
    pub(super) inbox: MaintenanceInbox,
    /// Held by whoever needs the files to stay as they are.
    pub(super) layout: Mutex<()>,
}

impl Shared {
    pub(super) fn tree(&self) -> MutexGuard<'_, MerkleTree> {
        self.tree.lock().ignore_poison()
    }

    pub(super) fn checkpoints(&self) -> MutexGuard<'_, Checkpoints> {
        self.checkpoints.lock().ignore_poison()
    }

    pub(super) fn layout(&self) -> MutexGuard<'_, ()> {
        self.layout.lock().ignore_poison()
    }

    pub(super) fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    pub(super) fn set_failed(&self, failed: bool) {
        self.queue.set_failed(failed);
        self.condition.set_audit(self.queue.is_writable());
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn is_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// Blocks the thread until a record is durable, or until nothing can be written, or until `timeout` is over.
    pub(super) fn wait_durable(&self, sequence: u64, timeout: Option<Duration>) -> Result<(), AuditError> {
        let started = Instant::now();
        while self.newest() < sequence {
            self.queue.check_writable()?;
            if timeout.is_some_and(|timeout| started.elapsed() > timeout) {
                return Err(AuditError::not_writable("the disk did not take the records in time"));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Signs the log as it is now, where there are new records.
    pub(super) fn sign(&self) {
        let head = self.tree().head();
        let mut checkpoints = self.checkpoints();
        if checkpoints.newest().is_some_and(|(newest, _)| newest.size == head.size) {
            return;
        }
        let result = checkpoints.add(head, false);
        checkpoints.log_newest();
        if let Err(error) = result {
            tracing::warn!(%error, "the checkpoint is not written beside the log");
        }
    }

    /// Signs the size at which a unit ends, so that this much can be proven even when what follows is removed.
    pub(super) fn sign_end(&self, size: u64) {
        let tree = self.tree().clone();
        let root = tree.root_at(size, self).map_err(|error| std::io::Error::other(error.to_string()));
        let written = root.and_then(|root| self.checkpoints().add(TreeHead { size, root }, true));
        if let Err(error) = written {
            tracing::warn!(%error, "the checkpoint of a sealed unit is not written");
        }
    }
}
