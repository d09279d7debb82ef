//! `portcullis revisions`: what the policy was, who changed it, and going back.
//!
//! Invariant: a revision is identified by its number; it is shown as the server describes it.
//! Not here: the effect of a rollback, which the server computes as for every change.

use clap::{Args, Subcommand};
use portcullis_client::answer;

use super::change::{ChangeArgs, EtagArgs, ForceArgs};
use super::color::{ColorArgs, Colors};
use super::context::Context;
use super::difference::Told;
use super::effects::Effects;
use super::exit::Exit;
use super::names::{OrganizationArgs, organization_of};
use super::pages::LimitArgs;
use super::{comparison, deletions, table};
use portcullis_proto::v1;
use portcullis_proto::v1::mutation::Request as Asked;

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
    List(LimitArgs),
    /// Show one revision and what it changed
    Get(GetArgs),
    /// Show who gained and who lost access between two revisions
    Compare(CompareArgs),
    /// Return to the policy of an earlier revision
    Rollback(RollbackArgs),
    /// Keep a change that was made with `--confirm-within`
    Confirm(ConfirmArgs),
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
    #[command(flatten)]
    color: ColorArgs,
}

#[derive(Args, Debug)]
struct RollbackArgs {
    /// The revision to go back to
    revision: String,
    #[command(flatten)]
    etag: EtagArgs,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args, Debug)]
struct ConfirmArgs {
    /// The revision that waits for confirmation
    revision: String,
    /// Why it is confirmed, for the audit record
    #[arg(long, value_name = "TEXT", default_value = "")]
    comment: String,
}

pub(super) async fn run(args: RevisionsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let (names, mut client) = (args.organization, context.client.analysis());
    match args.command {
        RevisionsCommand::List(limit) => {
            let parent = names.name();
            let fetch = async |page_size, page_token| {
                client.list_revisions(v1::ListRevisionsRequest { parent: parent.clone(), page_size, page_token }).await
            };
            context.list_first(&limit, fetch, |list| lines(&list.revisions)).await
        }
        RevisionsCommand::Get(args) => {
            let request = v1::GetRevisionRequest { name: names.revision(&args.revision) };
            let revision = answer(client.get_revision(request).await)?;
            context.show(&revision, detail)
        }
        RevisionsCommand::Compare(args) => {
            let (base, name) = (names.revision(&args.base), names.revision(&args.revision));
            let compared = answer(client.compare_revisions(v1::CompareRevisionsRequest { base, name }).await)?;
            let colors = Colors::of(args.color.color, context.output);
            context.show(&compared, |compared| comparison::revisions(compared, colors))
        }
        RevisionsCommand::Rollback(args) => {
            let (name, options) = (names.revision(&args.revision), args.change.options());
            let request =
                v1::RollbackRevisionRequest { name, etag: args.etag.etag(), force: args.force.force, options };
            let target = request.name.clone();
            let effects = Effects::of(&target, Asked::RollbackRevision(request.clone()), context).await;
            let revision = answer(client.rollback_revision(request).await)?;
            deletions::note(context.output, &args.change, changes(&revision));
            let told = args.change.told();
            context.changed(&args.change, &revision, |revision| match told {
                Told::Is => detail(revision),
                // The answer has the present revision.
                Told::Would => would_go_back(&target, changes(revision)),
            })?;
            context.note_change_consequences(&organization_of(&target), changes(&revision), told).await;
            effects.tell(&args.change, context).await;
            Ok(Exit::Success)
        }
        RevisionsCommand::Confirm(args) => {
            let options = v1::ChangeOptions { comment: args.comment, ..v1::ChangeOptions::default() };
            let name = names.revision(&args.revision);
            let request = v1::ConfirmRevisionRequest { name, options: Some(options) };
            let revision = answer(client.confirm_revision(request).await)?;
            context.show(&revision, detail)
        }
    }
}

fn lines(revisions: &[v1::Revision]) -> String {
    let row = |revision: &v1::Revision| {
        let change = revision.policy_change.clone().unwrap_or_default();
        let time = table::time(revision.create_time.as_ref());
        [revision.revision.to_string(), time, change.actor, change.comment]
    };
    if revisions.iter().all(|revision| revision.revert_time.is_none()) {
        return table::grid(["REVISION", "TIME", "BY", "COMMENT"], revisions.iter().map(row));
    }
    let with_wait = |revision: &v1::Revision| {
        let [number, time, by, comment] = row(revision);
        [number, time, by, table::time(revision.revert_time.as_ref()), comment]
    };
    table::grid(["REVISION", "TIME", "BY", "UNDONE UNLESS CONFIRMED BY", "COMMENT"], revisions.iter().map(with_wait))
}

/// What a revision altered.
pub(super) fn changes(revision: &v1::Revision) -> &[v1::ObjectChange] {
    revision.policy_change.as_ref().map_or(&[], |change| &change.changes)
}

/// What going back to a revision would alter.
fn would_go_back(target: &str, changes: &[v1::ObjectChange]) -> String {
    if changes.is_empty() {
        return format!("the policy is that of {} already\n", table::clean(target));
    }
    format!("would go back to {}\n{}", table::clean(target), comparison::changes(changes, Told::Would))
}

/// A revision, and what it altered.
pub(super) fn detail(revision: &v1::Revision) -> String {
    let change = revision.policy_change.clone().unwrap_or_default();
    // It was confirmed, or undone.
    let agreed = change.revert_time.filter(|_| revision.revert_time.is_none());
    let fields = [
        ("name", revision.name.clone()),
        ("time", table::time(revision.create_time.as_ref())),
        ("by", change.actor),
        ("comment", change.comment),
        ("undone unless confirmed by", table::time(revision.revert_time.as_ref())),
        ("was to be confirmed by", table::time(agreed.as_ref())),
        ("tests broken on purpose", change.overridden_tests.join(" ")),
    ];
    table::record(fields) + &comparison::changes(&change.changes, Told::Is)
}
