//! The compiled form of an interval map: the label of an address in a few loads.
//!
//! Upper bits are taken in strides. A stride's block holds, for its 256 children, one bit each that says whether the
//! child differs from the one before, so 256 children cost 48 bytes and one entry per difference; a count of bits finds
//! the entry. Where only a few intervals are left, they are searched directly, which bounds the memory for sparse IPv6.
//!
//! Invariant: `label(word)` equals the map's label for every word.
//! Not here: what labels mean (`firewall`, `members`).

use super::intervals::IntervalMap;
use super::word::Word;

/// Intervals that are searched directly instead of being split by another stride. Measured on real routes: 8 is the
/// longest search that costs less than the loads it saves.
const SPAN_LENGTH_MAX: usize = 8;

/// From how many intervals on the first 16 bits are taken in one step, for 256 KiB of memory.
const DIRECT_FROM: usize = 4_096;

/// A label table for one family.
#[derive(Clone, Debug)]
pub struct Table<W> {
    root: Root,
    blocks: Vec<Block>,
    entries: Vec<Entry>,
    map: IntervalMap<W>,
}

/// How the first bits are taken.
#[derive(Clone, Debug)]
enum Root {
    /// One entry for everything.
    Single(Entry),
    /// One entry for each value of the first 16 bits.
    Direct(Box<[Entry]>),
}

/// The 256 children of one stride.
#[derive(Clone, Debug)]
struct Block {
    /// Bit c is set when child c has another entry than child c − 1; bit 0 always is.
    changes: [u64; 4],
    /// For each word of `changes`, the place in `entries` of the last entry before that word.
    before: [u32; 4],
}

/// A label, a block, or a span of intervals, told apart by the two upper bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u32);

const KIND_SHIFT: u32 = 30;
const PAYLOAD: u32 = (1 << KIND_SHIFT) - 1;
const KIND_LABEL: u32 = 0;
const KIND_BLOCK: u32 = 1;
/// In a span's payload the lower bits hold the number of intervals less one.
const SPAN_LENGTH_BITS: u32 = 3;

/// The highest label a table can hold, and eight times the highest number of intervals.
pub const LABEL_MAX: u32 = PAYLOAD;

impl Entry {
    fn label(label: u32) -> Self {
        Self(label & PAYLOAD)
    }

    fn block(index: usize) -> Self {
        Self(KIND_BLOCK << KIND_SHIFT | to_u32(index))
    }

    fn span(first: usize, length: usize) -> Self {
        Self(2 << KIND_SHIFT | to_u32(first) << SPAN_LENGTH_BITS | to_u32(length - 1))
    }
}

/// Indices stay far below 2³²: the limits of §3.8 allow a few million intervals.
fn to_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[expect(
    clippy::indexing_slicing,
    reason = "the builder makes every index; a wrong one must end the request (which denies) rather than give a label"
)]
impl<W: Word> Table<W> {
    /// The label of an address.
    #[inline]
    pub fn label(&self, word: W) -> u32 {
        let (mut entry, mut offset) = match &self.root {
            Root::Direct(entries) => (entries[word.top16()], 16),
            Root::Single(entry) => (*entry, 0),
        };
        loop {
            let payload = entry.0 & PAYLOAD;
            match entry.0 >> KIND_SHIFT {
                KIND_LABEL => return payload,
                KIND_BLOCK => {
                    let block = &self.blocks[payload as usize];
                    let child = word.octet_at(offset);
                    let at = usize::from(child >> 6);
                    let upto = block.changes[at] & (u64::MAX >> (63 - (child & 63)));
                    entry = self.entries[(block.before[at] + upto.count_ones()) as usize];
                    offset += 8;
                }
                _ => return self.search(payload, word),
            }
        }
    }

    /// The label among the few intervals of a span, of which the first starts at or before every word asked for.
    #[inline]
    fn search(&self, payload: u32, word: W) -> u32 {
        let first = (payload >> SPAN_LENGTH_BITS) as usize;
        let length = (payload & ((1 << SPAN_LENGTH_BITS) - 1)) as usize + 1;
        let starts = &self.map.starts()[first..first + length];
        let after = starts.iter().filter(|start| **start <= word).count();
        self.map.labels()[first + after.saturating_sub(1)]
    }
}

impl<W: Word> Table<W> {
    /// Compiles a map.
    pub fn new(mut map: IntervalMap<W>) -> Self {
        map.shrink();
        // The first entry is never used, so that a place before the first real one exists.
        let entries = vec![Entry::label(0)];
        let mut builder = Builder { starts: map.starts(), labels: map.labels(), blocks: Vec::new(), entries };
        let root = if builder.starts.len() < DIRECT_FROM {
            Root::Single(builder.entry(W::MIN, 0, 0).0)
        } else {
            let mut at = 0;
            let direct = (0..=u16::MAX).map(|top| {
                let (entry, next) = builder.entry(W::from_top16(top), 16, at);
                at = next;
                entry
            });
            Root::Direct(direct.collect())
        };
        let (mut blocks, mut entries) = (builder.blocks, builder.entries);
        blocks.shrink_to_fit();
        entries.shrink_to_fit();
        Self { root, blocks, entries, map }
    }

    /// The map that the table was compiled from.
    pub fn map(&self) -> &IntervalMap<W> {
        &self.map
    }
}

struct Builder<'a, W> {
    starts: &'a [W],
    labels: &'a [u32],
    blocks: Vec<Block>,
    entries: Vec<Entry>,
}

impl<W: Word> Builder<'_, W> {
    fn label(&self, at: usize) -> u32 {
        self.labels.get(at).copied().unwrap_or_default()
    }

    /// The entry for the words that share their first `offset` bits with `base`, of which interval `at` contains the
    /// first; and the interval that contains the first word after them.
    fn entry(&mut self, base: W, offset: u8, at: usize) -> (Entry, usize) {
        let end = base.block_end(offset);
        // Most blocks hold few intervals: a short look ahead beats a search over all that follow.
        let rest = self.starts.get(at + 1..).unwrap_or_default();
        let length = 1 + count_upto(rest, end);
        let last = at + length - 1;
        let next_starts_behind = self.starts.get(last + 1).is_some_and(|start| end.next() == Some(*start));
        let next = last + usize::from(next_starts_behind);
        if length == 1 {
            return (Entry::label(self.label(at)), next);
        }
        if length <= SPAN_LENGTH_MAX {
            return (Entry::span(at, length), next);
        }
        (self.block(base, offset, at, last), next)
    }

    /// A block for a base whose intervals are `at..=last`, more than one.
    fn block(&mut self, base: W, offset: u8, mut at: usize, last: usize) -> Entry {
        let mut changes = [0_u64; 4];
        let mut children: Vec<Entry> = Vec::with_capacity(last - at + 1);
        let mut child: u16 = 0;
        while let Ok(octet) = u8::try_from(child) {
            let child_base = base.with_octet_at(offset, octet);
            let (entry, next) = self.entry(child_base, offset + 8, at);
            if children.last() != Some(&entry) {
                children.push(entry);
                if let Some(word) = changes.get_mut(usize::from(octet >> 6)) {
                    *word |= 1 << (octet & 63);
                }
            }
            child = match self.starts.get(at + 1) {
                _ if next != at => child + 1,
                // The interval goes on through whole children: the next one of interest is where it ends.
                Some(end) if at < last => u16::from(end.octet_at(offset)),
                _ => 256,
            };
            at = self.interval_at(next, base, offset, child);
        }
        let mut place = to_u32(self.entries.len()) - 1;
        let before = changes.map(|word| {
            let before = place;
            place += word.count_ones();
            before
        });
        self.entries.append(&mut children);
        self.blocks.push(Block { changes, before });
        Entry::block(self.blocks.len() - 1)
    }

    /// The interval that contains the first word of a child, known to be `at` or the one after it.
    fn interval_at(&self, at: usize, base: W, offset: u8, child: u16) -> usize {
        let Ok(octet) = u8::try_from(child) else { return at };
        let first = base.with_octet_at(offset, octet);
        at + usize::from(self.starts.get(at + 1).is_some_and(|start| *start <= first))
    }
}

/// Number of leading starts that are at most `end`: a few steps one by one, then by doubling.
fn count_upto<W: Word>(starts: &[W], end: W) -> usize {
    let mut bound = 1;
    while starts.get(bound - 1).is_some_and(|start| *start <= end) {
        bound *= 2;
    }
    let window = starts.get(bound / 2..bound.min(starts.len())).unwrap_or_default();
    bound / 2 + window.partition_point(|start| *start <= end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every boundary, its neighbours, and the ends of the family.
    fn agrees<W: Word>(map: &IntervalMap<W>) {
        let table = Table::new(map.clone());
        for (first, last, label) in map.iter() {
            for word in [first, last] {
                assert_eq!(table.label(word), label, "at {word:?}");
            }
            let beyond = [first.previous(), last.next()];
            for word in beyond.into_iter().flatten() {
                assert_eq!(table.label(word), map.label(word), "beside {word:?}");
            }
        }
    }

    fn random_map<W: Word>(seed: &mut u64, count: usize, make: impl Fn(u64, u64) -> W) -> IntervalMap<W> {
        let mut random = || {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *seed >> 11
        };
        let mut starts: Vec<W> = (0..count).map(|_| make(random(), random())).collect();
        starts.sort_unstable();
        let mut map = IntervalMap::with_capacity(count + 1);
        map.push(W::MIN, 0);
        for start in starts {
            map.push(start, u32::try_from(random() % 5).unwrap_or_default());
        }
        map
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn the_table_gives_the_label_of_the_map_at_every_boundary() {
        let mut seed = 1;
        for count in [0, 1, 2, 7, 8, 9, 100, 3_000, 20_000] {
            for spread in [0, 8, 16, 24] {
                agrees(&random_map(&mut seed, count, |a, _| (a as u32) >> spread));
                agrees(&random_map(&mut seed, count, |a, _| !((a as u32) >> spread)));
                agrees(&random_map(&mut seed, count, |a, b| (u128::from(a) << 70 | u128::from(b)) >> (4 * spread)));
                agrees(&random_map(&mut seed, count, |a, b| {
                    0x2001_0db8_u128 << 96 | u128::from(a % 7) << 64 | u128::from(b) >> spread
                }));
            }
        }
    }
}
