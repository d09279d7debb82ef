//! An ordered copy-on-write map: clones are cheap, and share what they have in common.
//!
//! A change of the policy makes a new version of the state, while Checks and lists still read the old one. Copying a
//! plain map of 100,000 nodes for each change would be slow. A change of this map copies one chunk and the list of
//! chunks.
//!
//! Invariant: keys ascend within and across chunks; no chunk is empty.
//! Not here: anything about the keys and values.

use std::borrow::Borrow;
use std::sync::Arc;

/// The number of entries from which a chunk is split in two. A change copies one chunk and the list of chunks: smaller
/// chunks make the first cheaper and the second dearer. 256 balances both at 100,000 entries.
const CHUNK_ENTRIES_MAX: usize = 256;

/// One chunk: entries by ascending key.
type Chunk<K, V> = Vec<(K, Arc<V>)>;

/// An ordered map of shared values.
#[derive(Debug)]
pub struct CowMap<K, V> {
    chunks: Vec<Arc<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> Clone for CowMap<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<K: Ord + PartialEq, V: PartialEq> PartialEq for CowMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.entries().eq(other.entries())
    }
}

impl<K, V> CowMap<K, V> {
    fn entries(&self) -> impl Iterator<Item = &(K, Arc<V>)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the map is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries by ascending key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.entries().map(|(key, value)| (key, value))
    }

    /// The values by ascending key.
    pub fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.entries().map(|(_, value)| value)
    }
}

impl<K: Ord + Clone, V> CowMap<K, V> {
    /// The chunk that has the key, or would get it; none in an empty map.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        let after = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(first, _)| first.borrow() <= key));
        if self.chunks.is_empty() { None } else { Some(after.saturating_sub(1)) }
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Arc<V>>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key)?)?;
        let at = chunk.binary_search_by(|(found, _)| found.borrow().cmp(key)).ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    /// The entries whose keys are greater than `key`, ascending; all entries without a key.
    pub fn iter_after<'a, Q: Ord + ?Sized>(&'a self, key: Option<&'a Q>) -> impl Iterator<Item = (&'a K, &'a Arc<V>)>
    where
        K: Borrow<Q>,
    {
        let chunk = key.and_then(|key| self.chunk_of(key)).unwrap_or(0);
        self.chunks
            .iter()
            .skip(chunk)
            .flat_map(|chunk| chunk.iter())
            .filter(move |(found, _)| key.is_none_or(|key| found.borrow() > key))
            .map(|(key, value)| (key, value))
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: K, value: Arc<V>) {
        let Some(index) = self.chunk_of(&key) else {
            self.chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return;
        };
        let Some(shared) = self.chunks.get_mut(index) else { return };
        let chunk = Arc::make_mut(shared);
        match chunk.binary_search_by(|(found, _)| found.cmp(&key)) {
            Ok(at) => {
                if let Some(entry) = chunk.get_mut(at) {
                    entry.1 = value;
                }
            }
            Err(at) => {
                chunk.insert(at, (key, value));
                self.len += 1;
            }
        }
        if chunk.len() > CHUNK_ENTRIES_MAX {
            let upper = chunk.split_off(chunk.len() / 2);
            self.chunks.insert(index + 1, Arc::new(upper));
        }
    }

    /// Removes a key, and returns whether it was there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let Some(index) = self.chunk_of(key) else { return false };
        let Some(shared) = self.chunks.get_mut(index) else { return false };
        let Ok(at) = shared.binary_search_by(|(found, _)| found.borrow().cmp(key)) else { return false };
        let chunk = Arc::make_mut(shared);
        chunk.remove(at);
        if chunk.is_empty() {
            self.chunks.remove(index);
        }
        self.len -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn follows_a_plain_map_through_inserts_and_removes_and_leaves_clones_alone() {
        let (mut map, mut model) = (CowMap::<u64, u64>::default(), BTreeMap::new());
        let mut seed = 7_u64;
        for step in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = (seed >> 33) % 3_000;
            let before = map.clone();
            let before_len = before.iter().count();
            if seed.is_multiple_of(3) {
                assert_eq!(map.remove(&key), model.remove(&key).is_some());
            } else {
                map.insert(key, Arc::new(step));
                model.insert(key, step);
            }
            assert_eq!(map.len(), model.len());
            assert_eq!(before.len(), before_len);
            assert_eq!(map.get(&key).map(|value| **value), model.get(&key).copied());
        }
        assert!(map.iter().map(|(key, value)| (*key, **value)).eq(model.iter().map(|(key, value)| (*key, *value))));
        let after: Vec<u64> = map.iter_after(Some(&1_500)).map(|(key, _)| *key).collect();
        assert_eq!(after, model.range(1_501..).map(|(key, _)| *key).collect::<Vec<_>>());
    }
}
