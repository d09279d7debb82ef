//! Verifying the log: every record against its place, its unit, the tree and the signed checkpoints.
//!
//! It trusts the verifier key and whatever older checkpoint it is given, and nothing else: not an index, not a checksum,
//! not a stored root. A changed, removed, reordered or cut off record is a fault that names a sequence.
//!
//! Invariant: it reads, and changes nothing. Without a fault every record up to the newest checkpoint is what was signed.
//! Not here: the arithmetic of the tree (`audit::merkle`) and opening files (`server`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::checkpoints::{CHECKPOINTS, read_notes};
use super::pruning::{read_base, read_removed_roots};
use super::tail::TailUnit;
use super::verify_unit::{Records, UnitCheck};
use super::{AuditError, AuditLog};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::merkle::{Hash, NoLeaves, Tree, TreeHead};
use crate::audit::note::VerifierKey;
use crate::store::JournalError;
use crate::store::codec::audit::Base;
use crate::store::disk::Disk;
use crate::store::sealed;

/// Faults that are named at most.
const FAULTS_MAX: usize = 100;

/// What a verification came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// How many records there are, those included that retention removed.
    pub tree_size: u64,
    /// The root over them, computed from the records.
    pub root: Hash,
    /// How many of them the newest good checkpoint covers.
    pub signed_size: u64,
    /// What is wrong, by rising sequence: the first sequence concerned and what it is.
    pub faults: Vec<(u64, String)>,
}

/// Reads the records of the journal from a sequence on, up to the first fault.
pub type ReadTail<'a> = Box<dyn FnOnce(u64) -> Vec<Result<(u64, Vec<u8>), JournalError>> + 'a>;

/// The files of a log that nobody writes to.
pub struct LogFiles<'a> {
    /// How they are read.
    pub disk: Arc<dyn Disk>,
    /// Where they are.
    pub directory: PathBuf,
    /// What its checkpoints must be signed with.
    pub verifier: VerifierKey,
    /// The journal.
    pub tail: ReadTail<'a>,
}

/// Told how many records are read, and of how many; an answer of false stops the verification.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// A verification under way.
pub(super) struct Walk<'a> {
    pub(super) tree: Tree,
    /// The sequence that comes next.
    pub(super) expected: u64,
    /// Last sequences of the organizations.
    pub(super) organizations: BTreeMap<String, u64>,
    /// Openings that records name as erased: unit and slot.
    pub(super) named: BTreeSet<(u64, u32)>,
    /// Openings that are erased, with the first record that refers to them.
    pub(super) erased: BTreeMap<(u64, u32), u64>,
    /// Removals on record.
    pub(super) removals: Vec<(u64, Hash)>,
    pub(super) faults: Vec<(u64, String)>,
    /// From here on the tree is not the one that was signed, for a reason that is among the faults already.
    pub(super) broken: bool,
    /// Roots that were signed and are still to be compared.
    signed: BTreeMap<u64, Hash>,
    /// The newest checkpoint that fits.
    signed_size: u64,
    total: u64,
    progress: Progress<'a>,
    stopped: bool,
}

/// Verifies the files of a log. `note` is an older checkpoint that was kept elsewhere.
pub fn verify_files(
    files: LogFiles<'_>,
    note: Option<&str>,
    progress: Progress<'_>,
) -> Result<Verification, AuditError> {
    let LogFiles { disk, directory, verifier, tail } = files;
    let firsts = sealed::list_whole(&*disk, &directory).map_err(|error| super::units::unreadable(&error))?;
    let mut walk = Walk::begin(&*disk, &directory, &verifier, note, progress)?;
    walk.total = firsts.last().map_or(0, |first| first + super::placer::UNIT_RECORDS_MAX as u64);
    walk.sealed(&disk, &directory, &firsts);
    let tail = walk.read_tail(tail);
    walk.tail(&tail);
    walk.finish(&*disk, &directory)
}

impl AuditLog {
    /// Verifies the log while it is in use: what is sealed from its files, the tail as it is in memory. `note` is an older
    /// checkpoint that was kept elsewhere. Reads everything: not for a thread that must not wait.
    pub fn verify(&self, note: Option<&str>, progress: Progress<'_>) -> Result<Verification, AuditError> {
        let shared = &self.shared;
        let units = &shared.units;
        let mut walk = Walk::begin(&*units.disk, units.directory(), &self.verifier, note, progress)?;
        let (firsts, tail) = {
            // Sealing and removing wait while both are looked up.
            let _layout = shared.layout();
            let firsts: Vec<u64> = units.list().iter().map(|unit| unit.first_sequence).collect();
            (firsts, shared.tail.units())
        };
        walk.total = shared.newest();
        walk.sealed(&units.disk, units.directory(), &firsts);
        walk.tail(&tail);
        walk.finish(&*units.disk, units.directory())
    }
}

impl<'a> Walk<'a> {
    fn begin(
        disk: &dyn Disk,
        directory: &std::path::Path,
        verifier: &VerifierKey,
        note: Option<&str>,
        progress: Progress<'a>,
    ) -> Result<Self, AuditError> {
        let mut faults = Vec::new();
        let base = read_base(disk, directory).unwrap_or_else(|error| {
            faults.push((1, error.to_string()));
            None
        });
        let Base { to_sequence, summary } = base.unwrap_or_default();
        let roots = read_removed_roots(disk, directory, to_sequence).unwrap_or_else(|error| {
            faults.push((1, error.to_string()));
            Vec::new()
        });
        let broken = !faults.is_empty();
        let mut walk = Self {
            tree: Tree::from_tile_roots(roots, Vec::new()).unwrap_or_default(),
            expected: to_sequence + 1,
            organizations: summary.organizations.into_iter().map(|(id, count)| (id.to_string(), count)).collect(),
            named: BTreeSet::new(),
            erased: BTreeMap::new(),
            removals: Vec::new(),
            faults,
            broken,
            signed: BTreeMap::new(),
            signed_size: 0,
            total: 0,
            progress,
            stopped: false,
        };
        walk.read_checkpoints(disk, directory, verifier)?;
        if let Some(note) = note {
            let checkpoint = Checkpoint::open(note.as_bytes(), std::slice::from_ref(verifier), verifier.name());
            let head =
                checkpoint.map_err(|error| AuditError::Invalid { field: "note", description: error.to_string() })?;
            walk.expect_root(head.head());
        }
        walk.compare_removed();
        Ok(walk)
    }

    fn read_checkpoints(
        &mut self,
        disk: &dyn Disk,
        directory: &std::path::Path,
        verifier: &VerifierKey,
    ) -> Result<(), AuditError> {
        let notes = read_notes(disk, &directory.join(CHECKPOINTS));
        for note in notes.map_err(|error| AuditError::NotReadable(error.to_string()))? {
            match Checkpoint::open(note.as_bytes(), std::slice::from_ref(verifier), verifier.name()) {
                Ok(checkpoint) => self.expect_root(checkpoint.head()),
                Err(error) => {
                    // Its second line says where, whoever wrote it.
                    let size = note.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or(1);
                    self.fault(size, format!("a checkpoint of {size} records is not this log's: {error}"));
                }
            }
        }
        Ok(())
    }

    fn expect_root(&mut self, TreeHead { size, root }: TreeHead) {
        if let Some(other) = self.signed.insert(size, root)
            && other != root
        {
            self.fault(size, format!("two checkpoints of {size} records differ: the log was split"));
        }
    }

    /// Compares what was signed of records that are removed, as far as their tile roots tell.
    fn compare_removed(&mut self) {
        let size = self.tree.size();
        let covered: Vec<(u64, Hash)> = self.signed.range(..=size).map(|(size, root)| (*size, *root)).collect();
        for (signed, root) in covered {
            self.signed.remove(&signed);
            if self.tree.root_at(signed, &NoLeaves).is_ok_and(|computed| computed != root) {
                self.fault(signed, format!("the roots of removed records are not those that were signed at {signed}"));
            } else {
                self.signed_size = self.signed_size.max(signed);
            }
        }
    }

    pub(super) fn fault(&mut self, sequence: u64, message: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push((sequence, message));
        }
    }

    /// A fault behind which the tree can no longer be compared.
    pub(super) fn break_at(&mut self, sequence: u64, message: String) {
        self.fault(sequence, message);
        self.broken = true;
    }

    /// Takes a leaf and compares what was signed at this size.
    pub(super) fn leaf(&mut self, leaf: Hash) -> Option<Hash> {
        let tile = self.tree.append(leaf);
        let size = self.tree.size();
        if let Some(root) = self.signed.remove(&size)
            && !self.broken
        {
            if self.tree.root() == root {
                self.signed_size = size;
            } else {
                let first = self.signed_size + 1;
                self.break_at(first, format!("records {first} to {size} are not those that were signed at {size}"));
            }
        }
        tile
    }

    /// Tells how far it is; false where it is to stop.
    pub(super) fn goes_on(&mut self) -> bool {
        let done = self.expected - 1;
        if !self.stopped && !(self.progress)(done, self.total.max(done)) {
            self.stopped = true;
        }
        !self.stopped
    }

    fn sealed(&mut self, disk: &Arc<dyn Disk>, directory: &std::path::Path, firsts: &[u64]) {
        // What was removed may still be there where a crash came in between.
        let removed = self.expected;
        for first in firsts.iter().copied().filter(|first| *first >= removed) {
            if self.stopped {
                return;
            }
            self.begin_unit(first);
            match Records::open(&**disk, directory, first) {
                Ok(records) => UnitCheck::new(self, first, records).run(),
                Err((sequence, message)) => self.break_at(sequence, message),
            }
        }
    }

    fn begin_unit(&mut self, first: u64) {
        if first != self.expected {
            let (from, to) = (self.expected, first.saturating_sub(1));
            self.break_at(from, format!("records {from} to {to} are missing"));
            self.expected = first;
        }
    }

    fn read_tail(&mut self, tail: ReadTail<'_>) -> Vec<Arc<TailUnit>> {
        let (units, fault) = super::recovery::read_tail(tail(self.expected));
        if let Some((sequence, message)) = fault {
            self.fault(sequence, message);
        }
        units.into_iter().map(Arc::new).collect()
    }

    fn tail(&mut self, units: &[Arc<TailUnit>]) {
        for unit in units {
            if self.stopped {
                return;
            }
            self.begin_unit(unit.first_sequence);
            let content = unit.read();
            UnitCheck::new(self, unit.first_sequence, Records::Tail(&content)).run();
        }
    }

    fn finish(mut self, disk: &dyn Disk, directory: &std::path::Path) -> Result<Verification, AuditError> {
        if self.stopped {
            return Err(AuditError::ShuttingDown);
        }
        let size = self.tree.size();
        if let Some((signed, _)) = self.signed.last_key_value()
            && *signed > size
        {
            let message = format!("the log ends at record {size}, but {signed} records were signed: it was cut off");
            self.fault(size + 1, message);
        }
        if size > 0 && self.signed_size == 0 && self.faults.is_empty() {
            self.fault(1, "no checkpoint is signed by the key of this log: nothing vouches for it".to_owned());
        }
        let unnamed: Vec<u64> =
            self.erased.iter().filter(|(opening, _)| !self.named.contains(opening)).map(|(_, at)| *at).collect();
        for sequence in unnamed {
            let message =
                format!("the personal data of record {sequence} is missing, and no record says it was erased");
            self.fault(sequence, message);
        }
        let base = read_base(disk, directory).ok().flatten().map_or(0, |base| base.to_sequence);
        if base > 0 && !self.removals.iter().any(|(to, _)| *to == base) {
            self.fault(1, format!("records 1 to {base} are missing, and no record says they were removed"));
        }
        for (to, root) in std::mem::take(&mut self.removals) {
            if !self.broken && self.tree.root_at(to, &NoLeaves).is_ok_and(|computed| computed != root) {
                self.fault(to, format!("what was removed up to record {to} is not what the record of it says"));
            }
        }
        self.faults.sort();
        let Self { tree, signed_size, faults, .. } = self;
        Ok(Verification { tree_size: size, root: tree.root(), signed_size, faults })
    }
}
