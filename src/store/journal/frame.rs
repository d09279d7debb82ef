//! The format of a frame: what one append writes.
//!
//! ```text
//!  0  magic            4   "PCF" 0xA7
//!  4  kind             1   1 = records
//!  5  reserved         3   0
//!  8  payload bytes    4   little endian, like every number here
//! 12  record count     4
//! 16  first sequence   8
//! 24  payload crc32c   4
//! 28  header crc32c    4   of bytes 0..28
//! 32  payload              per record: its bytes' count (4), its bytes
//! ```
//!
//! Both checksums begin with the salt of the segment. So only bytes that were written to this file form a frame: no copy
//! of another segment, and no frame that somebody writes into the description of a rule.
//!
//! Invariant: the header has its own checksum, so a length is used only after it was verified.
//!
//! Not here: files.

use super::super::JournalError;

/// The most bytes that one append may take, lengths of the records included.
pub const FRAME_BYTES_MAX: u32 = 256 * 1024 * 1024;

pub(super) const FRAME_MAGIC: [u8; 4] = *b"PCF\xa7";
pub(super) const FRAME_HEADER_BYTES: usize = 32;

/// The bytes of a record's length.
const LENGTH_BYTES: u64 = 4;

/// The kind of frame whose payload is records. Readers refuse a kind that they do not know.
pub(super) const KIND_RECORDS: u8 = 1;

/// What makes the checksums of one segment differ from those of every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt(pub(super) u64);

impl Salt {
    /// The checksum of nothing, to be continued with [`crc32c::crc32c_append`].
    pub(super) fn seed(self) -> u32 {
        crc32c::crc32c(&self.0.to_le_bytes())
    }

    pub(super) fn checksum(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.seed(), bytes)
    }
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) kind: u8,
    pub(super) payload_bytes: u32,
    pub(super) count: u32,
    pub(super) first_sequence: u64,
    pub(super) payload_crc: u32,
}

impl FrameHeader {
    /// Reads a header; none where the bytes are not one of a segment with this salt.
    pub(super) fn decode(bytes: &[u8; FRAME_HEADER_BYTES], salt: Salt) -> Option<Self> {
        let (covered, crc) = bytes.split_last_chunk::<4>()?;
        if !covered.starts_with(&FRAME_MAGIC) || u32::from_le_bytes(*crc) != salt.checksum(covered) {
            return None;
        }
        let mut rest = covered.get(FRAME_MAGIC.len()..)?;
        let [kind, _, _, _] = take(&mut rest)?;
        Some(Self {
            kind,
            payload_bytes: u32::from_le_bytes(take(&mut rest)?),
            count: u32::from_le_bytes(take(&mut rest)?),
            first_sequence: u64::from_le_bytes(take(&mut rest)?),
            payload_crc: u32::from_le_bytes(take(&mut rest)?),
        })
    }

    pub(super) fn encode(&self, salt: Salt, frame: &mut Vec<u8>) {
        let start = frame.len();
        frame.extend_from_slice(&FRAME_MAGIC);
        frame.extend_from_slice(&[self.kind, 0, 0, 0]);
        frame.extend_from_slice(&self.payload_bytes.to_le_bytes());
        frame.extend_from_slice(&self.count.to_le_bytes());
        frame.extend_from_slice(&self.first_sequence.to_le_bytes());
        frame.extend_from_slice(&self.payload_crc.to_le_bytes());
        let crc = salt.checksum(frame.get(start..).unwrap_or_default());
        frame.extend_from_slice(&crc.to_le_bytes());
    }

    /// The bytes of the whole frame.
    pub(super) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// The sequence after the frame's last.
    pub(super) fn next_sequence(&self) -> u64 {
        self.first_sequence.saturating_add(u64::from(self.count))
    }
}

/// The number of records and of payload bytes of a frame of `records`; an error if they are too large for one.
pub(super) fn measure(records: &[Vec<u8>]) -> Result<(u32, u32), JournalError> {
    let bytes = records.iter().map(|record| LENGTH_BYTES + record.len() as u64).sum::<u64>();
    let too_large = JournalError::TooLarge { bytes, bytes_max: u64::from(FRAME_BYTES_MAX) };
    match (u32::try_from(records.len()), u32::try_from(bytes)) {
        (Ok(count), Ok(payload_bytes)) if payload_bytes <= FRAME_BYTES_MAX => Ok((count, payload_bytes)),
        _ => Err(too_large),
    }
}

/// Makes `frame` the frame of `records`.
pub(super) fn encode(
    frame: &mut Vec<u8>,
    salt: Salt,
    first_sequence: u64,
    records: &[Vec<u8>],
) -> Result<(), JournalError> {
    let (count, payload_bytes) = measure(records)?;
    let mut payload_crc = salt.seed();
    for record in records {
        payload_crc = crc32c::crc32c_append(payload_crc, &length(record));
        payload_crc = crc32c::crc32c_append(payload_crc, record);
    }
    frame.clear();
    FrameHeader { kind: KIND_RECORDS, payload_bytes, count, first_sequence, payload_crc }.encode(salt, frame);
    for record in records {
        frame.extend_from_slice(&length(record));
        frame.extend_from_slice(record);
    }
    Ok(())
}

/// The length as it stands before a record. `measure` has seen that it fits.
fn length(record: &[u8]) -> [u8; 4] {
    u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// Takes the next record off a payload.
pub(super) fn take_record<'a>(payload: &mut &'a [u8]) -> Option<&'a [u8]> {
    let bytes = u32::from_le_bytes(take(payload)?) as usize;
    let (record, rest) = payload.split_at_checked(bytes)?;
    *payload = rest;
    Some(record)
}

/// The first record of a payload, to be overwritten, and what comes after it.
pub(super) fn split_record_mut(payload: &mut [u8]) -> Option<(&mut [u8], &mut [u8])> {
    let (bytes, rest) = payload.split_first_chunk_mut::<4>()?;
    rest.split_at_mut_checked(u32::from_le_bytes(*bytes) as usize)
}

/// Takes `N` bytes off the front.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}
