//! The mark that the log is in use. A start that finds it knows that the last shutdown was not clean.
//!
//! Invariant: it is durable before anything is recorded. It is removed once everything that was queued is durable, and
//! only where every change in the policy journal was queued.
//! Not here: what is done about an unclean stop (`engine::start`), and what one cannot leave (`engine::witnesses`).

use std::io;

use super::options::{AuditOptions, Durability, OnAuditFailure};
use crate::store::folder::Folder;

/// The file's name.
const RUNNING: &str = "running";

/// Its content where Checks are answered without a record while none can be written.
const UNRECORDED: &[u8] = b"unrecorded\n";
/// Its content where Checks may be answered before their records are durable.
const ASYNC: &[u8] = b"async\n";
/// Its content where every answered Check has its record.
const SYNC: &[u8] = b"sync\n";

/// How the log was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftAs {
    /// Shut down cleanly, or never used.
    Clean,
    /// Not shut down cleanly; every answered decision is recorded.
    Unclean,
    /// Not shut down cleanly; records of answered decisions may be missing, no more than may wait for the disk.
    UncleanAsync,
    /// Not shut down cleanly; any number of decisions may have been answered without a record.
    UncleanUnrecorded,
}

/// How the log was left. Nothing is written.
pub(super) fn left(folder: &Folder) -> io::Result<LeftAs> {
    Ok(match folder.read(RUNNING)? {
        Some(bytes) if bytes == SYNC => LeftAs::Unclean,
        Some(bytes) if bytes == UNRECORDED => LeftAs::UncleanUnrecorded,
        Some(_) => LeftAs::UncleanAsync,
        None => LeftAs::Clean,
    })
}

/// Marks the log, which was left like this, as in use.
pub(super) fn begin(folder: &Folder, options: &AuditOptions, left: LeftAs) -> io::Result<()> {
    // Keep the note of missing decisions until a record says so.
    folder.write(RUNNING, text(by(options).max(left))).map(drop)
}

/// Marks the log as it is used by these settings, once a record says how it was left before.
pub(super) fn go_on(folder: &Folder, options: &AuditOptions) -> io::Result<()> {
    let text = text(by(options));
    match folder.read(RUNNING)? {
        Some(bytes) if bytes == text => Ok(()),
        _ => folder.write(RUNNING, text).map(drop),
    }
}

/// What a crash leaves of a log that is used by these settings.
fn by(options: &AuditOptions) -> LeftAs {
    let all_sync = options.shell == Durability::Sync && options.preview == Durability::Sync;
    match options.on_failure {
        // What is decided unrecorded is only counted in memory, and a disk that takes no record takes no mark either.
        OnAuditFailure::Allow => LeftAs::UncleanUnrecorded,
        OnAuditFailure::Deny if all_sync => LeftAs::Unclean,
        OnAuditFailure::Deny => LeftAs::UncleanAsync,
    }
}

fn text(left: LeftAs) -> &'static [u8] {
    match left {
        LeftAs::UncleanUnrecorded => UNRECORDED,
        LeftAs::UncleanAsync => ASYNC,
        LeftAs::Unclean | LeftAs::Clean => SYNC,
    }
}

/// Notes a clean shutdown.
pub(super) fn end(folder: &Folder) -> io::Result<()> {
    folder.remove(RUNNING)
}
