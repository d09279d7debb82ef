//! The files of the audit log's sealed units: up to 65,536 consecutive records each, from behind a multiple of 256 on.
//!
//! ```text
//! <first sequence, 20 digits>.seg   records, index, tile roots; never changed
//! <first sequence, 20 digits>.pii   openings of personal data; the only file that is ever rewritten
//! ```
//!
//! Everything is bytes here: what a record, a term or an opening means is the caller's.
//!
//! Invariant: a `.seg` that has its name is whole and has its `.pii`. Nothing is handed out whose checksum does not match.
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
