//! The follower: one thread that brings the mirror and the snapshots up to what the journal has.
//!
//! While it writes, the objects that changes touch are collected in a set; it writes their newest state next. So its
//! backlog is never larger than the policy itself.
//!
//! Invariant: it never delays a change or a Check, and nothing that is acknowledged depends on it. The next start
//! rebuilds what it lost.
//! Not here: what the mirror holds, and how it is compared with the policy (`mirror`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::audit::AuditLog;
use super::change::DurableChange;
use super::directory::Directory;
use super::mirror::Mirror;
use crate::locks::IgnorePoison;
use crate::policy::change::ChangeIdentity;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::state::{Outcome, PolicyState};
use crate::store::codec::{EntryKey, encode_snapshot, touched_keys};
use crate::store::{Snapshots, StateError, StateStores};

/// Changes, and bytes of changes, between two snapshots. They bound roughly what a start has to replay.
const SNAPSHOT_CHANGES: u64 = 10_000;
const SNAPSHOT_BYTES: usize = 256 * 1024 * 1024;

/// How often match counts are written, and the pause before a failed state store is opened again.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(10);

/// How long match counts wait until the records that they include are durable.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(5);

/// What has changed since the thread looked last, and whether it is to stop.
#[derive(Default)]
struct Inbox {
    /// The newest outcome for each organization, and for the cluster under none.
    outcomes: BTreeMap<Option<Id>, Outcome>,
    touched: BTreeSet<EntryKey>,
    sequence: u64,
    last_change: Option<ChangeIdentity>,
    changes: u64,
    bytes: usize,
    stop: bool,
}

/// How the thread is told of changes.
#[derive(Default)]
pub(super) struct Follower {
    inbox: Mutex<Inbox>,
    news: Condvar,
}

impl Follower {
    /// Notes a change; `before` is the organization as it was.
    pub(super) fn note(&self, durable: DurableChange<'_>, before: Option<&Organization>) {
        let DurableChange { sequence, bytes, change, outcome } = durable;
        let mut inbox = self.inbox.lock().ignore_poison();
        inbox.touched.extend(touched_keys(change, before));
        inbox.outcomes.insert(change.effect.organization().cloned(), outcome.clone());
        (inbox.sequence, inbox.last_change) = (sequence, Some(change.identity()));
        inbox.changes += 1;
        inbox.bytes += bytes;
        self.news.notify_one();
    }

    /// Tells the thread to write what is left and to end.
    pub(super) fn stop(&self) {
        self.inbox.lock().ignore_poison().stop = true;
        self.news.notify_one();
    }

    /// Waits for the interval, or until told to stop.
    fn rest(&self) {
        let inbox = self.inbox.lock().ignore_poison();
        drop(self.news.wait_timeout_while(inbox, COUNTERS_INTERVAL, |inbox| !inbox.stop));
    }

    /// Takes what has come; waits up to the interval where nothing has.
    fn take(&self) -> Inbox {
        let inbox = self.inbox.lock().ignore_poison();
        let idle = |inbox: &mut Inbox| inbox.changes == 0 && !inbox.stop;
        let (mut inbox, _) = self.news.wait_timeout_while(inbox, COUNTERS_INTERVAL, idle).ignore_poison();
        let stop = inbox.stop;
        Inbox { stop, ..std::mem::take(&mut *inbox) }
    }
}

/// What the thread owns.
pub(super) struct Task {
    pub(super) follower: Arc<Follower>,
    /// None while its store cannot be opened.
    pub(super) mirror: Option<Mirror>,
    pub(super) stores: Box<dyn StateStores>,
    pub(super) snapshots: Box<dyn Snapshots>,
    /// Its own copy of the state, which shares its objects with the one in force.
    pub(super) state: PolicyState,
    pub(super) sequence: u64,
    /// The change in that record.
    pub(super) last_change: Option<ChangeIdentity>,
    pub(super) snapshot_sequence: u64,
    /// Bytes of changes since the last snapshot.
    pub(super) bytes: usize,
    pub(super) directory: Arc<Directory>,
    pub(super) audit: Arc<AuditLog>,
    /// When match counts were last written.
    pub(super) counters_written: Option<Instant>,
}

impl Task {
    /// Follows until told to stop.
    pub(super) fn run(&mut self) {
        loop {
            let news = self.follower.take();
            for outcome in news.outcomes.into_values() {
                self.state.set(outcome);
            }
            self.sequence = self.sequence.max(news.sequence);
            self.last_change = news.last_change.or(self.last_change.take());
            self.bytes += news.bytes;
            self.follow(&news.touched, news.stop);
            self.snapshot_when_due();
            if news.stop {
                return self.finish();
            }
            if self.mirror.is_none() {
                self.follower.rest();
            }
        }
    }

    /// Brings the mirror up to date. One that fails is closed; after a pause it is opened and compared again.
    fn follow(&mut self, touched: &BTreeSet<EntryKey>, last: bool) {
        // Writing match counts walks all rules: too much after every change. Not by decision time, which may be corrected.
        let counters_due = last || self.counters_written.is_none_or(|written| written.elapsed() >= COUNTERS_INTERVAL);
        let result = match &self.mirror {
            Some(mirror) => self.write(mirror, touched, counters_due),
            None => return self.reopen(),
        };
        if counters_due {
            self.counters_written = Some(Instant::now());
        }
        if let Err(error) = result {
            tracing::error!(%error, "the state store failed and will be opened again: policy and decisions are not affected");
            self.mirror = None;
        }
    }

    fn reopen(&mut self) {
        match Mirror::open(&*self.stores, &self.state, self.sequence, self.audit.newest_sequence()) {
            Ok(mirror) => {
                tracing::info!("the state store follows the journal again");
                // It may be another one, which has none of them.
                self.directory.mark_counters_unsaved();
                self.mirror = Some(mirror);
            }
            Err(error) => tracing::warn!(%error, "the state store cannot be used yet"),
        }
    }

    fn write(&self, mirror: &Mirror, touched: &BTreeSet<EntryKey>, counters: bool) -> Result<(), StateError> {
        if !touched.is_empty() {
            mirror.write(&self.state, touched, self.sequence)?;
        }
        if counters {
            let durable = |sequence| self.audit.wait_durable(sequence, DURABLE_TIMEOUT).is_ok();
            mirror.write_counters(&self.directory, &|| self.audit.queue().last_sequence(), &durable)?;
        }
        Ok(())
    }

    fn finish(&self) {
        if let Some(mirror) = &self.mirror
            && let Err(error) = mirror.flush()
        {
            tracing::warn!(%error, "the state store could not be flushed; it is checked at the next start");
        }
    }

    fn snapshot_when_due(&mut self) {
        if self.sequence < self.snapshot_sequence + SNAPSHOT_CHANGES && self.bytes < SNAPSHOT_BYTES {
            return;
        }
        // After a failure, too, the next attempt waits for that many changes.
        (self.snapshot_sequence, self.bytes) = (self.sequence, 0);
        let snapshot = encode_snapshot(&self.state, self.last_change.as_ref());
        match self.snapshots.write(self.sequence, &snapshot) {
            Ok(()) => tracing::info!(sequence = self.sequence, "policy snapshot written"),
            Err(error) => {
                tracing::warn!(%error, "cannot write a policy snapshot: the next start replays more of the journal");
            }
        }
    }
}
