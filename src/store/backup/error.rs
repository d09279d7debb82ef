//! Why a backup cannot be taken or read.
//!
//! Invariant: a message says which file or member it is about, and what to do.
//! Not here: what a restore verifies besides (`server::restore`).

use std::io;
use std::path::PathBuf;

use super::super::JournalError;
use super::format::BACKUP_VERSION;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The operating system refused.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal holds less than is known to be durable.
    #[error(
        "the audit log's files end at record {found}, but record {expected} is durable: run `portcullis audit verify`"
    )]
    Short {
        /// The last record found.
        found: u64,
        /// The last durable one.
        expected: u64,
    },
    /// The files kept changing.
    #[error("the files in `{}` changed too often while they were listed: try again", path.display())]
    Unsteady {
        /// The directory.
        path: PathBuf,
    },
    /// Not a backup.
    #[error("this is no backup of portcullis: give a file that `portcullis backup` wrote")]
    Foreign,
    /// A newer version wrote it.
    #[error(
        "the backup has format version {version}, this portcullis reads up to {BACKUP_VERSION}: use a newer portcullis"
    )]
    Newer {
        /// Its version.
        version: u16,
    },
    /// The file was changed.
    #[error("the backup is damaged at byte {offset}: {detail}; use another backup")]
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// The end is missing.
    #[error("the backup ends at byte {bytes}, before it is whole: it was cut off; use another backup")]
    CutOff {
        /// How many bytes there are.
        bytes: u64,
    },
}

/// An error of the operating system.
pub(super) fn io_error(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> BackupError {
    BackupError::Io { action, path: path.into(), source }
}
