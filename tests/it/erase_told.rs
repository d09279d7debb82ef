//! What an erasure tells whoever asks for it, and what becomes of the sessions that it leaves without a user.
//!
//! Invariant: nothing that is told names the person who was erased.
//! Not here: what is erased (`audit_tamper`, `audit_actor`), erasures that are interrupted (`erase_kill`).

use std::process::{Command, Output};

use portcullis::proto::v1::audit_service_client::AuditServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{
    Action, AuditRecord, AuditType, ConnectionType, EraseUserRequest, ListAuditRecordsRequest, Reason,
    audit_record::Content,
};
use serde_json::Value;
use tonic::transport::Channel;

use crate::audit_api::check_of;
use crate::clock::until;
use crate::harness::Service;
use crate::process::Process;

const DEFAULT: &str = "organizations/default";
const PERSON: &str = "ada@example.com";

async fn cli(server: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(args).env_clear().env("PORTCULLIS_SERVER", server);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn notes(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The revocations on record, once there are so many.
async fn revocations(channel: &Channel, count: usize) -> Vec<AuditRecord> {
    let types = vec![AuditType::SessionRevoked.into()];
    let request = ListAuditRecordsRequest { parent: DEFAULT.to_owned(), types, ..Default::default() };
    until("sessions are revoked", async || {
        let listed = AuditServiceClient::new(channel.clone()).list_audit_records(request.clone()).await;
        let records = listed.unwrap().into_inner().audit_records;
        (records.len() >= count).then_some(records)
    })
    .await
}

fn reason(record: &AuditRecord) -> Reason {
    match &record.content {
        Some(Content::Session(session)) => session.revoke_reason(),
        other => panic!("{other:?} is no session"),
    }
}

async fn open_sessions(channel: &Channel) {
    let mut decisions = DecisionServiceClient::new(channel.clone());
    for number in 1..=3 {
        let request = check_of(PERSON, &format!("192.0.2.{number}"), ConnectionType::Shell, DEFAULT);
        decisions.check(request).await.unwrap();
    }
    let other = check_of("bob@example.com", "192.0.2.9", ConnectionType::Shell, DEFAULT);
    decisions.check(other).await.unwrap();
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", notes(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The hazard: sessions that nobody can find any more, and that go with a reason that is not true.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_without_a_user_are_told_and_revoked_with_the_true_reason() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path());
    open_sessions(&process.connect().await).await;
    let erase = ["audit", "erase-user", PERSON, "--parent", "cluster", "--yes"];
    let erased = cli(&process.address, &erase).await;
    let answer = json(&erased);
    assert_eq!((&answer["openingCount"], &answer["sessionCount"]), (&"3".into(), &"3".into()), "{answer}");
    let told = "note: 3 active sessions have no user now, and will be revoked by the next change or restart\n";
    assert_eq!(notes(&erased), told);
    let (status, log) = process.terminate();
    assert!(status.success(), "{log}");
    let finished = log.lines().find(|line| line.contains("an erasure is finished")).unwrap_or_else(|| panic!("{log}"));
    assert!(finished.contains("\"openings\":3"), "{finished}");

    let process = Process::start(directory.path());
    let revoked = revocations(&process.connect().await, 3).await;
    assert_eq!(revoked.iter().map(reason).collect::<Vec<_>>(), [Reason::AddressErased; 3]);
    let (status, restarted) = process.terminate();
    assert!(status.success());
    // The first look of the first start may come after the erasure.
    let mut lines = log.lines().chain(restarted.lines());
    let line = lines.find(|line| line.contains("sessions are revoked")).unwrap_or_else(|| panic!("{log}{restarted}"));
    assert!(line.contains("\"sessions\":3") && line.contains("\"erased\":3"), "{line}");
    assert!(!log.contains(PERSON) && !restarted.contains(PERSON));
}

/// A change revokes them, too, beside those that it denies; a session whose organization is gone was not erased.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_revokes_each_session_for_its_own_reason() {
    let service = Service::start().await;
    open_sessions(&service.channel).await;
    let request =
        EraseUserRequest { parent: DEFAULT.to_owned(), user_email: PERSON.to_owned(), ..EraseUserRequest::default() };
    let erased = service.audit().erase_user(request.clone()).await.unwrap().into_inner();
    assert_eq!((erased.opening_count, erased.session_count), (Some(3), Some(3)));
    service.add_rule("bad", Action::Deny, "192.0.2.9").await;
    let mut reasons: Vec<Reason> = revocations(&service.channel, 4).await.iter().map(reason).collect();
    reasons.sort_by_key(Reason::as_str_name);
    assert_eq!(reasons, [Reason::AddressErased, Reason::AddressErased, Reason::AddressErased, Reason::DenyRule]);
    let again = service.audit().erase_user(request).await.unwrap().into_inner();
    assert_eq!((again.opening_count, again.session_count), (Some(0), Some(0)), "what is revoked is not told again");
    service.stop().await;
}

/// The hazard: a misspelled email looks like an erasure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_of_nobody_is_warned_about_and_has_its_count() {
    let service = Service::start().await;
    let server = service.address().to_string();
    let erased = cli(&server, &["audit", "erase-user", "typo@example.com", "--yes"]).await;
    assert_eq!(json(&erased)["openingCount"], "0");
    assert!(notes(&erased).starts_with("warning: nobody of that name is on the record"), "{}", notes(&erased));
    service.stop().await;
}

/// The hazard: an empty list is taken for "there were none".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_an_organization_says_which_types_only_the_cluster_has() {
    let service = Service::start().await;
    let server = service.address().to_string();
    let erase = ["audit", "erase-user", PERSON, "--parent", "cluster", "--yes"];
    assert!(cli(&server, &erase).await.status.success());
    let list = async |args: &[&str]| {
        let listed = cli(&server, &[&["audit", "list"], args].concat()).await;
        (json(&listed)["auditRecords"].as_array().unwrap().len(), notes(&listed))
    };
    let (count, told) = list(&["--type", "erased"]).await;
    assert!(count == 0 && told.contains("ask for them with `cluster` as PARENT"), "{told}");
    assert_eq!(list(&["cluster", "--type", "erased"]).await, (1, String::new()));
    for only in ["gap", "pruned", "clock-changed", "key-changed", "restored"] {
        let (_, told) = list(&["--type", only]).await;
        assert!(told.contains(&format!("`{only}` belong to no organization")), "{told}");
        assert_eq!(list(&["cluster", "--type", only]).await.1, "");
    }
    assert_eq!(list(&["--type", "decision"]).await.1, "");
    let export = ["audit", "export", "--format", "jsonl", "--type", "gap"];
    assert!(notes(&cli(&server, &export).await).contains("`cluster` as PARENT"));
    assert!(notes(&cli(&server, &["events", "--type", "restored"]).await).contains("`cluster` as PARENT"));
    service.stop().await;
}
