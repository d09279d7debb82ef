//! Errors of the store. Each tells an operator which file it is about and what to do.
//!
//! Invariant: an error is *transient* exactly if the same call may succeed later without a change of the files.
//!
//! Not here: gRPC codes; the edge picks them by [`JournalError::is_transient`] and its like.

use std::io;
use std::path::{Path, PathBuf};

use super::advice::FROM_COPY;

/// Why the journal could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error("cannot {action} journal file `{}`: {source}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An earlier write failed, and [`Log::recover`](super::Log::recover) has not succeeded since.
    #[error("the journal takes no records until it is recovered from an earlier failure: {cause}")]
    Failed {
        /// The earlier error.
        cause: String,
    },
    /// A file does not hold what was written to it.
    #[error(
        "journal file `{}` is damaged at byte {offset} (sequence {sequence}): {detail}; stop the service if it runs, and restore the file {FROM_COPY}",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the first bad frame begins, in bytes from the start of the file.
        offset: u64,
        /// The sequence that belongs there.
        sequence: u64,
        /// What is wrong.
        detail: &'static str,
    },
    /// A segment is missing between two others.
    #[error(
        "records {expected} to {} are missing in `{}`: restore the journal files between {FROM_COPY}",
        found.saturating_sub(1),
        directory.display()
    )]
    Missing {
        /// Where the files are.
        directory: PathBuf,
        /// The first sequence that is missing.
        expected: u64,
        /// The sequence at which the next file begins.
        found: u64,
    },
    /// A file was written by a version that knows more.
    #[error(
        "journal file `{}` has format version {version}, this portcullis reads up to {supported}: use a newer portcullis",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
        /// The newest version that is understood.
        supported: u16,
    },
    /// A file is no journal, or another one's.
    #[error("`{}` is not a file of this journal: {detail}; move it elsewhere", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        detail: &'static str,
    },
    /// Too much for one append. Nothing was written.
    #[error("cannot append {bytes} bytes in one piece, the most is {bytes_max}: make the change smaller")]
    TooLarge {
        /// The bytes asked for.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// A position that is not in the journal.
    #[error("sequence {sequence} is not in the journal, which has {first} to {}", next.saturating_sub(1))]
    OutOfRange {
        /// The sequence asked for.
        sequence: u64,
        /// The oldest one kept.
        first: u64,
        /// The one that the next record gets.
        next: u64,
    },
}

impl JournalError {
    /// The same about a file that was read under another name.
    #[must_use]
    pub fn of_file(mut self, name: &Path) -> Self {
        match &mut self {
            Self::Io { path, .. }
            | Self::Damaged { path, .. }
            | Self::NewerFormat { path, .. }
            | Self::Foreign { path, .. } => name.clone_into(path),
            Self::Failed { .. } | Self::Missing { .. } | Self::TooLarge { .. } | Self::OutOfRange { .. } => {}
        }
        self
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Failed { .. })
    }
}

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The operating system refused.
    #[error("cannot {action} snapshot `{}`: {source}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The newest snapshot was written by a version that knows more.
    #[error(
        "snapshot `{}` has format version {version}, this portcullis reads up to {supported}: use a newer portcullis",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
        /// The newest version that is understood.
        supported: u16,
    },
}

impl SnapshotError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

/// Why the state store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system refused.
    #[error("cannot {action} the state store in `{}`: {source}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// The store's directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The store's files cannot be interpreted, or the embedded database panicked. It is not used any more.
    #[error(
        "the state store in `{}` is damaged: {detail}; it is moved aside and made again from the journal at the next start",
        path.display()
    )]
    Damaged {
        /// The store's directory.
        path: PathBuf,
        /// What happened.
        detail: String,
    },
    /// The files are open elsewhere, perhaps still in this process.
    #[error("the state store in `{}` is in use: stop the process that has it open", path.display())]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// A key or value beyond the limit. Nothing was written.
    #[error("a {what} of {bytes} bytes is too large for the state store, the most is {bytes_max}")]
    TooLarge {
        /// `key` or `value`.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

impl StateError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::InUse { .. })
    }
}

/// Why the data directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
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
    /// Another process holds the lock.
    #[error(
        "data directory `{}` is in use by another process{}: stop it or choose another --data-dir",
        path.display(),
        process.map(|id| format!(" ({id})")).unwrap_or_default()
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The process id found in the lock file.
        process: Option<u32>,
    },
    /// The directory holds something else.
    #[error(
        "`{}` is not empty and no data directory of portcullis (it has no FORMAT file): choose another --data-dir",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was in use, and its FORMAT file is gone.
    #[error(
        "`{}` is missing, though the directory was in use: restore it from a backup of the data directory; one that this \
         version wrote holds `{version}` and a line feed",
        path.display()
    )]
    FormatMissing {
        /// The FORMAT file.
        path: PathBuf,
        /// What this version writes.
        version: u32,
    },
    /// The LINEAGE file holds no lineage.
    #[error(
        "`{}` does not hold a lineage, which is 16 hexadecimal digits in lower case and a line feed: restore it from a \
         backup of the data directory, or remove it to be given a new one, after which etags, page tokens and \
         subscribers' positions from before are refused",
        path.display()
    )]
    UnreadableLineage {
        /// The LINEAGE file.
        path: PathBuf,
    },
    /// A backup is being restored, or was not restored to the end.
    #[error(
        "a restore into `{}` is under way or was interrupted: remove the directory, and restore the backup again",
        path.display()
    )]
    Restoring {
        /// The data directory.
        path: PathBuf,
    },
    /// A backup is not restored over something else.
    #[error("`{}` is not empty: restore into an empty directory, or one that does not exist", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The FORMAT file holds no version.
    #[error(
        "`{}` does not hold a format version: restore it from a backup of the data directory",
        path.display()
    )]
    UnreadableFormat {
        /// The FORMAT file.
        path: PathBuf,
    },
    /// The directory was written by a version that knows more.
    #[error(
        "data directory `{}` has format version {version}, this portcullis reads up to {supported}: use a newer portcullis",
        path.display()
    )]
    NewerFormat {
        /// The data directory.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version that is understood.
        supported: u32,
    },
}

impl DirectoryError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::InUse { .. })
    }
}
