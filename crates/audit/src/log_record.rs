//! What a record says about the log itself: what is missing, removed or erased, and by which clock, key and history it goes
//! on (design.md §2.8).
//!
//! Invariant: none of it names a person; what somebody asked for has its actor beside it.
//! Not here: records of decisions, sessions and changes of policy (`record`).

use std::sync::Arc;

use super::lineage::Lineage;
use super::merkle::Hash;
use portcullis_policy::time::Timestamp;

/// Decisions that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapRecord {
    /// When the first of them may have been made.
    pub from_time: Timestamp,
    /// When the last of them may have been made.
    pub to_time: Timestamp,
    /// How many; after an unclean stop how many at most, or 0 where that is not known either.
    pub count: u64,
}

/// Records that were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrunedRecord {
    /// The last of them.
    pub to_sequence: u64,
    /// The root over all records up to it.
    pub root: Hash,
}

/// Personal data that was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedRecord {
    /// How many openings went with this record and those of the same erasure before it.
    pub opening_count: u64,
    /// Those that went with this record.
    pub units: Vec<ErasedUnit>,
}

/// Openings of one unit of the log that were erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedUnit {
    /// The unit's first record.
    pub first_sequence: u64,
    /// Their numbers within the unit, ascending.
    pub slots: Vec<u32>,
}

/// The decision time made a step, or a step of a start was confirmed (design.md §2.2). The record has the time after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockChangedRecord {
    /// The decision time just before; in a confirmation the time that had surely passed until then.
    pub from_time: Timestamp,
    /// The decision time just after; earlier where the clock had been ahead.
    pub to_time: Timestamp,
    /// Why.
    pub cause: ClockChangeCause,
}

impl ClockChangedRecord {
    /// By how many microseconds it leads forwards.
    pub fn by(&self) -> i64 {
        self.to_time.micros().saturating_sub(self.from_time.micros())
    }
}

/// Why there is a record about the decision time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockChangeCause {
    /// The wall clock had shown something else for a minute.
    Correction,
    /// The service started from the wall clock, which is ahead of the newest record. Whether so much time has passed is not
    /// known before a confirmation: until then, and for ever where a correction comes instead, it counts as none.
    Start,
    /// The wall clock has shown for a minute what it showed at the starts since the last correction or confirmation: so much
    /// time has passed.
    Confirmation,
}

/// From this record on another key signs the checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChangedRecord {
    /// The verifier key that signed before, as text; empty where it is not known.
    pub previous_key: Arc<str>,
    /// The verifier key that signs from now on, as text.
    pub key: Arc<str>,
    /// How many records the newest checkpoint of the previous key covers.
    pub signed_size: u64,
}

/// The data directory was restored from a backup (design.md §2.11): records that were made after the backup are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredRecord {
    /// The lineage of the backup.
    pub previous_lineage: Lineage,
    /// The lineage from now on.
    pub lineage: Lineage,
}
