//! The queue before the audit writer: where a record gets its sequence.
//!
//! Invariant: sequences are dense and follow the order of pushes; a pushed record is never dropped. A caller that pushes
//! under its own lock (a shard of the session table) gets the order of its state into the log. The queue's lock is
//! always the inner one.
//! Not here: writing (`writer`), and what becomes of a Check while nothing can be recorded (`engine::check`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::condition::{Condition, Obstacle};
use super::error::AuditError;
use super::orders::Order;
use crate::audit::record::{Entry, GapRecord, Identity};
use crate::locks::IgnorePoison;
use crate::policy::time::Timestamp;

/// A queued record.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(super) entry: Entry,
    /// Whom it names.
    pub(super) identity: Option<Identity>,
}

/// The work that the writer takes in one step.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Queued>,
    pub(super) orders: Vec<Order>,
    /// No more will come.
    pub(super) closed: bool,
}

/// The capacity, in records, that is kept for reuse.
const SPARE_MAX: usize = 65_536;

#[derive(Debug)]
struct Inner {
    records: Vec<Queued>,
    /// An empty buffer for the next records.
    spare: Vec<Queued>,
    orders: Vec<Order>,
    /// The sequence that the next record gets.
    next_sequence: u64,
    /// A caller waits for the sync of one of the records.
    sync: bool,
    /// The writer sleeps without a timeout and has to be woken.
    idle: bool,
    /// Decisions that were made and not recorded.
    gap: Option<GapRecord>,
    /// The last sequence when the writer ended: nobody carries out orders any more.
    ended: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct AuditQueue {
    inner: Mutex<Inner>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes those who wait for room.
    room: Notify,
    /// The most records that may wait, not counting those that cannot be refused.
    records_max: usize,
    /// Records in the queue and with the writer, which are not durable yet.
    waiting: AtomicU64,
    /// Whether records can be written. [`Obstacle::Closed`] is set under the lock, so that the writer does not miss it before
    /// it waits.
    condition: Arc<Condition>,
}

impl AuditQueue {
    pub(super) fn new(next_sequence: u64, records_max: usize, condition: Arc<Condition>) -> Self {
        let inner = Inner {
            records: Vec::new(),
            spare: Vec::new(),
            orders: Vec::new(),
            next_sequence,
            sync: false,
            idle: false,
            gap: None,
            ended: None,
        };
        Self {
            inner: Mutex::new(inner),
            work: Condvar::new(),
            room: Notify::new(),
            records_max,
            waiting: AtomicU64::new(0),
            condition,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().ignore_poison()
    }

    /// Takes a record, and returns its sequence. `sync`: a caller waits until it is durable.
    ///
    /// It never refuses. A caller that may be refused asks `check_writable` or `room` before.
    pub fn push(&self, entry: Entry, identity: Option<Identity>, sync: bool) -> u64 {
        let mut inner = self.lock();
        let sequence = inner.next_sequence;
        inner.next_sequence += 1;
        // Wake only once for each time that the writer sleeps.
        let wake = std::mem::take(&mut inner.idle) || (sync && !inner.sync);
        inner.records.push(Queued { entry, identity });
        inner.sync |= sync;
        // Counted before the lock is released, or the writer might subtract first.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        drop(inner);
        if wake {
            self.work.notify_one();
        }
        sequence
    }

    /// Takes a record that the writer fills in, with the order that says how; `order` gets the record's sequence. None once
    /// the writer has ended: then the record is not taken.
    pub(super) fn push_with(
        &self,
        entry: Entry,
        identity: Option<Identity>,
        order: impl FnOnce(u64) -> Order,
    ) -> Option<u64> {
        let mut inner = self.lock();
        if inner.ended.is_some() {
            return None;
        }
        let sequence = inner.next_sequence;
        inner.next_sequence += 1;
        inner.records.push(Queued { entry, identity });
        inner.orders.push(order(sequence));
        self.waiting.fetch_add(1, Ordering::Relaxed);
        drop(inner);
        self.work.notify_one();
        Some(sequence)
    }

    /// Has the writer carry out an order between two batches of records. Once the writer has ended, the order is dropped,
    /// and with it the sender of its reply.
    pub(super) fn order(&self, order: Order) {
        let mut inner = self.lock();
        if inner.ended.is_none() {
            inner.orders.push(order);
            drop(inner);
            self.work.notify_one();
        }
    }

    /// Drops the orders that wait, and all that come later: the writer has ended.
    pub(super) fn end(&self) {
        let mut inner = self.lock();
        inner.ended = Some(inner.next_sequence - 1);
        inner.orders.clear();
    }

    /// The last sequence that was given.
    pub fn last_sequence(&self) -> u64 {
        self.lock().next_sequence - 1
    }

    /// Whether a record pushed now would be written soon.
    pub(crate) fn is_writable(&self) -> bool {
        self.check_writable().is_ok()
    }

    /// Records that are not durable yet.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether there is room as well.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < self.records_max as u64
    }

    /// Waits for room. An error where there is none in time, or nothing can be written.
    pub(crate) async fn room(&self, deadline: Duration) -> Result<(), AuditError> {
        let waiting = async {
            loop {
                let notified = self.room.notified();
                self.check_writable()?;
                if self.has_room() {
                    return Ok(());
                }
                notified.await;
            }
        };
        match tokio::time::timeout(deadline, waiting).await {
            Ok(result) => result,
            Err(_) => Err(AuditError::not_writable("records come faster than the disk takes them")),
        }
    }

    pub(crate) fn check_writable(&self) -> Result<(), AuditError> {
        self.condition.check_recordable()
    }

    fn is_closed(&self) -> bool {
        self.condition.has(Obstacle::Closed)
    }

    /// Counts a decision that is not recorded.
    pub(crate) fn miss(&self, now: Timestamp) {
        let mut inner = self.lock();
        let gap = inner.gap.get_or_insert(GapRecord { from_time: now, to_time: now, count: 0 });
        gap.to_time = gap.to_time.max(now);
        gap.count += 1;
    }

    /// How many records are not durable where `newest` is the newest that is, and decisions that have none. Once the writer
    /// has ended, what came later does not count: nobody was answered because of it.
    pub(super) fn unrecorded(&self, newest: u64) -> u64 {
        let inner = self.lock();
        let last = inner.ended.unwrap_or(inner.next_sequence - 1);
        last.saturating_sub(newest) + inner.gap.as_ref().map_or(0, |gap| gap.count)
    }

    /// The decisions that were not recorded since the last call.
    pub(super) fn take_gap(&self) -> Option<GapRecord> {
        self.lock().gap.take()
    }

    /// No more records: the writer finishes what is there.
    pub(super) fn close(&self) {
        let inner = self.lock();
        self.condition.set(Obstacle::Closed, true);
        drop(inner);
        self.work.notify_one();
        self.room.notify_waiters();
    }

    /// Waits for work (group commit). `async` records gather for `gather`, counted from the call, so that callers need not
    /// wake a busy writer.
    pub(super) fn take(&self, gather: Duration, batch_max: usize) -> Batch {
        let may_gather = |inner: &mut Inner| {
            !inner.sync && !self.is_closed() && inner.orders.is_empty() && inner.records.len() < batch_max
        };
        let has_nothing = |inner: &mut Inner| inner.records.is_empty() && inner.orders.is_empty() && !self.is_closed();
        let gathered = |inner| {
            let waited = self.work.wait_timeout_while(inner, gather, may_gather);
            waited.ignore_poison().0
        };
        let mut inner = gathered(self.lock());
        if has_nothing(&mut inner) {
            inner.idle = true;
            inner = self.work.wait_while(inner, has_nothing).ignore_poison();
            inner.idle = false;
            inner = gathered(inner);
        }
        inner.sync = false;
        let spare = std::mem::take(&mut inner.spare);
        Batch {
            records: std::mem::replace(&mut inner.records, spare),
            orders: std::mem::take(&mut inner.orders),
            closed: self.is_closed(),
        }
    }

    /// Takes back the buffer of a batch that was written.
    pub(super) fn take_back(&self, records: Vec<Queued>) {
        if records.is_empty() && records.capacity() <= SPARE_MAX {
            self.lock().spare = records;
        }
    }

    /// Notes that so many records have become durable.
    pub(super) fn written(&self, count: usize) {
        self.waiting.fetch_sub(count as u64, Ordering::Relaxed);
        self.room.notify_waiters();
    }

    pub(super) fn set_failed(&self, failed: bool) {
        self.condition.set(Obstacle::AuditFailed, failed);
        self.room.notify_waiters();
    }

    /// Notes whether a write takes longer than the deadline.
    pub(super) fn set_stuck(&self, stuck: bool) {
        if self.condition.set(Obstacle::AuditStuck, stuck) {
            self.room.notify_waiters();
        }
    }
}
