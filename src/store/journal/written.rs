//! How much of a journal's files another thread has written so far, for a copy that is taken meanwhile.
//!
//! A segment only grows, and what a frame holds never changes in place. So the whole frames at one moment are what a crash
//! at that moment would leave.
//!
//! Invariant: what counts ends with a whole frame. Damage is never taken for the end.
//! Not here: taking the copy (`store::backup`).

use std::path::Path;
use std::time::Duration;

use super::super::JournalError;
use super::super::disk::{Disk, read_exact_at};
use super::read::{Found, FrameReader};
use super::scan::{self, Extent, io_error};
use super::segment::{self, SEGMENT_HEADER_BYTES, SegmentHeader, Stream};

/// How often the end is looked at again, where a frame may be under way.
const LOOKS_MAX: usize = 10;

/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// The whole frames of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeFrames {
    /// The sequence after the last record.
    pub next_sequence: u64,
    /// Where the last frame ends.
    pub valid_bytes: u64,
}

/// The first sequence of a segment, by its name; none where a file is no segment.
pub fn segment_sequence(file_name: &str) -> Option<u64> {
    segment::first_sequence(file_name)
}

/// The whole frames of the last segment of a journal, which its owner may be writing. `keeps_room`: zeros may follow the
/// last frame.
///
/// # Errors
///
/// The file cannot be read, or is damaged.
pub fn whole_frames(
    disk: &dyn Disk,
    path: &Path,
    stream: Stream,
    keeps_room: bool,
) -> Result<WholeFrames, JournalError> {
    let header = header(disk, path, stream)?;
    let mut extent = Extent::of_empty(header.first_sequence);
    scan_whole(disk, path, &header, &mut extent)?;
    for _ in 0..LOOKS_MAX {
        let file = scan::open(disk, path)?;
        let size = scan::size(&*file, path)?;
        if scan::written_end(&*file, path, extent.valid_bytes, size)? == extent.valid_bytes {
            return Ok(found(&extent));
        }
        let before = extent.valid_bytes;
        // Where a frame has become whole, it was under way: what was whole before is a good end, and so is this.
        scan_whole(disk, path, &header, &mut extent)?;
        if extent.valid_bytes > before {
            return Ok(found(&extent));
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    // Nobody completes it: the trace of a failed append, or damage.
    let mut settled = Extent::of_empty(header.first_sequence);
    scan::scan_last(disk, path, header.salt, keeps_room, &mut settled)?;
    Ok(found(&settled))
}

fn found(extent: &Extent) -> WholeFrames {
    WholeFrames { next_sequence: extent.next_sequence, valid_bytes: extent.valid_bytes }
}

fn header(disk: &dyn Disk, path: &Path, stream: Stream) -> Result<SegmentHeader, JournalError> {
    let file = scan::open(disk, path)?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let whole = read_exact_at(&*file, &mut bytes, 0).map_err(|source| io_error("read", path, source))?;
    if !whole {
        return Err(io_error("read", path, std::io::ErrorKind::UnexpectedEof.into()));
    }
    SegmentHeader::decode(&bytes, stream).map_err(|fault| scan::header_error(fault, path, 0))
}

/// Extends `extent` by the whole frames behind it.
fn scan_whole(disk: &dyn Disk, path: &Path, header: &SegmentHeader, extent: &mut Extent) -> Result<(), JournalError> {
    let file = scan::open(disk, path)?;
    let end = scan::size(&*file, path)?;
    let mut frames = FrameReader::from(path, header.salt, file, extent.valid_bytes, end);
    while let Found::Frame(frame) = frames.header()? {
        let is_next = frame.first_sequence == extent.next_sequence && frames.offset() + frame.frame_bytes() <= end;
        if !is_next || !frames.verify(&frame)? {
            break;
        }
        extent.next_sequence = frame.next_sequence();
        extent.valid_bytes = frames.offset();
    }
    Ok(())
}
