//! Backups of a running service: choosing the moment that a copy shows (design.md §2.11).
//!
//! 1. Wait until every record that was queued so far is durable. So all that was answered before is in the copy.
//! 2. Have the log signed, so that a checkpoint vouches for it.
//! 3. Note the files, while the set of the audit log's files does not change. Nothing else waits: Checks and changes go on.
//!
//! The copy is read afterwards, at the pace of whoever takes it.
//!
//! Invariant: what is held while files are noted does not depend on whoever takes the copy.
//! Not here: which files there are and in which order they are noted (`store::backup`), restoring (`server`).

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::watch;

use super::Engine;
use super::audit::{AuditError, Verification};
use super::clock::Clock;
use super::recovery::{self, RecoveryError};
use super::witnesses::Audited;
use crate::audit::lineage::Lineage;
use crate::audit::record::{Content, Entry, RestoredRecord};
use crate::policy::state::PolicyState;
use crate::store::backup::{self, Interrupted, Staged, Summary};
use crate::store::codec::decode_change;
use crate::store::{Log, Snapshots};

/// Why no backup can be taken.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The stores have no files to copy.
    #[error("what is stored here cannot be copied")]
    Unsupported,
    /// The audit log does not answer.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The files cannot be noted.
    #[error(transparent)]
    Files(#[from] backup::BackupError),
}

/// A backup whose moment is chosen.
#[derive(Debug)]
pub struct Backup {
    staged: Arc<Staged>,
}

impl Backup {
    /// What it is of.
    pub fn summary(&self) -> Summary {
        self.staged.summary
    }

    /// Hands out its bytes in pieces, until `take` answers with an error, which is `Ok(Err(…))` here.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn write<E>(
        &self,
        mut take: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<Result<(), E>, backup::BackupError> {
        match backup::pack(&self.staged, &mut take) {
            Ok(()) => Ok(Ok(())),
            Err(Interrupted::Taker(error)) => Ok(Err(error)),
            Err(Interrupted::Failed(error)) => Err(error),
        }
    }
}

impl Engine {
    /// Changes whenever an erasure is finished. A backup that began before then may hold what was erased, and should end.
    pub fn finished_erasures(&self) -> watch::Receiver<u64> {
        self.audit.erased()
    }

    /// Chooses the moment of a backup. Blocks the thread for some milliseconds, and until the disk has taken what is queued.
    pub fn backup(&self) -> Result<Backup, BackupError> {
        let files = self.backup_files.as_ref().ok_or(BackupError::Unsupported)?;
        let audit = &self.audit;
        let wanted = audit.queue().last_sequence();
        audit.wait_durable(wanted, audit.options().deadline)?;
        let staged = audit.while_files_stay(wanted, || files.stage(self.clock.now().micros()))??;
        let found = staged.summary.audit_sequence;
        if found < wanted {
            return Err(backup::BackupError::Short { found, expected: wanted }.into());
        }
        Ok(Backup { staged })
    }

    /// Records that the data directory was restored. The record is durable when this returns.
    pub fn record_restored(&self, previous_lineage: Lineage) -> Result<(), AuditError> {
        let content = Content::Restored(RestoredRecord { previous_lineage, lineage: self.lineage });
        let entry = Entry { time: self.clock.now(), organization: None, content };
        let sequence = self.audit.queue().push(entry, None, true);
        self.audit.wait_durable(sequence, self.audit.options().deadline)
    }
}

/// Reads a whole policy back, as a start would, and compares each change that is kept with its record in the audit log that
/// was verified: when it was made, of what, and which revision it made.
///
/// # Errors
///
/// Something does not decode, does not follow, is missing, or is another change than the one on record.
pub fn verify_policy(
    journal: &mut dyn Log,
    snapshots: &dyn Snapshots,
    audit: &Verification,
) -> Result<(), RecoveryError> {
    for record in journal.read_from(journal.first_sequence())? {
        let (sequence, bytes) = record?;
        let change = decode_change(&bytes).map_err(|source| RecoveryError::Record { sequence, source })?;
        if audit.policy_changes.get(&sequence).is_some_and(|recorded| *recorded != change.identity()) {
            return Err(RecoveryError::OtherJournal { sequence });
        }
    }
    let (last, audited) = (journal.next_sequence() - 1, Audited::up_to(audit.policy_sequence));
    let mut seen = recovery::seen_more(snapshots, &audited, last)?;
    // A directory has had these since its first start.
    seen.note("every backup", PolicyState::FIRST_CHANGES, last);
    recovery::refuse(seen, last)?;
    recovery::recover(journal, snapshots, &Clock::system(), &audited).map(drop)
}
