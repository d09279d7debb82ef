//! Access to the files of the sealed units of one log.
//!
//! Invariant: a `.seg` under its final name is whole and has its `.pii`. After a crash, [`SealedFiles::clean`] removes all
//! other files.
//! Not here: what is in the files (`segment`, `openings`, `reader`).

use std::io;
use std::path::{Path, PathBuf};

use super::super::disk::{UNFINISHED_SUFFIX, write_whole};
use super::super::folder::Folder;
use super::error::SealedError;
use super::file::io_error;
use super::openings::{COMMITMENT_BYTES, Openings, StoredOpening, encode_openings};
use super::reader::SealedUnit;
use super::segment::{Unit, encode};

const SEGMENT_SUFFIX: &str = ".seg";
const OPENINGS_SUFFIX: &str = ".pii";
const DIGITS: usize = 20;

/// The sealed units in a directory. Units are named by their first sequence.
#[derive(Clone, Debug)]
pub struct SealedFiles {
    folder: Folder,
}

impl SealedFiles {
    /// Those in a directory.
    pub fn new(folder: Folder) -> Self {
        Self { folder }
    }

    /// All units, ascending. Changes nothing.
    pub fn list(&self) -> Result<Vec<u64>, SealedError> {
        let names = self.names()?;
        let mut units: Vec<u64> = names.iter().filter_map(|name| sequence_of(name, SEGMENT_SUFFIX)).collect();
        units.sort_unstable();
        Ok(units)
    }

    /// Removes unfinished files, and openings without their unit, which was being written or removed.
    pub fn clean(&self) -> Result<(), SealedError> {
        let units = self.list()?;
        for name in self.names()? {
            let whole = name.strip_suffix(UNFINISHED_SUFFIX);
            let is_ours =
                |name: &str| sequence_of(name, SEGMENT_SUFFIX).or_else(|| sequence_of(name, OPENINGS_SUFFIX)).is_some();
            let orphan = sequence_of(&name, OPENINGS_SUFFIX).is_some_and(|first| units.binary_search(&first).is_err());
            if whole.is_some_and(is_ours) || orphan {
                self.remove_file(&self.folder.path().join(&name))?;
            }
        }
        Ok(())
    }

    /// Writes a unit, replacing one of the same name. Durable when this returns.
    pub fn write(&self, unit: &Unit<'_>) -> Result<(), SealedError> {
        let path = self.segment(unit.first_sequence);
        let bytes = encode(unit).map_err(|error| io_error("compress", &path, error))?;
        self.write_openings(unit.first_sequence, unit.openings)?;
        write_whole(self.folder.disk(), &path, &bytes).map(drop).map_err(|error| io_error("write", &path, error))
    }

    /// Opens a unit for reading.
    pub fn open(&self, first_sequence: u64) -> Result<SealedUnit, SealedError> {
        SealedUnit::open(self.folder.disk(), self.segment(first_sequence), first_sequence)
    }

    /// Opens the openings of a unit for reading.
    pub fn openings(&self, first_sequence: u64) -> Result<Openings, SealedError> {
        Openings::open(self.folder.disk(), self.openings_path(first_sequence), first_sequence)
    }

    /// Rewrites the openings of a unit without those of some slots, of which only the commitments are kept. Durable when
    /// this returns; a crash in between leaves the old file.
    pub fn erase_openings(
        &self,
        first_sequence: u64,
        erased: &[(u32, [u8; COMMITMENT_BYTES])],
    ) -> Result<(), SealedError> {
        let mut openings = self.openings(first_sequence)?.read_all()?;
        for (slot, commitment) in erased {
            if let Some(opening) = openings.get_mut(*slot as usize) {
                *opening = StoredOpening::Erased { commitment: *commitment };
            }
        }
        self.write_openings(first_sequence, &openings)
    }

    /// The bytes of a unit's files together.
    pub fn bytes(&self, first_sequence: u64) -> Result<u64, SealedError> {
        let size = |path: PathBuf| {
            let size = self.folder.disk().open(&path).and_then(|file| file.size());
            size.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => SealedError::Missing { path },
                _ => io_error("read the size of", &path, error),
            })
        };
        Ok(size(self.segment(first_sequence))? + size(self.openings_path(first_sequence))?)
    }

    /// Removes a unit. Durable when this returns. A crash in between leaves it whole, or [`SealedFiles::clean`] finishes
    /// the removal.
    pub fn remove(&self, first_sequence: u64) -> Result<(), SealedError> {
        self.remove_file(&self.segment(first_sequence))?;
        self.sync()?;
        self.remove_file(&self.openings_path(first_sequence))?;
        self.sync()
    }

    fn segment(&self, first_sequence: u64) -> PathBuf {
        self.folder.path().join(format!("{first_sequence:0DIGITS$}{SEGMENT_SUFFIX}"))
    }

    fn openings_path(&self, first_sequence: u64) -> PathBuf {
        self.folder.path().join(format!("{first_sequence:0DIGITS$}{OPENINGS_SUFFIX}"))
    }

    fn write_openings(&self, first_sequence: u64, openings: &[StoredOpening]) -> Result<(), SealedError> {
        let path = self.openings_path(first_sequence);
        let bytes = encode_openings(first_sequence, openings).map_err(|error| io_error("compress", &path, error))?;
        write_whole(self.folder.disk(), &path, &bytes).map(drop).map_err(|error| io_error("write", &path, error))
    }

    fn names(&self) -> Result<Vec<String>, SealedError> {
        self.folder.list().map_err(|error| io_error("list the directory of", self.folder.path(), error))
    }

    fn remove_file(&self, path: &Path) -> Result<(), SealedError> {
        match self.folder.disk().remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path, error)),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), SealedError> {
        let path = self.folder.path();
        self.folder.disk().sync_directory(path).map_err(|error| io_error("sync the directory of", path, error))
    }
}

/// The first sequence that a file's name tells; none where the name does not end so.
fn sequence_of(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    digits.parse().ok().filter(|sequence: &u64| digits.len() == DIGITS && format!("{sequence:0DIGITS$}") == digits)
}
