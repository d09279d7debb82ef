//! Restoring: a data directory from a backup (design.md §2.11).
//!
//! 1. The directory is empty. It gets the mark `RESTORING`, with which no server starts.
//! 2. The members are written and synced, while every checksum is compared.
//! 3. What was written is verified as a start would: the audit log against its checkpoints, the policy record by record,
//!    and each change against its record: when it was made, of what, and its revision. What else a change says is not
//!    compared, and the sessions are read by the first start only.
//! 4. A new lineage is drawn. `RESTORED` holds the one of the backup, until the first start has put it on the record.
//! 5. The mark is removed.
//!
//! Invariant: without the mark, the directory holds a whole, verified backup under a new lineage.
//! Not here: the format (`store::backup`), the first start (`open`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};

use super::audit_key;
use super::verify::verify_audit;
use crate::audit::lineage::Lineage;
use crate::engine::backup::verify_policy;
use crate::store::Log;
use crate::store::backup::{BackupError, Members, Summary, Unpacker};
use crate::store::disk::RealDisk;
use crate::store::journal::{FileJournal, JournalOptions};
use crate::store::restoring::{self, RESTORED, RestoreDirectory};
use crate::store::snapshots::FileSnapshots;

/// What is read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// What a backup that is verified leaves free at least.
const FREE_BYTES_LEFT: u64 = 64 << 20;

/// A whole backup.
#[derive(Clone, Copy, Debug)]
pub struct WholeBackup {
    /// Its size.
    pub bytes: u64,
    /// The lineage of what was backed up.
    pub lineage: Lineage,
    /// The newest record of the audit log.
    pub audit_sequence: u64,
    /// The newest record of the policy journal.
    pub policy_sequence: u64,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// From what.
    pub whole: WholeBackup,
    /// The new lineage.
    pub lineage: Lineage,
    /// The key that verifies the newest checkpoints, as text.
    pub key: String,
}

/// A backup that is checked as it comes.
#[derive(Debug)]
pub struct ReceivedBackup {
    unpacker: Unpacker<()>,
}

impl Default for ReceivedBackup {
    fn default() -> Self {
        Self { unpacker: Unpacker::new(()) }
    }
}

impl ReceivedBackup {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.unpacker.push(bytes)?)
    }

    /// What it is, once all has come.
    pub fn finish(self) -> anyhow::Result<WholeBackup> {
        let (summary, bytes, ()) = self.unpacker.finish()?;
        Ok(WholeBackup::new(summary, bytes))
    }
}

impl WholeBackup {
    fn new(summary: Summary, bytes: u64) -> Self {
        let Summary { lineage, time_micros: _, audit_sequence, policy_sequence } = summary;
        Self { bytes, lineage: Lineage::new(lineage), audit_sequence, policy_sequence }
    }
}

/// Restores a backup into `data_dir`, which is empty or does not exist. `key` is the text of the keys that verify the audit
/// log; without it those in the backup are used, which shows damage but no forgery.
pub fn restore(input: &mut dyn Read, data_dir: &Path, key: Option<&str>) -> anyhow::Result<Restored> {
    let directory = RestoreDirectory::begin(data_dir)?;
    match unpack_and_verify(input, data_dir, key, &directory) {
        Ok((whole, key)) => {
            // Ids have to show which history they belong to.
            let has_other_ids = |drawn| !Lineage::new(drawn).has_ids_like(whole.lineage);
            let lineage = Lineage::new(directory.finish(&format!("{}\n", whole.lineage), has_other_ids)?);
            Ok(Restored { whole, lineage, key })
        }
        Err(error) => {
            if let Err(left) = directory.abandon() {
                return Err(error.context(format!("what was restored is still there: {left}")));
            }
            Err(error)
        }
    }
}

/// Restores a backup into `scratch`, as [`restore`] does, and removes what was restored: no server can start on it
/// meanwhile. Not where it would leave the file system full: a service may be writing there.
pub fn rehearse(file: &mut File, scratch: &Path) -> anyhow::Result<WholeBackup> {
    restoring::remove_unfinished(scratch)?;
    let is_new = !scratch.try_exists()?;
    let directory = RestoreDirectory::begin(scratch)?;
    let needed = file.metadata()?.len().saturating_add(FREE_BYTES_LEFT);
    let verified = match directory.free_bytes()? {
        free if free < needed => Err(anyhow!(
            "that takes {needed} bytes, with {FREE_BYTES_LEFT} to spare, and {free} are free: make room, or take it with \
             `--checksums-only`"
        )),
        _ => unpack_and_verify(file, scratch, None, &directory),
    };
    let removed = directory.abandon();
    let (whole, _) =
        verified.with_context(|| format!("the backup cannot be restored into `{}` to verify it", scratch.display()))?;
    removed?;
    if is_new {
        fs::remove_dir_all(scratch).with_context(|| format!("cannot remove `{}`", scratch.display()))?;
    }
    Ok(whole)
}

/// What was backed up, and the text of the key that signs its audit log.
fn unpack_and_verify(
    input: &mut dyn Read,
    data_dir: &Path,
    key: Option<&str>,
    directory: &RestoreDirectory,
) -> anyhow::Result<(WholeBackup, String)> {
    let whole = unpack(input, data_dir)?;
    directory.check_format()?;
    verify(data_dir, key, &whole)?;
    let mut keys = audit_key::read_public(data_dir)?;
    Ok((whole, keys.pop().map(|key| key.to_string()).unwrap_or_default()))
}

fn unpack(input: &mut dyn Read, data_dir: &Path) -> anyhow::Result<WholeBackup> {
    let mut unpacker = Unpacker::new(Files { directory: data_dir.to_owned(), file: None });
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = match input.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot read the backup"),
        };
        unpacker.push(piece.get(..count).unwrap_or_default())?;
    }
    let (summary, bytes, _) = unpacker.finish()?;
    for directory in ["policy", "audit", "sessions", ""] {
        let path = data_dir.join(directory);
        File::open(&path)
            .and_then(|directory| directory.sync_all())
            .with_context(|| format!("cannot sync `{}`", path.display()))?;
    }
    Ok(WholeBackup::new(summary, bytes))
}

/// Verifies the files as a start would.
fn verify(data_dir: &Path, key: Option<&str>, whole: &WholeBackup) -> anyhow::Result<()> {
    let verified = verify_audit(data_dir, key, None, &mut |_, _| true).context("cannot verify the audit log")?;
    if let Some((sequence, fault)) = verified.faults.first() {
        bail!("the audit log in the backup is not intact at record {sequence}: {fault}; use another backup");
    }
    if verified.tree_size != whole.audit_sequence {
        bail!(
            "the audit log in the backup ends at record {} instead of {}; use another backup",
            verified.tree_size,
            whole.audit_sequence
        );
    }
    let disk = Arc::new(RealDisk);
    let path = data_dir.join("policy");
    let mut journal = FileJournal::open(disk.clone(), &path, JournalOptions::default())?;
    let (last, audited) = (journal.next_sequence() - 1, verified.policy_sequence);
    if last < audited {
        bail!(
            "the policy in the backup ends at change {last}, but the audit log in it has a record of change {audited}; use \
             another backup"
        );
    }
    let snapshots = FileSnapshots::new(disk, path);
    verify_policy(&mut journal, &snapshots, &verified).context("the policy in the backup")?;
    Ok(())
}

/// Writes members into a data directory.
struct Files {
    directory: PathBuf,
    file: Option<(File, PathBuf)>,
}

impl Members for Files {
    fn begin(&mut self, name: &str) -> Result<(), BackupError> {
        let path = self.directory.join(name);
        // A member that comes twice is no backup of ours.
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(|source| io_error("create", &path, source))?;
        self.file = Some((file, path));
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let Some((file, path)) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|source| io_error("write", path, source))
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let Some((file, path)) = self.file.take() else { return Ok(()) };
        file.sync_all().map_err(|source| io_error("sync", &path, source))
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> BackupError {
    BackupError::Io { action, path: path.to_owned(), source }
}

/// The lineage of the backup that a directory was restored from, until its first start has recorded it.
pub(super) fn restored_from(data_dir: &Path) -> anyhow::Result<Option<Lineage>> {
    let path = data_dir.join(RESTORED);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let lineage = text.trim_end().parse();
            lineage.map(Some).with_context(|| format!("`{}`: restore the backup again", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}
