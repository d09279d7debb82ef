//! What callers ask of the thread that owns the policy journal: to change the policy, and to read the journal.
//!
//! Invariant: at most [`COMMANDS_WAITING_MAX`] commands wait; more are refused at once.
//! Not here: carrying them out (`writer`).

use std::sync::PoisonError;
use std::sync::mpsc::TrySendError;

use tokio::sync::oneshot;

use super::Engine;
use super::change::{ChangeError, ChangeRequest, Changed};
use crate::store::{JournalError, OwnedRecords};

/// Commands that may wait. Few, for each may hold a request of many megabytes.
pub(super) const COMMANDS_WAITING_MAX: usize = 1_024;

/// A command on its way to the writer.
pub(super) enum Command {
    /// Changes the policy.
    Change { request: Box<ChangeRequest>, reply: oneshot::Sender<Result<Changed, ChangeError>> },
    /// Gives the journal from a record on, to read.
    Read { from: u64, reply: oneshot::Sender<Result<OwnedRecords, JournalError>> },
}

impl Engine {
    /// Carries out a change: returns when it is durable and visible.
    pub async fn change(&self, request: ChangeRequest) -> Result<Changed, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Change { request: Box::new(request), reply })?;
        answer.await.map_err(|_| ChangeError::ShuttingDown)?
    }

    /// The records of the policy journal from one on, as they are now.
    pub(super) async fn journal_records(&self, from: u64) -> Result<Result<OwnedRecords, JournalError>, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Read { from, reply })?;
        answer.await.map_err(|_| ChangeError::ShuttingDown)
    }

    fn send(&self, command: Command) -> Result<(), ChangeError> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = commands.as_ref().ok_or(ChangeError::ShuttingDown)?;
        sender.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => ChangeError::Overloaded,
            TrySendError::Disconnected(_) => ChangeError::ShuttingDown,
        })
    }
}
