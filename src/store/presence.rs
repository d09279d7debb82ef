//! Whether a data directory in use, and the journals in it, are still where they were opened.
//!
//! Files that are open can be written after they or their directory are removed, moved or covered by another file system.
//! What is written to them is lost then, and nothing reports it.
//!
//! Invariant: a directory or file counts as present only if its path leads to the one that is in use.
//! Not here: what is done about one that is gone (`server::presence`), sled's directory, which is rebuilt when it is gone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DirectoryError;
use super::directory::DataDirectory;
use super::disk::Identity;
use super::journal::SegmentFiles;

/// See the module.
#[derive(Debug)]
pub struct Presence {
    directories: Vec<(PathBuf, Identity)>,
    journals: Vec<Arc<SegmentFiles>>,
}

impl Presence {
    /// The presence of a data directory, which is where it should be now, without journals.
    pub fn of(directory: &DataDirectory) -> Result<Self, DirectoryError> {
        let paths = [directory.path().to_owned(), directory.policy(), directory.audit(), directory.sessions()];
        let known = |path: PathBuf| match identity(&path) {
            Ok(identity) => Ok((path, identity)),
            Err(source) => Err(DirectoryError::Io { action: "read", path, source }),
        };
        let directories = paths.into_iter().map(known).collect::<Result<_, _>>()?;
        Ok(Self { directories, journals: Vec::new() })
    }

    /// The files of one more journal, which has to be told of it.
    pub fn of_journal(&mut self) -> Arc<SegmentFiles> {
        let files = Arc::default();
        self.journals.push(Arc::clone(&files));
        files
    }

    /// The first directory or file that is no longer where it was; none where all are.
    pub fn missing(&self) -> Option<PathBuf> {
        let leads_to = |path: &Path| identity(path).ok();
        let directory = self.directories.iter().find(|(path, known)| leads_to(path) != Some(*known));
        let directory = directory.map(|(path, _)| path.clone());
        directory.or_else(|| self.journals.iter().find_map(|journal| journal.missing(leads_to)))
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}
