//! How the command line is parsed. The hazard: what was typed is taken for something else, or a script cannot tell how
//! it went.

use std::io::Read;
use std::process::{Command, Output, Stdio};

use portcullis::cli::Cli;

/// An address that nobody listens on: port 1 of this machine.
const NOBODY: &str = "127.0.0.1:1";

fn portcullis(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis")).args(args).env_clear().stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_is_status_2() {
    let usages: &[&[&str]] = &[
        &[],
        &["frobnicate"],
        &["rules"],
        &["rules", "create"],
        &["rules", "create", "--action", "allow"],
        &["rules", "create", "--action", "perhaps", "--range", "any"],
        &["rules", "create", "--action", "allow", "--range", "any", "--group", "office"],
        &["rules", "create", "--action", "allow", "--range", "any", "--expire-time", "tomorrow"],
        &["rules", "update", "office"],
        &["rules", "move", "office"],
        &["rules", "reorder"],
        &["rules", "replace"],
        &["groups", "update", "office"],
        &["nodes", "permitted", "acme"],
        &["check", "--ip", "192.0.2.1", "--type", "shell"],
        &["check", "--ip", "192.0.2.1", "--type", "telnet", "--endpoint", "acme"],
        &["check-health", "--timeout", "3"],
        &["completions", "perl"],
        &["serve", "--server", "127.0.0.1:7070"],
        &["--output", "json", "completions", "bash"],
        &["rules", "list", "--output", "yaml"],
        &["rules", "list", "--server", "https://127.0.0.1:7070"],
        &["rules", "list", "--server", "ftp://127.0.0.1"],
        &["rules", "list", "--server", "127.0.0.1:1/path"],
        &["rules", "list", "--server", "http://"],
    ];
    for usage in usages {
        let output = portcullis(usage);
        assert_eq!(output.status.code(), Some(2), "{usage:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{usage:?}");
    }
}

/// What is wrong with the arguments alone is said without asking anybody; so nothing is half done.
#[test]
fn wrong_usage_that_the_parser_cannot_see_is_status_2() {
    let usages: &[&[&str]] = &[
        &["nodes", "create", "cluster"],
        &["nodes", "create", "organizations/acme/workspaces/dev"],
        &["nodes", "create", "organizations/acme", "--range", "192.0.2.1"],
        &["nodes", "update", "organizations/acme"],
        // The id of a project or of an organization.
        &["nodes", "create", "web"],
        &["nodes", "delete", "web"],
        &["nodes", "list", "web"],
        &["nodes", "effective", "web"],
        &["problems", "web"],
        &["sessions", "list", "--endpoint", "web"],
        &["check", "--ip", "192.0.2.1", "--type", "shell", "--endpoint", "web"],
        &["explain", "--ip", "192.0.2.1", "--type", "shell", "--endpoint", "web"],
        &["nodes", "update", "projects/web", "--gates-guard-ip", "none", "--gates-guard-ip", "192.0.2.1"],
        &["groups", "add", "office"],
        &["groups", "replace", "office"],
        &["rules", "update", "office", "--type", "all", "--type", "shell"],
    ];
    for usage in usages {
        let output = portcullis(&[usage, &["--server", NOBODY][..]].concat());
        assert_eq!(output.status.code(), Some(2), "{usage:?}: {}", stderr(&output));
    }
}

#[test]
fn server_that_is_not_there_is_status_1_and_named() {
    for server in [NOBODY, "http://127.0.0.1:1"] {
        let output = portcullis(&["rules", "list", "--server", server]);
        assert_eq!(output.status.code(), Some(1));
        let message = stderr(&output);
        assert!(message.starts_with(&format!("error: cannot connect to `{server}`")), "{message}");
        assert!(message.contains("`--server`"), "{message}");
    }
}

/// The hazard: a script takes "nobody answered" for "allowed".
#[test]
fn check_without_an_answer_is_not_allowed() {
    let check =
        ["check", "--ip", "192.0.2.1", "--type", "shell", "--endpoint", "organizations/acme", "--server", NOBODY];
    assert_eq!(portcullis(&check).status.code(), Some(1));
    assert_eq!(portcullis(&["check-health", "--server", NOBODY]).status.code(), Some(1));
}

#[test]
fn help_and_version_are_status_0() {
    for args in [&["--help"][..], &["--version"], &["help", "rules"], &["groups", "replace", "--help"]] {
        let output = portcullis(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn completions_are_there_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = portcullis(&["completions", shell]);
        assert!(output.status.success());
        let script = std::str::from_utf8(&output.stdout).unwrap();
        assert!(script.contains("check-health") && script.contains("reorder"), "{shell}");
    }
}

/// `portcullis … | head` must not end in an error.
#[test]
fn reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut message = String::new();
    child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    assert_eq!((child.wait().unwrap().code(), message.as_str()), (Some(0), ""));
}

/// The hazard: a person is told that something is wrong, and not how to write it.
#[test]
fn wrong_usage_is_told_with_what_to_write() {
    let update = ["rules", "update", "office"];
    for (usage, says) in [
        (&["policy", "plan", "-", "--replay", "10"][..], "`10s`, `10m`, `10h` or `10d`"),
        (&["policy", "plan", "-", "--replay", "10seconds"], "write `10s`"),
        (&[&update[..], &["--expire-time", "2026-11-30"]].concat(), "`2026-11-30T00:00:00Z`"),
        (&[&update[..], &["--expire-time", "2026-11-30 18:00"]].concat(), "`2026-11-30T18:00:00Z`"),
        (&[&update[..], &["--disabled", "false"]].concat(), "`--disabled=false`"),
        (&["rules", "create", "--action", "deny"], "--group"),
        (&["groups", "update", "office", "--range", "192.0.2.1"], "`portcullis groups add`"),
        (&["audit", "list", "--since", "10"], "`10h`"),
    ] {
        let output = portcullis(usage);
        assert_eq!(output.status.code(), Some(2), "{usage:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{usage:?}: {says} in {}", stderr(&output));
        assert!(!stderr(&output).contains("'-- --"), "{usage:?}: {}", stderr(&output));
    }
}

#[test]
fn times_and_durations_are_written_in_several_ways() {
    let connection = ["--ip", "192.0.2.1", "--type", "shell", "--endpoint", "organization"];
    let update = ["rules", "update", "office"];
    for usage in [
        [&["explain"], &connection[..], &["--at", "+2h"]].concat(),
        [&["explain"], &connection[..], &["--at", "2h"]].concat(),
        [&update[..], &["--expire-time", "2h"]].concat(),
        [&update[..], &["--expire-time", "+7d"]].concat(),
        [&update[..], &["--expire-time", "none"]].concat(),
        [&update[..], &["--disabled=false", "--confirm-within", "7d"]].concat(),
        ["rules", "create", "--action", "deny", "--range", "any", "--expire-time", "never"].to_vec(),
    ] {
        // Nobody answers: it was understood.
        let output = portcullis(&[&usage[..], &["--server", NOBODY]].concat());
        assert_eq!(output.status.code(), Some(1), "{usage:?}: {}", stderr(&output));
    }
}

/// The hazard: what refuses nothing is listed among what refuses.
#[test]
fn what_passes_over_a_refusal_is_no_gate() {
    let output = portcullis(&["policy", "apply", "--help"]);
    let help = std::str::from_utf8(&output.stdout).unwrap();
    let gates = help.split("\nGates:").nth(1).unwrap().split("\n\n").next().unwrap();
    assert!(gates.contains("--guard-ip") && !help.split("\nGates:").nth(1).unwrap().contains("--force"), "{help}");
    let options = help.split("\nChange options:").nth(1).unwrap().split("\nGates:").next().unwrap();
    assert!(options.contains("--force") && options.contains("--override-tests"), "{help}");
}
