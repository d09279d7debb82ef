//! The reference of the command line as Markdown, made from the description that the parser has.
//!
//! Invariant: every command and every flag is in it, and nothing that `--help` does not say.
//! Not here: writing it to `docs/cli.md`, which `just docs` does.

use std::fmt::Write as _;

use clap::{Arg, Command};

use super::examples;

const HEAD: &str = "<!-- Made from the program by `just docs`: change the help texts in `src/cli` and `crates/cli`, not this file. -->\n\
                    # Command line\n\n";

const EXIT_STATUS: &str = "\n## Exit status\n\n\
                           | status | meaning |\n|---|---|\n\
                           | 0 | done, or the connection is allowed |\n\
                           | 1 | failed: nobody answered, the server refused, or a question was not answered with `y` |\n\
                           | 2 | wrong usage, or a malformed file: nothing was asked or done |\n\
                           | 3 | the connection is denied, a gate refused the change, or a policy test fails |\n\
                           | 4 | `policy plan --exit-code`: the file would change the policy |\n\n\
                           Of the refusals of a server, 3 is for what the policy's own safeguards refuse: guarded addresses, \
                           `--max-revocations`, `--refuse-open-to-internet`, and policy tests that break. All others exit \
                           with 1: a change that needs `--force` or `--allow-empty`, an etag that is no longer current, a \
                           change that waits for its confirmation, a limit, an invalid field, something that does not exist. \
                           Previews and plans exit as the change would.\n";

/// Every command that `command` has, with its flags and examples.
pub(super) fn markdown(command: &Command) -> String {
    let mut built = command.clone();
    built.build();
    let mut text = HEAD.to_owned();
    text += &paragraph(command.get_about());
    text += "\n```text\n";
    for below in command.get_subcommands() {
        let _ = writeln!(text, "{:14} {}", below.get_name(), plain(below.get_about()));
    }
    text += "```\n";
    text += EXIT_STATUS;
    text += "\n## Options of all commands that ask a server\n";
    text += &options(command);
    for below in command.get_subcommands() {
        text += &section(below, &built, "");
    }
    text
}

/// A command and those below it. `above` is the command that it belongs to, built, so that it knows its usage.
fn section(command: &Command, above: &Command, path: &str) -> String {
    let path = format!("{path} {}", command.get_name());
    let path = path.trim_start();
    let Some(built) = above.find_subcommand(command.get_name()) else {
        return String::new();
    };
    let heading = if path.contains(' ') { "###" } else { "##" };
    let mut text = format!("\n{heading} portcullis {path}\n\n{}", paragraph(command.get_about()));
    let usage = built.clone().render_usage().to_string();
    let _ = write!(text, "\n```text\n{}\n```\n", usage.trim_start_matches("Usage: "));
    text += &options(command);
    text += &paragraph(command.get_after_help()).split("Examples:").take(1).map(notes).collect::<String>();
    if command.get_subcommands().next().is_none() {
        text += "\n```console\n";
        for (purpose, typed) in examples::of(path) {
            text.extend(purpose.into_iter().flat_map(|purpose| [purpose, "\n"]));
            text.extend(["$ ", typed, "\n"]);
        }
        text += "```\n";
    }
    for below in command.get_subcommands() {
        text += &section(below, built, path);
    }
    text
}

/// What stands below the flags in the help, without the examples.
fn notes(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!("\n{text}\n") }
}

/// The flags of a command itself, by their headings.
fn options(command: &Command) -> String {
    let mut headings: Vec<Option<&str>> = Vec::new();
    let shown = || command.get_arguments().filter(|argument| !argument.is_hide_set());
    for argument in shown() {
        if !headings.contains(&argument.get_help_heading()) {
            headings.push(argument.get_help_heading());
        }
    }
    let mut text = String::new();
    for heading in headings {
        text += &heading.map_or_else(|| "\n".to_owned(), |heading| format!("\n{heading}:\n\n"));
        text.extend(shown().filter(|argument| argument.get_help_heading() == heading).map(option));
    }
    text
}

fn option(argument: &Arg) -> String {
    let names: Vec<String> = argument.get_value_names().into_iter().flatten().map(|name| format!("<{name}>")).collect();
    let names = if argument.get_action().takes_values() { names.join(" ") } else { String::new() };
    let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let typed = match argument.get_long() {
        Some(long) if argument.is_require_equals_set() => format!("{short}--{long}[={names}]"),
        Some(long) => format!("{short}--{long} {names}"),
        None => names,
    };
    let mut facts = Vec::new();
    if argument.is_required_set() {
        facts.push("required".to_owned());
    }
    let values: Vec<_> = argument.get_possible_values();
    if argument.get_action().takes_values() && !values.is_empty() {
        let values: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        facts.push(format!("one of {}", values.join(", ")));
    }
    let defaults: Vec<_> = argument.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    if !argument.is_hide_default_value_set() && defaults.iter().any(|value| !value.is_empty()) {
        facts.push(format!("default `{}`", defaults.join(" ")));
    }
    if let Some(variable) = argument.get_env().and_then(|name| name.to_str()) {
        facts.push(format!("environment `{variable}`"));
    }
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join("; ")) };
    format!("* `{}`{facts}: {}\n", typed.trim(), plain(argument.get_help()))
}

fn paragraph(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(|text| format!("{text}\n")).unwrap_or_default()
}

fn plain(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}
