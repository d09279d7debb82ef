//! `portcullis restore`: a data directory from a backup, without a server.
//!
//! Invariant: nothing that exists is changed, and the exit status is 0 only if the whole backup was verified.
//! Not here: what is verified and written (`server::restore`).

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::server;
use portcullis_cli::{Exit, Output};

const NEXT: &str = "The directory gets a new lineage: etags, page tokens and positions in the event stream that were given \
                    out before the restore are refused from then on, also those from before the backup. The first start records the restore. Sessions are \
                    those that were active at the moment of the backup. Put the key that signs the audit log back before \
                    the first start, or, if it is lost, start once with `portcullis serve --audit-key-new`. An erasure \
                    that was made after the backup has to be repeated.";

#[derive(Args, Debug)]
#[command(after_help = NEXT)]
pub(super) struct RestoreArgs {
    /// The backup, `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The data directory to make; it is empty or does not exist
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The key that the checkpoints must be signed with, from a trusted place; several are separated by spaces [default:
    /// the one in the backup]
    #[arg(long, value_name = "KEY")]
    public_key: Option<String>,
}

pub(super) fn run(args: &RestoreArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let RestoreArgs { file, data_dir, public_key } = args;
    let mut input: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot open `{}`", file.display()))?)
    };
    let restored = server::restore(&mut *input, data_dir, public_key.as_deref())
        .with_context(|| format!("`{}` is not restored", file.display()))?;
    output.text(&format!(
        "restored `{}`: {} audit records, {} changes of the policy; lineage {}, after {}\nthe audit log is signed by {}: put \
         that key back, then start the server\n",
        data_dir.display(),
        restored.whole.audit_sequence,
        restored.whole.policy_sequence,
        restored.lineage,
        restored.whole.lineage,
        restored.key,
    ))?;
    Ok(Exit::Success)
}
