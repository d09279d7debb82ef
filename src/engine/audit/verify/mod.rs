//! Verifying the log: every record against its sequence, its unit, the tree and the signed checkpoints.
//!
//! It trusts only the verifier key and the older checkpoint that it is given: no index, no checksum, no stored root. A
//! changed, removed, reordered or truncated record is a fault that names a sequence.
//!
//! Invariant: it changes nothing. Without a fault every record up to the newest checkpoint is what was signed.
//! Not here: the arithmetic of the tree (`audit::merkle`) and opening the journal (`server`).

mod keys;
mod unit;
mod walk;

use std::path::PathBuf;
use std::sync::Arc;

use super::error::AuditError;
use super::log::AuditLog;
use super::replay;
use super::tail::TailUnit;
use super::unit_limits::UNIT_RECORDS_MAX;
use crate::audit::note::VerifierKey;
use crate::store::JournalError;
use crate::store::disk::Disk;
use crate::store::folder::Folder;
use crate::store::sealed::SealedFiles;
use keys::Keys;
use unit::{Records, UnitCheck};
use walk::Walk;

pub use walk::{Progress, Verification};

/// Reads the records of the journal from a sequence on, up to the first fault.
pub type ReadTail<'a> = Box<dyn FnOnce(u64) -> Vec<Result<(u64, Vec<u8>), JournalError>> + 'a>;

/// The files of a log that nobody writes to.
pub struct LogFiles<'a> {
    /// How they are read.
    pub disk: Arc<dyn Disk>,
    /// Where they are.
    pub directory: PathBuf,
    /// What its checkpoints must be signed with; of a log whose key was changed, the newest suffices.
    pub trusted: Vec<VerifierKey>,
    /// Keys from beside the log, which only help to tell what is found.
    pub beside: Vec<VerifierKey>,
    /// The journal.
    pub tail: ReadTail<'a>,
}

/// How often a verification begins again where retention removes records meanwhile.
const ATTEMPTS_MAX: usize = 5;

/// Verifies the files of a log. `note` is an older checkpoint that was kept elsewhere.
pub fn verify_files(
    files: LogFiles<'_>,
    note: Option<&str>,
    progress: Progress<'_>,
) -> Result<Verification, AuditError> {
    let LogFiles { disk, directory, trusted, beside, tail } = files;
    let folder = Folder::new(disk, directory);
    let sealed = SealedFiles::new(folder.clone());
    let firsts = sealed.list().map_err(AuditError::not_readable)?;
    let mut walk = Walk::begin(&folder, Keys::new(&trusted, &beside), note, progress)?;
    walk.notes_changes = true;
    walk.total = firsts.last().map_or(0, |first| first + UNIT_RECORDS_MAX as u64);
    walk_sealed(&mut walk, &sealed, &firsts);
    let (units, fault) = replay::read_tail(tail(walk.expected));
    if let Some((sequence, message)) = fault {
        walk.fault(sequence, message);
    }
    walk_tail(&mut walk, units.iter());
    walk.finish(&folder)
}

impl AuditLog {
    /// Verifies the log while it is in use: sealed units from their files, the tail from memory. `note` is an older
    /// checkpoint that was kept elsewhere. Reads the whole log: call it on a thread that may block.
    pub fn verify(&self, note: Option<&str>, progress: Progress<'_>) -> Result<Verification, AuditError> {
        for _ in 1..ATTEMPTS_MAX {
            let first = self.first_sequence();
            let result = self.verify_once(note, progress)?;
            // Files that retention has removed meanwhile are no fault.
            if result.faults.is_empty() || self.first_sequence() == first {
                return Ok(result);
            }
        }
        let first = self.first_sequence();
        let result = self.verify_once(note, progress)?;
        let now = self.first_sequence();
        let overtaken = !result.faults.is_empty() && now > first;
        if overtaken { Err(AuditError::Removed { first: now }) } else { Ok(result) }
    }

    fn verify_once(&self, note: Option<&str>, progress: Progress<'_>) -> Result<Verification, AuditError> {
        let shared = &self.shared;
        let units = &shared.units;
        // Who signed before is in a file beside the log, so only the present key is trusted.
        let keys = Keys::new(std::slice::from_ref(&self.verifier), &shared.options.earlier_keys);
        let mut walk = Walk::begin(&shared.folder, keys, note, progress)?;
        // The tail first: a unit that is sealed meanwhile is then seen twice, never missed.
        let tail = shared.tail.units();
        let tail_first = tail.first().map_or(u64::MAX, |unit| unit.first_sequence);
        let sealed = units.list().into_iter().map(|unit| unit.first_sequence);
        let firsts: Vec<u64> = sealed.filter(|first| *first < tail_first).collect();
        walk.total = shared.newest();
        walk_sealed(&mut walk, &units.files, &firsts);
        walk_tail(&mut walk, tail.iter().map(|unit| &**unit));
        walk.finish(&shared.folder)
    }
}

fn walk_sealed(walk: &mut Walk<'_>, files: &SealedFiles, firsts: &[u64]) {
    // A crash may have left removed units in place.
    let removed = walk.expected;
    for first in firsts.iter().copied().filter(|first| *first >= removed) {
        if walk.stopped {
            return;
        }
        walk.begin_unit(first);
        match Records::open(files, first) {
            Ok(records) => UnitCheck::new(walk, first, records).run(),
            Err((sequence, message)) => walk.break_at(sequence, message),
        }
    }
}

fn walk_tail<'a>(walk: &mut Walk<'_>, units: impl Iterator<Item = &'a TailUnit>) {
    for unit in units {
        if walk.stopped {
            return;
        }
        walk.begin_unit(unit.first_sequence);
        let content = unit.read();
        UnitCheck::new(walk, unit.first_sequence, Records::Tail(&content)).run();
    }
}
