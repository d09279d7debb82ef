//! Values of any size in a state store that takes small ones: a value is kept in parts under its key.
//!
//! Invariant: what `read_all` gives for a key is what was last `put`, however its size has changed in between.
//! Not here: what keys and values mean (`codec`).

use std::collections::BTreeMap;

use super::{Batch, Keyspace, STATE_VALUE_BYTES_MAX, StateError, StateStore};

/// Entries fetched at a time. Parts are large, so few.
const PAGE_ENTRIES: usize = 256;

/// Parts fetched at a time: nearly every value has one.
const PARTS_AT_A_TIME: usize = 2;

/// Separates a key from the number of a part; no key contains it.
const SEPARATOR: u8 = 0;

fn part_key(key: &[u8], part: u32) -> Vec<u8> {
    let mut part_key = Vec::with_capacity(key.len() + 5);
    part_key.extend_from_slice(key);
    part_key.push(SEPARATOR);
    part_key.extend_from_slice(&part.to_be_bytes());
    part_key
}

/// The key of a part's key; none when it is no such key.
fn whole_key(part_key: &[u8]) -> Option<&[u8]> {
    let (key, [SEPARATOR, _, _, _, _]) = part_key.split_last_chunk::<5>()? else { return None };
    Some(key)
}

/// Adds to the batch what sets or removes the value of a key. Reads which parts there are, and writes only those that
/// differ. An empty value is none.
pub fn put(
    store: &dyn StateStore,
    batch: &mut Batch,
    keyspace: Keyspace,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), StateError> {
    let mut old = parts_of(store, keyspace, key)?;
    for (part, new) in (0..).zip(value.unwrap_or_default().chunks(STATE_VALUE_BYTES_MAX)) {
        let stored_key = part_key(key, part);
        if old.remove(&stored_key).as_deref() != Some(new) {
            batch.put(keyspace, stored_key, new);
        }
    }
    for left_over in old.into_keys() {
        batch.delete(keyspace, left_over);
    }
    Ok(())
}

/// All parts of a key, including those after a gap that damage has left.
fn parts_of(store: &dyn StateStore, keyspace: Keyspace, key: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StateError> {
    let mut parts = BTreeMap::new();
    let mut from = part_key(key, 0);
    loop {
        let page = store.scan(keyspace, &from, PARTS_AT_A_TIME)?;
        for (stored_key, part) in page.entries {
            if whole_key(&stored_key) != Some(key) {
                return Ok(parts);
            }
            parts.insert(stored_key, part);
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(parts),
        }
    }
}

/// Calls `visit` with every key and value of a keyspace, in order of keys. Keys that are of no part are passed whole,
/// so that the caller can find and remove what does not belong.
pub fn read_all(
    store: &dyn StateStore,
    keyspace: Keyspace,
    mut visit: impl FnMut(&[u8], &[u8]),
) -> Result<(), StateError> {
    let (mut key, mut value): (Option<Vec<u8>>, Vec<u8>) = (None, Vec::new());
    let mut from = Vec::new();
    loop {
        let page = store.scan(keyspace, &from, PAGE_ENTRIES)?;
        for (part_key, part) in page.entries {
            let of = whole_key(&part_key).unwrap_or(&part_key);
            if key.as_deref() != Some(of) {
                if let Some(key) = key.replace(of.to_vec()) {
                    visit(&key, &value);
                }
                value.clear();
            }
            value.extend_from_slice(&part);
        }
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    if let Some(key) = key {
        visit(&key, &value);
    }
    Ok(())
}
