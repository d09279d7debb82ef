//! Reading frames and records of segment files, front to back.
//!
//! Invariant: no record is returned before the checksum of its whole frame was verified.
//!
//! Not here: judging what a bad frame means (`scan`).

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::JournalError;
use super::super::disk::{Disk, DiskFile};
use super::frame::{self, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, KIND_RECORDS, Salt};
use super::segment::SEGMENT_HEADER_BYTES;

/// Large enough to make system calls cheap, small enough for every reader to have one.
const BUFFER_BYTES: usize = 64 * 1024;

/// What is known of one segment file.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) salt: Salt,
    pub(super) first_sequence: u64,
    /// The sequence after its last record.
    pub(super) next_sequence: u64,
    /// Where its last acknowledged frame ends.
    pub(super) valid_bytes: u64,
}

/// A file from some offset on, as a stream.
#[derive(Debug)]
struct Tail {
    file: Box<dyn DiskFile>,
    offset: u64,
    end: u64,
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = self.file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// The frames of one segment.
#[derive(Debug)]
pub(super) struct FrameReader {
    path: PathBuf,
    salt: Salt,
    input: BufReader<Tail>,
    /// Where the frame that is read next begins.
    offset: u64,
    end: u64,
}

/// What is found where a frame should begin.
#[derive(Debug)]
pub(super) enum Found {
    /// A header; the payload comes next.
    Frame(FrameHeader),
    /// Bytes that are no header.
    NoHeader,
    /// Nothing: the end.
    End,
}

impl FrameReader {
    /// Reads the frames of `file` that lie before byte `end`.
    pub(super) fn new(path: &Path, salt: Salt, file: Box<dyn DiskFile>, end: u64) -> Self {
        Self::from(path, salt, file, SEGMENT_HEADER_BYTES as u64, end)
    }

    /// The same from byte `offset` on, where a frame begins.
    pub(super) fn from(path: &Path, salt: Salt, file: Box<dyn DiskFile>, offset: u64, end: u64) -> Self {
        let tail = Tail { file, offset, end };
        Self { path: path.to_owned(), salt, input: BufReader::with_capacity(BUFFER_BYTES, tail), offset, end }
    }

    /// The header at the current offset. [`FrameReader::offset`] does not move.
    pub(super) fn header(&mut self) -> Result<Found, JournalError> {
        let left = self.end.saturating_sub(self.offset);
        if left == 0 {
            return Ok(Found::End);
        }
        if left < FRAME_HEADER_BYTES as u64 {
            return Ok(Found::NoHeader);
        }
        let mut bytes = [0; FRAME_HEADER_BYTES];
        self.read(&mut bytes)?;
        Ok(FrameHeader::decode(&bytes, self.salt).map_or(Found::NoHeader, Found::Frame))
    }

    /// Passes the payload without looking at it.
    pub(super) fn skip(&mut self, header: &FrameHeader) -> Result<(), JournalError> {
        self.checksum(header).map(drop)
    }

    /// Passes the payload and says whether it is what was written.
    pub(super) fn verify(&mut self, header: &FrameHeader) -> Result<bool, JournalError> {
        Ok(self.checksum(header)? == header.payload_crc)
    }

    /// Passes the payload and hands it out.
    pub(super) fn payload(&mut self, header: &FrameHeader) -> Result<Vec<u8>, JournalError> {
        if header.kind != KIND_RECORDS || header.payload_bytes > FRAME_BYTES_MAX {
            return Err(self.damaged(header.first_sequence, "it has a frame of an unknown kind"));
        }
        let mut payload = vec![0; header.payload_bytes as usize];
        self.read(&mut payload)?;
        if crc32c::crc32c_append(self.salt.seed(), &payload) != header.payload_crc {
            return Err(self.damaged(header.first_sequence, "a frame's checksum does not match"));
        }
        self.offset += header.frame_bytes();
        Ok(payload)
    }

    /// Where the current frame begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn damaged(&self, sequence: u64, detail: &'static str) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), offset: self.offset, sequence, detail }
    }

    fn checksum(&mut self, header: &FrameHeader) -> Result<u32, JournalError> {
        let mut crc = self.salt.seed();
        let mut left = header.payload_bytes as usize;
        let mut chunk = vec![0; BUFFER_BYTES.min(left)];
        while left > 0 {
            chunk.truncate(left);
            self.read(&mut chunk)?;
            crc = crc32c::crc32c_append(crc, &chunk);
            left -= chunk.len();
        }
        self.offset += header.frame_bytes();
        Ok(crc)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), JournalError> {
        self.input.read_exact(buffer).map_err(|source| JournalError::Io {
            action: "read",
            path: self.path.clone(),
            source,
        })
    }
}

/// The records of a row of segments from some sequence on. Ends after the first error.
#[derive(Debug)]
pub(super) struct RecordReader {
    disk: Arc<dyn Disk>,
    /// Those not yet opened, in order.
    segments: std::vec::IntoIter<Segment>,
    frames: Option<FrameReader>,
    /// What is left of the current frame.
    payload: Vec<u8>,
    position: usize,
    records_left: u32,
    /// The sequence that is handed out next.
    sequence: u64,
    finished: bool,
}

impl RecordReader {
    /// Reads `segments`, the first of which has to contain `sequence`.
    pub(super) fn new(disk: Arc<dyn Disk>, segments: Vec<Segment>, sequence: u64) -> Self {
        Self {
            disk,
            segments: segments.into_iter(),
            frames: None,
            payload: Vec::new(),
            position: 0,
            records_left: 0,
            sequence,
            finished: false,
        }
    }

    fn advance(&mut self) -> Result<Option<(u64, Vec<u8>)>, JournalError> {
        while self.records_left == 0 {
            if !self.next_frame()? {
                return Ok(None);
            }
        }
        let mut rest = self.payload.get(self.position..).unwrap_or_default();
        let before = rest.len();
        let Some(record) = frame::take_record(&mut rest) else {
            return Err(self.inconsistent());
        };
        self.position += before - rest.len();
        self.records_left -= 1;
        let sequence = self.sequence;
        self.sequence += 1;
        Ok(Some((sequence, record.to_vec())))
    }

    /// Loads the frame that holds the next sequence; `false` at the end.
    fn next_frame(&mut self) -> Result<bool, JournalError> {
        self.payload = Vec::new();
        self.position = 0;
        loop {
            let Some(frames) = &mut self.frames else {
                let Some(segment) = self.segments.next() else {
                    return Ok(false);
                };
                self.frames = Some(open(&*self.disk, &segment)?);
                continue;
            };
            match frames.header()? {
                Found::End => self.frames = None,
                Found::Frame(header) if header.next_sequence() <= self.sequence => {
                    frames.skip(&header)?;
                }
                Found::Frame(header) if header.first_sequence <= self.sequence => {
                    self.payload = frames.payload(&header)?;
                    return self.enter(&header).map(|()| true);
                }
                Found::Frame(_) => return Err(frames.damaged(self.sequence, "records are missing")),
                Found::NoHeader => {
                    return Err(frames.damaged(self.sequence, "a frame's header does not match"));
                }
            }
        }
    }

    /// Passes the records of the loaded frame that come before the next sequence.
    fn enter(&mut self, header: &FrameHeader) -> Result<(), JournalError> {
        let mut rest = self.payload.as_slice();
        self.records_left = header.count;
        for _ in header.first_sequence..self.sequence {
            if frame::take_record(&mut rest).is_none() {
                return Err(self.inconsistent());
            }
            self.records_left -= 1;
        }
        self.position = self.payload.len() - rest.len();
        Ok(())
    }

    fn inconsistent(&self) -> JournalError {
        let detail = "a frame's records do not fill it";
        match &self.frames {
            Some(frames) => frames.damaged(self.sequence, detail),
            None => JournalError::Failed { cause: detail.to_owned() },
        }
    }
}

impl Iterator for RecordReader {
    type Item = Result<(u64, Vec<u8>), JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let item = self.advance().transpose();
        self.finished = !matches!(item, Some(Ok(_)));
        item
    }
}

/// The acknowledged frames of `segment`.
pub(super) fn open(disk: &dyn Disk, segment: &Segment) -> Result<FrameReader, JournalError> {
    let file = disk.open(&segment.path).map_err(|source| JournalError::Io {
        action: "open",
        path: segment.path.clone(),
        source,
    })?;
    Ok(FrameReader::new(&segment.path, segment.salt, file, segment.valid_bytes))
}
