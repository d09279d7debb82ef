//! The pages of a large map, and the lookup in them.
//!
//! Invariant: every index that a page holds is in bounds, because `build` makes them all.
//! Not here: making pages (`build`), small maps and the spans that are searched (`table`).

use crate::word::Word;

/// The number of intervals that are searched directly instead of being split by another page. A search always makes
/// this many comparisons: a mispredicted branch, as in a search of varying length, costs more than all of them.
pub(super) const SPAN_LENGTH_MAX: usize = 8;

/// The pages of a map.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    /// The page for each value of the first 16 bits. A value whose addresses all have one label has a page too, which
    /// it shares with all such values: a branch on whether there is a page would be unpredictable and wait for memory.
    pub(super) root: Box<[u16; ROOT_CHILDREN]>,
    /// The chunks of the pages that the root names, four for each page.
    pub(super) chunks: Vec<Chunk>,
    /// The chunks of the pages that entries name.
    pub(super) chunks_below: Vec<Chunk>,
    pub(super) entries: Vec<Entry>,
}

/// A quarter of a page. Bits and index lie side by side, so that one cache line has both.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub(super) struct Chunk {
    /// Bit c is set when child c has another entry than child c − 1. The bit of a page's first child is always set.
    pub(super) changes: u64,
    /// The index in `entries` of the last entry before this chunk.
    pub(super) before: u32,
}

const ROOT_BITS: u8 = 16;
pub(super) const ROOT_CHILDREN: usize = 1 << ROOT_BITS;
/// The number of bits that the root and the first page resolve.
pub(super) const SPLIT_BITS: u8 = ROOT_BITS + 8;
/// Chunks of a page.
pub(super) const PAGE_CHUNKS: usize = 4;

/// A label, a page below, or a span of intervals. The two upper bits tell which. The payload of a page is the index of
/// its first chunk, that of a span the index of its first interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(pub(super) u32);

const KIND_SHIFT: u32 = 30;
/// Also the highest label, and the highest number of intervals.
const PAYLOAD: u32 = (1 << KIND_SHIFT) - 1;
pub(super) const KIND_LABEL: u32 = 0;
pub(super) const KIND_PAGE: u32 = 1 << KIND_SHIFT;
const KIND_SPAN: u32 = 2 << KIND_SHIFT;

impl Entry {
    pub(super) fn label(label: u32) -> Self {
        Self(label & PAYLOAD)
    }

    pub(super) fn page(first_chunk: u32) -> Self {
        Self(KIND_PAGE | first_chunk)
    }

    pub(super) fn span(first: usize) -> Self {
        Self(KIND_SPAN | to_u32(first))
    }

    #[inline]
    pub(super) fn kind(self) -> u32 {
        self.0 & !PAYLOAD
    }

    #[inline]
    pub(super) fn payload(self) -> u32 {
        self.0 & PAYLOAD
    }
}

/// Indices stay far below 2³⁰: the limits of §3.8 allow a few million intervals.
pub(super) fn to_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[expect(
    clippy::indexing_slicing,
    reason = "the builder makes every index; a wrong one must end the request (which denies) rather than give a label"
)]
impl Pages {
    /// The entry for the first 24 bits.
    #[inline]
    pub(super) fn entry<W: Word>(&self, word: W) -> Entry {
        let page = usize::from(self.root[word.top16()]);
        self.child(&self.chunks, page * PAGE_CHUNKS, word.octet_at(ROOT_BITS))
    }

    /// The entry of a child of the page that begins at `first_chunk`.
    #[inline]
    pub(super) fn child(&self, chunks: &[Chunk], first_chunk: usize, child: u8) -> Entry {
        let chunk = &chunks[first_chunk + usize::from(child >> 6)];
        let upto = chunk.changes << (63 - (child & 63));
        self.entries[chunk.before as usize + upto.count_ones() as usize]
    }
}
