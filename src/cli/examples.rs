//! Examples of every command, for its `--help` and for `docs/cli.md`: the lines of `examples.txt`.
//!
//! Invariant: an example is a whole command line for a server with the organization `default`; a test parses each.
//! Not here: the meaning of the flags, which each command has with them.

use clap::Command;

/// Command lines. A line above one that begins with `# ` says what it is for.
const EXAMPLES: &str = include_str!("examples.txt");

/// The examples of a command, which is named by its path below `portcullis`; each with the line above, if it has one.
pub(super) fn of(path: &str) -> impl Iterator<Item = (Option<&'static str>, &'static str)> {
    let command = format!("portcullis {path}");
    let is_of =
        move |line: &str| line.strip_prefix(&command).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    let lines = std::iter::once("").chain(EXAMPLES.lines());
    let examples = lines.zip(EXAMPLES.lines()).filter(move |(_, line)| is_of(line));
    examples.map(|(above, line)| (above.starts_with("# ").then_some(above), line))
}

/// The command and those below it, with their examples at the end of their help.
pub(super) fn attach(command: Command, path: &str) -> Command {
    let is_leaf = command.get_subcommands().next().is_none();
    let mut help = command.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
    help += "Examples:";
    for (purpose, typed) in of(path) {
        help.extend(purpose.into_iter().chain([typed]).flat_map(|line| ["\n  ", line]));
    }
    let command = if is_leaf { command.after_help(help) } else { command };
    command.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        attach(below, path.trim_start())
    })
}
