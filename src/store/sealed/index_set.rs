//! A set of records of one unit, by their indexes.
//!
//! Invariant: always 8 KiB, whatever is in it; every operation on sets is one pass over them.
//!
//! Not here: how sets of records are stored.

use std::fmt;

/// The most records that a unit has.
pub(super) const UNIT_RECORDS_MAX: usize = 65_536;

const WORDS: usize = UNIT_RECORDS_MAX / 64;

/// Indexes of records within a unit: 0 is the unit's first record.
#[derive(Clone, PartialEq, Eq)]
pub struct IndexSet {
    words: Box<[u64; WORDS]>,
}

impl IndexSet {
    /// No records.
    pub fn new() -> Self {
        Self { words: Box::new([0; WORDS]) }
    }

    /// The first `count` records.
    pub fn full(count: usize) -> Self {
        let mut set = Self::new();
        set.insert_range(0, count);
        set
    }

    /// Adds a record.
    pub fn insert(&mut self, index: u16) {
        if let Some(word) = self.words.get_mut(usize::from(index) / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Adds the records from `start` up to but without `end`. What is beyond a unit is left out.
    pub fn insert_range(&mut self, start: usize, end: usize) {
        let end = end.min(UNIT_RECORDS_MAX);
        for (number, word) in self.words.iter_mut().enumerate().take(end.div_ceil(64)).skip(start / 64) {
            let (low, high) = (start.saturating_sub(number * 64), (end - number * 64).min(64));
            let below = |bits: usize| if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
            *word |= below(high) & !below(low);
        }
    }

    /// Adds the records whose bits are set; the lowest bit of the first byte is record 0.
    pub(super) fn insert_bits(&mut self, bitmap: &[u8]) {
        for (word, bytes) in self.words.iter_mut().zip(bitmap.chunks(8)) {
            let mut whole = [0; 8];
            for (to, from) in whole.iter_mut().zip(bytes) {
                *to = *from;
            }
            *word |= u64::from_le_bytes(whole);
        }
    }

    /// Whether a record is in the set.
    pub fn contains(&self, index: u16) -> bool {
        self.words.get(usize::from(index) / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Leaves only the records that are in `other` as well.
    pub fn intersect_with(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(other.words.iter()) {
            *word &= other;
        }
    }

    /// How many records there are.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The indexes, ascending; from the other end, descending.
    pub fn iter(&self) -> Iter<'_> {
        Iter { words: self.words.as_slice(), front: 0, front_bits: 0, back_bits: 0 }
    }
}

impl Default for IndexSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a IndexSet {
    type Item = u16;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Extend<u16> for IndexSet {
    fn extend<T: IntoIterator<Item = u16>>(&mut self, indexes: T) {
        for index in indexes {
            self.insert(index);
        }
    }
}

impl FromIterator<u16> for IndexSet {
    fn from_iter<T: IntoIterator<Item = u16>>(indexes: T) -> Self {
        let mut set = Self::new();
        set.extend(indexes);
        set
    }
}

/// The indexes of an [`IndexSet`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    /// The words that have bits left.
    words: &'a [u64],
    /// The number of the first of them in the set.
    front: usize,
    /// The bits of the first word that the front has returned.
    front_bits: u64,
    /// The bits of the last word that the back has returned.
    back_bits: u64,
}

impl Iter<'_> {
    /// The bits of a word at one end that are left. Both ends share the last word.
    fn left(&self, word: u64, given: u64) -> u64 {
        match self.words {
            [_] => word & !self.front_bits & !self.back_bits,
            _ => word & !given,
        }
    }

    fn index(number: usize, bit: u32) -> Option<u16> {
        u16::try_from(number * 64 + bit as usize).ok()
    }
}

impl Iterator for Iter<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        while let Some((word, rest)) = self.words.split_first() {
            let left = self.left(*word, self.front_bits);
            if left != 0 {
                let bit = left.trailing_zeros();
                self.front_bits |= 1 << bit;
                return Self::index(self.front, bit);
            }
            self.words = rest;
            self.front += 1;
            self.front_bits = 0;
        }
        None
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<u16> {
        while let Some((word, rest)) = self.words.split_last() {
            let left = self.left(*word, self.back_bits);
            if left != 0 {
                let bit = left.ilog2();
                self.back_bits |= 1 << bit;
                return Self::index(self.front + rest.len(), bit);
            }
            self.words = rest;
            self.back_bits = 0;
        }
        None
    }
}
