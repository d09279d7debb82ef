//! What the command line calls things in its errors.
//!
//! The hazard: a person at the command line is told to set a field of the API, which no command has.
//!
//! Invariant: no error names a field that a flag stands for.
//! Not here: the faults of files, which have keys (`policy_file_faults`).

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::harness::{Service, command_line};

/// Runs the program without input. Returns its status and its standard error.
async fn run(service: &Service, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments).args(["--server", &service.address().to_string()]).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

async fn done(service: &Service, arguments: &[&str]) {
    let (status, told) = run(service, arguments).await;
    assert_eq!(status, Some(0), "{arguments:?}: {told}");
}

/// The names of the fields of requests, of two words and more: those of one word are words of the language as well.
fn fields() -> BTreeSet<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/portcullis/v1");
    let mut fields = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.starts_with("  ")) {
            let Some((declared, _)) = line.split_once(" = ") else { continue };
            fields.extend(declared.split_whitespace().last().filter(|name| name.contains('_')).map(str::to_owned));
        }
    }
    assert!(fields.contains("override_tests") && fields.contains("guard_ips"), "{fields:?}");
    fields
}

/// The words of a text that may be fields.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_').collect()
}

async fn a_policy(service: &Service) {
    for command in [
        "groups create office --range 203.0.113.0/24",
        "groups create other",
        "rules create --id office --action allow --group office",
        "rules create --id rest --action deny --range any",
        "nodes create projects/web --access allow-list --range 203.0.113.0/24",
        "nodes create projects/web/workspaces/main",
        "policy tests create --id t --ip 203.0.113.7 --type shell --endpoint projects/web --expect allow",
        "nodes update organizations/default --gates-guard-ip 203.0.113.7 --gates-refuse-open-to-internet",
    ] {
        done(service, &command.split(' ').collect::<Vec<_>>()).await;
    }
}

#[tokio::test]
async fn no_error_names_a_field_of_the_api() {
    let service = Service::start().await;
    a_policy(&service).await;
    let fields = fields();
    let failing = [
        ("rules delete rest", "`portcullis nodes update organizations/default --gates-refuse-open-to-internet=false`"),
        ("rules delete office", "`portcullis nodes update organizations/default --gates-guard-ip none`"),
        ("rules update office --action deny", "`portcullis nodes update organizations/default --gates-guard-ip none`"),
        ("rules move rest 1", "`portcullis nodes update organizations/default --gates-guard-ip none`"),
        ("rules update office --expire-time never --range 203.0.113.8/24", "--range: "),
        ("rules create --action deny --range 10.0.0.1/8", "--range: "),
        ("rules create --action deny --group nobody", "--group: "),
        ("rules create --action deny --range any --id Bad_Id", "--id: "),
        ("rules create --action deny --range any --position 99", "--position: "),
        ("rules create --action deny --range any --guard-ip nobody", "--guard-ip: "),
        ("rules create --action deny --range any --max-revocations -1", ""),
        ("rules create --action deny --range any --confirm-within 1ms", "--confirm-within: "),
        ("rules get Bad_Id", "RULE: "),
        ("rules list --organization Bad_Id", "--organization: "),
        ("rules reorder rest", ""),
        ("nodes delete projects/web", "`--force`"),
        ("nodes delete projects/web/workspaces/none", ""),
        ("nodes update projects/web --gates-guard-ip 203.0.113.7", ""),
        ("nodes update projects/web --require-projects", "--require-projects: "),
        ("nodes update organizations/default --gates-guard-ip nobody", "--gates-guard-ip: "),
        ("nodes update cluster --confirm-within 5m --access allow-all", "`--confirm-within`"),
        ("groups create Bad_Id", ""),
        ("groups delete office", ""),
        ("groups update nobody --description x", ""),
        ("policy tests create --ip nobody --type shell --endpoint projects/web --expect allow", "--ip: "),
        ("policy tests create --ip 192.0.2.1 --type shell --endpoint projects/web --expect allow", ""),
        ("check --ip nobody --type shell --endpoint projects/web", "--ip: "),
        ("check --ip 192.0.2.1 --type shell --endpoint projects/Bad_Id", "--endpoint: "),
        ("revisions rollback 1", ""),
        ("revisions get 99", ""),
        ("shadow promote", ""),
        ("sessions end none", ""),
        ("audit list --ip-range nobody", "--ip-range: "),
    ];
    for (command, says) in failing {
        let (status, told) = run(&service, &command.split(' ').collect::<Vec<_>>()).await;
        assert!(matches!(status, Some(1..=3)), "{command}: {status:?} {told}");
        assert!(told.contains(says), "{command}: {says} in {told}");
        let named: Vec<_> = words(&told).into_iter().filter(|word| fields.contains(*word)).collect();
        assert!(named.is_empty(), "{command} names {named:?}: {told}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_test_that_a_change_breaks_is_overridden_by_a_flag() {
    let service = Service::start().await;
    a_policy(&service).await;
    done(&service, &["nodes", "update", "organizations/default", "--no-gates"]).await;
    let delete = ["rules", "update", "office", "--action", "deny"];
    let (status, told) = run(&service, &delete).await;
    assert!(status == Some(3) && told.contains("`--override-tests`"), "{told}");
    done(&service, &[&delete[..], &["--override-tests"]].concat()).await;
    service.stop().await;
}

/// The hazard: an id or a value that somebody chose is shown as a flag.
#[tokio::test]
async fn what_was_typed_is_shown_as_it_was_typed() {
    let service = Service::start().await;
    for command in [
        "rules create --id range --action allow --range 203.0.113.0/24",
        "rules create --id rules --action deny --range any",
        "policy tests create --id force --ip 203.0.113.7 --type shell --endpoint organization --expect allow",
        "policy tests create --id rules --ip 203.0.113.8 --type shell --endpoint organization --expect allow",
    ] {
        done(&service, &command.split(' ').collect::<Vec<_>>()).await;
    }
    for (command, says) in [
        ("rules delete range", "`force` (must be allowed, and is denied by rule `rules`), `rules` (must be allowed"),
        ("rules create --action deny --range force", "--range: `force` is not an address"),
        ("rules create --action deny --range ACTION_DENY", "`ACTION_DENY` is not an address"),
        ("rules get force", "`organizations/default/rules/force` does not exist"),
        ("rules create --id rules --action deny --range any", "`organizations/default/rules/rules` exists already"),
        ("groups get guard-ip", "`organizations/default/addressGroups/guard-ip` does not exist"),
    ] {
        let (status, told) = run(&service, &command.split(' ').collect::<Vec<_>>()).await;
        assert!(status != Some(0) && told.contains(says), "{command}: {says} in {told}");
    }
    service.stop().await;
}

/// The hazard: an option is blamed that nobody gave, or a gate that does not refuse; advice that fails when it is typed.
#[tokio::test]
async fn the_gate_that_refuses_is_named_and_its_advice_can_be_typed() {
    let service = Service::start().await;
    a_policy(&service).await;
    let (status, told) = run(&service, &["rules", "delete", "office"]).await;
    assert!(status == Some(3) && !told.contains("`--guard-ip`"), "{told}");
    let advised = told.split("(`portcullis ").nth(1).unwrap().split('`').next().unwrap();
    done(&service, &advised.split(' ').collect::<Vec<_>>()).await;
    let guarded = ["rules", "delete", "office", "--guard-ip", "203.0.113.7", "--override-tests"];
    let (status, told) = run(&service, &guarded).await;
    assert!(status == Some(3) && told.contains("leave the address out of `--guard-ip`"), "{told}");
    assert!(!told.contains("portcullis nodes update"), "{told}");
    let (status, told) = run(&service, &["rules", "delete", "rest"]).await;
    assert_eq!(status, Some(3), "{told}");
    let advised = told.split("(`portcullis ").nth(1).unwrap().split('`').next().unwrap();
    done(&service, &advised.split(' ').collect::<Vec<_>>()).await;
    done(&service, &["rules", "delete", "rest"]).await;
    service.stop().await;
}

/// The hazard: a node cannot be asked about, and a flag is blamed that nobody typed.
#[tokio::test]
async fn a_node_is_a_parent_where_the_api_can_be_asked_about_one() {
    let service = Service::start().await;
    a_policy(&service).await;
    done(&service, &["check", "--ip", "203.0.113.7", "--type", "shell", "--endpoint", "projects/web"]).await;
    for command in ["sessions list projects/web", "events projects/web", "audit list projects/web --rule office"] {
        done(&service, &command.split(' ').collect::<Vec<_>>()).await;
    }
    for (command, status, says) in [
        ("events projects/web --follow", 2, "PARENT: `organizations/default/projects/web` is inside an organization"),
        ("overview projects/web", 2, "PARENT: "),
        ("sessions list projects/web --endpoint projects/web", 2, "give one of them"),
        ("audit list Bad_Id", 1, "PARENT: "),
        ("sessions list organizations/default/rules/office", 2, "PARENT: "),
        ("nodes list organizations/Bad_Id", 1, "NODE: "),
        ("nodes get organization", 2, "write `organizations/default`"),
    ] {
        let (ended, told) = run(&service, &command.split(' ').collect::<Vec<_>>()).await;
        assert_eq!(ended, Some(status), "{command}: {told}");
        assert!(told.contains(says), "{command}: {says} in {told}");
        assert_eq!(told.lines().filter(|line| line.starts_with("  ")).count(), usize::from(status == 1), "{told}");
    }
    service.stop().await;
}

/// Runs the program with a file on its standard input. Returns its status, its output and its standard error.
async fn with_file(service: &Service, arguments: &[&str], file: &str) -> (Option<i32>, String, String) {
    let output = command_line(service, arguments, file).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The hazard: the plan of the change that most needs to be seen cannot be seen.
#[tokio::test]
async fn a_plan_that_needs_force_is_shown_and_says_so() {
    let service = Service::start().await;
    a_policy(&service).await;
    done(&service, &["policy", "tests", "delete", "t"]).await;
    done(&service, &["nodes", "update", "organizations/default", "--no-gates"]).await;
    done(&service, &["nodes", "update", "organizations/default", "--require-projects=false"]).await;
    let file = "nodes:\n  - {node: organization}\n";
    let plan = ["policy", "plan", "-", "--output", "table"];
    let (status, shown, told) = with_file(&service, &plan, file).await;
    assert_eq!(status, Some(1), "{shown}{told}");
    assert!(shown.contains("would delete organizations/default/projects/web"), "{shown}");
    assert!(told.contains("error: making the change needs `--force`"), "{told}");
    let (status, _, told) = with_file(&service, &["policy", "apply", "-"], file).await;
    assert_eq!(status, Some(1), "{told}");
    let (status, shown, told) = with_file(&service, &[&plan[..], &["--force"]].concat(), file).await;
    assert!(status == Some(0) && shown.contains("would delete") && told.is_empty(), "{shown}{told}");
    let delete = ["nodes", "delete", "projects/web", "--preview", "--output", "table"];
    let (status, shown, told) = with_file(&service, &delete, "").await;
    assert!(status == Some(1) && shown.contains("would delete") && told.contains("`--force`"), "{shown}{told}");
    service.stop().await;
}

/// The hazard: what a server finds in a file comes in another order and form than what is found without it.
#[tokio::test]
async fn faults_that_the_server_finds_are_told_like_all_others() {
    let service = Service::start().await;
    let long = "x".repeat(1_100);
    let file = format!(
        "tests:\n  - {{ip: 192.0.2.1, type: shell, endpoint: organization, expect: allow, description: {long}}}\nrules:\n  \
         - {{action: deny, range: any, description: {long}}}\n  - {{action: deny, group: nobody}}\n"
    );
    let (status, _, told) = with_file(&service, &["policy", "apply", "-"], &file).await;
    assert_eq!(status, Some(1), "{told}");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "error: standard input has 3 faults");
    let starts = ["  -:2:86: tests[0].description: ", "  -:4:45: rules[0].description: ", "  -:5:27: rules[1].group: "];
    assert!(lines.len() == 4 && lines[1..].iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{told}");
    let one = "rules:\n  - {action: deny, group: nobody}\n";
    let (_, _, told) = with_file(&service, &["policy", "apply", "-"], one).await;
    assert!(told.starts_with("error: -:2:27: rules[0].group: ") && told.lines().count() == 1, "{told}");
    service.stop().await;
}

/// The hazard: what was exported is refused. A group without ranges is one that has `ranges: []`.
#[tokio::test]
async fn what_was_exported_can_be_applied() {
    let service = Service::start().await;
    a_policy(&service).await;
    for arguments in [&["policy", "export"][..], &["policy", "export", "--omit-ranges"]] {
        let (status, file, told) = with_file(&service, arguments, "").await;
        assert_eq!(status, Some(0), "{told}");
        let (status, _, told) = with_file(&service, &["policy", "plan", "-", "--exit-code"], &file).await;
        assert_eq!(status, Some(0), "{told}{file}");
    }
    let (status, _, told) = with_file(&service, &["rules", "replace", "--file", "-"], "rules:\n").await;
    assert!(status == Some(2) && told.contains("`rules: []`") && !told.contains("leave the line out"), "{told}");
    service.stop().await;
}

/// The hazard: a flag that the help offers and the command refuses.
#[test]
fn the_help_of_what_asks_no_server_offers_no_flag_of_a_client() {
    let help = |name: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_portcullis")).args([name, "--help"]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    for local in ["serve", "restore", "completions"] {
        let help = help(local);
        assert!(!help.contains("--server") && !help.contains("--output") && !help.contains("Client options"), "{help}");
    }
    assert!(help("check").contains("--server"));
    let refused = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["restore", "x", "--data-dir", "y", "--output", "json"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("`--output` is for commands that ask a server, and `restore` does not"), "{told}");
}
