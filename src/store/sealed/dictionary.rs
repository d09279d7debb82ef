//! The dictionary of a unit: its terms in order, each with how many records have it and which.
//!
//! The terms are in *pages* of about 4 KiB that are read and checked as a whole. The *page index*, which is kept in
//! memory, has for each page the shortest text that separates its first term from the last term of the page before. So
//! one read finds a term. Lists of more than [`INLINE_BYTES_MAX`] are in an area of their own, contiguous and in the
//! order of their terms.
//!
//! ```text
//! page        entries, crc32c (4)
//! entry       token (1)        low half: bytes of the suffix; high half: bytes shared with the term before (none
//!                              for the first of a page); 15 stands for 15 and more
//!             varint           of the bytes shared beyond 15, where the high half is 15
//!             varint           of the suffix's bytes beyond 15, where the low half is 15
//!             suffix
//!             varint           twice (number of records − 1), plus 1 where the list lies in the area of lists
//!             of 4 records at most: their indexes (2 each)
//!             else: varint of the list's bytes; the list, where it is not in the area
//! list        in the area: the list, crc32c (4), whose number is where the list begins; both count as its bytes
//! page index  for each page: varint of the separator's bytes, separator, varint of the page's bytes with checksum,
//!             varint of the bytes that its lists have in the area
//! ```
//!
//! Invariant: terms are strictly ascending over all pages, so each occurs once.
//!
//! Not here: how lists are coded (`postings`); reading files.

use super::bytes::{put_counted, put_varint, take, take_bytes, take_counted, take_varint};
use super::file::{CHECKSUM_BYTES, Part, Seed};
use super::index_set::IndexSet;
use super::postings;

/// A list of more bytes than this lies outside of the pages, so that many terms fit a page.
const INLINE_BYTES_MAX: usize = 64;

/// So few indexes are stored uncoded: no coding is smaller.
const PLAIN_RECORDS_MAX: usize = 4;

/// A page that has as many bytes takes no more terms.
const PAGE_BYTES: usize = 4096;

/// The value of a half of a token that says that more follows.
const HALF_MAX: usize = 15;

/// The dictionary of a unit as bytes.
#[derive(Debug, Default)]
pub(super) struct EncodedDictionary {
    pub(super) lists: Vec<u8>,
    pub(super) pages: Vec<u8>,
    pub(super) page_index: Vec<u8>,
}

/// Encodes the dictionary of a unit of `records`; terms are strictly ascending, each term's indexes are strictly ascending and below that.
pub(super) fn encode(seed: Seed, terms: &[(Vec<u8>, &[u16])], records: usize) -> EncodedDictionary {
    let mut encoder = Encoder {
        seed,
        done: EncodedDictionary::default(),
        page: Vec::new(),
        page_number: 0,
        lists_start: 0,
        separator: Vec::new(),
        last: &[],
    };
    for (term, indexes) in terms {
        encoder.add(term, indexes, records);
    }
    encoder.end_page();
    encoder.done
}

struct Encoder<'a> {
    seed: Seed,
    done: EncodedDictionary,
    page: Vec<u8>,
    page_number: usize,
    /// Where the lists of the page's terms begin.
    lists_start: usize,
    separator: Vec<u8>,
    last: &'a [u8],
}

impl<'a> Encoder<'a> {
    fn add(&mut self, term: &'a [u8], indexes: &[u16], records: usize) {
        if self.page.len() >= PAGE_BYTES {
            self.end_page();
            let shared = shared(self.last, term);
            self.separator = term.get(..=shared).unwrap_or(term).to_vec();
        }
        let before = if self.page.is_empty() { &[] } else { self.last };
        let shared = shared(before, term);
        let suffix = term.get(shared..).unwrap_or_default();
        let halves = (shared.min(HALF_MAX) << 4) | suffix.len().min(HALF_MAX);
        self.page.push(u8::try_from(halves).unwrap_or(u8::MAX));
        for length in [shared, suffix.len()] {
            if length >= HALF_MAX {
                put_varint(&mut self.page, length - HALF_MAX);
            }
        }
        self.page.extend_from_slice(suffix);
        self.add_postings(indexes, records);
        self.last = term;
    }

    fn add_postings(&mut self, indexes: &[u16], records: usize) {
        let count = indexes.len().saturating_sub(1) << 1;
        if indexes.len() <= PLAIN_RECORDS_MAX {
            put_varint(&mut self.page, count);
            self.page.extend(indexes.iter().flat_map(|index| index.to_le_bytes()));
            return;
        }
        let list = postings::encode(indexes, records);
        if list.len() <= INLINE_BYTES_MAX {
            put_varint(&mut self.page, count);
            put_counted(&mut self.page, &list);
            return;
        }
        put_varint(&mut self.page, count | 1);
        put_varint(&mut self.page, list.len() + CHECKSUM_BYTES);
        let start = self.done.lists.len();
        self.done.lists.extend_from_slice(&list);
        self.seed.seal(&mut self.done.lists, start, Part::List, start);
    }

    fn end_page(&mut self) {
        if self.page.is_empty() {
            return;
        }
        let start = self.done.pages.len();
        self.done.pages.append(&mut self.page);
        self.seed.seal(&mut self.done.pages, start, Part::TermPage, self.page_number);
        put_counted(&mut self.done.page_index, &self.separator);
        put_varint(&mut self.done.page_index, self.done.pages.len() - start);
        put_varint(&mut self.done.page_index, self.done.lists.len() - self.lists_start);
        self.lists_start = self.done.lists.len();
        self.page_number += 1;
    }
}

/// How many bytes two terms share at their beginning.
fn shared(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// An entry of the page index: where a page is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageEntry {
    /// No term of the page is less, and every term of the page before is.
    separator: Vec<u8>,
    pub(super) offset: usize,
    /// With its checksum.
    pub(super) bytes: usize,
    /// Where the lists of its terms begin in the area of lists.
    lists_offset: usize,
}

/// Where the postings of a term are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Postings<'a> {
    /// These indexes, two bytes each.
    Plain(&'a [u8]),
    /// This list.
    Inline(&'a [u8]),
    /// A list in the area of lists, with its checksum.
    Listed { offset: usize, bytes: usize },
}

/// A term and its postings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TermEntry<'a> {
    pub(super) term: &'a [u8],
    pub(super) count: usize,
    pub(super) postings: Postings<'a>,
}

/// The entries of a page index; none where the bytes are none.
pub(super) fn decode_page_index(mut bytes: &[u8]) -> Option<Vec<PageEntry>> {
    let (mut pages, mut offset, mut lists_offset) = (Vec::new(), 0, 0);
    while !bytes.is_empty() {
        let separator = take_counted(&mut bytes)?.to_vec();
        let (page_bytes, lists_bytes) = (take_varint(&mut bytes)?, take_varint(&mut bytes)?);
        pages.push(PageEntry { separator, offset, bytes: page_bytes, lists_offset });
        offset += page_bytes;
        lists_offset += lists_bytes;
    }
    Some(pages)
}

/// The number of the page that a term would be in; none where there are no pages.
pub(super) fn page_of(pages: &[PageEntry], term: &[u8]) -> Option<usize> {
    pages.partition_point(|page| page.separator.as_slice() <= term).checked_sub(1)
}

/// Reads the terms of a page one after the other.
#[derive(Debug)]
pub(super) struct PageReader<'a> {
    rest: &'a [u8],
    term: Vec<u8>,
    lists_offset: usize,
}

/// A page that is none.
#[derive(Debug)]
pub(super) struct NoPage;

impl<'a> PageReader<'a> {
    /// Begins with a page, without its checksum.
    pub(super) fn new(entry: &PageEntry, page: &'a [u8]) -> Self {
        Self { rest: page, term: Vec::new(), lists_offset: entry.lists_offset }
    }

    /// The next term; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<TermEntry<'_>>, NoPage> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (count, postings) = self.read().ok_or(NoPage)?;
        Ok(Some(TermEntry { term: &self.term, count, postings }))
    }

    fn read(&mut self) -> Option<(usize, Postings<'a>)> {
        let page = &mut self.rest;
        let [token] = take(page)?;
        let length = |half: u8, page: &mut &[u8]| match usize::from(half) {
            HALF_MAX => take_varint(page)?.checked_add(HALF_MAX),
            half => Some(half),
        };
        let shared = length(token >> 4, page)?;
        let suffix = length(token & 0x0F, page)?;
        if shared > self.term.len() {
            return None;
        }
        self.term.truncate(shared);
        self.term.extend_from_slice(take_bytes(page, suffix)?);
        let word = take_varint(page)?;
        let (count, listed) = ((word >> 1) + 1, word & 1 == 1);
        let postings = if listed {
            let bytes = take_varint(page)?;
            let offset = self.lists_offset;
            self.lists_offset = offset.checked_add(bytes)?;
            Postings::Listed { offset, bytes }
        } else if count <= PLAIN_RECORDS_MAX {
            Postings::Plain(take_bytes(page, count * 2)?)
        } else {
            Postings::Inline(take_counted(page)?)
        };
        Some((count, postings))
    }
}

/// Adds postings that lie in the page itself to `set`; none where they are not as many as they should be.
pub(super) fn add_inline(entry: &TermEntry<'_>, records: usize, set: &mut IndexSet) -> Option<()> {
    match entry.postings {
        Postings::Plain(indexes) => {
            for index in indexes.as_chunks::<2>().0 {
                let index = u16::from_le_bytes(*index);
                if usize::from(index) >= records {
                    return None;
                }
                set.insert(index);
            }
            Some(())
        }
        Postings::Inline(list) => postings::decode(list, entry.count, records, set),
        Postings::Listed { .. } => None,
    }
}
