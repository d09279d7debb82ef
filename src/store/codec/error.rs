//! Why stored bytes cannot be decoded.
//!
//! Invariant: a message says whether the bytes are no message, or which part of one is wrong.
//! Not here: where the bytes are from, which the caller knows.

use thiserror::Error;

/// Bytes that do not decode.
#[derive(Debug, Error)]
pub enum CodecError {
    /// They are not a message of the storage package at all.
    #[error("the bytes are no stored policy object: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// They are, but something in it is missing or out of range.
    #[error("a stored policy object has no valid {0}: it was written by a newer version, or is damaged")]
    Invalid(&'static str),
}

/// The result of decoding.
pub(super) type Decoded<T> = Result<T, CodecError>;
