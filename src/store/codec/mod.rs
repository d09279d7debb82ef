//! What policy objects look like when they are stored, in both directions.
//!
//! An object is converted in one place (`object`). Around it each keeps a message of its own: the journal what a change
//! does, the audit log what was there before and after, an entry of a state what there is.
//!
//! Invariant: what was ever written decodes for ever to the same object; golden files in `tests/golden` hold it.
//! Decoding checks everything: bytes that no version of this program wrote are an error, never a guess.
//! Not here: where the bytes are kept, and their checksums.

pub mod audit;
mod builder;
mod change;
mod counter;
mod entry;
mod error;
mod field;
mod object;

pub use change::{decode_change, encode_change, erase_actor};
pub use counter::{CounterKey, decode_counter, decode_mark, encode_counter, encode_mark};
pub use entry::{EntryEncoder, EntryKey, decode_snapshot, encode_snapshot, keys_of, touched_keys};
pub use error::CodecError;
