//! `portcullis backup`: a backup of a running server, in a file.
//!
//! Invariant: a file under the name that was asked for is whole and durable, and can be restored: it was. What is not is
//! called `….unfinished`.
//! Not here: the format, and restoring, which the program does that has the service (`BackupFormat`).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use portcullis_client::{CallError, answer};

use crate::context::Context;
use crate::error::UsageError;
use crate::exit::Exit;
use crate::table;
use portcullis_proto::v1;

const WHAT: &str = "The backup shows one moment. It holds the policy with its history, the audit log with its \
                    checkpoints, and the active sessions, with all personal data in them: keep it as safe as the data \
                    directory. It does not hold the key that signs the audit log, which you keep apart, nor the match \
                    counts of rules. Bring it back with `portcullis restore`. To verify it, the command restores it into \
                    the directory FILE.verifying and removes that again, which takes as much room as the data directory. \
                    With `--checksums-only`, and for standard output, only checksums are compared: they do not show what \
                    was damaged before the backup.";

/// What is read back at a time.
const PIECE_BYTES: usize = 256 * 1024;

#[derive(Args, Debug)]
#[command(after_help = WHAT)]
pub(super) struct BackupArgs {
    /// Where to write the backup, `-` for standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Compare checksums only, instead of restoring the backup beside the file to verify it
    #[arg(long)]
    checksums_only: bool,
}

/// What reads a backup.
pub trait BackupFormat {
    /// A check of a backup from its first byte on.
    fn check(&self) -> Box<dyn BackupCheck>;

    /// Restores the backup in `file` into the directory `scratch`, as `portcullis restore` would, and removes that again.
    fn rehearse(&self, file: &Path, scratch: &Path) -> anyhow::Result<BackupSummary>;
}

/// Checks a backup as it comes.
pub trait BackupCheck {
    /// Takes the next bytes.
    fn push(&mut self, bytes: &[u8]) -> anyhow::Result<()>;

    /// What the backup is of, if it is whole.
    fn finish(self: Box<Self>) -> anyhow::Result<BackupSummary>;
}

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// The size of the file.
    pub bytes: u64,
    /// The lineage, as text.
    pub lineage: String,
    /// The newest record of the audit log.
    pub audit_sequence: u64,
    /// The newest record of the policy journal: how many changes of the policy there were.
    pub policy_sequence: u64,
}

pub(super) async fn run(
    args: &BackupArgs,
    format: &dyn BackupFormat,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    if args.file.as_os_str() == "-" {
        if context.output.is_terminal() {
            let message = "a backup is no text for a terminal: give a file, or pipe standard output into one";
            return Err(UsageError(message.to_owned()).into());
        }
        let summary = receive(format.check(), context, None).await?;
        context.output.note(&format!("wrote {}", in_words(&summary)));
        return Ok(Exit::Success);
    }
    let file = &args.file;
    if !args.force && file.symlink_metadata().is_ok() {
        bail!("`{}` exists: choose another name, or replace it with `--force`", file.display());
    }
    let mut unfinished = Unfinished { path: beside(file, ".unfinished"), file: None };
    let summary = receive(format.check(), context, Some(&mut unfinished)).await.with_context(|| unfinished.advice())?;
    let read_back = |written: &Path| {
        if args.checksums_only {
            check_file(format.check(), written)
        } else {
            format.rehearse(written, &beside(file, ".verifying"))
        }
    };
    unfinished.finish(read_back, &summary, file).with_context(|| format!("cannot finish `{}`", file.display()))?;
    let rows = [
        ("backup", table::clean(&file.display().to_string())),
        ("bytes", summary.bytes.to_string()),
        ("lineage", summary.lineage),
        ("audit records", summary.audit_sequence.to_string()),
        ("policy changes", summary.policy_sequence.to_string()),
    ];
    context.output.text(&table::record(rows))?;
    Ok(Exit::Success)
}

/// Receives the backup, writes it and checks it.
async fn receive(
    mut check: Box<dyn BackupCheck>,
    context: &mut Context<'_>,
    mut file: Option<&mut Unfinished>,
) -> anyhow::Result<BackupSummary> {
    let mut parts = answer(context.client.maintenance().backup(v1::BackupRequest {}).await)?;
    while let Some(v1::BackupResponse { data }) = parts.message().await.map_err(CallError::from)? {
        match &mut file {
            Some(file) => file.write(&data)?,
            None => context.output.bytes(&data).context("cannot write the backup")?,
        }
        check.push(&data)?;
    }
    check.finish()
}

/// The file of a backup that is still coming. It is made once something has come, and locked, so that two backups of one
/// name do not write into each other.
struct Unfinished {
    path: PathBuf,
    file: Option<File>,
}

impl Unfinished {
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let Self { path, file } = self;
        let file = match file {
            Some(file) => file,
            None => file.insert(create(path)?),
        };
        file.write_all(bytes).with_context(|| format!("cannot write `{}`", path.display()))
    }

    fn advice(&self) -> String {
        match &self.file {
            Some(_) => format!("the backup is not whole; what has come is in `{}`", self.path.display()),
            None => "there is no backup".to_owned(),
        }
    }

    /// Gives the file its name once it is durable and was read back.
    fn finish(
        self,
        read_back: impl FnOnce(&Path) -> anyhow::Result<BackupSummary>,
        received: &BackupSummary,
        name: &Path,
    ) -> anyhow::Result<()> {
        let Self { path, file } = self;
        let Some(file) = file else { bail!("nothing has come") };
        file.sync_all()?;
        let found = read_back(&path).with_context(|| format!("what has come is in `{}`", path.display()))?;
        if found != *received {
            bail!("`{}` is not what was received: take the backup again", path.display());
        }
        fs::rename(&path, name)?;
        let directory = name.parent().filter(|directory| !directory.as_os_str().is_empty());
        Ok(File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?)
    }
}

/// Compares the checksums of a file.
fn check_file(mut check: Box<dyn BackupCheck>, path: &Path) -> anyhow::Result<BackupSummary> {
    let mut written = File::open(path)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match written.read(&mut piece)? {
            0 => return check.finish(),
            count => check.push(piece.get(..count).unwrap_or_default())?,
        }
    }
}

/// Makes the file, or takes what an earlier backup left of it, unless another process writes it.
fn create(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    // It holds personal data.
    options.write(true).create(true).truncate(false).mode(0o600);
    loop {
        let file = options.open(path).with_context(|| format!("cannot create `{}`", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another backup is writing `{}`: wait for it, or choose another name", path.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock `{}`", path.display()));
            }
        }
        // The other process may have finished, and renamed the file, before the lock was taken.
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let is_there = fs::metadata(path).map(identity).ok() == Some(identity(file.metadata()?));
        if is_there {
            file.set_len(0)?;
            return Ok(file);
        }
    }
}

/// The file's name with a suffix.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn in_words(summary: &BackupSummary) -> String {
    let BackupSummary { bytes, lineage, audit_sequence, policy_sequence } = summary;
    format!("{bytes} bytes: {audit_sequence} audit records, {policy_sequence} changes of the policy, lineage {lineage}")
}
