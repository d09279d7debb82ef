//! What the maintenance of the log asks of the rest of the engine.
//!
//! Invariant: what these calls report as done is durable.
//! Not here: when they are made (`maintenance`, `eraser`).

use std::time::Duration;

use super::error::AuditError;
use crate::policy::name::Id;

/// What the log asks of the sessions.
pub(crate) trait SessionFiles: Send {
    /// Saves the active sessions. A session of an erased user is saved without the user.
    fn save(&mut self) -> Result<(), AuditError>;

    /// Erases a user from the sessions in memory.
    fn erase(&mut self, organization: Option<&Id>, email: &str);

    /// The longest time that a session is open.
    fn max_age(&self) -> Duration;
}

/// What the log asks of the policy.
pub(crate) trait ActorFiles: Send {
    /// Erases an actor from the changes of an organization, or from all, up to a record of the policy journal. Durable when
    /// this returns.
    fn erase(&mut self, organization: Option<&Id>, name: &str, to_sequence: u64) -> Result<(), AuditError>;
}
