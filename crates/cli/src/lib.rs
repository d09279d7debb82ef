//! The commands of `portcullis` that ask a server: thin clients over gRPC.
//!
//! The program adds `serve` and what describes the command line as a whole. This crate apart from it keeps the service
//! quick to build, and shows that a command knows of a server only what its API says.
//!
//! Invariant: commands write through [`Output`] only, so that a closed pipe is not a failure.
//! Not here: checking a policy, which the server does; the service and its files.

mod advice;
mod alterations;
mod answered;
mod audit;
mod backup;
mod change;
mod check;
mod check_health;
mod client;
mod color;
mod comparison;
mod consequences;
mod context;
mod deletions;
mod difference;
mod effects;
mod error;
mod events;
mod exit;
mod explain;
mod filters;
mod flags;
mod forced;
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
mod revisions;
mod rules;
mod sessions;
mod settings;
mod shadow;
mod table;
mod times;
mod upload;
mod words;

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use portcullis_client::CallError;

use context::Context;
use error::UsageError;
use flags::{Flags, Typed};
use output::Format;

pub use audit::VerifyFiles;
pub use backup::{BackupCheck, BackupFormat, BackupSummary};
pub use exit::Exit;
pub use output::Output;

/// The flags of every command that asks a server.
#[derive(Args, Debug)]
#[command(next_help_heading = "Client options")]
pub struct ClientArgs {
    /// Ask the server at this address: `http://HOST:PORT`, `HOST:PORT` or `unix:PATH`
    #[arg(long, global = true, value_name = "ADDRESS")]
    #[arg(env = "PORTCULLIS_SERVER", default_value = portcullis_client::DEFAULT_ADDRESS)]
    server: String,
    /// Print tables for people or JSON for programs [default: table on a terminal, otherwise json]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// What commands do to files of the service, which this crate cannot read.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    /// See [`VerifyFiles`].
    pub verify: VerifyFiles<'a>,
    /// What reads a backup that is received.
    pub backup: &'a dyn BackupFormat,
}

/// A command that asks a server.
#[derive(Debug)]
pub struct ServerCommand {
    ask: Box<Ask>,
    typed: Typed,
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
    /// Write a backup of a running server to a file: policy, audit log and sessions at one moment
    Backup(backup::BackupArgs),
    /// Ask whether a server is healthy, for example as the health check of a container
    CheckHealth(check_health::CheckHealthArgs),
}

impl ClientArgs {
    /// Where the command writes: the standard streams, in the format that was asked for.
    pub fn output(&self) -> Output {
        Output::standard(self.output)
    }
}

impl ServerCommand {
    /// Runs the command.
    pub fn run(self, client: &ClientArgs, files: Files<'_>, output: &mut Output) -> anyhow::Result<Exit> {
        if let Some(result) = self.ask.run_offline(files.verify, output) {
            return result;
        }
        let Self { ask, typed } = self;
        let flags = Flags::of(&Ask::augment_subcommands(Command::new("portcullis")), &typed);
        let server = &client.server;
        let result = client::call(server, async |client| {
            let mut context = Context::new(client, server, &flags, output);
            let exit = ask.run(&mut context, files).await?;
            context.tell_confirmation().await;
            Ok(exit)
        });
        result.map_err(|mut error| {
            if let Some(call) = error.downcast_mut::<CallError>() {
                *call = flags.translate(call.clone());
            }
            error
        })
    }
}

/// Tells an error, and the exit status for it.
pub fn report(error: &anyhow::Error, output: &mut Output) -> Exit {
    output.note(&format!("error: {}", error::with_causes(error)));
    match error.downcast_ref() {
        Some(call) if error::is_gated(call) => Exit::Denied,
        _ if error.is::<UsageError>() => Exit::Usage,
        _ => Exit::Failure,
    }
}

// The commands are private, so they are parsed through the public type around them.
impl FromArgMatches for ServerCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ask::from_arg_matches(matches).map(|ask| Self { ask: Box::new(ask), typed: Typed::of(matches) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.typed = Typed::of(matches);
        self.ask.update_from_arg_matches(matches)
    }
}

impl Subcommand for ServerCommand {
    fn augment_subcommands(command: Command) -> Command {
        Ask::augment_subcommands(command)
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Ask::augment_subcommands_for_update(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Ask::has_subcommand(name)
    }
}

impl Ask {
    /// Runs the command if it needs no server.
    fn run_offline(&self, verify_files: VerifyFiles<'_>, output: &mut Output) -> Option<anyhow::Result<Exit>> {
        match self {
            Self::Policy(args) => args.run_offline(output),
            Self::Audit(args) => args.run_offline(verify_files, output),
            _ => None,
        }
    }

    async fn run(self, context: &mut Context<'_>, files: Files<'_>) -> anyhow::Result<Exit> {
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
            Self::Backup(args) => backup::run(&args, files.backup, context).await,
            Self::CheckHealth(args) => check_health::run(args, context).await,
        }
    }
}
