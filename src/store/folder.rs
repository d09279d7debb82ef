//! A directory of a disk, and small files in it that are read and written whole.
//!
//! Invariant: a file gets its name only once it is whole and durable; a removed file stays removed.
//! Not here: what the files hold.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile, Identity, read_whole, write_whole};

/// A directory of a disk. It exists.
#[derive(Clone, Debug)]
pub struct Folder {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Folder {
    /// The directory `path` of a disk.
    pub fn new(disk: Arc<dyn Disk>, path: impl Into<PathBuf>) -> Self {
        Self { disk, path: path.into() }
    }

    /// The names in it, in no order.
    pub fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list(&self.path)
    }

    /// Which directory is at the path now; none where there is none, or the disk cannot tell.
    pub fn identity(&self) -> Option<Identity> {
        self.disk.open(&self.path).ok()?.identity()
    }

    /// Opens a file for reading; none where there is no such file.
    pub fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>> {
        match self.disk.open(&self.path.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of a file; none where there is no such file.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match read_whole(&*self.disk, &self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a file, replacing one of that name, and returns it for further writes. Durable when this returns.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
        write_whole(&*self.disk, &self.path.join(name), bytes)
    }

    /// Removes a file. Durable when this returns. No effect where there is no such file.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match self.disk.remove(&self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.disk.sync_directory(&self.path),
        }
    }

    /// Where a file of it is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
