//! The compiled form of an interval map: the label of an address in a few loads from memory.
//!
//! A small map is searched as it is. A large map has pages, as a page table of a processor. The first 16 bits of an
//! address choose a page, and each page resolves 8 more bits. A page has 256 children. It holds one bit for each child,
//! which says whether the child's entry differs from that of the child before. So a page costs 64 bytes and one entry
//! for each difference, and a population count finds the entry.
//!
//! IPv4 takes three loads without a branch that could be mispredicted, except for the few ranges longer than /24. When
//! only a few intervals are left below the first 24 bits, they are searched directly. This bounds the memory for sparse
//! IPv6.
//!
//! Invariant: `label(word)` equals the map's label for every word.
//! Not here: how pages are made (`build`), what labels mean (`firewall`, `members`).

mod build;
mod pages;

use super::intervals::IntervalMap;
use super::word::Word;
use build::Builder;
use pages::{Entry, KIND_LABEL, KIND_PAGE, Pages, SPAN_LENGTH_MAX, SPLIT_BITS};

/// The number of intervals from which on a table has pages. By measurement, a branchless binary search is as fast in a
/// smaller map, and it saves the 128 KiB of the root.
const PAGES_FROM: usize = 1_024;

/// A table of labels for the addresses of one family.
#[derive(Clone, Debug)]
pub struct Table<W> {
    pages: Option<Pages>,
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
        let Some(pages) = &self.pages else { return self.map.label(word) };
        let entry = pages.entry(word);
        if entry.kind() == KIND_LABEL { entry.payload() } else { self.label_below(pages, entry, word) }
    }

    /// Not inlined, because `label` is smaller and faster without it.
    #[inline(never)]
    fn label_below(&self, pages: &Pages, mut entry: Entry, word: W) -> u32 {
        let mut offset = SPLIT_BITS;
        while entry.kind() == KIND_PAGE {
            entry = pages.child(&pages.chunks_below, entry.payload() as usize, word.octet_at(offset));
            offset += 8;
        }
        if entry.kind() == KIND_LABEL { entry.payload() } else { self.search(entry.payload() as usize, word) }
    }

    /// The label of a word among the few intervals of a span, the first of which starts at or before the word.
    /// Intervals after the span start after the word, so comparing them too does no harm.
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
    /// Compiles an interval map.
    pub fn new(mut map: IntervalMap<W>) -> Self {
        map.shrink();
        let pages = (map.starts().len() >= PAGES_FROM).then(|| Builder::new(&map).pages());
        Self { pages, map }
    }

    /// Compiles intervals, given as first word, last word and label. They must ascend and not overlap. Words between
    /// them have the label 0.
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

    /// The memory that the table takes on the heap, in bytes.
    pub fn bytes(&self) -> usize {
        let pages = self.pages.as_ref().map_or(0, |pages| {
            let chunks = size_of_val(&*pages.chunks) + size_of_val(&*pages.chunks_below);
            size_of_val(&*pages.root) + chunks + size_of_val(&*pages.entries)
        });
        pages + size_of_val(self.map.starts()) + size_of_val(self.map.labels())
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
