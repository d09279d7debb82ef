//! The engine's audit log: recording, reading and proving (design.md §2.8).
//!
//! * *Writing*: a record gets its sequence in the `queue` and its bytes from the `encoder`. The `writer` and, through the
//!   `pipeline`, the `committer` write it to the journal; then it is in the `tail` in memory.
//! * *Maintenance*, on a thread of its own: the `sealer` makes files of full units of the tail, the `pruner` removes the
//!   oldest, the `eraser` removes personal data.
//! * *Reading*: `reader`, `ended`, `decisions`, `proofs` and `verify` see tail and files as one log, each on its caller's
//!   thread.
//!
//! Invariant: only durable records are read, proven or signed. A lost or changed record is detected.
//! Not here: what a record says and how it is hashed (`audit`), what is in the files (`store`).

mod checkpoints;
mod committer;
mod condition;
mod correcting;
mod corrections;
mod decisions;
mod decoded;
mod denials;
mod encoder;
mod ended;
mod eraser;
mod erasing;
mod error;
mod held;
mod inbox;
mod layout;
mod log;
mod maintenance;
mod newest;
mod notes;
mod open_error;
mod openings;
mod options;
mod orders;
mod pipeline;
mod ports;
mod proofs;
mod pruner;
mod queue;
mod reader;
mod recovery;
mod removed;
mod replay;
mod running;
mod sealer;
mod shared;
mod signers;
mod tail;
mod tail_index;
mod unit_limits;
mod units;
mod verify;
mod view;
mod waiting;
mod writer;

pub(crate) use condition::{Condition, Obstacle};
pub(super) use decisions::RecordedDecision;
pub(crate) use erasing::Erasing;
pub use error::AuditError;
pub use log::AuditLog;
pub(crate) use log::DiskWatch;
pub(crate) use maintenance::Maintenance;
pub use newest::Newest;
pub(crate) use notes::CHECKPOINTS;
pub use notes::{NewestSigner, newest_signer};
pub use open_error::AuditOpenError;
pub use options::{AuditOptions, Durability, OnAuditFailure};
pub use orders::{EraseRequest, Erased};
pub use ports::MakeRoom;
pub(crate) use ports::{ActorAnswer, ActorFiles, ErasedPart, SessionFiles};
pub use proofs::InclusionProof;
pub use queue::AuditQueue;
pub use reader::{ListPosition, RecordPage};
pub(crate) use recovery::ReadBack;
pub use recovery::{AuditStores, OpenJournal, Opened};
pub use running::LeftAs;
pub use verify::{LogFiles, Progress, ReadTail, Verification, verify_files};
