//! `portcullis backup`: a backup of a running server, in a file.
//!
//! Invariant: a file under the name that was asked for is whole, durable and verified. What is not is called
//! `….unfinished`.
//! Not here: the format, which the program that has the service reads (`BackupCheck`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
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
    let unfinished = unfinished(file);
    let mut options = OpenOptions::new();
    // It holds personal data.
    options.write(true).create(true).truncate(true).mode(0o600);
    let to = options.open(&unfinished).with_context(|| format!("cannot create `{}`", unfinished.display()))?;
    let summary = receive(check(), context, Some(&to))
        .await
        .with_context(|| format!("the backup is not whole; what has come is in `{}`", unfinished.display()))?;
    finish(&to, &unfinished, file).with_context(|| format!("cannot finish `{}`", file.display()))?;
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
    file: Option<&File>,
) -> anyhow::Result<BackupSummary> {
    let mut parts = answer(context.client.maintenance().backup(v1::BackupRequest {}).await)?;
    while let Some(v1::BackupResponse { data }) = parts.message().await.map_err(CallError::from)? {
        match file {
            Some(mut file) => file.write_all(&data),
            None => context.output.bytes(&data),
        }
        .context("cannot write the backup")?;
        check.push(&data)?;
    }
    check.finish()
}

/// Gives a file its name once it is durable.
fn finish(file: &File, unfinished: &Path, name: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(unfinished, name)?;
    let directory = name.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
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
