//! What policy objects look like when they are stored, in both directions.
//!
//! Invariant: what was ever written decodes for ever to the same object; golden files in `tests/golden` hold it.
//! Decoding checks everything: bytes that no version of this program wrote are an error, never a guess.
//! Not here: where the bytes are kept, and their checksums.

pub mod audit;
mod change;
mod counter;
mod entry;
mod field;
mod object;

use thiserror::Error;

pub use change::{decode_change, encode_change, erase_actor};
pub use counter::{CounterKey, decode_counter, decode_mark, encode_counter, encode_mark};
pub use entry::{EntryEncoder, EntryKey, StateBuilder, decode_snapshot, encode_snapshot, keys_of, touched_keys};

/// Bytes that are not what they should be.
#[derive(Debug, Error)]
pub enum CodecError {
    /// They are not a message of the storage package at all.
    #[error("the bytes are no stored policy object: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// They are, but something in it is missing or out of range.
    #[error("a stored policy object has no valid {0}: it was written by a newer version, or is damaged")]
    Invalid(&'static str),
}

/// What decoding comes to.
type Decoded<T> = Result<T, CodecError>;
