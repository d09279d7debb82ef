//! Reading the journal of the log back into units of the tail.
//!
//! Invariant: every record comes back under its sequence, in its unit.
//! Not here: sealed units, and comparing with what was signed (`recovery`, `verify`).

use std::collections::HashMap;

use super::open_error::AuditOpenError;
use super::tail::{TailRecord, TailUnit};
use super::unit_limits::UNIT_RECORDS_MAX;
use crate::audit::commitment::record_hash;
use crate::audit::merkle::MerkleTree;
use crate::audit::record::{Content, ErasedUnit};
use crate::policy::name::Id;
use crate::store::codec::CodecError;
use crate::store::codec::audit::{StoredEntry, decode_entry, decode_tail};
use crate::store::{JournalError, Log};

/// The units of the journal, while they are read.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) tree: MerkleTree,
    pub(super) units: Vec<TailUnit>,
    pub(super) organizations: HashMap<Id, u64>,
    pub(super) policy_sequence: u64,
    /// The openings that records of the journal list as erased.
    pub(super) erased: Vec<ErasedUnit>,
}

/// The units of a journal's records, and the first fault among them: its sequence and its description.
pub(super) fn read_tail(records: Vec<Result<(u64, Vec<u8>), JournalError>>) -> (Vec<TailUnit>, Option<(u64, String)>) {
    let mut replay = Replay::default();
    let (mut fault, mut next) = (None, 0);
    for record in records {
        let result = record.map_err(AuditOpenError::from).and_then(|(sequence, bytes)| {
            next = sequence + 1;
            replay.take(sequence, &bytes)
        });
        if let Err(error) = result {
            let sequence = match &error {
                AuditOpenError::Record { sequence, .. }
                | AuditOpenError::Journal(JournalError::Damaged { sequence, .. }) => *sequence,
                AuditOpenError::Journal(JournalError::Missing { expected, .. }) => *expected,
                _ => next.max(1),
            };
            fault = Some((sequence, error.to_string()));
            break;
        }
    }
    (replay.units, fault)
}

impl Replay {
    /// Reads the journal's unsealed records.
    pub(super) fn read(&mut self, journal: &dyn Log, from: u64) -> Result<(), AuditOpenError> {
        for record in journal.read_from(from)? {
            let (sequence, bytes) = record?;
            self.take(sequence, &bytes)?;
        }
        Ok(())
    }

    /// Takes the next record.
    fn take(&mut self, sequence: u64, bytes: &[u8]) -> Result<(), AuditOpenError> {
        let damaged = |source| AuditOpenError::Record { sequence, source };
        let tail = decode_tail(bytes).map_err(damaged)?;
        let StoredEntry { sequence: written, organization_sequence, slot, entry } =
            decode_entry(&tail.body).map_err(damaged)?;
        if written != sequence || (self.begins_unit() && !tail.begins_unit) {
            return Err(damaged(CodecError::Invalid("sequence")));
        }
        if tail.begins_unit {
            self.end_unit();
            self.units.push(TailUnit::new(sequence));
        }
        let Some(unit) = self.units.last() else { return Err(damaged(CodecError::Invalid("unit"))) };
        let tree = &mut self.tree;
        let policy_sequence = unit.change(|content| {
            content.openings.extend(tail.opening);
            let opening = slot.and_then(|slot| content.openings.get(slot as usize));
            let commitment = opening.map(|opening| opening.commitment);
            let leaf = record_hash(&tail.body, commitment.as_slice());
            let root = tree.append(leaf).map(Into::into);
            content.push(&TailRecord { body: &tail.body, entry: &entry, slot, organization_sequence, root });
            content.ended = content.len() == UNIT_RECORDS_MAX;
            content.policy_sequence
        });
        self.policy_sequence = self.policy_sequence.max(policy_sequence);
        if let Content::Erased(erased) = entry.content {
            self.erased.extend(erased.units);
        }
        if let Some(organization) = entry.organization {
            self.organizations.insert(organization, organization_sequence);
        }
        Ok(())
    }

    /// Whether the next record has to begin a unit.
    fn begins_unit(&self) -> bool {
        self.units.last().is_none_or(|unit| unit.read().ended)
    }

    fn end_unit(&self) {
        if let Some(unit) = self.units.last() {
            unit.change(|content| content.ended = true);
        }
    }
}
