//! Reading a sealed unit.
//!
//! Header, footer, page index and tile table are read on opening; tiles, pages of terms and lists on demand.
//!
//! Invariant: reads return what was written, or an error that names the first record affected.
//! Not here: the openings (`openings`).

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::super::disk::Disk;
use super::bytes::{decompress, take, take_counted, unpack};
use super::dictionary::{NoPage, PageEntry, PageReader, Postings, TermEntry, add_inline, decode_page_index, page_of};
use super::error::SealedError;
use super::file::{CHECKSUM_BYTES, HEADER_BYTES, Header, Part, Seed, UnitFile};
use super::index_set::IndexSet;
use super::postings;
use super::segment::{END_MAGIC, FOOTER_BYTES, SEGMENT_MAGIC, TILE_ENTRY_BYTES, TILE_RECORDS, TileSummary};
use crate::locks::IgnorePoison;

/// A sealed unit, open for reading.
#[derive(Debug)]
pub struct SealedUnit {
    file: UnitFile,
    seed: Seed,
    count: usize,
    tiles: Vec<TileSummary>,
    /// Of each tile: offset, bytes with checksum, bytes of the content.
    frames: Vec<(u64, usize, usize)>,
    pages: Vec<PageEntry>,
    lists_offset: u64,
    pages_offset: u64,
    attachment: (u64, usize),
    /// The tile that was read last: records are mostly read one after the other.
    last: Mutex<Option<(usize, Arc<Tile>)>>,
}

/// The records of a tile.
#[derive(Debug, PartialEq, Eq)]
pub struct Tile {
    content: Vec<u8>,
    /// Where each record begins and ends.
    bounds: Vec<(usize, usize)>,
}

impl Tile {
    /// A record by its index in the tile.
    pub fn body(&self, index: usize) -> Option<&[u8]> {
        let (start, end) = *self.bounds.get(index)?;
        self.content.get(start..end)
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.bounds.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bounds.is_empty()
    }

    fn parse(content: Vec<u8>) -> Option<Self> {
        let (mut bounds, mut rest) = (Vec::new(), content.as_slice());
        while !rest.is_empty() {
            let body = take_counted(&mut rest)?.len();
            let end = content.len() - rest.len();
            bounds.push((end - body, end));
        }
        Some(Self { content, bounds })
    }
}

impl SealedUnit {
    /// Opens the unit that begins with `first_sequence`.
    pub(super) fn open(disk: &dyn Disk, path: PathBuf, first_sequence: u64) -> Result<Self, SealedError> {
        let file = UnitFile::open(disk, path, first_sequence)?;
        let (Header { count, .. }, seed) = file.read_header(SEGMENT_MAGIC)?;
        let damaged = || file.damaged(file.bytes, "its end does not match");
        let footer_offset = file.bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(damaged)?;
        let footer = file.read(footer_offset, FOOTER_BYTES)?;
        let footer = footer.strip_suffix(&END_MAGIC).and_then(|sealed| seed.open(sealed, Part::Footer, 0));
        let sizes = footer.and_then(Sizes::parse).ok_or_else(damaged)?;
        let lists_offset = HEADER_BYTES as u64 + sizes.tiles;
        let pages_offset = lists_offset + sizes.lists;
        let index_offset = pages_offset + sizes.pages;
        let table_offset = index_offset + sizes.page_index as u64;
        let attachment_offset = table_offset + sizes.table as u64;
        if attachment_offset + sizes.attachment as u64 != footer_offset {
            return Err(damaged());
        }
        let index =
            file.read_part(seed, (index_offset, sizes.page_index), (Part::PageIndex, 0), "its index does not match")?;
        let pages = decode_page_index(&index).ok_or_else(|| file.damaged(index_offset, "its index does not match"))?;
        let table =
            file.read_part(seed, (table_offset, sizes.table), (Part::TileTable, 0), "its tile table does not match")?;
        let (tiles, frames) = parse_table(&table);
        let count = count as usize;
        if tiles.len() != count.div_ceil(TILE_RECORDS) || table.len() != tiles.len() * TILE_ENTRY_BYTES {
            return Err(file.damaged(table_offset, "its tile table does not match"));
        }
        let attachment = (attachment_offset, sizes.attachment);
        let last = Mutex::default();
        Ok(Self { file, seed, count, tiles, frames, pages, lists_offset, pages_offset, attachment, last })
    }

    /// The sequence of its first record.
    pub fn first_sequence(&self) -> u64 {
        self.file.first_sequence
    }

    /// Number of records.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What is known of its tiles.
    pub fn tile_summaries(&self) -> &[TileSummary] {
        &self.tiles
    }

    /// The records of a tile.
    pub fn tile(&self, number: usize) -> Result<Arc<Tile>, SealedError> {
        let mut last = self.last.lock().ignore_poison();
        if let Some((read, tile)) = &*last
            && *read == number
        {
            return Ok(Arc::clone(tile));
        }
        let tile = Arc::new(self.read_tile(number)?);
        *last = Some((number, Arc::clone(&tile)));
        Ok(tile)
    }

    fn read_tile(&self, number: usize) -> Result<Tile, SealedError> {
        let first = self.first_sequence() + (number * TILE_RECORDS) as u64;
        let of_tile = |error: SealedError| match error {
            SealedError::Damaged { path, offset, detail, .. } => {
                SealedError::Damaged { path, offset, sequence: first, detail }
            }
            other => other,
        };
        let frame = self.frames.get(number).copied();
        let (offset, bytes, content_bytes) =
            frame.ok_or_else(|| of_tile(self.file.damaged(0, "it has no such tile")))?;
        let detail = "the records of a tile do not match";
        let frame = self.file.read_part(self.seed, (offset, bytes), (Part::Tile, number), detail).map_err(of_tile)?;
        let tile = decompress(&frame, content_bytes).and_then(Tile::parse);
        let expected = self.count.saturating_sub(number * TILE_RECORDS).min(TILE_RECORDS);
        let tile = tile.filter(|tile| tile.len() == expected);
        tile.ok_or_else(|| of_tile(self.file.damaged(offset, detail)))
    }

    /// The attachment that the caller stored with the unit.
    pub fn attachment(&self) -> Result<Vec<u8>, SealedError> {
        let detail = "its attachment does not match";
        let packed = self.file.read_part(self.seed, self.attachment, (Part::Attachment, 0), detail)?;
        unpack(&packed).ok_or_else(|| self.file.damaged(self.attachment.0, detail))
    }

    /// Adds the records that have a term to `set`; true if there are any.
    pub fn postings(&self, term: &[u8], set: &mut IndexSet) -> Result<bool, SealedError> {
        let mut found = false;
        self.find(term, &mut |entry| {
            found = true;
            self.add(entry, set)
        })?;
        Ok(found)
    }

    /// Adds the records that have a term with this prefix to `set`; true if there are any.
    pub fn postings_with_prefix(&self, prefix: &[u8], set: &mut IndexSet) -> Result<bool, SealedError> {
        let mut found = false;
        self.for_each_with_prefix(prefix, &mut |entry| {
            found = true;
            self.add(entry, set)
        })?;
        Ok(found)
    }

    /// The terms with this prefix, in order, and how many records have each.
    pub fn terms_with_prefix(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, usize)>, SealedError> {
        let mut terms = Vec::new();
        self.for_each_with_prefix(prefix, &mut |entry| {
            terms.push((entry.term.to_vec(), entry.count));
            Ok(())
        })?;
        Ok(terms)
    }

    /// Reads the whole file. The error tells what is damaged.
    pub fn verify_bytes(&self) -> Result<(), SealedError> {
        for number in 0..self.frames.len() {
            self.read_tile(number)?;
        }
        self.attachment()?;
        let mut set = IndexSet::new();
        self.for_each_with_prefix(&[], &mut |entry| self.add(entry, &mut set))
    }

    /// Tells `found` the entry of a term, where there is one.
    fn find(
        &self,
        term: &[u8],
        found: &mut dyn FnMut(&TermEntry<'_>) -> Result<(), SealedError>,
    ) -> Result<(), SealedError> {
        let Some(number) = page_of(&self.pages, term) else { return Ok(()) };
        self.for_each_in_page(number, &mut |entry| match entry.term.cmp(term) {
            Ordering::Less => Ok(ControlFlow::Continue(())),
            Ordering::Equal => found(entry).map(ControlFlow::Break),
            Ordering::Greater => Ok(ControlFlow::Break(())),
        })
        .map(drop)
    }

    fn for_each_with_prefix(
        &self,
        prefix: &[u8],
        found: &mut dyn FnMut(&TermEntry<'_>) -> Result<(), SealedError>,
    ) -> Result<(), SealedError> {
        let first = page_of(&self.pages, prefix).unwrap_or_default();
        for number in first..self.pages.len() {
            let end = self.for_each_in_page(number, &mut |entry| {
                if entry.term.starts_with(prefix) {
                    found(entry)?;
                } else if entry.term > prefix {
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if end.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Tells `visit` the terms of a page in order, until it has enough.
    fn for_each_in_page(&self, number: usize, visit: &mut Visit<'_>) -> Result<ControlFlow<()>, SealedError> {
        let detail = "a page of its terms does not match";
        let Some(entry) = self.pages.get(number) else { return Ok(ControlFlow::Continue(())) };
        let offset = self.pages_offset + entry.offset as u64;
        let page = self.file.read_part(self.seed, (offset, entry.bytes), (Part::TermPage, number), detail)?;
        let mut entries = PageReader::new(entry, &page);
        while let Some(entry) = entries.next().map_err(|NoPage| self.file.damaged(offset, detail))? {
            if visit(&entry)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn add(&self, entry: &TermEntry<'_>, set: &mut IndexSet) -> Result<(), SealedError> {
        let detail = "the records of a term do not match";
        let Postings::Listed { offset: at, bytes } = entry.postings else {
            let damaged = || self.file.damaged(self.pages_offset, detail);
            return add_inline(entry, self.count, set).ok_or_else(damaged);
        };
        let offset = self.lists_offset + at as u64;
        let list = self.file.read_part(self.seed, (offset, bytes), (Part::List, at), detail)?;
        postings::decode(&list, entry.count, self.count, set).ok_or_else(|| self.file.damaged(offset, detail))
    }
}

/// What is done with a term; whether more of them are wanted.
type Visit<'a> = dyn FnMut(&TermEntry<'_>) -> Result<ControlFlow<()>, SealedError> + 'a;

/// What the footer says.
struct Sizes {
    tiles: u64,
    lists: u64,
    pages: u64,
    page_index: usize,
    table: usize,
    attachment: usize,
}

impl Sizes {
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let sizes = Self {
            tiles: u64::from_le_bytes(take(rest)?),
            lists: u64::from_le_bytes(take(rest)?),
            pages: u64::from_le_bytes(take(rest)?),
            page_index: u32::from_le_bytes(take(rest)?) as usize,
            table: u32::from_le_bytes(take(rest)?) as usize,
            attachment: u32::from_le_bytes(take(rest)?) as usize,
        };
        let whole =
            rest.is_empty() && [sizes.page_index, sizes.table, sizes.attachment].iter().all(|n| *n >= CHECKSUM_BYTES);
        whole.then_some(sizes)
    }
}

type Frames = Vec<(u64, usize, usize)>;

fn parse_table(table: &[u8]) -> (Vec<TileSummary>, Frames) {
    let (mut tiles, mut frames, mut offset) = (Vec::new(), Vec::new(), HEADER_BYTES as u64);
    for mut entry in table.as_chunks::<TILE_ENTRY_BYTES>().0.iter().map(<[u8; TILE_ENTRY_BYTES]>::as_slice) {
        let rest = &mut entry;
        let (Some(bytes), Some(content), Some(min), Some(max), Some(root)) =
            (take(rest), take(rest), take(rest), take(rest), take(rest))
        else {
            break;
        };
        let bytes = u32::from_le_bytes(bytes) as usize;
        frames.push((offset, bytes, u32::from_le_bytes(content) as usize));
        offset += bytes as u64;
        tiles.push(TileSummary { min_time: i64::from_le_bytes(min), max_time: i64::from_le_bytes(max), root });
    }
    (tiles, frames)
}
