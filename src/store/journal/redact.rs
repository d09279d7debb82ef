//! Erasing: a segment is replaced by a copy in which some records' bytes are overwritten.
//!
//! ```text
//! segment   | header | frame | frame | frame |  end of a failed append
//!               =        =      edit     =
//! copy      | header | frame | frame'| frame |
//! ```
//!
//! Everything keeps its offset and its length; in an edited frame only the records' bytes and the checksums change. So
//! the next segment's header is true of the original and the copy, and a crash may leave either.
//!
//! Invariant: the copy takes the name only once it is durable and was read back whole.
//!
//! Not here: which segments may be replaced, and syncing the directory (`file`).

use std::io;
use std::path::Path;

use super::super::disk::{self, Disk, DiskFile, read_exact_at};
use super::super::{Edit, JournalError};
use super::frame::{self, FRAME_HEADER_BYTES, FrameHeader};
use super::read::{self, Found, FrameReader, Segment};
use super::scan::{self, Extent, io_error};

/// Enough to make system calls cheap.
const BUFFER_BYTES: usize = 64 * 1024;

/// A segment that has to be replaced.
pub(super) struct Replacement {
    pass: Pass,
    /// The first edited frame; none where only bytes after the last frame are to be removed.
    first: Option<Edited>,
}

impl Replacement {
    /// Calls `edit` for the records of `segment` from `from` on, up to the first frame that it changes. None where there
    /// is nothing to replace.
    pub(super) fn begin(
        disk: &dyn Disk,
        segment: Segment,
        from: u64,
        edit: &mut Edit<'_>,
    ) -> Result<Option<Self>, JournalError> {
        if segment.first_sequence == segment.next_sequence {
            // A segment without frames may be the one being written. An earlier one is replaced with its name.
            return Ok(None);
        }
        let file = scan::open(disk, &segment.path)?;
        let size = scan::size(&*file, &segment.path)?;
        let has_rest = scan::written_end(&*file, &segment.path, segment.valid_bytes, size)? > segment.valid_bytes;
        if segment.next_sequence <= from && !has_rest {
            return Ok(None);
        }
        let frames = read::open(disk, &segment)?;
        let mut pass = Pass { sequence: segment.first_sequence, segment, from, frames };
        let first = pass.next_edited(edit)?;
        Ok((first.is_some() || has_rest).then_some(Self { pass, first }))
    }

    /// Replaces the segment and returns how many records are changed in it.
    pub(super) fn finish(self, disk: &dyn Disk, edit: &mut Edit<'_>) -> Result<u64, JournalError> {
        let path = self.pass.segment.path.clone();
        let unfinished = disk::unfinished(&path);
        let result = self.write_and_name(disk, &unfinished, edit);
        if result.is_err() {
            // Frees its space. If this fails, too, the next attempt or start removes it.
            drop(disk.remove(&unfinished));
        }
        result
    }

    fn write_and_name(self, disk: &dyn Disk, unfinished: &Path, edit: &mut Edit<'_>) -> Result<u64, JournalError> {
        let Self { mut pass, mut first } = self;
        let path = pass.segment.path.clone();
        let from = scan::open(disk, &path)?;
        let to = disk.create(unfinished).map_err(|source| io_error("create", unfinished, source))?;
        let mut copy = Copy { path: &path, from, to, buffer: Vec::new(), copied: 0, written: 0 };
        let mut changed = 0;
        while let Some(edited) = first.take().map_or_else(|| pass.next_edited(edit), |first| Ok(Some(first)))? {
            changed += edited.changed;
            copy.pass_to(edited.offset)?;
            copy.put(&edited.header)?;
            copy.put(&edited.payload)?;
            copy.copied = edited.offset + (edited.header.len() + edited.payload.len()) as u64;
        }
        copy.pass_to(pass.segment.valid_bytes)?;
        copy.flush()?;
        copy.to.sync().map_err(|source| io_error("sync", unfinished, source))?;
        read_back(disk, unfinished, &pass.segment)?;
        disk.rename(unfinished, &path).map_err(|source| io_error("rename", unfinished, source))?;
        Ok(changed)
    }
}

/// The way through the frames of a segment.
struct Pass {
    segment: Segment,
    frames: FrameReader,
    from: u64,
    /// The sequence that comes next.
    sequence: u64,
}

/// A frame that replaces one of the same size.
struct Edited {
    offset: u64,
    header: Vec<u8>,
    payload: Vec<u8>,
    /// How many of its records are changed.
    changed: u64,
}

impl Pass {
    /// Passes whole frames up to the next that `edit` changes.
    fn next_edited(&mut self, edit: &mut Edit<'_>) -> Result<Option<Edited>, JournalError> {
        loop {
            let offset = self.frames.offset();
            let header = match self.frames.header()? {
                Found::End => return Ok(None),
                Found::NoHeader => {
                    return Err(self.frames.damaged(self.sequence, "a frame's header does not match"));
                }
                Found::Frame(header) if header.first_sequence != self.sequence => {
                    return Err(self.frames.damaged(self.sequence, "a frame is out of order"));
                }
                Found::Frame(header) => header,
            };
            let mut payload = self.frames.payload(&header)?;
            let changed = self.edit_records(&header, &mut payload, edit)?;
            if changed > 0 {
                let salt = self.segment.salt;
                let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES);
                FrameHeader { payload_crc: salt.checksum(&payload), ..header }.encode(salt, &mut bytes);
                return Ok(Some(Edited { offset, header: bytes, payload, changed }));
            }
        }
    }

    /// Calls `edit` for the records of one frame and returns how many it changed.
    fn edit_records(
        &mut self,
        header: &FrameHeader,
        payload: &mut [u8],
        edit: &mut Edit<'_>,
    ) -> Result<u64, JournalError> {
        let mut rest = payload;
        let mut changed = 0;
        for _ in 0..header.count {
            let Some((record, behind)) = frame::split_record_mut(rest) else {
                return Err(self.frames.damaged(self.sequence, "a frame's records do not fill it"));
            };
            if self.sequence >= self.from && edit(self.sequence, record) {
                changed += 1;
            }
            self.sequence += 1;
            rest = behind;
        }
        Ok(changed)
    }
}

/// The copy while it is written.
struct Copy<'a> {
    /// The segment, for messages.
    path: &'a Path,
    from: Box<dyn DiskFile>,
    to: Box<dyn DiskFile>,
    buffer: Vec<u8>,
    /// Up to where the segment is copied or replaced.
    copied: u64,
    /// Where the buffer goes.
    written: u64,
}

impl Copy<'_> {
    /// Copies up to byte `end` of the segment as it is.
    fn pass_to(&mut self, end: u64) -> Result<(), JournalError> {
        let left = |copied: u64| usize::try_from(end.saturating_sub(copied)).unwrap_or(BUFFER_BYTES);
        let mut piece = vec![0; left(self.copied).min(BUFFER_BYTES)];
        while self.copied < end {
            piece.truncate(left(self.copied));
            let whole = read_exact_at(&*self.from, &mut piece, self.copied);
            let whole = whole.map_err(|source| io_error("read", self.path, source))?;
            if !whole {
                return Err(io_error("read", self.path, io::ErrorKind::UnexpectedEof.into()));
            }
            self.put(&piece)?;
            self.copied += piece.len() as u64;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() > BUFFER_BYTES {
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        let buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        self.to.write_at(bytes, self.written).map_err(|source| io_error("write the copy of", self.path, source))?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// Verifies that the copy holds what `segment` does, before it replaces the original.
fn read_back(disk: &dyn Disk, copy: &Path, segment: &Segment) -> Result<(), JournalError> {
    let mut extent = Extent::of_empty(segment.first_sequence);
    let result = scan::scan_followed(disk, copy, segment.salt, segment.valid_bytes, &mut extent);
    let whole = (extent.next_sequence, extent.valid_bytes) == (segment.next_sequence, segment.valid_bytes);
    match result {
        Ok(()) if whole => Ok(()),
        Err(error @ JournalError::Io { .. }) => Err(error),
        // The journal is not damaged, only its copy.
        _ => Err(io_error("copy", &segment.path, io::Error::other("the copy does not hold what was written to it"))),
    }
}
