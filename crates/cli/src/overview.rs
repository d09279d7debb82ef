//! `portcullis overview`: the figures of a dashboard.
//!
//! Invariant: a connection type without active sessions is shown with 0, never left out.
//! Not here: denials from further back, which `portcullis audit list` has.

use clap::Args;
use portcullis_client::answer;

use super::context::Context;
use super::exit::Exit;
use super::names::ParentArgs;
use super::{record, table};
use portcullis_proto::v1;

#[derive(Args, Debug)]
pub(super) struct OverviewArgs {
    #[command(flatten)]
    parent: ParentArgs,
}

pub(super) async fn run(args: OverviewArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let request = v1::GetOverviewRequest { parent: args.parent.whole("figures are")? };
    let overview = answer(context.client.audit().get_overview(request).await)?;
    context.show(&overview, figures)
}

fn figures(overview: &v1::Overview) -> String {
    let active = |connection_type: v1::ConnectionType| {
        let of_type = overview.active_sessions.iter().filter(|count| count.connection_type() == connection_type);
        of_type.map(|count| count.count).sum::<i64>().to_string()
    };
    let text = table::record([
        ("active shell sessions", active(v1::ConnectionType::Shell)),
        ("active preview sessions", active(v1::ConnectionType::Preview)),
        ("denials in the last hour", overview.denials_last_hour.to_string()),
        ("denials in the last day", overview.denials_last_day.to_string()),
    ]);
    if overview.firewall_events.is_empty() {
        return text;
    }
    let headings = ["TIME", "ADDRESS", "USER", "TYPE", "ENDPOINT", "REASON", "RULE OR NODE"];
    let row = |event: &v1::FirewallEvent| {
        [
            table::time(event.time.as_ref()),
            event.ip.clone(),
            event.user_email.clone(),
            table::connection_type(event.connection_type),
            event.endpoint.clone(),
            record::reason(event.reason()),
            record::denied_by(event),
        ]
    };
    let events = table::grid(headings, overview.firewall_events.iter().map(row));
    format!("{text}\nmost recent denials:\n{events}")
}
