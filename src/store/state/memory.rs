//! A state store in memory, for tests and for comparison.
//!
//! Invariant: a batch is seen whole or not at all.
//!
//! Not here: anything that survives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::super::{Batch, Keyspace, Page, StateError, StateStore};
use crate::locks::IgnorePoison;

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

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().ignore_poison()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().ignore_poison()
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
        let of_keyspace = entries
            .range((start, Bound::Unbounded))
            .take_while(|((of, _), _)| *of == keyspace)
            .map(|((_, key), value)| Ok((key.clone(), value.clone())));
        Page::fill(of_keyspace, entries_max)
    }

    fn flush(&self) -> Result<(), StateError> {
        Ok(())
    }
}
