//! The files of the audit log's sealed units: up to 65,536 consecutive records each, from behind a multiple of 256 on.
//!
//! ```text
//! <first sequence, 20 digits>.seg   records, index, tile roots; never changed
//! <first sequence, 20 digits>.pii   openings of personal data; the only file that is ever rewritten
//! ```
//!
//! Records, terms and openings are bytes here; the caller gives them meaning.
//!
//! Invariant: a `.seg` under its final name is whole and has its `.pii`. Nothing is returned before its checksum was
//! verified.
//! Not here: when units are sealed and removed; hashes and commitments.

mod bits;
mod bytes;
mod dictionary;
mod error;
mod file;
mod files;
mod index_set;
mod openings;
mod postings;
mod reader;
mod segment;

pub use error::SealedError;
pub use files::SealedFiles;
pub use index_set::IndexSet;
pub use openings::{Openings, StoredOpening};
pub use reader::{SealedUnit, Tile};
pub use segment::{TileSummary, Unit};
