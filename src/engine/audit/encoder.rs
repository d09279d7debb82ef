//! The encoder gives records their sequences, bytes and leaf hashes.
//!
//! Invariant: a sequence is given once, in the order of the queue. A frame holds records of one unit only.
//! Not here: the disk (`committer`).

use std::collections::HashMap;
use std::ops::Range;
use std::vec::Drain;

use foldhash::fast::RandomState;

use super::queue::Queued;
use super::tail::SlotKey;
use super::unit_limits::{UNIT_RECORDS_MAX, UnitLimits};
use crate::audit::commitment::{Commitment, Opening, Salt, record_hash};
use crate::audit::merkle::{Hash, TILE_LEAVES};
use crate::audit::record::{Entry, Identity};
use crate::policy::name::Id;
use crate::store::codec::audit::{Secret, TailOpening, append_entry, make_tail};

/// The most records of a frame. While one frame is written the next is encoded.
pub(super) const FRAME_RECORDS_MAX: usize = 8_192;

/// Bytes of records after which a frame is full.
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Buffers with at most this capacity are reused for other records.
const SPARE_BYTES_MAX: usize = 1024;

/// The pause before it asks for random numbers again.
const RANDOM_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// See the module.
pub(super) struct Encoder {
    /// The sequence of the next record.
    pub(super) sequence: u64,
    /// How many records each organization has.
    pub(super) organizations: HashMap<Id, u64, RandomState>,
    pub(super) unit: OpenUnit,
    /// When the unit ends.
    pub(super) limits: UnitLimits,
    salts: Salts,
    /// Buffers of earlier frames, to be reused: those of records, and whole frames.
    spare_bytes: Vec<Vec<u8>>,
    spare: Vec<Frame>,
}

/// The unit that is being written, as far as its records are encoded.
#[derive(Default)]
pub(super) struct OpenUnit {
    pub(super) len: usize,
    /// Of its records, as they are stored.
    pub(super) bytes: usize,
    /// The time of its first record, in microseconds.
    pub(super) first_time: i64,
    pub(super) slots: HashMap<SlotKey, u32, RandomState>,
    /// By slot.
    pub(super) commitments: Vec<Commitment>,
    /// It ends at the next tile.
    pub(super) end_requested: bool,
}

/// Records that are written together.
#[derive(Default)]
pub(super) struct Frame {
    pub(super) first_sequence: u64,
    /// As the journal holds them.
    pub(super) bytes: Vec<Vec<u8>>,
    pub(super) records: Vec<EncodedRecord>,
    /// A unit begins with the first of them.
    pub(super) begins_unit: bool,
    /// Their unit ends with the last of them.
    pub(super) ends_unit: bool,
}

/// A record that has its sequence and bytes.
pub(super) struct EncodedRecord {
    pub(super) entry: Entry,
    /// Where its own bytes are in those of the journal.
    pub(super) body: Range<usize>,
    pub(super) leaf: Hash,
    pub(super) slot: Option<u32>,
    pub(super) opening: Option<TailOpening>,
    pub(super) organization_sequence: u64,
}

/// Random salts, drawn many at a time.
#[derive(Default)]
pub(super) struct Salts {
    drawn: Vec<[u8; Salt::BYTES]>,
}

impl Encoder {
    pub(super) fn new(sequence: u64, organizations: HashMap<Id, u64, RandomState>, unit: OpenUnit) -> Self {
        let (limits, salts) = (UnitLimits::default(), Salts::default());
        Self { sequence, organizations, unit, limits, salts, spare_bytes: Vec::new(), spare: Vec::new() }
    }

    /// The next frame of `records`; none where there are none.
    pub(super) fn frame(&mut self, records: &mut Drain<'_, Queued>) -> Option<Frame> {
        let time = records.as_slice().first()?.entry.time.micros();
        // A full tile may be at the end of its unit only now: by the time that has passed.
        if self.unit.is_at_tile_end() && self.unit.is_due(&self.limits, time) {
            self.unit = OpenUnit::default();
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.first_sequence = self.sequence;
        frame.begins_unit = self.unit.len == 0;
        let room = self.room_of_unit(time).min(FRAME_RECORDS_MAX);
        let (mut bytes, mut newest) = (0, time);
        while frame.records.len() < room
            && bytes < FRAME_BYTES_MAX
            && let Some(queued) = records.next()
        {
            let begins_unit = self.unit.len == 0;
            newest = queued.entry.time.micros();
            let mut buffer = self.spare_bytes.pop().unwrap_or_default();
            buffer.clear();
            frame.records.push(self.encode(queued, &mut buffer, begins_unit));
            bytes += buffer.len();
            frame.bytes.push(buffer);
        }
        let is_due = self.unit.len == UNIT_RECORDS_MAX || self.unit.is_due(&self.limits, newest);
        frame.ends_unit = self.unit.is_at_tile_end() && is_due;
        if frame.ends_unit {
            self.unit = OpenUnit::default();
        }
        Some(frame)
    }

    /// Takes back the buffers of a frame that was written.
    pub(super) fn take_back(&mut self, mut frame: Frame) {
        frame.records.clear();
        if self.spare_bytes.len() < FRAME_RECORDS_MAX {
            self.spare_bytes.extend(frame.bytes.drain(..).filter(|bytes| bytes.capacity() <= SPARE_BYTES_MAX));
        }
        frame.bytes.clear();
        self.spare.push(frame);
    }

    /// Ends the unit that is being written, if it has a tile: with the tile that is begun. True if none is begun, so that it
    /// has ended.
    pub(super) fn end_unit(&mut self) -> bool {
        if self.unit.is_at_tile_end() {
            self.unit = OpenUnit::default();
            return true;
        }
        self.unit.end_requested |= self.unit.len >= TILE_LEAVES;
        false
    }

    /// Forgets the openings that `concerns` selects: later records of the same identities get new ones.
    pub(super) fn forget(&mut self, concerns: impl Fn(&SlotKey) -> bool) {
        self.unit.slots.retain(|key, _| !concerns(key));
    }

    /// How many more records fit into the unit, or into its tile where it ends with that.
    fn room_of_unit(&self, time: i64) -> usize {
        let len = self.unit.len;
        let ends_with_tile = self.unit.is_due(&self.limits, time);
        let end = if ends_with_tile { (len + 1).next_multiple_of(TILE_LEAVES) } else { self.limits.records };
        end.min(UNIT_RECORDS_MAX).saturating_sub(len)
    }

    /// Gives a record its sequence, and `bytes` what the journal holds of it.
    fn encode(&mut self, Queued { entry, identity }: Queued, bytes: &mut Vec<u8>, begins_unit: bool) -> EncodedRecord {
        let organization_sequence = entry.organization.as_ref().map_or(0, |organization| {
            if let Some(count) = self.organizations.get_mut(organization) {
                *count += 1;
                *count
            } else {
                self.organizations.insert(organization.clone(), 1);
                1
            }
        });
        let (slot, opening) =
            identity.map_or((None, None), |identity| self.slot(entry.organization.as_ref(), identity));
        append_entry(bytes, self.sequence, organization_sequence, slot, &entry);
        let commitment = slot.and_then(|slot| self.unit.commitments.get(slot as usize));
        let leaf = record_hash(bytes, commitment.map(std::slice::from_ref).unwrap_or_default());
        let body = make_tail(bytes, opening.as_ref(), begins_unit);
        if self.unit.len == 0 {
            self.unit.first_time = entry.time.micros();
        }
        self.sequence += 1;
        self.unit.len += 1;
        self.unit.bytes += body.len();
        EncodedRecord { entry, body, leaf, slot, opening, organization_sequence }
    }

    /// The slot of an identity in this unit, and the opening where it is new.
    fn slot(&mut self, organization: Option<&Id>, identity: Identity) -> (Option<u32>, Option<TailOpening>) {
        let key = (organization.cloned(), identity);
        if let Some(slot) = self.unit.slots.get(&key) {
            return (Some(*slot), None);
        }
        let (_, identity) = &key;
        // Emails are limited to a few hundred characters.
        let Ok(opening) = Opening::new(self.salts.next(), &**identity.name(), identity.address()) else {
            return (None, None);
        };
        let commitment = opening.commitment();
        let slot = u32::try_from(self.unit.commitments.len()).unwrap_or(u32::MAX);
        self.unit.commitments.push(commitment);
        self.unit.slots.insert(key, slot);
        let scope = organization.map(ToString::to_string).unwrap_or_default();
        (Some(slot), Some(TailOpening { commitment, secret: Some(Secret { scope, opening }) }))
    }
}

impl OpenUnit {
    /// Whether it has a tile, and its last one is full: only there a unit may end.
    fn is_at_tile_end(&self) -> bool {
        self.len > 0 && self.len.is_multiple_of(TILE_LEAVES)
    }

    /// Whether it is to end, with the tile that is begun, before a record of this time.
    fn is_due(&self, limits: &UnitLimits, time: i64) -> bool {
        self.end_requested || limits.are_reached(self.len, self.bytes, time.saturating_sub(self.first_time))
    }
}

impl Salts {
    fn next(&mut self) -> Salt {
        const DRAWN: usize = 256;
        if self.drawn.is_empty() {
            self.drawn.resize(DRAWN, [0; Salt::BYTES]);
            // A salt must be random. The operating system gave random numbers at the start, so it will do so again.
            while let Err(error) = getrandom::fill(self.drawn.as_flattened_mut()) {
                tracing::error!(%error, "the operating system gives no random numbers: the audit log waits for them");
                std::thread::sleep(RANDOM_INTERVAL);
            }
        }
        Salt::new(self.drawn.pop().unwrap_or_default())
    }
}
