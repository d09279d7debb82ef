//! A state store in memory, for tests and for comparison.
//!
//! Invariant: a batch is seen whole or not at all.
//!
//! Not here: anything that survives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::super::{Batch, Keyspace, Page, StateError, StateStore};

type Entries = BTreeMap<(Keyspace, Vec<u8>), Vec<u8>>;

/// A state store that is gone with the process.
#[derive(Debug, Default)]
pub struct MemoryState {
    entries: RwLock<Entries>,
}

impl MemoryState {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    // Nothing below panics while it holds the lock, so a poisoned one guards nothing broken.
    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryState {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.read().get(&(keyspace, key.to_vec())).cloned())
    }

    fn apply(&self, batch: &Batch) -> Result<(), StateError> {
        batch.check()?;
        let mut entries = self.write();
        for change in batch.changes() {
            let key = (change.keyspace, change.key.clone());
            match &change.value {
                Some(value) => entries.insert(key, value.clone()),
                None => entries.remove(&key),
            };
        }
        Ok(())
    }

    fn scan(&self, keyspace: Keyspace, from: &[u8], entries_max: usize) -> Result<Page, StateError> {
        let entries = self.read();
        let start = Bound::Included((keyspace, from.to_vec()));
        let of_tree = entries
            .range((start, Bound::Unbounded))
            .take_while(|((entry_keyspace, _), _)| *entry_keyspace == keyspace)
            .map(|((_, key), value)| Ok((key.clone(), value.clone())));
        Page::fill(of_tree, entries_max)
    }

    fn flush(&self) -> Result<(), StateError> {
        Ok(())
    }

    fn clear(&self) -> Result<(), StateError> {
        self.write().clear();
        Ok(())
    }
}
