//! Recovery: from the snapshots and the journal on the disk to the policy.
//!
//! Invariant: the policy comes from the journal and a snapshot of it alone. The mirror only tells whether the journal
//! has lost records.
//! Not here: opening files (`server`, which picks the adapters); the mirror's content (`mirror`).

use thiserror::Error;

use super::apply::change_entry;
use super::audit::AuditOpenError;
use super::change::DurableChange;
use super::clock::Clock;
use super::mirror::{Mirror, MirrorError};
use crate::audit::record::{Entry, Identity};
use crate::policy::name::NameError;
use crate::policy::state::{OutOfOrder, PolicyState};
use crate::store::codec::{CodecError, decode_change, decode_snapshot, encode_change};
use crate::store::{JournalError, Log, SnapshotError, Snapshots, StateStores};

/// Why the service cannot start on a data directory.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The snapshots cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A record of the journal is intact, but does not decode as a change of policy.
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
    /// The journal ends before a record that a snapshot or the mirror includes.
    #[error(
        "the policy journal ends at record {journal}, but {witness} has seen record {seen}: acknowledged changes are \
         missing; restore the newest journal files, or remove {witness} to accept the loss"
    )]
    JournalCutOff {
        /// The last record there is.
        journal: u64,
        /// What includes later records.
        witness: &'static str,
        /// The last record that it includes.
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

/// The recovered policy.
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
    let from = needed.min(audited + 1).max(journal.first_sequence());
    let (mut bytes_since, mut owed) = (0, Vec::new());
    for record in journal.read_from(from)? {
        let (sequence, bytes) = record?;
        let change = decode_change(&bytes).map_err(|source| RecoveryError::Record { sequence, source })?;
        if sequence > snapshot_sequence {
            bytes_since += bytes.len();
            let outcome = state.next(&change).map_err(|source| RecoveryError::Order { sequence, source })?;
            let durable = DurableChange { sequence, bytes: bytes.len(), change: &change, outcome: &outcome };
            let replaced = durable.put_into(&mut state);
            if sequence > audited {
                owed.push(durable.entry(&replaced));
            }
        } else if sequence > audited {
            // The snapshot holds the outcome of this change, but not what it altered.
            owed.push(change_entry(sequence, &change, Vec::new()));
        }
    }
    Ok(Recovered { state, sequence: last, snapshot_sequence, bytes: bytes_since, owed })
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

/// Opens the mirror. A store that cannot be opened does not stop the service: the follower tries again.
pub(super) fn open_mirror(
    stores: &dyn StateStores,
    state: &PolicyState,
    sequence: u64,
) -> Result<Option<Mirror>, RecoveryError> {
    match Mirror::open(stores, state, sequence) {
        Ok(mirror) => Ok(Some(mirror)),
        Err(MirrorError::Ahead { seen }) => {
            let witness = "the directory `sled`";
            Err(RecoveryError::JournalCutOff { journal: sequence, witness, seen })
        }
        Err(MirrorError::Store(error)) => {
            tracing::error!(%error, "the state store cannot be used yet: policy and decisions are not affected");
            Ok(None)
        }
    }
}
