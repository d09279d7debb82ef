//! The handle of the audit log: its newest record, waiting until a record is durable, erasing and closing.
//!
//! Invariant: a record that is reported as durable is synced and visible to every reader.
//! Not here: how it is opened (`recovery`), read (`reader`, `ended`, `decisions`), proven (`proofs`) and verified (`verify`).

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::condition::Obstacle;
use super::error::AuditError;
use super::inbox::EraseTask;
use super::newest::Newest;
use super::options::AuditOptions;
use super::orders::{EraseRequest, Erased};
use super::queue::AuditQueue;
use super::removed::removed_change;
use super::running;
use super::shared::Shared;
use super::units::UnitInfo;
use crate::audit::filter::RecordFilter;
use crate::audit::note::VerifierKey;
use crate::audit::record::{Content, KeyChangedRecord, Record, RecordType};
use crate::locks::IgnorePoison;
use crate::policy::change::ChangeIdentity;
use crate::policy::decision::Reason;
use crate::policy::time::Timestamp;

/// How long a call waits until the files of the log are ready for it.
const FILES_WAIT_MAX: Duration = Duration::from_secs(30);

/// The most changes of the key that are looked at, the newest ones.
const KEY_CHANGES_MAX: usize = 1_000;

/// How often it looks meanwhile.
const FILES_POLL: Duration = Duration::from_millis(1);

/// The audit log.
pub struct AuditLog {
    pub(super) shared: Arc<Shared>,
    pub(super) verifier: VerifierKey,
    pub(super) writer: Mutex<Option<JoinHandle<()>>>,
}

impl AuditLog {
    /// The queue that takes records. A record is durable once [`AuditLog::newest`] has reached its sequence.
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

    /// What is to be recorded before the present key signs: that another one signed so far.
    pub(crate) fn key_change(&self) -> Option<KeyChangedRecord> {
        let checkpoints = &self.shared.checkpoints;
        let (previous, signed_size) = checkpoints.other_signer()?;
        Some(KeyChangedRecord {
            previous_key: previous.to_string().into(),
            key: checkpoints.verifier().to_string().into(),
            signed_size,
        })
    }

    /// The keys that signed before the present one, oldest first, as the signed records of their changes tell them.
    pub(crate) fn recorded_keys(&self) -> Result<Vec<VerifierKey>, AuditError> {
        let filter = RecordFilter { types: vec![RecordType::KeyChanged], ..RecordFilter::default() };
        let signed = self.shared.checkpoints.size();
        let records = self.list(&filter, None, KEY_CHANGES_MAX)?.records;
        let mut keys = vec![self.verifier.clone()];
        // Newest first: a record counts where the key that it names as the new one is known.
        for Record { entry, .. } in records.into_iter().filter(|record| record.sequence <= signed) {
            let Content::KeyChanged(change) = entry.content else { continue };
            let is_known = |text: &str| keys.iter().any(|key| key.to_string() == text);
            if is_known(&change.key) && !is_known(&change.previous_key) {
                keys.extend(change.previous_key.parse::<VerifierKey>());
            }
        }
        keys.reverse();
        keys.pop();
        Ok(keys)
    }

    /// The sequence of the newest durable record.
    pub fn newest_sequence(&self) -> u64 {
        self.shared.newest()
    }

    /// The newest change of the policy whose record was removed, with its sequence in the policy journal.
    pub(crate) fn removed_change(&self) -> Result<Option<(u64, ChangeIdentity)>, AuditError> {
        removed_change(&self.shared.folder).map_err(AuditError::not_readable)
    }

    /// Follows how many erasures were finished since the start, each before it is answered.
    pub(crate) fn erased(&self) -> watch::Receiver<u64> {
        self.shared.erased.subscribe()
    }

    /// Follows the sequence of the newest durable record.
    pub fn newest(&self) -> Newest {
        Newest::new(self.shared.newest.subscribe())
    }

    /// The oldest record kept; the next one where there is none.
    pub fn first_sequence(&self) -> u64 {
        self.shared.first_sequence()
    }

    /// Waits until a record is durable, at most until the configured deadline. The future must be polled whenever it is
    /// woken, because it then wakes the other waiters of its thread.
    pub(crate) async fn durable(&self, sequence: u64) -> Result<(), AuditError> {
        let waiting = self.shared.waiting.durable(sequence);
        tokio::time::timeout(self.shared.options.deadline, waiting).await.map_err(|_| not_in_time())
    }

    /// As [`AuditLog::durable`], but no longer than until `limit`; none where that comes first.
    pub(crate) async fn durable_until(&self, sequence: u64, limit: Instant) -> Option<Result<(), AuditError>> {
        let deadline = Instant::now() + self.shared.options.deadline;
        match tokio::time::timeout_at(deadline.min(limit), self.shared.waiting.durable(sequence)).await {
            Ok(()) => Some(Ok(())),
            Err(_) if limit < deadline => None,
            Err(_) => Some(Err(not_in_time())),
        }
    }

    /// As [`AuditLog::durable`], for a future that may not be polled when it is woken. The deadline counts from `begun`.
    pub(crate) async fn durable_apart(&self, sequence: u64, begun: Instant) -> Result<(), AuditError> {
        let waiting = self.shared.waiting.durable_apart(sequence);
        tokio::time::timeout_at(begun + self.shared.options.deadline, waiting).await.map_err(|_| not_in_time())
    }

    /// Blocks the thread until a record is durable.
    pub(crate) fn wait_durable(&self, sequence: u64, timeout: Duration) -> Result<(), AuditError> {
        self.shared.wait_durable(sequence, Some(timeout))
    }

    /// Marks the queue as stuck while one write takes longer than the deadline; the write that ends takes the mark away.
    /// Call it every [`DiskWatch::INTERVAL`].
    pub(crate) fn watch_disk(&self, watch: &mut DiskWatch) {
        let Shared { commits: counter, queue, .. } = &*self.shared;
        let commits = counter.load(Ordering::Acquire);
        if commits != watch.commits || commits.is_multiple_of(2) {
            (watch.commits, watch.since) = (commits, Instant::now());
        }
        let stuck = watch.since.elapsed() >= self.shared.options.deadline;
        queue.set_stuck(stuck);
        // It may have ended before it was marked: one of both sides sees the other.
        fence(Ordering::SeqCst);
        if stuck && counter.load(Ordering::Acquire) != commits {
            queue.set_stuck(false);
        }
        if std::mem::replace(&mut watch.is_stuck, stuck) != stuck {
            if stuck {
                tracing::error!(
                    "a write of the audit log takes too long: {} until it ends",
                    self.shared.options.on_failure.consequence()
                );
            } else {
                tracing::info!("writes of the audit log are fast enough again");
            }
        }
    }

    /// Whether the log has all records from a moment on: none of them was removed.
    pub(crate) fn reaches_back_to(&self, since: Timestamp) -> bool {
        self.shared.reaches_back_to(since)
    }

    /// The oldest record whose time may be `time` or later, as decision time is counted now.
    pub(crate) fn first_since(&self, time: Timestamp) -> u64 {
        let units = self.shared.units.list();
        let corrections = self.shared.corrections.known();
        let latest = |unit: &&UnitInfo| corrections.latest(unit, |last| self.shared.time_of(last));
        let old = units.iter().take_while(|unit| latest(unit) < time.micros()).last();
        old.map_or(self.first_sequence(), UnitInfo::next_sequence)
    }

    /// Erases a user.
    pub(crate) async fn erase(&self, request: EraseRequest) -> Result<Erased, AuditError> {
        let (reply, answer) = oneshot::channel();
        self.shared.queue.check_writable()?;
        self.shared.inbox.send(EraseTask { request, reply });
        answer.await.unwrap_or(Err(AuditError::ShuttingDown))
    }

    /// Wakes the maintenance thread: something that it asked for is answered.
    pub(crate) fn wake_maintenance(&self) {
        self.shared.inbox.wake();
    }

    /// Waits until a checkpoint covers a record, and calls `note` while no file of the log is sealed, erased from or
    /// removed. Records are written meanwhile.
    ///
    /// # Errors
    ///
    /// The disk does not take the checkpoint, or does not get a file ready, in time.
    pub(crate) fn while_files_stay<T>(&self, sequence: u64, note: impl FnOnce() -> T) -> Result<T, AuditError> {
        let begun = Instant::now();
        self.shared.inbox.sign();
        while self.shared.checkpoints.size() < sequence {
            if begun.elapsed() > FILES_WAIT_MAX || self.shared.is_written() {
                return Err(AuditError::not_writable("the disk did not take a checkpoint in time"));
            }
            std::thread::sleep(FILES_POLL);
        }
        let layout = self.shared.layout.hold_within(FILES_WAIT_MAX);
        let _layout = layout.ok_or_else(|| AuditError::not_writable("a file of the log was not ready in time"))?;
        Ok(note())
    }

    /// Counts a decision that is not recorded.
    pub(crate) fn miss(&self, reason: Reason, now: Timestamp) {
        self.shared.denials.note(reason);
        self.shared.queue.miss(now);
    }

    /// How many records are not durable: queued ones, and decisions that were made while none could be queued. Once the
    /// log is closed, they are lost.
    pub(crate) fn unrecorded(&self) -> u64 {
        self.shared.queue.unrecorded(self.shared.newest())
    }

    /// Has the mark of use tell of this run alone. How the last one was left has to be on record.
    pub(crate) fn forget_how_it_was_left(&self) {
        if let Err(error) = running::go_on(&self.shared.folder, &self.shared.options) {
            tracing::warn!(%error, "cannot write the mark of use: after a crash a gap is recorded that may be none");
        }
    }

    /// Removes the mark of use, if everything that was queued is durable, and so is the record of every change. A change
    /// that the policy journal failed to write may be in it all the same, and one whose thread ended may lack its record.
    pub(crate) fn end(&self) {
        let in_order = |obstacle| !self.shared.condition.has(obstacle);
        let is_whole =
            [Obstacle::PolicyFailed, Obstacle::ThreadEnded, Obstacle::DirectoryGone].into_iter().all(in_order);
        if !is_whole || self.shared.newest() < self.shared.queue.last_sequence() || self.unrecorded() > 0 {
            return;
        }
        if let Err(error) = running::end(&self.shared.folder) {
            tracing::warn!(%error, "cannot remove the mark of use: the next start will take this shutdown for a crash");
        }
    }

    /// Writes the queued records and ends the writer. Nothing can be recorded afterwards.
    pub(crate) fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.queue.close();
        let writer = self.writer.lock().ignore_poison().take();
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
    since: Instant,
    /// It took too long at the last look.
    is_stuck: bool,
}

impl DiskWatch {
    /// How often to look.
    pub(crate) const INTERVAL: Duration = Duration::from_millis(100);

    pub(crate) fn new() -> Self {
        Self { commits: 0, since: Instant::now(), is_stuck: false }
    }
}

fn not_in_time() -> AuditError {
    AuditError::not_writable("the disk did not take the record in time")
}
