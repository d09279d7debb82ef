//! The interval algebra of one address family: sets of addresses, and functions from address to label.
//!
//! Invariant: the intervals of a set are sorted, disjoint and not adjacent, so equal sets are equal values. The label
//! of a map changes at every start, and the first start is the lowest address, so equal functions are equal values.
//! Not here: both families at once (`ranges`), fast lookup (`table`).

use super::address::Block;
use super::word::Word;

/// When one of two sets has this many times fewer intervals than the other, each of them is looked up in the other,
/// instead of walking through both.
const LOPSIDED: usize = 16;

/// A set of addresses of one family, as the fewest intervals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntervalSet<W> {
    intervals: Vec<(W, W)>,
}

/// A function from every address of one family to a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntervalMap<W> {
    starts: Vec<W>,
    labels: Vec<u32>,
}

/// How much of something is in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// No address.
    Nothing,
    /// Some of the addresses.
    Part,
    /// Every address.
    Whole,
}

impl<W> Default for IntervalSet<W> {
    fn default() -> Self {
        Self { intervals: Vec::new() }
    }
}

impl<W: Word> IntervalSet<W> {
    /// All addresses of the family.
    pub fn full() -> Self {
        Self { intervals: vec![(W::MIN, W::MAX)] }
    }

    /// The union of blocks, given in the order of their first addresses.
    pub(crate) fn from_sorted_blocks(blocks: impl Iterator<Item = Block<W>>) -> Self {
        let mut set = Self { intervals: Vec::with_capacity(blocks.size_hint().0) };
        for block in blocks {
            set.push(block.first(), block.last());
        }
        set.intervals.shrink_to_fit();
        set
    }

    /// The addresses whose label `keep` accepts.
    pub(crate) fn from_map(map: &IntervalMap<W>, mut keep: impl FnMut(u32) -> bool) -> Self {
        let mut set = Self::default();
        for (first, last, label) in map.iter() {
            if keep(label) {
                set.push(first, last);
            }
        }
        set
    }

    /// The intervals in order, as first and last address.
    pub fn intervals(&self) -> &[(W, W)] {
        &self.intervals
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// Whether the address is in the set.
    pub fn contains(&self, word: W) -> bool {
        let after = self.intervals.partition_point(|(first, _)| *first <= word);
        after.checked_sub(1).and_then(|at| self.intervals.get(at)).is_some_and(|(_, last)| word <= *last)
    }

    /// The addresses in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a || b)
    }

    /// The addresses in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (few, many) = if self.intervals.len() < other.intervals.len() { (self, other) } else { (other, self) };
        if few.intervals.len() * LOPSIDED < many.intervals.len() {
            return few.clipped_to(many);
        }
        self.combine(other, |a, b| a && b)
    }

    /// The addresses in both, found by looking up each interval of `self`.
    fn clipped_to(&self, other: &Self) -> Self {
        let mut set = Self::default();
        for (first, last) in &self.intervals {
            let from = other.intervals.partition_point(|(_, end)| end < first);
            let meeting = other.intervals.iter().skip(from).take_while(|(start, _)| start <= last);
            for (start, end) in meeting {
                set.push(*start.max(first), *end.min(last));
            }
        }
        set
    }

    /// The addresses in `self` and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && !b)
    }

    /// Whether every address of `self` is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        // No two intervals are adjacent, so each interval must lie within one of the other set.
        self.intervals.iter().all(|(first, last)| {
            let at = other.intervals.partition_point(|(_, end)| end < first);
            other.intervals.get(at).is_some_and(|(start, end)| start <= first && last <= end)
        })
    }

    /// Whether some address is in both sets. Fast when `other` has few intervals.
    pub(crate) fn meets_any(&self, other: &Self) -> bool {
        other.intervals.iter().any(|(first, last)| self.meets(*first, *last))
    }

    /// The fewest CIDR blocks that cover the set, in order.
    pub fn blocks(&self) -> impl Iterator<Item = Block<W>> + '_ {
        self.intervals.iter().flat_map(|(first, last)| BlocksOfInterval { next: Some(*first), last: *last })
    }

    /// The blocks of [`IntervalSet::blocks`] from the one that starts at `first` on. `first` must be the start of a
    /// block.
    pub(crate) fn blocks_from(&self, first: W) -> impl Iterator<Item = Block<W>> + '_ {
        let from = self.intervals.partition_point(|(_, last)| *last < first);
        let rest = self.intervals.get(from..).unwrap_or_default();
        rest.iter().flat_map(move |(start, last)| BlocksOfInterval { next: Some((*start).max(first)), last: *last })
    }

    fn combine(&self, other: &Self, keep: impl Fn(bool, bool) -> bool) -> Self {
        let mut set = Self::default();
        let (mut left, mut right) = (Cursor::new(&self.intervals), Cursor::new(&other.intervals));
        let mut at = Some(W::MIN);
        while let Some(first) = at {
            let (in_left, left_last) = left.at(first);
            let (in_right, right_last) = right.at(first);
            let last = left_last.min(right_last);
            if keep(in_left, in_right) {
                set.push(first, last);
            }
            at = last.next();
        }
        set
    }

    /// Whether an address from `first` to `last` is in the set.
    pub fn meets(&self, first: W, last: W) -> bool {
        let at = self.intervals.partition_point(|(_, end)| *end < first);
        self.intervals.get(at).is_some_and(|(start, _)| *start <= last)
    }

    /// How much of `first..=last` is in the set.
    pub(super) fn share_of(&self, first: W, last: W) -> Share {
        let at = self.intervals.partition_point(|(_, end)| *end < first);
        match self.intervals.get(at) {
            Some((start, end)) if *start <= first && last <= *end => Share::Whole,
            Some((start, _)) if *start <= last => Share::Part,
            _ => Share::Nothing,
        }
    }

    /// Appends an interval, which must not start before the last one starts.
    pub(super) fn push(&mut self, first: W, last: W) {
        if let Some((_, end)) = self.intervals.last_mut()
            && end.next().is_none_or(|next| first <= next)
        {
            *end = (*end).max(last);
            return;
        }
        self.intervals.push((first, last));
    }
}

/// Walks through the intervals of a set in ascending order.
struct Cursor<'a, W> {
    rest: &'a [(W, W)],
}

impl<'a, W: Word> Cursor<'a, W> {
    fn new(intervals: &'a [(W, W)]) -> Self {
        Self { rest: intervals }
    }

    /// Whether an address is in the set, and the last address up to which that is so. Calls must ascend.
    fn at(&mut self, word: W) -> (bool, W) {
        while let [(_, last), rest @ ..] = self.rest
            && *last < word
        {
            self.rest = rest;
        }
        match self.rest.first() {
            Some((first, last)) if *first <= word => (true, *last),
            Some((first, _)) => (false, first.previous().unwrap_or(W::MIN)),
            None => (false, W::MAX),
        }
    }
}

/// The fewest CIDR blocks that cover one interval, in order.
struct BlocksOfInterval<W> {
    next: Option<W>,
    last: W,
}

impl<W: Word> Iterator for BlocksOfInterval<W> {
    type Item = Block<W>;

    fn next(&mut self) -> Option<Block<W>> {
        let first = self.next?;
        let size_exponent = first.trailing_zeros().min(first.span_exponent(self.last));
        let block = Block::new(first, W::BITS - size_exponent)?;
        self.next = block.last().next().filter(|next| *next <= self.last);
        Some(block)
    }
}

impl<W: Word> IntervalMap<W> {
    /// The function that gives every address the same label.
    pub fn uniform(label: u32) -> Self {
        Self { starts: vec![W::MIN], labels: vec![label] }
    }

    /// The function that is 1 in the set and 0 outside it.
    pub(crate) fn of_set(set: &IntervalSet<W>) -> Self {
        let mut map = Self::with_capacity(2 * set.intervals.len() + 1);
        map.push(W::MIN, 0);
        for (first, last) in &set.intervals {
            map.push(*first, 1);
            // No interval begins here, because intervals are not adjacent.
            if let Some(next) = last.next() {
                map.starts.push(next);
                map.labels.push(0);
            }
        }
        map
    }

    /// A map without intervals. The first call of `push` must give the lowest address.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { starts: Vec::with_capacity(capacity), labels: Vec::with_capacity(capacity) }
    }

    /// Sets the label from `start` on. Starts must not descend. A second call with the same start replaces the label.
    pub(super) fn push(&mut self, start: W, label: u32) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.labels.pop();
        }
        if self.labels.last() != Some(&label) {
            self.starts.push(start);
            self.labels.push(label);
        }
    }

    /// The first address of every interval, ascending.
    pub fn starts(&self) -> &[W] {
        &self.starts
    }

    /// The label of every interval.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The intervals in order, as first address, last address and label.
    pub fn iter(&self) -> impl Iterator<Item = (W, W, u32)> + '_ {
        let ends = self.starts.iter().skip(1).map(|next| next.previous().unwrap_or(W::MIN)).chain([W::MAX]);
        self.starts.iter().zip(ends).zip(&self.labels).map(|((first, last), label)| (*first, last, *label))
    }

    /// The label of an address, by binary search.
    pub fn label(&self, word: W) -> u32 {
        let after = self.starts.partition_point(|start| *start <= word);
        after.checked_sub(1).and_then(|at| self.labels.get(at)).copied().unwrap_or_default()
    }

    /// Releases unused memory.
    pub(super) fn shrink(&mut self) {
        self.starts.shrink_to_fit();
        self.labels.shrink_to_fit();
    }
}
