//! The start of the log: from the files to the tail, the tree and the counts, then its threads.
//!
//! Invariant: every record that the newest checkpoint covers exists and is what was signed, or the start is refused. A
//! log that was only read back is as it was left: a start that is refused for another reason leaves no mark in it.
//! Not here: reading the journal back (`replay`), the sessions, and comparing with the policy (`engine::recovery`).

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::checkpoints::Checkpoints;
use super::committer::Committer;
use super::condition::Condition;
use super::corrections::Corrections;
use super::decoded::DecodedTiles;
use super::denials::Denials;
use super::encoder::{Encoder, OpenUnit};
use super::eraser;
use super::erasing::Erasing;
use super::error::AuditError;
use super::inbox::MaintenanceInbox;
use super::layout::Layout;
use super::log::AuditLog;
use super::open_error::AuditOpenError;
use super::options::AuditOptions;
use super::pipeline::Pipeline;
use super::ports::{MakeRoom, Sink};
use super::queue::AuditQueue;
use super::removed;
use super::replay::Replay;
use super::running::{self, LeftAs};
use super::shared::Shared;
use super::tail::{Tail, TailUnit};
use super::units::{UnitInfo, Units};
use super::waiting::Waiting;
use super::writer::AuditWriter;
use crate::audit::merkle::{Hash, MerkleTree};
use crate::audit::note::SignerKey;
use crate::engine::background::spawn;
use crate::engine::clock::Clock;
use crate::locks::IgnorePoison;
use crate::policy::name::Id;
use crate::store::codec::audit::{ErasureMark, Secret, TailOpening, decode_unit_summary};
use crate::store::disk::Disk;
use crate::store::folder::Folder;
use crate::store::sealed::SealedFiles;
use crate::store::{Journal, JournalError};

/// Opens a journal whose first sequence is known only once other files are read.
pub type OpenJournal = Box<dyn FnOnce(u64) -> Result<Box<dyn Journal>, JournalError> + Send>;

/// The stores that the log is kept in.
pub struct AuditStores {
    /// Opens the journal of the audit log; without any files it begins with the sequence given.
    pub journal: OpenJournal,
    /// The files beside it.
    pub disk: Arc<dyn Disk>,
    /// The directory of these files. It exists.
    pub directory: PathBuf,
    /// What signs the checkpoints. Its name is the log's.
    pub key: SignerKey,
    /// Makes room on a full disk with what was kept for that, when the log closes and cannot be written.
    pub make_room: MakeRoom,
}

/// A log that was read back and compared with what was signed. Nothing is written to it yet.
pub(crate) struct ReadBack {
    /// The log, which takes no records yet.
    pub(crate) log: AuditLog,
    /// The last record of the policy journal that the log has a record of.
    pub(crate) policy_sequence: u64,
    /// How it was left.
    pub(crate) left: LeftAs,
    /// What is left of erasures that were under way.
    pub(crate) erasing: Erasing,
    /// Units whose removal a crash interrupted.
    obsolete: Vec<u64>,
    sink: Sink,
    encoder: Encoder,
    clock: Clock,
}

/// The running log, and what the engine has to know about it.
pub struct Opened {
    /// The log.
    pub log: AuditLog,
    /// How it was left.
    pub left: LeftAs,
    pub(crate) shared: Arc<Shared>,
    pub(crate) erasing: Erasing,
}

impl AuditLog {
    /// Reads the log back.
    pub(crate) fn read_back(
        stores: AuditStores,
        options: AuditOptions,
        clock: &Clock,
        condition: Arc<Condition>,
    ) -> Result<ReadBack, AuditOpenError> {
        let AuditStores { journal: open_journal, disk, directory, key, make_room } = stores;
        let folder = Folder::new(disk, directory);
        let files = SealedFiles::new(folder.clone());
        let io = |action| move |source| AuditOpenError::Io { action, source };
        let base = removed::read_base(&folder).map_err(io("read what was removed"))?.unwrap_or_default();
        let roots =
            removed::read_removed_roots(&folder, base.to_sequence).map_err(io("read the roots of what was removed"))?;
        let mut organizations: HashMap<Id, u64> = base.summary.organizations.into_iter().collect();
        let removed_policy_sequence = base.summary.policy_sequence;
        let mut policy_sequence = removed_policy_sequence;
        let (mut infos, mut roots, mut next) = (Vec::new(), roots, base.to_sequence + 1);
        let (obsolete, kept): (Vec<u64>, Vec<u64>) =
            files.list()?.into_iter().partition(|first_sequence| *first_sequence <= base.to_sequence);
        for first_sequence in kept {
            if first_sequence != next {
                return Err(AuditOpenError::Missing { expected: next, found: first_sequence });
            }
            let unit = files.open(first_sequence)?;
            let codec = |source| AuditOpenError::Record { sequence: first_sequence, source };
            let summary = decode_unit_summary(&unit.attachment()?).map_err(codec)?;
            organizations.extend(summary.organizations);
            policy_sequence = policy_sequence.max(summary.policy_sequence);
            roots.extend(unit.tile_summaries().iter().map(|tile| Hash::new(tile.root)));
            let info = UnitInfo::of(&unit, files.bytes(first_sequence)?);
            next = info.next_sequence();
            infos.push(info);
        }
        let journal = open_journal(next)?;
        if journal.first_sequence() > next {
            return Err(AuditOpenError::Missing { expected: next, found: journal.first_sequence() });
        }
        let tree = MerkleTree::from_tile_roots(roots, Vec::new()).unwrap_or_default();
        let mut replay = Replay { tree, organizations, policy_sequence, ..Replay::default() };
        replay.read(&*journal, next)?;
        let ends: Vec<u64> = infos.iter().map(|info| info.next_sequence() - 1).collect();
        let is_end = |size| size == base.to_sequence || ends.binary_search(&size).is_ok();
        let checkpoints = Checkpoints::open(folder.clone(), key, &options.earlier_keys, is_end)?;
        let units = Units::new(files, infos, base.to_sequence + 1);
        let (clock, sink) = (clock.clone(), (journal, make_room));
        Parts { folder, units, obsolete, replay, checkpoints, sink, options, clock, condition, removed_policy_sequence }
            .compare()
    }
}

/// The parts of a log that was read back.
struct Parts {
    folder: Folder,
    units: Units,
    obsolete: Vec<u64>,
    replay: Replay,
    checkpoints: Checkpoints,
    sink: Sink,
    options: AuditOptions,
    clock: Clock,
    condition: Arc<Condition>,
    /// The last record of the policy journal whose record was removed.
    removed_policy_sequence: u64,
}

impl Parts {
    /// Compares the log with what was signed.
    fn compare(self) -> Result<ReadBack, AuditOpenError> {
        let Self { folder, units, replay, checkpoints, options, condition, removed_policy_sequence, .. } = self;
        let (obsolete, sink, clock) = (self.obsolete, self.sink, self.clock);
        let Replay { tree, units: tail, organizations, policy_sequence, erased } = replay;
        let size = tree.size();
        let shared = Arc::new(Shared {
            queue: AuditQueue::new(size + 1, options.queue_records_max, Arc::clone(&condition)),
            options,
            tail: Tail::new(tail),
            units,
            folder,
            tree: Mutex::new(tree),
            decoded: DecodedTiles::default(),
            newest: watch::Sender::new(size),
            waiting: Waiting::new(size),
            erased: watch::Sender::new(0),
            denials: Denials::default(),
            commits: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            written: AtomicBool::new(false),
            condition,
            checkpoints,
            corrections: Corrections::default(),
            inbox: MaintenanceInbox::default(),
            layout: Layout::default(),
        });
        check_signed(&shared, size)?;
        // A crash may have left them in the journal. Nobody reads them any more, and nothing is sealed with them.
        shared.tail.erase(&erased);
        let io = |action| move |source| AuditOpenError::Io { action, source };
        let mark = eraser::read_mark(&shared.folder).map_err(io("read the mark of an erasure"))?;
        let unit = shared.tail.last().map(|unit| open_unit(&unit, mark.as_ref())).unwrap_or_default();
        let encoder = Encoder::new(size + 1, organizations.into_iter().collect(), unit);
        let verifier = shared.checkpoints.verifier().clone();
        let log = AuditLog { shared, verifier, writer: Mutex::default() };
        let unreadable = |error: AuditError| io("finish an erasure")(io::Error::other(error));
        let no_corrections = |error: AuditError| io("read the corrections of the clock")(io::Error::other(error));
        log.read_corrections().map_err(no_corrections)?;
        let erasing = mark.map(|mark| Erasing::resumed(mark, &log, removed_policy_sequence));
        let erasing = erasing.transpose().map_err(unreadable)?.unwrap_or_default();
        let left = running::left(&log.shared.folder).map_err(io("read the mark of use"))?;
        Ok(ReadBack { log, policy_sequence, left, erasing, obsolete, sink, encoder, clock })
    }
}

impl ReadBack {
    /// Finishes what a crash interrupted, marks the log as in use, and starts its writer.
    pub(crate) fn start(self) -> Result<Opened, AuditOpenError> {
        let Self { log, policy_sequence, left, erasing, obsolete, sink, encoder, clock } = self;
        let shared = Arc::clone(&log.shared);
        // Not before everything was compared: where a unit is lost, these are what is left of it.
        let files = &shared.units.files;
        files.clean()?;
        obsolete.into_iter().try_for_each(|first_sequence| files.remove(first_sequence))?;
        let io = |action| move |source| AuditOpenError::Io { action, source };
        running::begin(&shared.folder, &shared.options, left).map_err(io("mark the use"))?;
        let committer = Committer::new(sink, Arc::clone(&shared), clock.clone(), policy_sequence);
        let pipeline = Pipeline::start(committer, &shared.condition).map_err(AuditOpenError::Thread)?;
        let mut writer = AuditWriter { shared: Arc::clone(&shared), clock, encoder, pipeline };
        let thread = spawn("audit-writer", &shared.condition, move || writer.run()).map_err(AuditOpenError::Thread)?;
        *log.writer.lock().ignore_poison() = Some(thread);
        Ok(Opened { log, left, shared, erasing })
    }
}

/// Compares the log with its newest checkpoint.
fn check_signed(shared: &Shared, size: u64) -> Result<(), AuditOpenError> {
    let Some(signed) = shared.checkpoints.newest().map(|(head, _)| head) else { return Ok(()) };
    if signed.size > size {
        return Err(AuditOpenError::CutOff { records: size, signed: signed.size });
    }
    let tree = shared.tree().clone();
    match tree.root_at(signed.size, shared) {
        Ok(root) if root == signed.root => Ok(()),
        _ => Err(AuditOpenError::Changed { size: signed.size }),
    }
}

/// What the writer needs to go on with a unit. Somebody whose erasure is under way gets a new opening.
fn open_unit(unit: &TailUnit, mark: Option<&ErasureMark>) -> OpenUnit {
    let content = unit.read();
    if content.ended {
        return OpenUnit::default();
    }
    let identity = |(slot, opening): (u32, &TailOpening)| {
        let Secret { scope, opening } = opening.secret.as_ref()?;
        if mark.is_some_and(|mark| mark.names(opening.email())) {
            return None;
        }
        let organization = if scope.is_empty() { None } else { Some(Id::parse(scope).ok()?) };
        Some(((organization, opening.identity()), slot))
    };
    OpenUnit {
        len: content.len(),
        bytes: content.bytes(),
        first_time: content.tiles.first().map_or(0, |tile| tile.min_time),
        slots: (0..).zip(&content.openings).filter_map(identity).collect(),
        commitments: content.openings.iter().map(|opening| opening.commitment).collect(),
        end_requested: false,
    }
}
