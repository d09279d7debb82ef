//! A data directory while a backup is restored into it.
//!
//! Invariant: as long as the mark `RESTORING` is there, no server starts on the directory. It is the first that is written
//! and the last that is removed.
//! Not here: what is restored (`backup`), and how it is verified (`server::restore`).

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::DirectoryError;
use super::directory::{DataDirectory, RESTORING, check_format, create, io_error, is_restoring, lock_both};
use super::disk::{RealDisk, write_whole};

/// The file that holds the lineage of the backup, until the first start has put it on the record.
pub const RESTORED: &str = "RESTORED";

/// A directory into which a backup is restored. Locked like any data directory in use.
#[derive(Debug)]
pub struct RestoreDirectory {
    directory: DataDirectory,
}

impl RestoreDirectory {
    /// Takes the directory `path`, which is empty or does not exist, and marks it.
    ///
    /// # Errors
    ///
    /// If it holds anything, or another process uses it.
    pub fn begin(path: &Path) -> Result<Self, DirectoryError> {
        create(path)?;
        refuse_contents(path)?;
        let directory = DataDirectory::locked(path.to_owned(), lock_both(path)?);
        // Somebody may have come between.
        refuse_contents(path)?;
        write(path, RESTORING, "")?;
        for part in [directory.policy(), directory.audit(), directory.sessions()] {
            create(&part)?;
        }
        Ok(Self { directory })
    }

    /// Checks that the version of the layout that was restored can be read.
    pub fn check_format(&self) -> Result<(), DirectoryError> {
        check_format(self.directory.path())
    }

    /// The bytes that can still be written there.
    pub fn free_bytes(&self) -> Result<u64, DirectoryError> {
        self.directory.free_bytes()
    }

    /// Begins a new lineage after `previous` and removes the mark. Returns the number of the new lineage, the first one drawn
    /// that `suits`.
    pub fn finish(self, previous: &str, suits: impl Fn(u64) -> bool) -> Result<u64, DirectoryError> {
        let path = self.directory.path();
        write(path, RESTORED, previous)?;
        let drawn = draw_until(suits, getrandom::u64);
        let lineage = drawn.map_err(|error| io_error("draw", &path.join("LINEAGE"), io::Error::other(error)))?;
        write(path, "LINEAGE", &format!("{lineage:016x}\n"))?;
        remove(path, RESTORING)?;
        Ok(lineage)
    }

    /// Removes what was restored: it is of no use.
    pub fn abandon(self) -> Result<(), DirectoryError> {
        let path = self.directory.path();
        let entries = path.read_dir().map_err(|error| io_error("list", path, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| io_error("list", path, error))?;
            let (name, at) = (entry.file_name(), entry.path());
            if name == RESTORING || is_harmless(&name) {
                continue;
            }
            let removed = if at.is_dir() { fs::remove_dir_all(&at) } else { fs::remove_file(&at) };
            removed.map_err(|error| io_error("remove", &at, error))?;
        }
        remove(path, RESTORING)
    }
}

/// Removes a directory that an interrupted restore left, and no other.
///
/// # Errors
///
/// If another process restores into it.
pub fn remove_unfinished(path: &Path) -> Result<(), DirectoryError> {
    if !is_restoring(path)? {
        return Ok(());
    }
    let locks = lock_both(path)?;
    // Another process may have finished meanwhile.
    if !is_restoring(path)? {
        return Ok(());
    }
    fs::remove_dir_all(path).map_err(|error| io_error("remove", path, error))?;
    drop(locks);
    Ok(())
}

fn draw_until<E>(suits: impl Fn(u64) -> bool, draw: impl Fn() -> Result<u64, E>) -> Result<u64, E> {
    loop {
        let drawn = draw()?;
        if suits(drawn) {
            return Ok(drawn);
        }
    }
}

/// Removes a file, durably.
pub fn remove(directory: &Path, name: &str) -> Result<(), DirectoryError> {
    let path = directory.join(name);
    let removed = fs::remove_file(&path).and_then(|()| File::open(directory)?.sync_all());
    removed.map_err(|error| io_error("remove", &path, error))
}

fn write(directory: &Path, name: &str, text: &str) -> Result<(), DirectoryError> {
    let path = directory.join(name);
    write_whole(&RealDisk, &path, text.as_bytes()).map(drop).map_err(|error| io_error("write", &path, error))
}

/// What a fresh file system has, and the lock.
fn is_harmless(name: &std::ffi::OsStr) -> bool {
    name == "LOCK" || name == "lost+found"
}

fn refuse_contents(path: &Path) -> Result<(), DirectoryError> {
    if is_restoring(path)? {
        return Err(DirectoryError::Restoring { path: path.to_owned() });
    }
    let entries = path.read_dir().map_err(|error| io_error("list", path, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| io_error("list", path, error))?;
        if !is_harmless(&entry.file_name()) {
            return Err(DirectoryError::NotEmpty { path: path.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_lineage_is_drawn_until_one_suits() {
        let drawn = RefCell::new(vec![3, 2, 1]);
        let draw = || Ok::<_, Infallible>(drawn.borrow_mut().pop().unwrap());
        assert_eq!(draw_until(|drawn| drawn > 1, draw), Ok(2));
        assert_eq!(*drawn.borrow(), [3]);
    }
}
