//! `portcullis check`: one decision, as a portal would ask for it.
//!
//! Invariant: the exit status alone tells the decision: 0 only for `DECISION_ALLOW`.
//! Not here: why, step by step (`explain`).

use std::time::Duration;

use clap::Args;

use super::context::Context;
use super::exit::Exit;
use super::names::OrganizationArgs;
use super::table;
use super::times::parse_span;
use super::words::ConnectionArgs;
use portcullis_proto::v1;

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    organization: OrganizationArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// The email address of the user
    #[arg(long = "user", alias = "user-email", value_name = "EMAIL", default_value = "", hide_default_value = true)]
    user_email: String,
    /// Fail if the server's revision of the organization is older than this
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    min_revision: i64,
    /// Fail if the server's revision of the cluster is older than this
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    min_cluster_revision: i64,
    /// End the session of an allowed shell if it is not renewed for this long
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    session_lease: Option<Duration>,
    /// An identifier of your own, recorded with the decision
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    request_id: String,
}

pub(super) async fn run(args: CheckArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let request = v1::CheckRequest {
        ip: args.connection.ip,
        connection_type: v1::ConnectionType::from(args.connection.connection_type).into(),
        endpoint: args.organization.endpoint(&args.connection.endpoint)?,
        user_email: args.user_email,
        min_revision: args.min_revision,
        min_cluster_revision: args.min_cluster_revision,
        session_lease: args.session_lease.and_then(|lease| lease.try_into().ok()),
        request_id: args.request_id,
    };
    let response = context.client.check(request).await?;
    context.show(&response, record)?;
    Ok(match response.decision() {
        v1::Decision::Allow => Exit::Success,
        v1::Decision::Deny | v1::Decision::Unspecified => Exit::Denied,
    })
}

fn record(response: &v1::CheckResponse) -> String {
    table::record([
        ("decision", table::word(response.decision().as_str_name(), "DECISION_")),
        ("reason", table::word(response.reason().as_str_name(), "REASON_")),
        ("message", response.message.clone()),
        ("rule", response.rule.clone()),
        ("node", response.node.clone()),
        ("session", response.session.clone()),
        ("revision", response.revision.to_string()),
        ("cluster revision", response.cluster_revision.to_string()),
        ("decision id", response.decision_id.clone()),
        ("sequence", if response.sequence == 0 { String::new() } else { response.sequence.to_string() }),
    ])
}
