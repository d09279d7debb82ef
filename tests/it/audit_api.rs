//! The audit log and the sessions through the API: everything that a portal's tables show, and every filter.
//!
//! Invariant: what is listed is what happened, to every field.
//! Not here: malformed requests (`malformed_audit`), crashes (`audit_crash`), following the log (`audit_watch`).
#![expect(
    clippy::assigning_clones,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "small numbers and texts of a test"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis::audit::checkpoint::Checkpoint;
use portcullis::audit::merkle::{Hash, leaf_hash, verify_consistency, verify_inclusion};
use portcullis::audit::note::VerifierKey;
use portcullis::config::{Config, Durability};
use portcullis::proto::v1::audit_record::Content;
use portcullis::proto::v1::{
    Action, AuditRecord, AuditType, CheckRequest, CheckResponse, ConnectionType, Decision, EndReason,
    EndSessionRequest, EraseUserRequest, GetCheckpointRequest, GetConsistencyProofRequest, GetInclusionProofRequest,
    GetOverviewRequest, ListAuditRecordsRequest, ListFirewallEventsRequest, ListSessionsRequest, Reason,
    RenewSessionsRequest, Session, SessionState, VerifyAuditRequest, VerifyAuditResult, verify_audit_response,
};
use tonic::Code;

use crate::clock::{Hand, until};
use crate::harness::{Service, allow_list, assert_error};

const DEFAULT: &str = "organizations/default";

/// A check by a user from an address.
pub(crate) fn check_of(email: &str, ip: &str, connection_type: ConnectionType, endpoint: &str) -> CheckRequest {
    CheckRequest {
        ip: ip.to_owned(),
        connection_type: connection_type.into(),
        endpoint: endpoint.to_owned(),
        user_email: email.to_owned(),
        request_id: format!("from {ip}"),
        ..CheckRequest::default()
    }
}

async fn check(service: &Service, request: CheckRequest) -> CheckResponse {
    service.decisions().check(request).await.unwrap().into_inner()
}

/// All records of a list, over pages of three.
async fn records(service: &Service, request: ListAuditRecordsRequest) -> Vec<AuditRecord> {
    let (mut records, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListAuditRecordsRequest { page_size: 3, page_token: token, ..request.clone() };
        let page = service.audit().list_audit_records(request).await.unwrap().into_inner();
        records.extend(page.audit_records);
        token = page.next_page_token;
        if token.is_empty() {
            return records;
        }
    }
}

async fn sessions(service: &Service, request: ListSessionsRequest) -> Vec<Session> {
    let (mut sessions, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListSessionsRequest { page_size: 2, page_token: token, ..request.clone() };
        let page = service.audit().list_sessions(request).await.unwrap().into_inner();
        sessions.extend(page.sessions);
        token = page.next_page_token;
        if token.is_empty() {
            return sessions;
        }
    }
}

fn decisions_only() -> ListAuditRecordsRequest {
    ListAuditRecordsRequest {
        parent: DEFAULT.to_owned(),
        types: vec![AuditType::Decision.into()],
        ..ListAuditRecordsRequest::default()
    }
}

/// Waits until every record so far is durable: a sync one behind them is.
async fn settle(service: &Service) {
    check(service, check_of("", "192.0.2.250", ConnectionType::Shell, DEFAULT)).await;
}

#[tokio::test]
async fn every_field_of_the_portals_tables_is_there_and_filters() {
    let service = Service::start().await;
    service.add_rule("office", Action::Allow, "198.51.100.0/24").await;
    service.add_rule("bad", Action::Deny, "203.0.113.0/24").await;
    service.add_node(DEFAULT, "web", Some(allow_list(&["198.51.100.0/24", "2001:db8::/32"]))).await;
    let web = format!("{DEFAULT}/projects/web");
    let main = format!("{web}/workspaces/main/endpoints/shell");
    let asked = [
        check_of("ada@example.com", "198.51.100.7", ConnectionType::Shell, &main),
        check_of("ada@example.com", "203.0.113.9", ConnectionType::Shell, &main),
        check_of("bob@example.com", "2001:db8::1", ConnectionType::Preview, &web),
        check_of("bob@example.com", "192.0.2.1", ConnectionType::Preview, &web),
        check_of("", "203.0.113.9", ConnectionType::Preview, DEFAULT),
    ];
    let mut answers = Vec::new();
    for request in &asked {
        answers.push(check(&service, request.clone()).await);
    }
    settle(&service).await;

    // Allowed and denied attempts are both there, newest first, with every field that was asked and answered.
    let listed = records(&service, decisions_only()).await;
    assert_eq!(listed.len(), asked.len() + 1);
    for (record, (request, answer)) in listed.iter().rev().zip(asked.iter().zip(&answers)) {
        let Some(Content::Decision(decision)) = &record.content else { panic!("{record:?}") };
        assert_eq!(record.organization, DEFAULT);
        assert!(record.time.is_some() && record.sequence > 0 && record.organization_sequence > 0);
        let shown = (&decision.ip, &decision.user_email, decision.connection_type, &decision.endpoint);
        assert_eq!(shown, (&request.ip, &request.user_email, request.connection_type, &request.endpoint));
        assert_eq!(decision.request_id, request.request_id);
        let decided = (decision.decision, decision.reason, &decision.rule, &decision.node, &decision.session);
        assert_eq!(decided, (answer.decision, answer.reason, &answer.rule, &answer.node, &answer.session));
        assert_eq!((decision.revision, decision.cluster_revision), (answer.revision, answer.cluster_revision));
        assert_eq!((&decision.decision_id, record.sequence), (&answer.decision_id, answer.sequence));
    }
    let sequences: Vec<i64> = listed.iter().map(|record| record.sequence).collect();
    assert!(sequences.windows(2).all(|pair| pair[0] > pair[1]), "newest first: {sequences:?}");

    // Firewall events: address, matched rule, time, connection type.
    let request = ListFirewallEventsRequest { parent: DEFAULT.to_owned(), ..ListFirewallEventsRequest::default() };
    let events = service.audit().list_firewall_events(request.clone()).await.unwrap().into_inner().firewall_events;
    let shown: Vec<_> = events.iter().map(|event| (event.ip.as_str(), event.rule.as_str(), event.reason())).collect();
    let bad = format!("{DEFAULT}/rules/bad");
    let expected = [
        ("203.0.113.9", bad.as_str(), Reason::DenyRule),
        ("192.0.2.1", "", Reason::OutsideEndpoint),
        ("203.0.113.9", bad.as_str(), Reason::DenyRule),
    ];
    assert_eq!(shown, expected);
    assert!(events.iter().all(|event| event.time.is_some() && event.connection_type != 0));
    let of_rule = ListFirewallEventsRequest { rule: bad.clone(), page_size: 1, ..request.clone() };
    let page = service.audit().list_firewall_events(of_rule.clone()).await.unwrap().into_inner();
    assert_eq!((page.firewall_events.len(), page.next_page_token.is_empty()), (1, false));
    // What arrives meanwhile does not disturb the pages.
    check(&service, asked[1].clone()).await;
    let next = ListFirewallEventsRequest { page_token: page.next_page_token, ..of_rule };
    let next = service.audit().list_firewall_events(next).await.unwrap().into_inner().firewall_events;
    assert_eq!(next.iter().map(|event| event.sequence).collect::<Vec<_>>(), [events[2].sequence]);

    // Sessions: email, address, connection type, time, status.
    let open = sessions(&service, ListSessionsRequest { parent: DEFAULT.to_owned(), ..Default::default() }).await;
    let shown: Vec<_> = open.iter().map(|session| (session.user_email.as_str(), session.ip.as_str())).collect();
    assert_eq!(shown, [("", "192.0.2.250"), ("bob@example.com", "2001:db8::1"), ("ada@example.com", "198.51.100.7")]);
    let ada = open.last().unwrap();
    assert_eq!((ada.state(), ada.connection_type()), (SessionState::Active, ConnectionType::Shell));
    assert_eq!((&ada.endpoint, &ada.rule), (&main, &format!("{DEFAULT}/rules/office")));
    assert!(ada.start_time.is_some() && ada.end_time.is_none() && ada.request_count == 1);

    filters_of_records(&service, &asked, &main, &web).await;
    filters_of_sessions(&service, &main, &web).await;

    let overview = GetOverviewRequest { parent: DEFAULT.to_owned() };
    let overview = service.audit().get_overview(overview).await.unwrap().into_inner();
    assert_eq!((overview.denials_last_hour, overview.denials_last_day), (4, 4));
    assert_eq!(overview.firewall_events.len(), 4);
    let counts: Vec<_> = overview.active_sessions.iter().map(|item| (item.connection_type(), item.count)).collect();
    assert_eq!(counts, [(ConnectionType::Shell, 2), (ConnectionType::Preview, 1)]);
    service.stop().await;
}

async fn filters_of_records(service: &Service, asked: &[CheckRequest], main: &str, web: &str) {
    let count = async |request: ListAuditRecordsRequest| records(service, request).await.len();
    let all = decisions_only();
    let with = |change: &dyn Fn(&mut ListAuditRecordsRequest)| {
        let mut request = all.clone();
        change(&mut request);
        request
    };
    assert_eq!(count(with(&|request| request.decision = Decision::Deny.into())).await, 4);
    assert_eq!(count(with(&|request| request.decision = Decision::Allow.into())).await, 3);
    assert_eq!(count(with(&|request| request.user_email = "ada@example.com".to_owned())).await, 3);
    assert_eq!(count(with(&|request| request.user_email = "ADA@example.com".to_owned())).await, 0);
    assert_eq!(count(with(&|request| request.ip_range = "203.0.113.0/24".to_owned())).await, 3);
    assert_eq!(count(with(&|request| request.ip_range = "2001:db8::/32".to_owned())).await, 1);
    assert_eq!(count(with(&|request| request.ip_range = "any".to_owned())).await, asked.len() + 2);
    assert_eq!(count(with(&|request| request.connection_type = ConnectionType::Preview.into())).await, 3);
    assert_eq!(count(with(&|request| request.endpoint = main.to_owned())).await, 3);
    assert_eq!(count(with(&|request| request.endpoint = web.to_owned())).await, 5);
    assert_eq!(count(with(&|request| request.endpoint = format!("{DEFAULT}/projects/we"))).await, 0);
    assert_eq!(count(with(&|request| request.rule = format!("{DEFAULT}/rules/bad"))).await, 3);
    assert_eq!(count(with(&|request| request.types = vec![AuditType::Gap.into()])).await, 0);
    // The two rules, the project; the organization was created with the first start.
    assert_eq!(count(with(&|request| request.types = vec![AuditType::PolicyChanged.into()])).await, 4);
    let of_rule = with(&|request| {
        request.types = vec![AuditType::PolicyChanged.into()];
        request.rule = format!("{DEFAULT}/rules/bad");
    });
    let changes = records(service, of_rule).await;
    let Some(Content::PolicyChange(change)) = &changes[0].content else { panic!("{changes:?}") };
    assert_eq!((changes.len(), change.revision, change.actor.as_str()), (1, 3, "127.0.0.1"));
    let times = records(service, all.clone()).await;
    let middle = times[2].time;
    assert_eq!(count(with(&|request| request.start_time = middle)).await, 3);
    assert_eq!(count(with(&|request| request.end_time = middle)).await, times.len() - 3);
    let everything = ListAuditRecordsRequest { parent: "cluster".to_owned(), ..ListAuditRecordsRequest::default() };
    let everything = records(service, everything).await;
    let sequences: Vec<i64> = everything.iter().rev().map(|record| record.sequence).collect();
    assert_eq!(sequences, (1..=sequences.len() as i64).collect::<Vec<_>>(), "dense from 1");
    let own: Vec<i64> =
        everything.iter().rev().map(|record| record.organization_sequence).filter(|number| *number > 0).collect();
    assert_eq!(own, (1..=own.len() as i64).collect::<Vec<_>>(), "dense within the organization");
}

async fn filters_of_sessions(service: &Service, main: &str, web: &str) {
    let count = async |change: &dyn Fn(&mut ListSessionsRequest)| {
        let mut request = ListSessionsRequest { parent: DEFAULT.to_owned(), ..ListSessionsRequest::default() };
        change(&mut request);
        sessions(service, request).await.len()
    };
    assert_eq!(count(&|request| request.state = SessionState::Active.into()).await, 3);
    assert_eq!(count(&|request| request.state = SessionState::Ended.into()).await, 0);
    assert_eq!(count(&|request| request.connection_type = ConnectionType::Preview.into()).await, 1);
    assert_eq!(count(&|request| request.user_email = "bob@example.com".to_owned()).await, 1);
    assert_eq!(count(&|request| request.ip_range = "198.51.100.0/24".to_owned()).await, 1);
    assert_eq!(count(&|request| request.endpoint = web.to_owned()).await, 2);
    assert_eq!(count(&|request| request.endpoint = main.to_owned()).await, 1);
    assert_eq!(count(&|request| request.rule = format!("{DEFAULT}/rules/office")).await, 1);
    let late = Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 });
    assert_eq!(count(&|request| request.start_time = late).await, 3, "active ones are open at any later time");
    assert_eq!(count(&|request| request.end_time = Some(prost_types::Timestamp::default())).await, 0);
}

#[tokio::test]
async fn sessions_open_fold_renew_and_end_as_told() {
    let temporary = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(temporary.path().join("data"));
    config.record.session_idle = Duration::from_millis(400);
    config.record.audit_preview = Durability::Sync;
    let hand = Hand::new();
    let service = Service::with_clock(config, hand.clock()).await;
    let preview = check_of("ada@example.com", "192.0.2.1", ConnectionType::Preview, DEFAULT);
    let first = check(&service, preview.clone()).await.session;
    assert_eq!(check(&service, preview.clone()).await.session, first, "folds");
    let elsewhere = CheckRequest { ip: "192.0.2.2".to_owned(), ..preview.clone() };
    assert_ne!(check(&service, elsewhere).await.session, first, "another address is another session");
    let shell = check_of("ada@example.com", "192.0.2.1", ConnectionType::Shell, DEFAULT);
    let shells = [check(&service, shell.clone()).await.session, check(&service, shell.clone()).await.session];
    assert_ne!(shells[0], shells[1], "every shell is a session of its own");
    let lease = |millis: i64| {
        Some(prost_types::Duration { seconds: millis / 1_000, nanos: (millis % 1_000 * 1_000_000) as i32 })
    };
    let leased = CheckRequest { session_lease: lease(300), ..shell.clone() };
    let [kept, left] = [check(&service, leased.clone()).await.session, check(&service, leased).await.session];

    // Renewed over and over, one session outlives its lease; the other does not.
    for _ in 0..6 {
        hand.advance(Duration::from_millis(100));
        let request = RenewSessionsRequest { names: vec![kept.clone()], session_lease: lease(300) };
        let renewed = service.decisions().renew_sessions(request).await.unwrap().into_inner();
        assert_eq!(renewed.sessions, std::slice::from_ref(&kept));
    }
    let unknown = format!("{DEFAULT}/sessions/nobody");
    let names = vec![left.clone(), unknown.clone(), shells[0].clone()];
    let request = RenewSessionsRequest { names, session_lease: lease(60_000) };
    let renewed = service.decisions().renew_sessions(request).await.unwrap().into_inner();
    assert_eq!((renewed.lost, renewed.sessions), (vec![left.clone(), unknown.clone()], vec![shells[0].clone()]));

    let end = |name: &str| EndSessionRequest { name: name.to_owned() };
    let ended = service.decisions().end_session(end(&shells[1])).await.unwrap().into_inner();
    assert_eq!((ended.state(), ended.end_reason()), (SessionState::Ended, EndReason::Closed));
    let again = service.decisions().end_session(end(&shells[1])).await.unwrap().into_inner();
    assert_eq!(again, ended, "idempotent");
    assert_error(service.decisions().end_session(end(&unknown)).await, Code::NotFound, "NOT_FOUND");
    let other = shells[0].replace("default", "other");
    assert_error(service.decisions().end_session(end(&other)).await, Code::NotFound, "NOT_FOUND");

    let request = ListSessionsRequest { parent: DEFAULT.to_owned(), ..ListSessionsRequest::default() };
    // A session that ends between two pages is on neither.
    let reason_in = |listed: &[Session], name: &String| {
        listed.iter().find(|session| session.name == *name).map(Session::end_reason)
    };
    let listed = until("the idle session ends", async || {
        let listed = sessions(&service, request.clone()).await;
        (reason_in(&listed, &first)? != EndReason::Unspecified).then_some(listed)
    })
    .await;
    let reason = |name: &String| reason_in(&listed, name).unwrap();
    assert_eq!((reason(&kept), reason(&shells[0])), (EndReason::Unspecified, EndReason::Unspecified));
    assert_eq!((reason(&left), reason(&first)), (EndReason::LeaseExpired, EndReason::Idle));
    let idle = listed.iter().find(|session| session.name == first).unwrap();
    let seconds = |time: &Option<prost_types::Timestamp>| {
        let time = time.as_ref().unwrap();
        time.seconds as f64 + f64::from(time.nanos) / 1e9
    };
    assert_eq!(idle.request_count, 2);
    let idle_for = seconds(&idle.end_time) - seconds(&idle.last_seen_time);
    assert!((0.39..0.41).contains(&idle_for), "dated by the deadline, not by the sweep: {idle_for}");
    let order: Vec<bool> = listed.iter().map(|session| session.state() == SessionState::Active).collect();
    assert!(order.is_sorted_by(|a, b| a >= b), "active ones first: {order:?}");
    let names: BTreeSet<&String> = listed.iter().map(|session| &session.name).collect();
    assert_eq!(names.len(), listed.len(), "each once");
    service.stop().await;
}

/// The key that a service signs with.
fn key_of(service: &Service) -> VerifierKey {
    std::fs::read_to_string(service.data_dir().join("audit.pub")).unwrap().trim_end().parse().unwrap()
}

/// The newest checkpoint once it covers a size.
async fn checkpoint(service: &Service, size: u64) -> (String, Checkpoint) {
    let key = key_of(service);
    until("a checkpoint that covers the records", async || {
        let note = service.audit().get_checkpoint(GetCheckpointRequest {}).await.ok()?.into_inner().note;
        let checkpoint = Checkpoint::open(note.as_bytes(), std::slice::from_ref(&key), key.name()).unwrap();
        (checkpoint.head().size >= size).then_some((note, checkpoint))
    })
    .await
}

pub(crate) async fn verify(service: &Service, note: &str) -> VerifyAuditResult {
    let request = VerifyAuditRequest { note: note.to_owned() };
    let mut steps = service.audit().verify_audit(request).await.unwrap().into_inner();
    while let Some(step) = steps.message().await.unwrap() {
        if let Some(verify_audit_response::Step::Result(result)) = step.step {
            return result;
        }
    }
    panic!("the verification ended without a result");
}

#[tokio::test]
async fn proofs_verify_against_signed_checkpoints_before_and_after_an_erasure() {
    let service = Service::start().await;
    for number in 0..300 {
        let email = format!("user-{}@example.com", number % 7);
        let preview = check_of(&email, &format!("192.0.2.{}", number % 5), ConnectionType::Preview, DEFAULT);
        check(&service, preview).await;
    }
    settle(&service).await;
    let (old_note, old) = checkpoint(&service, 303).await;
    let erase = EraseUserRequest {
        parent: DEFAULT.to_owned(),
        user_email: "user-3@example.com".to_owned(),
        ..Default::default()
    };
    let erased = service.audit().erase_user(erase.clone()).await.unwrap().into_inner();
    assert_eq!(erased.opening_count, Some(5), "one for each address");
    let again = service.audit().erase_user(erase).await.unwrap().into_inner();
    assert_eq!(again.opening_count, Some(0), "idempotent");
    let (_, new) = checkpoint(&service, old.head().size + 2).await;

    let hashes = |hashes: Vec<Vec<u8>>| -> Vec<Hash> {
        hashes.iter().map(|hash| Hash::try_from(hash.as_slice()).unwrap()).collect()
    };
    let (first, second) = (old.head(), new.head());
    let request =
        GetConsistencyProofRequest { first_tree_size: first.size as i64, second_tree_size: second.size as i64 };
    let proof = hashes(service.audit().get_consistency_proof(request).await.unwrap().into_inner().hashes);
    verify_consistency(first, second, &proof).unwrap();
    let mut opened = 0;
    for sequence in [1, 2, 3, 4, 100, 256, 257, first.size, second.size] {
        let request = GetInclusionProofRequest { sequence: sequence as i64, tree_size: second.size as i64 };
        let proof = service.audit().get_inclusion_proof(request).await.unwrap().into_inner();
        assert_eq!(proof.leaf_index, sequence as i64 - 1);
        let path = hashes(proof.hashes);
        verify_inclusion(leaf_hash(&[&proof.leaf]), sequence - 1, second, &path).unwrap();
        opened += proof.openings.len();
    }
    assert!(opened >= 4, "who was not erased can still be opened: {opened}");
    let result = verify(&service, &old_note).await;
    assert!(result.intact, "{:?}", result.faults);
    assert!(result.tree_size >= second.size as i64);

    let of_erased = ListAuditRecordsRequest { user_email: "user-3@example.com".to_owned(), ..decisions_only() };
    assert!(records(&service, of_erased).await.is_empty());
    let listed = records(&service, decisions_only()).await;
    let empty = listed.iter().filter(|record| {
        matches!(&record.content, Some(Content::Decision(decision)) if decision.user_email.is_empty() && decision.ip.is_empty())
    });
    assert_eq!(empty.count(), 43, "the records stay, without the person");
    assert_eq!(files_with(service.data_dir(), b"user-3@example.com"), Vec::<String>::new());
    assert!(!files_with(service.data_dir(), b"user-4@example.com").is_empty());
    service.stop().await;
}

/// The files below a directory that hold some bytes.
pub(crate) fn files_with(directory: &std::path::Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if std::fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes) {
            found.push(path.display().to_string());
        }
    }
    found
}
