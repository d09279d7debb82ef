//! The layouts that the table was chosen against, over the same intervals.
//!
//! Invariant: every layout gives, for every address, the label of the interval that contains it.
//! Not here: how they are measured (`layouts`), and the table itself (`policy::table`).

use portcullis::policy::table::Table;
use portcullis::policy::word::Word;

/// Intervals: first address and label of each, ascending from the lowest address.
pub(crate) type Intervals<W> = [(W, u32)];

/// A way to lay intervals out for lookup.
pub(crate) trait Layout<W> {
    /// The label of an address.
    fn label(&self, word: W) -> u32;
    /// The memory it takes.
    fn bytes(&self) -> usize;
}

impl<W: Word> Layout<W> for Table<W> {
    #[inline]
    fn label(&self, word: W) -> u32 {
        Table::label(self, word)
    }

    fn bytes(&self) -> usize {
        Table::bytes(self)
    }
}

fn columns<W: Copy>(intervals: &Intervals<W>) -> (Box<[W]>, Box<[u32]>) {
    let (starts, labels): (Vec<W>, Vec<u32>) = intervals.iter().copied().unzip();
    (starts.into(), labels.into())
}

/// Sorted bounds, binary search.
pub(crate) struct Bounds<W> {
    starts: Box<[W]>,
    labels: Box<[u32]>,
}

impl<W: Word> Bounds<W> {
    pub(crate) fn new(intervals: &Intervals<W>) -> Self {
        let (starts, labels) = columns(intervals);
        Self { starts, labels }
    }
}

impl<W: Word> Layout<W> for Bounds<W> {
    #[inline]
    fn label(&self, word: W) -> u32 {
        self.labels[self.starts.partition_point(|start| *start <= word) - 1]
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.labels)
    }
}

/// The bounds in the order in which a binary search meets them: the children of node k are 2k and 2k + 1.
pub(crate) struct Eytzinger<W> {
    starts: Box<[W]>,
    labels: Box<[u32]>,
}

impl<W: Word> Eytzinger<W> {
    pub(crate) fn new(intervals: &Intervals<W>) -> Self {
        let mut placed = vec![(W::MIN, 0); intervals.len() + 1];
        let mut sorted = intervals.iter();
        Self::fill(&mut placed, 1, &mut sorted);
        let (starts, labels) = columns(&placed);
        Self { starts, labels }
    }

    fn fill<'a>(placed: &mut [(W, u32)], node: usize, sorted: &mut impl Iterator<Item = &'a (W, u32)>) {
        if node < placed.len() {
            Self::fill(placed, 2 * node, sorted);
            placed[node] = *sorted.next().unwrap();
            Self::fill(placed, 2 * node + 1, sorted);
        }
    }
}

impl<W: Word> Layout<W> for Eytzinger<W> {
    #[inline]
    fn label(&self, word: W) -> u32 {
        let mut node = 1;
        while let Some(start) = self.starts.get(node) {
            node = 2 * node + usize::from(*start <= word);
        }
        // The last node from which the way led to the right: behind it there were only turns to the left.
        node >>= node.trailing_zeros() + 1;
        self.labels[node]
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.labels)
    }
}

/// Keys of one node of a [`Tree`]: for IPv4 a cache line.
const FAN: usize = 16;

/// A search tree with 16 keys to a node and no pointers. A key above the lowest level is the least one below the child
/// to its right.
pub(crate) struct Tree<W> {
    /// The root first; the last level holds the bounds.
    levels: Vec<Box<[[W; FAN]]>>,
    labels: Box<[u32]>,
}

impl<W: Word> Tree<W> {
    pub(crate) fn new(intervals: &Intervals<W>) -> Self {
        let (starts, labels) = columns(intervals);
        let node = |keys: &[W]| std::array::from_fn(|at| keys.get(at).copied().unwrap_or(W::MAX));
        let mut levels: Vec<Box<[[W; FAN]]>> = vec![starts.chunks(FAN).map(node).collect()];
        let mut least: Vec<W> = starts.chunks(FAN).map(|keys| keys[0]).collect();
        while least.len() > 1 {
            levels.insert(0, least.chunks(FAN + 1).map(|children| node(&children[1..])).collect());
            least = least.chunks(FAN + 1).map(|children| children[0]).collect();
        }
        Self { levels, labels }
    }
}

impl<W: Word> Layout<W> for Tree<W> {
    #[inline]
    fn label(&self, word: W) -> u32 {
        let upto = |node: &[W; FAN]| node.iter().map(|key| usize::from(*key <= word)).sum::<usize>();
        let (leaves, above) = self.levels.split_last().unwrap();
        let mut node = 0;
        for (level, below) in above.iter().zip(self.levels.iter().skip(1)) {
            // What fills a last node up counts for the highest address alone.
            node = (node * (FAN + 1) + upto(&level[node])).min(below.len() - 1);
        }
        self.labels[(node * FAN + upto(&leaves[node])).min(self.labels.len()) - 1]
    }

    fn bytes(&self) -> usize {
        self.levels.iter().map(|level| size_of_val(&**level)).sum::<usize>() + size_of_val(&*self.labels)
    }
}

/// IPv4: the first 16 bits say where to search, the lower 16 bits of the bounds are what is searched.
pub(crate) struct Halves {
    /// For each value of the first 16 bits the bounds before it; and all of them.
    first: Box<[u32]>,
    lows: Box<[u16]>,
    labels: Box<[u32]>,
}

impl Halves {
    pub(crate) fn new(intervals: &Intervals<u32>) -> Self {
        let before = |top: u32| u32::try_from(intervals.partition_point(|(start, _)| start >> 16 < top)).unwrap();
        let (starts, labels) = columns(intervals);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
        let lows = starts.iter().map(|start| *start as u16).collect();
        Self { first: (0..=1 << 16).map(before).collect(), lows, labels }
    }
}

impl Layout<u32> for Halves {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
    fn label(&self, word: u32) -> u32 {
        let top = (word >> 16) as usize;
        let (from, to) = (self.first[top] as usize, self.first[top + 1] as usize);
        let low = word as u16;
        self.labels[from + self.lows[from..to].partition_point(|start| *start <= low) - 1]
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.first) + size_of_val(&*self.lows) + size_of_val(&*self.labels)
    }
}

/// IPv4: one entry for each value of the first 24 bits, and 256 more where the last 8 matter (DIR-24-8).
pub(crate) struct Direct {
    first: Box<[u32]>,
    below: Vec<[u32; 256]>,
}

/// Set in an entry that is a place in `below`.
const BELOW: u32 = 1 << 31;

impl Direct {
    pub(crate) fn new(intervals: &Intervals<u32>) -> Self {
        let (mut first, mut below) = (Vec::with_capacity(1 << 24), Vec::new());
        let mut at = 0;
        for top in 0..1_u32 << 24 {
            let label_of = |at: &mut usize, word: u32| {
                while intervals.get(*at + 1).is_some_and(|(start, _)| *start <= word) {
                    *at += 1;
                }
                intervals[*at].1
            };
            let label = label_of(&mut at, top << 8);
            if intervals.get(at + 1).is_none_or(|(start, _)| start >> 8 > top) {
                first.push(label);
            } else {
                first.push(BELOW | u32::try_from(below.len()).unwrap());
                below.push(std::array::from_fn(|low| label_of(&mut at, top << 8 | u32::try_from(low).unwrap())));
            }
        }
        Self { first: first.into(), below }
    }
}

impl Layout<u32> for Direct {
    #[inline]
    fn label(&self, word: u32) -> u32 {
        let entry = self.first[(word >> 8) as usize];
        if entry & BELOW == 0 { entry } else { self.below[(entry ^ BELOW) as usize][word as usize % 256] }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.first) + size_of_val(&*self.below)
    }
}
