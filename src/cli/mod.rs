//! The command line: parsing, the command, and the exit status.
//!
//! Invariant: only `serve` holds a policy; every other command is a thin client of a server. Commands write through
//! `Output` only, so that a closed pipe is not a failure.
//! Not here: the settings of `serve` (`config`), and checking a policy, which the server does.

mod audit;
mod change;
mod check;
mod check_health;
mod client;
mod color;
mod comparison;
mod completions;
mod context;
mod error;
mod events;
mod examples;
mod exit;
mod explain;
mod filters;
mod groups;
mod names;
mod nodes;
mod output;
mod overview;
mod pages;
mod policy;
mod problems;
mod progress;
mod ranges_file;
mod record;
mod reference;
mod revisions;
mod rules;
mod serve;
mod sessions;
mod shadow;
mod table;
mod times;
mod upload;
mod words;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::ServeArgs;
use context::Context;
use error::UsageError;
use output::{Format, Output};

pub use exit::Exit;

/// The flags that apply only to commands that ask a server.
const CLIENT_FLAGS: [&str; 2] = ["server", "output"];

/// Decides who may open shells and previews: an ordered firewall and a hierarchy of allowlists
#[derive(Parser, Debug)]
#[command(name = "portcullis", version = env!("PORTCULLIS_VERSION"), max_term_width = 120, after_help = EXIT_STATUS)]
pub struct Cli {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 done or allowed, 1 failed, 2 wrong usage, 3 denied, or refused by a gate.";

/// The flags of every command that asks a server.
#[derive(Args, Debug)]
#[command(next_help_heading = "Client options")]
struct ClientArgs {
    /// Ask the server at this address: `http://HOST:PORT`, `HOST:PORT` or `unix:PATH`
    #[arg(long, global = true, value_name = "ADDRESS")]
    #[arg(env = "PORTCULLIS_SERVER", default_value = portcullis_client::DEFAULT_ADDRESS)]
    server: String,
    /// Print tables for people or JSON for programs [default: table on a terminal, otherwise json]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the service
    Serve(Box<ServeArgs>),
    #[command(flatten)]
    Ask(Box<Ask>),
    /// Print the completion script of a shell
    Completions(completions::CompletionsArgs),
}

/// The commands that ask a server.
#[derive(Subcommand, Debug)]
enum Ask {
    /// Decide one connection, as for a portal; the decision is recorded
    Check(check::CheckArgs),
    /// Show step by step why a connection would be allowed or denied; nothing is recorded
    Explain(explain::ExplainArgs),
    /// List probable mistakes in a policy, such as rules that never win and allowlists that permit nobody
    Problems(problems::ProblemsArgs),
    /// Export, plan, apply and test the whole policy of an organization as a file
    Policy(policy::PolicyArgs),
    /// List, compare and confirm the revisions of a policy, and return to earlier ones
    Revisions(revisions::RevisionsArgs),
    /// Try a policy on live traffic, beside the one that is enforced
    Shadow(shadow::ShadowArgs),
    /// Manage the firewall rules of an organization
    Rules(rules::RulesArgs),
    /// Manage the cluster, organizations, projects, workspaces and endpoints, and their access
    Nodes(nodes::NodesArgs),
    /// Manage the address groups of an organization
    Groups(groups::GroupsArgs),
    /// Show the number of active sessions, and the most recent denials
    Overview(overview::OverviewArgs),
    /// List and end sessions: the connections that were allowed
    Sessions(sessions::SessionsArgs),
    /// Print the newest events, or new ones as they are made
    Events(events::EventsArgs),
    /// Read, export and verify the audit log
    Audit(audit::AuditArgs),
    /// Ask whether a server is healthy, for example as the health check of a container
    CheckHealth(check_health::CheckHealthArgs),
}

impl Cli {
    /// Parses the arguments, the first being the program's own name.
    pub fn try_from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(args)?;
        let cli = Self::from_arg_matches(&matches)?;
        if !matches!(cli.command, Command::Ask(_)) {
            refuse_client_flags(&matches)?;
        }
        Ok(cli)
    }

    /// The description of the whole command line, for completions, the reference and tests.
    pub fn command() -> clap::Command {
        examples::attach(<Self as CommandFactory>::command(), "")
    }

    /// Runs the command, on the standard streams of the process.
    pub fn run(self) -> Exit {
        let mut output = Output::standard(self.client.output);
        match self.dispatch(&mut output) {
            Ok(exit) => exit,
            Err(error) => {
                output.note(&format!("error: {}", error::with_causes(&error)));
                match error.downcast_ref() {
                    Some(call) if error::is_gated(call) => Exit::Denied,
                    _ if error.is::<UsageError>() => Exit::Usage,
                    _ => Exit::Failure,
                }
            }
        }
    }

    fn dispatch(self, output: &mut Output) -> anyhow::Result<Exit> {
        let ask = match self.command {
            Command::Serve(args) => return serve::run(&args, output),
            Command::Completions(args) => return completions::run(&args, Self::command(), output),
            Command::Ask(ask) => ask,
        };
        if let Some(result) = ask.run_offline(output) {
            return result;
        }
        client::call(&self.client.server, async |client| ask.run(&mut Context { client, output }).await)
    }
}

impl Ask {
    /// Runs the command if it needs no server.
    fn run_offline(&self, output: &mut Output) -> Option<anyhow::Result<Exit>> {
        match self {
            Self::Policy(args) => args.run_offline(output),
            Self::Audit(args) => args.run_offline(output),
            _ => None,
        }
    }

    async fn run(self, context: &mut Context<'_>) -> anyhow::Result<Exit> {
        match self {
            Self::Check(args) => check::run(args, context).await,
            Self::Explain(args) => explain::run(args, context).await,
            Self::Problems(args) => problems::run(args, context).await,
            Self::Policy(args) => policy::run(args, context).await,
            Self::Revisions(args) => revisions::run(args, context).await,
            Self::Shadow(args) => shadow::run(args, context).await,
            Self::Rules(args) => rules::run(args, context).await,
            Self::Nodes(args) => nodes::run(args, context).await,
            Self::Groups(args) => groups::run(args, context).await,
            Self::Overview(args) => overview::run(args, context).await,
            Self::Sessions(args) => sessions::run(args, context).await,
            Self::Events(args) => events::run(args, context).await,
            Self::Audit(args) => audit::run(args, context).await,
            Self::CheckHealth(args) => check_health::run(args, context).await,
        }
    }
}

/// The reference of the command line as Markdown: `docs/cli.md`.
pub fn reference() -> String {
    reference::markdown(&Cli::command())
}

/// A flag that is ignored would look as if it had an effect.
fn refuse_client_flags(matches: &ArgMatches) -> Result<(), clap::Error> {
    let name = matches.subcommand_name().unwrap_or_default();
    for flag in CLIENT_FLAGS {
        if matches.value_source(flag) == Some(ValueSource::CommandLine) {
            let message = format!("`--{flag}` is for commands that ask a server, and `{name}` does not: remove it");
            return Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
        }
    }
    Ok(())
}
