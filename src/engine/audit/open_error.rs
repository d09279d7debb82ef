//! Why the audit log cannot be opened.
//!
//! Invariant: a message tells what is wrong with which part of the log, and what to do.
//! Not here: errors of a log that is open (`error`).

use std::io;

use thiserror::Error;

use crate::store::JournalError;
use crate::store::advice::{FROM_COPY, OR_ACCEPT};
use crate::store::codec::CodecError;
use crate::store::sealed::SealedError;

/// Why the log cannot be opened.
#[derive(Debug, Error)]
pub enum AuditOpenError {
    /// The journal cannot be read.
    #[error("the audit log: {0}")]
    Journal(#[from] JournalError),
    /// A sealed unit cannot be read.
    #[error("the audit log: {0}")]
    Sealed(#[from] SealedError),
    /// A file beside the log cannot be read or written.
    #[error("cannot {action} of the audit log: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A record is intact, but does not decode.
    #[error(
        "record {sequence} of the audit log: {source}; use the version that wrote it, or restore its file {FROM_COPY}"
    )]
    Record {
        /// Its sequence.
        sequence: u64,
        /// What is wrong with it.
        source: CodecError,
    },
    /// Records are missing between what is sealed and what is in the journal.
    #[error(
        "records {expected} to {} of the audit log are missing: restore what begins with them in `audit`, \
         `{expected:020}.seg` or a journal file, {FROM_COPY}",
        found.saturating_sub(1)
    )]
    Missing {
        /// The first that is missing.
        expected: u64,
        /// The first that exists after them.
        found: u64,
    },
    /// The log has fewer records than were signed.
    #[error(
        "the audit log ends at record {records}, but the newest checkpoint covers {signed}: somebody cut it off, or the \
         disk lost what it had confirmed; restore the files in `audit` {FROM_COPY}{OR_ACCEPT}"
    )]
    CutOff {
        /// How many records there are.
        records: u64,
        /// How many were signed.
        signed: u64,
    },
    /// The log differs from what was signed.
    #[error(
        "the audit log is not what its newest checkpoint, of {size} records, says: run `portcullis audit verify \
         --data-dir`, and restore the files in `audit` {FROM_COPY}"
    )]
    Changed {
        /// The size that was signed.
        size: u64,
    },
    /// No checkpoint is signed by the key.
    #[error(
        "the checkpoints in `audit/checkpoints` are signed by another key than `{key}`: give the key that signed them \
         with `--audit-key-file`, or put back the `audit` that belongs to this key"
    )]
    OtherKey {
        /// The name of the key in use.
        key: String,
    },
    /// The file of the checkpoints holds none.
    #[error(
        "`audit/checkpoints` holds no checkpoint: it was cut off or overwritten; restore it {FROM_COPY}{OR_ACCEPT}"
    )]
    NoCheckpoint,
    /// A checkpoint is neither what the key signed nor what a crash leaves of the last one.
    #[error(
        "checkpoint {number} of {count} in `audit/checkpoints` is damaged{}: somebody changed it, or the disk did; restore \
         the files in `audit` {FROM_COPY}{OR_ACCEPT}",
        and_later(*.others)
    )]
    DamagedCheckpoint {
        /// Which it is, counted from the first.
        number: usize,
        /// How many there are.
        count: usize,
        /// How many after it are damaged as well.
        others: usize,
    },
    /// The operating system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

fn and_later(others: usize) -> String {
    if others == 0 { String::new() } else { format!(", and so are {others} after it") }
}
