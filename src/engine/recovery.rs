//! Recovery: from the snapshots and the journal on the disk to the policy.
//!
//! Invariant: the policy comes from the journal and a snapshot of it alone. Audit log and mirror only tell whether the
//! journal has lost records. Nothing is written to a journal that is refused.
//! Not here: opening files (`server`, which picks the adapters); what the audit log has seen (`witnesses`); the mirror's
//! content (`mirror`).

use thiserror::Error;

use super::apply::change_entry;
use super::audit::AuditOpenError;
use super::change::DurableChange;
use super::clock::Clock;
use super::mirror::{Mirror, MirrorError};
use super::witnesses::{Audited, SeenMore};
use crate::audit::record::{Entry, Identity};
use crate::policy::change::{Change, ChangeIdentity};
use crate::policy::name::NameError;
use crate::policy::state::{OutOfOrder, PolicyState};
use crate::store::advice::{FROM_COPY, OR_ACCEPT};
use crate::store::codec::{CodecError, PolicySnapshot, decode_change, decode_snapshot, encode_change};
use crate::store::{JournalError, Log, SnapshotError, Snapshots, StateStores};

/// How messages name the witnesses.
const SNAPSHOT: &str = "a snapshot in `policy`";
const AUDIT_LOG: &str = "the audit log";

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
    #[error(
        "record {sequence} of the policy journal: {source}; use the version that wrote it, or restore the journal {FROM_COPY}"
    )]
    Record {
        /// Its sequence.
        sequence: u64,
        /// What is wrong with it.
        source: CodecError,
    },
    /// A record does not follow the one before it.
    #[error("record {sequence} of the policy journal does not follow: {source}; restore the journal {FROM_COPY}")]
    Order {
        /// Its sequence.
        sequence: u64,
        /// What does not follow.
        source: OutOfOrder,
    },
    /// The journal ends before a record that something else includes.
    #[error(
        "the policy journal ends at record {journal}, but {seen}: acknowledged changes are missing, and going on would \
         decide without them; restore the newest files in `policy` {FROM_COPY}{}",
        or_accept(*journal)
    )]
    JournalCutOff {
        /// The last record there is.
        journal: u64,
        /// What includes later records.
        seen: SeenMore,
    },
    /// The journal has another change than the audit log at the same place.
    #[error(
        "record {sequence} of the policy journal is not the change that the audit log has there: one of `policy` and \
         `audit` belongs to another directory or another time; put both back \
         {FROM_COPY}"
    )]
    OtherJournal {
        /// The record.
        sequence: u64,
    },
    /// A snapshot is not what the journal's changes lead to.
    #[error(
        "the snapshot of record {sequence} in `policy` does not go with the journal there: it belongs to another \
         directory or another time; move it elsewhere, and the older one or the whole journal is read"
    )]
    OtherSnapshot {
        /// The record.
        sequence: u64,
    },
    /// The match counts include records that the audit log does not have.
    #[error(
        "the audit log ends at record {recorded}, but the match counts in `sled` include record {counted}: records are \
         missing, or `sled` belongs to another directory; restore the files in `audit` {FROM_COPY}, or move `sled` \
         elsewhere where it is another's{OR_ACCEPT}"
    )]
    AuditCutOff {
        /// The last record there is.
        recorded: u64,
        /// The last one that is counted.
        counted: u64,
    },
    /// The records between the newest usable snapshot and the journal's first are gone.
    #[error(
        "the policy journal begins at record {first}, but record {needed} is needed: restore the older journal files \
         {FROM_COPY}"
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

/// How to go on with a policy journal that ends at this record. Where none of the policy is left, not at all.
fn or_accept(journal: u64) -> &'static str {
    if journal > PolicyState::FIRST_CHANGES {
        OR_ACCEPT
    } else {
        "; no policy is left, and without one everybody is allowed"
    }
}

/// The recovered policy.
pub(super) struct Recovered {
    pub(super) state: PolicyState,
    /// The last record; 0 where there is none.
    pub(super) sequence: u64,
    /// The change in it.
    pub(super) last_change: Option<ChangeIdentity>,
    pub(super) snapshot_sequence: u64,
    /// Bytes of the records after the snapshot.
    pub(super) bytes: usize,
    /// Changes that the audit log has no record of: a crash came between.
    pub(super) owed: Vec<(Entry, Option<Identity>)>,
}

/// Reads the policy from snapshot and journal. A fresh journal gets its first changes, unless the audit log knows of
/// others.
pub(super) fn recover(
    journal: &mut dyn Log,
    snapshots: &dyn Snapshots,
    clock: &Clock,
    audited: &Audited,
) -> Result<Recovered, RecoveryError> {
    if journal.next_sequence() == 1 && audited.sequence == 0 && snapshots.newest_valid()?.is_none() {
        let changes = PolicyState::first_changes(clock.now())?;
        journal.append(&changes.each_ref().map(encode_change))?;
        tracing::info!("fresh data directory: created `organizations/default`");
    }
    let (mut snapshot_sequence, mut snapshot) = newest_snapshot(snapshots)?;
    let last = journal.next_sequence() - 1;
    let mut seen = SeenMore::default();
    seen.note(SNAPSHOT, snapshot_sequence, last);
    seen.note(AUDIT_LOG, audited.sequence, last);
    refuse(seen, last)?;
    if snapshot_sequence > 0 && snapshot.last.is_none() && journal.first_sequence() == 1 {
        tracing::info!(
            sequence = snapshot_sequence,
            "the policy snapshot does not say which change it is after, as those of earlier versions: replaying the whole \
             journal"
        );
        (snapshot_sequence, snapshot) = no_snapshot();
    }
    let needed = snapshot_sequence + 1;
    if journal.first_sequence() > needed {
        return Err(RecoveryError::JournalBegins { first: journal.first_sequence(), needed });
    }
    let recovered = replay(journal, snapshot, snapshot_sequence, audited)?;
    let known = PolicyState::FIRST_CHANGES.max(audited.sequence);
    if last > known {
        tracing::warn!(
            from = known + 1,
            to = last,
            "changes of policy have no audit record, as after a crash: they are recorded now"
        );
    }
    Ok(recovered)
}

/// Puts the changes after a snapshot into its state, and compares both and the newest audited change with the journal.
fn replay(
    journal: &dyn Log,
    snapshot: PolicySnapshot,
    snapshot_sequence: u64,
    audited: &Audited,
) -> Result<Recovered, RecoveryError> {
    let PolicySnapshot { mut state, last: mut last_change } = snapshot;
    // The snapshot's last record is read too, if it still exists, to compare both, and the last one that was audited.
    let from = snapshot_sequence.min(audited.sequence).max(journal.first_sequence());
    let (mut bytes_since, mut owed) = (0, Vec::new());
    for record in journal.read_from(from)? {
        let (sequence, bytes) = record?;
        let change = decode_change(&bytes).map_err(|source| RecoveryError::Record { sequence, source })?;
        if sequence == audited.sequence && !audited.is_of(&change) {
            return Err(RecoveryError::OtherJournal { sequence });
        }
        if sequence > snapshot_sequence {
            bytes_since += bytes.len();
            let outcome = state.next(&change).map_err(|source| RecoveryError::Order { sequence, source })?;
            let durable = DurableChange { sequence, bytes: bytes.len(), change: &change, outcome: &outcome };
            let replaced = durable.put_into(&mut state);
            if sequence > audited.sequence {
                owed.push(durable.entry(&replaced));
            }
            last_change = Some(change.identity());
        } else {
            if sequence == snapshot_sequence && !is_after(&state, last_change.as_ref(), &change) {
                return Err(RecoveryError::OtherSnapshot { sequence });
            }
            if sequence > audited.sequence {
                // The snapshot holds the outcome of this change, but not what it altered.
                owed.push(change_entry(sequence, &change, Vec::new()));
            }
        }
    }
    let sequence = journal.next_sequence() - 1;
    Ok(Recovered { state, sequence, last_change, snapshot_sequence, bytes: bytes_since, owed })
}

/// Whether a snapshot is of the state after a change. Where it does not say of which, the revision has to be that of the
/// change.
fn is_after(state: &PolicyState, last: Option<&ChangeIdentity>, change: &Change) -> bool {
    let revision = match change.effect.organization() {
        Some(id) => state.last_revision(id),
        None => state.cluster.revision,
    };
    revision == change.effect.revision() && last.is_none_or(|last| *last == change.identity())
}

/// What has seen more of a journal that ends at this record. The mirror is not asked.
pub(super) fn seen_more(snapshots: &dyn Snapshots, audited: &Audited, journal: u64) -> Result<SeenMore, RecoveryError> {
    let mut seen = SeenMore::default();
    seen.note(SNAPSHOT, snapshots.newest_valid()?.map_or(0, |(sequence, _)| sequence), journal);
    seen.note(AUDIT_LOG, audited.sequence, journal);
    Ok(seen)
}

/// Refuses a journal that ends at this record, where something has seen more.
pub(super) fn refuse(seen: SeenMore, journal: u64) -> Result<(), RecoveryError> {
    if seen.is_empty() { Ok(()) } else { Err(RecoveryError::JournalCutOff { journal, seen }) }
}

/// The newest snapshot that can be used, with its sequence.
fn newest_snapshot(snapshots: &dyn Snapshots) -> Result<(u64, PolicySnapshot), RecoveryError> {
    if let Some((sequence, bytes)) = snapshots.newest_valid()? {
        match decode_snapshot(&bytes) {
            Ok(snapshot) => return Ok((sequence, snapshot)),
            Err(error) => {
                tracing::warn!(%error, sequence, "policy snapshot not usable: replaying the whole journal");
            }
        }
    }
    Ok(no_snapshot())
}

/// The state before the first change.
fn no_snapshot() -> (u64, PolicySnapshot) {
    (0, PolicySnapshot { state: PolicyState::empty(), last: None })
}

/// Opens the mirror of a policy whose last record this is, beside an audit log that ends at record `recorded`. A store that
/// cannot be opened does not stop the service: the follower tries again.
pub(super) fn open_mirror(
    stores: &dyn StateStores,
    state: &PolicyState,
    sequence: u64,
    recorded: u64,
) -> Result<Option<Mirror>, RecoveryError> {
    match Mirror::open(stores, state, sequence, recorded) {
        Ok(mirror) => Ok(Some(mirror)),
        Err(MirrorError::Ahead { seen }) => {
            let mut witnesses = SeenMore::default();
            witnesses.note(Mirror::NAME, seen, sequence);
            refuse(witnesses, sequence).map(|()| None)
        }
        Err(MirrorError::Counted { counted }) => Err(RecoveryError::AuditCutOff { recorded, counted }),
        Err(MirrorError::Store(error)) => {
            tracing::error!(%error, "the state store cannot be used yet: policy and decisions are not affected");
            Ok(None)
        }
    }
}
