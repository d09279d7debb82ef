//! The stored form of the audit log and of what is kept beside it.
//!
//! Invariant: a record is encoded once. Decoded records are never encoded again to replace it, because its bytes are
//! hashed.
//! Not here: the files (`store::sealed`, the journal), the hashes (`audit`).

mod entry;
mod erasing;
mod parts;
mod policy_change;
mod session;
mod tail;
mod unit;
mod wire;

pub use entry::{Peek, StoredEntry, append_entry, decode_entry, encode_entry, peek};
pub use erasing::{ErasureMark, UnfinishedErasure, decode_erasure_mark, encode_erasure_mark};
pub use session::{
    Renewal, SessionSnapshot, ShardSessions, StoredSession, decode_renewal, decode_session_snapshot, encode_renewal,
    encode_session_snapshot,
};
pub use tail::{Secret, TailOpening, TailRecord, decode_tail, encode_tail, erase_tail_opening, make_tail};
pub use unit::{Base, UnitSummary, decode_base, decode_unit_summary, encode_base, encode_unit_summary};
