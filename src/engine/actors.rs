//! Erasing an actor from the policy journal, for the audit log's erasures (design.md §2.8).
//!
//! Invariant: when it is done, neither the journal's files nor the index of revisions hold the name as an actor of a change
//! that the erasure covers.
//! Not here: the audit log's own records, and finishing after a crash (`audit::eraser`).

use std::sync::Arc;

use tokio::sync::oneshot;

use super::audit::{ActorAnswer, ActorFiles, AuditError};
use super::change::ChangeError;
use super::commands::{Command, Commands};
use super::history::History;
use crate::policy::name::Id;

/// See the module.
pub(super) struct PolicyActors {
    pub(super) commands: Arc<Commands>,
    pub(super) history: Arc<History>,
}

impl ActorFiles for PolicyActors {
    fn erase(
        &self,
        organization: Option<&Id>,
        name: &str,
        to_sequence: u64,
        part: u64,
    ) -> Result<ActorAnswer, AuditError> {
        let (reply, answer) = oneshot::channel();
        let (organization, name) = (organization.cloned(), name.to_owned());
        let command = Command::EraseActor { organization, name, to_sequence, part, reply };
        self.commands.send(command).map_err(|error| match error {
            ChangeError::ShuttingDown => AuditError::ShuttingDown,
            other => AuditError::NotWritable(other.to_string()),
        })?;
        Ok(answer)
    }

    fn forget(&self) {
        self.history.forget();
    }
}
