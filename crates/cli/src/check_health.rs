//! `portcullis check-health`: asks `grpc.health.v1` whether a server serves.
//!
//! Invariant: the exit status is 0 only if the server answered SERVING in time.
//! Not here: what makes a server healthy (`server`).

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use portcullis_client::answer;
use serde_json::json;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::context::Context;
use super::exit::Exit;
use super::output::Format;
use super::times::parse_span;

#[derive(Args, Debug)]
pub(super) struct CheckHealthArgs {
    /// The service to ask about, such as `portcullis.v1.DecisionService` [default: the server as a whole]
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Wait this long for a connection and an answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_span)]
    timeout: Duration,
}

pub(super) async fn run(args: CheckHealthArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let request = HealthCheckRequest { service: args.service.unwrap_or_default() };
    let mut client = HealthClient::new(context.client.channel());
    let Ok(answered) = tokio::time::timeout(args.timeout, client.check(request)).await else {
        bail!("no answer within {:?}: the server hangs, or needs a longer `--timeout`", args.timeout);
    };
    let health = answer(answered)?;
    let status = ServingStatus::try_from(health.status).unwrap_or(ServingStatus::Unknown);
    let name = status.as_str_name();
    match context.output.format() {
        Format::Table => context.output.text(&format!("{name}\n"))?,
        Format::Json => context.output.json(&json!({ "status": name }))?,
    }
    Ok(if status == ServingStatus::Serving { Exit::Success } else { Exit::Failure })
}
