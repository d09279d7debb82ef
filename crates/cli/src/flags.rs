//! What the command line calls the fields of the API, in which a server speaks.
//!
//! Invariant: an error that is printed names no field for which the command has a flag, nor one for which another command
//! has one: then it says which.
//! Not here: fields of a file, which have lines and keys (`policy::locations`), and lists of ranges (`ranges_file`).

use clap::{Arg, ArgMatches, Command};
use portcullis_client::{CallError, Violation};

use super::error::{with_message, with_violations};

/// A field and what stands for it.
struct Word {
    field: &'static str,
    /// The flags that stand for it. The first that the command has is named.
    flags: &'static [&'static str],
    /// What to name besides a flag of the command: where the same thing is kept.
    kept: &'static str,
    /// What to name where the command has none of the flags.
    otherwise: &'static str,
}

/// The words of messages. What is not here has the name of its flag, or none.
const WORDS: &[Word] = &[
    word("override_tests", &["override-tests"], "`--override-tests` of the command that makes the change"),
    gate("guard_ips", "guard-ip", "the kept gates (`portcullis nodes update --gates-guard-ip`)"),
    gate("max_revocations", "max-revocations", "the kept gate (`portcullis nodes update --gates-max-revocations`)"),
    gate(
        "refuse_open_to_internet",
        "refuse-open-to-internet",
        "the kept gate (`portcullis nodes update --gates-refuse-open-to-internet=false`)",
    ),
    word("force", &["force"], "`--force` of the command that makes the change"),
    word("validate_only", &["validate-only"], "`--validate-only` of the command that makes the change"),
    word("confirm_within", &["confirm-within"], "`--confirm-within` of the command that makes the change"),
    word("comment", &["comment"], "`--comment` of the command that makes the change"),
    word("etag", &["etag"], "`--etag` of the command that makes the change"),
    word("allow_empty", &["allow-empty"], "`portcullis groups replace --allow-empty`"),
    word("omit_ranges", &["omit-ranges"], "`portcullis policy export --omit-ranges`"),
    word("include_policy", &[], "the policy"),
    word("expected_count", &[], "the number of ranges that were sent"),
    word("page_size", &["limit"], "`--limit` of a list"),
    word("page_token", &["limit"], "the place in the list (run the command again)"),
    word("update_mask", &[], "the flags of what to change"),
    word("replay_within", &["replay"], "`portcullis policy plan --replay`"),
    word("range", &["range"], "`range`"),
    word("address_group", &["group"], "the group"),
    word("connection_type", &["type", "connection-type"], "the connection type"),
    word("connection_types", &["type", "connection-type"], "the connection types"),
    word("expected_decision", &["expect"], "the expected decision"),
    word("expire_time", &["expire-time"], "the expire time"),
    word("start_time", &["since"], "`--since` of a list"),
    word("end_time", &["until"], "`--until`"),
    word("user_email", &["user", "user-email"], "the user"),
    word("display_name", &["display-name"], "`portcullis nodes update --display-name`"),
    word("require_projects", &["require-projects"], "`portcullis nodes update --require-projects`"),
    word("session_lease", &["session-lease"], "`portcullis check --session-lease`"),
    word("change_gates", &["gates-guard-ip"], "the kept gates"),
    word("rules", &["rule"], "the rules"),
    word("address_groups", &[], "the groups"),
    word("policy_tests", &[], "the tests"),
];

/// The values of enumerations, by the beginnings of their names.
const VALUES: &[&str] = &["ACCESS_MODE_", "CONNECTION_TYPE_", "ACTION_", "DECISION_"];

const fn word(field: &'static str, flags: &'static [&'static str], otherwise: &'static str) -> Word {
    Word { field, flags, kept: "", otherwise }
}

/// A gate, which is given with a change or kept with a node.
const fn gate(field: &'static str, flag: &'static str, kept: &'static str) -> Word {
    // A table of one entry each would need a name each.
    let flags: &[&str] = match flag.as_bytes() {
        b"guard-ip" => &["guard-ip"],
        b"max-revocations" => &["max-revocations"],
        _ => &["refuse-open-to-internet"],
    };
    Word { field, flags, kept, otherwise: kept }
}

/// The arguments of the command that was typed.
pub(super) struct Flags {
    long: Vec<String>,
    /// The first argument without a flag, as the usage shows it.
    subject: Option<String>,
}

/// The names of the commands that were typed, outermost first.
pub(super) fn path(matches: &ArgMatches) -> Vec<String> {
    let below = |matches: &ArgMatches| matches.subcommand().map(|(name, below)| (name.to_owned(), below.clone()));
    std::iter::successors(below(matches), |(_, matches)| below(matches)).map(|(name, _)| name).collect()
}

impl Flags {
    /// The arguments of the command with this path below `root`.
    pub(super) fn of(root: &Command, path: &[String]) -> Self {
        let mut flags = Self { long: Vec::new(), subject: None };
        let mut command = root;
        for name in path {
            let Some(below) = command.find_subcommand(name) else { break };
            command = below;
            flags.subject = command.get_positionals().next().map(shown);
            let is_leaf = command.get_subcommands().next().is_none();
            let long = command.get_arguments().filter(|arg| is_leaf || arg.is_global_set()).filter_map(Arg::get_long);
            flags.long.extend(long.map(str::to_owned));
        }
        flags
    }

    /// The error in the words of the command line.
    pub(super) fn translate(&self, error: CallError) -> CallError {
        let error = with_message(error, |message| self.in_words(message));
        with_violations(error, |violation| self.translate_violation(violation))
    }

    fn translate_violation(&self, violation: &mut Violation) {
        let is_path = |character: char| character.is_ascii_alphanumeric() || "_.[]".contains(character);
        // Those of files, and of lists of ranges, have places in place of paths.
        if violation.field.chars().all(is_path) {
            violation.field = self.of_field(&violation.field);
            violation.description = self.in_words(&violation.description);
        }
    }

    fn has(&self, flag: &str) -> bool {
        self.long.iter().any(|long| long == flag)
    }

    /// A message in which flags are named in place of fields.
    pub(super) fn in_words(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for word in WORDS {
            let field = format!("`{}`", word.field);
            if message.contains(&field) {
                message = message.replace(&field, &self.named(word));
            }
        }
        in_values(&message)
    }

    fn named(&self, word: &Word) -> String {
        match word.flags.iter().find(|flag| self.has(flag)) {
            None => word.otherwise.to_owned(),
            Some(flag) if word.kept.is_empty() => format!("`--{flag}`"),
            Some(flag) => format!("`--{flag}` or {}", word.kept),
        }
    }

    /// The argument that a field of the request was made from.
    fn of_field(&self, path: &str) -> String {
        let last = path.rsplit('.').next().unwrap_or(path);
        let field = last.split('[').next().unwrap_or(last);
        let kept = path.contains("change_gates").then(|| format!("gates-{}", field.replace('_', "-")));
        let of_table = WORDS.iter().filter(|word| word.field == field).flat_map(|word| word.flags);
        let kebab = field.replace('_', "-");
        let id = field.ends_with("_id").then_some("id");
        // The singular too, as `gates-guard-ip` of `guard_ips`.
        let kept = kept.iter().flat_map(|kept| [kept.as_str(), kept.strip_suffix('s').unwrap_or(kept)]);
        let mut candidates = kept.chain(of_table.copied()).chain([kebab.as_str()]).chain(id);
        if let Some(flag) = candidates.find(|flag| self.has(flag)) {
            return format!("--{flag}");
        }
        match (&self.subject, field) {
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

/// A message in which values are named as they are typed.
fn in_values(message: &str) -> String {
    let is_part = |character: char| character.is_ascii_uppercase() || character == '_';
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((start, prefix)) = VALUES.iter().filter_map(|prefix| Some((rest.find(prefix)?, *prefix))).min() {
        let (before, from) = rest.split_at(start);
        let (value, behind) = from.split_at(from.find(|character| !is_part(character)).unwrap_or(from.len()));
        text.push_str(before);
        text.push('`');
        text.push_str(&super::table::word(value, prefix));
        text.push('`');
        rest = behind;
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_by_the_flags_that_the_command_has() {
        let flags = Flags {
            long: ["guard-ip", "gates-guard-ip", "range", "group", "id"].map(str::to_owned).to_vec(),
            subject: Some("RULE".to_owned()),
        };
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
        assert_eq!(flags.in_words("give a `range` or an `address_group`"), "give a `--range` or an `--group`");
        assert!(flags.in_words("set `override_tests`").contains("`--override-tests` of the command"));
        assert_eq!(flags.in_words("use ACCESS_MODE_INHERIT, or else"), "use `inherit`, or else");
    }
}
