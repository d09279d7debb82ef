//! The start of the log: from what is on the disk to the tail, the tree and the counts (storage.md, "Starting").
//!
//! Invariant: what the newest checkpoint covers is there and is what was signed, or the start is refused.
//! Not here: the sessions, and records that are owed (`engine::recovery`).

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use thiserror::Error;
use tokio::sync::watch;

use super::checkpoints::Checkpoints;
use super::committer::Committer;
use super::decoded::DecodedTiles;
use super::erasing::{self, Erasing};
use super::pipeline::Pipeline;
use super::placer::{OpenUnit, Placer, UNIT_RECORDS_MAX};
use super::queue::AuditQueue;
use super::sealer::SealerInbox;
use super::tail::{Tail, TailRecord, TailUnit};
use super::units::{UnitInfo, Units};
use super::waiting::Waiting;
use super::writer::AuditWriter;
use super::{AuditError, AuditLog, AuditOptions, AuditStores, Condition, LeftAs, Shared, pruning, running};
use crate::audit::commitment::{Commitment, Opening, Salt, record_hash};
use crate::audit::merkle::{Hash, Tree};
use crate::audit::record::ErasedUnit;
use crate::engine::background::spawn;
use crate::engine::clock::Clock;
use crate::policy::address::Address;
use crate::policy::name::Id;
use crate::policy::time::Timestamp;
use crate::store::codec::CodecError;
use crate::store::codec::audit::{
    Secret, StoredEntry, TailOpening, decode_entry, decode_tail, decode_unit_summary, erase_tail_opening,
};
use crate::store::sealed::{self, SealedError, SealedUnit, StoredOpening};
use crate::store::{Journal, JournalError};

/// Why the log cannot be opened.
#[derive(Debug, Error)]
pub enum AuditOpenError {
    /// The journal cannot be read.
    #[error("the audit log: {0}")]
    Journal(#[from] JournalError),
    /// A sealed unit cannot be read.
    #[error("the audit log: {0}")]
    Sealed(#[from] SealedError),
    /// A file beside the log cannot be read or written.
    #[error("cannot {action} of the audit log: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A record is whole, but no record.
    #[error("record {sequence} of the audit log: {source}; use the version that wrote it, or restore a backup")]
    Record {
        /// Its sequence.
        sequence: u64,
        /// What is wrong with it.
        source: CodecError,
    },
    /// Records are missing between what is sealed and what is in the journal.
    #[error("records {expected} to {} of the audit log are missing: restore its files from a backup", found.saturating_sub(1))]
    Missing {
        /// The first that is missing.
        expected: u64,
        /// The first that is there again.
        found: u64,
    },
    /// The log ends before what was signed.
    #[error(
        "the audit log ends at record {records}, but the newest checkpoint covers {signed}: somebody cut it off, or the \
         disk lost what it had confirmed; restore the files in `audit`, or move `audit/checkpoints` elsewhere to go on \
         without the missing records"
    )]
    CutOff {
        /// What there is.
        records: u64,
        /// What was signed.
        signed: u64,
    },
    /// The log is not what was signed.
    #[error(
        "the audit log is not what its newest checkpoint, of {size} records, says: run `portcullis audit verify \
         --data-dir`, and restore the files in `audit`"
    )]
    Changed {
        /// The size that was signed.
        size: u64,
    },
    /// The operating system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// The log, running, and what the engine has to know of it.
pub struct Opened {
    /// The log.
    pub log: AuditLog,
    /// The last record of the policy journal that the log has a record of.
    pub policy_sequence: u64,
    /// How it was left.
    pub left: LeftAs,
    pub(crate) shared: Arc<Shared>,
    pub(crate) erasing: Erasing,
}

/// The units of the journal, while they are read.
#[derive(Default)]
struct Replay {
    tree: Tree,
    units: Vec<TailUnit>,
    organizations: HashMap<Id, u64>,
    policy_sequence: u64,
}

impl AuditLog {
    /// Recovers the log and starts its writer.
    pub(crate) fn open(
        stores: AuditStores,
        options: AuditOptions,
        clock: &Clock,
        condition: Arc<Condition>,
    ) -> Result<Opened, AuditOpenError> {
        let AuditStores { journal: open_journal, disk, directory, key } = stores;
        let io = |action| move |source| AuditOpenError::Io { action, source };
        let base = pruning::read_base(&*disk, &directory).map_err(io("read what was removed"))?.unwrap_or_default();
        let roots = pruning::read_removed_roots(&*disk, &directory, base.to_sequence)
            .map_err(io("read the roots of what was removed"))?;
        let mut organizations: HashMap<Id, u64> = base.summary.organizations.into_iter().collect();
        let mut policy_sequence = base.summary.policy_sequence;
        let (mut infos, mut roots, mut next) = (Vec::new(), roots, base.to_sequence + 1);
        for first_sequence in sealed::list(&*disk, &directory)? {
            if first_sequence <= base.to_sequence {
                // Its removal was under way.
                sealed::remove_unit(&*disk, &directory, first_sequence)?;
                continue;
            }
            if first_sequence != next {
                return Err(AuditOpenError::Missing { expected: next, found: first_sequence });
            }
            let unit = SealedUnit::open(&*disk, &directory, first_sequence)?;
            let codec = |source| AuditOpenError::Record { sequence: first_sequence, source };
            let summary = decode_unit_summary(&unit.attachment()?).map_err(codec)?;
            organizations.extend(summary.organizations);
            policy_sequence = policy_sequence.max(summary.policy_sequence);
            roots.extend(unit.tile_summaries().iter().map(|tile| Hash::new(tile.root)));
            let info = UnitInfo::of(&unit, sealed::unit_bytes(&*disk, &directory, first_sequence)?);
            next = info.next_sequence();
            clock.advance_to(Timestamp::from_micros(info.max_time));
            infos.push(info);
        }
        let journal = open_journal(next)?;
        if journal.first_sequence() > next {
            return Err(AuditOpenError::Missing { expected: next, found: journal.first_sequence() });
        }
        let tree = Tree::from_tile_roots(roots, Vec::new()).unwrap_or_default();
        let mut replay = Replay { tree, units: Vec::new(), organizations, policy_sequence };
        replay.read(&*journal, next, clock)?;
        let ends: Vec<u64> = infos.iter().map(|info| info.next_sequence() - 1).collect();
        let is_end = |size| size == base.to_sequence || ends.binary_search(&size).is_ok();
        let checkpoints = Checkpoints::open(&*disk, &directory, key, is_end).map_err(io("read the checkpoints"))?;
        let units = Units::new(disk, directory, infos);
        Parts { units, replay, checkpoints, journal, options, clock: clock.clone(), condition }.start()
    }
}

/// The parts of a log that was read back.
struct Parts {
    units: Units,
    replay: Replay,
    checkpoints: Checkpoints,
    journal: Box<dyn Journal>,
    options: AuditOptions,
    clock: Clock,
    condition: Arc<Condition>,
}

impl Parts {
    /// Compares the log with what was signed, and starts its writer.
    fn start(self) -> Result<Opened, AuditOpenError> {
        let Self { units, replay, checkpoints, journal, options, clock, condition } = self;
        let Replay { tree, units: tail, organizations, policy_sequence } = replay;
        let size = tree.size();
        let unit = tail.last().map(open_unit).unwrap_or_default();
        let shared = Arc::new(Shared {
            queue: AuditQueue::new(size + 1, options.queue_records_max),
            options,
            tail: Tail::new(tail),
            units,
            tree: Mutex::new(tree),
            decoded: DecodedTiles::default(),
            newest: watch::Sender::new(size),
            waiting: Waiting::new(size),
            commits: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            written: AtomicBool::new(false),
            condition,
            checkpoints: Mutex::new(checkpoints),
            inbox: SealerInbox::default(),
            layout: Mutex::new(()),
        });
        check_signed(&shared, size)?;
        let (disk, directory) = (&*shared.units.disk, shared.units.directory());
        let io = |action| move |source| AuditOpenError::Io { action, source };
        let left = running::begin(disk, directory, &shared.options).map_err(io("mark the use"))?;
        let erasing = erasing::read_mark(disk, directory).map_err(io("read the mark of an erasure"))?;
        let placer = Placer::new(size + 1, organizations.into_iter().collect(), unit);
        let committer = Committer::new(journal, Arc::clone(&shared), clock.clone());
        let pipeline = Pipeline::start(committer).map_err(AuditOpenError::Thread)?;
        let writer = AuditWriter { shared: Arc::clone(&shared), clock, placer, pipeline };
        let thread = spawn("audit-writer", move || writer.run()).map_err(AuditOpenError::Thread)?;
        let verifier = shared.checkpoints().verifier().clone();
        let log = AuditLog { shared: Arc::clone(&shared), verifier, writer: Mutex::new(Some(thread)) };
        let erasing = match erasing {
            None => Erasing::default(),
            Some(erasing) => {
                let unreadable = |error: AuditError| io("finish an erasure")(io::Error::other(error));
                Erasing { unfinished: log.erased_units().map_err(unreadable)?, ..erasing }
            }
        };
        Ok(Opened { log, policy_sequence, left, shared, erasing })
    }
}

/// Compares the log with its newest checkpoint.
fn check_signed(shared: &Shared, size: u64) -> Result<(), AuditOpenError> {
    let Some(signed) = shared.checkpoints().newest().map(|(head, _)| *head) else { return Ok(()) };
    if signed.size > size {
        return Err(AuditOpenError::CutOff { records: size, signed: signed.size });
    }
    let tree = shared.tree().clone();
    match tree.root_at(signed.size, shared) {
        Ok(root) if root == signed.root => Ok(()),
        _ => Err(AuditOpenError::Changed { size: signed.size }),
    }
}

/// The units that records of a journal make, and the first fault among them: its sequence and what it is.
pub(super) fn read_tail(records: Vec<Result<(u64, Vec<u8>), JournalError>>) -> (Vec<TailUnit>, Option<(u64, String)>) {
    let mut replay = Replay::default();
    let (mut fault, mut next) = (None, 0);
    for record in records {
        let result = record.map_err(AuditOpenError::from).and_then(|(sequence, bytes)| {
            next = sequence + 1;
            replay.take(sequence, &bytes).map(drop)
        });
        if let Err(error) = result {
            let sequence = match &error {
                AuditOpenError::Record { sequence, .. }
                | AuditOpenError::Journal(JournalError::Damaged { sequence, .. }) => *sequence,
                AuditOpenError::Journal(JournalError::Missing { expected, .. }) => *expected,
                _ => next.max(1),
            };
            fault = Some((sequence, error.to_string()));
            break;
        }
    }
    (replay.units, fault)
}

impl Replay {
    /// Reads the records of the journal that are not sealed.
    fn read(&mut self, journal: &dyn Journal, from: u64, clock: &Clock) -> Result<(), AuditOpenError> {
        for record in journal.read_from(from)? {
            let (sequence, bytes) = record?;
            clock.advance_to(self.take(sequence, &bytes)?);
        }
        Ok(())
    }

    /// Takes the next record; returns its time.
    fn take(&mut self, sequence: u64, bytes: &[u8]) -> Result<Timestamp, AuditOpenError> {
        let damaged = |source| AuditOpenError::Record { sequence, source };
        let tail = decode_tail(bytes).map_err(damaged)?;
        let StoredEntry { sequence: written, organization_sequence, slot, entry } =
            decode_entry(&tail.body).map_err(damaged)?;
        if written != sequence || (self.begins_unit() && !tail.begins_unit) {
            return Err(damaged(CodecError::Invalid("sequence")));
        }
        if tail.begins_unit {
            self.end_unit();
            self.units.push(TailUnit::new(sequence));
        }
        let Some(unit) = self.units.last() else { return Err(damaged(CodecError::Invalid("unit"))) };
        let tree = &mut self.tree;
        let policy_sequence = unit.change(|content| {
            content.openings.extend(tail.opening);
            let opening = slot.and_then(|slot| content.openings.get(slot as usize));
            let commitment = opening.map(|opening| opening.commitment);
            let leaf = record_hash(&tail.body, commitment.as_slice());
            let root = tree.append(leaf).map(Into::into);
            content.push(&TailRecord { body: &tail.body, entry: &entry, slot, organization_sequence, root });
            content.ended = content.len() == UNIT_RECORDS_MAX;
            content.policy_sequence
        });
        self.policy_sequence = self.policy_sequence.max(policy_sequence);
        if let Some(organization) = entry.organization {
            self.organizations.insert(organization, organization_sequence);
        }
        Ok(entry.time)
    }

    /// Whether the next record has to begin a unit.
    fn begins_unit(&self) -> bool {
        self.units.last().is_none_or(|unit| unit.read().ended)
    }

    fn end_unit(&self) {
        if let Some(unit) = self.units.last() {
            unit.change(|content| content.ended = true);
        }
    }
}

/// What the writer needs to go on with a unit.
fn open_unit(unit: &TailUnit) -> OpenUnit {
    let content = unit.read();
    if content.ended {
        return OpenUnit::default();
    }
    let identity = |(slot, opening): (u32, &TailOpening)| {
        let Secret { scope, opening } = opening.secret.as_ref()?;
        let organization = if scope.is_empty() { None } else { Some(Id::parse(scope).ok()?) };
        Some(((organization, opening.identity()), slot))
    };
    OpenUnit {
        len: content.len(),
        slots: (0..).zip(&content.openings).filter_map(identity).collect(),
        commitments: content.openings.iter().map(|opening| opening.commitment).collect(),
        end_requested: false,
    }
}

/// Zeroes openings in the journal, from the first record of a unit on.
pub(super) fn redact_journal(journal: &mut dyn Journal, from: u64, units: &[ErasedUnit]) -> Result<(), JournalError> {
    let (mut unit, mut slot) = (from, 0_u32);
    // First where they are: an edit may be asked for more than once for the same record.
    let mut holders = HashSet::new();
    for record in journal.read_from(from)? {
        let (sequence, bytes) = record?;
        let Ok(tail) = decode_tail(&bytes) else { continue };
        if tail.begins_unit {
            (unit, slot) = (sequence, 0);
        }
        if tail.opening.is_some() {
            let named = |erased: &ErasedUnit| erased.first_sequence == unit && erased.slots.contains(&slot);
            if units.iter().any(named) {
                holders.insert(sequence);
            }
            slot += 1;
        }
    }
    journal.redact(from, &mut |sequence, bytes| holders.contains(&sequence) && erase_tail_opening(bytes)).map(drop)
}

/// An opening as a sealed unit has it.
pub(super) fn to_stored_opening(opening: &TailOpening) -> StoredOpening {
    match &opening.secret {
        None => StoredOpening::Erased { commitment: *opening.commitment.as_bytes() },
        Some(Secret { scope, opening }) => StoredOpening::Present {
            salt: *opening.salt().as_bytes(),
            email: opening.email().to_owned(),
            address: match opening.address() {
                None => Vec::new(),
                Some(Address::V4(word)) => word.to_be_bytes().to_vec(),
                Some(Address::V6(word)) => word.to_be_bytes().to_vec(),
            },
            scope: scope.clone(),
        },
    }
}

/// An opening of a sealed unit, with its commitment.
pub(super) fn to_tail_opening(stored: StoredOpening) -> TailOpening {
    match stored {
        StoredOpening::Erased { commitment } => TailOpening { commitment: Commitment::new(commitment), secret: None },
        StoredOpening::Present { salt, email, address, scope } => {
            let address = match (<[u8; 4]>::try_from(&*address), <[u8; 16]>::try_from(&*address)) {
                (Ok(bytes), _) => Some(Address::V4(u32::from_be_bytes(bytes))),
                (_, Ok(bytes)) => Some(Address::V6(u128::from_be_bytes(bytes))),
                _ => None,
            };
            match Opening::new(Salt::new(salt), email, address) {
                Ok(opening) => {
                    TailOpening { commitment: opening.commitment(), secret: Some(Secret { scope, opening }) }
                }
                // Longer than anything that is recorded.
                Err(_) => TailOpening { commitment: Commitment::new([0; Commitment::BYTES]), secret: None },
            }
        }
    }
}
