//! The index of a unit that is not sealed yet: for each term the records that have it.
//!
//! Invariant: the indexes of a term are ascending, each once.
//! Not here: what the terms are (`audit::terms`), the index of a sealed unit (`store::sealed`).

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::audit::terms::{slot_of_term, slot_term};
use crate::store::sealed::IndexSet;

/// See the module. The terms that nearly every record has are found without hashing.
#[derive(Debug, Default)]
pub(super) struct TailIndex {
    /// Terms of two bytes: a kind and one of a few values.
    short: Vec<([u8; 2], Vec<u16>)>,
    /// The terms of openings, by slot.
    slots: Vec<Vec<u16>>,
    other: HashMap<Vec<u8>, Vec<u16>, RandomState>,
}

impl TailIndex {
    /// Notes that a record has a term. Records come in order; one may have a term twice, such as a rule that moved.
    pub(super) fn insert(&mut self, term: &[u8], index: u16) {
        if let Ok(short) = <[u8; 2]>::try_from(term) {
            match self.short.iter_mut().find(|(known, _)| *known == short) {
                Some((_, list)) => add(list, index),
                None => self.short.push((short, vec![index])),
            }
        } else if let Some(slot) = slot_of_term(term).map(|slot| slot as usize).filter(|slot| *slot <= self.slots.len())
        {
            // Slots are numbered in order, so an unknown one is the next.
            match self.slots.get_mut(slot) {
                Some(list) => add(list, index),
                None => self.slots.push(vec![index]),
            }
        } else if let Some(list) = self.other.get_mut(term) {
            add(list, index);
        } else {
            self.other.insert(term.to_vec(), vec![index]);
        }
    }

    /// The first record that refers to an opening.
    pub(super) fn first_of_slot(&self, slot: u32) -> Option<u16> {
        self.slots.get(slot as usize)?.first().copied()
    }

    /// Adds the records that have a term.
    pub(super) fn add_to(&self, set: &mut IndexSet, term: &[u8]) {
        let short = self.short.iter().find(|(known, _)| known == term).map(|(_, list)| list);
        let of_slot = || self.slots.get(slot_of_term(term)? as usize);
        for index in short.or_else(of_slot).or_else(|| self.other.get(term)).into_iter().flatten() {
            set.insert(*index);
        }
    }

    /// Adds the records with a term that has this prefix and whose rest `accept` accepts. Terms of openings are left out:
    /// nobody searches them by prefix.
    pub(super) fn add_with_prefix_to(&self, set: &mut IndexSet, prefix: &[u8], accept: impl Fn(&[u8]) -> bool) {
        let short = self.short.iter().map(|(term, list)| (&term[..], list));
        for (term, list) in short.chain(self.other.iter().map(|(term, list)| (&term[..], list))) {
            if term.strip_prefix(prefix).is_some_and(&accept) {
                for index in list {
                    set.insert(*index);
                }
            }
        }
    }

    /// All terms in order, each with its records, for sealing.
    pub(super) fn sorted(&self) -> Vec<(Vec<u8>, &[u16])> {
        let short = self.short.iter().map(|(term, list)| (term.to_vec(), &list[..]));
        let slots = (0..).zip(&self.slots).map(|(slot, list)| (slot_term(slot), &list[..]));
        let other = self.other.iter().map(|(term, list)| (term.clone(), &list[..]));
        let mut sorted: Vec<_> = short.chain(slots).chain(other).collect();
        sorted.sort_unstable();
        sorted
    }
}

fn add(list: &mut Vec<u16>, index: u16) {
    if list.last() != Some(&index) {
        list.push(index);
    }
}
