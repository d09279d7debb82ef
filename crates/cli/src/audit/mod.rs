//! `portcullis audit`: the audit log, its proof, and what is erased from it.
//!
//! Invariant: what cannot be undone is done only with `--yes`.
//! Not here: following the log (`cli::events`).

mod csv;
mod export;
mod verify;
mod view;

pub use verify::VerifyFiles;

use clap::{Args, Subcommand};
use portcullis_client::{CallError, answer};
use tonic::Code;

use super::context::Context;
use super::error::UsageError;
use super::exit::Exit;
use super::filters::RecordFilterArgs;
use super::names::{OrganizationArgs, ParentArgs};
use super::output::{Format, Output};
use super::pages::LimitArgs;
use super::table;
use portcullis_proto::v1;

#[derive(Args, Debug)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Subcommand, Debug)]
enum AuditCommand {
    /// List audit records, newest first
    List(Box<ListArgs>),
    /// Write all audit records as JSON lines or CSV, newest first
    Export(Box<export::ExportArgs>),
    /// Check every record of the log against its tree and its signed checkpoints
    Verify(verify::VerifyArgs),
    /// Print the newest signed checkpoint, to keep elsewhere
    Checkpoint,
    /// Remove a user's email and addresses from the log; cannot be undone
    EraseUser(EraseUserArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    parent: ParentArgs,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    filters: RecordFilterArgs,
}

const ERASED: &str = "The records and all proofs stay valid: only the openings of their commitments are removed. \
                      The erasure is itself recorded, without the email. What the user changed as an administrator \
                      keeps their name, unless you say `--including-actor`. Active sessions of the user go on without user and \
                      address until the next change or restart of the server revokes them: end them first \
                      (`portcullis sessions list --user`, `portcullis sessions end`).";

#[derive(Args, Debug)]
#[command(after_help = ERASED)]
struct EraseUserArgs {
    /// The email address of the user, as it was recorded
    #[arg(value_name = "EMAIL")]
    user_email: String,
    /// Whose records: an organization, or `cluster` for all of them [default: the one that `--organization` names]
    #[arg(long, value_name = "PARENT")]
    parent: Option<String>,
    #[command(flatten)]
    organization: OrganizationArgs,
    /// Also remove the name from what they changed as an administrator, in the policy's history too
    #[arg(long)]
    including_actor: bool,
    /// Confirm that this cannot be undone
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(args: AuditArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    match args.command {
        AuditCommand::List(args) => list(&args, context).await,
        AuditCommand::Export(args) => export::run(&args, context).await,
        AuditCommand::Verify(args) => verify::run(&args, context).await,
        AuditCommand::Checkpoint => checkpoint(context).await,
        AuditCommand::EraseUser(args) => erase_user(args, context).await,
    }
}

impl AuditArgs {
    /// Runs the command if it needs no server.
    pub(super) fn run_offline(
        &self,
        verify_files: VerifyFiles<'_>,
        output: &mut Output,
    ) -> Option<anyhow::Result<Exit>> {
        match &self.command {
            AuditCommand::Verify(args) => Some(verify::offline(args, args.data_dir.as_deref()?, verify_files, output)),
            _ => None,
        }
    }
}

async fn list(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let first = args.filters.records(&args.parent)?;
    context.note_if_any(args.filters.note(&first.parent));
    let mut client = context.client.audit();
    let fetch = async |page_size, page_token| {
        client.list_audit_records(v1::ListAuditRecordsRequest { page_size, page_token, ..first.clone() }).await
    };
    context.list_first(&args.limit, fetch, |list| view::records(&list.audit_records)).await
}

/// Prints the note itself, for it is kept as a file; JSON only if it was asked for by name.
async fn checkpoint(context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let checkpoint = answer(context.client.audit().get_checkpoint(v1::GetCheckpointRequest {}).await)?;
    if context.output.asked() == Some(Format::Json) {
        return context.show(&checkpoint, |checkpoint| checkpoint.note.clone());
    }
    context.output.text(&checkpoint.note)?;
    Ok(Exit::Success)
}

async fn erase_user(args: EraseUserArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let given = args.parent.as_deref();
    let parent = given.map_or_else(|| args.organization.name(), |given| args.organization.parent(given));
    if !args.yes {
        let (email, parent) = (table::clean(&args.user_email), table::clean(&parent));
        let message =
            format!("erasing `{email}` from the records of `{parent}` cannot be undone: confirm it with `--yes`");
        return Err(UsageError(message).into());
    }
    let EraseUserArgs { user_email, including_actor, .. } = args;
    let request = v1::EraseUserRequest { parent: parent.clone(), user_email, including_actor };
    let erased = match answer(context.client.audit().erase_user(request).await) {
        Ok(erased) => erased,
        Err(error) => {
            if may_go_on(&error) {
                let parent = table::clean(&parent);
                context.output.note(&format!(
                    "note: an erasure that was begun goes on, if the server has ended at its next start: see `portcullis \
                     audit list {parent} --type erased`"
                ));
            }
            return Err(error.into());
        }
    };
    context.show(&erased, |erased| {
        table::record([
            ("openings removed", erased.opening_count().to_string()),
            ("recorded as", format!("#{}", erased.sequence)),
        ])
    })?;
    for note in notes_of(&erased) {
        context.output.note(&note);
    }
    Ok(Exit::Success)
}

/// Whether what a call that failed has begun may go on.
fn may_go_on(error: &CallError) -> bool {
    match error {
        CallError::Unreachable { .. } => false,
        CallError::Broken { .. } => true,
        CallError::Refused(refusal) => {
            matches!(refusal.code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        }
    }
}

/// What is to be known of an erasure besides.
fn notes_of(erased: &v1::EraseUserResponse) -> Vec<String> {
    let mut notes = Vec::new();
    if erased.opening_count() == 0 {
        let warning =
            "warning: nobody of that name is on the record: nothing was removed; give the email as it was recorded";
        notes.push(warning.to_owned());
    }
    let revoked = "and will be revoked by the next change or restart";
    match erased.session_count() {
        0 => {}
        1 => notes.push(format!("note: 1 active session has no user now, {revoked}")),
        count => notes.push(format!("note: {count} active sessions have no user now, {revoked}")),
    }
    notes
}
