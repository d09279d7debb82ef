//! The mark that the log is in use. A start that finds it knows that the last shutdown was not clean.
//!
//! Invariant: it is durable before anything is recorded, and removed once everything that was queued is durable.
//! Not here: what is done about an unclean stop (`engine::start`).

use std::io;

use super::options::{AuditOptions, Durability, OnAuditFailure};
use crate::store::folder::Folder;

/// The file's name.
const RUNNING: &str = "running";

/// Its content where Checks may be answered before their records are durable, or without a record while none can be
/// written.
const ASYNC: &[u8] = b"async\n";
/// Its content where every answered Check has its record.
const SYNC: &[u8] = b"sync\n";

/// How the log was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftAs {
    /// Shut down cleanly, or never used.
    Clean,
    /// Not shut down cleanly; every answered decision is recorded.
    Unclean,
    /// Not shut down cleanly; records of answered decisions may be missing.
    UncleanAsync,
}

/// Marks the log as in use; tells how it was left.
pub(super) fn begin(folder: &Folder, options: &AuditOptions) -> io::Result<LeftAs> {
    let left = match folder.read(RUNNING)? {
        Some(bytes) if bytes == SYNC => LeftAs::Unclean,
        Some(_) => LeftAs::UncleanAsync,
        None => LeftAs::Clean,
    };
    let all_sync = options.shell == Durability::Sync && options.preview == Durability::Sync;
    // What is decided unrecorded is only counted in memory, and a disk that takes no record takes no mark either.
    let all_recorded = all_sync && options.on_failure == OnAuditFailure::Deny;
    // Keep the note of missing decisions until a record says so.
    let text = if all_recorded && left != LeftAs::UncleanAsync { SYNC } else { ASYNC };
    folder.write(RUNNING, text)?;
    Ok(left)
}

/// Notes a clean shutdown.
pub(super) fn end(folder: &Folder) -> io::Result<()> {
    folder.remove(RUNNING)
}
