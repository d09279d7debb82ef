//! The start: from what is on the disk to the policy, and the state store brought in line with it.
//!
//! Invariant: the policy comes from the journal (and a snapshot of it) alone; the state store is compared with it entry
//! by entry and never believed.
//! Not here: opening files (`server`, which picks the adapters).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use thiserror::Error;

use super::audit::AuditOpenError;
use super::clock::Clock;
use super::follower::{MARK_KEY, write_objects};
use crate::audit::policy_change::changes as object_changes;
use crate::audit::record::{Actor, Content, Entry, Identity, ObjectChange, PolicyChangeRecord};
use crate::policy::change::Change;
use crate::policy::name::NameError;
use crate::policy::organization::{Cluster, Organization};
use crate::policy::rule::RuleMatches;
use crate::policy::state::{OutOfOrder, Outcome, PolicyState};
use crate::store::codec::{
    CodecError, CounterKey, EntryEncoder, EntryKey, decode_change, decode_counter, decode_mark, decode_snapshot,
    encode_change, encode_mark, keys_of,
};
use crate::store::{
    Batch, JournalError, Keyspace, Log, SnapshotError, Snapshots, StateError, StateStore, StateStores, split,
};

/// Why the service cannot start on a data directory.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The snapshots cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A record of the journal is whole, but no change of policy.
    #[error("record {sequence} of the policy journal: {source}; use the version that wrote it, or restore a backup")]
    Record {
        /// Its sequence.
        sequence: u64,
        /// What is wrong with it.
        source: CodecError,
    },
    /// A record does not follow the one before it.
    #[error("record {sequence} of the policy journal does not follow: {source}; restore the journal from a backup")]
    Order {
        /// Its sequence.
        sequence: u64,
        /// What does not follow.
        source: OutOfOrder,
    },
    /// The journal ends before something that was made from it.
    #[error(
        "the policy journal ends at record {journal}, but {witness} has seen record {seen}: acknowledged changes are \
         missing; restore the newest journal files, or remove {witness} to accept the loss"
    )]
    JournalCutOff {
        /// The last record there is.
        journal: u64,
        /// What has seen more.
        witness: &'static str,
        /// What it has seen.
        seen: u64,
    },
    /// The records between the newest usable snapshot and the journal's first are gone.
    #[error(
        "the policy journal begins at record {first}, but record {needed} is needed: restore the older journal files"
    )]
    JournalBegins {
        /// The first record there is.
        first: u64,
        /// The record that is needed.
        needed: u64,
    },
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] AuditOpenError),
    /// A constant of this program is wrong.
    #[error("the first organization cannot be named: {0}")]
    FirstChanges(#[from] NameError),
}

/// Why a state store is not in line with the policy.
#[derive(Debug, Error)]
pub(super) enum ReconcileError {
    /// It has seen a record that the journal does not have.
    #[error("the state store has seen record {seen} of the policy journal, which is not there any more")]
    Ahead {
        /// That record.
        seen: u64,
    },
    /// It cannot be read or written.
    #[error(transparent)]
    Store(#[from] StateError),
}

/// What the journal says.
pub(super) struct Recovered {
    pub(super) state: PolicyState,
    /// The last record; 0 where there is none.
    pub(super) sequence: u64,
    pub(super) snapshot_sequence: u64,
    /// Bytes of the records after the snapshot.
    pub(super) bytes: usize,
    /// Changes that the audit log has no record of: a crash came between.
    pub(super) owed: Vec<(Entry, Option<Identity>)>,
}

/// Reads the policy from snapshot and journal. A fresh journal gets its first changes. `audited` is the last record that
/// the audit log has a record of.
pub(super) fn recover(
    journal: &mut dyn Log,
    snapshots: &dyn Snapshots,
    clock: &Clock,
    audited: u64,
) -> Result<Recovered, RecoveryError> {
    if journal.next_sequence() == 1 && snapshots.newest_valid()?.is_none() {
        let changes = PolicyState::first_changes(clock.now())?;
        journal.append(&changes.each_ref().map(encode_change))?;
        tracing::info!("fresh data directory: created `organizations/default`");
    }
    let (mut state, snapshot_sequence) = from_snapshot(snapshots)?;
    let last = journal.next_sequence() - 1;
    if snapshot_sequence > last {
        let witness = "a snapshot in the policy directory";
        return Err(RecoveryError::JournalCutOff { journal: last, witness, seen: snapshot_sequence });
    }
    let needed = snapshot_sequence + 1;
    if journal.first_sequence() > needed {
        return Err(RecoveryError::JournalBegins { first: journal.first_sequence(), needed });
    }
    // The last record of the snapshot is read too, where it is still there, for its time.
    let from = if snapshot_sequence < journal.first_sequence() { needed } else { snapshot_sequence };
    let from = from.min(audited + 1).max(journal.first_sequence());
    let (mut replayed, mut owed) = (0, Vec::new());
    for record in journal.read_from(from)? {
        let (sequence, bytes) = record?;
        let change = decode_change(&bytes).map_err(|source| RecoveryError::Record { sequence, source })?;
        if sequence > audited {
            owed.push(owed_entry(sequence, &change, &state, sequence > snapshot_sequence));
        }
        if sequence > snapshot_sequence {
            replayed += bytes.len();
            state.apply(&change).map_err(|source| RecoveryError::Order { sequence, source })?;
        }
        clock.advance_to(change.time);
    }
    Ok(Recovered { state, sequence: last, snapshot_sequence, bytes: replayed, owed })
}

/// The audit record of a change that was made, with who made it.
pub(super) fn change_entry(
    sequence: u64,
    change: &Change,
    before: Option<&Organization>,
    cluster: &Arc<Cluster>,
    outcome: &Outcome,
) -> (Entry, Option<Identity>) {
    let changes = object_changes(change, before, Some(cluster), outcome);
    entry_of(sequence, change, changes)
}

/// The audit record of a change that was made before the start. What it altered is known only where the state before it
/// is: `applies` tells that `state` is.
fn owed_entry(sequence: u64, change: &Change, state: &PolicyState, applies: bool) -> (Entry, Option<Identity>) {
    if !applies {
        return entry_of(sequence, change, Vec::new());
    }
    let before = change.effect.organization().and_then(|id| state.organizations.get(id));
    let outcome = PolicyState::outcome(change, before);
    change_entry(sequence, change, before.map(|before| &**before), &state.cluster, &outcome)
}

fn entry_of(sequence: u64, change: &Change, changes: Vec<ObjectChange>) -> (Entry, Option<Identity>) {
    let content = PolicyChangeRecord {
        policy_sequence: sequence,
        revision: change.effect.revision(),
        comment: Arc::clone(&change.comment),
        changes,
        confirm_until: change.confirm_until,
        overridden_tests: change.overridden_tests.clone(),
    };
    let organization = change.effect.organization().cloned();
    let actor = (!change.actor.is_empty()).then(|| Identity::Actor(Actor { name: Arc::clone(&change.actor) }));
    (Entry { time: change.time, organization, content: Content::PolicyChanged(content) }, actor)
}

fn from_snapshot(snapshots: &dyn Snapshots) -> Result<(PolicyState, u64), RecoveryError> {
    if let Some((sequence, bytes)) = snapshots.newest_valid()? {
        match decode_snapshot(&bytes) {
            Ok(state) => return Ok((state, sequence)),
            Err(error) => {
                tracing::warn!(%error, sequence, "policy snapshot not usable: replaying the whole journal");
            }
        }
    }
    Ok((PolicyState::empty(), 0))
}

/// Brings the state store in line with the policy, and says so where it was not. Refuses where the store has seen more
/// than the journal holds, for then the journal has lost something.
fn reconcile(store: &dyn StateStore, state: &PolicyState, sequence: u64) -> Result<(), ReconcileError> {
    match try_reconcile(store, state, sequence) {
        Ok(Reconciled { mark, .. }) if mark > Some(sequence) => {
            Err(ReconcileError::Ahead { seen: mark.unwrap_or_default() })
        }
        Ok(Reconciled { written: 0, .. }) => Ok(()),
        // What a fresh data directory begins with.
        Ok(Reconciled { mark: None, .. }) if sequence == PolicyState::FIRST_CHANGES => Ok(()),
        Ok(Reconciled { mark, written }) => {
            let was =
                mark.map_or_else(|| "empty or damaged".to_owned(), |mark| format!("at record {mark} of {sequence}"));
            tracing::warn!(was, objects = written, "the state store was rebuilt from the policy journal");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

struct Reconciled {
    mark: Option<u64>,
    written: usize,
}

fn try_reconcile(store: &dyn StateStore, state: &PolicyState, sequence: u64) -> Result<Reconciled, StateError> {
    let mark = store.get(Keyspace::Meta, MARK_KEY)?.and_then(|bytes| decode_mark(&bytes));
    if mark > Some(sequence) {
        return Ok(Reconciled { mark, written: 0 });
    }
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
    write_objects(store, state, differing.iter())?;
    let mut batch = Batch::new();
    for key in foreign {
        split::put(store, &mut batch, Keyspace::Policy, &key, None)?;
        batch.delete(Keyspace::Policy, key);
    }
    batch.put(Keyspace::Meta, MARK_KEY, encode_mark(sequence));
    store.apply(&batch)?;
    store.flush()?;
    Ok(Reconciled { mark, written })
}

/// Opens the state store and brings it in line. Damage may show only when it is read: then it is opened once more, which
/// begins with an empty one.
pub(super) fn open_in_line(
    stores: &dyn StateStores,
    state: &PolicyState,
    sequence: u64,
) -> Result<Box<dyn StateStore>, ReconcileError> {
    let attempt = || {
        let store = stores.open()?;
        reconcile(&*store, state, sequence)?;
        Ok(store)
    };
    match attempt() {
        Err(ReconcileError::Store(error)) => {
            tracing::warn!(%error, "the state store cannot be used as it is: opening it anew");
            attempt()
        }
        result => result,
    }
}

/// Opens the state store at the start. One that cannot be had is no reason not to serve: the follower tries again.
pub(super) fn open_state(
    stores: &dyn StateStores,
    state: &PolicyState,
    sequence: u64,
) -> Result<Option<Box<dyn StateStore>>, RecoveryError> {
    match open_in_line(stores, state, sequence) {
        Ok(store) => Ok(Some(store)),
        Err(ReconcileError::Ahead { seen }) => {
            let witness = "the directory `sled`";
            Err(RecoveryError::JournalCutOff { journal: sequence, witness, seen })
        }
        Err(ReconcileError::Store(error)) => {
            tracing::error!(%error, "the state store cannot be used yet; policy and decisions are not affected");
            Ok(None)
        }
    }
}

/// The match counts that the state store has; those of rules that are gone are removed.
pub(super) fn read_counters(store: &dyn StateStore, state: &PolicyState) -> HashMap<CounterKey, RuleMatches> {
    let mut counters = HashMap::new();
    let known: BTreeSet<CounterKey> = state
        .organizations
        .values()
        .flat_map(|organization| organization.rules.iter().map(|rule| CounterKey::new(&organization.id, rule)))
        .collect();
    let mut leftover = Batch::new();
    let mut from = Vec::new();
    loop {
        let page = match store.scan(Keyspace::Counters, &from, 1_000) {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "match counts cannot be read: rules count from now on");
                return counters;
            }
        };
        for (key, value) in page.entries {
            match decode_counter(&key, &value) {
                Some((key, matches)) if known.contains(&key) => drop(counters.insert(key, matches)),
                _ => leftover.delete(Keyspace::Counters, key),
            }
        }
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    if let Err(error) = store.apply(&leftover) {
        tracing::warn!(%error, "match counts of removed rules stay in the state store");
    }
    counters
}
