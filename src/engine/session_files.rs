//! The sessions on the disk: snapshots of the active ones, and a journal of renewals, which the audit log does not
//! record.
//!
//! Invariant: a snapshot reflects durable records only, so a crash cannot lose a record that it already includes. A
//! renewal that was answered is durable.
//! Not here: what replaying a record or a renewal does (`sessions`).

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use super::OpenError;
use super::audit::{AuditError, AuditLog, Erasing, SessionFiles};
use super::clock::Clock;
use super::directory::Directory;
use super::scales::Scales;
use super::sessions::{SHARDS, Session, SessionTable, ShardState};
use super::witnesses;
use crate::audit::record::{ClockChangeCause, Content, Record, Subject};
use crate::locks::IgnorePoison;
use crate::policy::name::Id;
use crate::policy::time::Timestamp;
use crate::store::codec::audit::{
    Renewal, SessionSnapshot, ShardSessions, StoredSession, decode_renewal, decode_session_snapshot, encode_renewal,
    encode_session_snapshot,
};
use crate::store::{JournalError, Log, Segments, Snapshots};

/// Renewals that may wait to be written.
const RENEWALS_WAITING_MAX: usize = 1_024;

/// Renewals that share one sync at most.
const BATCH_MAX: usize = 256;

/// How long a snapshot waits until the records that it reflects are durable.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the sessions are kept.
pub struct SessionStores {
    /// The active ones.
    pub snapshots: Box<dyn Snapshots>,
    /// Renewals since.
    pub journal: Box<dyn Segments>,
}

impl SessionStores {
    /// The newest snapshot that is usable, and agrees with the log; none where there is none.
    ///
    /// # Errors
    ///
    /// [`OpenError::SessionsDisagree`] where it has seen another log than there is.
    pub(super) fn saved(&self, log: &AuditLog) -> Result<Option<SessionSnapshot>, OpenError> {
        let newest = self.snapshots.newest_valid()?;
        let decoded = newest.map(|(_, bytes)| decode_session_snapshot(&bytes)).transpose();
        let saved = decoded.unwrap_or_else(|error| {
            tracing::warn!(%error, "the saved sessions cannot be used");
            None
        });
        match &saved {
            Some(saved) => witnesses::compare_sessions(saved, log)?,
            None if log.newest_sequence() == 0 => {}
            None => tracing::warn!(
                "there are no saved sessions: they are made again from the audit log, with the leases as far as renewals \
                 are kept"
            ),
        }
        Ok(saved)
    }

    /// When a session was last heard of, as decision time is counted now. Renewals are in no record of the audit log.
    pub(super) fn last_seen(
        &self,
        saved: Option<&SessionSnapshot>,
        log: &AuditLog,
    ) -> Result<Option<Timestamp>, OpenError> {
        let counted = |time: Timestamp, by: i64| Timestamp::from_micros(time.micros().saturating_add(by));
        let mut newest = None;
        for shard in saved.iter().flat_map(|saved| &saved.shards) {
            let last = shard.sessions.iter().map(|session| session.record.last_seen_time).max();
            newest = newest.max(last.map(|time| counted(time, log.corrected_since(shard.sequence))));
        }
        for record in self.journal.read_from(self.journal.first_sequence())? {
            // One that cannot be read is told when the sessions are restored.
            if let Ok(renewal) = decode_renewal(&record?.1) {
                newest = newest.max(Some(counted(renewal.time, log.corrected_since(renewal.as_of))));
            }
        }
        Ok(newest)
    }

    /// Restores the sessions that were active: those that were saved, brought up to date by the log. Without them the log
    /// is read from `oldest` on, the first record that an open session can have. Erasures whose record is durable are
    /// repeated: the saved ones may be older, and their openings may still be there.
    pub(super) fn restore(
        &self,
        saved: Option<SessionSnapshot>,
        table: &SessionTable,
        log: &AuditLog,
        oldest: u64,
        erasing: &Erasing,
    ) -> Result<(), OpenError> {
        let newest = log.newest_sequence();
        let shards = saved.map(|saved| saved.shards);
        let mut from = match &shards {
            Some(shards) => shards.iter().map(|shard| shard.sequence).min().unwrap_or_default() + 1,
            None => oldest,
        };
        if let Some(shards) = shards {
            table.restore(shards.into_iter().map(|shard| erased(from_stored(shard), erasing)).collect());
        }
        from = from.max(log.first_sequence());
        let scales = Scales::of(log)?;
        while from <= newest {
            let records = log.read(from, usize::MAX)?;
            for record in &records {
                let Record { sequence, entry, subject, .. } = &**record;
                replay_confirmation(table, log, record);
                let organization = entry.organization.as_ref();
                let is_erased = organization.is_some_and(|of| erasing.is_erased(*sequence, of, subject));
                match (is_erased, scales.in_place(*sequence, entry.time)) {
                    (false, None) => table.replay(record),
                    (is_erased, time) => {
                        let mut record = Record::clone(record);
                        record.entry.time = time.unwrap_or(record.entry.time);
                        if is_erased {
                            record.subject = Subject::Erased;
                        }
                        table.replay(&record);
                    }
                }
            }
            match records.last() {
                Some(last) => from = last.sequence + 1,
                None => break,
            }
        }
        for record in self.journal.read_from(self.journal.first_sequence())? {
            let (sequence, bytes) = record?;
            match decode_renewal(&bytes) {
                Ok(renewal) => {
                    // The sessions are by now as the corrections of the clock since have left them.
                    let by = log.corrected_since(renewal.as_of);
                    let now = |time: Timestamp| Timestamp::from_micros(time.micros().saturating_add(by));
                    table.replay_renewal(&renewal.sessions, now(renewal.time), now(renewal.lease_expire_time));
                }
                Err(error) => {
                    tracing::error!(%error, sequence, "a renewal of sessions cannot be read and is skipped");
                }
            }
        }
        Ok(())
    }
}

/// Repeats what the confirmation of a leap did, where the record is one.
fn replay_confirmation(table: &SessionTable, log: &AuditLog, record: &Record) {
    if matches!(&record.entry.content, Content::ClockChanged(of) if of.cause == ClockChangeCause::Confirmation) {
        table.confirm(record.sequence, &log.confirmed_by(record.sequence));
    }
}

enum Command {
    Renew(Renewal, oneshot::Sender<Result<(), AuditError>>),
    /// The sequence of the next renewal.
    Mark(oneshot::Sender<u64>),
    /// Those before are in a snapshot.
    Truncate(u64),
}

/// The journal of renewals, as others reach it.
pub(super) struct Renewals {
    commands: Mutex<Option<SyncSender<Command>>>,
}

impl Renewals {
    /// The journal with what its thread runs.
    pub(super) fn new(mut journal: Box<dyn Segments>) -> (Arc<Self>, impl FnMut() + Send) {
        let (sender, commands) = sync_channel(RENEWALS_WAITING_MAX);
        (Arc::new(Self { commands: Mutex::new(Some(sender)) }), move || write(&mut *journal, &commands))
    }

    /// Returns when a renewal is durable.
    pub(super) async fn write(&self, renewal: Renewal) -> Result<(), AuditError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Renew(renewal, reply))?;
        answer.await.unwrap_or(Err(AuditError::ShuttingDown))
    }

    pub(super) fn close(&self) {
        drop(self.commands.lock().ignore_poison().take());
    }

    fn send(&self, command: Command) -> Result<(), AuditError> {
        let commands = self.commands.lock().ignore_poison();
        let sender = commands.as_ref().ok_or(AuditError::ShuttingDown)?;
        sender.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => AuditError::NotWritable("too many renewals are waiting".to_owned()),
            TrySendError::Disconnected(_) => AuditError::ShuttingDown,
        })
    }
}

fn write(journal: &mut dyn Segments, commands: &Receiver<Command>) {
    while let Ok(first) = commands.recv() {
        let more = std::iter::from_fn(|| commands.try_recv().ok()).take(BATCH_MAX - 1);
        let (mut records, mut replies) = (Vec::new(), Vec::new());
        for command in std::iter::once(first).chain(more) {
            match command {
                Command::Renew(renewal, reply) => {
                    records.push(encode_renewal(&renewal));
                    replies.push(reply);
                }
                Command::Mark(reply) => drop(reply.send(journal.next_sequence() + records.len() as u64)),
                Command::Truncate(sequence) => {
                    if let Err(error) = journal.roll().and_then(|()| journal.truncate_before(sequence)) {
                        tracing::warn!(%error, "cannot shorten the journal of the sessions: it is tried again later");
                    }
                }
            }
        }
        let result = append(journal, &records);
        for reply in replies {
            drop(reply.send(result.clone()));
        }
    }
}

fn append(journal: &mut dyn Log, records: &[Vec<u8>]) -> Result<(), AuditError> {
    let result = match journal.append(records) {
        Err(JournalError::Failed { .. }) => journal.recover().and_then(|()| journal.append(records)),
        result => result,
    };
    result.map(drop).map_err(|error| {
        tracing::error!(%error, "renewals of sessions cannot be written");
        AuditError::NotWritable(error.to_string())
    })
}

/// Saves the active sessions.
pub(super) struct SessionSaver {
    pub(super) table: Arc<SessionTable>,
    pub(super) audit: Arc<AuditLog>,
    pub(super) snapshots: Box<dyn Snapshots>,
    pub(super) renewals: Arc<Renewals>,
    /// The divergences of shadow policies name users, too.
    pub(super) directory: Arc<Directory>,
    pub(super) clock: Clock,
    pub(super) max_age: Duration,
}

impl SessionFiles for SessionSaver {
    fn save(&mut self) -> Result<u64, AuditError> {
        // Note the end of the journal first: later renewals stay in it.
        let (reply, answer) = oneshot::channel();
        let marked = self.renewals.send(Command::Mark(reply)).is_ok();
        let mark = if marked { answer.blocking_recv().ok() } else { None };
        let last_sequence = || self.audit.queue().last_sequence();
        // A correction and what follows it are in a snapshot both or not at all.
        let snapshot =
            |shard| self.audit.uncorrected(|| self.table.snapshot_shard(shard, self.clock.moment(), last_sequence));
        let shards: Vec<_> = (0..SHARDS).map(|shard| to_stored(snapshot(shard))).collect();
        let sequence = shards.iter().map(|shard| shard.sequence).max().unwrap_or_default();
        let includes = shards.iter().map(|shard| shard.sequence).min().unwrap_or_default();
        self.audit.wait_durable(sequence, DURABLE_TIMEOUT)?;
        let snapshot = SessionSnapshot { shards, signed: self.audit.signed() };
        let written = self.snapshots.write(sequence, &encode_session_snapshot(&snapshot));
        written.map_err(|error| AuditError::NotWritable(error.to_string()))?;
        if let Some(mark) = mark {
            drop(self.renewals.send(Command::Truncate(mark)));
        }
        Ok(includes)
    }

    fn erase(&mut self, organization: Option<&Id>, email: &str, record: &mut dyn FnMut()) -> usize {
        let erased = self.table.erase(organization, email, record);
        for published in self.directory.organizations_after(None, usize::MAX) {
            let concerned = organization.is_none_or(|of| published.view.organization.id == *of);
            if let Some(shadow) = published.shadow.as_ref().filter(|_| concerned) {
                // A Check that is recorded before was noted before.
                shadow.erase(email);
            }
        }
        erased
    }

    fn max_age(&self) -> Duration {
        self.max_age
    }
}

/// A shard without the users whose erasure is on record after it was saved.
fn erased(mut state: ShardState, erasing: &Erasing) -> ShardState {
    for session in &mut state.sessions {
        if erasing.is_erased(state.sequence, &session.organization, &session.subject) {
            session.subject = Subject::Erased;
        }
    }
    state
}

fn to_stored(ShardState { shard, sequence, sessions }: ShardState) -> ShardSessions {
    let session = |Session { organization, subject, record }| StoredSession { organization, subject, record };
    let shard = u32::try_from(shard).unwrap_or_default();
    ShardSessions { shard, sequence, sessions: sessions.into_iter().map(session).collect() }
}

fn from_stored(ShardSessions { shard, sequence, sessions }: ShardSessions) -> ShardState {
    let session = |StoredSession { organization, subject, record }| Session { organization, subject, record };
    ShardState { shard: shard as usize, sequence, sessions: sessions.into_iter().map(session).collect() }
}
