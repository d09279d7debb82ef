//! The command line: parsing, the command, and the exit status.
//!
//! Invariant: only `serve` holds a policy; every other command is a thin client of a server.
//! Not here: the commands that ask a server (`portcullis-cli`), and the settings of `serve` (`config`).

mod backup;
mod completions;
mod examples;
mod reference;
mod restore;
mod serve;
mod signals;
mod usage;
mod verify;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use portcullis_cli::{ClientArgs, Files, Output, ServerCommand, report};

use crate::config::ServeArgs;

pub use portcullis_cli::Exit;

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

const EXIT_STATUS: &str = "Exit status: 0 done or allowed, 1 failed, refused by the server, or answered with no, 2 wrong usage, 3 \
                           denied, or refused by a gate or a policy test, 4 a plan has changes.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the service
    Serve(Box<ServeArgs>),
    #[command(flatten)]
    Server(ServerCommand),
    /// Make a data directory of a backup, for a server to start with
    Restore(restore::RestoreArgs),
    /// Print the completion script of a shell
    Completions(completions::CompletionsArgs),
}

impl Cli {
    /// Parses the arguments, the first being the program's own name.
    pub fn try_from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().collect();
        let matches = Self::command().try_get_matches_from(&args);
        let matches = matches.map_err(|error| usage::advise(error, &Self::command(), &args))?;
        let cli = Self::from_arg_matches(&matches)?;
        if !matches!(cli.command, Command::Server(_)) {
            refuse_client_flags(&matches)?;
        }
        Ok(cli)
    }

    /// The description of the whole command line, for completions, the reference and tests.
    pub fn command() -> clap::Command {
        let command = <Self as CommandFactory>::command();
        // Those that ask no server refuse the flags of those that do, and do not offer them.
        let is_refused = |flag: &&Arg| CLIENT_FLAGS.contains(&flag.get_id().as_str());
        let hidden: Vec<_> = command.get_arguments().filter(is_refused).map(|flag| flag.clone().hide(true)).collect();
        let is_local = |name: &str| ["serve", "restore", "completions"].contains(&name);
        let hide = |of: clap::Command| if is_local(of.get_name()) { of.args(&hidden) } else { of };
        examples::attach(command.mut_subcommands(hide), "")
    }

    /// Runs the command, on the standard streams of the process.
    pub fn run(self) -> Exit {
        let mut output = self.client.output();
        self.dispatch(&mut output).unwrap_or_else(|error| report(&error, &mut output))
    }

    fn dispatch(self, output: &mut Output) -> anyhow::Result<Exit> {
        match self.command {
            Command::Serve(args) => serve::run(&args, output),
            Command::Completions(args) => completions::run(&args, Self::command(), output),
            Command::Restore(args) => restore::run(&args, output),
            Command::Server(command) => {
                let files = Files { verify: &verify::files, backup: &backup::Format };
                command.run(&self.client, files, output)
            }
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
