//! The blocks of a large map, and the lookup in them.
//!
//! Invariant: every index that a block holds is in bounds; `build` makes them all.
//! Not here: making blocks (`build`), small maps and the spans that are searched (`table`).

use crate::word::Word;

/// Intervals that are searched directly instead of being split by another stride. Always this many are compared, for a
/// search of varying length costs a wrongly predicted branch, which is more than all the comparisons.
pub(super) const SPAN_LENGTH_MAX: usize = 8;

/// The blocks of a map.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    /// For each value of the first 16 bits its block, of which there are as many at most. Where all 65,536 words have one label there is
    /// a block too, shared by all such places: to ask first whether there is one would be a branch that is as good as
    /// random, and it would wait for memory.
    pub(super) root: Box<[u16; ROOT_CHILDREN]>,
    pub(super) chunks: Vec<Chunk>,
    /// Those of the blocks below.
    pub(super) chunks_below: Vec<Chunk>,
    pub(super) entries: Vec<Entry>,
}

/// A quarter of a block. Bits and count lie side by side, so that one cache line has both.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub(super) struct Chunk {
    /// Bit c is set when child c has another entry than child c − 1; that of a block's first child always is.
    pub(super) changes: u64,
    /// The place in `entries` of the last entry before this chunk.
    pub(super) before: u32,
}

const ROOT_BITS: u8 = 16;
pub(super) const ROOT_CHILDREN: usize = 1 << ROOT_BITS;
/// The bits that the root and the first block take; spans are below.
pub(super) const SPLIT_BITS: u8 = ROOT_BITS + 8;
/// Chunks of a block.
pub(super) const BLOCK_CHUNKS: usize = 4;

/// A label, a block below, or a span of intervals, told apart by the two upper bits. The payload of a block is its first
/// chunk, that of a span its first interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(pub(super) u32);

const KIND_SHIFT: u32 = 30;
/// Also the highest label, and the highest number of intervals.
const PAYLOAD: u32 = (1 << KIND_SHIFT) - 1;
pub(super) const KIND_LABEL: u32 = 0;
pub(super) const KIND_BLOCK: u32 = 1 << KIND_SHIFT;
const KIND_SPAN: u32 = 2 << KIND_SHIFT;

impl Entry {
    pub(super) fn label(label: u32) -> Self {
        Self(label & PAYLOAD)
    }

    pub(super) fn block(first_chunk: u32) -> Self {
        Self(KIND_BLOCK | first_chunk)
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
impl Blocks {
    /// The entry for the first 24 bits.
    #[inline]
    pub(super) fn entry<W: Word>(&self, word: W) -> Entry {
        let block = usize::from(self.root[word.top16()]);
        self.child(&self.chunks, block * BLOCK_CHUNKS, word.octet_at(ROOT_BITS))
    }

    /// The entry of a child of the block that begins at a chunk.
    #[inline]
    pub(super) fn child(&self, chunks: &[Chunk], first_chunk: usize, child: u8) -> Entry {
        let chunk = &chunks[first_chunk + usize::from(child >> 6)];
        let upto = chunk.changes << (63 - (child & 63));
        self.entries[chunk.before as usize + upto.count_ones() as usize]
    }
}
