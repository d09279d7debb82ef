//! Advice about arguments that the parser refuses.
//!
//! Invariant: what is advised can be typed as it stands, and no advice is given that leads elsewhere.
//! Not here: what a command makes of its arguments (`portcullis-cli`).

use std::ffi::OsString;

use clap::Command;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// An error of the parser with better advice, where there is some. `args` begin with the program's name.
pub(super) fn advise(mut error: clap::Error, root: &Command, args: &[OsString]) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg).cloned() else { return error };
    let typed: Vec<&str> = args.iter().skip(1).filter_map(|arg| arg.to_str()).collect();
    let (above, command, path) = typed_command(root, &typed);
    let advice = match given.strip_prefix("--") {
        Some(flag) => {
            // The parser would advise to write it behind `--`, as if any name or value began so.
            error.remove(ContextKind::Suggested);
            of_siblings(above, command, &path, flag)
        }
        None => with_equals(command, &typed, &given),
    };
    if let Some(advice) = advice {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(advice)]));
    }
    error
}

/// The command that was typed, the one above it, and the path of that.
fn typed_command<'a>(root: &'a Command, typed: &[&str]) -> (&'a Command, &'a Command, String) {
    let (mut above, mut command, mut path) = (root, root, root.get_name().to_owned());
    for word in typed {
        if let Some(below) = command.find_subcommand(word) {
            if !std::ptr::eq(command, root) {
                path = format!("{path} {}", command.get_name());
            }
            (above, command) = (command, below);
        } else if command.get_subcommands().next().is_none() {
            break;
        }
    }
    (above, command, path)
}

/// Which commands beside the one that was typed have the flag.
fn of_siblings(above: &Command, command: &Command, path: &str, flag: &str) -> Option<String> {
    let has = |sibling: &&Command| sibling.get_arguments().any(|argument| argument.get_long() == Some(flag));
    let others = above.get_subcommands().filter(|sibling| sibling.get_name() != command.get_name());
    let names: Vec<String> = others.filter(has).map(|sibling| format!("`{path} {}`", sibling.get_name())).collect();
    (!names.is_empty() && !std::ptr::eq(above, command))
        .then(|| format!("`{}` has no `--{flag}`: it is a flag of {}", command.get_name(), names.join(", ")))
}

/// How a flag is given `true` or `false` that stands behind it.
fn with_equals(command: &Command, typed: &[&str], given: &str) -> Option<String> {
    let at = typed.windows(2).find_map(|pair| match pair {
        [flag, value] if *value == given => flag.strip_prefix("--"),
        _ => None,
    })?;
    let flag = command.get_arguments().find(|argument| argument.get_long() == Some(at))?;
    if flag.is_require_equals_set() {
        return Some(format!("write it with an equals sign: `--{at}={given}`"));
    }
    let is_switch = !flag.get_action().takes_values();
    (is_switch && matches!(given, "true" | "false"))
        .then(|| format!("`--{at}` takes no value: give it, or leave it out"))
}
