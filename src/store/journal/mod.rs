//! The adapters of the ports [`Log`](super::Log), [`Segments`](super::Segments) and [`Redaction`](super::Redaction):
//! segment files, and memory for tests.
//!
//! `frame` and `segment` are the format. `scan` distinguishes the trace of a crash from damage. `read` and `open` read a
//! journal, `file` writes one, and `redact` replaces a segment in which something is erased.
//!
//! Invariant: what one append wrote is one frame, read back whole or not at all.
//!
//! Not here: what a record means, and when old segments may go.

mod file;
mod frame;
mod memory;
mod open;
mod read;
mod redact;
mod scan;
mod segment;
mod written;

pub use file::FileJournal;
pub use frame::FRAME_BYTES_MAX;
pub use memory::MemoryJournal;
pub use open::{JournalOptions, JournalReader};
pub use segment::Stream;
pub use written::{WholeFrames, segment_sequence, whole_frames};
