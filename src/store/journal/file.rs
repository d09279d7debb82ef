//! The journal in segment files.
//!
//! A process writes only to segments that it began itself, each from front to back; so a file whose write or sync
//! failed, here or in a process before this one, is never touched again. The next segment's header says how far it
//! counts, and that one sentence serves for a rollover, for a torn end and for a failed write alike.
//!
//! Invariant: a segment that has its name has a whole header, and the one before it ends where that header says.
//!
//! Not here: threads. The caller appends from one of its own and waits for the disk there.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::disk::{self, Disk, DiskFile, read_exact_at};
use super::super::{Journal, JournalError, Records};
use super::frame::{self, FRAME_HEADER_BYTES, Salt};
use super::read::{RecordReader, Segment};
use super::scan::{self, Extent, io_error};
use super::segment::{self, Previous, SEGMENT_HEADER_BYTES, SegmentHeader, Stream};

/// Enough for a hundred thousand changes of a rule; so little that what is given up goes in useful pieces.
const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A buffer that one large append left is not kept beyond this.
const BUFFER_BYTES_KEPT_MAX: usize = 1024 * 1024;

/// How a journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// What its records are.
    pub stream: Stream,
    /// Where a segment ends, in bytes; one that has a single larger append in it is larger.
    pub segment_bytes_max: u64,
    /// The sequence that a journal without any files begins with. Above 1 where a snapshot holds what came before.
    pub first_sequence: u64,
}

impl Default for JournalOptions {
    /// Policy, 64 MiB, from 1.
    fn default() -> Self {
        Self { stream: Stream::Policy, segment_bytes_max: SEGMENT_BYTES_MAX, first_sequence: 1 }
    }
}

/// A journal in the segment files of one directory.
#[derive(Debug)]
pub struct FileJournal {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    options: JournalOptions,
    /// All segments with records, in order, and perhaps a last one without.
    segments: Vec<Segment>,
    /// Segments that no longer count and are still to be removed, oldest first.
    obsolete: VecDeque<PathBuf>,
    /// The last segment, where this process began it and nothing has gone wrong with it.
    writer: Option<Box<dyn DiskFile>>,
    next_sequence: u64,
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
        let names = list(&*disk, &directory)?;
        let headers = read_headers(&*disk, &directory, &names, options.stream)?;
        let segments = scan_all(&*disk, &directory, &headers)?;
        let next_sequence = segments.last().map_or(options.first_sequence, |last| last.next_sequence);
        Ok(Self {
            disk,
            directory,
            options,
            segments,
            obsolete: VecDeque::new(),
            writer: None,
            next_sequence,
            failure: None,
            buffer: Vec::new(),
        })
    }

    fn write(&mut self, records: &[Vec<u8>], payload_bytes: u32) -> Result<(), JournalError> {
        let frame_bytes = FRAME_HEADER_BYTES as u64 + u64::from(payload_bytes);
        if !self.has_room(frame_bytes) {
            self.begin_segment()?;
        }
        let (Some(segment), Some(file)) = (self.segments.last_mut(), &self.writer) else {
            return Err(JournalError::Failed { cause: "there is no segment to write to".to_owned() });
        };
        frame::encode(&mut self.buffer, segment.salt, self.next_sequence, records)?;
        file.write_at(&self.buffer, segment.valid_bytes).map_err(|source| io_error("write", &segment.path, source))?;
        file.sync().map_err(|source| io_error("sync", &segment.path, source))?;
        segment.valid_bytes += frame_bytes;
        self.next_sequence += records.len() as u64;
        segment.next_sequence = self.next_sequence;
        Ok(())
    }

    /// Whether the next frame goes into the segment being written.
    fn has_room(&self, frame_bytes: u64) -> bool {
        let Some(segment) = self.segments.last().filter(|_| self.writer.is_some()) else {
            return false;
        };
        segment.first_sequence == segment.next_sequence
            || segment.valid_bytes + frame_bytes <= self.options.segment_bytes_max
    }

    /// Begins a new last segment; when this returns, whatever the one before holds behind its last acknowledged frame
    /// no longer counts.
    fn begin_segment(&mut self) -> Result<(), JournalError> {
        self.writer = None;
        // A last segment without records would have the new one's name. It is replaced, under that name, in one step;
        // what is in it was never acknowledged.
        self.segments.pop_if(|last| last.first_sequence == last.next_sequence);
        let path = self.directory.join(segment::name(self.next_sequence));
        let salt = getrandom::u64().map_err(|error| io_error("find a salt for", &path, io::Error::other(error)))?;
        let header = SegmentHeader {
            stream: self.options.stream,
            salt: Salt(salt),
            first_sequence: self.next_sequence,
            previous: self
                .segments
                .last()
                .map(|last| Previous { first_sequence: last.first_sequence, valid_bytes: last.valid_bytes }),
        };
        let file = disk::write_whole(&*self.disk, &path, &header.encode())
            .map_err(|source| io_error("create", &path, source))?;
        self.writer = Some(file);
        self.segments.push(Segment {
            path,
            salt: header.salt,
            first_sequence: self.next_sequence,
            next_sequence: self.next_sequence,
            valid_bytes: SEGMENT_HEADER_BYTES as u64,
        });
        Ok(())
    }

    fn out_of_range(&self, sequence: u64) -> JournalError {
        JournalError::OutOfRange { sequence, first: self.first_sequence(), next: self.next_sequence }
    }
}

impl Journal for FileJournal {
    fn append(&mut self, records: &[Vec<u8>]) -> Result<u64, JournalError> {
        if let Some(cause) = &self.failure {
            let cause = cause.clone();
            return Err(JournalError::Failed { cause });
        }
        let (_, payload_bytes) = frame::measure(records)?;
        let first = self.next_sequence;
        if records.is_empty() {
            return Ok(first);
        }
        let result = self.write(records, payload_bytes);
        if self.buffer.capacity() > BUFFER_BYTES_KEPT_MAX {
            self.buffer = Vec::new();
        }
        if let Err(error) = &result {
            self.writer = None;
            self.failure = Some(error.to_string());
            tracing::error!(%error, "the journal failed and takes no records until it is recovered");
        }
        result.map(|()| first)
    }

    fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    fn first_sequence(&self) -> u64 {
        self.segments.first().map_or(self.next_sequence, |first| first.first_sequence)
    }

    fn read_from(&self, sequence: u64) -> Result<Records<'_>, JournalError> {
        if sequence < self.first_sequence() || sequence > self.next_sequence {
            return Err(self.out_of_range(sequence));
        }
        let skipped = self.segments.partition_point(|segment| segment.next_sequence <= sequence);
        let segments = self.segments.iter().skip(skipped).cloned().collect();
        let disk = Arc::clone(&self.disk);
        Ok(Box::new(RecordReader::new(disk, segments, sequence)))
    }

    fn truncate_before(&mut self, sequence: u64) -> Result<(), JournalError> {
        // The last segment stays, whatever it holds: it tells the next sequence.
        while let [first, _, ..] = self.segments.as_slice()
            && first.next_sequence <= sequence
        {
            let removed = self.segments.remove(0);
            self.obsolete.push_back(removed.path);
        }
        while let Some(path) = self.obsolete.front() {
            match self.disk.remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", path, error));
                }
                _ => {}
            }
            // After each, because the disk may do several in another order, and a crash would then leave a hole.
            self.disk
                .sync_directory(&self.directory)
                .map_err(|source| io_error("sync the directory of", path, source))?;
            self.obsolete.pop_front();
        }
        Ok(())
    }

    fn recover(&mut self) -> Result<(), JournalError> {
        if self.failure.is_none() {
            return Ok(());
        }
        self.begin_segment()?;
        self.failure = None;
        let sequence = self.next_sequence;
        tracing::info!(sequence, "the journal is recovered");
        Ok(())
    }
}

/// The first sequences of the segments in `directory`, in order. Segments that were never finished are removed.
fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<u64>, JournalError> {
    let names = disk.list(directory).map_err(|source| io_error("list the directory of", directory, source))?;
    for name in names.iter().filter(|name| segment::is_unfinished(name)) {
        let path = directory.join(name);
        disk.remove(&path).map_err(|source| io_error("remove", &path, source))?;
    }
    let mut sequences: Vec<u64> = names.iter().filter_map(|name| segment::first_sequence(name)).collect();
    sequences.sort_unstable();
    Ok(sequences)
}

/// The headers of the segments. A last segment that does not even have one is left out: its creation was cut off, and
/// the next segment will take its name.
fn read_headers(
    disk: &dyn Disk,
    directory: &Path,
    sequences: &[u64],
    stream: Stream,
) -> Result<Vec<(PathBuf, SegmentHeader)>, JournalError> {
    let mut headers = Vec::with_capacity(sequences.len());
    for (index, sequence) in sequences.iter().copied().enumerate() {
        let is_last = index + 1 == sequences.len();
        let path = directory.join(segment::name(sequence));
        let file = scan::open(disk, &path)?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let whole = read_exact_at(&*file, &mut bytes, 0).map_err(|source| io_error("read", &path, source))?;
        let left_out =
            !whole || bytes.iter().all(|byte| *byte == 0) && scan::size(&*file, &path)? == SEGMENT_HEADER_BYTES as u64;
        if left_out && is_last {
            let path = path.display();
            tracing::info!(%path, "a journal file whose creation was cut off is left out");
            break;
        }
        let header =
            SegmentHeader::decode(&bytes, stream).map_err(|fault| scan::header_error(fault, &path, sequence))?;
        if header.first_sequence != sequence {
            let detail = "its name is not the one that it was created with";
            return Err(JournalError::Foreign { path, detail });
        }
        headers.push((path, header));
    }
    Ok(headers)
}

/// Verifies all segments, and that each goes on where the one before ends.
fn scan_all(
    disk: &dyn Disk,
    directory: &Path,
    headers: &[(PathBuf, SegmentHeader)],
) -> Result<Vec<Segment>, JournalError> {
    if let Some((path, _)) = headers.last() {
        scan::open(disk, path)?.settle().map_err(|source| io_error("sync", path, source))?;
    }
    let mut segments = Vec::with_capacity(headers.len());
    let mut following = headers.iter().skip(1);
    for segment in headers {
        let (path, header) = segment;
        let extent = match following.next() {
            Some((_, next)) => scan_before(disk, directory, segment, next)?,
            None => scan::scan_last(disk, path, header)?,
        };
        if extent.torn_bytes > 0 {
            tracing::warn!(
                path = %path.display(),
                bytes = extent.torn_bytes,
                sequence = extent.next_sequence,
                "the end of the journal is torn, as a crash leaves it; these bytes were never acknowledged and do not count"
            );
        }
        segments.push(Segment {
            path: path.clone(),
            salt: header.salt,
            first_sequence: header.first_sequence,
            next_sequence: extent.next_sequence,
            valid_bytes: extent.valid_bytes,
        });
    }
    Ok(segments)
}

/// Verifies the segment before `next`.
fn scan_before(
    disk: &dyn Disk,
    directory: &Path,
    (path, header): &(PathBuf, SegmentHeader),
    next: &SegmentHeader,
) -> Result<Extent, JournalError> {
    // Where the header of the next is of another row of files, how far this one counts is not known; what is missing
    // begins behind its last frame at the latest.
    let extent = match next.previous {
        Some(previous) if previous.first_sequence == header.first_sequence => {
            scan::scan_followed(disk, path, header, previous.valid_bytes)?
        }
        _ => Extent { torn_bytes: 0, ..scan::scan_last(disk, path, header)? },
    };
    match extent.next_sequence.cmp(&next.first_sequence) {
        Ordering::Equal => Ok(extent),
        Ordering::Less => Err(JournalError::Missing {
            directory: directory.to_owned(),
            expected: extent.next_sequence,
            found: next.first_sequence,
        }),
        Ordering::Greater => {
            Err(JournalError::Foreign { path: path.clone(), detail: "the file after it begins before its end" })
        }
    }
}
