//! Backups: one file with all that a data directory needs, taken while the service runs (design.md §2.11).
//!
//! ```text
//! file     magic "PCBACKU" 0xA7 (8), version (2), reserved (6), blocks
//! block    kind (1), reserved (3), payload bytes (4), CRC-32C of these 8 and the payload (4), payload
//!
//! 1 header  lineage (8), time in microseconds (8), newest audit record (8), newest policy record (8)
//! 2 member  its name below the data directory
//! 3 bytes   of the member, at most 256 KiB
//! 4 end of a member: its bytes (8), SHA-256 of them (32)
//! 5 end     number of members (8), SHA-256 of the file up to this block (32)
//! ```
//!
//! Numbers are little-endian. The header is the first block, the end is the last; between them each member is a block 2,
//! any number of blocks 3, a block 4. A file without its end is not whole.
//!
//! `stage` notes what a running service's files are at one moment, `pack` makes the file of it, `unpack` reads it.
//!
//! Invariant: a file that was changed, cut off or extended is refused; no member leaves the data directory.
//! Not here: how the moment is chosen (`engine`), what the members mean.

mod error;
mod format;
mod pack;
mod stage;
mod unpack;

use std::sync::Arc;

pub use error::BackupError;
pub use format::{BACKUP_VERSION, BlockKind, Summary};
pub use pack::{Interrupted, pack};
pub use stage::DirectoryFiles;
pub use unpack::{Members, Unpacker};

/// The files of all stores, as something that can be copied while they are in use.
pub trait BackupFiles: std::fmt::Debug + Send + Sync {
    /// Notes the files as they are now. They can be read as they were for as long as the result is held, whatever happens
    /// to the originals.
    ///
    /// The caller keeps the set of the audit log's files from changing meanwhile; everything may still grow.
    ///
    /// # Errors
    ///
    /// A file cannot be read or linked, or is damaged.
    fn stage(&self, time_micros: i64) -> Result<Arc<Staged>, BackupError>;
}

/// What a backup will hold. Dropping it releases what was held for it.
#[derive(Debug)]
pub struct Staged {
    /// What the backup is of.
    pub summary: Summary,
    members: Vec<Member>,
    /// Where the links are.
    _links: stage::Links,
}

/// One file of a backup.
#[derive(Debug)]
struct Member {
    name: String,
    content: Content,
}

/// What a member consists of.
#[derive(Debug)]
enum Content {
    /// The first bytes of a file that may have become longer.
    File {
        path: std::path::PathBuf,
        bytes: u64,
    },
    Text(Vec<u8>),
}
