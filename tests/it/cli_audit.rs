//! The command line over the audit log and the sessions, against a running server and on copied files.
//!
//! Invariant: what programs read is JSON or CSV that parses; the exit status alone tells how it went.
//! Not here: how arguments are parsed (`cli_parse`).

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use portcullis::proto::v1::{Action, ConnectionType};
use serde_json::Value;

use crate::audit_api::check_of;
use crate::clock::PATIENCE;
use crate::harness::Service;

const DEFAULT: &str = "organizations/default";

fn command(server: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(args).env_clear().env("PORTCULLIS_SERVER", server).stdin(Stdio::null());
    command
}

async fn run(server: &str, args: &[&str]) -> Output {
    let mut command = command(server, args);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn filled() -> Service {
    let service = Service::start().await;
    service.add_rule("bad", Action::Deny, "203.0.113.0/24").await;
    for (email, ip) in
        [("ada@example.com", "192.0.2.1"), ("=cmd@example.com", "203.0.113.9"), ("bob@example.com", "192.0.2.2")]
    {
        let request = check_of(email, ip, ConnectionType::Shell, DEFAULT);
        service.decisions().check(request).await.unwrap();
    }
    service
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_sees_lists_exports_and_ends() {
    let service = filled().await;
    let server = service.address().to_string();
    let overview = json(&run(&server, &["overview"]).await);
    assert_eq!(
        overview["denialsLastHour"].as_str().or(overview["denialsLastHour"].as_i64().map(|_| "1")),
        Some("1"),
        "{overview}"
    );
    let listed = json(&run(&server, &["sessions", "list"]).await);
    let sessions = listed["sessions"].as_array().unwrap();
    let emails: Vec<&str> = sessions.iter().map(|session| session["userEmail"].as_str().unwrap()).collect();
    assert_eq!(emails, ["bob@example.com", "ada@example.com"]);
    let bob = sessions[0]["name"].as_str().unwrap();
    let ended = run(&server, &["sessions", "end", bob]).await;
    assert!(ended.status.success() && text(&ended).contains("CLOSED"), "{}", text(&ended));
    let active = json(&run(&server, &["sessions", "list", "--state", "active", "--user", "bob@example.com"]).await);
    assert!(active["sessions"].as_array().is_none_or(Vec::is_empty), "{active}");

    let denied = json(&run(&server, &["audit", "list", "--decision", "deny", "--ip-range", "203.0.113.0/24"]).await);
    assert_eq!(denied["auditRecords"].as_array().unwrap().len(), 1);
    let table = text(&run(&server, &["audit", "list", "--output", "table"]).await);
    assert!(table.contains("203.0.113.9") && table.contains("ada@example.com"), "{table}");

    let lines = run(&server, &["audit", "export", "--format", "jsonl"]).await;
    let records: Vec<Value> =
        String::from_utf8(lines.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The organization, the rule, three checks, one end.
    assert_eq!(records.len(), 6, "{records:?}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("records.csv");
    let exported = run(&server, &["audit", "export", "--format", "csv", "--file", file.to_str().unwrap()]).await;
    assert!(exported.status.success(), "{}", text(&exported));
    let csv = std::fs::read_to_string(file).unwrap();
    assert_eq!(csv.lines().count(), 7, "{csv}");
    assert!(csv.starts_with("sequence,") && csv.contains("'=cmd@example.com"), "no formula for a spreadsheet: {csv}");

    let newest = run(&server, &["events", "--limit", "2"]).await;
    let newest: Vec<Value> =
        String::from_utf8(newest.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(newest.len(), 2);
    let refused = run(&server, &["audit", "erase-user", "ada@example.com"]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    let erased = json(&run(&server, &["audit", "erase-user", "ada@example.com", "--yes"]).await);
    assert!(erased.to_string().contains("openingCount"), "{erased}");
    let revisions = text(&run(&server, &["revisions", "list", "--output", "table"]).await);
    assert!(revisions.contains("127.0.0.1"), "{revisions}");
    let erase = ["audit", "erase-user", "127.0.0.1", "--including-actor", "--yes"];
    let erased = run(&server, &erase).await;
    assert!(erased.status.success(), "{}", text(&erased));
    let revisions = text(&run(&server, &["revisions", "list", "--output", "table"]).await);
    assert!(!revisions.contains("127.0.0.1"), "{revisions}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_follow_as_lines_of_json_in_a_pipe() {
    let service = filled().await;
    let server = service.address().to_string();
    let mut child = command(&server, &["events", "--follow", "--after-sequence", "0", "--type", "decision"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, mut received) = tokio::sync::mpsc::channel(4);
    let reader = tokio::task::spawn_blocking(move || {
        for line in lines.take(4) {
            sender.blocking_send(serde_json::from_str::<Value>(&line.unwrap()).unwrap()).unwrap();
        }
    });
    let mut next =
        async || tokio::time::timeout(PATIENCE, received.recv()).await.unwrap().expect("the command goes on");
    let mut events = Vec::new();
    // What was there before is out: from here on it follows.
    for _ in 0..3 {
        events.push(next().await);
    }
    let late = check_of("late@example.com", "203.0.113.1", ConnectionType::Shell, DEFAULT);
    service.decisions().check(late).await.unwrap();
    events.push(next().await);
    reader.await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(events.len(), 4);
    assert!(events[3].to_string().contains("late@example.com"), "{:?}", events[3]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denials_and_revocations_read_for_people_after_their_rules_are_gone() {
    let service = Service::start().await;
    let server = service.address().to_string();
    let run = async |args: &[&str]| {
        let output = run(&server, args).await;
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let check = async |email: &str, ip: &str| {
        let request = check_of(email, ip, ConnectionType::Shell, DEFAULT);
        service.decisions().check(request).await.unwrap();
    };
    check("open@example.com", "198.51.100.9").await;
    let attackers = ["--action", "deny", "--range", "198.51.100.0/24", "--description", "known attackers"];
    run(&[&["rules", "create", "--id", "bad"][..], &attackers].concat()).await;
    run(&["groups", "create", "listed", "--range", "203.0.113.0/24"]).await;
    let long = "x".repeat(1_024);
    let listed = ["--action", "deny", "--group", "listed", "--description", &long];
    run(&[&["rules", "create", "--id", "by-group"][..], &listed].concat()).await;
    check("eve@example.com", "198.51.100.7").await;
    check("mallory@example.com", "203.0.113.7").await;
    run(&["rules", "update", "bad", "--description", "nobody", "--range", "192.0.2.0/24"]).await;
    for rule in ["bad", "by-group"] {
        run(&["rules", "delete", rule]).await;
    }

    let by_range = "deny 198.51.100.0/24 \"known attackers\" (bad)";
    let by_group = format!("deny group listed \"{}…\" (by-group)", "x".repeat(48));
    for args in [
        &["overview", "--output", "table"][..],
        &["audit", "list", "--decision", "deny", "--output", "table"],
        &["events", "--type", "decision", "--output", "table"],
    ] {
        let shown = run(args).await;
        let line = |user: &str| shown.lines().find(|line| line.contains(user)).unwrap_or_else(|| panic!("{shown}"));
        assert!(line("eve@example.com").contains(by_range), "{shown}");
        assert!(line("mallory@example.com").contains(&by_group), "{shown}");
        assert!(!shown.contains("nobody") && shown.lines().all(|line| line.chars().count() < 260), "{shown}");
    }
    let revoked = run(&["events", "--type", "session-revoked", "--output", "table"]).await;
    assert!(revoked.contains(by_range), "{revoked}");
    let sessions = run(&["sessions", "list", "--output", "table"]).await;
    assert!(sessions.contains("REVOKED BY") && sessions.contains(by_range), "{sessions}");
    // Programs get all of it.
    let overview: Value = serde_json::from_str(&run(&["overview", "--output", "json"]).await).unwrap();
    let event = &overview["firewallEvents"][0];
    assert_eq!(event["ruleSource"], format!("{DEFAULT}/addressGroups/listed"));
    assert_eq!(event["ruleDescription"], long);
    let csv = run(&["audit", "export", "--format", "csv"]).await;
    assert!(csv.lines().next().unwrap().ends_with(",rule_source,rule_description"), "{csv}");
    assert_eq!(csv.lines().filter(|line| line.ends_with(",198.51.100.0/24,known attackers")).count(), 2, "{csv}");
    let lines = run(&["audit", "export", "--format", "jsonl", "--decision", "deny"]).await;
    assert!(lines.contains(&format!("\"ruleDescription\":\"{long}\"")), "{lines}");
    let session: Value = serde_json::from_str(&run(&["sessions", "list", "--output", "json"]).await).unwrap();
    assert_eq!(session["sessions"][0]["revokeRuleDescription"], "known attackers");
    service.stop().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_tells_by_its_status_whether_the_log_is_intact_with_a_server_and_without() {
    let service = filled().await;
    let server = service.address().to_string();
    // The rule, three checks and the sessions of two of them.
    crate::audit_watch::signed_size(&service.channel, 6).await;
    let online = run(&server, &["audit", "verify"]).await;
    assert!(online.status.success(), "{}", text(&online));
    let directory = tempfile::tempdir().unwrap();
    let note = directory.path().join("note");
    std::fs::write(&note, run(&server, &["audit", "checkpoint"]).await.stdout).unwrap();
    let key = std::fs::read_to_string(service.data_dir().join("audit.pub")).unwrap();
    // While the server runs: a copy is verified, the original is in use.
    let copied = directory.path().join("copy");
    copy(service.data_dir(), &copied);
    let offline = async |data_dir: &Path| {
        let args =
            ["audit", "verify", "--data-dir", data_dir.to_str().unwrap(), "--public-key", key.trim(), "--checkpoint"];
        let args: Vec<&str> = args.into_iter().chain([note.to_str().unwrap()]).collect();
        run("127.0.0.1:1", &args).await
    };
    let intact = offline(&copied).await;
    assert!(intact.status.success(), "{}", text(&intact));
    assert_eq!(json(&intact)["intact"], Value::Bool(true));

    // Cut off behind the checkpoint: status 1, and the sequence is named.
    let wal = std::fs::read_dir(copied.join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .unwrap();
    let bytes = std::fs::read(&wal).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    std::fs::write(&wal, &bytes[..written - 40]).unwrap();
    let cut = offline(&copied).await;
    assert_eq!(cut.status.code(), Some(1), "{}", text(&cut));
    let fault = &serde_json::from_slice::<Value>(&cut.stdout).unwrap()["faults"][0];
    assert!(fault["sequence"].to_string().contains('6'), "{fault}");
    let wrong =
        run("127.0.0.1:1", &["audit", "verify", "--data-dir", copied.to_str().unwrap(), "--public-key", "no key"])
            .await;
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
    service.stop().await;
}
