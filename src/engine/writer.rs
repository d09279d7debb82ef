//! The policy writer: one thread through which every change goes, one after the other.
//!
//! plan → journal (durable) → apply (visible) → answer. Requests that come while a batch is written are planned as the
//! next batch, so that many small changes share one sync of the disk (group commit).
//!
//! Invariant: what is published is durable; what is answered as done is published. Revisions are dense: a batch that
//! could not be written leaves no trace in the state. At most [`OWED_MAX`] changes lack a durable audit record. A change
//! that was not confirmed in time is undone before the next change, and before the first answer after a start. If the write
//! fails, the undoing is tried again until it succeeds.
//! Not here: planning (`planning`), applying (`apply`), and the mirror (`follower`), which may lag behind.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::apply::{Applier, OWED_MAX};
use super::audit::{AuditError, Condition, ErasedPart, Obstacle};
use super::change::{ChangeError, ChangeRequest, Changed, DurableChange};
use super::commands::{Command, Reply};
use super::planning::{Planned, Planning, changed};
use super::sessions::SessionTable;
use super::staged::{Staged, weight_of};
use super::unconfirmed::undoing;
use crate::policy::limits::Limits;
use crate::policy::name::Id;
use crate::policy::plan::Etags;
use crate::policy::time::Timestamp;
use crate::store::codec::erase_actor;
use crate::store::{JournalError, Redaction};

/// The most changes that share one sync.
const BATCH_CHANGES_MAX: usize = 256;

/// Ranges and rules that the changes of a batch may copy into new versions. It bounds the memory of a batch, and how long
/// the next request waits for it.
const BATCH_WEIGHT_MAX: usize = 1_000_000;

/// Bytes of changes in one write, unless a single change has more.
const APPEND_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest time between two attempts at a failed journal. It is also tried before every batch.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the writer looks at the clock.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// What the writer remembers between two looks at the clock.
#[derive(Default)]
pub(super) struct Timekeeping {
    /// When the next pass over what has expired begins.
    pub(super) next_pass: Option<Instant>,
    /// How often a correction waited for a rule that is about to expire.
    pub(super) waits: u32,
    /// After a correction that led back: the time before it. What had expired by then is still to be marked.
    pub(super) expired_to: Option<Timestamp>,
}

/// What the writer thread owns.
pub(super) struct Writer {
    pub(super) journal: Box<dyn Redaction>,
    pub(super) applier: Applier,
    pub(super) limits: Limits,
    pub(super) etags: Etags,
    pub(super) sessions: Arc<SessionTable>,
    pub(super) condition: Arc<Condition>,
    pub(super) writable: bool,
    pub(super) timekeeping: Timekeeping,
}

/// A planned request, and who waits for the answer.
pub(super) struct Pending {
    pub(super) planned: Result<Planned, ChangeError>,
    pub(super) reply: Reply,
}

impl Writer {
    /// Serves commands until the senders are gone. Signals `ready` once overdue changes are undone.
    pub(super) fn run(mut self, commands: &Receiver<Command>, ready: &SyncSender<()>) {
        self.catch_up();
        if ready.send(()).is_err() {
            return;
        }
        let mut probed = Instant::now();
        loop {
            let first = match commands.recv_timeout(TICK) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // Before every batch while changes keep coming: each is refused until the journal is writable.
            if !self.writable && (first.is_some() || probed.elapsed() >= PROBE_INTERVAL) {
                probed = Instant::now();
                self.probe();
            }
            self.keep_time();
            let more = std::iter::from_fn(|| commands.try_recv().ok()).take(BATCH_CHANGES_MAX - 1);
            let commands = first.into_iter().chain(more);
            let requests: Vec<_> = commands.filter_map(|command| self.answer_or_request(command)).collect();
            self.serve(requests);
        }
        self.keep_clock(true);
    }

    /// Answers commands that change no policy. A request for a change is handed back.
    fn answer_or_request(&mut self, command: Command) -> Option<(ChangeRequest, Reply)> {
        match command {
            Command::Change { request, reply } => Some((*request, reply)),
            Command::Read { from, reply } => {
                drop(reply.send(self.journal.records_from(from)));
                None
            }
            Command::EraseActor { organization, name, to_sequence, part, reply } => {
                drop(reply.send(self.erase_actor(organization.as_ref(), &name, to_sequence, part)));
                self.applier.audit.wake_maintenance();
                None
            }
        }
    }

    /// Plans requests in batches and writes them, until there are no more.
    fn serve(&mut self, requests: impl IntoIterator<Item = (ChangeRequest, Reply)>) {
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let batch = self.plan_batch(&mut requests);
            self.write(batch);
        }
    }

    /// Plans requests, each on top of those before it, until there are no more or the batch is full. Once the batch has
    /// a change, later answers wait for it, so that no caller sees a state that a crash could undo.
    fn plan_batch(&self, requests: &mut impl Iterator<Item = (ChangeRequest, Reply)>) -> Vec<Pending> {
        let Applier { state, directory, clock, .. } = &self.applier;
        let (limits, sessions) = (&self.limits, &self.sessions);
        let etags = self.etags;
        let mut planning = Planning { staged: Staged::new(state), directory, sessions, limits, clock, etags };
        let (mut pending, mut weight) = (Vec::new(), 0);
        while weight < BATCH_WEIGHT_MAX
            && let Some((request, reply)) = requests.next()
        {
            // The caller has given up, so the request is dropped.
            if reply.is_closed() {
                continue;
            }
            let planned = self.check_writable(&request).and_then(|()| planning.plan(request));
            let next = Pending { planned, reply };
            if let Ok(Planned::Change { change, outcome, .. }) = &next.planned {
                weight += weight_of(change, outcome);
            } else if pending.is_empty() {
                next.answer(&self.applier);
                continue;
            }
            pending.push(next);
        }
        pending
    }

    /// Refuses a change while the journal or the audit log cannot be written.
    fn check_writable(&self, request: &ChangeRequest) -> Result<(), ChangeError> {
        if request.validate_only {
            return Ok(());
        }
        if !self.writable {
            return Err(ChangeError::NotWritable("an earlier write failed".to_owned()));
        }
        Ok(self.applier.audit.queue().check_writable()?)
    }

    /// Writes a batch, makes it visible and answers.
    pub(super) fn write(&mut self, pending: Vec<Pending>) {
        let mut pending = pending.into_iter().peekable();
        while pending.peek().is_some() {
            let (mut piece, mut records, mut bytes) = (Vec::new(), Vec::new(), 0);
            let has_room = |bytes, records: &Vec<_>| bytes < APPEND_BYTES_MAX && records.len() < OWED_MAX;
            while let Some(mut next) = pending.next_if(|_| has_room(bytes, &records)) {
                if let Ok(Planned::Change { record, .. }) = &mut next.planned {
                    bytes += record.len();
                    records.push(std::mem::take(record));
                }
                piece.push(next);
            }
            let recorded = self.applier.wait_for_records(records.len()).map_err(ChangeError::from);
            match recorded.and_then(|()| self.append(&records).map_err(|error| refusal(&error))) {
                Ok(first_sequence) => self.commit(first_sequence, &records, piece),
                // Later requests were planned on top of the failed ones.
                Err(error) => {
                    for Pending { reply, .. } in piece.into_iter().chain(pending.by_ref()) {
                        drop(reply.send(Err(error.clone())));
                    }
                }
            }
        }
    }

    /// Applies the durable changes, then answers.
    fn commit(&mut self, first_sequence: u64, records: &[Vec<u8>], pending: Vec<Pending>) {
        let changes = pending.iter().filter_map(|pending| match &pending.planned {
            Ok(Planned::Change { change, outcome, .. }) => Some((&**change, outcome)),
            Ok(Planned::Nothing(_)) | Err(_) => None,
        });
        let durable = (first_sequence..).zip(records).zip(changes).map(|((sequence, record), (change, outcome))| {
            DurableChange { sequence, bytes: record.len(), change, outcome }
        });
        self.applier.apply(&durable.collect::<Vec<_>>());
        for pending in pending {
            pending.answer(&self.applier);
        }
    }

    /// Erases an actor from the changes of an organization, or of all and the cluster, up to the record `to_sequence`, in
    /// one part of the journal.
    ///
    /// This reads a segment, and where that names the actor writes and syncs it anew. Changes wait meanwhile, and come
    /// between two parts.
    ///
    /// # Errors
    ///
    /// The journal cannot be read or written.
    fn erase_actor(
        &mut self,
        organization: Option<&Id>,
        name: &str,
        to_sequence: u64,
        part: u64,
    ) -> Result<ErasedPart, AuditError> {
        let mut fault = None;
        let mut edit = |sequence, record: &mut [u8]| {
            sequence <= to_sequence
                && erase_actor(record, organization, name).unwrap_or_else(|error| {
                    fault.get_or_insert((sequence, error));
                    false
                })
        };
        let next = self.journal.redact_part(part, &mut edit);
        let next = next.map_err(|error| AuditError::NotWritable(error.to_string()))?;
        let fault = fault.map(|(sequence, error)| {
            AuditError::NotReadable(format!("an actor stays in record {sequence} of the policy journal: {error}"))
        });
        Ok(ErasedPart { next, fault })
    }

    fn append(&mut self, records: &[Vec<u8>]) -> Result<u64, JournalError> {
        let result = self.journal.append(records);
        if let Err(error) = &result
            && !matches!(error, JournalError::TooLarge { .. })
            && self.writable
        {
            tracing::error!(%error, "the policy journal cannot be written: changes are refused until it can");
            self.set_writable(false);
        }
        result
    }

    fn set_writable(&mut self, writable: bool) {
        self.writable = writable;
        self.condition.set(Obstacle::PolicyFailed, !writable);
    }

    /// Tries to make a failed journal writable again.
    fn probe(&mut self) {
        match self.journal.recover() {
            Ok(()) => {
                tracing::info!("the policy journal is writable again");
                self.set_writable(true);
            }
            Err(error) => tracing::debug!(%error, "the policy journal still cannot be written"),
        }
    }

    /// Undoes the changes that were not confirmed in time.
    pub(super) fn undo_unconfirmed(&mut self) {
        for id in self.applier.unconfirmed.due(self.applier.clock.moment()) {
            let organization = self.applier.state.organizations.get(&id);
            let Some((request, undone)) = organization.and_then(|organization| undoing(organization)) else { continue };
            let (reply, mut answer) = oneshot::channel();
            self.serve([(request, reply)]);
            let organization = id.as_str();
            match answer.try_recv() {
                Ok(Ok(Changed { revision, .. })) => {
                    tracing::warn!(organization, undone, revision, "a change was not confirmed in time and is undone");
                }
                Ok(Err(error)) => tracing::error!(organization, %error, "an unconfirmed change cannot be undone yet"),
                Err(_) => {}
            }
        }
    }
}

impl Pending {
    /// Answers, once what was planned is in force.
    fn answer(self, Applier { directory, clock, .. }: &Applier) {
        let Self { planned, reply } = self;
        let answer = planned.map(|planned| match planned {
            Planned::Change { before, outcome, .. } => {
                let revision = outcome.revision();
                changed(before, outcome, revision, directory, clock)
            }
            Planned::Nothing(changed) => changed,
        });
        drop(reply.send(answer));
    }
}

fn refusal(error: &JournalError) -> ChangeError {
    match error {
        JournalError::TooLarge { .. } => ChangeError::TooLarge(error.to_string()),
        _ => ChangeError::NotWritable(error.to_string()),
    }
}
