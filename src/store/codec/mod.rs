//! The stored form of policy objects, in both directions.
//!
//! `object` converts rules, nodes and the like for all of them. The journal wraps them in what a change does, the audit
//! log in pairs of before and after, and snapshots in entries.
//!
//! Invariant: bytes of every earlier version decode to the same object; golden files in `tests/golden` hold this. Bytes
//! that no version of this program wrote are an error, never a guess.
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
pub use entry::{EntryEncoder, EntryKey, PolicySnapshot, decode_snapshot, encode_snapshot, keys_of, touched_keys};
pub use error::CodecError;
