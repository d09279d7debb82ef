//! What a server advises, in the words of the command line: flags in place of fields of the API.
//!
//! A message holds names and values that somebody chose, which may be words of the API as well. So whole phrases of the
//! server are translated, each at its last place in the message, and single words never.
//!
//! Invariant: what stands between backticks because somebody typed it stays as it was typed. A command that is advised can
//! be run as it stands.
//! Not here: the paths of refused fields (`flags`), the words of files (`policy::locations`).

use portcullis_policy::address::Address;

use portcullis_proto::v1;

/// What a server advises, and what that is at the command line.
struct Phrase {
    said: &'static str,
    /// The flag that the phrase is about.
    flag: &'static str,
    /// The phrase where the command has the flag.
    own: &'static str,
    /// The phrase where it has not.
    otherwise: &'static str,
}

const PHRASES: &[Phrase] = &[
    Phrase {
        said: "set `override_tests`",
        flag: "override-tests",
        own: "set `--override-tests`",
        otherwise: "set `--override-tests` of the command that makes the change",
    },
    Phrase {
        said: "set `force`",
        flag: "force",
        own: "set `--force`",
        otherwise: "set `--force` of the command that makes the change",
    },
    Phrase {
        said: "set `allow_empty`",
        flag: "allow-empty",
        own: "set `--allow-empty`",
        otherwise: "use `portcullis groups replace` with `--allow-empty`",
    },
    Phrase {
        said: "export it with `omit_ranges`",
        flag: "omit-ranges",
        own: "export it with `--omit-ranges`",
        otherwise: "use `portcullis policy export --omit-ranges`",
    },
    Phrase { said: "begin again without a page token", flag: "", own: "", otherwise: "run the command again" },
    Phrase { said: "leave out `include_policy`", flag: "", own: "", otherwise: "leave out the policy" },
    Phrase {
        said: "give a `range` or an `address_group`",
        flag: "range",
        own: "give a `--range` or a `--group`",
        otherwise: "give a `range` or a `group`",
    },
    Phrase {
        said: "change option `confirm_within` is",
        flag: "confirm-within",
        own: "`--confirm-within` is",
        otherwise: "`--confirm-within` is",
    },
    Phrase {
        said: "set `access` with `UpdateNode`",
        flag: "",
        own: "",
        otherwise: "set it with `portcullis nodes update`, `--access allow-list` and `--range`",
    },
    Phrase {
        said: "use `validate_only`",
        flag: "validate-only",
        own: "use `--validate-only`",
        otherwise: "use `--validate-only` of the command that makes the change",
    },
    Phrase {
        said: "is before `start_time`",
        flag: "since",
        own: "is before `--since`",
        otherwise: "is before its start",
    },
    Phrase {
        said: "leave `guard_ips`, `max_revocations`, `refuse_open_to_internet` and `override_tests` out",
        flag: "guard-ip",
        own: "leave `--guard-ip`, `--max-revocations`, `--refuse-open-to-internet` and `--override-tests` out",
        otherwise: "leave the gates out",
    },
];

/// How the refusals of a change begin.
const BEGINNINGS: &[&str] = &["the change would ", "the change breaks ", "whether the change "];

/// The values of enumerations, by the beginnings of their names.
const VALUES: &[&str] = &["ACCESS_MODE_", "CONNECTION_TYPE_", "ACTION_", "DECISION_"];

/// The gates that the command was typed with, and who keeps others.
#[derive(Debug, Default)]
pub(super) struct Gates {
    pub(super) guarded: Vec<String>,
    pub(super) max_revocations: Option<String>,
    pub(super) refuses_open_to_internet: bool,
    /// The organization that the change is of, or `cluster`.
    pub(super) keeper: String,
}

/// A message in which flags are named in place of fields. `has` tells which flags the command has.
pub(super) fn in_words(message: &str, has: impl Fn(&str) -> bool, gates: &Gates) -> String {
    let refusals = refusals(message).into_iter().map(|refusal| of_one(refusal, &has, gates));
    in_values(&refusals.collect::<Vec<_>>().join("; "))
}

/// The refusals that a message is made of, each with advice of its own; a message of another kind as one.
fn refusals(message: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = message;
    while let Some(end) = BEGINNINGS.iter().filter_map(|next| rest.find(&format!("; {next}"))).min() {
        let (refusal, behind) = rest.split_at(end);
        found.push(refusal);
        rest = behind.strip_prefix("; ").unwrap_or(behind);
    }
    found.push(rest);
    found
}

fn of_one(refusal: &str, has: impl Fn(&str) -> bool, gates: &Gates) -> String {
    let mut message = of_gates(refusal, gates);
    for Phrase { said, flag, own, otherwise } in PHRASES {
        message = at_last(&message, said, if has(flag) { own } else { otherwise });
    }
    message
}

/// The message of a problem, in the words of the command line.
pub(super) fn of_problem(problem: &v1::Problem) -> String {
    let keeper = problem.resource.split('/').take(2).collect::<Vec<_>>().join("/");
    let gate = format!(
        "take it out of the guarded addresses of `{keeper}` (`portcullis nodes update {keeper} --gates-guard-ip none` \
         removes all of them)"
    );
    in_values(&at_last(&problem.message, "take it out of `guard_ips`", &gate))
}

/// The advice of the gates: about the option that was typed where it is that which refuses, otherwise about the gate that
/// is kept.
fn of_gates(message: &str, gates: &Gates) -> String {
    let keeper = &gates.keeper;
    let update = format!("`portcullis nodes update {keeper}");
    let (said, instead) = if let Some(address) = between(message, "guarded address `", "`") {
        let is = |given: &String| given.parse::<Address>().ok() == address.parse().ok();
        let own = gates.guarded.iter().any(is).then(|| "leave the address out of `--guard-ip`".to_owned());
        let kept = || {
            format!(
                "take the address out of the guarded addresses that `{keeper}` keeps ({update} --gates-guard-ip none` \
                 removes all of them)"
            )
        };
        ("leave the address out of `guard_ips`", own.unwrap_or_else(kept))
    } else if let Some(count) = between(message, "would revoke ", " ") {
        // Where some are revoked later, the message has the number of all behind that.
        let all = message.split_once(" in all").and_then(|(before, _)| before.rsplit(' ').next());
        let count = all.unwrap_or(count);
        let max = between(message, "at most ", " ");
        let own = gates.max_revocations.as_deref().filter(|given| Some(*given) == max);
        let own = own.map(|_| "raise `--max-revocations`".to_owned());
        let kept = || format!("raise the gate that `{keeper}` keeps ({update} --gates-max-revocations {count}`)");
        ("raise `max_revocations`", own.unwrap_or_else(kept))
    } else if message.contains("clear `guard_ips`") {
        let own = (!gates.guarded.is_empty()).then(|| "leave out `--guard-ip`".to_owned());
        let kept = || format!("remove those that `{keeper}` keeps ({update} --gates-guard-ip none`)");
        ("clear `guard_ips`", own.unwrap_or_else(kept))
    } else if message.contains("clear `max_revocations`") {
        let own = gates.max_revocations.is_some().then(|| "leave out `--max-revocations`".to_owned());
        let kept = || format!("lift the gate that `{keeper}` keeps ({update} --gates-max-revocations none`)");
        ("clear `max_revocations`", own.unwrap_or_else(kept))
    } else {
        let own = gates.refuses_open_to_internet.then(|| "leave out `--refuse-open-to-internet`".to_owned());
        let kept = || format!("lift the gate that `{keeper}` keeps ({update} --gates-refuse-open-to-internet=false`)");
        ("clear `refuse_open_to_internet`", own.unwrap_or_else(kept))
    };
    at_last(message, said, &instead)
}

/// The text between two others, the first time that they are there.
fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(behind).map(|(between, _)| between)
}

/// Replaces a phrase at its last place: advice is the end of a message, and what was typed comes before. A phrase that
/// stands behind a backtick is quoted.
pub(super) fn at_last(message: &str, said: &str, instead: &str) -> String {
    match message.rsplit_once(said) {
        Some((before, behind)) if !before.ends_with('`') => format!("{before}{instead}{behind}"),
        _ => message.to_owned(),
    }
}

/// A message in which values are named as they are typed.
pub(super) fn in_values(message: &str) -> String {
    let is_part = |character: char| character.is_ascii_uppercase() || character == '_';
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((start, prefix)) = VALUES.iter().filter_map(|prefix| Some((rest.find(prefix)?, *prefix))).min() {
        let (before, from) = rest.split_at(start);
        let (value, behind) = from.split_at(from.find(|character| !is_part(character)).unwrap_or(from.len()));
        text.push_str(before);
        if text.ends_with(|character: char| is_part(character) || character == '`') {
            // Part of something that was typed.
            text.push_str(value);
        } else {
            text.push('`');
            text.push_str(&value.strip_prefix(prefix).unwrap_or(value).to_lowercase().replace('_', "-"));
            text.push('`');
        }
        rest = behind;
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Typed(Vec<String>, Gates);

    fn flags(long: &[&str], gates: Gates) -> Typed {
        Typed(long.iter().map(|long| (*long).to_owned()).collect(), gates)
    }

    fn in_words(message: &str, Typed(long, gates): &Typed) -> String {
        super::in_words(message, |flag| long.iter().any(|long| long == flag), gates)
    }

    #[test]
    fn of_several_refusals_each_has_the_advice_that_is_its_own() {
        let message = "the change would deny the guarded address `1.1.1.1` its shell connections to `a`: alter the change, \
                       or leave the address out of `guard_ips`; the change would deny the guarded address `2.2.2.2` its \
                       shell connections to `a`: alter the change, or leave the address out of `guard_ips`; the change \
                       would revoke 2 sessions, and at most 0 may be revoked: alter the change, or raise \
                       `max_revocations`";
        let gates = Gates { guarded: vec!["2.2.2.2".to_owned()], keeper: "a".to_owned(), ..Gates::default() };
        let told = in_words(message, &flags(&["guard-ip", "max-revocations"], gates));
        let parts: Vec<&str> = told.split("; ").collect();
        assert!(parts[0].ends_with("removes all of them)") && !parts[0].contains("`--guard-ip`"), "{told}");
        assert!(parts[1].ends_with("leave the address out of `--guard-ip`"), "{told}");
        assert!(parts[2].ends_with("(`portcullis nodes update a --gates-max-revocations 2`)"), "{told}");
        let later = "the change would revoke 2 sessions at once and 5 in all, and at most 0 may be revoked: alter the \
                     change, or raise `max_revocations`";
        let told = in_words(later, &flags(&[], Gates { keeper: "a".to_owned(), ..Gates::default() }));
        assert!(told.ends_with("(`portcullis nodes update a --gates-max-revocations 5`)"), "{told}");
    }

    #[test]
    fn phrases_of_the_server_name_the_flags_that_the_command_has() {
        let with = flags(&["range", "group", "force"], Gates::default());
        let without = flags(&[], Gates::default());
        assert_eq!(in_words("is required: give a `range` or an `address_group`", &with).matches("--").count(), 2);
        assert_eq!(
            in_words("deleting x: set `force` if that is meant", &with),
            "deleting x: set `--force` if that is meant"
        );
        assert!(in_words("alter it, or set `override_tests`", &without).contains("`--override-tests` of the command"));
        assert_eq!(in_words("use ACCESS_MODE_INHERIT, or else", &with), "use `inherit`, or else");
    }

    /// The hazard: an id or a value that somebody chose comes out as a flag.
    #[test]
    fn what_was_typed_stays_as_it_is() {
        let flags = flags(&["range", "group", "force", "rule", "comment"], Gates::default());
        for message in [
            "`force` is not an address: give an IPv4 address",
            "the change breaks 2 policy tests of `organizations/o`, `rules`, `force`",
            "`organizations/o/rules/range` does not exist",
            "`set `force`` is not an address",
            "`ACTION_DENY` is not an address",
        ] {
            assert_eq!(in_words(message, &flags), message);
        }
    }

    /// The hazard: an advised command that fails, and the wrong gate to blame.
    #[test]
    fn what_cannot_be_judged_has_advice_for_the_gate_that_was_typed_or_is_kept() {
        let typed = Gates {
            guarded: vec!["192.0.2.1".to_owned()],
            max_revocations: Some("3".to_owned()),
            refuses_open_to_internet: true,
            keeper: "organizations/o".to_owned(),
        };
        let kept = Gates { keeper: "organizations/o".to_owned(), ..Gates::default() };
        for (question, way_out, own, flag) in [
            ("locks out a guarded address", "guard no address: clear `guard_ips`", "--guard-ip", "guard-ip none"),
            (
                "revokes more sessions than may be revoked",
                "let any number be revoked: clear `max_revocations`",
                "--max-revocations",
                "max-revocations none",
            ),
            (
                "opens a node to every address",
                "clear `refuse_open_to_internet`",
                "--refuse-open-to-internet",
                "refuse-open-to-internet=false",
            ),
        ] {
            let message = format!(
                "whether the change {question} cannot be judged, because too many rules of `organizations/o` expire one \
                 after the other: let fewer rules expire, or {way_out}"
            );
            let told = super::in_words(&message, |_| true, &typed);
            assert!(told.ends_with(&format!("leave out `{own}`")), "{told}");
            let told = super::in_words(&message, |_| true, &kept);
            let command = format!("(`portcullis nodes update organizations/o --gates-{flag}`)");
            assert!(told.ends_with(&command) && !told.contains('_'), "{told}");
        }
    }

    #[test]
    fn the_gate_that_refuses_is_the_one_that_is_named() {
        let gates = |guarded: &[&str], max: Option<&str>| Gates {
            guarded: guarded.iter().map(|given| (*given).to_owned()).collect(),
            max_revocations: max.map(str::to_owned),
            refuses_open_to_internet: false,
            keeper: "organizations/o".to_owned(),
        };
        let guard = "the change would deny the guarded address `2001:db8::7` its shell connections to `x`: alter the \
                     change, or leave the address out of `guard_ips`";
        let told = in_words(guard, &flags(&["guard-ip"], gates(&["2001:DB8:0::7"], None)));
        assert!(told.ends_with("or leave the address out of `--guard-ip`"), "{told}");
        let told = in_words(guard, &flags(&["guard-ip"], gates(&["192.0.2.1"], None)));
        assert!(
            told.contains("that `organizations/o` keeps (`portcullis nodes update organizations/o --gates-"),
            "{told}"
        );
        let max = "the change would revoke 12 sessions, and at most 3 may be revoked: alter the change, or raise \
                   `max_revocations`";
        let told = in_words(max, &flags(&[], gates(&[], Some("3"))));
        assert!(told.ends_with("or raise `--max-revocations`"), "{told}");
        let told = in_words(max, &flags(&[], gates(&[], Some("20"))));
        assert!(told.ends_with("(`portcullis nodes update organizations/o --gates-max-revocations 12`)"), "{told}");
        let open = "alter the change, or clear `refuse_open_to_internet`";
        let told = in_words(open, &flags(&[], gates(&[], None)));
        assert!(told.contains("update organizations/o --gates-refuse-open-to-internet=false`"), "{told}");
    }
}
