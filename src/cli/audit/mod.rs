//! `portcullis audit`: the audit log, its proof, and what is erased from it.
//!
//! Invariant: what cannot be undone is done only with `--yes`.
//! Not here: records as they come (`cli::events`).

mod csv;
mod export;
mod verify;
mod view;

use clap::{Args, Subcommand};
use tonic::transport::Channel;

use super::client::answer;
use super::error::UsageError;
use super::filters::RecordFilterArgs;
use super::json::{self, Json};
use super::names::{OrganizationArgs, ParentArgs};
use super::output::{Format, Output};
use super::{Exit, pages, table};
use crate::proto::v1;
use crate::proto::v1::audit_service_client::AuditServiceClient;

type Client = AuditServiceClient<Channel>;

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
    /// Print the newest signed checkpoint, to be kept elsewhere
    Checkpoint,
    /// Remove a user's email and addresses from the log; cannot be undone
    EraseUser(EraseUserArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    parent: ParentArgs,
    /// List at most so many
    #[arg(long, value_name = "COUNT", default_value_t = pages::LIMIT_DEFAULT)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    filters: RecordFilterArgs,
}

const ERASED: &str = "The records stay, and so do all proofs: only what opens their commitments is removed. The \
                      erasure is itself a record, without the email. What the user changed as an administrator \
                      keeps their name, unless you say `--including-actor`.";

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
    /// Do it, although it cannot be undone
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(args: AuditArgs, channel: Channel, output: &mut Output) -> anyhow::Result<Exit> {
    let client = Client::new(channel);
    match args.command {
        AuditCommand::List(args) => list(client, &args, output).await,
        AuditCommand::Export(args) => export::run(client, &args, output).await,
        AuditCommand::Verify(args) => verify::run(client, &args, output).await,
        AuditCommand::Checkpoint => checkpoint(client, output).await,
        AuditCommand::EraseUser(args) => erase_user(client, args, output).await,
    }
}

impl AuditArgs {
    /// Runs what needs no server; none where one is asked.
    pub(super) fn run_offline(&self, output: &mut Output) -> Option<anyhow::Result<Exit>> {
        match &self.command {
            AuditCommand::Verify(args) => Some(verify::offline(args, args.data_dir.as_deref()?, output)),
            _ => None,
        }
    }
}

async fn list(mut client: Client, args: &ListArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let first = args.filters.records(args.parent.name(), &args.parent.names());
    let fetch = async |page_size: i32, page_token: String| {
        let request = v1::ListAuditRecordsRequest { page_size, page_token, ..first.clone() };
        let page = client.list_audit_records(request).await?.into_inner();
        Ok((page.audit_records, page.next_page_token))
    };
    let records = pages::read_some(args.limit, fetch).await?;
    output.show(
        || Json::object().items("auditRecords", records.items.iter().map(json::audit_record).collect()).into(),
        || view::records(&records.items),
    )?;
    if records.more {
        output.note(&format!("note: there are more than these {}: see them with `--limit`", records.items.len()));
    }
    Ok(Exit::Success)
}

/// A note is kept as it is, so it is printed so unless JSON was asked for by name.
async fn checkpoint(mut client: Client, output: &mut Output) -> anyhow::Result<Exit> {
    let v1::Checkpoint { note } = answer(client.get_checkpoint(v1::GetCheckpointRequest {}).await)?;
    if output.asked() == Some(Format::Json) {
        output.show(|| Json::object().text("note", &note).into(), String::new)?;
    } else {
        output.text(&note)?;
    }
    Ok(Exit::Success)
}

async fn erase_user(mut client: Client, args: EraseUserArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let given = args.parent.as_deref();
    let parent = given.map_or_else(|| args.organization.name(), |given| args.organization.node(given));
    if !args.yes {
        let (email, parent) = (table::clean(&args.user_email), table::clean(&parent));
        let message = format!("erasing `{email}` from the records of `{parent}` cannot be undone: say so with `--yes`");
        return Err(UsageError(message).into());
    }
    let EraseUserArgs { user_email, including_actor, .. } = args;
    let request = v1::EraseUserRequest { parent, user_email, including_actor };
    let response = answer(client.erase_user(request).await)?;
    output.show(
        || json::erase_user_response(&response),
        || {
            table::record([
                ("openings removed", response.opening_count.to_string()),
                ("recorded as", format!("#{}", response.sequence)),
            ])
        },
    )?;
    Ok(Exit::Success)
}
