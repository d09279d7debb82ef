//! The mark that the log is in use. A start that finds it knows that the service before it did not end in order.
//!
//! Invariant: it is on the disk before anything is recorded, and goes when everything that was queued is on the disk.
//! Not here: what is done about an unclean stop (`engine::recovery`).

use std::io;

use super::options::{AuditOptions, Durability};
use crate::store::folder::Folder;

/// The file's name.
const RUNNING: &str = "running";

/// What it holds where some records need not be on the disk when they are answered.
const ASYNC: &[u8] = b"async\n";
const SYNC: &[u8] = b"sync\n";

/// How the log was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftAs {
    /// In order, or never used.
    Clean,
    /// In the middle; every answered decision is there.
    Unclean,
    /// In the middle; decisions that were answered may be missing.
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
    // Missing decisions stay noted until a record says so.
    let text = if all_sync && left != LeftAs::UncleanAsync { SYNC } else { ASYNC };
    folder.write(RUNNING, text)?;
    Ok(left)
}

/// The log was ended in order.
pub(super) fn end(folder: &Folder) -> io::Result<()> {
    folder.remove(RUNNING)
}
