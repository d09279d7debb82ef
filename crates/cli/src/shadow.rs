//! `portcullis shadow`: a policy that is tried on live traffic, and never enforced.
//!
//! Invariant: a stream that ends is a failure, with its reason.
//! Not here: reading the file (`policy::read`).

use clap::{Args, Subcommand};
use portcullis_client::{CallError, answer};

use super::change::{ChangeArgs, ForceArgs};
use super::context::Context;
use super::difference::Told;
use super::effects::Effects;
use super::exit::Exit;
use super::names::OrganizationArgs;
use super::output::{Format, Reader};
use super::pages::LimitArgs;
use super::policy::read;
use super::ranges_file::read_text;
use super::record::rule_as_it_was;
use super::{comparison, deletions, revisions, table};
use portcullis_proto::v1::mutation::Request as Asked;
use portcullis_proto::{to_json, v1};

#[derive(Args, Debug)]
pub(super) struct ShadowArgs {
    #[command(flatten)]
    organization: OrganizationArgs,
    #[command(subcommand)]
    command: ShadowCommand,
}

#[derive(Subcommand, Debug)]
enum ShadowCommand {
    /// Try the policy of a file on live traffic, from now on
    Set(SetArgs),
    /// Show how the shadow policy has decided so far
    Get,
    /// Stop trying the shadow policy
    Delete(ChangeArgs),
    /// Enforce the shadow policy
    Promote(PromoteArgs),
    /// List the checks that the shadow policy decided differently, the newest first
    Divergences(DivergencesArgs),
}

#[derive(Args, Debug)]
struct SetArgs {
    /// The policy file, `-` for standard input
    file: String,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args, Debug)]
struct PromoteArgs {
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args, Debug)]
struct DivergencesArgs {
    #[command(flatten)]
    limit: LimitArgs,
    /// Print new ones as they come, until interrupted
    #[arg(long)]
    follow: bool,
}

pub(super) async fn run(args: ShadowArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let mut client = context.client.analysis();
    let names = args.organization;
    let parent = names.name();
    match args.command {
        ShadowCommand::Set(args) => set(&names, &args, context).await,
        ShadowCommand::Get => {
            let request = v1::GetShadowPolicyRequest { parent, include_policy: false };
            let shadow = answer(client.get_shadow_policy(request).await)?;
            context.show(&shadow, record)
        }
        ShadowCommand::Delete(change) => {
            let name = format!("the shadow policy of {parent}");
            let request = v1::DeleteShadowPolicyRequest { parent, options: change.options() };
            answer(client.delete_shadow_policy(request).await)?;
            context.deleted(&change, &name)
        }
        ShadowCommand::Promote(args) => {
            let (force, options) = (args.force.force, args.change.options());
            let request = v1::PromoteShadowPolicyRequest { parent, force, options };
            let effects = of_promotion(&names.name(), force, context).await;
            let revision = answer(client.promote_shadow_policy(request).await)?;
            deletions::note(context.output, &args.change, revisions::changes(&revision));
            let told = args.change.told();
            let text = |revision: &v1::Revision| {
                let changes = comparison::changes(revisions::changes(revision), told);
                match told {
                    Told::Is => format!("promoted, revision {}\n{changes}", revision.revision),
                    Told::Would => format!("would be promoted, after revision {}\n{changes}", revision.revision),
                }
            };
            context.changed(&args.change, &revision, text)?;
            context.note_change_consequences(&names.name(), revisions::changes(&revision), told).await;
            effects.tell(&args.change, context).await;
            Ok(Exit::Success)
        }
        ShadowCommand::Divergences(args) if args.follow => follow(parent, context).await,
        ShadowCommand::Divergences(args) => {
            let fetch = async |page_size, page_token| {
                let request = v1::ListDivergencesRequest { parent: parent.clone(), page_size, page_token };
                client.list_divergences(request).await
            };
            context.list_first(&args.limit, fetch, |list| list.divergences.iter().map(line).collect()).await
        }
    }
}

/// What promoting the shadow policy will cause: the same as applying it.
async fn of_promotion(parent: &str, force: bool, context: &Context<'_>) -> Effects {
    let request = v1::GetShadowPolicyRequest { parent: parent.to_owned(), include_policy: true };
    let shadow = answer(context.client.analysis().get_shadow_policy(request).await);
    let Some(policy) = shadow.ok().and_then(|shadow| shadow.policy) else {
        return Effects::too_large(parent, context).await;
    };
    let request =
        v1::ApplyPolicyRequest { parent: parent.to_owned(), policy: Some(policy), force, ..Default::default() };
    Effects::of(parent, Asked::ApplyPolicy(request), context).await
}

async fn set(names: &OrganizationArgs, args: &SetArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let parent = names.name();
    let read::Read { policy, locations } = read::policy(&args.file, &read_text(&args.file)?, names)?;
    let apply = v1::ApplyPolicyRequest {
        parent: parent.clone(),
        policy: Some(policy),
        force: args.force.force,
        ..Default::default()
    };
    let request = v1::SetShadowPolicyRequest {
        parent,
        mutations: vec![v1::Mutation { request: Some(Asked::ApplyPolicy(apply)) }],
        options: args.change.options(),
    };
    let shadow = answer(context.client.analysis().set_shadow_policy(request).await)
        .map_err(|error| locations.locate(error, &args.file, "mutations[0].apply_policy.policy."))?;
    context.changed(&args.change, &shadow, record)
}

fn record(shadow: &v1::ShadowPolicy) -> String {
    table::record([
        ("organization", shadow.organization.clone()),
        ("set at revision", shadow.revision.to_string()),
        ("counted since", table::time(shadow.count_start_time.as_ref())),
        ("checks", shadow.check_count.to_string()),
        ("would be denied", shadow.newly_denied_count.to_string()),
        ("would be allowed", shadow.newly_permitted_count.to_string()),
    ])
}

async fn follow(parent: String, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let request = v1::WatchDivergencesRequest { parent };
    let mut coming = answer(context.client.analysis().watch_divergences(request).await)?;
    loop {
        match coming.message().await {
            Ok(Some(divergence)) => {
                let text = match context.output.format() {
                    Format::Table => line(&divergence),
                    Format::Json => serde_json::to_string(&to_json(&divergence))? + "\n",
                };
                if context.output.part(&text)? == Reader::Gone {
                    return Ok(Exit::Success);
                }
            }
            Ok(None) => anyhow::bail!("the stream ended without a reason"),
            Err(status) => return Err(CallError::from(status).into()),
        }
    }
}

fn line(divergence: &v1::Divergence) -> String {
    let decided = |decision: v1::Decision, reason: v1::Reason, rule: &str, source: &str, description: &str| {
        let decision = table::word(decision.as_str_name(), "DECISION_");
        match rule {
            "" => format!("{decision} ({})", table::word(reason.as_str_name(), "REASON_")),
            rule => rule_as_it_was(&decision, rule, source, description),
        }
    };
    let v1::Divergence { rule, rule_source, rule_description, .. } = divergence;
    let enforced = decided(divergence.decision(), divergence.reason(), rule, rule_source, rule_description);
    let v1::Divergence { shadow_rule, shadow_rule_source: source, shadow_rule_description: description, .. } =
        divergence;
    let tried = decided(divergence.shadow_decision(), divergence.shadow_reason(), shadow_rule, source, description);
    let (time, kind) = (table::time(divergence.time.as_ref()), table::connection_type(divergence.connection_type));
    let who = [divergence.user_email.as_str(), divergence.ip.as_str()].join(" ");
    table::clean(&format!("{time} {kind} {} {}: {enforced}, would be {tried}", who.trim(), divergence.endpoint)) + "\n"
}
