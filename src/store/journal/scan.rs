//! Looking through a segment at the start: how far it counts, and whether what follows is the trace of a crash or
//! damage.
//!
//! Every frame is on the disk before the next is begun, so a crash leaves at most one unfinished frame, at the very end
//! of the last segment, and nothing but zeros after it, the room for frames to come. What an unfinished write left out
//! is either beyond the end of the file or reads as zeros, in whole sectors: only zeros are ever written over, and file
//! systems never show what a block held before. So a bad end is called *torn* only where something is visibly left out;
//! otherwise somebody changed what was acknowledged, and dropping that silently could drop a rule that denies.
//!
//! Invariant: whatever was acknowledged is either found or an error, never passed over, but for what cannot be told
//! from a crash: a whole sector of the last frame turned into zeros, or the file cut inside it; and where there is
//! room, zeros in place of everything from some place on. Of audit records the signed checkpoints show that, but for
//! the last second's.
//!
//! Not here: cutting the torn end off. It is left where it is; the header of the next segment says that it does not
//! count.

use std::path::Path;

use super::super::JournalError;
use super::super::disk::{Disk, DiskFile, read_exact_at};
use super::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, KIND_RECORDS, Salt};
use super::read::{Found, FrameReader};
use super::segment::{SEGMENT_HEADER_BYTES, SEGMENT_VERSION};

/// What a disk writes whole or not at all. Disks with larger sectors write several of these at once.
const SECTOR_BYTES: usize = 512;

const WINDOW_BYTES: usize = 64 * 1024;

/// How far a segment counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The sequence after its last record.
    pub(super) next_sequence: u64,
    /// Where its last whole frame ends.
    pub(super) valid_bytes: u64,
    /// The bytes of a torn end behind that.
    pub(super) torn_bytes: u64,
}

impl Extent {
    /// That of a segment without frames, with which looking through it begins.
    pub(super) fn of_empty(first_sequence: u64) -> Self {
        Self { next_sequence: first_sequence, valid_bytes: SEGMENT_HEADER_BYTES as u64, torn_bytes: 0 }
    }
}

/// Looks through a segment that another one follows, whose header says how far this one counts. After an error `extent`
/// tells what is good before it.
pub(super) fn scan_followed(
    disk: &dyn Disk,
    path: &Path,
    salt: Salt,
    valid_bytes: u64,
    extent: &mut Extent,
) -> Result<(), JournalError> {
    let file = open(disk, path)?;
    let end = size(&*file, path)?.min(valid_bytes);
    let mut frames = FrameReader::new(path, salt, file, end);
    match scan_frames(&mut frames, extent, end)? {
        None if end < valid_bytes => Err(frames.damaged(extent.next_sequence, "its end is missing")),
        None => Ok(()),
        Some(bad) => Err(JournalError::Damaged {
            path: path.to_owned(),
            offset: bad.offset,
            sequence: extent.next_sequence,
            detail: "a frame's checksum does not match",
        }),
    }
}

/// Looks through the last segment, which may have a torn end. After an error `extent` tells what is good before it.
/// `keeps_room`: behind the last frame there may be zeros for frames to come.
pub(super) fn scan_last(
    disk: &dyn Disk,
    path: &Path,
    salt: Salt,
    keeps_room: bool,
    extent: &mut Extent,
) -> Result<(), JournalError> {
    let file = open(disk, path)?;
    let size = size(&*file, path)?;
    let mut frames = FrameReader::new(path, salt, file, size);
    let Some(bad) = scan_frames(&mut frames, extent, size)? else {
        return Ok(());
    };
    let file = open(disk, path)?;
    let written = if keeps_room { written_end(&*file, path, bad.offset, size)? } else { size };
    if written == bad.offset {
        return Ok(());
    }
    let end = End { path, file, salt, size, written };
    let sequence = extent.next_sequence;
    if let Some(detail) = end.damage(&bad, sequence)? {
        return Err(JournalError::Damaged { path: path.to_owned(), offset: bad.offset, sequence, detail });
    }
    extent.torn_bytes = written - bad.offset;
    Ok(())
}

/// A place where a good frame should begin and does not.
#[derive(Debug)]
struct Bad {
    offset: u64,
    /// Set where at least the header is good.
    header: Option<FrameHeader>,
}

/// Passes good frames up to `end`, or to the first bad one, and counts `extent` along.
fn scan_frames(frames: &mut FrameReader, extent: &mut Extent, end: u64) -> Result<Option<Bad>, JournalError> {
    loop {
        let offset = frames.offset();
        match frames.header()? {
            Found::End => return Ok(None),
            Found::NoHeader => {
                return Ok(Some(Bad { offset, header: None }));
            }
            Found::Frame(header) if header.first_sequence != extent.next_sequence => {
                return Err(frames.damaged(extent.next_sequence, "a frame is out of order"));
            }
            Found::Frame(header) if header.kind != KIND_RECORDS => {
                return Err(frames.damaged(extent.next_sequence, "it has a frame of an unknown kind"));
            }
            Found::Frame(header) => {
                let whole = offset + header.frame_bytes() <= end;
                if !whole || !frames.verify(&header)? {
                    let header = Some(header);
                    return Ok(Some(Bad { offset, header }));
                }
                extent.next_sequence = header.next_sequence();
                extent.valid_bytes = frames.offset();
            }
        }
    }
}

/// The end of the last segment, from a bad frame on.
struct End<'a> {
    path: &'a Path,
    file: Box<dyn DiskFile>,
    salt: Salt,
    size: u64,
    /// What is behind this is room.
    written: u64,
}

impl End<'_> {
    /// What shows that the end is not the trace of a crash; none where it is one.
    fn damage(&self, bad: &Bad, expected: u64) -> Result<Option<&'static str>, JournalError> {
        let Some(header) = &bad.header else {
            let header_end = bad.offset + FRAME_HEADER_BYTES as u64;
            if self.size < header_end {
                return Ok(None);
            }
            if self.has_frame_after(bad.offset, expected)? {
                return Ok(Some("a frame's header does not match and good frames follow"));
            }
            let torn = self.has_empty_sector(bad.offset, header_end)?;
            return Ok((!torn).then_some("a frame's header does not match"));
        };
        let end = bad.offset + header.frame_bytes();
        if self.size < end {
            return Ok(None);
        }
        if self.written > end {
            return Ok(Some("a frame's checksum does not match and more follows"));
        }
        let torn = self.has_empty_sector(bad.offset, end)?;
        Ok((!torn).then_some("a frame's checksum does not match"))
    }

    /// Whether one of the sectors that `start..end` touches holds nothing but zeros from `start` to the end of the
    /// file.
    fn has_empty_sector(&self, start: u64, end: u64) -> Result<bool, JournalError> {
        const SECTOR: u64 = SECTOR_BYTES as u64;
        let mut sector = [0; SECTOR_BYTES];
        let mut offset = start;
        while offset < end {
            let next = (offset - offset % SECTOR + SECTOR).min(self.size);
            let length = usize::try_from(next - offset).unwrap_or_default();
            let piece = sector.get_mut(..length).unwrap_or_default();
            self.read(piece, offset)?;
            if piece.iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
            offset = next;
        }
        Ok(false)
    }

    /// Whether a frame of this segment begins anywhere behind `start`.
    fn has_frame_after(&self, start: u64, expected: u64) -> Result<bool, JournalError> {
        let mut window = vec![0; WINDOW_BYTES];
        let mut offset = start + 1;
        while offset + FRAME_HEADER_BYTES as u64 <= self.size {
            let length = usize::try_from(self.size - offset).unwrap_or(WINDOW_BYTES);
            window.truncate(length);
            self.read(&mut window, offset)?;
            if window
                .windows(FRAME_HEADER_BYTES)
                .filter(|bytes| bytes.starts_with(&FRAME_MAGIC))
                .filter_map(<[u8]>::first_chunk)
                .filter_map(|bytes| FrameHeader::decode(bytes, self.salt))
                .any(|header| header.first_sequence >= expected)
            {
                return Ok(true);
            }
            // The next window begins where the first header not wholly in this one could.
            offset += (window.len() + 1 - FRAME_HEADER_BYTES) as u64;
        }
        Ok(false)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), JournalError> {
        read_exact(&*self.file, self.path, buffer, offset)
    }
}

/// Where what is written behind `start` ends: there are only zeros from there to the end of the file.
pub(super) fn written_end(file: &dyn DiskFile, path: &Path, start: u64, size: u64) -> Result<u64, JournalError> {
    let (mut written, mut offset) = (start, start);
    let mut window = vec![0; WINDOW_BYTES];
    while offset < size {
        window.truncate(usize::try_from(size - offset).unwrap_or(WINDOW_BYTES));
        read_exact(file, path, &mut window, offset)?;
        if let Some(last) = window.iter().rposition(|byte| *byte != 0) {
            written = offset + last as u64 + 1;
        }
        offset += window.len() as u64;
    }
    Ok(written)
}

fn read_exact(file: &dyn DiskFile, path: &Path, buffer: &mut [u8], offset: u64) -> Result<(), JournalError> {
    let whole = read_exact_at(file, buffer, offset).map_err(|source| io_error("read", path, source))?;
    let source = || std::io::ErrorKind::UnexpectedEof.into();
    whole.then_some(()).ok_or_else(|| io_error("read", path, source()))
}

/// Says that a header cannot be used.
pub(super) fn header_error(fault: super::segment::HeaderFault, path: &Path, sequence: u64) -> JournalError {
    use super::segment::HeaderFault;
    let path = path.to_owned();
    match fault {
        HeaderFault::Damaged => {
            JournalError::Damaged { path, offset: 0, sequence, detail: "its header does not match" }
        }
        HeaderFault::NotAJournal => JournalError::Foreign { path, detail: "it is no journal" },
        HeaderFault::OtherStream => JournalError::Foreign { path, detail: "it holds another kind of records" },
        HeaderFault::Newer(version) => JournalError::NewerFormat { path, version, supported: SEGMENT_VERSION },
    }
}

pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Box<dyn DiskFile>, JournalError> {
    disk.open(path).map_err(|source| io_error("open", path, source))
}

pub(super) fn size(file: &dyn DiskFile, path: &Path) -> Result<u64, JournalError> {
    file.size().map_err(|source| io_error("read the size of", path, source))
}

pub(super) fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> JournalError {
    JournalError::Io { action, path: path.to_owned(), source }
}
