//! `portcullis completions`: the completion script of a shell.
//!
//! Invariant: the script comes from the same description as the parser.
//! Not here: installing it.

use clap::{Args, Command};
use clap_complete::Shell;

use portcullis_cli::{Exit, Output};

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell to complete in
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script that completes `command`.
pub(super) fn run(args: &CompletionsArgs, mut command: Command, output: &mut Output) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "portcullis", &mut script);
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
