//! Errors of the files of sealed units. Each tells an operator which file it is about and what to do.
//!
//! Invariant: an error is *transient* exactly if the same call may succeed later without a change of the files.
//!
//! Not here: gRPC codes (`api::status`).

use std::io;
use std::path::PathBuf;

use super::super::advice::FROM_COPY;

/// Why a sealed unit could not be written, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// The operating system refused.
    #[error("cannot {action} sealed file `{}`: {source}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file does not hold what was written to it.
    #[error(
        "sealed file `{}` is damaged at byte {offset} (records from sequence {sequence} on): {detail}; restore the file {FROM_COPY}",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the part that is not as it was written begins, in bytes from the start of the file.
        offset: u64,
        /// The sequence of the first record concerned: the tile's where it is a tile, else the unit's.
        sequence: u64,
        /// What is wrong.
        detail: &'static str,
    },
    /// A file was written by a version that knows more.
    #[error(
        "sealed file `{}` has format version {version}, this portcullis reads up to {supported}: use a newer portcullis",
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
    /// A file of a unit is not there.
    #[error("sealed file `{}` is missing: restore it {FROM_COPY}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A unit is to be written where another one is. Nothing was written.
    #[error(
        "sealed file `{}` is already there and holds something else: move it elsewhere if the records are still in the journal",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The caller asks for what cannot be. Nothing was changed.
    #[error("cannot {action} the sealed unit from sequence {first_sequence} on: {detail}")]
    Invalid {
        /// What was asked for: a verb.
        action: &'static str,
        /// The sequence of the unit's first record.
        first_sequence: u64,
        /// What does not fit.
        detail: &'static str,
    },
}

impl SealedError {
    /// The first record concerned, where that is known.
    pub fn sequence(&self) -> Option<u64> {
        match self {
            Self::Damaged { sequence, .. } => Some(*sequence),
            Self::Invalid { first_sequence, .. } => Some(*first_sequence),
            Self::Io { .. } | Self::NewerFormat { .. } | Self::Missing { .. } | Self::Exists { .. } => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}
