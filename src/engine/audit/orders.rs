//! What the audit writer and the maintenance thread are asked to do, and what they answer.
//!
//! Invariant: an order is carried out once the records that were queued before it are durable.
//! Not here: who carries them out (`writer`, `maintenance`).

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::error::AuditError;
use crate::audit::record::{Actor, ErasedUnit, Identity};
use crate::policy::name::Id;
use crate::store::JournalError;

/// What the writer is asked to do between two batches of records.
#[derive(Debug)]
pub(super) enum Order {
    /// Records an erasure.
    Erase(EraseOrder),
    /// Ends the unit that is being written with the tile that is begun, at once where none is.
    EndUnit,
    /// Truncates the journal before this record: those before it are sealed.
    Truncate(u64),
    /// Removes openings, whose erasure is recorded, from one part of the journal.
    Redact(RedactOrder),
}

/// See [`Order::Erase`].
#[derive(Debug)]
pub(super) struct EraseOrder {
    pub(super) request: EraseRequest,
    /// The openings to erase in sealed units, as the record lists them.
    pub(super) sealed: Vec<ErasedUnit>,
    pub(super) place: ErasurePlace,
    /// Answered when the record is durable, and no reader finds the openings in the tail any more.
    pub(super) reply: oneshot::Sender<Result<RecordedErasure, AuditError>>,
}

/// Which records an erasure concerns: those before its first ERASED record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErasurePlace {
    /// That record is queued under this sequence, without its content.
    Queued(u64),
    /// That record is durable. Another lists what it leaves out.
    Durable(u64),
}

/// See [`Order::Redact`].
#[derive(Debug)]
pub(super) struct RedactOrder {
    /// The part, see `Redaction::redact_part`.
    pub(super) part: u64,
    /// The records that hold the openings.
    pub(super) holders: Arc<HashSet<u64>>,
    /// Answers the next part.
    pub(super) reply: oneshot::Sender<Result<Option<u64>, JournalError>>,
}

/// An erasure whose record is durable.
#[derive(Debug)]
pub(super) struct RecordedErasure {
    /// The sequence of its first record.
    pub(super) first: u64,
    /// The sequence of its last record.
    pub(super) sequence: u64,
    /// How many openings its records list.
    pub(super) count: u64,
    /// Those of them that were in the tail.
    pub(super) tail: Vec<ErasedUnit>,
    /// The last record of the policy journal whose audit record could name an erased opening. Later ones keep their actor.
    pub(super) policy_sequence: u64,
}

/// What an erasure did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// How many openings it removed.
    pub openings: u64,
    /// The sequence of its record, the last one where it has several.
    pub sequence: u64,
    /// How many active sessions, not revoked yet, have no user any more.
    pub sessions: u64,
}

/// Whom to erase.
#[derive(Clone, PartialEq, Eq)]
pub struct EraseRequest {
    /// In which organization; none: in all.
    pub organization: Option<Id>,
    /// The user's email, as it was recorded.
    pub email: String,
    /// Whether the name is also erased where it is an actor's, in the policy journal too.
    pub including_actor: bool,
    /// Who asks for it.
    pub asked_by: Actor,
}

impl EraseRequest {
    /// Whether an opening is to be erased: its organization's id (empty: of none), its name, and whether it is an actor's.
    pub(super) fn concerns(&self, scope: &str, name: &str, is_actor: bool) -> bool {
        name == self.email
            && (self.including_actor || !is_actor)
            && self.organization.as_ref().is_none_or(|organization| organization.as_str() == scope)
    }

    /// Whom the record of the erasure names; nobody where actors erase themselves.
    pub(super) fn recorded_actor(&self) -> Option<Identity> {
        let erases_itself = self.including_actor && *self.asked_by.name == *self.email;
        (!erases_itself).then(|| Identity::Actor(self.asked_by.clone()))
    }
}

impl fmt::Debug for EraseRequest {
    /// Without personal data, which must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EraseRequest")
    }
}
