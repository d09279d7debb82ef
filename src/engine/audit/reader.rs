//! Reading the log: forward from a sequence, and backward through the records that pass a filter.
//!
//! Invariant: a page is bounded in records and in work; it may be short and not the last. Pages that retention overtakes
//! end with an error, never as a short list.
//! Not here: how records are looked up (`view`), subscribers (`api::audit::watch`).

use std::sync::Arc;
use std::time::Duration;

use super::error::AuditError;
use super::log::AuditLog;
use super::view::Search;
use crate::audit::filter::RecordFilter;
use crate::audit::merkle::TILE_LEAVES;
use crate::audit::record::Record;
use crate::locks::IgnorePoison;
use crate::policy::time::Timestamp;

/// The time after which the search for a page ends, even if the page is short.
const SEARCH_MAX: Duration = Duration::from_millis(100);

/// A page of records, newest first.
#[derive(Clone, Debug)]
pub struct RecordPage {
    /// The records.
    pub records: Vec<Record>,
    /// Where the next page goes on: below this sequence. None where there is nothing more.
    pub next_before: Option<u64>,
    /// The oldest record when the list was begun.
    pub first: u64,
}

/// Where a list of records goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListPosition {
    /// Below this sequence.
    pub before: u64,
    /// The oldest record when the list was begun: [`RecordPage::first`] of its first page.
    pub first: u64,
}

/// What a list of records has been asked for.
pub(super) struct Wanted<'a> {
    /// Its terms, times and openings select.
    pub(super) filter: &'a RecordFilter,
    /// Judges what they have selected.
    pub(super) passes: &'a dyn Fn(&Record) -> bool,
    /// Nothing that the list would show is older.
    pub(super) since: Option<Timestamp>,
}

/// How often records are counted again where retention removes some meanwhile.
const COUNTS_MAX: usize = 5;

impl AuditLog {
    /// The records below `before` (all where there is none) that pass the filter, newest first, at most `count_max`.
    /// Reads files: call it on a thread that may block.
    pub fn list(&self, filter: &RecordFilter, before: Option<u64>, count_max: usize) -> Result<RecordPage, AuditError> {
        let position = before.map(|before| ListPosition { before, first: self.first_sequence() });
        self.list_from(filter, position, count_max)
    }

    /// As [`AuditLog::list`], for one page after another; none: the first page.
    ///
    /// # Errors
    ///
    /// [`AuditError::Overtaken`] where everything that is kept has been listed, and retention has removed more since the
    /// first page.
    pub fn list_from(
        &self,
        filter: &RecordFilter,
        position: Option<ListPosition>,
        count_max: usize,
    ) -> Result<RecordPage, AuditError> {
        let wanted = Wanted { filter, passes: &|record| filter.matches(record), since: filter.start_time };
        self.search(&wanted, position, count_max)
    }

    /// Searches until a page is full, and no longer than [`SEARCH_MAX`].
    pub(super) fn search(
        &self,
        wanted: &Wanted<'_>,
        position: Option<ListPosition>,
        count_max: usize,
    ) -> Result<RecordPage, AuditError> {
        let shared = &self.shared;
        let first = position.map_or_else(|| shared.first_sequence(), |position| position.first);
        let page = self.search_kept(wanted, position.map(|position| position.before), count_max)?;
        let page = RecordPage { first, ..page };
        if page.next_before.is_some() || position.is_none() {
            return Ok(page);
        }
        match shared.check_kept(first, wanted.since) {
            // What there is is shown first; the next page says that there was more.
            Err(AuditError::Overtaken { first: now }) if !page.records.is_empty() => {
                Ok(RecordPage { next_before: Some(now), ..page })
            }
            kept => kept.map(|()| page),
        }
    }

    fn search_kept(
        &self,
        wanted: &Wanted<'_>,
        before: Option<u64>,
        count_max: usize,
    ) -> Result<RecordPage, AuditError> {
        let Wanted { filter, passes, .. } = wanted;
        let shared = &self.shared;
        let page = |records, next_before| Ok(RecordPage { records, next_before, first: 0 });
        let end = before.unwrap_or(u64::MAX).min(shared.newest() + 1);
        let started = tokio::time::Instant::now();
        let is_late = || started.elapsed() > SEARCH_MAX;
        let mut records = Vec::new();
        for view in shared.views().into_iter().rev() {
            let first = view.first_sequence();
            if first >= end {
                continue;
            }
            if is_late() {
                return page(records, Some(first + view.count()));
            }
            let Some(found) = shared.candidates(&view, filter, &[], Search::Candidates)? else { continue };
            for index in found.iter().rev() {
                let sequence = first + u64::from(index);
                if sequence >= end {
                    continue;
                }
                if records.len() >= count_max || is_late() {
                    return page(records, Some(sequence + 1));
                }
                records.extend(shared.record(&view, sequence)?.filter(passes));
            }
        }
        page(records, None)
    }

    /// How many records pass a filter. A unit wholly within the filter's times is counted by its index alone.
    pub fn count(&self, filter: &RecordFilter) -> Result<u64, AuditError> {
        for _ in 1..COUNTS_MAX {
            let first = self.shared.first_sequence();
            let count = self.count_kept(filter)?;
            // Records that went meanwhile are perhaps counted in part.
            if self.shared.check_kept(first, filter.start_time).is_ok() {
                return Ok(count);
            }
        }
        let first = self.shared.first_sequence();
        let count = self.count_kept(filter)?;
        self.shared.check_kept(first, filter.start_time).map(|()| count)
    }

    fn count_kept(&self, filter: &RecordFilter) -> Result<u64, AuditError> {
        let shared = &self.shared;
        let newest = shared.newest();
        let mut count = 0;
        for view in shared.views().into_iter().rev() {
            let first = view.first_sequence();
            let Some(found) = shared.candidates(&view, filter, &[], Search::Exact)? else { continue };
            let inside = view.times().is_some_and(|(earliest, latest)| {
                filter.start_time.is_none_or(|start| start.micros() <= earliest)
                    && filter.end_time.is_none_or(|end| latest < end.micros())
            });
            if inside {
                count += found.count() as u64;
                continue;
            }
            for index in found.iter().rev() {
                let sequence = first + u64::from(index);
                let passes = |record: &Record| sequence <= newest && filter.matches(record);
                count += u64::from(shared.record(&view, sequence)?.as_ref().is_some_and(passes));
            }
        }
        Ok(count)
    }

    /// The records from `from` on, oldest first, at most `count_max` and those of one tile; empty at the end. Reads
    /// files: call it on a thread that may block.
    pub fn read(&self, from: u64, count_max: usize) -> Result<Vec<Arc<Record>>, AuditError> {
        self.read_tile(from, count_max).map_err(|error| {
            let removed = self.shared.was_removed(from, &error);
            if removed { AuditError::Removed { first: self.shared.first_sequence() } } else { error }
        })
    }

    fn read_tile(&self, from: u64, count_max: usize) -> Result<Vec<Arc<Record>>, AuditError> {
        let shared = &self.shared;
        let newest = shared.newest();
        if from > newest {
            let beyond = from > newest + 1;
            return if beyond { Err(AuditError::NotReached { wanted: from, newest }) } else { Ok(Vec::new()) };
        }
        let first = shared.first_sequence();
        if from < first {
            return Err(AuditError::Removed { first });
        }
        let tile = (from - 1) / TILE_LEAVES as u64;
        // The cache first: what is read after an erasure has emptied it must not come from a unit as it was before.
        let decoded = shared.decoded.get(tile);
        let Some(view) = shared.view_of(from) else {
            return Err(AuditError::Removed { first: shared.first_sequence() });
        };
        let tile_first = tile * TILE_LEAVES as u64 + 1;
        let tile_end = (tile_first + TILE_LEAVES as u64).min(newest + 1);
        let mut records = decoded.lock().ignore_poison();
        for sequence in tile_first + records.len() as u64..tile_end {
            let Some(body) = shared.body(&view, sequence)? else { break };
            records.push(Arc::new(shared.decode(&view, &body)?));
        }
        let skipped = usize::try_from(from - tile_first).unwrap_or(usize::MAX);
        Ok(records.iter().skip(skipped).take(count_max).cloned().collect())
    }
}
