//! Verifying one unit of the log.
//!
//! Invariant: every record has its sequence and its organization's. Its personal data opens its commitment, or was erased
//! on record. The index finds it under exactly its own terms.
//! Not here: what holds over units (`walk`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::openings;
use super::super::tail::UnitContent;
use super::walk::Walk;
use crate::audit::commitment::{Commitment, record_hash};
use crate::audit::merkle::{Hash, TILE_LEAVES};
use crate::audit::record::{Content, Entry};
use crate::audit::terms::for_each_term;
use crate::policy::change::ChangeIdentity;
use crate::store::codec::audit::{StoredEntry, decode_entry};
use crate::store::sealed::{IndexSet, Openings, SealedError, SealedFiles, SealedUnit, Tile};

/// A fault: the first sequence affected, and a description.
type Fault = (u64, String);

/// The records of a unit, in either form.
pub(super) enum Records<'a> {
    Sealed { unit: Box<SealedUnit>, openings: Result<Openings, Fault> },
    Tail(&'a UnitContent),
}

/// See the module.
pub(super) struct UnitCheck<'a, 'b, 'c> {
    walk: &'a mut Walk<'b>,
    first: u64,
    records: Records<'c>,
    postings: BTreeMap<Vec<u8>, Vec<u16>>,
    tile: Option<(usize, Arc<Tile>)>,
    term: Vec<u8>,
}

impl Records<'_> {
    pub(super) fn open(files: &SealedFiles, first: u64) -> Result<Self, Fault> {
        let fault = |error: SealedError| (error.sequence().unwrap_or(first), error.to_string());
        let unit = files.open(first).map_err(fault)?;
        let openings = files.openings(first).map_err(fault);
        Ok(Self::Sealed { unit: Box::new(unit), openings })
    }

    fn count(&self) -> usize {
        match self {
            Self::Sealed { unit, .. } => unit.count(),
            Self::Tail(content) => content.len(),
        }
    }
}

impl<'a, 'b, 'c> UnitCheck<'a, 'b, 'c> {
    pub(super) fn new(walk: &'a mut Walk<'b>, first: u64, records: Records<'c>) -> Self {
        Self { walk, first, records, postings: BTreeMap::new(), tile: None, term: Vec::new() }
    }

    pub(super) fn run(mut self) {
        let faults_before = self.walk.faults.len();
        if let Records::Sealed { openings: Err((sequence, message)), .. } = &self.records {
            let (sequence, message) = (*sequence, message.clone());
            self.walk.break_at(sequence, message);
        }
        for index in 0..self.records.count() {
            if index.is_multiple_of(TILE_LEAVES) && !self.walk.goes_on() {
                return;
            }
            self.record(index);
        }
        if self.walk.faults.len() == faults_before {
            self.check_index();
        }
    }

    /// Checks the index, which the records alone do not vouch for.
    fn check_index(&mut self) {
        let Records::Sealed { unit, openings } = &self.records else { return };
        let first = self.first;
        let checked = unit.verify_bytes().and_then(|()| match openings {
            Ok(openings) => openings.verify_bytes(),
            Err(_) => Ok(()),
        });
        let result = checked.and_then(|()| index_fits(unit, &self.postings));
        match result {
            Ok(true) => {}
            Ok(false) => self.walk.fault(first, format!("the index of the records from {first} on does not fit them")),
            Err(error) => self.walk.fault(error.sequence().unwrap_or(first), error.to_string()),
        }
    }

    fn record(&mut self, index: usize) {
        let sequence = self.walk.expected;
        self.walk.expected += 1;
        let body = match self.body(index) {
            Ok(body) => body,
            Err(message) => {
                // The records of a tile are read together: one message for all of them.
                if index.is_multiple_of(TILE_LEAVES) || !self.walk.broken {
                    self.walk.break_at(sequence, message);
                }
                return;
            }
        };
        let decoded = match decode_entry(&body) {
            Ok(decoded) => decoded,
            Err(error) => return self.walk.break_at(sequence, format!("record {sequence} is no record: {error}")),
        };
        let StoredEntry { sequence: written, organization_sequence, slot, entry } = decoded;
        if written != sequence {
            let message = format!("record {written} stands where record {sequence} should be");
            return self.walk.break_at(sequence, message);
        }
        self.check_organization(sequence, organization_sequence, &entry);
        let commitment = match slot.map(|slot| self.commitment(sequence, slot)).transpose() {
            Ok(commitment) => commitment,
            Err(message) => return self.walk.break_at(sequence, message),
        };
        let leaf = record_hash(&body, commitment.as_slice());
        if let Some(root) = self.walk.leaf(leaf) {
            self.check_tile(index, root);
        }
        self.note(index, slot, &entry);
    }

    fn body(&mut self, index: usize) -> Result<Arc<[u8]>, String> {
        let missing = || "the record is missing".to_owned();
        let unit = match &self.records {
            Records::Tail(content) => {
                return content.body(index).map(Into::into).ok_or_else(missing);
            }
            Records::Sealed { unit, .. } => unit,
        };
        let number = index / TILE_LEAVES;
        let tile = match &self.tile {
            Some((loaded, tile)) if *loaded == number => Arc::clone(tile),
            _ => {
                let tile = unit.tile(number).map_err(|error| error.to_string())?;
                self.tile = Some((number, Arc::clone(&tile)));
                tile
            }
        };
        tile.body(index % TILE_LEAVES).map(Into::into).ok_or_else(missing)
    }

    fn check_organization(&mut self, sequence: u64, organization_sequence: u64, entry: &Entry) {
        let Some(organization) = &entry.organization else { return };
        let last = self.walk.organizations.entry(organization.to_string()).or_default();
        let expected = *last + 1;
        *last = organization_sequence;
        if organization_sequence != expected && !self.walk.broken {
            let message = format!(
                "record {sequence} is number {organization_sequence} of `organizations/{organization}`, and number \
                 {expected} was to come"
            );
            self.walk.fault(sequence, message);
        }
    }

    fn commitment(&mut self, sequence: u64, slot: u32) -> Result<Commitment, String> {
        let missing = || format!("the personal data of record {sequence} is missing");
        let (commitment, erased) = match &self.records {
            Records::Tail(content) => {
                let opening = content.openings.get(slot as usize).ok_or_else(missing)?;
                openings::commitment(opening)
            }
            Records::Sealed { openings: Err((_, message)), .. } => return Err(message.clone()),
            Records::Sealed { openings: Ok(file), .. } => {
                let stored = file.get(slot).map_err(|error| error.to_string())?.ok_or_else(missing)?;
                openings::commitment(&openings::to_tail(stored))
            }
        };
        if erased {
            self.walk.erased.entry((self.first, slot)).or_insert(sequence);
        }
        Ok(commitment)
    }

    fn check_tile(&mut self, index: usize, root: Hash) {
        let tiles = match &self.records {
            Records::Sealed { unit, .. } => unit.tile_summaries(),
            Records::Tail(content) => content.tiles.as_slice(),
        };
        let kept = tiles.get(index / TILE_LEAVES).map(|tile| Hash::new(tile.root));
        if kept != Some(root) && !self.walk.broken {
            let last = self.first + index as u64;
            let tile_first = last + 1 - TILE_LEAVES as u64;
            self.walk.break_at(tile_first, format!("records {tile_first} to {last} are not those that were sealed"));
        }
    }

    fn note(&mut self, index: usize, slot: Option<u32>, entry: &Entry) {
        match &entry.content {
            Content::Erased(erased) => {
                for unit in &erased.units {
                    self.walk.named.extend(unit.slots.iter().map(|slot| (unit.first_sequence, *slot)));
                }
            }
            Content::Pruned(pruned) => self.walk.removals.push((pruned.to_sequence, pruned.root)),
            Content::KeyChanged(change) => self.walk.keys.changed(self.first + index as u64, change),
            Content::PolicyChanged(change) => {
                self.walk.policy_sequence = self.walk.policy_sequence.max(change.policy_sequence);
                if self.walk.notes_changes {
                    let organization = entry.organization.clone();
                    let recorded = ChangeIdentity { time: entry.time, organization, revision: change.revision };
                    self.walk.policy_changes.insert(change.policy_sequence, recorded);
                }
            }
            _ => {}
        }
        if matches!(self.records, Records::Sealed { .. }) {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            for_each_term(entry, slot, &mut self.term, &mut |term: &[u8]| match self.postings.get_mut(term) {
                Some(list) if list.last() == Some(&index) => {}
                Some(list) => list.push(index),
                None => drop(self.postings.insert(term.to_vec(), vec![index])),
            });
        }
    }
}

/// Whether a sealed unit's index is the one that its records make.
fn index_fits(unit: &SealedUnit, expected: &BTreeMap<Vec<u8>, Vec<u16>>) -> Result<bool, SealedError> {
    let terms = unit.terms_with_prefix(&[])?;
    if terms.len() != expected.len() {
        return Ok(false);
    }
    for ((term, _), (expected_term, indexes)) in terms.iter().zip(expected) {
        let mut set = IndexSet::default();
        unit.postings(term, &mut set)?;
        if term != expected_term || !set.iter().eq(indexes.iter().copied()) {
            return Ok(false);
        }
    }
    Ok(true)
}
