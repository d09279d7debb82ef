//! `portcullis check-health`: asks `grpc.health.v1` whether a server serves.
//!
//! Invariant: exit status 0 means that the server said SERVING within the time given, and nothing else does.
//! Not here: what makes a server healthy (`server`).

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::Exit;
use super::json::Json;
use super::output::Output;
use crate::config::parse_duration;
use portcullis_client::answer;

#[derive(Args, Debug)]
pub(super) struct CheckHealthArgs {
    /// The service to ask about, such as `portcullis.v1.DecisionService` [default: the server as a whole]
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Wait this long for a connection and an answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    timeout: Duration,
}

pub(super) async fn run(args: CheckHealthArgs, channel: Channel, output: &mut Output) -> anyhow::Result<Exit> {
    let request = HealthCheckRequest { service: args.service.unwrap_or_default() };
    let mut client = HealthClient::new(channel);
    let Ok(answered) = tokio::time::timeout(args.timeout, client.check(request)).await else {
        bail!("no answer within {:?}: the server hangs, or give it longer with `--timeout`", args.timeout);
    };
    let health = answer(answered)?;
    let status = ServingStatus::try_from(health.status).unwrap_or(ServingStatus::Unknown);
    let name = status.as_str_name();
    output.show(|| Json::object().text("status", name).into(), || format!("{name}\n"))?;
    Ok(if status == ServingStatus::Serving { Exit::Success } else { Exit::Failure })
}
