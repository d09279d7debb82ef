//! The mark that the log is in use: where it is found at a start, the one before did not end as it should.
//!
//! Invariant: it is on the disk before anything is recorded, and goes when everything that was queued is on the disk.
//! Not here: what is done about an unclean stop (`engine::recovery`).

use std::io;
use std::path::Path;

use super::{AuditOptions, Durability};
use crate::store::disk::{Disk, read_whole, write_whole};

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
pub(super) fn begin(disk: &dyn Disk, directory: &Path, options: &AuditOptions) -> io::Result<LeftAs> {
    let path = directory.join(RUNNING);
    let left = match read_whole(disk, &path) {
        Ok(bytes) if bytes == SYNC => LeftAs::Unclean,
        Ok(_) => LeftAs::UncleanAsync,
        Err(error) if error.kind() == io::ErrorKind::NotFound => LeftAs::Clean,
        Err(error) => return Err(error),
    };
    let all_sync = options.shell == Durability::Sync && options.preview == Durability::Sync;
    // What was left once in such a way stays so until it is on the record.
    let text = if all_sync && left != LeftAs::UncleanAsync { SYNC } else { ASYNC };
    write_whole(disk, &path, text)?;
    Ok(left)
}

/// The log was ended in order.
pub(super) fn end(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    match disk.remove(&directory.join(RUNNING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => disk.sync_directory(directory),
    }
}
