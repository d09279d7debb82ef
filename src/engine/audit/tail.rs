//! The tail of the log: the units that are not sealed yet, in memory as they are in the journal.
//!
//! Invariant: it holds durable records only, which the committer alone appends. A unit leaves once readers can see its
//! sealed file, so that every record is always in one of the two.
//! Not here: sealed units (`units`), the journal's bytes (`writer`).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use foldhash::fast::RandomState;

use super::tail_index::TailIndex;
use super::units::UnitInfo;
use crate::audit::merkle::TILE_LEAVES;
use crate::audit::record::{Content, Entry, ErasedUnit, Identity};
use crate::audit::terms::for_each_term;
use crate::locks::IgnorePoison;
use crate::policy::change::ChangeIdentity;
use crate::policy::name::Id;
use crate::store::codec::audit::{TailOpening, UnitSummary};
use crate::store::sealed::TileSummary;

/// A record that a unit takes.
pub(super) struct TailRecord<'a> {
    /// As it is stored.
    pub(super) body: &'a [u8],
    pub(super) entry: &'a Entry,
    pub(super) slot: Option<u32>,
    pub(super) organization_sequence: u64,
    /// The root of the tile, if this record is its last.
    pub(super) root: Option<[u8; 32]>,
}

/// The records of a tile, one after the other.
#[derive(Debug, Default)]
struct TileBodies {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// The key by which a unit numbers its openings (slots).
pub(super) type SlotKey = (Option<Id>, Identity);

/// A unit that is being written, or waits to be sealed.
#[derive(Debug)]
pub(super) struct TailUnit {
    pub(super) first_sequence: u64,
    content: RwLock<UnitContent>,
}

/// What a unit holds.
#[derive(Debug, Default)]
pub(super) struct UnitContent {
    len: usize,
    bodies: Vec<TileBodies>,
    pub(super) openings: Vec<TailOpening>,
    /// A tile that is not full has zeros for a root.
    pub(super) tiles: Vec<TileSummary>,
    pub(super) index: TailIndex,
    /// A buffer for terms.
    term: Vec<u8>,
    organizations: HashMap<Id, u64, RandomState>,
    pub(super) policy_sequence: u64,
    /// The change in that record of the policy journal.
    policy_change: Option<ChangeIdentity>,
    /// No more records will come.
    pub(super) ended: bool,
}

impl TailUnit {
    pub(super) fn new(first_sequence: u64) -> Self {
        Self { first_sequence, content: RwLock::default() }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, UnitContent> {
        self.content.read().ignore_poison()
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut UnitContent) -> T) -> T {
        change(&mut self.content.write().ignore_poison())
    }

    pub(super) fn len(&self) -> usize {
        self.read().len()
    }

    /// What is known of the unit so far, without the size of its files; none while it has no records.
    pub(super) fn info(&self) -> Option<UnitInfo> {
        let content = self.read();
        let min_time = content.tiles.iter().map(|tile| tile.min_time).min()?;
        let max_time = content.tiles.iter().map(|tile| tile.max_time).max()?;
        let (first_sequence, count) = (self.first_sequence, content.len() as u64);
        Some(UnitInfo { first_sequence, count, min_time, max_time, bytes: 0 })
    }
}

impl TileBodies {
    fn push(&mut self, body: &[u8]) {
        self.bytes.extend_from_slice(body);
        self.ends.push(self.bytes.len());
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        let start = index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(start..*self.ends.get(index)?)
    }
}

impl UnitContent {
    /// The number of its records.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The bytes of its records, as they are stored.
    pub(super) fn bytes(&self) -> usize {
        self.bodies.iter().map(|tile| tile.bytes.len()).sum()
    }

    /// A record as it is stored.
    pub(super) fn body(&self, index: usize) -> Option<&[u8]> {
        self.bodies.get(index / TILE_LEAVES)?.get(index % TILE_LEAVES)
    }

    /// All records as they are stored.
    pub(super) fn bodies(&self) -> Vec<&[u8]> {
        (0..self.len).filter_map(|index| self.body(index)).collect()
    }

    /// Takes the next record, under its terms.
    pub(super) fn push(&mut self, record: &TailRecord<'_>) {
        let TailRecord { body, entry, slot, organization_sequence, root } = *record;
        let number = u16::try_from(self.len).unwrap_or(u16::MAX);
        let index = &mut self.index;
        for_each_term(entry, slot, &mut self.term, &mut |term| index.insert(term, number));
        let time = entry.time.micros();
        if self.len.is_multiple_of(TILE_LEAVES) {
            self.tiles.push(TileSummary { min_time: time, max_time: time, root: [0; 32] });
            self.bodies.push(TileBodies::default());
        }
        if let (Some(tile), Some(bodies)) = (self.tiles.last_mut(), self.bodies.last_mut()) {
            tile.min_time = tile.min_time.min(time);
            tile.max_time = tile.max_time.max(time);
            if let Some(root) = root {
                tile.root = root;
            }
            bodies.push(body);
        }
        self.len += 1;
        if let Some(organization) = &entry.organization {
            match self.organizations.get_mut(organization) {
                Some(last) => *last = organization_sequence,
                None => drop(self.organizations.insert(organization.clone(), organization_sequence)),
            }
        }
        if let Content::PolicyChanged(change) = &entry.content
            && change.policy_sequence > self.policy_sequence
        {
            self.policy_sequence = change.policy_sequence;
            let (organization, revision) = (entry.organization.clone(), change.revision);
            self.policy_change = Some(ChangeIdentity { time: entry.time, organization, revision });
        }
    }

    /// The summary that is sealed with the unit.
    pub(super) fn summary(&self) -> UnitSummary {
        let mut organizations: Vec<(Id, u64)> =
            self.organizations.iter().map(|(id, count)| (id.clone(), *count)).collect();
        organizations.sort_unstable();
        let policy_change = self.policy_change.clone();
        UnitSummary { organizations, policy_sequence: self.policy_sequence, policy_change }
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
        self.units.read().ignore_poison().iter().cloned().collect()
    }

    pub(super) fn last(&self) -> Option<Arc<TailUnit>> {
        self.units.read().ignore_poison().back().cloned()
    }

    pub(super) fn oldest(&self) -> Option<Arc<TailUnit>> {
        self.units.read().ignore_poison().front().cloned()
    }

    pub(super) fn push(&self, unit: Arc<TailUnit>) {
        self.units.write().ignore_poison().push_back(unit);
    }

    /// Removes openings whose erasure is recorded.
    pub(super) fn erase(&self, erased: &[ErasedUnit]) {
        let units = self.units();
        for ErasedUnit { first_sequence, slots } in erased {
            let Some(unit) = units.iter().find(|unit| unit.first_sequence == *first_sequence) else { continue };
            unit.change(|content| {
                for slot in slots {
                    if let Some(opening) = content.openings.get_mut(*slot as usize) {
                        opening.secret = None;
                    }
                }
            });
        }
    }

    /// Removes a unit that is sealed.
    pub(super) fn remove(&self, first_sequence: u64) {
        let mut units = self.units.write().ignore_poison();
        units.retain(|unit| unit.first_sequence != first_sequence);
    }
}
