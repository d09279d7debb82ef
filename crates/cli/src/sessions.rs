//! `portcullis sessions`: the connections that were allowed.
//!
//! Invariant: ending several sessions stops at the first failure, and shows those that were ended before it.
//! Not here: when a session is revoked or expires, which the server decides.

use clap::{Args, Subcommand, ValueEnum};
use portcullis_client::answer;

use super::context::Context;
use super::exit::Exit;
use super::filters::FilterArgs;
use super::names::{OrganizationArgs, ParentArgs};
use super::pages::LimitArgs;
use super::{record, table};
use portcullis_proto::v1;

#[derive(Args, Debug)]
pub(super) struct SessionsArgs {
    #[command(subcommand)]
    command: SessionsCommand,
}

#[derive(Subcommand, Debug)]
enum SessionsCommand {
    /// List sessions: the active ones first, then the ended ones, the latest of each at the top
    List(Box<ListArgs>),
    /// End sessions whose connections are closed
    End(EndArgs),
}

const STATUS: &str =
    "STATUS is ACTIVE, REVOKED (still active, to be closed), or in lower case the reason for which it ended.";

#[derive(Args, Debug)]
#[command(after_help = STATUS)]
struct ListArgs {
    #[command(flatten)]
    parent: ParentArgs,
    #[command(flatten)]
    limit: LimitArgs,
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

pub(super) async fn run(args: SessionsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    match args.command {
        SessionsCommand::List(args) => list(&args, context).await,
        SessionsCommand::End(args) => end(&args, context).await,
    }
}

async fn list(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let first = v1::ListSessionsRequest {
        state: args.state.map_or(v1::SessionState::Unspecified, v1::SessionState::from).into(),
        ..args.filters.sessions(&args.parent)?
    };
    let mut client = context.client.audit();
    let fetch = async |page_size, page_token| {
        client.list_sessions(v1::ListSessionsRequest { page_size, page_token, ..first.clone() }).await
    };
    context.list_first(&args.limit, fetch, table).await
}

async fn end(args: &EndArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let mut client = context.client.decisions();
    let mut ended = v1::ListSessionsResponse::default();
    for session in &args.sessions {
        let request = v1::EndSessionRequest { name: args.organization.session(session) };
        match answer(client.end_session(request).await) {
            Ok(session) => ended.sessions.push(session),
            Err(error) => {
                if !ended.sessions.is_empty() {
                    context.list(&ended, table)?;
                }
                let session = table::clean(session);
                return Err(anyhow::Error::new(error).context(format!("cannot end `{session}`")));
            }
        }
    }
    context.list(&ended, table)?;
    context.output.note("note: this records that the connections are closed; it is the portal that closes them");
    Ok(Exit::Success)
}

/// What revoked sessions is a column only where there is something to say.
fn table(list: &v1::ListSessionsResponse) -> String {
    let by: Vec<String> = list.sessions.iter().map(record::revoked_by).collect();
    if by.iter().all(String::is_empty) {
        let headings = ["USER", "ADDRESS", "TYPE", "STARTED", "STATUS", "ENDPOINT", "NAME"];
        return table::grid(headings, list.sessions.iter().map(row));
    }
    let headings = ["USER", "ADDRESS", "TYPE", "STARTED", "STATUS", "REVOKED BY", "ENDPOINT", "NAME"];
    let rows = list.sessions.iter().zip(by).map(|(session, by)| {
        let [user, address, connection_type, started, status, endpoint, name] = row(session);
        [user, address, connection_type, started, status, by, endpoint, name]
    });
    table::grid(headings, rows)
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
