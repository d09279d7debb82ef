//! What the command line calls things in its errors.
//!
//! The hazard: a person at the command line is told to set a field of the API, which no command has.
//!
//! Invariant: no error names a field that a flag stands for.
//! Not here: the faults of files, which have keys (`policy_file_faults`).

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::harness::Service;

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
        ("rules delete rest", "`--refuse-open-to-internet`"),
        ("rules delete office", "`--guard-ip`"),
        ("rules update office --action deny", "`--guard-ip`"),
        ("rules move rest 1", "`--guard-ip`"),
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
