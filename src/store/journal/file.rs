//! The journal in segment files.
//!
//! A process writes only to segments that it began itself, from front to back, over nothing but zeros. So a file whose
//! write or sync failed, in this process or an earlier one, is never written again. The next segment's header says how
//! many of its bytes are valid. That covers a rollover, a torn end and a failed write alike.
//!
//! To erase something, a segment that is not being written is replaced by a copy in which every byte keeps its offset
//! (`redact`). So the next header is true of the copy, too.
//!
//! Invariant: a segment under its final name has a whole header, and the one before it ends where that header says.
//!
//! Not here: threads. The caller appends on a thread that may block.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::disk::{self, Disk, DiskFile};
use super::super::{Edit, JournalError, Log, OwnedRecords, Records, Redaction, Segments};
use super::frame::{self, FRAME_HEADER_BYTES, Salt};
use super::open::{self, JournalOptions, JournalReader};
use super::read::Segment;
use super::redact::Replacement;
use super::scan::{self, io_error};
use super::segment::{self, Previous, SEGMENT_HEADER_BYTES, SegmentHeader};

/// A buffer that one large append left is not kept beyond this.
const BUFFER_BYTES_KEPT_MAX: usize = 1024 * 1024;

/// The segment that is being written.
#[derive(Debug)]
struct Writing {
    file: Box<dyn DiskFile>,
    /// Its size: there are only zeros between its last frame and this.
    size: u64,
}

/// A journal in the segment files of one directory.
#[derive(Debug)]
pub struct FileJournal {
    /// The segments, and how to read them.
    reader: JournalReader,
    options: JournalOptions,
    /// [`JournalOptions::room_bytes`], or 0 once a write failed: a full disk has no room to spare.
    room_bytes: u64,
    /// Truncated segments whose files are still to be removed, oldest first.
    obsolete: VecDeque<PathBuf>,
    /// The last segment, where this process began it and nothing has gone wrong with it.
    writer: Option<Writing>,
    /// What went wrong, while the journal is failed.
    failure: Option<String>,
    buffer: Vec<u8>,
}

impl FileJournal {
    /// Opens the journal in `directory`, which exists; without any files it is empty. Every frame is verified. A torn
    /// end, the trace of a crash, is left out with a warning.
    ///
    /// # Errors
    ///
    /// When anything but the end is not as it was written, or was written by a newer version.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: impl Into<PathBuf>,
        options: JournalOptions,
    ) -> Result<Self, JournalError> {
        let directory = directory.into();
        remove_unfinished(&*disk, &directory)?;
        let settling = Arc::clone(&disk);
        let settle = |last: &Path| -> Result<(), JournalError> {
            scan::open(&*settling, last)?.settle().map_err(|source| io_error("sync", last, source))
        };
        let (reader, fault) = JournalReader::load(disk, directory, &options, settle)?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        if let Some(last) = reader.segments.last().filter(|_| reader.torn_bytes() > 0) {
            tracing::warn!(
                path = %last.path.display(),
                bytes = reader.torn_bytes(),
                sequence = last.next_sequence,
                "the end of the journal is torn, as a crash leaves it; these bytes were never acknowledged and do not count"
            );
        }
        let room_bytes = options.room_bytes;
        let (obsolete, buffer) = (VecDeque::new(), Vec::new());
        Ok(Self { reader, options, room_bytes, obsolete, writer: None, failure: None, buffer })
    }

    fn write(&mut self, records: &[Vec<u8>], payload_bytes: u32) -> Result<(), JournalError> {
        let frame_bytes = FRAME_HEADER_BYTES as u64 + u64::from(payload_bytes);
        if !self.fits(frame_bytes) {
            self.begin_segment()?;
        }
        let reader = &mut self.reader;
        let (Some(segment), Some(Writing { file, size })) = (reader.segments.last_mut(), &mut self.writer) else {
            return Err(JournalError::Failed { cause: "there is no segment to write to".to_owned() });
        };
        frame::encode(&mut self.buffer, segment.salt, reader.next_sequence, records)?;
        let end = segment.valid_bytes + frame_bytes;
        if end > *size {
            // No room after the first frame, so that a start on a full disk needs only the bytes of its records. None
            // after a frame as large as the room: the next frame makes the file larger anyway.
            let is_wanted = segment.first_sequence < segment.next_sequence && frame_bytes < self.room_bytes;
            let most = self.options.segment_bytes_max.saturating_sub(end);
            let room = if is_wanted { self.room_bytes.min(most) } else { 0 };
            self.buffer.resize(self.buffer.len() + usize::try_from(room).unwrap_or_default(), 0);
            *size = end + room;
        }
        file.write_at(&self.buffer, segment.valid_bytes).map_err(|source| io_error("write", &segment.path, source))?;
        file.sync().map_err(|source| io_error("sync", &segment.path, source))?;
        segment.valid_bytes = end;
        reader.next_sequence += records.len() as u64;
        segment.next_sequence = reader.next_sequence;
        Ok(())
    }

    /// Whether the next frame goes into the segment being written.
    fn fits(&self, frame_bytes: u64) -> bool {
        let Some(segment) = self.reader.segments.last().filter(|_| self.writer.is_some()) else {
            return false;
        };
        segment.first_sequence == segment.next_sequence
            || segment.valid_bytes + frame_bytes <= self.options.segment_bytes_max
    }

    /// Begins a new last segment. When this returns, bytes of the one before after its last acknowledged frame are
    /// invalid.
    fn begin_segment(&mut self) -> Result<(), JournalError> {
        self.writer = None;
        // A last segment without records has the same name as the new one, which replaces it in one step. Nothing in it
        // was acknowledged.
        let reader = &mut self.reader;
        reader.segments.pop_if(|last| last.first_sequence == last.next_sequence);
        let first_sequence = reader.next_sequence;
        let path = reader.directory.join(segment::name(first_sequence));
        let salt = getrandom::u64().map_err(|error| io_error("find a salt for", &path, io::Error::other(error)))?;
        let header = SegmentHeader {
            stream: self.options.stream,
            salt: Salt(salt),
            first_sequence,
            previous: reader
                .segments
                .last()
                .map(|last| Previous { first_sequence: last.first_sequence, valid_bytes: last.valid_bytes }),
        };
        let file = disk::write_whole(&*reader.disk, &path, &header.encode())
            .map_err(|source| io_error("create", &path, source))?;
        self.writer = Some(Writing { file, size: SEGMENT_HEADER_BYTES as u64 });
        reader.segments.push(Segment {
            path,
            salt: header.salt,
            first_sequence,
            next_sequence: first_sequence,
            valid_bytes: SEGMENT_HEADER_BYTES as u64,
        });
        Ok(())
    }

    fn refuse_while_failed(&self) -> Result<(), JournalError> {
        self.failure.clone().map_or(Ok(()), |cause| Err(JournalError::Failed { cause }))
    }

    fn fail(&mut self, error: &JournalError) {
        self.writer = None;
        self.room_bytes = 0;
        self.failure = Some(error.to_string());
        tracing::error!(%error, "the journal failed and takes no records until it is recovered");
    }

    /// Removes the files of truncated segments.
    fn remove_obsolete(&mut self) -> Result<(), JournalError> {
        while let Some(path) = self.obsolete.front() {
            match self.reader.disk.remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", path, error));
                }
                _ => {}
            }
            // Sync after each: the disk may reorder several removals, and a crash would then leave a gap.
            self.sync_directory()?;
            self.obsolete.pop_front();
        }
        Ok(())
    }

    fn sync_directory(&self) -> Result<(), JournalError> {
        let JournalReader { disk, directory, .. } = &self.reader;
        disk.sync_directory(directory).map_err(|source| io_error("sync the directory of", directory, source))
    }

    /// Lets `edit` overwrite the records of one segment from `from` on and returns how many it changed.
    fn redact_segment(&mut self, index: usize, from: u64, edit: &mut Edit<'_>) -> Result<u64, JournalError> {
        let disk = Arc::clone(&self.reader.disk);
        let Some(segment) = self.reader.segments.get(index).cloned() else { return Ok(0) };
        let Some(replacement) = Replacement::begin(&*disk, segment, from, edit)? else { return Ok(0) };
        if index + 1 == self.reader.segments.len() {
            // If this fails, the next append begins a segment, as after a start.
            self.begin_segment()?;
        }
        replacement.finish(&*disk, edit)
    }

    /// Removes copies of records outside of the segments in use: truncated segments, unfinished copies, the end of an
    /// append that failed or was interrupted.
    fn drop_leftovers(&mut self) -> Result<(), JournalError> {
        self.remove_obsolete()?;
        remove_unfinished(&*self.reader.disk, &self.reader.directory)?;
        // Only a segment that is not being written has bytes other than zeros after its last frame. One without records
        // is replaced here, the others by the caller.
        let names = open::names(&*self.reader.disk, &self.reader.directory)?;
        if self.writer.is_none() && names.iter().any(|name| segment::first_sequence(name).is_some()) {
            self.begin_segment()?;
        }
        Ok(())
    }
}

impl Log for FileJournal {
    fn append(&mut self, records: &[Vec<u8>]) -> Result<u64, JournalError> {
        self.refuse_while_failed()?;
        let (_, payload_bytes) = frame::measure(records)?;
        let first = self.reader.next_sequence;
        if records.is_empty() {
            return Ok(first);
        }
        let result = self.write(records, payload_bytes);
        if self.buffer.capacity() > BUFFER_BYTES_KEPT_MAX {
            self.buffer = Vec::new();
        }
        if let Err(error) = &result {
            self.fail(error);
        }
        result.map(|()| first)
    }

    fn next_sequence(&self) -> u64 {
        self.reader.next_sequence()
    }

    fn first_sequence(&self) -> u64 {
        self.reader.first_sequence()
    }

    fn read_from(&self, sequence: u64) -> Result<Records<'_>, JournalError> {
        self.reader.read_from(sequence)
    }

    fn records_from(&self, sequence: u64) -> Result<OwnedRecords, JournalError> {
        self.reader.records_from(sequence)
    }

    fn recover(&mut self) -> Result<(), JournalError> {
        if self.failure.is_none() {
            return Ok(());
        }
        self.begin_segment()?;
        self.failure = None;
        let sequence = self.reader.next_sequence;
        tracing::info!(sequence, "the journal is recovered");
        Ok(())
    }
}

impl Segments for FileJournal {
    fn roll(&mut self) -> Result<(), JournalError> {
        self.refuse_while_failed()?;
        if self.reader.segments.last().is_none_or(|last| last.first_sequence == last.next_sequence) {
            return Ok(());
        }
        self.begin_segment().inspect_err(|error| self.fail(error))
    }

    fn truncate_before(&mut self, sequence: u64) -> Result<(), JournalError> {
        // The last segment stays even if it is empty: it holds the next sequence.
        let segments = &mut self.reader.segments;
        while let [first, _, ..] = segments.as_slice()
            && first.next_sequence <= sequence
        {
            let removed = segments.remove(0);
            self.obsolete.push_back(removed.path);
        }
        self.remove_obsolete()
    }
}

impl Redaction for FileJournal {
    fn redact(&mut self, from: u64, edit: &mut Edit<'_>) -> Result<u64, JournalError> {
        self.refuse_while_failed()?;
        self.drop_leftovers()?;
        let mut changed = 0;
        let mut index = 0;
        while index < self.reader.segments.len() {
            changed += self.redact_segment(index, from, edit)?;
            index += 1;
        }
        // Even without a change: an earlier attempt may have changed all records and failed here.
        self.sync_directory()?;
        Ok(changed)
    }

    fn redact_part(&mut self, part: u64, edit: &mut Edit<'_>) -> Result<Option<u64>, JournalError> {
        self.refuse_while_failed()?;
        self.drop_leftovers()?;
        let segments = &self.reader.segments;
        // A segment may have been truncated since its sequence was returned: the one after it comes next.
        let Some(index) = segments.iter().position(|segment| segment.next_sequence > part) else {
            self.sync_directory()?;
            return Ok(None);
        };
        self.redact_segment(index, 0, edit)?;
        self.sync_directory()?;
        let segments = &self.reader.segments;
        let next = segments.get(index).map(|segment| segment.next_sequence);
        Ok(next.filter(|next| *next < self.reader.next_sequence))
    }
}

/// Removes the segments in `directory` that were never finished.
fn remove_unfinished(disk: &dyn Disk, directory: &Path) -> Result<(), JournalError> {
    let names = open::names(disk, directory)?;
    for name in names.iter().filter(|name| segment::is_unfinished(name)) {
        let path = directory.join(name);
        disk.remove(&path).map_err(|source| io_error("remove", &path, source))?;
    }
    Ok(())
}
