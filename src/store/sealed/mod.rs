//! The files of the audit log's sealed units: up to 65,536 consecutive records each, from behind a multiple of 256 on.
//!
//! ```text
//! <first sequence, 20 digits>.seg   records, index, tile roots; never changed
//! <first sequence, 20 digits>.pii   openings of personal data; the only file that is ever rewritten
//! ```
//!
//! Everything is bytes here: what a record, a term or an opening means is the caller's.
//!
//! Invariant: a `.seg` that has its name is whole and has its `.pii`. Nothing is handed out whose checksum does not match.
//! Not here: when units are sealed and removed; hashes and commitments.

mod bits;
mod bytes;
mod dictionary;
mod error;
mod file;
mod index_set;
mod openings;
mod postings;
mod reader;
mod segment;

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, UNFINISHED_SUFFIX};

pub use error::SealedError;
pub use index_set::IndexSet;
pub use openings::{Openings, StoredOpening};
pub use reader::{SealedUnit, Tile};
pub use segment::{TileSummary, Unit, write_unit};

use file::io_error;

/// Records of a tile.
pub(crate) const TILE_RECORDS: usize = 256;

const SEGMENT_SUFFIX: &str = ".seg";
const OPENINGS_SUFFIX: &str = ".pii";
const DIGITS: usize = 20;

fn segment_path(directory: &Path, first_sequence: u64) -> PathBuf {
    directory.join(format!("{first_sequence:0DIGITS$}{SEGMENT_SUFFIX}"))
}

fn openings_path(directory: &Path, first_sequence: u64) -> PathBuf {
    directory.join(format!("{first_sequence:0DIGITS$}{OPENINGS_SUFFIX}"))
}

/// The first sequence that a file's name tells; none where the name does not end so.
fn sequence_of(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    digits.parse().ok().filter(|sequence: &u64| digits.len() == DIGITS && format!("{sequence:0DIGITS$}") == digits)
}

fn names(disk: &dyn Disk, directory: &Path) -> Result<Vec<String>, SealedError> {
    disk.list(directory).map_err(|error| io_error("list the directory of", directory, error))
}

/// The first sequences of the units in a directory, ascending. Changes nothing.
pub fn list_whole(disk: &dyn Disk, directory: &Path) -> Result<Vec<u64>, SealedError> {
    let names = names(disk, directory)?;
    let mut units: Vec<u64> = names.iter().filter_map(|name| sequence_of(name, SEGMENT_SUFFIX)).collect();
    units.sort_unstable();
    Ok(units)
}

/// The first sequences of the units in a directory, ascending. What was never finished is removed, and openings whose unit
/// is not there: it was being written or removed.
pub fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<u64>, SealedError> {
    let units = list_whole(disk, directory)?;
    for name in names(disk, directory)? {
        let whole = name.strip_suffix(UNFINISHED_SUFFIX);
        let is_ours =
            |name: &str| sequence_of(name, SEGMENT_SUFFIX).or_else(|| sequence_of(name, OPENINGS_SUFFIX)).is_some();
        let orphan = sequence_of(&name, OPENINGS_SUFFIX).is_some_and(|first| units.binary_search(&first).is_err());
        if whole.is_some_and(is_ours) || orphan {
            remove(disk, &directory.join(&name))?;
        }
    }
    Ok(units)
}

/// Removes a unit. Durable when this returns; after a crash in between it is there whole, or `list` finishes it.
pub fn remove_unit(disk: &dyn Disk, directory: &Path, first_sequence: u64) -> Result<(), SealedError> {
    remove(disk, &segment_path(directory, first_sequence))?;
    sync(disk, directory)?;
    remove(disk, &openings_path(directory, first_sequence))?;
    sync(disk, directory)
}

/// The bytes of a unit's files together.
pub fn unit_bytes(disk: &dyn Disk, directory: &Path, first_sequence: u64) -> Result<u64, SealedError> {
    let size = |path: PathBuf| {
        let size = disk.open(&path).and_then(|file| file.size());
        size.map_err(|error| io_error("read the size of", &path, error))
    };
    Ok(size(segment_path(directory, first_sequence))? + size(openings_path(directory, first_sequence))?)
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<(), SealedError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path, error)),
        _ => Ok(()),
    }
}

fn sync(disk: &dyn Disk, directory: &Path) -> Result<(), SealedError> {
    disk.sync_directory(directory).map_err(|error| io_error("sync the directory of", directory, error))
}
