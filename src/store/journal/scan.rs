//! Scanning a segment at the start: where its valid bytes end, and whether a crash or damage explains what follows.
//!
//! Every frame is durable before the next is begun. So a crash leaves at most one unfinished frame, at the end of the last
//! segment, followed only by zeros: the room for later frames. The missing parts of an unfinished write are beyond the
//! end of the file or read as zeros, in whole sectors. For only zeros are ever overwritten, and file systems never show
//! what a block held before. So an end is *torn* only if something is visibly missing. Otherwise somebody changed
//! acknowledged records, and dropping them silently could drop a rule that denies.
//!
//! Invariant: every acknowledged record is found, or its loss is an error. The exception is damage that looks like a
//! crash: a whole sector of the last frame is zero, or the file ends inside that frame. In a journal with room, zeros
//! from some offset on look so, too. Signed checkpoints show even that for audit records, except in the last second.
//!
//! Not here: cutting a torn end off. It stays; the header of the next segment says that it is not valid.

use std::path::Path;

use super::super::JournalError;
use super::super::disk::{Disk, DiskFile, read_exact_at};
use super::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, KIND_RECORDS, Salt};
use super::read::{Found, FrameReader};
use super::segment::{SEGMENT_HEADER_BYTES, SEGMENT_VERSION};

/// What a disk writes whole or not at all. Disks with larger sectors write several of these together.
const SECTOR_BYTES: usize = 512;

const WINDOW_BYTES: usize = 64 * 1024;

/// The valid part of a segment.
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
    /// The extent of a segment without frames, where a scan begins.
    pub(super) fn of_empty(first_sequence: u64) -> Self {
        Self { next_sequence: first_sequence, valid_bytes: SEGMENT_HEADER_BYTES as u64, torn_bytes: 0 }
    }
}

/// Scans a segment that another one follows, whose header says where this one ends. After an error `extent` tells what is
/// good before it.
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

/// Scans the last segment, which may have a torn end. After an error `extent` tells what is good before it. `keeps_room`:
/// zeros may follow the last frame, as room for later ones.
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

/// A bad frame.
#[derive(Debug)]
struct Bad {
    offset: u64,
    /// Its header, if that is good.
    header: Option<FrameHeader>,
}

/// Reads good frames up to `end`, or to the first bad one, and extends `extent` by each.
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
    /// Only room follows from here on.
    written: u64,
}

impl End<'_> {
    /// What shows that the end is damaged; none where it is the trace of a crash.
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

/// Where the written bytes after `start` end: only zeros follow, up to the end of the file.
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
