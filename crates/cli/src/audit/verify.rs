//! `portcullis audit verify`: checks a whole log, through its server or by its files.
//!
//! Invariant: the exit status is 0 only if the log is intact.
//! Not here: the check itself. A server that lies about its log is caught only with a copy of its files and an older
//! checkpoint.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use portcullis_client::{CallError, answer};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::Output;
use crate::progress::Progress;
use crate::ranges_file::read_text;
use crate::table;
use portcullis_proto::v1;
use portcullis_proto::v1::verify_audit_response::Step;

/// Verifies the audit log in a data directory: the directory, the text of the trusted key (none: the one beside the log), a
/// checkpoint that was kept elsewhere, and what is told how many records of how many are done, until it answers `false`.
pub type VerifyFiles<'a> = &'a dyn Fn(
    &Path,
    Option<&str>,
    Option<&str>,
    &mut dyn FnMut(u64, u64) -> bool,
) -> anyhow::Result<v1::VerifyAuditResult>;

/// What is said where no trusted key is given.
const KEY_BESIDE_LOG: &str = "note: the key comes from the same directory as the log, and anybody who changed one could change both: give a trusted key with `--public-key`";

const BAR: &str = "verifying {bar:40} {human_pos}/{human_len} records";

#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// A checkpoint that was kept elsewhere, `-` for standard input; the log must still begin with what it covers
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<String>,
    /// Check the files in this data directory, such as a copy, without a server; nothing in it is changed
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// The key that the checkpoints must be signed with: a trusted copy of `audit.pub` [default: `audit.pub` of the data
    /// directory]
    #[arg(long, value_name = "KEY", requires = "data_dir")]
    public_key: Option<String>,
}

pub(super) async fn run(args: &VerifyArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let note = args.checkpoint.as_deref().map(read_text).transpose()?.unwrap_or_default();
    let mut steps = answer(context.client.audit().verify_audit(v1::VerifyAuditRequest { note }).await)?;
    let progress = Progress::new(BAR, 0);
    let mut result = None;
    while let Some(message) = steps.message().await.map_err(CallError::from)? {
        match message.step {
            Some(Step::Progress(step)) => progress.set(step.verified_count, step.total_count),
            Some(Step::Result(step)) => result = Some(step),
            None => {}
        }
    }
    progress.finish();
    let result =
        result.ok_or_else(|| anyhow::anyhow!("the server ended the verification without a result: try again"))?;
    finish(&result, context.output)
}

/// Checks the files in a data directory.
pub(super) fn offline(
    args: &VerifyArgs,
    data_dir: &Path,
    verify_files: VerifyFiles<'_>,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    let note = args.checkpoint.as_deref().map(read_text).transpose()?;
    let progress = Progress::new(BAR, 0);
    let mut told = |done: u64, total: u64| {
        progress.set(i64::try_from(done).unwrap_or(i64::MAX), i64::try_from(total).unwrap_or(i64::MAX));
        true
    };
    let result = verify_files(data_dir, args.public_key.as_deref(), note.as_deref(), &mut told)?;
    progress.finish();
    if args.public_key.is_none() {
        output.note(KEY_BESIDE_LOG);
    }
    finish(&result, output)
}

fn finish(result: &v1::VerifyAuditResult, output: &mut Output) -> anyhow::Result<Exit> {
    output.show(result, report)?;
    Ok(if result.intact && result.faults.is_empty() { Exit::Success } else { Exit::Failure })
}

fn report(result: &v1::VerifyAuditResult) -> String {
    let mut root_hash = String::new();
    for byte in &result.root_hash {
        let _ = write!(root_hash, "{byte:02x}");
    }
    let summary = table::record([
        ("intact", if result.intact { "yes" } else { "NO" }.to_owned()),
        ("records", result.tree_size.to_string()),
        ("root hash", root_hash),
    ]);
    if result.faults.is_empty() {
        return summary;
    }
    let row = |fault: &v1::AuditFault| [fault.sequence.to_string(), fault.message.clone()];
    format!("{summary}\n{}", table::grid(["SEQUENCE", "FAULT"], result.faults.iter().map(row)))
}
