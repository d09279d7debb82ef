//! Malformed requests to AuditService and to the calls about sessions: each is refused with every field that is at fault.
//!
//! Invariant: after each refusal the service goes on serving.
//! Not here: what well-formed requests find (`audit_api`).

use portcullis::proto::v1::{
    EndSessionRequest, EraseUserRequest, GetConsistencyProofRequest, GetInclusionProofRequest, GetOverviewRequest,
    ListAuditRecordsRequest, ListFirewallEventsRequest, ListSessionsRequest, RenewSessionsRequest, VerifyAuditRequest,
    WatchEventsRequest,
};
use prost_types::{Duration, Timestamp};
use tonic::{Code, Status};

use crate::harness::{Service, assert_error, fields};

const DEFAULT: &str = "organizations/default";

fn invalid<T: std::fmt::Debug>(result: Result<T, Status>, expected: &[&str]) {
    let status = assert_error(result, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), expected, "{status:?}");
}

const NO_TIME: Timestamp = Timestamp { seconds: i64::MAX, nanos: -1 };

#[tokio::test]
async fn lists_name_every_field_that_is_at_fault() {
    let service = Service::start().await;
    let mut audit = service.audit();
    let everything = ListAuditRecordsRequest {
        parent: "organisations/default".to_owned(),
        page_size: -1,
        page_token: "made up".to_owned(),
        connection_type: 9,
        decision: 9,
        user_email: String::new(),
        ip_range: "10.0.0.5/8".to_owned(),
        endpoint: "projects/web".to_owned(),
        rule: "office".to_owned(),
        start_time: Some(NO_TIME),
        end_time: Some(NO_TIME),
        types: vec![1, 0, 99],
    };
    let all = [
        "parent",
        "connection_type",
        "ip_range",
        "start_time",
        "end_time",
        "endpoint",
        "rule",
        "decision",
        "types[1]",
        "types[2]",
        "page_size",
        "page_token",
    ];
    invalid(audit.list_audit_records(everything).await, &all);
    let sessions = ListSessionsRequest {
        parent: DEFAULT.to_owned(),
        state: 7,
        endpoint: "organizations/other/projects/web".to_owned(),
        rule: "organizations/other/rules/office".to_owned(),
        ..ListSessionsRequest::default()
    };
    invalid(audit.list_sessions(sessions).await, &["endpoint", "rule", "state"]);
    let events = ListFirewallEventsRequest {
        parent: DEFAULT.to_owned(),
        start_time: Some(Timestamp { seconds: 2, nanos: 0 }),
        end_time: Some(Timestamp { seconds: 1, nanos: 0 }),
        ..ListFirewallEventsRequest::default()
    };
    invalid(audit.list_firewall_events(events).await, &["end_time"]);
    invalid(audit.get_overview(GetOverviewRequest::default()).await, &["parent"]);
    let unknown = GetOverviewRequest { parent: "organizations/nobody".to_owned() };
    assert_error(audit.get_overview(unknown).await, Code::NotFound, "NOT_FOUND");
    let watch = WatchEventsRequest {
        parent: String::new(),
        after_sequence: Some(-1),
        types: vec![0],
        connection_types: vec![0, 9],
        lineage: String::new(),
    };
    let expected = ["parent", "types[0]", "connection_types[0]", "connection_types[1]", "after_sequence"];
    invalid(audit.watch_events(watch).await.map(drop), &expected);
    service.check("192.0.2.1", DEFAULT).await;
    service.stop().await;
}

#[tokio::test]
async fn a_page_token_of_another_list_or_filter_is_refused() {
    let service = Service::start().await;
    for number in 0..5 {
        service.check(&format!("192.0.2.{number}"), DEFAULT).await;
    }
    let mut audit = service.audit();
    let first = ListAuditRecordsRequest {
        parent: DEFAULT.to_owned(),
        page_size: 2,
        user_email: String::new(),
        ip_range: "192.0.2.0/24".to_owned(),
        ..ListAuditRecordsRequest::default()
    };
    let token = audit.list_audit_records(first.clone()).await.unwrap().into_inner().next_page_token;
    assert!(!token.is_empty() && !token.contains("192.0.2"), "nothing personal in it: {token}");
    let with = |change: fn(&mut ListAuditRecordsRequest)| {
        let mut request = ListAuditRecordsRequest { page_token: token.clone(), ..first.clone() };
        change(&mut request);
        request
    };
    audit.list_audit_records(with(|request| request.page_size = 1)).await.unwrap();
    invalid(
        audit.list_audit_records(with(|request| request.ip_range = "192.0.2.0/25".to_owned())).await,
        &["page_token"],
    );
    invalid(audit.list_audit_records(with(|request| request.user_email = "x".to_owned())).await, &["page_token"]);
    invalid(audit.list_audit_records(with(|request| request.parent = "cluster".to_owned())).await, &["page_token"]);
    let other = ListFirewallEventsRequest { parent: DEFAULT.to_owned(), page_token: token, ..Default::default() };
    invalid(audit.list_firewall_events(other).await, &["page_token"]);
    service.stop().await;
}

#[tokio::test]
async fn proofs_verifications_and_erasures_refuse_what_they_cannot_be_about() {
    let service = Service::start().await;
    service.check("192.0.2.1", DEFAULT).await;
    crate::audit_watch::signed_size(&service.channel, 1).await;
    let mut audit = service.audit();
    for (sequence, tree_size, field) in
        [(0, 0, "sequence"), (-1, 0, "sequence"), (1, -1, "tree_size"), (1, 99, "tree_size"), (99, 0, "sequence")]
    {
        let request = GetInclusionProofRequest { sequence, tree_size };
        invalid(audit.get_inclusion_proof(request).await, &[field]);
    }
    for (first_tree_size, second_tree_size, field) in
        [(0, 1, "first_tree_size"), (2, 1, "first_tree_size"), (1, 99, "second_tree_size")]
    {
        let request = GetConsistencyProofRequest { first_tree_size, second_tree_size };
        invalid(audit.get_consistency_proof(request).await, &[field]);
    }
    let request = VerifyAuditRequest { note: "no note".to_owned() };
    let mut steps = audit.verify_audit(request).await.unwrap().into_inner();
    invalid(steps.message().await, &["note"]);
    invalid(audit.erase_user(EraseUserRequest::default()).await, &["parent", "user_email"]);
    service.check("192.0.2.1", DEFAULT).await;
    service.stop().await;
}

#[tokio::test]
async fn calls_about_sessions_refuse_names_and_leases_that_can_be_none() {
    let service = Service::start().await;
    let session = service.check("192.0.2.1", DEFAULT).await.session;
    let mut decisions = service.decisions();
    for name in ["", "sessions/x", "organizations/default/rules/x", "organizations/Default/sessions/x", "cluster"] {
        invalid(decisions.end_session(EndSessionRequest { name: name.to_owned() }).await, &["name"]);
    }
    let names = vec![session.clone(), "x".to_owned(), format!("{DEFAULT}/sessions/none"), String::new()];
    let lease = |seconds, nanos| Some(Duration { seconds, nanos });
    for session_lease in [None, lease(0, 0), lease(-1, 0), lease(0, -1), lease(86_401, 0), lease(1, 1_000_000_000)] {
        let request = RenewSessionsRequest { names: names.clone(), session_lease };
        invalid(decisions.renew_sessions(request).await, &["names[1]", "names[3]", "session_lease"]);
    }
    let request = RenewSessionsRequest { names: vec![session; 10_001], session_lease: lease(60, 0) };
    assert_error(decisions.renew_sessions(request).await, Code::ResourceExhausted, "LIMIT_REACHED");
    service.check("192.0.2.1", DEFAULT).await;
    service.stop().await;
}
