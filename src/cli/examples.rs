//! Examples of every command, for its `--help` and for `docs/cli.md`.
//!
//! Invariant: an example is a whole command line for a server with the organization `default`; a test parses each.
//! Not here: what the flags mean, which stands beside them.

use clap::Command;

/// A command by its path, and for each of its examples what it does and how it is typed.
type Row = (&'static str, &'static [(&'static str, &'static str)]);

const EXAMPLES: &[Row] = &[
    (
        "serve",
        &[
            ("Serve on this machine, with the data in ./portcullis-data", "portcullis serve"),
            (
                "Serve other machines of a private network",
                "portcullis serve --listen 0.0.0.0:7070 --insecure --data-dir /var/lib/portcullis",
            ),
            (
                "Check a configuration file, and show all settings",
                "portcullis serve --config portcullis.toml --check-config",
            ),
        ],
    ),
    (
        "check",
        &[
            (
                "Ask as a portal would; exits with 3 if the connection is denied",
                "portcullis check --ip 192.0.2.7 --type shell --endpoint projects/web --user ada@example.com",
            ),
            (
                "The decision alone, for a script",
                "portcullis check --ip 192.0.2.7 --type preview --endpoint default --output json | jq -r .decision",
            ),
        ],
    ),
    (
        "explain",
        &[
            (
                "Why may this address not open a shell?",
                "portcullis explain --ip 192.0.2.7 --type shell --endpoint projects/web",
            ),
            (
                "How will it be decided when some rules have expired?",
                "portcullis explain --ip 192.0.2.7 --type shell --endpoint projects/web --at 2030-01-31T18:00:00Z",
            ),
        ],
    ),
    (
        "problems",
        &[
            ("Of the organization `default`", "portcullis problems"),
            ("Of one project and all below it", "portcullis problems projects/web"),
        ],
    ),
    (
        "policy export",
        &[
            ("Keep the policy as a file", "portcullis policy export > policy.yaml"),
            ("Leave out long lists of ranges", "portcullis policy export --omit-ranges > policy.yaml"),
        ],
    ),
    (
        "policy plan",
        &[
            ("What would this file change?", "portcullis policy plan policy.yaml"),
            (
                "Would it lock out the office? Exits with 3 if it would",
                "portcullis policy plan policy.yaml --guard-ip 192.0.2.7",
            ),
        ],
    ),
    (
        "policy apply",
        &[
            ("Make the policy what the file says", "portcullis policy apply policy.yaml --comment 'ticket 42'"),
            (
                "Undo it after five minutes, unless it is confirmed",
                "portcullis policy apply policy.yaml --confirm-within 5m",
            ),
        ],
    ),
    ("policy schema", &[("For an editor that checks YAML", "portcullis policy schema > policy.schema.json")]),
    ("policy tests list", &[("Does the policy decide as it must?", "portcullis policy tests list --output table")]),
    (
        "policy tests create",
        &[(
            "The office must always get into the project",
            "portcullis policy tests create --id office --ip 192.0.2.7 --type shell --endpoint projects/web --expect allow",
        )],
    ),
    ("policy tests delete", &[("", "portcullis policy tests delete office")]),
    ("revisions list", &[("Who changed the policy lately?", "portcullis revisions list --limit 10 --output table")]),
    ("revisions get", &[("What did revision 2 change?", "portcullis revisions get 2 --output table")]),
    (
        "revisions compare",
        &[("Who gained and who lost access between two revisions?", "portcullis revisions compare 1 2")],
    ),
    ("revisions rollback", &[("", "portcullis revisions rollback 1 --comment 'the gate was locked'")]),
    (
        "revisions confirm",
        &[("Keep a change that was made with --confirm-within", "portcullis revisions confirm 2 --comment 'tried it'")],
    ),
    ("shadow set", &[("Try a policy on live traffic", "portcullis shadow set policy.yaml")]),
    ("shadow get", &[("How would it have decided so far?", "portcullis shadow get --output table")]),
    ("shadow delete", &[("", "portcullis shadow delete")]),
    ("shadow promote", &[("", "portcullis shadow promote --comment 'a week without surprises'")]),
    (
        "shadow divergences",
        &[
            ("", "portcullis shadow divergences --limit 20 --output table"),
            ("New ones as they are made", "portcullis shadow divergences --follow --output table"),
        ],
    ),
    (
        "rules list",
        &[
            ("", "portcullis rules list --output table"),
            ("Of another organization", "portcullis rules list --organization acme"),
        ],
    ),
    ("rules get", &[("", "portcullis rules get office --output table")]),
    (
        "rules create",
        &[
            (
                "Let the office in before every other rule",
                "portcullis rules create --id office --action allow --range 192.0.2.0/24 --position 1",
            ),
            (
                "Shut out a range for a day of maintenance, for shells only",
                "portcullis rules create --action deny --range 198.51.100.0/24 --type shell \
                 --expire-time 2030-01-31T18:00:00Z --comment maintenance",
            ),
            (
                "Show first what it would do",
                "portcullis rules create --action deny --range any --preview --output table",
            ),
        ],
    ),
    (
        "rules update",
        &[
            ("Switch a rule off without losing it", "portcullis rules update office --disabled"),
            ("", "portcullis rules update office --disabled=false --description 'first floor'"),
        ],
    ),
    ("rules delete", &[("", "portcullis rules delete office --comment 'moved out'")]),
    ("rules move", &[("Let it decide before all others", "portcullis rules move office 1")]),
    ("rules reorder", &[("", "portcullis rules reorder office guests rest")]),
    (
        "rules replace",
        &[
            ("The rules of a policy file, and nothing else in it", "portcullis rules replace --file policy.yaml"),
            (
                "Edit the printed list; the change is refused if somebody else changed the rules meanwhile",
                "portcullis rules list --output json > rules.json && portcullis rules replace --file rules.json",
            ),
        ],
    ),
    (
        "nodes list",
        &[
            ("The organizations", "portcullis nodes list --output table"),
            ("Everything below one", "portcullis nodes list default --recursive --output table"),
        ],
    ),
    ("nodes get", &[("", "portcullis nodes get projects/web --output table")]),
    (
        "nodes create",
        &[
            ("An organization", "portcullis nodes create acme --display-name 'Acme Ltd'"),
            (
                "A project that only one network may reach",
                "portcullis nodes create projects/web --access allow-list --range 192.0.2.0/24='first floor'",
            ),
        ],
    ),
    (
        "nodes update",
        &[
            (
                "Replace the whole allowlist",
                "portcullis nodes update projects/web --access allow-list --file ranges.txt --group office",
            ),
            (
                "Refuse every change of the organization that locks out this address",
                "portcullis nodes update default --gates-guard-ip 192.0.2.7",
            ),
        ],
    ),
    ("nodes delete", &[("A project and all below it", "portcullis nodes delete projects/web --force")]),
    ("nodes effective", &[("", "portcullis nodes effective projects/web --output table")]),
    ("nodes permitted", &[("", "portcullis nodes permitted projects/web --type shell --output table")]),
    ("groups list", &[("", "portcullis groups list --output table")]),
    ("groups get", &[("", "portcullis groups get office --output table")]),
    (
        "groups create",
        &[
            ("", "portcullis groups create office --range 192.0.2.0/24 --range 2001:db8::/48"),
            ("From a list of one range a line", "portcullis groups create vpn --file ranges.txt"),
        ],
    ),
    ("groups update", &[("", "portcullis groups update office --description 'both floors'")]),
    ("groups delete", &[("", "portcullis groups delete office")]),
    ("groups add", &[("", "portcullis groups add office --range 198.51.100.0/24")]),
    ("groups remove", &[("", "portcullis groups remove office --range 198.51.100.0/24")]),
    ("groups ranges", &[("One range a line", "portcullis groups ranges office --output table")]),
    (
        "groups replace",
        &[(
            "From a list that changes every night",
            "portcullis groups replace vpn --file ranges.txt --comment nightly",
        )],
    ),
    (
        "overview",
        &[("", "portcullis overview --output table"), ("Of all organizations", "portcullis overview cluster")],
    ),
    (
        "sessions list",
        &[("Who is connected from there?", "portcullis sessions list --state active --ip-range 192.0.2.0/24")],
    ),
    ("sessions end", &[("", "portcullis sessions end 0123456789abcdef")]),
    (
        "events",
        &[
            ("The newest", "portcullis events --limit 50"),
            ("Decisions as they are made, as JSON lines", "portcullis events --follow --type decision --output json"),
        ],
    ),
    (
        "audit list",
        &[(
            "Who was denied in the last hour, and why?",
            "portcullis audit list --decision deny --since 1h --output table",
        )],
    ),
    (
        "audit export",
        &[("A month for a spreadsheet", "portcullis audit export --format csv --file audit.csv --since 30d")],
    ),
    (
        "audit verify",
        &[
            (
                "Does the log still begin with the kept checkpoint?",
                "portcullis audit verify --checkpoint checkpoint.txt",
            ),
            (
                "A copy of the files, without a server",
                "portcullis audit verify --data-dir /backup/portcullis --public-key \"$(cat audit.pub)\"",
            ),
        ],
    ),
    ("audit checkpoint", &[("To keep on another machine", "portcullis audit checkpoint > checkpoint.txt")]),
    ("audit erase-user", &[("", "portcullis audit erase-user ada@example.com --yes")]),
    (
        "check-health",
        &[
            ("As the health check of a container", "portcullis check-health"),
            ("One service", "portcullis check-health --service portcullis.v1.DecisionService --timeout 500ms"),
        ],
    ),
    ("completions", &[("", "portcullis completions bash > /etc/bash_completion.d/portcullis")]),
];

/// The examples of a command, which is named by its path below `portcullis`.
pub(super) fn of(path: &str) -> &'static [(&'static str, &'static str)] {
    EXAMPLES.iter().find(|(of, _)| *of == path).map_or(&[], |(_, examples)| examples)
}

/// The command and those below it, with their examples at the end of their help.
pub(super) fn attach(command: Command, path: &str) -> Command {
    let command = match of(path) {
        [] => command,
        examples => {
            let before = command.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
            command.after_help(before + &help(examples))
        }
    };
    command.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        attach(below, path.trim_start())
    })
}

fn help(examples: &[(&str, &str)]) -> String {
    let lines = examples.iter().map(|(purpose, typed)| match *purpose {
        "" => format!("\n  {typed}"),
        purpose => format!("\n  # {purpose}\n  {typed}"),
    });
    "Examples:".to_owned() + &lines.collect::<String>()
}
