//! The adapters of the [`Journal`](super::Journal) port: segment files, and memory for tests.
//!
//! `frame` and `segment` are the format, `scan` tells what a crash left from what was damaged, `read` and `file` are
//! the journal over them.
//!
//! Invariant: what one append wrote is one frame, read back whole or not at all.
//!
//! Not here: what a record means, and when old segments may go.

mod file;
mod frame;
mod memory;
mod read;
mod scan;
mod segment;

pub use file::{FileJournal, JournalOptions};
pub use frame::FRAME_BYTES_MAX;
pub use memory::MemoryJournal;
pub use segment::Stream;
