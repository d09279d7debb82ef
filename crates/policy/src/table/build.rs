//! Making the pages of a map, in one walk over its intervals.
//!
//! A start at the beginning of a /24, with no other start inside that /24, costs one bit and one entry. Only a /24 with
//! starts inside it needs a span or a page below.
//!
//! Invariant: the pages lead every word to the label of its interval, or to the span that contains its interval.
//! Not here: the form of the pages and the lookup (`pages`).

use super::pages::{Chunk, Entry, PAGE_CHUNKS, Pages, ROOT_CHILDREN, SPAN_LENGTH_MAX, SPLIT_BITS, to_u32};
use crate::intervals::IntervalMap;
use crate::word::Word;

/// The pages that are made so far, and the state of the walk.
pub(super) struct Builder<'a, W> {
    starts: &'a [W],
    labels: &'a [u32],
    root: Box<[u16; ROOT_CHILDREN]>,
    chunks: Vec<Chunk>,
    chunks_below: Vec<Chunk>,
    entries: Vec<Entry>,
    /// The index in the root of the page under construction, and that page.
    top: usize,
    open: Open,
    /// The entry that applies at the present point of the walk.
    current: Entry,
    /// Runs in which two entries alternate, by the two. All pages of a set of addresses are such runs, so they share
    /// two of them, which stay in the fastest cache.
    alternating: Recent<(Entry, Entry), Run>,
    /// Pages that are one entry throughout, by that entry.
    uniform: Recent<Entry, u16>,
}

/// A page under construction: which children differ from the child before, and their entries.
#[derive(Default)]
struct Open {
    changes: [u64; PAGE_CHUNKS],
    run: Vec<Entry>,
}

impl Open {
    #[inline]
    fn push(&mut self, child: u8, entry: Entry) {
        if let Some(changes) = self.changes.get_mut(usize::from(child >> 6)) {
            *changes |= 1 << (child & 63);
        }
        self.run.push(entry);
    }

    fn clear(&mut self) {
        self.changes = [0; PAGE_CHUNKS];
        self.run.clear();
    }
}

/// A run of entries in `entries`.
#[derive(Clone, Copy)]
struct Run {
    first: u32,
    length: usize,
}

/// A small cache: the last value that was put for a key, until another key takes the slot. A miss makes a second copy
/// of a run or page, which costs less than a map that keeps everything.
struct Recent<K, V>(Vec<Option<(K, V)>>);

impl<K: PartialEq, V: Copy> Recent<K, V> {
    const SLOTS: usize = 64;

    fn new() -> Self {
        Self((0..Self::SLOTS).map(|_| None).collect())
    }

    fn get(&self, hash: u32, key: &K) -> Option<V> {
        let (found, value) = self.0.get(hash as usize % Self::SLOTS)?.as_ref()?;
        (found == key).then_some(*value)
    }

    fn put(&mut self, hash: u32, key: K, value: V) {
        if let Some(slot) = self.0.get_mut(hash as usize % Self::SLOTS) {
            *slot = Some((key, value));
        }
    }
}

impl<'a, W: Word> Builder<'a, W> {
    pub(super) fn new(map: &'a IntervalMap<W>) -> Self {
        #[expect(clippy::large_stack_arrays, reason = "a length that the type knows saves a check in every lookup")]
        let root = Box::new([0; ROOT_CHILDREN]);
        Self {
            starts: map.starts(),
            labels: map.labels(),
            root,
            chunks: Vec::new(),
            chunks_below: Vec::new(),
            // The first entry is never used, so that there is an index before the first run.
            entries: vec![Entry::label(0)],
            top: 0,
            open: Open::default(),
            current: Entry::label(map.labels().first().copied().unwrap_or_default()),
            alternating: Recent::new(),
            uniform: Recent::new(),
        }
    }

    pub(super) fn pages(mut self) -> Pages {
        let mut at = 1;
        while let Some(start) = self.starts.get(at).copied() {
            let (base, top24) = (start.network(SPLIT_BITS), start.top24());
            let follows = |at: usize| self.starts.get(at).is_some_and(|start| start.top24() == top24);
            if start == base && !follows(at + 1) {
                self.put(top24, Entry::label(self.label(at)));
                at += 1;
                continue;
            }
            let first = if start == base { at } else { at - 1 };
            while follows(at) {
                at += 1;
            }
            let entry = self.below(base, SPLIT_BITS, first, at);
            self.put(top24, entry);
            // The last label continues after this /24, unless another interval begins there.
            if self.starts.get(at).is_none_or(|start| start.top24() > top24 + 1) && top24 + 1 < 1 << SPLIT_BITS {
                self.put(top24 + 1, Entry::label(self.label(at - 1)));
            }
        }
        self.move_to(ROOT_CHILDREN);
        self.chunks.shrink_to_fit();
        self.chunks_below.shrink_to_fit();
        self.entries.shrink_to_fit();
        let Self { root, chunks, chunks_below, entries, .. } = self;
        Pages { root, chunks, chunks_below, entries }
    }

    fn label(&self, at: usize) -> u32 {
        self.labels.get(at).copied().unwrap_or_default()
    }

    /// Lets an entry apply from the given first 24 bits on.
    #[inline]
    fn put(&mut self, top24: usize, entry: Entry) {
        let (top, child) = (top24 >> 8, top24.to_le_bytes()[0]);
        if top != self.top {
            self.move_to(top);
        }
        if child > 0 && self.open.run.is_empty() {
            self.open.push(0, self.current);
        }
        self.open.push(child, entry);
        self.current = entry;
    }

    /// Finishes the page under construction, fills the root up to `top` with the current entry, and begins the page
    /// there.
    fn move_to(&mut self, top: usize) {
        let page = if self.open.run.len() < 2 { self.uniform() } else { self.close() };
        if let Some(slot) = self.root.get_mut(self.top) {
            *slot = page;
        }
        if self.top + 1 < top {
            let page = self.uniform();
            if let Some(slots) = self.root.get_mut(self.top + 1..top) {
                slots.fill(page);
            }
        }
        self.top = top;
    }

    /// A page with the current entry for all its children. No other page may be under construction.
    fn uniform(&mut self) -> u16 {
        let entry = self.current;
        self.open.clear();
        if let Some(page) = self.uniform.get(entry.payload(), &entry) {
            return page;
        }
        self.open.push(0, entry);
        let page = self.close();
        self.uniform.put(entry.payload(), entry, page);
        page
    }

    /// Makes the page under construction. There are no more pages than values of 16 bits, so its number fits.
    fn close(&mut self) -> u16 {
        let mut open = std::mem::take(&mut self.open);
        let page = self.chunks.len() / PAGE_CHUNKS;
        let chunks = self.chunks_of(&mut open);
        self.chunks.extend(chunks);
        self.open = open;
        u16::try_from(page).unwrap_or(u16::MAX)
    }

    /// Makes the chunks of a page, and empties the page under construction.
    fn chunks_of(&mut self, open: &mut Open) -> [Chunk; PAGE_CHUNKS] {
        let mut before = self.put_run(&open.run) - 1;
        let chunks = open.changes.map(|changes| {
            let chunk = Chunk { changes, before };
            before += changes.count_ones();
            chunk
        });
        open.clear();
        chunks
    }

    /// The index of a run of entries, which is appended unless it is known.
    fn put_run(&mut self, run: &[Entry]) -> u32 {
        let (first, length) = (to_u32(self.entries.len()), run.len());
        if let [one, other, ..] = run
            && run.iter().skip(2).zip(run).all(|(entry, two_before)| entry == two_before)
        {
            let (hash, key) = (one.0.wrapping_mul(31).wrapping_add(other.0), (*one, *other));
            match self.alternating.get(hash, &key) {
                Some(known) if known.length >= length => return known.first,
                _ => self.alternating.put(hash, key, Run { first, length }),
            }
        }
        self.entries.extend_from_slice(run);
        first
    }

    /// The entry for the words that share their first `offset` bits with `base`. The intervals `first..end` meet these
    /// words, and the first of them contains `base`.
    fn below(&mut self, base: W, offset: u8, first: usize, end: usize) -> Entry {
        if end - first == 1 {
            return Entry::label(self.label(first));
        }
        if end - first <= SPAN_LENGTH_MAX {
            return Entry::span(first);
        }
        let mut open = Open::default();
        let (mut at, mut child) = (first, 0);
        loop {
            let part = base.with_octet_at(offset, child);
            let next = at + 1 + self.count_upto(at + 1, end, part.block_end(offset + 8));
            let entry = self.below(part, offset + 8, at, next);
            if open.run.last() != Some(&entry) {
                open.push(child, entry);
            }
            at = next - 1;
            let last = Entry::label(self.label(at));
            let Some(start) = self.starts.get(next).filter(|_| next < end) else {
                if let Some(child) = child.checked_add(1).filter(|_| entry != last) {
                    open.push(child, last);
                }
                let first_chunk = to_u32(self.chunks_below.len());
                let chunks = self.chunks_of(&mut open);
                self.chunks_below.extend(chunks);
                return Entry::page(first_chunk);
            };
            // The last interval may cover whole children: continue at the child in which another interval begins.
            let beginning = start.octet_at(offset);
            if beginning > child + 1 && entry != last {
                open.push(child + 1, last);
            }
            child = beginning;
            if *start == base.with_octet_at(offset, child) {
                at = next;
            }
        }
    }

    /// The number of intervals in `at..end` that start at or before a word. Most children have few intervals, so a
    /// galloping search is faster than a binary search over all that follow.
    fn count_upto(&self, at: usize, end: usize, word: W) -> usize {
        let rest = self.starts.get(at..end).unwrap_or_default();
        let mut bound = 1;
        while rest.get(bound - 1).is_some_and(|start| *start <= word) {
            bound *= 2;
        }
        let window = rest.get(bound / 2..bound.min(rest.len())).unwrap_or_default();
        bound / 2 + window.partition_point(|start| *start <= word)
    }
}
