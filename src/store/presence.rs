//! Whether a data directory in use is still where it was opened.
//!
//! Files that are open can be written after their directory is removed, moved or covered by another file system. What is
//! written to them is lost then, and nothing reports it.
//!
//! Invariant: a directory counts as present only if its path leads to the one that was opened.
//! Not here: what is done about one that is gone (`server::presence`), sled's directory, which is rebuilt when it is gone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::DirectoryError;
use super::directory::DataDirectory;

/// See the module.
#[derive(Debug)]
pub struct Presence {
    directories: Vec<(PathBuf, Identity)>,
}

/// Device and inode.
type Identity = (u64, u64);

impl Presence {
    /// The presence of a data directory, which is where it should be now.
    pub fn of(directory: &DataDirectory) -> Result<Self, DirectoryError> {
        let paths = [directory.path().to_owned(), directory.policy(), directory.audit(), directory.sessions()];
        let known = |path: PathBuf| match identity(&path) {
            Ok(identity) => Ok((path, identity)),
            Err(source) => Err(DirectoryError::Io { action: "read", path, source }),
        };
        Ok(Self { directories: paths.into_iter().map(known).collect::<Result<_, _>>()? })
    }

    /// The first directory that is no longer where it was; none where all are.
    pub fn missing(&self) -> Option<&Path> {
        let is_there = |(path, known): &&(PathBuf, Identity)| identity(path).is_ok_and(|now| now == *known);
        self.directories.iter().find(|directory| !is_there(directory)).map(|(path, _)| path.as_path())
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}
