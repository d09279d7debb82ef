//! The sealed units of the log.
//!
//! Invariant: units are dense: each begins where the one before ends. A unit that a reader holds stays readable while it
//! is removed.
//! Not here: what is in their files (`store::sealed`), and when units are sealed or removed (`sealer`, `pruner`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use super::error::AuditError;
use crate::locks::IgnorePoison;
use crate::policy::time::Timestamp;
use crate::store::sealed::{Openings, SealedError, SealedFiles, SealedUnit};

/// The most units whose files are kept open.
const OPEN_MAX: usize = 512;

/// The most units whose openings are cached.
const OPENINGS_MAX: usize = 32;

/// What is known of a unit without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnitInfo {
    pub(super) first_sequence: u64,
    pub(super) count: u64,
    /// Times of its records, in microseconds.
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    /// Its files together.
    pub(super) bytes: u64,
}

impl UnitInfo {
    /// The sequence after its last record.
    pub(super) fn next_sequence(&self) -> u64 {
        self.first_sequence + self.count
    }

    /// The info of a unit; `bytes` is the size of its files together.
    pub(super) fn of(unit: &SealedUnit, bytes: u64) -> Self {
        let tiles = unit.tile_summaries();
        Self {
            first_sequence: unit.first_sequence(),
            count: unit.count() as u64,
            min_time: tiles.iter().map(|tile| tile.min_time).min().unwrap_or_default(),
            max_time: tiles.iter().map(|tile| tile.max_time).max().unwrap_or_default(),
            bytes,
        }
    }
}

/// The sealed units, oldest first.
pub(super) struct Units {
    pub(super) files: SealedFiles,
    list: RwLock<Vec<UnitInfo>>,
    /// The first record that was kept when the log was opened. What was removed before is not known any more.
    first_at_start: u64,
    /// The latest time of what was removed since, in microseconds.
    removed_max_time: AtomicI64,
    open: Mutex<Cache<SealedUnit>>,
    openings: Mutex<Cache<Openings>>,
}

/// A cache of open files.
struct Cache<T> {
    entries: HashMap<u64, Arc<T>>,
    max: usize,
}

impl<T> Cache<T> {
    fn get_or<E>(&mut self, key: u64, open: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        if let Some(entry) = self.entries.get(&key) {
            return Ok(Arc::clone(entry));
        }
        if self.entries.len() >= self.max {
            self.entries.clear();
        }
        let entry = Arc::new(open()?);
        self.entries.insert(key, Arc::clone(&entry));
        Ok(entry)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().ignore_poison()
}

impl Units {
    /// `first` is the first record that is kept, whether it is sealed or not.
    pub(super) fn new(files: SealedFiles, list: Vec<UnitInfo>, first: u64) -> Self {
        Self {
            files,
            list: RwLock::new(list),
            first_at_start: first,
            removed_max_time: AtomicI64::new(i64::MIN),
            open: Mutex::new(Cache { entries: HashMap::new(), max: OPEN_MAX }),
            openings: Mutex::new(Cache { entries: HashMap::new(), max: OPENINGS_MAX }),
        }
    }

    /// All units, oldest first.
    pub(super) fn list(&self) -> Vec<UnitInfo> {
        self.list.read().ignore_poison().clone()
    }

    /// The unit that holds a record.
    pub(super) fn find(&self, sequence: u64) -> Option<UnitInfo> {
        let list = self.list.read().ignore_poison();
        let after = list.partition_point(|unit| unit.first_sequence <= sequence);
        let unit = list.get(after.checked_sub(1)?)?;
        (sequence < unit.next_sequence()).then_some(*unit)
    }

    pub(super) fn first(&self) -> Option<UnitInfo> {
        self.list.read().ignore_poison().first().copied()
    }

    fn push(&self, unit: UnitInfo) {
        self.list.write().ignore_poison().push(unit);
    }

    /// Adds a unit that was just sealed and opened.
    pub(super) fn push_open(&self, unit: SealedUnit, info: UnitInfo) {
        self.push(info);
        drop(locked(&self.open).get_or(info.first_sequence, || Ok::<_, SealedError>(unit)));
    }

    /// Forgets the units before a record, because they are removed.
    pub(super) fn forget_before(&self, sequence: u64) {
        let mut list = self.list.write().ignore_poison();
        for unit in list.extract_if(.., |unit| unit.first_sequence < sequence) {
            self.removed_max_time.fetch_max(unit.max_time, Ordering::Relaxed);
        }
        drop(list);
        locked(&self.open).entries.retain(|first, _| *first >= sequence);
        locked(&self.openings).entries.retain(|first, _| *first >= sequence);
    }

    /// Whether one of the removed records from `first` on may be of this time or later; none: of any time.
    pub(super) fn may_have_removed(&self, first: u64, since: Option<Timestamp>) -> bool {
        let max_time = self.removed_max_time.load(Ordering::Relaxed);
        first < self.first_at_start || since.is_none_or(|since| max_time >= since.micros())
    }

    /// Drops the cached openings of a unit, which have changed.
    pub(super) fn forget_openings(&self, first_sequence: u64) {
        locked(&self.openings).entries.remove(&first_sequence);
    }

    /// Sets a unit's size.
    pub(super) fn set_bytes(&self, first_sequence: u64, bytes: u64) {
        let mut list = self.list.write().ignore_poison();
        if let Some(unit) = list.iter_mut().find(|unit| unit.first_sequence == first_sequence) {
            unit.bytes = bytes;
        }
    }

    pub(super) fn open(&self, first_sequence: u64) -> Result<Arc<SealedUnit>, AuditError> {
        let open = || self.files.open(first_sequence);
        locked(&self.open).get_or(first_sequence, open).map_err(AuditError::not_readable)
    }

    pub(super) fn openings(&self, first_sequence: u64) -> Result<Arc<Openings>, AuditError> {
        let open = || self.files.openings(first_sequence);
        locked(&self.openings).get_or(first_sequence, open).map_err(AuditError::not_readable)
    }
}

/// A duration in microseconds, the unit of record times.
pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2)
}
