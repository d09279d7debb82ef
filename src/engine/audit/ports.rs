//! What the log asks of the rest of the engine, and of what it is written to.
//!
//! Invariant: what is reported as done is durable.
//! Not here: when they are made (`maintenance`, `eraser`).

use std::time::Duration;

use tokio::sync::oneshot;

use super::error::AuditError;
use crate::policy::name::Id;
use crate::store::Journal;

/// What the log asks of the sessions.
pub(crate) trait SessionFiles: Send {
    /// Saves the active sessions. A session of an erased user is saved without the user. Returns the last record that all
    /// of what was saved includes.
    fn save(&mut self) -> Result<u64, AuditError>;

    /// Erases a user from what is in memory: from the sessions whose opening is queued before what `record` queues, and
    /// from all else that was noted by then. `record` is called once, while no session can be opened or ended. Returns
    /// how many active sessions, not revoked yet, have no user any more.
    fn erase(&mut self, organization: Option<&Id>, email: &str, record: &mut dyn FnMut()) -> usize;

    /// The longest time that a session is open.
    fn max_age(&self) -> Duration;
}

/// What the log asks of the policy.
pub(crate) trait ActorFiles: Send {
    /// Has an actor erased from the changes of an organization, or from all, up to a record of the policy journal: in the
    /// part of the journal that begins with `part` (see `Redaction::redact_part`). It does not wait: the answer comes when
    /// that is durable, and the maintenance thread is woken for it.
    fn erase(
        &self,
        organization: Option<&Id>,
        name: &str,
        to_sequence: u64,
        part: u64,
    ) -> Result<ActorAnswer, AuditError>;

    /// Every part was erased: nothing that is kept in memory may hold the name.
    fn forget(&self);
}

/// Where the answer of the policy writer comes.
pub(crate) type ActorAnswer = oneshot::Receiver<Result<ErasedPart, AuditError>>;

/// Makes room on a full disk for the last records, with what was kept for that.
pub type MakeRoom = Box<dyn Fn() + Send>;

/// What records are written to, and what makes room for them.
pub(super) type Sink = (Box<dyn Journal>, MakeRoom);

/// What became of a part of the policy journal.
pub(crate) struct ErasedPart {
    /// The next part; none after the last.
    pub(crate) next: Option<u64>,
    /// A change of the actor that cannot be decoded. All others are erased.
    pub(crate) fault: Option<AuditError>,
}
