//! What the two files of a unit share: the header, checksums that are bound to the file and the part, and reads whose
//! errors tell what is wrong and where.
//!
//! ```text
//!  0  magic            8
//!  8  format version   2   little endian, like every number here
//! 10  reserved         2   0
//! 12  count            4   records or slots
//! 16  first sequence   8
//! 24  the file's own  36
//! 60  crc32c           4   of bytes 0..60
//! 64  what the file holds
//! ```
//!
//! Every other checksum is a crc32c of the header's checksum (4 bytes), the kind of the part (1), its number within its
//! kind (4) and its bytes. So no part of another file, and no other part of this file, passes for it.
//!
//! Invariant: magic, version and checksum stay where they are in every later version, so that any version can tell a
//! newer file from a damaged one. No byte is returned before its checksum was verified.
//!
//! Not here: the parts of the files.

use std::io;
use std::path::{Path, PathBuf};

use super::super::disk::{Disk, DiskFile, read_exact_at};
use super::bytes::take;
use super::error::SealedError;

pub(super) const HEADER_BYTES: usize = 64;

/// The bytes of the header that each kind of file uses as it likes.
pub(super) const OWN_BYTES: usize = 36;

/// The bytes of a checksum.
pub(super) const CHECKSUM_BYTES: usize = 4;

/// The newest version of both files.
pub(super) const VERSION: u16 = 1;

/// The kinds of parts; each has its own checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Tile = 1,
    List = 2,
    TermPage = 3,
    PageIndex = 4,
    TileTable = 5,
    Attachment = 6,
    Footer = 7,
    Names = 8,
    EmailIndex = 9,
    BlockTable = 10,
}

/// What stands at the start of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) count: u32,
    pub(super) first_sequence: u64,
    pub(super) own: [u8; OWN_BYTES],
}

/// What all checksums of a file begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    /// The checksum of a part.
    pub(super) fn checksum(self, part: Part, number: usize, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut prefix = [0; 9];
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let bound = [&self.0.to_le_bytes()[..], &[part as u8], &number.to_le_bytes()].concat();
        prefix.copy_from_slice(&bound);
        crc32c::crc32c_append(crc32c::crc32c(&prefix), bytes).to_le_bytes()
    }

    /// Appends the checksum of the bytes of `file` from `start` on.
    pub(super) fn seal(self, file: &mut Vec<u8>, start: usize, part: Part, number: usize) {
        let checksum = self.checksum(part, number, file.get(start..).unwrap_or_default());
        file.extend_from_slice(&checksum);
    }

    /// The bytes before the checksum that ends them, if it matches.
    pub(super) fn open(self, sealed: &[u8], part: Part, number: usize) -> Option<&[u8]> {
        let (bytes, checksum) = sealed.split_last_chunk::<CHECKSUM_BYTES>()?;
        (self.checksum(part, number, bytes) == *checksum).then_some(bytes)
    }
}

impl Header {
    pub(super) fn encode(&self) -> (Vec<u8>, Seed) {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.own);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        (bytes, Seed(checksum))
    }
}

/// A file of a unit, open for reading.
#[derive(Debug)]
pub(super) struct UnitFile {
    pub(super) path: PathBuf,
    pub(super) first_sequence: u64,
    pub(super) bytes: u64,
    file: Box<dyn DiskFile>,
}

impl UnitFile {
    pub(super) fn open(disk: &dyn Disk, path: PathBuf, first_sequence: u64) -> Result<Self, SealedError> {
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SealedError::Missing { path }),
            Err(error) => return Err(io_error("open", &path, error)),
        };
        let bytes = file.size().map_err(|error| io_error("read the size of", &path, error))?;
        Ok(Self { path, first_sequence, bytes, file })
    }

    /// The error that the part at `offset` is damaged. The unit's first sequence stands for all its records.
    pub(super) fn damaged(&self, offset: u64, detail: &'static str) -> SealedError {
        SealedError::Damaged { path: self.path.clone(), offset, sequence: self.first_sequence, detail }
    }

    /// Reads `count` bytes from `offset` on.
    pub(super) fn read(&self, offset: u64, count: usize) -> Result<Vec<u8>, SealedError> {
        // Checked before memory is allocated for bytes that the file does not have.
        if offset.saturating_add(count as u64) > self.bytes {
            return Err(self.damaged(offset, "the file ends before"));
        }
        let mut bytes = vec![0; count];
        match read_exact_at(&*self.file, &mut bytes, offset) {
            Ok(true) => Ok(bytes),
            Ok(false) => Err(self.damaged(offset, "the file became shorter")),
            Err(error) => Err(io_error("read", &self.path, error)),
        }
    }

    /// Reads a part that ends with its checksum, and returns it without.
    pub(super) fn read_part(
        &self,
        seed: Seed,
        extent: (u64, usize),
        part: (Part, usize),
        detail: &'static str,
    ) -> Result<Vec<u8>, SealedError> {
        let (offset, count) = extent;
        let mut sealed = self.read(offset, count)?;
        let bytes = seed.open(&sealed, part.0, part.1).map(<[u8]>::len);
        sealed.truncate(bytes.ok_or_else(|| self.damaged(offset, detail))?);
        Ok(sealed)
    }

    /// Reads the header of a file with this magic.
    pub(super) fn read_header(&self, magic: [u8; 8]) -> Result<(Header, Seed), SealedError> {
        let damaged = || self.damaged(0, "its header does not match");
        let bytes = self.read(0, HEADER_BYTES)?;
        let (covered, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
        if crc32c::crc32c(covered).to_le_bytes() != *checksum {
            return Err(damaged());
        }
        let rest = &mut &*covered;
        if take(rest) != Some(magic) {
            return Err(self.damaged(0, "it is another kind of file"));
        }
        let version = take(rest).map(u16::from_le_bytes).ok_or_else(damaged)?;
        if version > VERSION {
            return Err(SealedError::NewerFormat { path: self.path.clone(), version, supported: VERSION });
        }
        let header = take::<2>(rest).and_then(|_| {
            Some(Header {
                magic,
                count: u32::from_le_bytes(take(rest)?),
                first_sequence: u64::from_le_bytes(take(rest)?),
                own: take(rest)?,
            })
        });
        let header = header.filter(|header| header.first_sequence == self.first_sequence);
        let header = header.ok_or_else(|| self.damaged(0, "it is the file of another unit"))?;
        Ok((header, Seed(u32::from_le_bytes(*checksum))))
    }
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> SealedError {
    SealedError::Io { action, path: path.to_owned(), source }
}
