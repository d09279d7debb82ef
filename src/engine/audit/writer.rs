//! The audit writer: one thread that gives records their bytes and brings them to the disk.
//!
//! take what waits → places, openings, bytes, leaf hashes → one write and one sync → visible.
//!
//! Invariant: what is visible is durable. A batch that could not be written stays in memory and is written again, under
//! the same sequences, once the journal is recovered.
//! Not here: sealing and everything else that takes long (`sealer`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::Shared;
use super::queue::{Batch, Command, EraseCommand, Queued};
use super::tail::{SlotKey, TailRecord, TailUnit};
use crate::audit::commitment::{Commitment, Opening, Salt, record_hash};
use crate::audit::merkle::{Hash, TILE_LEAVES};
use crate::audit::record::{Content, Entry, ErasedRecord, ErasedUnit, Person};
use crate::audit::terms::for_each_term;
use crate::engine::clock::Clock;
use crate::policy::name::Id;
use crate::store::codec::audit::{Secret, TailOpening, encode_entry, encode_tail};
use crate::store::{Journal, JournalError};

/// Records of a unit at most; they are counted with 16 bits.
pub(super) const UNIT_RECORDS_MAX: usize = 65_536;

/// Bytes of records that are written in one piece.
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Records that are written in one piece.
const FRAME_RECORDS_MAX: usize = 16_384;

/// How often a failed journal is tried again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Openings that one record of an erasure lists, so that it stays below 32 KiB.
const ERASED_SLOTS_MAX: usize = 4_000;

/// What the writer thread owns.
pub(super) struct AuditWriter {
    pub(super) journal: Box<dyn Journal>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    /// The sequence of the next record.
    pub(super) sequence: u64,
    /// How many records each organization has.
    pub(super) organizations: HashMap<Id, u64, RandomState>,
    pub(super) unit: OpenUnit,
    pub(super) erasures: Vec<PendingErasure>,
    pub(super) salts: Salts,
    /// Records before this one are sealed.
    pub(super) sealed: u64,
}

/// The unit that is being written, as far as its records have places.
#[derive(Default)]
pub(super) struct OpenUnit {
    pub(super) len: usize,
    pub(super) slots: HashMap<SlotKey, u32, RandomState>,
    /// By slot.
    pub(super) commitments: Vec<Commitment>,
    /// It ends at the next tile.
    pub(super) end_requested: bool,
}

/// An erasure whose record is not durable yet.
pub(super) struct PendingErasure {
    sequence: u64,
    count: u64,
    tail: Vec<ErasedUnit>,
    reply: tokio::sync::oneshot::Sender<Result<Erasure, super::AuditError>>,
}

/// An erasure whose record is durable.
#[derive(Debug)]
pub(super) struct Erasure {
    /// The sequence of its last record.
    pub(super) sequence: u64,
    /// How many openings it erases.
    pub(super) count: u64,
    /// Those of them that are in the tail.
    pub(super) tail: Vec<ErasedUnit>,
}

/// Random salts, drawn many at a time.
#[derive(Default)]
pub(super) struct Salts {
    drawn: Vec<[u8; Salt::BYTES]>,
}

/// A record with its place and bytes.
struct Placed {
    entry: Entry,
    body: Vec<u8>,
    leaf: Hash,
    slot: Option<u32>,
    opening: Option<TailOpening>,
    organization_sequence: u64,
}

impl AuditWriter {
    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let gather = self.shared.options.async_interval;
        loop {
            let Batch { records, commands, closed } = self.shared.queue.take(gather, FRAME_RECORDS_MAX);
            let count = records.len();
            if !self.write_all(records) {
                tracing::error!(records = count, "the audit log cannot be written: these records are lost");
                return;
            }
            for command in commands {
                self.execute(command);
            }
            if let Some(gap) = self.shared.queue.take_gap() {
                let time = self.clock.now();
                tracing::warn!(count = gap.count, "decisions were made that could not be recorded");
                self.shared.queue.push(Entry { time, organization: None, content: Content::Gap(gap) }, None, false);
            } else if closed && count == 0 {
                return;
            }
        }
    }

    /// Writes records; false where that was given up because the service ends.
    fn write_all(&mut self, records: Vec<Queued>) -> bool {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let begins_unit = self.unit.len == 0;
            let room = self.room_of_unit().min(FRAME_RECORDS_MAX);
            let (mut placed, mut bytes) = (Vec::with_capacity(room.min(records.len())), 0);
            while placed.len() < room
                && let Some(queued) = records.next_if(|_| bytes < FRAME_BYTES_MAX)
            {
                let record = self.place(queued);
                bytes += record.body.len();
                placed.push(record);
            }
            let encode = |(index, record): (usize, &Placed)| {
                encode_tail(&record.body, record.opening.as_ref(), begins_unit && index == 0)
            };
            let frame: Vec<Vec<u8>> = placed.iter().enumerate().map(encode).collect();
            if !self.append(&frame, begins_unit) {
                return false;
            }
            self.publish(placed, begins_unit);
            if begins_unit {
                self.truncate();
            }
        }
        true
    }

    /// How many records the unit still takes.
    fn room_of_unit(&self) -> usize {
        let room = UNIT_RECORDS_MAX - self.unit.len;
        if self.unit.end_requested { room.min(TILE_LEAVES - self.unit.len % TILE_LEAVES) } else { room }
    }

    /// Gives a record its place and bytes.
    fn place(&mut self, Queued { entry, person }: Queued) -> Placed {
        let organization_sequence = entry.organization.as_ref().map_or(0, |organization| {
            if let Some(count) = self.organizations.get_mut(organization) {
                *count += 1;
                *count
            } else {
                self.organizations.insert(organization.clone(), 1);
                1
            }
        });
        let (slot, opening) = person.map_or((None, None), |person| self.slot(entry.organization.as_ref(), person));
        let body = encode_entry(self.sequence, organization_sequence, slot, &entry);
        let commitment = slot.and_then(|slot| self.unit.commitments.get(slot as usize));
        let leaf = record_hash(&body, commitment.map(std::slice::from_ref).unwrap_or_default());
        self.sequence += 1;
        self.unit.len += 1;
        Placed { entry, body, leaf, slot, opening, organization_sequence }
    }

    /// The slot of a person in this unit, and the opening where it is new.
    fn slot(&mut self, organization: Option<&Id>, person: Person) -> (Option<u32>, Option<TailOpening>) {
        let key = (organization.cloned(), person);
        if let Some(slot) = self.unit.slots.get(&key) {
            return (Some(*slot), None);
        }
        let (_, Person { email, address }) = &key;
        // Emails are limited to a few hundred characters.
        let Ok(opening) = Opening::new(self.salts.next(), &**email, *address) else { return (None, None) };
        let commitment = opening.commitment();
        let slot = u32::try_from(self.unit.commitments.len()).unwrap_or(u32::MAX);
        self.unit.commitments.push(commitment);
        self.unit.slots.insert(key, slot);
        let scope = organization.map(ToString::to_string).unwrap_or_default();
        (Some(slot), Some(TailOpening { commitment, secret: Some(Secret { scope, opening }) }))
    }

    /// Appends until it has succeeded; false where the service ends before.
    fn append(&mut self, frame: &[Vec<u8>], begins_unit: bool) -> bool {
        let mut failed = false;
        loop {
            self.shared.commits.fetch_add(1, Ordering::AcqRel);
            let result = self.try_append(frame, begins_unit);
            self.shared.commits.fetch_add(1, Ordering::AcqRel);
            match result {
                Ok(()) => break,
                Err(error) if failed => tracing::debug!(%error, "the audit log still cannot be written"),
                Err(error) => {
                    tracing::error!(%error, "the audit log cannot be written: connections are not let through until it can");
                    failed = true;
                    self.shared.set_failed(true);
                }
            }
            if self.shared.is_closing() {
                return false;
            }
            std::thread::sleep(PROBE_INTERVAL);
            if let Err(error) = self.journal.recover() {
                tracing::debug!(%error, "the journal of the audit log is not recovered");
            }
        }
        if failed {
            tracing::info!("the audit log is writable again");
            self.shared.set_failed(false);
        }
        true
    }

    fn try_append(&mut self, frame: &[Vec<u8>], begins_unit: bool) -> Result<(), JournalError> {
        if begins_unit {
            self.journal.roll()?;
        }
        self.journal.append(frame).map(drop)
    }

    /// The records are durable: makes them visible.
    fn publish(&mut self, placed: Vec<Placed>, begins_unit: bool) {
        let count = placed.len();
        let first = self.sequence - count as u64;
        let unit = if let Some(unit) = self.shared.tail.last().filter(|_| !begins_unit) {
            unit
        } else {
            let unit = Arc::new(TailUnit::new(first));
            self.shared.tail.push(Arc::clone(&unit));
            unit
        };
        let ends_unit =
            self.unit.len == UNIT_RECORDS_MAX || (self.unit.end_requested && self.unit.len.is_multiple_of(TILE_LEAVES));
        let newest = placed.last().map(|record| record.entry.time);
        {
            let (mut tree, mut term) = (self.shared.tree(), Vec::new());
            unit.change(|content| {
                for record in placed {
                    let Placed { entry, body, leaf, slot, opening, organization_sequence } = record;
                    let root = tree.append(leaf).map(Into::into);
                    let record = TailRecord { body: body.into_boxed_slice(), time_micros: entry.time.micros() };
                    content.push(record, |found| for_each_term(&entry, slot, &mut term, found), root);
                    content.openings.extend(opening);
                    if let Some(organization) = entry.organization {
                        content.organizations.insert(organization, organization_sequence);
                    }
                    if let Content::PolicyChanged(change) = &entry.content {
                        content.policy_sequence = content.policy_sequence.max(change.policy_sequence);
                    }
                }
                content.ended = ends_unit;
            });
        }
        if let Some(time) = newest {
            self.clock.advance_to(time);
        }
        self.shared.queue.written(count);
        self.shared.newest.send_replace(self.sequence - 1);
        if ends_unit {
            self.unit = OpenUnit::default();
            self.shared.wake_sealer();
        }
        self.answer_erasures();
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::EndUnit if self.unit.len >= TILE_LEAVES => self.unit.end_requested = true,
            Command::EndUnit => {}
            Command::Truncate(sequence) => {
                self.sealed = sequence;
                self.truncate();
            }
            Command::Erase(command) => self.erase(command),
            Command::Redact { units, reply } => drop(reply.send(self.redact(&units))),
        }
    }

    /// Gives up what is sealed. The journal keeps its last segment, so this is tried again with each that begins.
    fn truncate(&mut self) {
        if let Err(error) = self.journal.truncate_before(self.sealed) {
            tracing::warn!(%error, "sealed records stay in the journal of the audit log for now");
        }
    }

    /// Puts an erasure on the record. Its openings in the tail get no more records from now on.
    fn erase(&mut self, command: EraseCommand) {
        let EraseCommand { organization, email, actor, sealed, reply } = command;
        let scope = organization.as_ref().map(Id::as_str);
        let concerns =
            |key: &SlotKey| *key.1.email == *email && (scope.is_none() || key.0.as_ref().map(Id::as_str) == scope);
        self.unit.slots.retain(|key, _| !concerns(key));
        let mut tail = Vec::new();
        for unit in self.shared.tail.units() {
            let content = unit.read();
            let is_his = |opening: &TailOpening| {
                opening.secret.as_ref().is_some_and(|Secret { scope: of, opening }| {
                    opening.email() == email && scope.is_none_or(|scope| scope == of)
                })
            };
            let slots: Vec<u32> =
                (0..).zip(&content.openings).filter(|(_, opening)| is_his(opening)).map(|(slot, _)| slot).collect();
            if !slots.is_empty() {
                tail.push(ErasedUnit { first_sequence: unit.first_sequence, slots });
            }
        }
        let (mut count, mut sequence) = (0, 0);
        let actor = Person { email: actor.into(), address: None };
        for units in in_pieces(sealed.iter().chain(&tail)) {
            count += units.iter().map(|unit| unit.slots.len() as u64).sum::<u64>();
            let content = Content::Erased(ErasedRecord { opening_count: count, units });
            let entry = Entry { time: self.clock.now(), organization: organization.clone(), content };
            sequence = self.shared.queue.push(entry, Some(actor.clone()), true);
        }
        self.erasures.push(PendingErasure { sequence, count, tail, reply });
    }

    fn answer_erasures(&mut self) {
        let durable = self.sequence - 1;
        for erasure in self.erasures.extract_if(.., |erasure| erasure.sequence <= durable) {
            let PendingErasure { sequence, count, tail, reply } = erasure;
            drop(reply.send(Ok(Erasure { sequence, count, tail })));
        }
    }

    /// Takes openings out of the journal and of memory.
    fn redact(&mut self, units: &[ErasedUnit]) -> Result<(), JournalError> {
        let tail = self.shared.tail.units();
        let Some(oldest) = tail.first() else {
            // Everything is sealed, and the journal keeps only what it still has to tell: the next sequence.
            self.journal.roll()?;
            return self.journal.truncate_before(self.journal.next_sequence());
        };
        self.journal.truncate_before(oldest.first_sequence)?;
        super::recovery::redact_journal(&mut *self.journal, oldest.first_sequence, units)?;
        for ErasedUnit { first_sequence, slots } in units {
            if let Some(unit) = tail.iter().find(|unit| unit.first_sequence == *first_sequence) {
                unit.change(|content| {
                    for slot in slots {
                        if let Some(opening) = content.openings.get_mut(*slot as usize) {
                            opening.secret = None;
                        }
                    }
                });
            }
        }
        Ok(())
    }
}

impl Drop for AuditWriter {
    /// Also when it ends by a panic: without a writer nothing can be recorded.
    fn drop(&mut self) {
        self.shared.set_failed(true);
        self.shared.written.store(true, Ordering::Release);
        self.shared.wake_sealer();
    }
}

impl Salts {
    fn next(&mut self) -> Salt {
        const DRAWN: usize = 256;
        if self.drawn.is_empty() {
            self.drawn.resize(DRAWN, [0; Salt::BYTES]);
            // Without random numbers nothing can be hidden; the process could not even have begun.
            while let Err(error) = getrandom::fill(self.drawn.as_flattened_mut()) {
                tracing::error!(%error, "no random numbers for the audit log");
                std::thread::sleep(PROBE_INTERVAL);
            }
        }
        Salt::new(self.drawn.pop().unwrap_or_default())
    }
}

/// The units in pieces that each fit one record; one empty piece where there is nothing.
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
