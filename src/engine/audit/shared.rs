//! What the threads of the audit log share.
//!
//! Invariant: locks are taken in this order: `corrections`, `layout`, the file of the checkpoints, the tail, `tree`.
//! `layout` and the file of the checkpoints are held while the disk works, so only those who change files take them; no
//! thread does I/O while it holds another.
//! Not here: what is done with it (`committer`, `sealer`, `eraser`, `pruner`, `reader`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::checkpoints::Checkpoints;
use super::condition::Condition;
use super::corrections::Corrections;
use super::decoded::DecodedTiles;
use super::denials::Denials;
use super::error::AuditError;
use super::inbox::MaintenanceInbox;
use super::layout::Layout;
use super::options::AuditOptions;
use super::queue::AuditQueue;
use super::tail::Tail;
use super::unit_limits::UnitLimits;
use super::units::Units;
use super::waiting::Waiting;
use crate::audit::merkle::{MerkleTree, TreeHead};
use crate::locks::IgnorePoison;
use crate::store::folder::Folder;

/// How often a thread that waits for a sync looks.
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
    /// How many erasures were finished since the start.
    pub(super) erased: watch::Sender<u64>,
    /// Not told yet.
    pub(super) denials: Denials,
    /// Odd while a write is under way.
    pub(super) commits: AtomicU64,
    pub(super) closing: AtomicBool,
    /// The writer has ended: no more records become durable.
    pub(super) written: AtomicBool,
    pub(super) condition: Arc<Condition>,
    pub(super) checkpoints: Checkpoints,
    pub(super) corrections: Corrections,
    pub(super) inbox: MaintenanceInbox,
    /// Held by a thread while the set of files must not change.
    pub(super) layout: Layout,
}

impl Shared {
    pub(super) fn tree(&self) -> MutexGuard<'_, MerkleTree> {
        self.tree.lock().ignore_poison()
    }

    pub(super) fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// When the unit that is being written ends.
    pub(super) fn unit_limits(&self) -> UnitLimits {
        let kept = (self.newest() + 1).saturating_sub(self.first_sequence());
        UnitLimits::of(&self.options, kept)
    }

    pub(super) fn set_failed(&self, failed: bool) {
        self.queue.set_failed(failed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn is_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// Blocks the thread until a record is durable, nothing can be written, or `timeout` is over.
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

    /// Signs a checkpoint of the log as it is now, if there are new records.
    pub(super) fn sign(&self) {
        let checkpoints = &self.checkpoints;
        let mut file = checkpoints.file();
        let head = self.tree().head();
        if checkpoints.newest().is_some_and(|(newest, _)| newest.size >= head.size) {
            return;
        }
        let result = checkpoints.add(&mut file, head, false);
        // Nothing is logged under a lock.
        drop(file);
        match result {
            Ok(()) => tracing::debug!(size = head.size, root = %head.root, "audit checkpoint"),
            Err(error) => {
                tracing::warn!(%error, "cannot write a checkpoint of the audit log: the next one is written with it, and covers all that it covers");
            }
        }
    }

    /// Signs a checkpoint at the end of a unit, so that the records up to there can be proven after they are removed.
    pub(super) fn sign_end(&self, size: u64) -> std::io::Result<()> {
        let tree = self.tree().clone();
        let root = tree.root_at(size, self).map_err(|error| std::io::Error::other(error.to_string()))?;
        self.checkpoints.add(&mut self.checkpoints.file(), TreeHead { size, root }, true)
    }
}
