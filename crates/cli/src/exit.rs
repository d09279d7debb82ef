//! How a command ended, unless it failed, and the exit status for it.
//!
//! Invariant: scripts tell by the status alone whether a connection was denied, and whether a plan would change anything.
//! Not here: which error has which status (`cli`).

use std::process::ExitCode;

/// How a command ended, unless it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or allowed.
    Success,
    /// Failed.
    Failure,
    /// Wrong usage.
    Usage,
    /// A connection was denied, or a gate refused a change.
    Denied,
    /// A plan has changes, and the caller asked to tell that by the status.
    Changes,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::SUCCESS,
            Exit::Failure => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::Denied => Self::from(3),
            Exit::Changes => Self::from(4),
        }
    }
}
