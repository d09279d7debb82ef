//! A unit of the log as readers see it, whether it is in the tail or sealed.
//!
//! Invariant: readers see tail and sealed units as one log, with each durable record exactly once.
//! Not here: what a filter means (`audit::filter`), and pages of filtered records (`reader`).

use std::sync::Arc;

use super::error::AuditError;
use super::openings;
use super::shared::Shared;
use super::tail::TailUnit;
use super::units::UnitInfo;
use crate::audit::filter::RecordFilter;
use crate::audit::merkle::TILE_LEAVES;
use crate::audit::record::{Record, Subject};
use crate::audit::terms::{TermQuery, slot_term};
use crate::policy::address::{Address, Range};
use crate::policy::name::Id;
use crate::policy::time::Timestamp;
use crate::store::codec::audit::{Secret, StoredEntry, TailOpening, decode_entry};
use crate::store::sealed::{IndexSet, SealedError, SealedUnit};

/// So few candidates are judged one by one. Narrowing them down by common terms would cost more.
const FEW: usize = 64;

/// What a search of an index returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// Records that may pass; each is judged afterwards.
    Candidates,
    /// Exactly those that have all terms.
    Exact,
}

/// Follows a name in the terms of its subtree.
const SUBTREE: u8 = b'/';

/// A unit in either form.
#[derive(Clone)]
pub(super) enum UnitView {
    Tail(Arc<TailUnit>),
    Sealed(UnitInfo),
}

impl UnitView {
    pub(super) fn first_sequence(&self) -> u64 {
        match self {
            Self::Tail(unit) => unit.first_sequence,
            Self::Sealed(info) => info.first_sequence,
        }
    }

    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Tail(unit) => unit.len() as u64,
            Self::Sealed(info) => info.count,
        }
    }

    /// The earliest and the latest time of its records, in microseconds; none where it has none.
    pub(super) fn times(&self) -> Option<(i64, i64)> {
        match self {
            Self::Sealed(info) => Some((info.min_time, info.max_time)),
            Self::Tail(unit) => {
                let content = unit.read();
                let earliest = content.tiles.iter().map(|tile| tile.min_time).min();
                let latest = content.tiles.iter().map(|tile| tile.max_time).max();
                earliest.zip(latest)
            }
        }
    }
}

impl Shared {
    /// All units, oldest first.
    pub(super) fn views(&self) -> Vec<UnitView> {
        // Read the tail first: a unit that is sealed meanwhile is then seen twice, never missed.
        let tail = self.tail.units();
        let tail_first = tail.first().map_or(u64::MAX, |unit| unit.first_sequence);
        let sealed = self.units.list().into_iter().filter(|unit| unit.first_sequence < tail_first);
        sealed.map(UnitView::Sealed).chain(tail.into_iter().map(UnitView::Tail)).collect()
    }

    pub(super) fn view_of(&self, sequence: u64) -> Option<UnitView> {
        let holds = |unit: &&Arc<TailUnit>| unit.first_sequence <= sequence;
        match self.tail.units().iter().rev().find(holds) {
            Some(unit) => Some(UnitView::Tail(Arc::clone(unit))),
            None => self.units.find(sequence).map(UnitView::Sealed),
        }
    }

    pub(super) fn first_sequence(&self) -> u64 {
        // The tail first, as in `views`.
        let tail = self.tail.oldest().map(|unit| unit.first_sequence);
        let sealed = self.units.first().map(|unit| unit.first_sequence);
        sealed.or(tail).unwrap_or(self.newest() + 1)
    }

    /// Checks that retention has not removed records of a list since its first page, when `first` was the oldest one.
    /// `since`: the list is of records of this time or later.
    pub(super) fn check_kept(&self, first: u64, since: Option<Timestamp>) -> Result<(), AuditError> {
        let now = self.first_sequence();
        if now > first && self.units.may_have_removed(first, since) {
            return Err(AuditError::Overtaken { first: now });
        }
        Ok(())
    }

    /// Whether the log has all records from a moment on: none of them was removed.
    pub(super) fn reaches_back_to(&self, since: Timestamp) -> bool {
        let Some(oldest) = self.views().into_iter().next() else { return true };
        oldest.first_sequence() == 1 || oldest.times().is_some_and(|(earliest, _)| earliest <= since.micros())
    }

    /// Whether an error is that of records whose files were removed while they were read.
    pub(super) fn was_removed(&self, sequence: u64, error: &AuditError) -> bool {
        matches!(error, AuditError::NotReadable(_)) && sequence < self.first_sequence()
    }

    pub(super) fn unless_removed<T>(
        &self,
        sequence: u64,
        found: Result<Option<T>, AuditError>,
    ) -> Result<Option<T>, AuditError> {
        found.or_else(|error| if self.was_removed(sequence, &error) { Ok(None) } else { Err(error) })
    }

    /// A record's stored bytes; none where there is no such record.
    pub(super) fn body(&self, view: &UnitView, sequence: u64) -> Result<Option<Arc<[u8]>>, AuditError> {
        let Some(index) = sequence.checked_sub(view.first_sequence()).and_then(|index| usize::try_from(index).ok())
        else {
            return Ok(None);
        };
        match view {
            UnitView::Tail(unit) => Ok(unit.read().body(index).map(Into::into)),
            UnitView::Sealed(info) => {
                let unit = self.units.open(info.first_sequence)?;
                let tile = unit.tile(index / TILE_LEAVES).map_err(AuditError::not_readable)?;
                Ok(tile.body(index % TILE_LEAVES).map(Into::into))
            }
        }
    }

    /// The opening that a record's slot refers to.
    pub(super) fn opening(&self, view: &UnitView, slot: u32) -> Result<Option<TailOpening>, AuditError> {
        match view {
            UnitView::Tail(unit) => Ok(unit.read().openings.get(slot as usize).cloned()),
            UnitView::Sealed(info) => {
                let openings = self.units.openings(info.first_sequence)?;
                let stored = openings.get(slot).map_err(AuditError::not_readable)?;
                Ok(stored.map(openings::to_tail))
            }
        }
    }

    pub(super) fn decode(&self, view: &UnitView, body: &[u8]) -> Result<Record, AuditError> {
        let decoded = decode_entry(body).map_err(AuditError::not_readable)?;
        let StoredEntry { sequence, organization_sequence, slot, entry } = decoded;
        let subject = match slot {
            None => Subject::Nobody,
            Some(slot) => match self.opening(view, slot)?.and_then(|opening| opening.secret) {
                Some(Secret { opening, .. }) => opening.identity().into(),
                None => Subject::Erased,
            },
        };
        Ok(Record { sequence, organization_sequence, subject, entry })
    }

    /// A record; none where there is no such record, or it was removed.
    pub(super) fn record(&self, view: &UnitView, sequence: u64) -> Result<Option<Record>, AuditError> {
        let body = self.body(view, sequence);
        self.unless_removed(sequence, body.and_then(|body| body.map(|body| self.decode(view, &body)).transpose()))
    }

    /// When a record was made, in microseconds; none where it cannot be read.
    pub(super) fn time_of(&self, sequence: u64) -> Option<i64> {
        let record = self.record(&self.view_of(sequence)?, sequence);
        record.ok().flatten().map(|record| record.entry.time.micros())
    }

    /// The indexes of the records that may pass a filter and have the terms of `more`; none where no record can, or the
    /// unit was removed.
    pub(super) fn candidates(
        &self,
        view: &UnitView,
        filter: &RecordFilter,
        more: &[TermQuery],
        search: Search,
    ) -> Result<Option<IndexSet>, AuditError> {
        self.unless_removed(view.first_sequence(), self.find_candidates(view, filter, more, search))
    }

    fn find_candidates(
        &self,
        view: &UnitView,
        filter: &RecordFilter,
        more: &[TermQuery],
        search: Search,
    ) -> Result<Option<IndexSet>, AuditError> {
        let count = usize::try_from(view.count()).unwrap_or(usize::MAX);
        if !overlaps(view.times(), filter) {
            return Ok(None);
        }
        let mut found = IndexSet::full(count);
        let mut queries = more.to_vec();
        if let Some(slots) = self.slots(view, filter)? {
            queries.push(TermQuery::AnyOf(slots.into_iter().map(slot_term).collect()));
        }
        queries.extend(filter.term_queries());
        for query in &queries {
            if search == Search::Candidates && found.count() <= FEW {
                break;
            }
            let mut set = IndexSet::default();
            self.add(view, query, &mut set)?;
            found.intersect_with(&set);
            if found.count() == 0 {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// The slots of the openings that a filter asks for; none where it asks for none.
    fn slots(&self, view: &UnitView, filter: &RecordFilter) -> Result<Option<Vec<u32>>, AuditError> {
        let scope = filter.organization.as_ref().map(Id::as_str);
        if filter.email.is_none() && filter.range.is_none() {
            return Ok(None);
        }
        match view {
            UnitView::Tail(unit) => {
                let content = unit.read();
                let passes = |opening: &TailOpening| {
                    opening.secret.as_ref().is_some_and(|Secret { scope: of, opening }| {
                        scope.is_none_or(|scope| scope == of)
                            && filter.email.as_deref().is_none_or(|email| email == opening.email())
                            && filter.range.is_none_or(|range| contains(range, opening.address()))
                    })
                };
                let slots = (0..).zip(&content.openings).filter(|(_, opening)| passes(opening));
                Ok(Some(slots.map(|(slot, _)| slot).collect()))
            }
            UnitView::Sealed(info) => {
                let openings = self.units.openings(info.first_sequence)?;
                let by_email = filter.email.as_deref().map(|email| openings.slots_of_email(scope, email)).transpose();
                let mut slots = by_email.map_err(AuditError::not_readable)?;
                if let Some(range) = filter.range {
                    let in_range = openings.slots_in_range(scope, &range_bounds(range));
                    let in_range = in_range.map_err(AuditError::not_readable)?;
                    slots = Some(match slots {
                        None => in_range,
                        Some(slots) => slots.into_iter().filter(|slot| in_range.contains(slot)).collect(),
                    });
                }
                Ok(slots)
            }
        }
    }

    fn add(&self, view: &UnitView, query: &TermQuery, set: &mut IndexSet) -> Result<(), AuditError> {
        match view {
            UnitView::Tail(unit) => {
                let content = unit.read();
                match query {
                    TermQuery::Exact(term) => content.index.add_to(set, term),
                    TermQuery::AnyOf(terms) => terms.iter().for_each(|term| content.index.add_to(set, term)),
                    TermQuery::Subtree(term) => {
                        let below = |rest: &[u8]| rest.first().is_none_or(|first| *first == SUBTREE);
                        content.index.add_with_prefix_to(set, term, below);
                    }
                }
                Ok(())
            }
            UnitView::Sealed(info) => {
                let unit = self.units.open(info.first_sequence)?;
                add_sealed(&unit, query, set).map_err(AuditError::not_readable)
            }
        }
    }
}

fn add_sealed(unit: &SealedUnit, query: &TermQuery, set: &mut IndexSet) -> Result<(), SealedError> {
    match query {
        TermQuery::Exact(term) => unit.postings(term, set).map(drop),
        TermQuery::AnyOf(terms) => terms.iter().try_for_each(|term| unit.postings(term, set).map(drop)),
        TermQuery::Subtree(term) => {
            unit.postings(term, set)?;
            let mut below = term.clone();
            below.push(SUBTREE);
            unit.postings_with_prefix(&below, set).map(drop)
        }
    }
}

fn contains(range: Range, address: Option<Address>) -> bool {
    address.is_some_and(|address| range.contains(address))
}

/// Whether times of records in microseconds can pass a filter.
fn overlaps(times: Option<(i64, i64)>, filter: &RecordFilter) -> bool {
    let Some((earliest, latest)) = times else { return false };
    filter.start_time.is_none_or(|start| latest >= start.micros())
        && filter.end_time.is_none_or(|end| Timestamp::from_micros(earliest) < end)
}

/// The first and the last address of a range, by family, in network order.
fn range_bounds(range: Range) -> Vec<(Vec<u8>, Vec<u8>)> {
    match range {
        Range::Any => vec![(vec![0; 4], vec![0xFF; 4]), (vec![0; 16], vec![0xFF; 16])],
        Range::V4(block) => vec![(block.first().to_be_bytes().to_vec(), block.last().to_be_bytes().to_vec())],
        Range::V6(block) => vec![(block.first().to_be_bytes().to_vec(), block.last().to_be_bytes().to_vec())],
    }
}
