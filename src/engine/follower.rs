//! The follower: one thread that brings the state store and the snapshots up to what the journal has.
//!
//! Changes that come while it writes are noted as a set of objects and written together next, as they then are: it may
//! lag, but what it still has to do never exceeds the size of the policy itself.
//!
//! Invariant: it never holds up a change or a Check, and nothing that is acknowledged depends on it: what it writes can
//! be lost and is made again at the next start.
//! Not here: comparing the state store with the policy (`recovery`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::clock::Clock;
use super::directory::Directory;
use super::recovery::open_in_line;
use crate::policy::change::Change;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::state::{Outcome, PolicyState};
use crate::store::codec::{EntryEncoder, EntryKey, encode_counter, encode_mark, encode_snapshot, touched_keys};
use crate::store::{Batch, Keyspace, Snapshots, StateError, StateStore, StateStores, split};

/// Changes, and bytes of changes, between two snapshots: what a start has to replay at most, about.
const SNAPSHOT_CHANGES: u64 = 10_000;
const SNAPSHOT_BYTES: usize = 256 * 1024 * 1024;

/// How often match counts are written, and how long the state store rests after a failure.
const COUNTERS_INTERVAL: Duration = Duration::from_millis(COUNTERS_INTERVAL_MILLIS.unsigned_abs());
const COUNTERS_INTERVAL_MILLIS: i64 = 10_000;

/// Objects written in one batch: batches hold sled's lock while they are applied.
const BATCH_OBJECTS_MAX: usize = 256;

/// The key of the high-water mark: up to which sequence of the journal the store has everything.
pub(super) const MARK_KEY: &[u8] = b"policy-sequence";

/// What the writer hands over, and the wish to stop.
#[derive(Default)]
struct Inbox {
    /// The newest outcome for each organization, and for the cluster under none.
    outcomes: BTreeMap<Option<Id>, Outcome>,
    touched: BTreeSet<EntryKey>,
    sequence: u64,
    changes: u64,
    bytes: usize,
    stop: bool,
}

/// The writer's end.
#[derive(Default)]
pub(super) struct Follower {
    inbox: Mutex<Inbox>,
    news: Condvar,
}

impl Follower {
    /// Notes a durable change.
    pub(super) fn note(
        &self,
        (sequence, bytes): (u64, usize),
        change: &Change,
        before: Option<&Organization>,
        outcome: Outcome,
    ) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.touched.extend(touched_keys(change, before));
        inbox.outcomes.insert(change.effect.organization().cloned(), outcome);
        inbox.sequence = sequence;
        inbox.changes += 1;
        inbox.bytes += bytes;
        self.news.notify_one();
    }

    /// Has the thread write what is left and end.
    pub(super) fn stop(&self) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.news.notify_one();
    }

    /// Waits for the interval, or until told to stop.
    fn rest(&self) {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.news.wait_timeout_while(inbox, COUNTERS_INTERVAL, |inbox| !inbox.stop));
    }

    /// Takes what came; waits for it up to the interval.
    fn take(&self) -> Inbox {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |inbox: &mut Inbox| inbox.changes == 0 && !inbox.stop;
        let (mut inbox, _) =
            self.news.wait_timeout_while(inbox, COUNTERS_INTERVAL, idle).unwrap_or_else(PoisonError::into_inner);
        let stop = inbox.stop;
        Inbox { stop, ..std::mem::take(&mut *inbox) }
    }
}

/// What the follower's thread owns.
pub(super) struct Task {
    pub(super) follower: Arc<Follower>,
    /// None while the store cannot be had.
    pub(super) store: Option<Box<dyn StateStore>>,
    pub(super) stores: Box<dyn StateStores>,
    pub(super) snapshots: Box<dyn Snapshots>,
    /// Its own copy of the state, which shares everything with the writer's.
    pub(super) state: PolicyState,
    pub(super) sequence: u64,
    pub(super) snapshot_sequence: u64,
    /// Bytes of changes since the last snapshot.
    pub(super) bytes: usize,
    pub(super) directory: Arc<Directory>,
    pub(super) clock: Clock,
    /// When match counts were last written, in milliseconds since 1970.
    pub(super) counters_written_millis: i64,
}

impl Task {
    /// Follows until told to stop.
    pub(super) fn run(mut self) {
        loop {
            let news = self.follower.take();
            for outcome in news.outcomes.into_values() {
                self.state.set(outcome);
            }
            self.sequence = self.sequence.max(news.sequence);
            self.bytes += news.bytes;
            self.follow(&news.touched, news.stop);
            self.snapshot_when_due();
            if news.stop {
                return self.finish();
            }
            if self.store.is_none() {
                self.follower.rest();
            }
        }
    }

    /// Brings the store up to date. A store that fails is given up, and opened and compared anew after a rest.
    fn follow(&mut self, touched: &BTreeSet<EntryKey>, last: bool) {
        let now_millis = self.clock.now().millis();
        // Looking through all rules is not for every change.
        let counters_due = last || self.counters_written_millis + COUNTERS_INTERVAL_MILLIS <= now_millis;
        let result = match &self.store {
            Some(store) => self.write(&**store, touched, counters_due),
            None => return self.reopen(),
        };
        if counters_due {
            self.counters_written_millis = now_millis;
        }
        if let Err(error) = result {
            tracing::error!(%error, "the state store failed and is opened again; policy and decisions are not affected");
            self.store = None;
        }
    }

    fn reopen(&mut self) {
        match open_in_line(&*self.stores, &self.state, self.sequence) {
            Ok(store) => {
                tracing::info!("the state store follows the journal again");
                self.store = Some(store);
            }
            Err(error) => tracing::warn!(%error, "the state store cannot be used yet"),
        }
    }

    fn write(&self, store: &dyn StateStore, touched: &BTreeSet<EntryKey>, counters: bool) -> Result<(), StateError> {
        if !touched.is_empty() {
            write_objects(store, &self.state, touched.iter())?;
            let mut batch = Batch::new();
            batch.put(Keyspace::Meta, MARK_KEY, encode_mark(self.sequence));
            store.apply(&batch)?;
        }
        if counters { self.write_counters(store) } else { Ok(()) }
    }

    /// Writes the counts of rules that decided something.
    fn write_counters(&self, store: &dyn StateStore) -> Result<(), StateError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.directory.organizations_after(after.as_deref(), BATCH_OBJECTS_MAX);
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.view.organization.id.to_string());
            for published in &page {
                let (view, mut batch) = (&published.view, Batch::new());
                for (place, rule) in view.organization.rules.iter().enumerate() {
                    if let Some(counter) = view.counters.at(place)
                        && let Some(matches) = counter.take_unsaved()
                    {
                        let (key, value) = encode_counter(&view.organization.id, rule, &matches);
                        batch.put(Keyspace::Counters, key, value);
                    }
                }
                if !batch.is_empty() {
                    store.apply(&batch)?;
                }
            }
        }
    }

    fn finish(self) {
        if let Some(store) = self.store
            && let Err(error) = store.flush()
        {
            tracing::warn!(%error, "the state store could not be flushed; it is checked at the next start");
        }
    }

    fn snapshot_when_due(&mut self) {
        if self.sequence < self.snapshot_sequence + SNAPSHOT_CHANGES && self.bytes < SNAPSHOT_BYTES {
            return;
        }
        // Also after a failure the next attempt comes only when as many changes have come again.
        (self.snapshot_sequence, self.bytes) = (self.sequence, 0);
        match self.snapshots.write(self.sequence, &encode_snapshot(&self.state)) {
            Ok(()) => tracing::info!(sequence = self.sequence, "policy snapshot written"),
            Err(error) => tracing::warn!(%error, "no policy snapshot: the next start replays more of the journal"),
        }
    }
}

/// Writes objects as they are in the state, or removes them where they are not.
pub(super) fn write_objects<'a>(
    store: &dyn StateStore,
    state: &PolicyState,
    keys: impl Iterator<Item = &'a EntryKey>,
) -> Result<(), StateError> {
    let (mut encoder, mut batch, mut objects) = (EntryEncoder::new(state), Batch::new(), 0);
    for key in keys {
        split::put(store, &mut batch, Keyspace::Policy, &key.to_bytes(), encoder.encode(key).as_deref())?;
        objects += 1;
        if objects % BATCH_OBJECTS_MAX == 0 {
            store.apply(&std::mem::take(&mut batch))?;
        }
    }
    store.apply(&batch)
}
