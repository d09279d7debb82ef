//! `portcullis sessions`: the connections that were allowed.
//!
//! Invariant: ending several sessions ends those before the first failure, and shows them.
//! Not here: when a session is revoked or ends by itself: the server knows.

use clap::{Args, Subcommand, ValueEnum};
use tonic::transport::Channel;

use super::filters::FilterArgs;
use super::json::{self, Json};
use super::names::{OrganizationArgs, ParentArgs};
use super::output::Output;
use super::{Exit, pages, record, table};
use crate::proto::v1;
use crate::proto::v1::audit_service_client::AuditServiceClient;
use crate::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis_client::answer;

#[derive(Args, Debug)]
pub(super) struct SessionsArgs {
    #[command(subcommand)]
    command: SessionsCommand,
}

#[derive(Subcommand, Debug)]
enum SessionsCommand {
    /// List sessions: the active ones first, then the ended ones, the latest of each at the top
    List(Box<ListArgs>),
    /// End sessions, because their connections are closed
    End(EndArgs),
}

const STATUS: &str = "STATUS is ACTIVE, REVOKED (active, and to be cut), or in lower case why the session ended.";

#[derive(Args, Debug)]
#[command(after_help = STATUS)]
struct ListArgs {
    #[command(flatten)]
    parent: ParentArgs,
    /// List at most so many
    #[arg(long, value_name = "COUNT", default_value_t = pages::LIMIT_DEFAULT)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only sessions in this state
    #[arg(long, value_enum, value_name = "STATE", help_heading = "Filters")]
    state: Option<State>,
    #[command(flatten)]
    filters: FilterArgs,
}

/// A state as it is typed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active,
    Ended,
}

#[derive(Args, Debug)]
struct EndArgs {
    /// The sessions: their ids or full names
    #[arg(required = true, value_name = "SESSION")]
    sessions: Vec<String>,
    #[command(flatten)]
    organization: OrganizationArgs,
}

pub(super) async fn run(args: SessionsArgs, channel: Channel, output: &mut Output) -> anyhow::Result<Exit> {
    match args.command {
        SessionsCommand::List(args) => list(AuditServiceClient::new(channel), &args, output).await?,
        SessionsCommand::End(args) => end(DecisionServiceClient::new(channel), &args, output).await?,
    }
    Ok(Exit::Success)
}

async fn list(mut client: AuditServiceClient<Channel>, args: &ListArgs, output: &mut Output) -> anyhow::Result<()> {
    let first = v1::ListSessionsRequest {
        state: args.state.map_or(v1::SessionState::Unspecified, v1::SessionState::from).into(),
        ..args.filters.sessions(args.parent.name(), &args.parent.names())
    };
    let fetch = async |page_size: i32, page_token: String| {
        let request = v1::ListSessionsRequest { page_size, page_token, ..first.clone() };
        let page = client.list_sessions(request).await?.into_inner();
        Ok((page.sessions, page.next_page_token))
    };
    let sessions = pages::read_some(args.limit, fetch).await?;
    show(&sessions.items, output)?;
    if sessions.more {
        output.note(&format!("note: there are more than these {}: see them with `--limit`", sessions.items.len()));
    }
    Ok(())
}

async fn end(mut client: DecisionServiceClient<Channel>, args: &EndArgs, output: &mut Output) -> anyhow::Result<()> {
    let mut ended = Vec::new();
    for session in &args.sessions {
        let request = v1::EndSessionRequest { name: args.organization.session(session) };
        match answer(client.end_session(request).await) {
            Ok(session) => ended.push(session),
            Err(error) => {
                if !ended.is_empty() {
                    show(&ended, output)?;
                }
                let session = table::clean(session);
                return Err(anyhow::Error::new(error).context(format!("cannot end `{session}`")));
            }
        }
    }
    show(&ended, output)?;
    Ok(())
}

fn show(sessions: &[v1::Session], output: &mut Output) -> std::io::Result<()> {
    output.show(
        || Json::object().items("sessions", sessions.iter().map(json::session).collect()).into(),
        || {
            let headings = ["USER", "ADDRESS", "TYPE", "STARTED", "STATUS", "ENDPOINT", "NAME"];
            table::grid(headings, sessions.iter().map(row))
        },
    )
}

fn row(session: &v1::Session) -> [String; 7] {
    [
        session.user_email.clone(),
        session.ip.clone(),
        table::connection_type(session.connection_type),
        table::time(session.start_time.as_ref()),
        status(session),
        session.endpoint.clone(),
        session.name.clone(),
    ]
}

fn status(session: &v1::Session) -> String {
    match session.state() {
        v1::SessionState::Ended => record::end_reason(session),
        v1::SessionState::Active if session.revoke_time.is_some() => "REVOKED".to_owned(),
        v1::SessionState::Active => "ACTIVE".to_owned(),
        v1::SessionState::Unspecified => String::new(),
    }
}

impl From<State> for v1::SessionState {
    fn from(state: State) -> Self {
        match state {
            State::Active => Self::Active,
            State::Ended => Self::Ended,
        }
    }
}
