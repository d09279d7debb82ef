//! What survives of the sessions: snapshots of the active ones, and a journal of renewals, which are no records of the
//! audit log.
//!
//! Invariant: a snapshot takes account of durable records only, so no record that a crash took away is missed in it; a
//! renewal that was answered is on the disk.
//! Not here: what is replayed on top of them (`recovery`).

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::audit::{AuditError, AuditLog, SessionFiles};
use super::sessions::{SHARDS, Session, SessionTable, ShardState};
use crate::policy::name::Id;
use crate::store::codec::audit::{Renewal, ShardSessions, StoredSession, encode_renewal, encode_session_snapshot};
use crate::store::{JournalError, Log, Segments, Snapshots};

/// Renewals that may wait for the disk.
const RENEWALS_WAITING_MAX: usize = 1_024;

/// Renewals that share one sync at most.
const BATCH_MAX: usize = 256;

/// How long a snapshot waits for the records that it takes account of.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the sessions are kept.
pub struct SessionStores {
    /// The active ones.
    pub snapshots: Box<dyn Snapshots>,
    /// Renewals since.
    pub journal: Box<dyn Segments>,
}

enum Order {
    Renew(Renewal, oneshot::Sender<Result<(), AuditError>>),
    /// The sequence of the next renewal.
    Mark(oneshot::Sender<u64>),
    /// Those before are in a snapshot.
    Truncate(u64),
}

/// The journal of renewals, as others reach it.
pub(super) struct Renewals {
    orders: Mutex<Option<SyncSender<Order>>>,
}

impl Renewals {
    /// The journal with what its thread runs.
    pub(super) fn new(journal: Box<dyn Segments>) -> (Arc<Self>, impl FnOnce() + Send) {
        let (sender, orders) = sync_channel(RENEWALS_WAITING_MAX);
        (Arc::new(Self { orders: Mutex::new(Some(sender)) }), move || write(journal, &orders))
    }

    /// Returns when a renewal is on the disk.
    pub(super) async fn write(&self, renewal: Renewal) -> Result<(), AuditError> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Renew(renewal, reply))?;
        answer.await.unwrap_or(Err(AuditError::ShuttingDown))
    }

    pub(super) fn close(&self) {
        drop(self.orders.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn send(&self, order: Order) -> Result<(), AuditError> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = orders.as_ref().ok_or(AuditError::ShuttingDown)?;
        sender.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => AuditError::NotWritable("too many renewals are waiting".to_owned()),
            TrySendError::Disconnected(_) => AuditError::ShuttingDown,
        })
    }
}

fn write(mut journal: Box<dyn Segments>, orders: &Receiver<Order>) {
    while let Ok(first) = orders.recv() {
        let more = std::iter::from_fn(|| orders.try_recv().ok()).take(BATCH_MAX - 1);
        let (mut records, mut replies) = (Vec::new(), Vec::new());
        for order in std::iter::once(first).chain(more) {
            match order {
                Order::Renew(renewal, reply) => {
                    records.push(encode_renewal(&renewal));
                    replies.push(reply);
                }
                Order::Mark(reply) => drop(reply.send(journal.next_sequence() + records.len() as u64)),
                Order::Truncate(sequence) => {
                    if let Err(error) = journal.roll().and_then(|()| journal.truncate_before(sequence)) {
                        tracing::warn!(%error, "the journal of the sessions is not shortened");
                    }
                }
            }
        }
        let result = append(&mut *journal, &records);
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
    pub(super) max_age: Duration,
}

impl SessionFiles for SessionSaver {
    fn save(&mut self) -> Result<(), AuditError> {
        // The end of the journal first: what is renewed from here on stays in it.
        let (reply, answer) = oneshot::channel();
        let marked = self.renewals.send(Order::Mark(reply)).is_ok();
        let mark = if marked { answer.blocking_recv().ok() } else { None };
        let last_sequence = || self.audit.queue().last_sequence();
        let shards: Vec<_> =
            (0..SHARDS).map(|shard| to_stored(self.table.snapshot_shard(shard, last_sequence))).collect();
        let sequence = shards.iter().map(|shard| shard.sequence).max().unwrap_or_default();
        self.audit.wait_durable(sequence, DURABLE_TIMEOUT)?;
        let written = self.snapshots.write(sequence, &encode_session_snapshot(&shards));
        written.map_err(|error| AuditError::NotWritable(error.to_string()))?;
        if let Some(mark) = mark {
            drop(self.renewals.send(Order::Truncate(mark)));
        }
        Ok(())
    }

    fn erase(&mut self, organization: Option<&Id>, email: &str) {
        self.table.erase(organization, email);
    }

    fn max_age(&self) -> Duration {
        self.max_age
    }
}

fn to_stored(ShardState { shard, sequence, sessions }: ShardState) -> ShardSessions {
    let session = |Session { organization, subject, record }| StoredSession { organization, subject, record };
    let shard = u32::try_from(shard).unwrap_or_default();
    ShardSessions { shard, sequence, sessions: sessions.into_iter().map(session).collect() }
}

pub(super) fn from_stored(ShardSessions { shard, sequence, sessions }: ShardSessions) -> ShardState {
    let session = |StoredSession { organization, subject, record }| Session { organization, subject, record };
    ShardState { shard: shard as usize, sequence, sessions: sessions.into_iter().map(session).collect() }
}
