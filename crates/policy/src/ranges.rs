//! Ranges of both families: the list that administrators gave, and the set of addresses that it covers.
//!
//! Invariant: a `RangeList` is sorted and has no duplicates, so two lists with the same ranges are equal values.
//! Not here: names of groups (`group`) and who uses a list.

use super::address::{Address, Block, Range};
use super::intervals::{IntervalSet, Share};
use super::word::Word;

/// A sorted list of canonical ranges. No ranges are merged, and a duplicate counts once (design.md §2.6). `any` comes
/// first, then IPv4, then IPv6; each family by first address, and then from the widest to the narrowest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeList {
    any: bool,
    v4: BlockColumns<u32>,
    v6: BlockColumns<u128>,
}

/// Sorted blocks of one family. Two columns take 5 bytes (IPv4) or 17 bytes (IPv6) a block; pairs would take 8 or 32.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BlockColumns<W> {
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

impl<W> Default for BlockColumns<W> {
    fn default() -> Self {
        Self { firsts: Vec::new(), prefix_lengths: Vec::new() }
    }
}

impl<W: Word> BlockColumns<W> {
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

    fn iter_from(&self, index: usize) -> impl Iterator<Item = Block<W>> + '_ {
        let firsts = self.firsts.iter().skip(index);
        firsts.zip(self.prefix_lengths.iter().skip(index)).filter_map(|(first, length)| Block::new(*first, *length))
    }

    /// Merges two lists. `keep` decides about a block by whether it is in `self` and whether it is in `other`.
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

    /// The narrowest block that is wider than another and contains it.
    fn wider(&self, block: Block<W>) -> Option<Block<W>> {
        let wider = (0..block.prefix_length()).rev();
        wider.filter_map(|length| Block::new(block.first().network(length), length)).find(|wide| self.has(*wide))
    }

    fn has(&self, block: Block<W>) -> bool {
        let from = self.firsts.partition_point(|first| *first < block.first());
        self.iter_from(from).take_while(|next| next.first() == block.first()).any(|next| next == block)
    }

    /// The blocks from one address to another, without those that lie in another of them.
    fn widest(&self, first: W, last: W) -> impl Iterator<Item = Block<W>> + '_ {
        let from = self.firsts.partition_point(|start| *start < first);
        let mut end = None;
        self.iter_from(from).take_while(move |block| block.first() <= last).filter(move |block| {
            let is_widest = block.last() <= last && end.is_none_or(|end| end < block.first());
            if is_widest {
                end = Some(block.last());
            }
            is_widest
        })
    }
}

impl RangeList {
    /// The number of ranges.
    pub fn len(&self) -> usize {
        usize::from(self.any) + self.v4.len() + self.v6.len()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ranges from a 0-based index on, in the list's order.
    pub fn iter_from(&self, index: usize) -> impl Iterator<Item = Range> + '_ {
        let any = usize::from(self.any);
        let v4_from = index.saturating_sub(any);
        let v6_from = v4_from.saturating_sub(self.v4.len());
        let head = (self.any && index == 0).then_some(Range::Any);
        head.into_iter()
            .chain(self.v4.iter_from(v4_from).map(Range::V4))
            .chain(self.v6.iter_from(v6_from).map(Range::V6))
    }

    /// The ranges in the list's order.
    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.iter_from(0)
    }

    /// The ranges that are in this list, in the other, or in both.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self {
            any: self.any || other.any,
            v4: self.v4.merge(&other.v4, |_, _| true),
            v6: self.v6.merge(&other.v6, |_, _| true),
        }
    }

    /// The ranges that are in this list and not in the other one.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self {
            any: self.any && !other.any,
            v4: self.v4.merge(&other.v4, |mine, theirs| mine && !theirs),
            v6: self.v6.merge(&other.v6, |mine, theirs| mine && !theirs),
        }
    }

    /// The narrowest range that is wider than another and contains it.
    pub fn wider(&self, range: Range) -> Option<Range> {
        let any = self.any.then_some(Range::Any);
        match range {
            Range::Any => None,
            Range::V4(block) => self.v4.wider(block).map(Range::V4).or(any),
            Range::V6(block) => self.v6.wider(block).map(Range::V6).or(any),
        }
    }

    /// The ranges that lie in another, which is not among them, in the list's order. Those that lie in one of them are
    /// left out.
    pub fn inside(&self, range: Range) -> impl Iterator<Item = Range> + '_ {
        let v4 = match range {
            Range::Any => Some((u32::MIN, u32::MAX)),
            Range::V4(block) => Some((block.first(), block.last())),
            Range::V6(_) => None,
        };
        let v6 = match range {
            Range::Any => Some((u128::MIN, u128::MAX)),
            Range::V6(block) => Some((block.first(), block.last())),
            Range::V4(_) => None,
        };
        let v4 = v4.into_iter().flat_map(|(first, last)| self.v4.widest(first, last)).map(Range::V4);
        let v6 = v6.into_iter().flat_map(|(first, last)| self.v6.widest(first, last)).map(Range::V6);
        v4.chain(v6)
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
        Self { any, v4: BlockColumns::from_unsorted(v4), v6: BlockColumns::from_unsorted(v6) }
    }
}

impl RangeSet {
    /// All addresses of both families.
    pub fn full() -> Self {
        Self { v4: IntervalSet::full(), v6: IntervalSet::full() }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// The number of intervals that it consists of.
    pub(crate) fn interval_count(&self) -> usize {
        self.v4.intervals().len() + self.v6.intervals().len()
    }

    /// Whether the address is in the set.
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

    /// Whether some address is in both sets. Fast when `other` has few intervals.
    pub fn meets(&self, other: &Self) -> bool {
        self.v4.meets_any(&other.v4) || self.v6.meets_any(&other.v6)
    }

    /// How much of a range is in the set.
    pub fn share_of(&self, range: Range) -> Share {
        match range {
            Range::V4(block) => self.v4.share_of(block.first(), block.last()),
            Range::V6(block) => self.v6.share_of(block.first(), block.last()),
            Range::Any => {
                let v4 = self.v4.share_of(u32::MIN, u32::MAX);
                let v6 = self.v6.share_of(u128::MIN, u128::MAX);
                if v4 == v6 { v4 } else { Share::Part }
            }
        }
    }

    /// Whether every address of `self` is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.v4.is_subset(&other.v4) && self.v6.is_subset(&other.v6)
    }

    /// The ranges of [`RangeSet::ranges`] from `first` on. `first` must be one of them.
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

    /// The fewest CIDR ranges that cover the set: IPv4 first, each family in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        self.v4.blocks().map(Range::V4).chain(self.v6.blocks().map(Range::V6))
    }
}
