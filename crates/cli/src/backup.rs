//! `portcullis backup`: a backup of a running server, in a file.
//!
//! Invariant: a file under the name that was asked for is whole, durable and verified. What is not is called
//! `….unfinished`.
//! Not here: the format, which the program that has the service reads (`BackupCheck`).

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
                    counts of rules. Bring it back with `portcullis restore`.";

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
}

/// Checks a backup as it comes.
pub trait BackupCheck {
    /// Takes the next bytes.
    fn push(&mut self, bytes: &[u8]) -> anyhow::Result<()>;

    /// What the backup is of, if it is whole.
    fn finish(self: Box<Self>) -> anyhow::Result<BackupSummary>;
}

/// What a backup is of.
#[derive(Clone, Debug)]
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
    check: &dyn Fn() -> Box<dyn BackupCheck>,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    if args.file.as_os_str() == "-" {
        if context.output.is_terminal() {
            let message = "a backup is no text for a terminal: give a file, or pipe standard output into one";
            return Err(UsageError(message.to_owned()).into());
        }
        let summary = receive(check(), context, None).await?;
        context.output.note(&format!("wrote {}", in_words(&summary)));
        return Ok(Exit::Success);
    }
    let file = &args.file;
    if !args.force && file.symlink_metadata().is_ok() {
        bail!("`{}` exists: choose another name, or replace it with `--force`", file.display());
    }
    let mut unfinished = Unfinished { path: unfinished(file), file: None };
    let summary = receive(check(), context, Some(&mut unfinished)).await.with_context(|| unfinished.advice())?;
    unfinished.finish(check(), &summary, file).with_context(|| format!("cannot finish `{}`", file.display()))?;
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
    fn finish(self, mut check: Box<dyn BackupCheck>, received: &BackupSummary, name: &Path) -> anyhow::Result<()> {
        let Self { path, file } = self;
        let Some(file) = file else { bail!("nothing has come") };
        file.sync_all()?;
        let mut written = File::open(&path)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match written.read(&mut piece)? {
                0 => break,
                count => check.push(piece.get(..count).unwrap_or_default())?,
            }
        }
        let BackupSummary { bytes, lineage, audit_sequence, policy_sequence } = check.finish()?;
        let found = (bytes, &lineage, audit_sequence, policy_sequence);
        if found != (received.bytes, &received.lineage, received.audit_sequence, received.policy_sequence) {
            bail!("`{}` is not what was received: take the backup again", path.display());
        }
        fs::rename(&path, name)?;
        let directory = name.parent().filter(|directory| !directory.as_os_str().is_empty());
        Ok(File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?)
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

fn unfinished(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    PathBuf::from(name)
}

fn in_words(summary: &BackupSummary) -> String {
    let BackupSummary { bytes, lineage, audit_sequence, policy_sequence } = summary;
    format!("{bytes} bytes: {audit_sequence} audit records, {policy_sequence} changes of the policy, lineage {lineage}")
}
