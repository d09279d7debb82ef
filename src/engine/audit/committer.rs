//! The committer writes frames of records to the journal and then makes them visible to readers.
//!
//! Invariant: what is visible is durable. A frame that could not be written is written again, under the same sequences,
//! once the journal is recovered.
//! Not here: what a record's bytes are (`encoder`), when it works (`writer`).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use tokio::time::Instant;

use super::condition::Obstacle;
use super::encoder::{EncodedRecord, Frame};
use super::error::AuditError;
use super::orders::{EraseOrder, EraseRequest, ErasurePlace, RecordedErasure};
use super::ports::{MakeRoom, Sink};
use super::shared::Shared;
use super::tail::{TailRecord, TailUnit};
use crate::audit::record::{Content, Entry, ErasedRecord, ErasedUnit, slots_of};
use crate::engine::clock::Clock;
use crate::store::codec::audit::{Secret, TailOpening, erase_tail_opening};
use crate::store::{Journal, JournalError};

/// How often a failed journal is tried again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is tried again while the service shuts down.
const CLOSING_PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// The most openings that one record of an erasure lists, so that it stays below 32 KiB.
const ERASED_SLOTS_MAX: usize = 4_000;

/// See the module.
pub(super) struct Committer {
    journal: Box<dyn Journal>,
    /// None once it was used.
    make_room: Option<MakeRoom>,
    /// When writing is given up, once the service shuts down and it fails.
    given_up_at: Option<Instant>,
    shared: Arc<Shared>,
    clock: Clock,
    erasures: Vec<PendingErasure>,
    /// Records before this one are sealed.
    sealed: u64,
    /// The last record of the policy journal that has a record here.
    policy_sequence: u64,
}

/// An erasure whose record is not durable yet.
pub(super) struct PendingErasure {
    first: u64,
    sequence: u64,
    count: u64,
    tail: Vec<ErasedUnit>,
    policy_sequence: u64,
    reply: tokio::sync::oneshot::Sender<Result<RecordedErasure, AuditError>>,
}

impl Committer {
    pub(super) fn new((journal, make_room): Sink, shared: Arc<Shared>, clock: Clock, policy_sequence: u64) -> Self {
        let make_room = Some(make_room);
        Self { journal, make_room, given_up_at: None, shared, clock, erasures: Vec::new(), sealed: 0, policy_sequence }
    }

    /// Writes a frame and makes its records visible. False if it gave up because the service is shutting down.
    pub(super) fn commit(&mut self, frame: &mut Frame) -> bool {
        if !self.append(frame) {
            return false;
        }
        self.publish(frame);
        if frame.begins_unit {
            self.truncate();
        }
        true
    }

    /// Appends a frame, and tries again until that succeeds. False if the service shuts down and it does not succeed soon.
    fn append(&mut self, frame: &Frame) -> bool {
        let mut failed = false;
        loop {
            self.shared.commits.fetch_add(1, Ordering::AcqRel);
            let result = self.try_append(frame);
            self.shared.commits.fetch_add(1, Ordering::AcqRel);
            match result {
                Ok(()) => break,
                Err(error) if failed => tracing::debug!(%error, "the audit log still cannot be written"),
                Err(error) => {
                    let consequence = self.shared.options.on_failure.consequence();
                    tracing::error!(%error, "the audit log cannot be written: {consequence} until it can");
                    failed = true;
                    self.shared.set_failed(true);
                }
            }
            self.no_longer_stuck();
            if !self.may_try_again() {
                return false;
            }
            if let Err(error) = self.journal.recover() {
                tracing::debug!(%error, "the journal of the audit log cannot be recovered yet");
            }
        }
        self.no_longer_stuck();
        if failed {
            tracing::info!("the audit log is writable again");
            self.shared.set_failed(false);
        }
        true
    }

    /// A write has ended. Whoever watches the disk would notice only at the next look (`AuditLog::watch_disk`).
    fn no_longer_stuck(&self) {
        fence(Ordering::SeqCst);
        if self.shared.condition.has(Obstacle::AuditStuck) {
            self.shared.queue.set_stuck(false);
        }
    }

    /// Waits for a while after a failure. False once the service shuts down and there is no more time to try.
    fn may_try_again(&mut self) -> bool {
        let until = Instant::now() + PROBE_INTERVAL;
        while !self.shared.is_closing() {
            if Instant::now() >= until {
                return true;
            }
            std::thread::sleep(CLOSING_PROBE_INTERVAL);
        }
        if let Some(make_room) = self.make_room.take() {
            make_room();
            self.given_up_at = Some(Instant::now() + self.shared.options.closing_interval);
            return true;
        }
        std::thread::sleep(CLOSING_PROBE_INTERVAL);
        self.given_up_at.is_some_and(|at| Instant::now() < at)
    }

    fn try_append(&mut self, frame: &Frame) -> Result<(), JournalError> {
        if frame.begins_unit {
            self.journal.roll()?;
        }
        self.journal.append(&frame.bytes).map(drop)
    }

    /// Makes durable records visible.
    fn publish(&mut self, frame: &mut Frame) {
        let count = frame.records.len();
        let last = frame.first_sequence + count as u64 - 1;
        let unit = if let Some(unit) = self.shared.tail.last().filter(|_| !frame.begins_unit) {
            unit
        } else {
            self.end_unit();
            let unit = Arc::new(TailUnit::new(frame.first_sequence));
            self.shared.tail.push(Arc::clone(&unit));
            unit
        };
        {
            let mut tree = self.shared.tree();
            unit.change(|content| {
                for (record, bytes) in frame.records.drain(..).zip(&frame.bytes) {
                    let EncodedRecord { entry, body, leaf, slot, opening, organization_sequence } = record;
                    let root = tree.append(leaf).map(Into::into);
                    let body = bytes.get(body).unwrap_or_default();
                    if let Content::Decision(decision) = &entry.content {
                        self.shared.denials.note(decision.reason);
                    }
                    content.push(&TailRecord { body, entry: &entry, slot, organization_sequence, root });
                    content.openings.extend(opening);
                }
                content.ended = frame.ends_unit;
                self.policy_sequence = self.policy_sequence.max(content.policy_sequence);
            });
            self.shared.queue.written(count);
            // No checkpoint covers a record that readers do not see yet.
            self.shared.newest.send_replace(last);
        }
        // Visible before waiters are woken: a caller may read its record as soon as it has its answer.
        self.shared.waiting.publish(last);
        if frame.ends_unit {
            self.shared.inbox.wake();
        }
        self.answer_erasures(last);
    }

    /// Notes that the last unit has ended: the next record begins another one.
    pub(super) fn end_unit(&self) {
        if let Some(unit) = self.shared.tail.last() {
            unit.change(|content| content.ended = true);
            self.shared.inbox.wake();
        }
    }

    /// Truncates the journal before `sequence`: the records before it are sealed.
    pub(super) fn truncate_before(&mut self, sequence: u64) {
        self.sealed = sequence;
        self.truncate();
    }

    /// Truncates the journal before the first unsealed record. The journal keeps its last segment, so this is repeated
    /// whenever a segment begins.
    fn truncate(&mut self) {
        if let Err(error) = self.journal.truncate_before(self.sealed) {
            tracing::warn!(%error, "cannot remove sealed records from the journal of the audit log: it is tried again later");
        }
    }

    /// Begins an erasure whose first record comes next; returns that record's content. Records that list the rest are
    /// queued.
    pub(super) fn begin_erasure(&mut self, order: EraseOrder) -> Content {
        let EraseOrder { request, sealed, place, reply } = order;
        let tail = self.openings_of(&request, None);
        let mut pieces = in_pieces(sealed.iter().chain(&tail)).into_iter();
        let units = pieces.next().unwrap_or_default();
        let mut count = slots_of(&units);
        let content = Content::Erased(ErasedRecord { opening_count: count, units });
        let (ErasurePlace::Queued(first) | ErasurePlace::Durable(first)) = place;
        let mut sequence = first;
        if pieces.len() > 0 {
            (sequence, count) = self.queue_erased(&request, pieces, count);
        }
        self.erasures.push(PendingErasure {
            first,
            sequence,
            count,
            tail,
            policy_sequence: self.policy_sequence,
            reply,
        });
        content
    }

    /// Lists the openings of a recorded erasure that none of its records lists, as a crash can leave them.
    pub(super) fn complete_erasure(&mut self, order: EraseOrder) {
        let EraseOrder { request, sealed, place, reply } = order;
        let (ErasurePlace::Queued(first) | ErasurePlace::Durable(first)) = place;
        let tail = self.openings_of(&request, Some(first));
        let policy_sequence = self.policy_sequence;
        if sealed.is_empty() && tail.is_empty() {
            drop(reply.send(Ok(RecordedErasure { first, sequence: first, count: 0, tail, policy_sequence })));
            self.shared.inbox.wake();
            return;
        }
        let pieces = in_pieces(sealed.iter().chain(&tail));
        let (sequence, count) = self.queue_erased(&request, pieces.into_iter(), 0);
        self.erasures.push(PendingErasure { first, sequence, count, tail, policy_sequence, reply });
    }

    /// Queues records of an erasure, and returns the last one's sequence and how many openings there are with theirs.
    fn queue_erased(
        &self,
        request: &EraseRequest,
        pieces: impl Iterator<Item = Vec<ErasedUnit>>,
        before: u64,
    ) -> (u64, u64) {
        let (mut count, mut sequence) = (before, 0);
        for units in pieces {
            count += slots_of(&units);
            let content = Content::Erased(ErasedRecord { opening_count: count, units });
            let entry = Entry { time: self.clock.now(), organization: request.organization.clone(), content };
            sequence = self.shared.queue.push(entry, request.recorded_actor(), true);
        }
        (sequence, count)
    }

    /// The openings in the tail that are to be erased; with `before`, those that a record before it refers to.
    fn openings_of(&self, request: &EraseRequest, before: Option<u64>) -> Vec<ErasedUnit> {
        let is_concerned = |opening: &TailOpening| {
            opening.secret.as_ref().is_some_and(|Secret { scope, opening }| {
                request.concerns(scope, opening.email(), opening.address().is_none())
            })
        };
        let mut found = Vec::new();
        for unit in self.shared.tail.units() {
            let content = unit.read();
            let is_before = |slot: u32| {
                let first = content.index.first_of_slot(slot).map(|index| unit.first_sequence + u64::from(index));
                before.is_none_or(|before| first.is_some_and(|first| first < before))
            };
            let slots: Vec<u32> = (0..)
                .zip(&content.openings)
                .filter(|(slot, opening)| is_concerned(opening) && is_before(*slot))
                .map(|(slot, _)| slot)
                .collect();
            if !slots.is_empty() {
                found.push(ErasedUnit { first_sequence: unit.first_sequence, slots });
            }
        }
        found
    }

    /// Removes the openings of erasures whose records are durable from the tail, and answers.
    fn answer_erasures(&mut self, durable: u64) {
        for erasure in self.erasures.extract_if(.., |erasure| erasure.sequence <= durable) {
            let PendingErasure { first, sequence, count, tail, policy_sequence, reply } = erasure;
            self.shared.tail.erase(&tail);
            self.shared.decoded.clear();
            drop(reply.send(Ok(RecordedErasure { first, sequence, count, tail, policy_sequence })));
            self.shared.inbox.wake();
        }
    }

    /// Removes the openings that records hold from a part of the journal; returns the next part.
    pub(super) fn redact(&mut self, part: u64, holders: &HashSet<u64>) -> Result<Option<u64>, JournalError> {
        if part == 0 {
            let Some(oldest) = self.shared.tail.oldest() else {
                // Everything is sealed: the journal has to keep only the next sequence.
                self.journal.roll()?;
                return self.journal.truncate_before(self.journal.next_sequence()).map(|()| None);
            };
            self.journal.truncate_before(oldest.first_sequence)?;
        }
        self.journal.redact_part(part, &mut |sequence, bytes| holders.contains(&sequence) && erase_tail_opening(bytes))
    }
}

/// Splits the units so that each part fits one record. Without units there is one empty part.
fn in_pieces<'a>(units: impl Iterator<Item = &'a ErasedUnit>) -> Vec<Vec<ErasedUnit>> {
    let (mut pieces, mut piece, mut slots) = (Vec::new(), Vec::new(), 0);
    for unit in units {
        for part in unit.slots.chunks(ERASED_SLOTS_MAX) {
            if slots + part.len() > ERASED_SLOTS_MAX {
                pieces.push(std::mem::take(&mut piece));
                slots = 0;
            }
            slots += part.len().max(8);
            piece.push(ErasedUnit { first_sequence: unit.first_sequence, slots: part.to_vec() });
        }
    }
    pieces.push(piece);
    pieces
}
