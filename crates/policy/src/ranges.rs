//! Collections of ranges over both families: the list as administrators gave it, and the set of addresses it means.
//!
//! Invariant: a `RangeList` is sorted and without doubles, so two lists with the same ranges are equal values.
//! Not here: names of groups (`group`) and who uses a list.

use std::sync::Arc;

use super::address::{Address, Block, Range};
use super::intervals::IntervalSet;
use super::word::Word;

/// A set of canonical ranges: nothing is merged, a double counts once (design.md §2.6). Order: `any`, IPv4, IPv6, each
/// by first address and then from the widest to the narrowest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeList {
    any: bool,
    v4: Blocks<u32>,
    v6: Blocks<u128>,
}

/// Sorted blocks of one family. Two columns, because together they take 5 or 17 bytes a block, and pairs 8 or 32.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blocks<W> {
    firsts: Vec<W>,
    prefix_lengths: Vec<u8>,
}

/// The addresses, of both families, that a list of ranges covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// The IPv4 part.
    pub v4: IntervalSet<u32>,
    /// The IPv6 part.
    pub v6: IntervalSet<u128>,
}

impl<W> Default for Blocks<W> {
    fn default() -> Self {
        Self { firsts: Vec::new(), prefix_lengths: Vec::new() }
    }
}

impl<W: Word> Blocks<W> {
    fn from_unsorted(mut blocks: Vec<Block<W>>) -> Self {
        blocks.sort_unstable();
        blocks.dedup();
        Self::from_sorted(blocks.into_iter())
    }

    fn from_sorted(blocks: impl Iterator<Item = Block<W>>) -> Self {
        let mut columns = Self::default();
        let expected = blocks.size_hint().0;
        columns.firsts.reserve_exact(expected);
        columns.prefix_lengths.reserve_exact(expected);
        for block in blocks {
            columns.firsts.push(block.first());
            columns.prefix_lengths.push(block.prefix_length());
        }
        columns.firsts.shrink_to_fit();
        columns.prefix_lengths.shrink_to_fit();
        columns
    }

    fn len(&self) -> usize {
        self.firsts.len()
    }

    fn iter_from(&self, at: usize) -> impl Iterator<Item = Block<W>> + '_ {
        let firsts = self.firsts.iter().skip(at);
        firsts.zip(self.prefix_lengths.iter().skip(at)).filter_map(|(first, length)| Block::new(*first, *length))
    }

    /// Merges two sorted columns; `keep` is told whether the block is in the left and in the right one.
    fn merge(&self, other: &Self, keep: impl Fn(bool, bool) -> bool) -> Self {
        let (mut left, mut right) = (self.iter_from(0).peekable(), other.iter_from(0).peekable());
        let merged = std::iter::from_fn(|| {
            loop {
                let next = match (left.peek(), right.peek()) {
                    (Some(a), Some(b)) => *a.min(b),
                    (Some(a), None) => *a,
                    (None, Some(b)) => *b,
                    (None, None) => return None,
                };
                let in_left = left.next_if_eq(&next).is_some();
                let in_right = right.next_if_eq(&next).is_some();
                if keep(in_left, in_right) {
                    return Some(next);
                }
            }
        });
        Self::from_sorted(merged)
    }
}

impl RangeList {
    /// Number of ranges.
    pub fn len(&self) -> usize {
        usize::from(self.any) + self.v4.len() + self.v6.len()
    }

    /// Whether there is no range.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ranges from the `position`-th on (0 is the first), in the list's order.
    pub fn iter_from(&self, position: usize) -> impl Iterator<Item = Range> + '_ {
        let any = usize::from(self.any);
        let v4_from = position.saturating_sub(any);
        let v6_from = v4_from.saturating_sub(self.v4.len());
        let head = (self.any && position == 0).then_some(Range::Any);
        head.into_iter()
            .chain(self.v4.iter_from(v4_from).map(Range::V4))
            .chain(self.v6.iter_from(v6_from).map(Range::V6))
    }

    /// The ranges in the list's order.
    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.iter_from(0)
    }

    /// The ranges that are in either list.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self {
            any: self.any || other.any,
            v4: self.v4.merge(&other.v4, |_, _| true),
            v6: self.v6.merge(&other.v6, |_, _| true),
        }
    }

    /// The ranges that are in this list and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self {
            any: self.any && !other.any,
            v4: self.v4.merge(&other.v4, |mine, theirs| mine && !theirs),
            v6: self.v6.merge(&other.v6, |mine, theirs| mine && !theirs),
        }
    }

    /// The addresses that the ranges cover together.
    pub fn to_set(&self) -> RangeSet {
        if self.any {
            return RangeSet::full();
        }
        RangeSet {
            v4: IntervalSet::from_sorted_blocks(self.v4.iter_from(0)),
            v6: IntervalSet::from_sorted_blocks(self.v6.iter_from(0)),
        }
    }
}

impl FromIterator<Range> for RangeList {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Self {
        let (mut any, mut v4, mut v6) = (false, Vec::new(), Vec::new());
        for range in ranges {
            match range {
                Range::Any => any = true,
                Range::V4(block) => v4.push(block),
                Range::V6(block) => v6.push(block),
            }
        }
        Self { any, v4: Blocks::from_unsorted(v4), v6: Blocks::from_unsorted(v6) }
    }
}

impl RangeSet {
    /// All addresses of both families.
    pub fn full() -> Self {
        Self { v4: IntervalSet::full(), v6: IntervalSet::full() }
    }

    /// All addresses of both families, shared.
    pub fn full_shared() -> Arc<Self> {
        Arc::new(Self::full())
    }

    /// Whether there is no address in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: Address) -> bool {
        match address {
            Address::V4(word) => self.v4.contains(word),
            Address::V6(word) => self.v6.contains(word),
        }
    }

    /// The addresses in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self { v4: self.v4.union(&other.v4), v6: self.v6.union(&other.v6) }
    }

    /// The addresses in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersection(&other.v4), v6: self.v6.intersection(&other.v6) }
    }

    /// The addresses in `self` and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self { v4: self.v4.difference(&other.v4), v6: self.v6.difference(&other.v6) }
    }

    /// Whether there is an address that is in both. Quick where `other` is made of few ranges.
    pub fn meets(&self, other: &Self) -> bool {
        self.v4.meets_any(&other.v4) || self.v6.meets_any(&other.v6)
    }

    /// Whether every address of `self` is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.v4.is_subset(&other.v4) && self.v6.is_subset(&other.v6)
    }

    /// The same from one of them on.
    pub fn ranges_from(&self, first: Range) -> Box<dyn Iterator<Item = Range> + '_> {
        match first {
            Range::Any => Box::new(self.ranges()),
            Range::V4(block) => {
                let rest = self.v6.blocks().map(Range::V6);
                Box::new(self.v4.blocks_from(block.first()).map(Range::V4).chain(rest))
            }
            Range::V6(block) => Box::new(self.v6.blocks_from(block.first()).map(Range::V6)),
        }
    }

    /// The fewest CIDR ranges that make up the set, IPv4 first, each family in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        self.v4.blocks().map(Range::V4).chain(self.v6.blocks().map(Range::V6))
    }
}
