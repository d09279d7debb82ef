//! What the command line calls the fields of the API, in which a server speaks.
//!
//! Invariant: an error that is printed names no field for which the command has a flag, nor one for which another command
//! has one: then it says which.
//! Not here: the words of messages (`advice`), fields of a file, which have lines and keys (`policy::locations`), and lists of ranges (`ranges_file`).

use clap::{Arg, ArgMatches, Command};
use portcullis_client::{CallError, Violation};

use super::advice::{self, Gates};
use super::error::{with_message, with_violations};
use super::names::{OrganizationArgs, organization_of};
use portcullis_policy::name::CLUSTER;

/// The flags that stand for a field whose name they do not have.
const FIELDS: &[(&str, &[&str])] = &[
    ("address_group", &["group"]),
    ("connection_type", &["type", "connection-type"]),
    ("connection_types", &["type", "connection-type"]),
    ("expected_decision", &["expect"]),
    ("start_time", &["since"]),
    ("end_time", &["until"]),
    ("user_email", &["user", "user-email"]),
    ("guard_ips", &["guard-ip"]),
    ("change_gates", &["gates-guard-ip"]),
    ("replay_within", &["replay"]),
    ("page_size", &["limit"]),
    ("rules", &["rule"]),
];

/// The arguments without a flag that a parent in a request is made from.
const PARENTS: &[&str] = &["PARENT", "NODE", "NAME"];

/// The command that was typed.
#[derive(Debug, Default)]
pub(super) struct Typed {
    /// The names of the commands, outermost first.
    path: Vec<String>,
    /// The arguments of the last of them.
    matches: ArgMatches,
}

/// The arguments of the command that was typed.
pub(super) struct Flags {
    long: Vec<String>,
    /// The first argument without a flag, as the usage shows it.
    subject: Option<String>,
    /// Whether that was typed.
    has_subject: bool,
    gates: Gates,
}

impl Typed {
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let below = |matches: &ArgMatches| matches.subcommand().map(|(name, below)| (name.to_owned(), below.clone()));
        let (path, mut levels): (Vec<_>, Vec<_>) =
            std::iter::successors(below(matches), |(_, matches)| below(matches)).unzip();
        Self { path, matches: levels.pop().unwrap_or_default() }
    }

    /// The values of an argument, as they were typed; none if the command has no such argument.
    fn values(&self, id: &str) -> Vec<String> {
        let raw = self.matches.try_get_raw(id).ok().flatten();
        raw.into_iter().flatten().filter_map(|value| value.to_str().map(str::to_owned)).collect()
    }

    fn value(&self, id: &str) -> Option<String> {
        self.values(id).pop()
    }
}

impl Flags {
    /// The arguments of the command that was typed, below `root`.
    pub(super) fn of(root: &Command, typed: &Typed) -> Self {
        let mut flags = Self { long: Vec::new(), subject: None, has_subject: false, gates: Gates::default() };
        let mut command = root;
        for name in &typed.path {
            let Some(below) = command.find_subcommand(name) else { break };
            command = below;
            flags.subject = command.get_positionals().next().map(shown);
            let is_leaf = command.get_subcommands().next().is_none();
            let long = command.get_arguments().filter(|arg| is_leaf || arg.is_global_set()).filter_map(Arg::get_long);
            flags.long.extend(long.map(str::to_owned));
        }
        let subject = command.get_positionals().next().and_then(|arg| typed.value(arg.get_id().as_str()));
        flags.has_subject = subject.is_some();
        let organization = OrganizationArgs::of(typed.value("organization"));
        let is_file = flags.subject.as_deref() == Some("FILE");
        let named = subject.filter(|name| !is_file && (name == CLUSTER || name.starts_with("organizations/")));
        flags.gates = Gates {
            guarded: typed.values("guard_ips"),
            max_revocations: typed.value("max_revocations"),
            refuses_open_to_internet: typed.value("refuse_open_to_internet").as_deref() == Some("true"),
            keeper: named.map_or_else(|| organization.name(), |name| organization_of(&name)),
        };
        flags
    }

    /// The error in the words of the command line.
    pub(super) fn translate(&self, error: CallError) -> CallError {
        let error = with_message(error, |message| self.in_words(message));
        with_violations(error, |violation| self.translate_violation(violation))
    }

    #[cfg(test)]
    fn for_tests(long: &[&str], gates: Gates) -> Self {
        let long = long.iter().map(|long| (*long).to_owned()).collect();
        Self { long, subject: None, has_subject: false, gates }
    }

    fn translate_violation(&self, violation: &mut Violation) {
        let is_path = |character: char| character.is_ascii_alphanumeric() || "_.[]".contains(character);
        // Those of files, and of lists of ranges, have places in place of paths.
        if violation.field.chars().all(is_path) {
            violation.field = self.of_field(&violation.field);
            violation.description = self.in_words(&violation.description);
        }
    }

    /// Whether the command has a flag.
    fn has(&self, flag: &str) -> bool {
        self.long.iter().any(|long| long == flag)
    }

    /// A message in which flags are named in place of fields.
    pub(super) fn in_words(&self, message: &str) -> String {
        advice::in_words(message, |flag| self.has(flag), &self.gates)
    }

    /// The argument that a field of the request was made from.
    fn of_field(&self, path: &str) -> String {
        let last = path.rsplit('.').next().unwrap_or(path);
        let field = last.split('[').next().unwrap_or(last);
        let kept = path.contains("change_gates").then(|| format!("gates-{}", field.replace('_', "-")));
        let of_table = FIELDS.iter().filter(|(of, _)| *of == field).flat_map(|(_, flags)| *flags);
        let kebab = field.replace('_', "-");
        let id = field.ends_with("_id").then_some("id");
        // The singular too, as `gates-guard-ip` of `guard_ips`.
        let kept = kept.iter().flat_map(|kept| [kept.as_str(), kept.strip_suffix('s').unwrap_or(kept)]);
        let mut candidates = kept.chain(of_table.copied()).chain([kebab.as_str()]).chain(id);
        if let Some(flag) = candidates.find(|flag| self.has(flag)) {
            return format!("--{flag}");
        }
        match (&self.subject, field) {
            (Some(subject), "parent") if self.has_subject && PARENTS.contains(&subject.as_str()) => subject.clone(),
            (_, "parent") if self.has("organization") => "--organization".to_owned(),
            (Some(subject), "name") => subject.clone(),
            (Some(subject), _) if id.is_some() => subject.clone(),
            _ => path.to_owned(),
        }
    }
}

/// An argument without a flag, as the usage shows it.
fn shown(arg: &Arg) -> String {
    arg.get_value_names().and_then(|names| names.first()).map_or_else(|| arg.get_id().to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_by_the_flags_that_the_command_has() {
        let mut flags = Flags::for_tests(&["guard-ip", "gates-guard-ip", "range", "group", "id"], Gates::default());
        flags.subject = Some("RULE".to_owned());
        for (path, expected) in [
            ("options.guard_ips[0]", "--guard-ip"),
            ("node.change_gates.guard_ips[1]", "--gates-guard-ip"),
            ("mutations[0].create_rule.rule.address_group", "--group"),
            ("rule_id", "--id"),
            ("name", "RULE"),
            ("parent", "parent"),
        ] {
            assert_eq!(flags.of_field(path), expected, "{path}");
        }
    }
}
