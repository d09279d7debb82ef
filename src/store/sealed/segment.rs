//! The file of a unit, without its openings.
//!
//! ```text
//! header         64   magic "PCAUDSG" 0xA7; count is that of the records (see `file`)
//! tiles               each a zstd frame, crc32c (4); content: for each record its length (varint) and its bytes
//! lists               see `dictionary`
//! term pages
//! page index          crc32c (4)
//! tile table          for each tile, crc32c (4) at the end:
//!                       frame bytes with checksum (4), content bytes (4), earliest and latest time (8 each), root (32)
//! attachment          packed (see `bytes`), crc32c (4)
//! footer         44   bytes of tiles (8), lists (8), term pages (8), page index (4), tile table (4), attachment (4),
//!                     crc32c (4), magic at the end (4) "PCSE"
//! ```
//!
//! Invariant: what is in the file does not change.
//! Not here: reading (`reader`), and where the file is (`files`).

use super::bytes::{put_counted, put_packed};
use super::dictionary;
use super::file::{Header, OWN_BYTES, Part};
use super::openings::StoredOpening;

pub(super) const SEGMENT_MAGIC: [u8; 8] = *b"PCAUDSG\xa7";
pub(super) const END_MAGIC: [u8; 4] = *b"PCSE";
pub(super) const FOOTER_BYTES: usize = 44;

/// Records of a tile.
pub(super) const TILE_RECORDS: usize = 256;

/// The bytes of a tile in the table.
pub(super) const TILE_ENTRY_BYTES: usize = 56;

/// Higher levels win little on so small frames and take many times as long.
const COMPRESSION_LEVEL: i32 = 1;

/// A tile's entry in the tile table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileSummary {
    /// The earliest time of its records, in microseconds since 1970.
    pub min_time: i64,
    /// The latest.
    pub max_time: i64,
    /// Its root; zeros where it is not full.
    pub root: [u8; 32],
}

/// A unit as it is sealed.
#[derive(Debug)]
pub struct Unit<'a> {
    /// The sequence of its first record.
    pub first_sequence: u64,
    /// Its records.
    pub bodies: &'a [&'a [u8]],
    /// One for each 256 records.
    pub tiles: &'a [TileSummary],
    /// For each term, ascending, the ascending indexes of the records that have it.
    pub postings: &'a [(Vec<u8>, &'a [u16])],
    /// The openings, by slot.
    pub openings: &'a [StoredOpening],
    /// Bytes of the caller's, stored with the unit.
    pub attachment: &'a [u8],
}

/// The bytes of a unit's file.
pub(super) fn encode(unit: &Unit<'_>) -> std::io::Result<Vec<u8>> {
    let Unit { first_sequence, bodies, tiles, postings, openings: _, attachment } = unit;
    let count = u32::try_from(bodies.len()).unwrap_or(u32::MAX);
    let header = Header { magic: SEGMENT_MAGIC, count, first_sequence: *first_sequence, own: [0; OWN_BYTES] };
    let (mut file, seed) = header.encode();
    let mut compressor = zstd::bulk::Compressor::new(COMPRESSION_LEVEL)?;
    let mut table = Vec::new();
    let tiles_start = file.len();
    for (number, (bodies, tile)) in bodies.chunks(TILE_RECORDS).zip(*tiles).enumerate() {
        let mut content = Vec::new();
        for body in bodies {
            put_counted(&mut content, body);
        }
        let start = file.len();
        file.extend(compressor.compress(&content)?);
        seed.seal(&mut file, start, Part::Tile, number);
        let lengths = [file.len() - start, content.len()].map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        table.extend(lengths.iter().flat_map(|bytes| bytes.to_le_bytes()));
        table.extend(tile.min_time.to_le_bytes());
        table.extend(tile.max_time.to_le_bytes());
        table.extend(tile.root);
    }
    let tiles_bytes = (file.len() - tiles_start) as u64;
    let dictionary = dictionary::encode(seed, postings, bodies.len());
    file.extend(&dictionary.lists);
    file.extend(&dictionary.pages);
    let mut parts = Vec::new();
    let mut packed = Vec::new();
    put_packed(&mut packed, attachment, COMPRESSION_LEVEL)?;
    for (part, bytes) in
        [(Part::PageIndex, &dictionary.page_index), (Part::TileTable, &table), (Part::Attachment, &packed)]
    {
        let start = file.len();
        file.extend(bytes);
        seed.seal(&mut file, start, part, 0);
        parts.push(u32::try_from(file.len() - start).unwrap_or(u32::MAX));
    }
    let start = file.len();
    for bytes in [tiles_bytes, dictionary.lists.len() as u64, dictionary.pages.len() as u64] {
        file.extend(bytes.to_le_bytes());
    }
    for bytes in parts {
        file.extend(bytes.to_le_bytes());
    }
    seed.seal(&mut file, start, Part::Footer, 0);
    file.extend(END_MAGIC);
    Ok(file)
}
