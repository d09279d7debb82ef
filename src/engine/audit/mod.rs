//! The audit log as the engine has it: what is recorded, what is read, what is proven (design.md §2.8).
//!
//! Three threads work on it. *Writing*: a record gets its sequence in the `queue`, its bytes from the `encoder`, and comes to
//! the disk by the `writer`, helped by the `committer`'s thread (`pipeline`); then it is in the `tail` in memory.
//! *Maintenance*: the `sealer` makes files of full units of the tail, the `pruner` removes the oldest, the `eraser` takes
//! personal data away. *Reading*: `reader`, `ended`, `decisions`, `proofs` and `verify` see tail and files as one log, each
//! on its caller's thread.
//!
//! Invariant: only what is durable is read, proven or signed. Nothing that is recorded is lost or changed without being
//! found out.
//! Not here: what a record says and how it is hashed (`audit`), what is in the files (`store`).

mod checkpoints;
mod committer;
mod condition;
mod decisions;
mod decoded;
mod encoder;
mod ended;
mod eraser;
mod error;
mod inbox;
mod log;
mod maintenance;
mod newest;
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
mod tail;
mod tail_index;
mod units;
mod verify;
mod view;
mod waiting;
mod writer;

pub(crate) use condition::Condition;
pub use error::AuditError;
pub use log::AuditLog;
pub(crate) use log::DiskWatch;
pub(crate) use maintenance::Maintenance;
pub use newest::Newest;
pub use open_error::AuditOpenError;
pub use options::{AuditOptions, Durability, OnAuditFailure};
pub use orders::EraseRequest;
pub(crate) use ports::{ActorFiles, SessionFiles};
pub use proofs::InclusionProof;
pub use queue::AuditQueue;
pub use reader::RecordPage;
pub use recovery::{AuditStores, OpenJournal, Opened};
pub use running::LeftAs;
pub use verify::{LogFiles, Progress, ReadTail, Verification, verify_files};
