//! Why the audit log does not answer.
//!
//! Invariant: a message tells what to do, and holds no personal data.
//! Not here: why the log cannot be opened (`open_error`), and which status a caller gets (`api::status`).

use std::fmt::Display;
use std::sync::Arc;

use thiserror::Error;

/// Why the log does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuditError {
    /// Nothing can be recorded now.
    #[error("the audit log cannot be written now: {0}; try again")]
    NotWritable(String),
    /// A file cannot be read, or is damaged.
    #[error("the audit log cannot be read: {0}")]
    NotReadable(String),
    /// The records were removed.
    #[error("records before sequence {first} have been removed: begin at {first} or later")]
    Removed {
        /// The oldest record kept.
        first: u64,
    },
    /// Records that a list would have shown were removed since its first page.
    #[error(
        "records that this list would have shown have been removed since it was begun, and the log now begins at \
         sequence {first}: begin again without a page token"
    )]
    Overtaken {
        /// The oldest record kept.
        first: u64,
    },
    /// A sequence that no record has yet.
    #[error("sequence {wanted} is beyond the newest record, {newest}: begin there")]
    NotReached {
        /// The sequence asked for.
        wanted: u64,
        /// The newest record.
        newest: u64,
    },
    /// A field of the request is wrong.
    #[error("`{field}` {description}")]
    Invalid {
        /// Its name in the request.
        field: &'static str,
        /// What is wrong with it.
        description: String,
    },
    /// Too many searches wait already.
    #[error("too many ended sessions are being looked for in the audit log: try again in a moment")]
    Busy,
    /// A thread of the service has ended, so the process ends.
    #[error("the service is ending because {0}: try again on another or later")]
    Failed(Arc<str>),
    /// The service is ending.
    #[error("the service is shutting down: try again on another or later")]
    ShuttingDown,
}

impl AuditError {
    /// A write that failed for this reason.
    pub(super) fn not_writable(reason: impl Display) -> Self {
        Self::NotWritable(reason.to_string())
    }

    /// A read that failed for this reason.
    pub(super) fn not_readable(reason: impl Display) -> Self {
        Self::NotReadable(reason.to_string())
    }
}
