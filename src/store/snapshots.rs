//! Snapshots: the full state at some sequence, one file each.
//!
//! ```text
//! snapshot-<sequence, 20 digits>-<crc32c of the content, 8 hex digits>.zst
//!
//!  0  magic               4   of a skippable zstd frame, so that `zstd -d` reads the file as it is
//!  4  its size            4   36; little endian, like every number here
//!  8  magic               8   "PCSNAP" 0xA7 0x00
//! 16  format version      2
//! 18  reserved            6   0
//! 24  sequence            8
//! 32  content bytes       8   before compression
//! 40  crc32c              4   of bytes 0..40
//! 44  zstd frame, with its own checksum
//! ```
//!
//! Invariant: a file under its final name is whole; a damaged one is never returned.
//!
//! Not here: what the content means; whether the journal goes on from it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::disk::{self, Disk, UNFINISHED_SUFFIX, read_exact_at};
use super::{SnapshotError, Snapshots};
use crate::locks::IgnorePoison;

const PREFIX: &str = "snapshot-";
const SUFFIX: &str = ".zst";
const HEADER_BYTES: usize = 44;
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;
const SKIPPABLE_BYTES: u32 = 36;
const SNAPSHOT_MAGIC: [u8; 8] = *b"PCSNAP\xa7\x00";
const SNAPSHOT_VERSION: u16 = 1;

/// zstd's own default: faster than the disk, and policy compresses well.
const COMPRESSION_LEVEL: i32 = 3;

/// The snapshots in one directory, which they share with the journal.
#[derive(Debug)]
pub struct FileSnapshots {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// How many are kept; one at least.
    kept: usize,
}

/// What a name says of a snapshot. Ordered by sequence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    sequence: u64,
    crc: u32,
}

/// Why a snapshot is not used.
enum Fault {
    Unreadable(io::Error),
    Damaged(&'static str),
    Newer(u16),
}

impl FileSnapshots {
    /// The snapshots in `directory`, which exists. The newest two are kept.
    pub fn new(disk: Arc<dyn Disk>, directory: impl Into<PathBuf>) -> Self {
        Self { disk, directory: directory.into(), kept: 2 }
    }

    /// Keeps the newest one only, so that data erased since the older ones is gone.
    #[must_use]
    pub fn newest_only(self) -> Self {
        Self { kept: 1, ..self }
    }

    fn list(&self) -> Result<Vec<String>, SnapshotError> {
        self.disk.list(&self.directory).map_err(|source| io_error("list", &self.directory, source))
    }

    /// Removes unfinished files, and all snapshots but those that are kept beside the one just written.
    fn prune(&self, written: &Name) -> Result<(), SnapshotError> {
        let names = self.list()?;
        let mut older: Vec<Name> = names
            .iter()
            .filter_map(|name| Name::parse(name))
            .filter(|name| name.sequence <= written.sequence && name != written)
            .collect();
        older.sort_unstable();
        for _ in 1..self.kept {
            if let Some(kept) = older.iter().rposition(|name| name.sequence < written.sequence) {
                older.remove(kept);
            }
        }
        let unfinished = names
            .iter()
            .filter(|name| name.strip_suffix(UNFINISHED_SUFFIX).is_some_and(|name| Name::parse(name).is_some()));
        for name in older.iter().map(Name::file_name).chain(unfinished.cloned()) {
            let path = self.directory.join(name);
            self.disk.remove(&path).map_err(|source| io_error("remove", &path, source))?;
        }
        self.disk.sync_directory(&self.directory).map_err(|source| io_error("sync", &self.directory, source))
    }

    fn read(&self, name: &Name) -> Result<Vec<u8>, Fault> {
        let path = self.directory.join(name.file_name());
        let file = self.disk.open(&path).map_err(Fault::Unreadable)?;
        let size = file.size().map_err(Fault::Unreadable)?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        if !read_exact_at(&*file, &mut bytes, 0).map_err(Fault::Unreadable)? {
            return Err(Fault::Damaged("it became shorter while it was read"));
        }
        let (header, compressed) =
            bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Fault::Damaged("it is too short"))?;
        let content_bytes = decode_header(header, name.sequence)?;
        decompress(compressed, content_bytes, name.crc)
    }
}

impl Snapshots for FileSnapshots {
    fn write(&self, sequence: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        let crc = crc32c::crc32c(bytes);
        let name = Name { sequence, crc };
        let path = self.directory.join(name.file_name());
        let mut file = encode_header(sequence, bytes.len() as u64);
        compress(bytes, &mut file).map_err(|source| io_error("compress", &path, source))?;
        disk::write_whole(&*self.disk, &path, &file).map_err(|source| io_error("write", &path, source))?;
        self.prune(&name)
    }

    fn newest_valid(&self) -> Result<Option<(u64, Vec<u8>)>, SnapshotError> {
        let mut names: Vec<Name> = self.list()?.iter().filter_map(|name| Name::parse(name)).collect();
        names.sort_unstable();
        for name in names.iter().rev() {
            let path = self.directory.join(name.file_name());
            let path_text = path.display();
            match self.read(name) {
                Ok(bytes) => return Ok(Some((name.sequence, bytes))),
                Err(Fault::Newer(version)) => {
                    let supported = SNAPSHOT_VERSION;
                    return Err(SnapshotError::NewerFormat { path, version, supported });
                }
                Err(Fault::Unreadable(error)) => {
                    tracing::warn!(path = %path_text, %error, "a snapshot cannot be read and is skipped");
                }
                Err(Fault::Damaged(detail)) => {
                    tracing::warn!(path = %path_text, detail, "a snapshot is damaged and is skipped");
                }
            }
        }
        Ok(None)
    }
}

impl Name {
    fn parse(file_name: &str) -> Option<Self> {
        let rest = file_name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (sequence, crc) = rest.split_once('-')?;
        let name = Self { sequence: sequence.parse().ok()?, crc: u32::from_str_radix(crc, 16).ok()? };
        (name.file_name() == file_name).then_some(name)
    }

    fn file_name(&self) -> String {
        format!("{PREFIX}{:020}-{:08x}{SUFFIX}", self.sequence, self.crc)
    }
}

fn encode_header(sequence: u64, content_bytes: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
    header.extend_from_slice(&SKIPPABLE_BYTES.to_le_bytes());
    header.extend_from_slice(&SNAPSHOT_MAGIC);
    header.extend_from_slice(&SNAPSHOT_VERSION.to_le_bytes());
    header.extend_from_slice(&[0; 6]);
    header.extend_from_slice(&sequence.to_le_bytes());
    header.extend_from_slice(&content_bytes.to_le_bytes());
    let crc = crc32c::crc32c(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header
}

/// Reads how large the content is.
fn decode_header(header: &[u8; HEADER_BYTES], sequence: u64) -> Result<u64, Fault> {
    let damaged = Fault::Damaged("its header does not match");
    // The magic number and the size of the skippable frame are covered by the checksum alone.
    let (_, fields) = header.split_at(8);
    let fields = fields.strip_prefix(&SNAPSHOT_MAGIC).and_then(<[u8]>::split_first_chunk::<2>);
    let Some((version, [_, _, _, _, _, _, numbers @ ..])) = fields else { return Err(damaged) };
    let ([stored, content_bytes], crc) = numbers.as_chunks::<8>() else { return Err(damaged) };
    let covered = header.split_last_chunk::<4>().map_or(&header[..], |(covered, _)| covered);
    if crc != crc32c::crc32c(covered).to_le_bytes() {
        return Err(damaged);
    }
    match u16::from_le_bytes(*version) {
        version if version > SNAPSHOT_VERSION => Err(Fault::Newer(version)),
        _ if u64::from_le_bytes(*stored) == sequence => Ok(u64::from_le_bytes(*content_bytes)),
        _ => Err(damaged),
    }
}

fn compress(bytes: &[u8], file: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(file, COMPRESSION_LEVEL)?;
    encoder.include_checksum(true)?;
    io::Write::write_all(&mut encoder, bytes)?;
    encoder.finish().map(drop)
}

fn decompress(compressed: &[u8], content_bytes: u64, crc: u32) -> Result<Vec<u8>, Fault> {
    let damaged = |_| Fault::Damaged("it does not decompress");
    let mut bytes = Vec::new();
    // One byte more than there should be, to notice where there is more.
    zstd::Decoder::with_buffer(compressed)
        .map_err(damaged)?
        .take(content_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(damaged)?;
    if bytes.len() as u64 != content_bytes || crc32c::crc32c(&bytes) != crc {
        return Err(Fault::Damaged("its content does not match"));
    }
    Ok(bytes)
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Io { action, path: path.to_owned(), source }
}

/// Snapshots in memory, for tests.
#[derive(Debug, Default)]
pub struct MemorySnapshots {
    /// At most two, the newer last.
    kept: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl MemorySnapshots {
    /// No snapshots yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Snapshots for MemorySnapshots {
    fn write(&self, sequence: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        let mut kept = self.kept.lock().ignore_poison();
        kept.retain(|(other, _)| *other != sequence);
        kept.push((sequence, bytes.to_vec()));
        kept.sort_unstable_by_key(|(sequence, _)| *sequence);
        let superfluous = kept.len().saturating_sub(2);
        kept.drain(..superfluous);
        Ok(())
    }

    fn newest_valid(&self) -> Result<Option<(u64, Vec<u8>)>, SnapshotError> {
        let kept = self.kept.lock().ignore_poison();
        Ok(kept.last().cloned())
    }
}
