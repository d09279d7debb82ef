//! The format of a segment file: its name, and the header before its frames.
//!
//! ```text
//! journal-<first sequence, 20 digits>.wal
//!
//!  0  magic                     8   "PCJOURN" 0xA7
//!  8  format version            2   little endian, like every number here
//! 10  stream                    1   1 = policy, 2 = audit, 3 = sessions
//! 11  reserved                  5   0
//! 16  salt                      8   random; begins every checksum of a frame
//! 24  first sequence            8   of the first record that is or will be in it
//! 32  previous first sequence   8   0 = there was no segment before
//! 40  previous valid bytes      8   the segment before is valid up to there and no further
//! 48  reserved                 12   0
//! 60  crc32c                    4   of bytes 0..60
//! 64  frames
//! ```
//!
//! Invariant: magic, version and checksum stay where they are in every later version, so that any version can tell a
//! newer file from a damaged one.
//!
//! Not here: reading and writing files.

use super::frame::{Salt, take};

/// What a journal holds. Its files store this, so that they are never taken for those of another journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Changes of policy.
    Policy,
    /// Audit records.
    Audit,
    /// Renewals of sessions.
    Sessions,
}

impl Stream {
    fn code(self) -> u8 {
        match self {
            Self::Policy => 1,
            Self::Audit => 2,
            Self::Sessions => 3,
        }
    }
}

pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const SEGMENT_VERSION: u16 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"PCJOURN\xa7";
const PREFIX: &str = "journal-";
const SUFFIX: &str = ".wal";
const DIGITS: usize = 20;

/// What stands before the frames of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) stream: Stream,
    pub(super) salt: Salt,
    pub(super) first_sequence: u64,
    pub(super) previous: Option<Previous>,
}

/// The valid part of the segment before. Bytes after it are of an append that was never acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Previous {
    pub(super) first_sequence: u64,
    pub(super) valid_bytes: u64,
}

/// Why bytes are not a header that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Damaged,
    NotAJournal,
    OtherStream,
    Newer(u16),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let previous = self.previous.unwrap_or(Previous { first_sequence: 0, valid_bytes: 0 });
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&SEGMENT_VERSION.to_le_bytes());
        bytes.push(self.stream.code());
        bytes.extend_from_slice(&[0; 5]);
        bytes.extend_from_slice(&self.salt.0.to_le_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&previous.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&previous.valid_bytes.to_le_bytes());
        bytes.extend_from_slice(&[0; 12]);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES], stream: Stream) -> Result<Self, HeaderFault> {
        let (covered, crc) = bytes.split_last_chunk::<4>().ok_or(HeaderFault::Damaged)?;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(covered) {
            return Err(HeaderFault::Damaged);
        }
        let Some(mut rest) = covered.strip_prefix(&SEGMENT_MAGIC) else {
            return Err(HeaderFault::NotAJournal);
        };
        let fields = &mut rest;
        let version = u16::from_le_bytes(take(fields).ok_or(HeaderFault::Damaged)?);
        if version > SEGMENT_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        let [code, _, _, _, _, _] = take(fields).ok_or(HeaderFault::Damaged)?;
        if code != stream.code() {
            return Err(HeaderFault::OtherStream);
        }
        let mut number = || take(fields).map(u64::from_le_bytes).ok_or(HeaderFault::Damaged);
        let (salt, first_sequence) = (Salt(number()?), number()?);
        let previous = Previous { first_sequence: number()?, valid_bytes: number()? };
        Ok(Self { stream, salt, first_sequence, previous: (previous.first_sequence != 0).then_some(previous) })
    }
}

/// The name of the segment that begins with `first_sequence`.
pub(super) fn name(first_sequence: u64) -> String {
    format!("{PREFIX}{first_sequence:0DIGITS$}{SUFFIX}")
}

/// The first sequence that a segment's name tells; none where the name is not one of a segment.
pub(super) fn first_sequence(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let number = digits.parse().ok()?;
    (name(number) == file_name).then_some(number)
}

/// Whether the name is one of a segment that was never finished.
pub(super) fn is_unfinished(file_name: &str) -> bool {
    file_name.strip_suffix(super::super::disk::UNFINISHED_SUFFIX).is_some_and(|name| first_sequence(name).is_some())
}
