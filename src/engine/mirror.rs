//! The mirror: a copy of the policy in the state store, one entry for each object, and the match counts of the rules.
//!
//! The service never reads policy from it: a start reads the snapshots and the journal, and calls read what is published
//! in memory. The copy is for programs that query the store from outside. Its high-water mark also shows a start that
//! the journal has lost records. Match counts are kept with the last record of the audit log that they include: a start
//! counts what the log has after it (`recount`), and is refused where the log has lost it. No decision depends on them,
//! and they start from zero where the store is lost.
//!
//! It holds no data about persons, because sled's files may keep what was deleted. Anything that may have to be erased,
//! such as who made a change or whose a session is, must not be put here.
//!
//! Invariant: nothing that was acknowledged depends on it. When it is opened, every entry is compared with the policy
//! and corrected; a store that is lost or damaged is rebuilt.
//! Not here: when it is written (`follower`), and what the policy is (`recovery`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use super::audit::AuditLog;
use super::counters::RuleCounter;
use super::directory::{Directory, OrganizationView};
use crate::policy::rule::RuleMatches;
use crate::policy::state::PolicyState;
use crate::policy::time::Timestamp;
use crate::store::codec::{
    CounterKey, EntryEncoder, EntryKey, decode_counter, decode_mark, encode_counter, encode_mark, keys_of,
};
use crate::store::{Batch, Keyspace, StateError, StateStore, StateStores, split};

/// The key of the high-water mark: the last record of the journal that the mirror includes.
const MARK_KEY: &[u8] = b"policy-sequence";

/// The key of the record of the audit log up to which all match counts are stored.
const COUNTED_KEY: &[u8] = b"counted-sequence";

/// Objects written in one batch: batches hold sled's lock while they are applied.
const BATCH_OBJECTS_MAX: usize = 256;

/// Counters that wait together until what they include is durable.
const GATHERED_MAX: usize = 4_096;

/// Counters in one read.
const COUNTERS_PAGE: usize = 1_000;

/// Why there is no mirror.
#[derive(Debug, Error)]
pub(super) enum MirrorError {
    /// It includes a record that the journal does not have.
    #[error("the state store has seen record {seen} of the policy journal, which is not there any more")]
    Ahead {
        /// That record.
        seen: u64,
    },
    /// Match counts include a record that the audit log does not have.
    #[error("the match counts include record {counted} of the audit log, which is not there any more")]
    Counted {
        /// That record.
        counted: u64,
    },
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StateError),
}

/// The stored match counts, each with the last record of the audit log that it includes.
pub(super) struct StoredCounters {
    pub(super) counters: HashMap<CounterKey, (RuleMatches, u64)>,
    /// All of them include what the log has up to here; none where that is not known.
    pub(super) counted: Option<u64>,
    /// When that was. A rule without a stored count was made later, or made again.
    pub(super) time: Timestamp,
}

impl StoredCounters {
    /// They themselves, if the log still has what came after them; else none, and rules count from now on.
    pub(super) fn if_followed_by(mut self, log: &AuditLog) -> Self {
        let Some(counted) = self.counted else { return self };
        if counted + 1 >= log.first_sequence() {
            let record = log.read(counted, 1).ok().and_then(|records| records.first().map(Arc::clone));
            let now =
                |time: Timestamp| Timestamp::from_micros(time.micros().saturating_add(log.corrected_since(counted)));
            self.time = record.map_or(self.time, |record| now(record.entry.time));
            return self;
        }
        tracing::warn!("retention has removed decisions that the stored match counts lack: rules count from now on");
        Self::default()
    }
}

impl Default for StoredCounters {
    fn default() -> Self {
        Self { counters: HashMap::new(), counted: None, time: Timestamp::from_micros(0) }
    }
}

/// See the module.
pub(super) struct Mirror {
    store: Box<dyn StateStore>,
    /// The mark that was last written under [`COUNTED_KEY`]; 0 before.
    counted: AtomicU64,
}

/// Counts that are about to be stored.
#[derive(Default)]
struct Gathered<'a> {
    batches: Vec<Batch>,
    counters: Vec<&'a RuleCounter>,
    /// The last record that they include.
    through: u64,
}

/// The result of comparing a store with the policy.
struct Compared {
    /// The high-water mark; none where there was none.
    mark: Option<u64>,
    /// Entries that were corrected.
    written: usize,
}

impl Mirror {
    /// How messages name it.
    pub(super) const NAME: &str = "the database in `sled`";

    /// The last record of the journal that a store includes; none where it holds nothing. The store stays as it is.
    pub(super) fn mark(stores: &dyn StateStores) -> Result<Option<u64>, StateError> {
        Self { store: stores.open()?, counted: AtomicU64::new(0) }.read_mark()
    }

    fn read_mark(&self) -> Result<Option<u64>, StateError> {
        Ok(self.store.get(Keyspace::Meta, MARK_KEY)?.and_then(|bytes| decode_mark(&bytes)))
    }

    /// Opens the store and corrects it. Where reading entries shows damage, the store is opened once more, which starts
    /// with an empty one.
    ///
    /// # Errors
    ///
    /// [`MirrorError::Ahead`] where the journal has lost records that the store has seen, and [`MirrorError::Counted`]
    /// where the audit log, whose last record is `recorded`, has. The store is as it was then.
    pub(super) fn open(
        stores: &dyn StateStores,
        state: &PolicyState,
        sequence: u64,
        recorded: u64,
    ) -> Result<Self, MirrorError> {
        let attempt = || {
            let mirror = Self { store: stores.open()?, counted: AtomicU64::new(0) };
            mirror.refuse_ahead(sequence, recorded)?;
            mirror.put_right(state, sequence)?;
            Ok(mirror)
        };
        match attempt() {
            Err(MirrorError::Store(error)) => {
                tracing::warn!(%error, "the state store is damaged: opening it again");
                attempt()
            }
            result => result,
        }
    }

    /// What was written here was durable in the journal, or in the audit log, before.
    fn refuse_ahead(&self, sequence: u64, recorded: u64) -> Result<(), MirrorError> {
        if let Some(seen) = self.read_mark()?.filter(|seen| *seen > sequence) {
            return Err(MirrorError::Ahead { seen });
        }
        match self.last_counted()? {
            counted if counted > recorded => Err(MirrorError::Counted { counted }),
            _ => Ok(()),
        }
    }

    /// The last record of the audit log that match counts include; 0 where there are none.
    fn last_counted(&self) -> Result<u64, StateError> {
        let (mut last, mut from) = (self.read_counted()?.unwrap_or_default(), Some(Vec::new()));
        while let Some(start) = from {
            let page = self.store.scan(Keyspace::Counters, &start, COUNTERS_PAGE)?;
            for (key, value) in page.entries {
                last = decode_counter(&key, &value).map_or(last, |(_, _, through)| last.max(through));
            }
            from = page.next;
        }
        Ok(last)
    }

    fn read_counted(&self) -> Result<Option<u64>, StateError> {
        Ok(self.store.get(Keyspace::Meta, COUNTED_KEY)?.and_then(|bytes| decode_mark(&bytes)))
    }

    /// Brings the store in line with the policy, and logs it where something had to be written.
    fn put_right(&self, state: &PolicyState, sequence: u64) -> Result<(), StateError> {
        match self.compare(state, sequence)? {
            Compared { written: 0, .. } => Ok(()),
            // A fresh data directory.
            Compared { mark: None, .. } if sequence == PolicyState::FIRST_CHANGES => Ok(()),
            Compared { mark, written } => {
                let was = mark
                    .map_or_else(|| "empty or damaged".to_owned(), |mark| format!("at record {mark} of {sequence}"));
                tracing::warn!(was, objects = written, "the state store was rebuilt from the policy journal");
                Ok(())
            }
        }
    }

    /// Compares every entry with the policy and writes those that differ.
    fn compare(&self, state: &PolicyState, sequence: u64) -> Result<Compared, StateError> {
        let store = &*self.store;
        let mark = self.read_mark()?;
        let mut encoder = EntryEncoder::new(state);
        let mut expected: BTreeMap<Vec<u8>, EntryKey> = keys_of(state).map(|key| (key.to_bytes(), key)).collect();
        let (mut differing, mut foreign) = (BTreeSet::new(), Vec::new());
        split::read_all(store, Keyspace::Policy, |stored_key, value| match expected.remove(stored_key) {
            Some(key) if encoder.encode(&key).as_deref() == Some(value) => {}
            Some(key) => drop(differing.insert(key)),
            None => foreign.push(stored_key.to_vec()),
        })?;
        differing.extend(expected.into_values());
        let written = differing.len() + foreign.len();
        self.write_objects(state, &differing)?;
        let mut batch = Batch::new();
        for key in foreign {
            split::put(store, &mut batch, Keyspace::Policy, &key, None)?;
            batch.delete(Keyspace::Policy, key);
        }
        batch.put(Keyspace::Meta, MARK_KEY, encode_mark(sequence));
        store.apply(&batch)?;
        store.flush()?;
        Ok(Compared { mark, written })
    }

    /// Writes the objects that changes up to this record touched, and moves the mark.
    pub(super) fn write(
        &self,
        state: &PolicyState,
        touched: &BTreeSet<EntryKey>,
        sequence: u64,
    ) -> Result<(), StateError> {
        self.write_objects(state, touched)?;
        let mut batch = Batch::new();
        batch.put(Keyspace::Meta, MARK_KEY, encode_mark(sequence));
        self.store.apply(&batch)
    }

    /// Writes objects as they are in the state, and removes those that are not in it.
    fn write_objects(&self, state: &PolicyState, keys: &BTreeSet<EntryKey>) -> Result<(), StateError> {
        let (mut encoder, mut batch) = (EntryEncoder::new(state), Batch::new());
        for (count, key) in (1..).zip(keys) {
            split::put(&*self.store, &mut batch, Keyspace::Policy, &key.to_bytes(), encoder.encode(key).as_deref())?;
            if count % BATCH_OBJECTS_MAX == 0 {
                self.store.apply(&std::mem::take(&mut batch))?;
            }
        }
        self.store.apply(&batch)
    }

    /// Writes the counts of rules that decided something since they were last written. `queued` is the last record that
    /// the audit log has taken, and `durable` waits for it; where it says false, nothing more is stored this time: the
    /// sequence of a record that is lost is another's later, which would not be counted.
    ///
    /// A decision is counted before it is queued. So what `queued` says before a count is read is in that count; one that
    /// is counted and not queued yet may be counted once more after a crash, and none is lost.
    pub(super) fn write_counters(
        &self,
        directory: &Directory,
        queued: &dyn Fn() -> u64,
        durable: &dyn Fn(u64) -> bool,
    ) -> Result<(), StateError> {
        let before_all = queued();
        let (mut after, mut written): (Option<String>, bool) = (None, false);
        loop {
            let page = directory.organizations_after(after.as_deref(), BATCH_OBJECTS_MAX);
            let Some(last) = page.last() else { break };
            after = Some(last.view.organization.id.to_string());
            let mut gathered = Gathered::default();
            for published in &page {
                let OrganizationView { organization, counters } = &published.view;
                let mut batch = Batch::new();
                for (index, rule) in organization.rules.iter().enumerate() {
                    let Some(counter) = counters.at(index).filter(|counter| counter.is_unsaved()) else { continue };
                    let through = queued();
                    if let Some(matches) = counter.take_unsaved() {
                        let (key, value) = encode_counter(&organization.id, rule, &matches, through);
                        batch.put(Keyspace::Counters, key, value);
                        gathered.counters.push(counter);
                        gathered.through = through;
                    }
                }
                gathered.batches.push(batch);
                if gathered.counters.len() >= GATHERED_MAX {
                    written = true;
                    let gathered = std::mem::take(&mut gathered);
                    if !self.store_counters(gathered, durable)? {
                        return Ok(());
                    }
                }
            }
            written |= !gathered.counters.is_empty();
            if !self.store_counters(gathered, durable)? {
                return Ok(());
            }
        }
        if written {
            // What the mark says must not be durable before what it speaks of.
            self.store.flush()?;
        }
        if !durable(before_all) || self.counted.swap(before_all, Ordering::Relaxed) == before_all {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(Keyspace::Meta, COUNTED_KEY, encode_mark(before_all));
        self.store.apply(&batch)
    }

    /// Stores counts once what they include is durable; false where that does not become so.
    fn store_counters(&self, gathered: Gathered<'_>, durable: &dyn Fn(u64) -> bool) -> Result<bool, StateError> {
        let Gathered { batches, counters, through } = gathered;
        if !durable(through) {
            for counter in &counters {
                counter.mark_unsaved();
            }
            return Ok(false);
        }
        batches.iter().filter(|batch| !batch.is_empty()).try_for_each(|batch| self.store.apply(batch))?;
        Ok(true)
    }

    /// The stored match counts. Those of removed rules are deleted.
    pub(super) fn read_counters(&self, state: &PolicyState) -> StoredCounters {
        let mut counters = HashMap::new();
        let organizations = state.organizations.values();
        let known: BTreeSet<CounterKey> = organizations
            .flat_map(|organization| organization.rules.iter().map(|rule| CounterKey::new(&organization.id, rule)))
            .collect();
        let (mut leftover, mut from) = (Batch::new(), Some(Vec::new()));
        while let Some(start) = from {
            let page = match self.store.scan(Keyspace::Counters, &start, COUNTERS_PAGE) {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "match counts cannot be read: rules count from now on");
                    return StoredCounters::default();
                }
            };
            for (key, value) in page.entries {
                match decode_counter(&key, &value) {
                    Some((key, matches, through)) if known.contains(&key) => {
                        counters.insert(key, (matches, through));
                    }
                    _ => leftover.delete(Keyspace::Counters, key),
                }
            }
            from = page.next;
        }
        if let Err(error) = self.store.apply(&leftover) {
            tracing::warn!(%error, "match counts of removed rules stay in the state store");
        }
        let counted = self.read_counted().ok().flatten();
        StoredCounters { counters, counted, ..StoredCounters::default() }
    }

    /// Returns when everything written is durable.
    pub(super) fn flush(&self) -> Result<(), StateError> {
        self.store.flush()
    }
}
