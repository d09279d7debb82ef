//! The compiled form of an interval map: the label of an address in a few loads.
//!
//! A small map is searched as it is. In a large one the first 16 bits name a block, and blocks take the others in
//! strides of 8. A block holds, for its 256 children, one bit each that says whether the child differs from the one
//! before, so 256 children cost 64 bytes and one entry per difference; a count of bits finds the entry. So IPv4 is
//! decided in three loads, without a branch that could be predicted wrongly, but for the few ranges longer than /24.
//! Where below the first 24 bits only a few intervals are left, they are searched directly, which bounds the memory
//! for sparse IPv6.
//!
//! Invariant: `label(word)` equals the map's label for every word.
//! Not here: how it is made (`build`), what labels mean (`firewall`, `members`).

mod blocks;
mod build;

use super::intervals::IntervalMap;
use super::word::Word;
use blocks::{Blocks, Entry, KIND_BLOCK, KIND_LABEL, SPAN_LENGTH_MAX, SPLIT_BITS};
use build::Builder;

/// From how many intervals on there are blocks. Measured: up to here a binary search (which has no branches either)
/// takes as long, and it needs no memory; the 128 KiB of the root are more than a smaller map is worth.
const BLOCKS_FROM: usize = 1_024;

/// A label table for one family.
#[derive(Clone, Debug)]
pub struct Table<W> {
    blocks: Option<Blocks>,
    map: IntervalMap<W>,
}

#[expect(
    clippy::indexing_slicing,
    reason = "the builder makes every index; a wrong one must end the request (which denies) rather than give a label"
)]
impl<W: Word> Table<W> {
    /// The label of an address.
    #[inline]
    pub fn label(&self, word: W) -> u32 {
        let Some(blocks) = &self.blocks else { return self.map.label(word) };
        let entry = blocks.entry(word);
        if entry.kind() == KIND_LABEL { entry.payload() } else { self.label_below(blocks, entry, word) }
    }

    /// Kept out of `label`, which is smaller and faster without.
    #[inline(never)]
    fn label_below(&self, blocks: &Blocks, mut entry: Entry, word: W) -> u32 {
        let mut offset = SPLIT_BITS;
        while entry.kind() == KIND_BLOCK {
            entry = blocks.child(&blocks.chunks_below, entry.payload() as usize, word.octet_at(offset));
            offset += 8;
        }
        if entry.kind() == KIND_LABEL { entry.payload() } else { self.search(entry.payload() as usize, word) }
    }

    /// The label among the few intervals of a span, of which the first starts at or before every word asked for. What
    /// follows them starts behind every such word, so it does no harm to compare it too.
    #[inline]
    fn search(&self, first: usize, word: W) -> u32 {
        let starts = &self.map.starts()[first..];
        let after = match starts.first_chunk::<SPAN_LENGTH_MAX>() {
            Some(starts) => starts.iter().map(|start| usize::from(*start <= word)).sum(),
            None => starts.iter().filter(|start| **start <= word).count(),
        };
        self.map.labels()[(first + after).saturating_sub(1)]
    }
}

impl<W: Word> Table<W> {
    /// Compiles a map.
    pub fn new(mut map: IntervalMap<W>) -> Self {
        map.shrink();
        let blocks = (map.starts().len() >= BLOCKS_FROM).then(|| Builder::new(&map).blocks());
        Self { blocks, map }
    }

    /// Compiles intervals, first and last word and label of each, that ascend and do not overlap; elsewhere the label
    /// is 0.
    pub fn of_intervals(intervals: impl IntoIterator<Item = (W, W, u32)>) -> Self {
        let intervals = intervals.into_iter();
        let mut map = IntervalMap::with_capacity(2 * intervals.size_hint().0 + 1);
        map.push(W::MIN, 0);
        for (first, last, label) in intervals {
            map.push(first, label);
            if let Some(next) = last.next() {
                map.push(next, 0);
            }
        }
        Self::new(map)
    }

    /// The map that the table was compiled from.
    pub fn map(&self) -> &IntervalMap<W> {
        &self.map
    }

    /// The memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.as_ref().map_or(0, |blocks| {
            let chunks = size_of_val(&*blocks.chunks) + size_of_val(&*blocks.chunks_below);
            size_of_val(&*blocks.root) + chunks + size_of_val(&*blocks.entries)
        });
        blocks + size_of_val(self.map.starts()) + size_of_val(self.map.labels())
    }
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
