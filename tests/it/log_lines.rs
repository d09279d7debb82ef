//! What an operator finds in the log, and what nobody does: personal data.
//!
//! Invariant: every change has a line; denials and refusals have one a minute and one at the end.
//! Not here: what becomes of the lines (`logs`).

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::{Action, ChangeOptions, CheckRequest, ConnectionType, CreateRuleRequest};
use serde_json::Value;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::audit_api::check_of;
use crate::harness::{assert_error, rule};
use crate::process::Process;

const DEFAULT: &str = "organizations/default";

fn lines_with(log: &str, text: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"].as_str().is_some_and(|message| message.contains(text))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_denials_and_refusals_are_told_without_personal_data() {
    let temporary = tempfile::tempdir().unwrap();
    let socket = temporary.path().join("socket");
    let service = Process::start_with(&temporary.path().join("data"), &["--listen-unix", socket.to_str().unwrap()]);
    let tcp = service.connect().await;
    let unix = Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap().connect().await.unwrap();
    for (channel, range) in [(&tcp, "198.51.100.0/24"), (&unix, "203.0.113.0/24")] {
        let request = CreateRuleRequest {
            parent: DEFAULT.to_owned(),
            rule: Some(rule(Action::Deny, range)),
            options: Some(ChangeOptions { comment: "asked by eve@example.com".to_owned(), ..ChangeOptions::default() }),
            ..CreateRuleRequest::default()
        };
        FirewallServiceClient::new(channel.clone()).create_rule(request).await.unwrap();
    }
    let mut decisions = DecisionServiceClient::new(tcp.clone());
    let ask = |ip: &str, endpoint: &str| check_of("ada@example.com", ip, ConnectionType::Shell, endpoint);
    for (ip, endpoint) in [
        ("198.51.100.7", DEFAULT),
        ("203.0.113.7", DEFAULT),
        ("192.0.2.1", "organizations/unknown"),
        ("192.0.2.1", DEFAULT),
    ] {
        decisions.check(ask(ip, endpoint)).await.unwrap();
    }
    for ip in ["203.0.113.300", "bob@example.com"] {
        assert_error(decisions.check(ask(ip, DEFAULT)).await, Code::InvalidArgument, "INVALID_FIELD");
    }
    let stream = tokio_stream::iter([ask("bob@example.com", DEFAULT), CheckRequest::default()]);
    let mut answers = decisions.stream_check(stream).await.unwrap().into_inner();
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(answer.error.is_some());
    }
    let missing = FirewallServiceClient::new(tcp.clone())
        .create_rule(CreateRuleRequest { parent: "organizations/nobody".to_owned(), ..CreateRuleRequest::default() })
        .await;
    assert_error(missing, Code::NotFound, "NOT_FOUND");

    let (status, log) = service.terminate_within(Duration::from_secs(30)).await;
    assert_eq!(status.code(), Some(0), "{log}");
    let changes = lines_with(&log, "policy changed");
    assert_eq!(changes.len(), 2, "{log}");
    for (change, (revision, actor)) in changes.iter().zip([(2, None), (3, Some("unix socket"))]) {
        assert_eq!(change["level"], "INFO");
        assert_eq!(change["organization"], "default");
        assert_eq!(change["revision"], revision);
        assert_eq!(change["kind"], "insert_rule");
        assert_eq!(change["actor"].as_str(), actor);
        assert_eq!(change["via"], if actor.is_some() { "unix" } else { "tcp" });
    }
    let denials = lines_with(&log, "denied 3 times in the last ");
    assert_eq!(denials.len(), 1, "{log}");
    let denials = denials[0]["message"].as_str().unwrap();
    assert!(denials.ends_with(" s: firewall_blocked 2, unknown_endpoint 1"), "{denials}");
    let refusals = lines_with(&log, "refused calls 5 times in the last ");
    assert_eq!(refusals.len(), 1, "{log}");
    let refusals = refusals[0]["message"].as_str().unwrap();
    for part in ["Check INVALID_FIELD `ip` 2", "StreamCheck INVALID_FIELD `ip` 2", "CreateRule NOT_FOUND 1"] {
        assert!(refusals.contains(part), "{refusals}");
    }
    for personal in ["example.com", "198.51.100", "203.0.113", "192.0.2.1"] {
        assert!(!log.contains(personal), "{personal} in:\n{log}");
    }
}

#[test]
fn serving_beyond_loopback_without_protection_is_warned_about() {
    let temporary = tempfile::tempdir().unwrap();
    for (listen, is_warned) in [("0.0.0.0:0", true), ("[::]:0", true), ("127.0.0.1:0", false)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["serve", "--insecure", "--log-format", "json", "--listen", listen, "--data-dir"])
            .arg(temporary.path().join(listen))
            .env_remove("PORTCULLIS_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut log: Vec<String> = Vec::new();
        while !log.last().is_some_and(|line| line.contains("serving gRPC")) {
            log.push(lines.next().unwrap_or_else(|| panic!("{listen}: it does not serve: {log:?}")));
        }
        let signal = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
        assert!(signal.success());
        log.extend(lines);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let warnings = log.iter().filter(|line| line.contains("neither TLS nor authentication"));
        let warnings: Vec<Value> = warnings.map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(warnings.len(), usize::from(is_warned), "{listen}: {log:?}");
        assert!(
            warnings
                .iter()
                .all(|line| line["level"] == "WARN" && line["message"].as_str().unwrap().contains("--insecure"))
        );
    }
}
