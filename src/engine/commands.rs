//! What callers ask of the thread that owns the policy journal: to change the policy, and to read the journal.
//!
//! Invariant: at most [`COMMANDS_WAITING_MAX`] commands wait; more are refused.
//! Not here: carrying them out (`writer`).

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::oneshot;

use super::Engine;
use super::audit::{AuditError, ErasedPart};
use super::change::{ChangeError, ChangeRequest, Changed};
use crate::locks::IgnorePoison;
use crate::policy::name::Id;
use crate::store::{JournalError, OwnedRecords};

/// Commands that may wait. Few, for each may hold a request of many megabytes.
const COMMANDS_WAITING_MAX: usize = 1_024;

/// Where the answer to a request goes.
pub(super) type Reply = oneshot::Sender<Result<Changed, ChangeError>>;

/// A command on its way to the writer.
pub(super) enum Command {
    /// Changes the policy.
    Change { request: Box<ChangeRequest>, reply: Reply },
    /// Returns the journal's records from one on.
    Read { from: u64, reply: oneshot::Sender<Result<OwnedRecords, JournalError>> },
    /// Erases an actor from the changes of an organization, or of all and the cluster, up to a record of the journal: in
    /// the part of it that begins with `part`.
    EraseActor {
        organization: Option<Id>,
        name: String,
        to_sequence: u64,
        part: u64,
        reply: oneshot::Sender<Result<ErasedPart, AuditError>>,
    },
}

/// The queue of commands to the writer.
pub(super) struct Commands {
    /// None once it is closed.
    sender: Mutex<Option<SyncSender<Command>>>,
}

impl Commands {
    /// The sending half, and the receiver that the writer takes commands from.
    pub(super) fn new() -> (Self, Receiver<Command>) {
        let (sender, commands) = sync_channel(COMMANDS_WAITING_MAX);
        (Self { sender: Mutex::new(Some(sender)) }, commands)
    }

    pub(super) fn send(&self, command: Command) -> Result<(), ChangeError> {
        let sender = self.sender.lock().ignore_poison();
        let sender = sender.as_ref().ok_or(ChangeError::ShuttingDown)?;
        sender.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => ChangeError::Overloaded,
            TrySendError::Disconnected(_) => ChangeError::ShuttingDown,
        })
    }

    /// Takes no more commands. The writer carries out those that wait, and ends.
    pub(super) fn close(&self) {
        drop(self.sender.lock().ignore_poison().take());
    }
}

impl Engine {
    /// Carries out a change: returns when it is durable and visible.
    pub async fn change(&self, request: ChangeRequest) -> Result<Changed, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Change { request: Box::new(request), reply })?;
        answer.await.map_err(|_| ChangeError::ShuttingDown)?
    }

    /// The records of the policy journal from one on, as they are now.
    pub(super) async fn journal_records(&self, from: u64) -> Result<Result<OwnedRecords, JournalError>, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Read { from, reply })?;
        answer.await.map_err(|_| ChangeError::ShuttingDown)
    }
}
