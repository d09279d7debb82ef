//! Opening the files of a journal: which there are, and how many bytes of each are valid.
//!
//! Invariant: nothing here changes, creates or removes a file.
//!
//! Not here: writing (`file`).

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::disk::{Disk, read_exact_at};
use super::super::{JournalError, OwnedRecords, Records};
use super::read::{RecordReader, Segment};
use super::scan::{self, Extent, io_error};
use super::segment::{self, SEGMENT_HEADER_BYTES, SegmentHeader, Stream};

/// Enough for a hundred thousand changes of a rule; small enough to truncate in useful pieces.
const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Room for some thousand small frames; writing it takes no longer than a slow sync.
const ROOM_BYTES: u64 = 256 * 1024;

/// How a journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// What its records are.
    pub stream: Stream,
    /// Where a segment ends, in bytes; one that has a single larger append in it is larger.
    pub segment_bytes_max: u64,
    /// How many zeros are written after a frame that makes the file larger, as room for later frames. These then change
    /// neither the file's size nor its blocks, so that a sync does not also write the file system's journal. 0 where
    /// appends are too rare to be worth the room.
    pub room_bytes: u64,
    /// The first sequence of a journal without any files. Above 1 where a snapshot includes the records before.
    pub first_sequence: u64,
}

impl JournalOptions {
    /// For audit records, which are appended all the time: with room for later frames.
    pub fn audit(first_sequence: u64) -> Self {
        Self { stream: Stream::Audit, room_bytes: ROOM_BYTES, first_sequence, ..Self::default() }
    }
}

impl Default for JournalOptions {
    /// Policy, 64 MiB, no room, from 1.
    fn default() -> Self {
        Self { stream: Stream::Policy, segment_bytes_max: SEGMENT_BYTES_MAX, room_bytes: 0, first_sequence: 1 }
    }
}

/// A journal that is only read, for instance a copy of one that is to be verified.
///
/// No process may write to the files meanwhile: new records may be missed, and an unfinished append may look torn or
/// damaged.
#[derive(Debug)]
pub struct JournalReader {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    /// All segments with records, in order, and perhaps a last one without.
    pub(super) segments: Vec<Segment>,
    pub(super) next_sequence: u64,
    torn_bytes: u64,
}

impl JournalReader {
    /// Opens the journal in `directory`, and verifies every frame, without changing anything there. A torn end, the
    /// trace of a crash, is left out; see [`JournalReader::torn_bytes`].
    ///
    /// # Errors
    ///
    /// When anything but the end is not as it was written, or was written by a newer version.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: impl Into<PathBuf>,
        options: &JournalOptions,
    ) -> Result<Self, JournalError> {
        let (reader, fault) = Self::open_damaged(disk, directory, options)?;
        fault.map_or(Ok(reader), Err)
    }

    /// Opens what can be read of a journal that may be damaged: the records before the first fault, and that fault.
    /// A fault is what [`JournalReader::open`] would refuse: damage, a missing, foreign or unreadable file.
    ///
    /// The header of a file tells where the one before ends. So if the fault is in a header, the last records may be of an
    /// append that was never acknowledged, or some may be missing before the fault. [`JournalReader::next_sequence`] tells
    /// how far the records go.
    ///
    /// # Errors
    ///
    /// When the directory cannot be listed.
    pub fn open_damaged(
        disk: Arc<dyn Disk>,
        directory: impl Into<PathBuf>,
        options: &JournalOptions,
    ) -> Result<(Self, Option<JournalError>), JournalError> {
        Self::load(disk, directory.into(), options, |_| Ok(()))
    }

    /// Opens what can be read. `before_scan` is called for the last segment first.
    pub(super) fn load(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        options: &JournalOptions,
        before_scan: impl FnOnce(&Path) -> Result<(), JournalError>,
    ) -> Result<(Self, Option<JournalError>), JournalError> {
        let names = list(&*disk, &directory)?;
        let mut headers = Vec::with_capacity(names.len());
        let fault = read_headers(&*disk, &directory, &names, options.stream, &mut headers).err();
        let fault = fault.zip(names.get(headers.len()).copied());
        if let Some((path, _)) = headers.last() {
            before_scan(path)?;
        }
        let keeps_room = options.room_bytes > 0;
        let Scanned { segments, torn_bytes, fault } = scan_all(&*disk, &directory, &headers, fault, keeps_room);
        let next_sequence = segments.last().map_or(options.first_sequence, |last| last.next_sequence);
        Ok((Self { disk, directory, segments, next_sequence, torn_bytes }, fault))
    }

    /// The sequence after that of the last record that can be read.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The sequence of the oldest record; equal to [`JournalReader::next_sequence`] when there is none.
    pub fn first_sequence(&self) -> u64 {
        self.segments.first().map_or(self.next_sequence, |first| first.first_sequence)
    }

    /// The bytes of a torn end, up to the last one that is not zero in a journal with room; 0 where there is none. They
    /// were never acknowledged and are not valid.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// The records from `sequence` to the end. Memory is bounded by the largest single append.
    ///
    /// # Errors
    ///
    /// [`JournalError::OutOfRange`] where `sequence` is not in `first_sequence()..=next_sequence()`; an unreadable or
    /// damaged file, which was neither when it was opened, as the last item of the iterator.
    pub fn read_from(&self, sequence: u64) -> Result<Records<'_>, JournalError> {
        self.records_from(sequence).map(|records| records as Records<'_>)
    }

    /// As [`JournalReader::read_from`], to read on another thread.
    pub(super) fn records_from(&self, sequence: u64) -> Result<OwnedRecords, JournalError> {
        let (first, next) = (self.first_sequence(), self.next_sequence);
        if sequence < first || sequence > next {
            return Err(JournalError::OutOfRange { sequence, first, next });
        }
        let skipped = self.segments.partition_point(|segment| segment.next_sequence <= sequence);
        let segments = self.segments.iter().skip(skipped).cloned().collect();
        let disk = Arc::clone(&self.disk);
        Ok(Box::new(RecordReader::new(disk, segments, sequence)))
    }
}

/// The first sequences of the segments in `directory`, in order.
fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<u64>, JournalError> {
    let names = names(disk, directory)?;
    let mut sequences: Vec<u64> = names.iter().filter_map(|name| segment::first_sequence(name)).collect();
    sequences.sort_unstable();
    Ok(sequences)
}

/// All names in `directory`.
pub(super) fn names(disk: &dyn Disk, directory: &Path) -> Result<Vec<String>, JournalError> {
    disk.list(directory).map_err(|source| io_error("list the directory of", directory, source))
}

/// Reads the headers of the segments, up to the first error. A last segment without a whole header is left out: its
/// creation was interrupted, and the next segment will take its name.
fn read_headers(
    disk: &dyn Disk,
    directory: &Path,
    sequences: &[u64],
    stream: Stream,
    headers: &mut Vec<(PathBuf, SegmentHeader)>,
) -> Result<(), JournalError> {
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
            tracing::info!(%path, "a journal file whose creation was interrupted is left out");
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
    Ok(())
}

/// The result of scanning all segments.
struct Scanned {
    /// Up to and with the one that the fault is in, which counts up to there.
    segments: Vec<Segment>,
    torn_bytes: u64,
    fault: Option<JournalError>,
}

/// Verifies the segments with these headers, and that each begins where the one before ends. A file with an unusable
/// header may follow, given by the first sequence in its name. Stops at the first fault.
fn scan_all(
    disk: &dyn Disk,
    directory: &Path,
    headers: &[(PathBuf, SegmentHeader)],
    unusable: Option<(JournalError, u64)>,
    keeps_room: bool,
) -> Scanned {
    let mut scanned = Scanned { segments: Vec::with_capacity(headers.len()), torn_bytes: 0, fault: None };
    let mut following = headers.iter().skip(1);
    for (path, header) in headers {
        let mut extent = Extent::of_empty(header.first_sequence);
        let result = match following.next() {
            Some((_, next)) => scan_before(disk, directory, (path, header), next, keeps_room, &mut extent),
            None => scan::scan_last(disk, path, header.salt, keeps_room, &mut extent),
        };
        scanned.segments.push(Segment {
            path: path.clone(),
            salt: header.salt,
            first_sequence: header.first_sequence,
            next_sequence: extent.next_sequence,
            valid_bytes: extent.valid_bytes,
        });
        scanned.torn_bytes = extent.torn_bytes;
        scanned.fault = result.err();
        if scanned.fault.is_some() && scanned.segments.len() < headers.len() {
            break;
        }
    }
    if scanned.segments.len() == headers.len()
        && let Some((fault, first_sequence)) = unusable
    {
        let reached = scanned.segments.last().map_or(first_sequence, |last| last.next_sequence);
        // The unusable header would tell where the last segment ends. If that segment has all its records, a fault after
        // them is of a failed append.
        if reached >= first_sequence || scanned.fault.is_none() {
            scanned.fault = Some(fault);
        }
    }
    if scanned.fault.is_some() {
        scanned.torn_bytes = 0;
    }
    scanned
}

/// Verifies the segment before `next`.
fn scan_before(
    disk: &dyn Disk,
    directory: &Path,
    (path, header): (&Path, &SegmentHeader),
    next: &SegmentHeader,
    keeps_room: bool,
    extent: &mut Extent,
) -> Result<(), JournalError> {
    // If the next header does not follow this segment, it does not tell where this one ends. Records are missing after
    // its last frame, or earlier.
    match next.previous {
        Some(previous) if previous.first_sequence == header.first_sequence => {
            scan::scan_followed(disk, path, header.salt, previous.valid_bytes, extent)?;
        }
        _ => scan::scan_last(disk, path, header.salt, keeps_room, extent)?,
    }
    match extent.next_sequence.cmp(&next.first_sequence) {
        Ordering::Equal => Ok(()),
        Ordering::Less => Err(JournalError::Missing {
            directory: directory.to_owned(),
            expected: extent.next_sequence,
            found: next.first_sequence,
        }),
        Ordering::Greater => {
            Err(JournalError::Foreign { path: path.to_owned(), detail: "the file after it begins before its end" })
        }
    }
}
