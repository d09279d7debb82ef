//! `portcullis shadow`: a policy that is tried on live traffic, and never enforced.
//!
//! Invariant: a stream that ends says why, and the command fails.
//! Not here: the form of the file (`policy`), the JSON form (`json`).

use clap::{Args, Subcommand};
use tonic::transport::Channel;

use super::change::ChangeArgs;
use super::json::{self, Json};
use super::names::OrganizationArgs;
use super::output::{Format, Output, Reader};
use super::policy::{at_places, read};
use super::ranges_file::read_text;
use super::{Exit, pages, table};
use crate::proto::v1;
use crate::proto::v1::analysis_service_client::AnalysisServiceClient;
use crate::proto::v1::mutation::Request as Asked;
use portcullis_client::CallError;
use portcullis_client::answer;

type Client = AnalysisServiceClient<Channel>;

#[derive(Args, Debug)]
pub(super) struct ShadowArgs {
    #[command(flatten)]
    organization: OrganizationArgs,
    #[command(subcommand)]
    command: ShadowCommand,
}

#[derive(Subcommand, Debug)]
enum ShadowCommand {
    /// Try the policy of a file, as `portcullis policy export` writes it, from now on
    Set(SetArgs),
    /// Show how the tried policy decided so far
    Get,
    /// Stop trying it
    Delete(ChangeOnlyArgs),
    /// Make the tried policy the one that is enforced
    Promote(ChangeOnlyArgs),
    /// List the checks that it decided otherwise, the newest first
    Divergences(DivergencesArgs),
}

#[derive(Args, Debug)]
struct SetArgs {
    /// The file, `-` for the standard input
    file: String,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args, Debug)]
struct ChangeOnlyArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args, Debug)]
struct DivergencesArgs {
    /// List at most so many
    #[arg(long, value_name = "COUNT", default_value_t = pages::LIMIT_DEFAULT)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print those that come, as they come
    #[arg(long)]
    follow: bool,
}

pub(super) async fn run(args: ShadowArgs, channel: Channel, output: &mut Output) -> anyhow::Result<Exit> {
    let mut client = Client::new(channel);
    let parent = args.organization.name();
    match args.command {
        ShadowCommand::Set(args) => set(client, parent, &args, output).await?,
        ShadowCommand::Get => {
            let request = v1::GetShadowPolicyRequest { parent, include_policy: false };
            let shadow = answer(client.get_shadow_policy(request).await)?;
            output.show(|| json::shadow_policy(&shadow), || record(&shadow))?;
        }
        ShadowCommand::Delete(ChangeOnlyArgs { change }) => {
            let name = format!("the shadow policy of {parent}");
            let request = v1::DeleteShadowPolicyRequest { parent, options: change.options() };
            answer(client.delete_shadow_policy(request).await)?;
            change.say_if_validated(output);
            output.show(json::empty, || change.deleted(&name))?;
        }
        ShadowCommand::Promote(ChangeOnlyArgs { change }) => {
            let request = v1::PromoteShadowPolicyRequest { parent, options: change.options() };
            let revision = answer(client.promote_shadow_policy(request).await)?;
            change.say_if_validated(output);
            let text = || format!("promoted, revision {}\n", revision.revision);
            output.show(|| json::revision(&revision), text)?;
        }
        ShadowCommand::Divergences(args) if args.follow => follow(client, parent, output).await?,
        ShadowCommand::Divergences(args) => divergences(client, &parent, &args, output).await?,
    }
    Ok(Exit::Success)
}

async fn set(mut client: Client, parent: String, args: &SetArgs, output: &mut Output) -> anyhow::Result<()> {
    let read::Read { policy, places } = read::parse(&args.file, &read_text(&args.file)?, &parent)?;
    let apply = v1::ApplyPolicyRequest { parent: parent.clone(), policy: Some(policy), ..Default::default() };
    let request = v1::SetShadowPolicyRequest {
        parent,
        mutations: vec![v1::Mutation { request: Some(Asked::ApplyPolicy(apply)) }],
        options: args.change.options(),
    };
    let shadow = answer(client.set_shadow_policy(request).await)
        .map_err(|error| at_places(error, &args.file, &places, "mutations[0].apply_policy.policy."))?;
    args.change.say_if_validated(output);
    output.show(|| json::shadow_policy(&shadow), || record(&shadow))?;
    Ok(())
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

async fn divergences(
    mut client: Client,
    parent: &str,
    args: &DivergencesArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let fetch = async |page_size: i32, page_token: String| {
        let request = v1::ListDivergencesRequest { parent: parent.to_owned(), page_size, page_token };
        let page = client.list_divergences(request).await?.into_inner();
        Ok((page.divergences, page.next_page_token))
    };
    let found = pages::read_some(args.limit, fetch).await?;
    let items = || found.items.iter().map(json::divergence).collect();
    let text = || found.items.iter().map(line).collect();
    output.show(|| Json::object().items("divergences", items()).into(), text)?;
    if found.more {
        output.note(&format!("note: there are more than these {}: see them with `--limit`", found.items.len()));
    }
    Ok(())
}

async fn follow(mut client: Client, parent: String, output: &mut Output) -> anyhow::Result<()> {
    let request = v1::WatchDivergencesRequest { parent };
    let mut coming = answer(client.watch_divergences(request).await)?;
    loop {
        match coming.message().await {
            Ok(Some(divergence)) => {
                let text = match output.format() {
                    Format::Table => line(&divergence),
                    Format::Json => serde_json::to_string(&json::divergence(&divergence))? + "\n",
                };
                if output.part(&text)? == Reader::Gone {
                    return Ok(());
                }
            }
            Ok(None) => anyhow::bail!("the stream ended without a reason"),
            Err(status) => return Err(CallError::from(status).into()),
        }
    }
}

fn line(divergence: &v1::Divergence) -> String {
    let word = |decision: v1::Decision| table::word(decision.as_str_name(), "DECISION_");
    let reason = |reason: v1::Reason| table::word(reason.as_str_name(), "REASON_");
    let by = |rule: &str| rule.rsplit('/').next().filter(|id| !id.is_empty()).map(|id| format!(" {id}"));
    let enforced = format!(
        "{} ({}{})",
        word(divergence.decision()),
        reason(divergence.reason()),
        by(&divergence.rule).unwrap_or_default()
    );
    let tried = format!(
        "{} ({}{})",
        word(divergence.shadow_decision()),
        reason(divergence.shadow_reason()),
        by(&divergence.shadow_rule).unwrap_or_default()
    );
    let (time, kind) = (table::time(divergence.time.as_ref()), table::connection_type(divergence.connection_type));
    let who = [divergence.user_email.as_str(), divergence.ip.as_str()].join(" ");
    table::clean(&format!("{time} {kind} {} {}: {enforced}, would be {tried}", who.trim(), divergence.endpoint)) + "\n"
}
