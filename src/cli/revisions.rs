//! `portcullis revisions`: what the policy was, who changed it, and going back.
//!
//! Invariant: a revision is named by its number; what is shown of it is what the server answers with.
//! Not here: the JSON form (`json`).

use clap::{Args, Subcommand};
use tonic::transport::Channel;

use super::change::{ChangeArgs, EtagArgs};
use super::color::{ColorWhen, Colors};
use super::json::{self, Json};
use super::names::{OrganizationArgs, below};
use super::output::Output;
use super::{Exit, comparison, pages, table};
use crate::proto::v1;
use crate::proto::v1::analysis_service_client::AnalysisServiceClient;
use portcullis_client::answer;

type Client = AnalysisServiceClient<Channel>;

#[derive(Args, Debug)]
pub(super) struct RevisionsArgs {
    #[command(flatten)]
    organization: OrganizationArgs,
    #[command(subcommand)]
    command: RevisionsCommand,
}

#[derive(Subcommand, Debug)]
enum RevisionsCommand {
    /// List the revisions, the newest first
    List(ListArgs),
    /// Show one revision and what it altered
    Get(GetArgs),
    /// Show what one revision permits and denies otherwise than another
    Compare(CompareArgs),
    /// Make the policy again what it was at a revision
    Rollback(RollbackArgs),
    /// Keep a change that was made with `--confirm-within`
    Confirm(ConfirmArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// List at most so many
    #[arg(long, value_name = "COUNT", default_value_t = pages::LIMIT_DEFAULT)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Args, Debug)]
struct GetArgs {
    /// The revision: its number or full name
    revision: String,
}

#[derive(Args, Debug)]
struct CompareArgs {
    /// The revision to compare with
    base: String,
    /// The revision to look at
    revision: String,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    color: ColorWhen,
}

#[derive(Args, Debug)]
struct RollbackArgs {
    /// The revision to go back to
    revision: String,
    #[command(flatten)]
    etag: EtagArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args, Debug)]
struct ConfirmArgs {
    /// The revision that waits
    revision: String,
    /// Why it is confirmed, for the audit record
    #[arg(long, value_name = "TEXT", default_value = "")]
    comment: String,
}

pub(super) async fn run(args: RevisionsArgs, channel: Channel, output: &mut Output) -> anyhow::Result<Exit> {
    let mut client = Client::new(channel);
    let parent = args.organization.name();
    let name = |given: &str| below(&parent, "revisions", given);
    match args.command {
        RevisionsCommand::List(args) => list(client, &parent, &args, output).await?,
        RevisionsCommand::Get(args) => {
            let request = v1::GetRevisionRequest { name: name(&args.revision) };
            let revision = answer(client.get_revision(request).await)?;
            output.show(|| json::revision(&revision), || detail(&revision))?;
        }
        RevisionsCommand::Compare(args) => {
            let request = v1::CompareRevisionsRequest { base: name(&args.base), name: name(&args.revision) };
            let compared = answer(client.compare_revisions(request).await)?;
            let colors = Colors::of(args.color, output);
            output.show(|| json::comparison(&compared), || comparison::revisions(&compared, colors))?;
        }
        RevisionsCommand::Rollback(args) => {
            let options = args.change.options();
            let request = v1::RollbackRevisionRequest { name: name(&args.revision), etag: args.etag.etag(), options };
            let revision = answer(client.rollback_revision(request).await)?;
            args.change.say_if_validated(output);
            output.show(|| json::revision(&revision), || detail(&revision))?;
        }
        RevisionsCommand::Confirm(args) => {
            let options = v1::ChangeOptions { comment: args.comment, ..v1::ChangeOptions::default() };
            let request = v1::ConfirmRevisionRequest { name: name(&args.revision), options: Some(options) };
            let revision = answer(client.confirm_revision(request).await)?;
            output.show(|| json::revision(&revision), || detail(&revision))?;
        }
    }
    Ok(Exit::Success)
}

async fn list(mut client: Client, parent: &str, args: &ListArgs, output: &mut Output) -> anyhow::Result<()> {
    let fetch = async |page_size: i32, page_token: String| {
        let request = v1::ListRevisionsRequest { parent: parent.to_owned(), page_size, page_token };
        let page = client.list_revisions(request).await?.into_inner();
        Ok((page.revisions, page.next_page_token))
    };
    let found = pages::read_some(args.limit, fetch).await?;
    let items = || found.items.iter().map(json::revision).collect();
    output.show(|| Json::object().items("revisions", items()).into(), || lines(&found.items))?;
    if found.more {
        output.note(&format!("note: there are more than these {}: see them with `--limit`", found.items.len()));
    }
    Ok(())
}

fn lines(revisions: &[v1::Revision]) -> String {
    let row = |revision: &v1::Revision| {
        let change = revision.policy_change.clone().unwrap_or_default();
        let time = table::time(revision.create_time.as_ref());
        [revision.revision.to_string(), time, change.actor, change.comment]
    };
    table::grid(["REVISION", "TIME", "BY", "COMMENT"], revisions.iter().map(row))
}

fn detail(revision: &v1::Revision) -> String {
    let change = revision.policy_change.clone().unwrap_or_default();
    let fields = [
        ("name", revision.name.clone()),
        ("time", table::time(revision.create_time.as_ref())),
        ("by", change.actor),
        ("comment", change.comment),
        ("undone unless confirmed by", table::time(change.revert_time.as_ref())),
        ("tests broken on purpose", change.overridden_tests.join(" ")),
    ];
    table::record(fields) + &comparison::changes(&change.changes)
}
