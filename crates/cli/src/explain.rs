//! `portcullis explain`: why a connection is let through or not, step by step.
//!
//! Invariant: explaining is not deciding: the exit status tells only whether there was an answer.
//! Not here: deciding (`check`).

use clap::Args;
use portcullis_client::answer;
use prost_types::Timestamp;

use super::color::{ColorArgs, Colors, Look};
use super::context::Context;
use super::exit::Exit;
use super::names::{OrganizationArgs, id};
use super::table;
use super::times::parse_moment_or_later;
use super::words::ConnectionArgs;
use portcullis_proto::v1;

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    organization: OrganizationArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Decide with the present policy, but for this moment: rules that expire by then do not match. In RFC 3339, or how
    /// long ago, such as `2h`, or how long from now, such as `+2h`
    #[arg(long, value_name = "TIME", value_parser = parse_moment_or_later)]
    at: Option<Timestamp>,
    #[command(flatten)]
    color: ColorArgs,
}

pub(super) async fn run(args: ExplainArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let request = v1::ExplainRequest {
        ip: args.connection.ip,
        connection_type: v1::ConnectionType::from(args.connection.connection_type).into(),
        endpoint: args.organization.endpoint(&args.connection.endpoint)?,
        at_time: args.at,
    };
    let explained = answer(context.client.analysis().explain(request).await)?;
    let colors = Colors::of(args.color.color, context.output);
    context.show(&explained, |explained| tree(explained, colors))
}

/// The steps as a tree.
fn tree(explained: &v1::ExplainResponse, colors: Colors) -> String {
    let look = match explained.decision() {
        v1::Decision::Allow => Look::Green,
        v1::Decision::Deny | v1::Decision::Unspecified => Look::Red,
    };
    let decision = table::word(explained.decision().as_str_name(), "DECISION_");
    let reason = table::word(explained.reason().as_str_name(), "REASON_");
    let by = [&explained.rule, &explained.node].into_iter().find(|by| !by.is_empty());
    let by = by.map(|by| format!(", {by}")).unwrap_or_default();
    let v1::ExplainResponse { revision, cluster_revision, .. } = explained;
    let time = table::time(explained.at_time.as_ref());
    let mut lines = vec![
        format!("{}: {reason}{by}", colors.paint(look, &decision)),
        format!("at revision {revision}, cluster {cluster_revision}, {time}"),
    ];
    let last = explained.steps.len().saturating_sub(1);
    for (number, step) in explained.steps.iter().enumerate() {
        let (branch, below) = if number == last { ("└─", "   ") } else { ("├─", "│  ") };
        let (look, outcome) = match step.outcome() {
            v1::TraceOutcome::Passed => (Look::Green, "passed"),
            v1::TraceOutcome::Refused => (Look::Red, "refused"),
            v1::TraceOutcome::Skipped | v1::TraceOutcome::Unspecified => (Look::Faint, "skipped"),
        };
        let stage = table::word(step.stage().as_str_name(), "TRACE_STAGE_").replace('-', " ");
        let outcome = colors.paint(look, outcome);
        lines.push(format!("{branch} {stage}: {outcome}: {}", table::clean(&step.message)));
        lines.extend(rules(step, below, colors));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The rules whose source contains the address, below the step of the firewall.
fn rules(step: &v1::TraceStep, below: &str, colors: Colors) -> impl Iterator<Item = String> {
    let last = step.rules.len().saturating_sub(1);
    step.rules.iter().enumerate().map(move |(number, rule)| {
        let branch = if number == last { "└─" } else { "├─" };
        let outcome = table::word(rule.outcome().as_str_name(), "RULE_OUTCOME_").replace('-', " ");
        let look = if rule.outcome() == v1::RuleOutcome::Matched { Look::Cyan } else { Look::Faint };
        let action = table::word(rule.action().as_str_name(), "ACTION_");
        let group = match id(&rule.address_group) {
            "" => String::new(),
            group => format!(" of group {group}"),
        };
        let outcome = colors.paint(look, &outcome);
        format!(
            "{below}{branch} {}. {action} {}{group} ({}): {outcome}",
            rule.position,
            rule.matched_range,
            id(&rule.rule)
        )
    })
}
