//! The tail of the log: the units that are not sealed yet, in memory as they are in the journal.
//!
//! Invariant: only what is durable is in it. Records of a unit are appended by the audit writer alone; a unit leaves when
//! its sealed file has been taken over, so that at no moment a record is in neither.
//! Not here: sealed units (`units`), the journal's bytes (`writer`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use foldhash::fast::RandomState;

use crate::audit::merkle::TILE_LEAVES;
use crate::audit::record::Person;
use crate::policy::name::Id;
use crate::store::codec::audit::{TailOpening, UnitSummary};
use crate::store::sealed::{IndexSet, TileSummary};

/// A record as it is stored, and its time in microseconds.
#[derive(Debug)]
pub(super) struct TailRecord {
    pub(super) body: Box<[u8]>,
    pub(super) time_micros: i64,
}

/// Where the openings of a unit get their numbers.
pub(super) type SlotKey = (Option<Id>, Person);

/// A unit that is being written, or waits to be sealed.
#[derive(Debug)]
pub(super) struct TailUnit {
    pub(super) first_sequence: u64,
    content: RwLock<UnitContent>,
}

/// What a unit holds.
#[derive(Debug, Default)]
pub(super) struct UnitContent {
    pub(super) records: Vec<TailRecord>,
    pub(super) openings: Vec<TailOpening>,
    /// Of full tiles the root, else zeros.
    pub(super) tiles: Vec<TileSummary>,
    /// Ascending indexes of the records that have a term.
    pub(super) postings: HashMap<Vec<u8>, Vec<u16>, RandomState>,
    pub(super) organizations: HashMap<Id, u64>,
    pub(super) policy_sequence: u64,
    /// No more records will come.
    pub(super) ended: bool,
}

impl TailUnit {
    pub(super) fn new(first_sequence: u64) -> Self {
        Self { first_sequence, content: RwLock::default() }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, UnitContent> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut UnitContent) -> T) -> T {
        change(&mut self.content.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn len(&self) -> usize {
        self.read().records.len()
    }
}

impl UnitContent {
    /// Appends a record with its index terms; `root` where a tile is full with it.
    pub(super) fn push(
        &mut self,
        record: TailRecord,
        terms: impl FnOnce(&mut dyn FnMut(&[u8])),
        root: Option<[u8; 32]>,
    ) {
        let index = u16::try_from(self.records.len()).unwrap_or(u16::MAX);
        let postings = &mut self.postings;
        terms(&mut |term| match postings.get_mut(term) {
            // A record may have a term twice, such as a rule that moved.
            Some(list) if list.last() == Some(&index) => {}
            Some(list) => list.push(index),
            None => drop(postings.insert(term.to_vec(), vec![index])),
        });
        let time = record.time_micros;
        if self.records.len().is_multiple_of(TILE_LEAVES) {
            self.tiles.push(TileSummary { min_time: time, max_time: time, root: [0; 32] });
        }
        if let Some(tile) = self.tiles.last_mut() {
            tile.min_time = tile.min_time.min(time);
            tile.max_time = tile.max_time.max(time);
            if let Some(root) = root {
                tile.root = root;
            }
        }
        self.records.push(record);
    }

    /// The summary that is sealed with the unit.
    pub(super) fn summary(&self) -> UnitSummary {
        let mut organizations: Vec<(Id, u64)> =
            self.organizations.iter().map(|(id, count)| (id.clone(), *count)).collect();
        organizations.sort_unstable();
        UnitSummary { organizations, policy_sequence: self.policy_sequence }
    }

    /// The postings in the order in which they are sealed.
    pub(super) fn sorted_postings(&self) -> BTreeMap<Vec<u8>, Vec<u16>> {
        self.postings.iter().map(|(term, list)| (term.clone(), list.clone())).collect()
    }

    /// Adds the records that have a term.
    pub(super) fn add_postings(&self, term: &[u8], set: &mut IndexSet) {
        for index in self.postings.get(term).into_iter().flatten() {
            set.insert(*index);
        }
    }

    /// Adds the records that have a term which begins so and for whose rest `accept` holds.
    pub(super) fn add_postings_with_prefix(&self, prefix: &[u8], accept: impl Fn(&[u8]) -> bool, set: &mut IndexSet) {
        for (term, list) in &self.postings {
            if term.strip_prefix(prefix).is_some_and(&accept) {
                for index in list {
                    set.insert(*index);
                }
            }
        }
    }
}

/// The units that are not sealed, oldest first.
#[derive(Debug, Default)]
pub(super) struct Tail {
    units: RwLock<VecDeque<Arc<TailUnit>>>,
}

impl Tail {
    pub(super) fn new(units: impl IntoIterator<Item = TailUnit>) -> Self {
        Self { units: RwLock::new(units.into_iter().map(Arc::new).collect()) }
    }

    /// All units, oldest first.
    pub(super) fn units(&self) -> Vec<Arc<TailUnit>> {
        self.units.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn last(&self) -> Option<Arc<TailUnit>> {
        self.units.read().unwrap_or_else(PoisonError::into_inner).back().cloned()
    }

    pub(super) fn oldest(&self) -> Option<Arc<TailUnit>> {
        self.units.read().unwrap_or_else(PoisonError::into_inner).front().cloned()
    }

    pub(super) fn push(&self, unit: Arc<TailUnit>) {
        self.units.write().unwrap_or_else(PoisonError::into_inner).push_back(unit);
    }

    /// Gives up a unit that is sealed.
    pub(super) fn remove(&self, first_sequence: u64) {
        let mut units = self.units.write().unwrap_or_else(PoisonError::into_inner);
        units.retain(|unit| unit.first_sequence != first_sequence);
    }
}
