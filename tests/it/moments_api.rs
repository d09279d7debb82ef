//! Changes whose effect comes later, over the API: refused with the moment, shown with the moment, and what would have
//! happened at that moment.
//!
//! Invariant: a test moves the clock, and a moment that an answer names is one at which a Check answers otherwise.
//! Not here: that no moment and no address is missed (`moments_judged`), other paths to the same rules (`moments_paths`).

use std::time::Duration;

use portcullis::proto::v1::mutation::Request;
use portcullis::proto::v1::{
    Action, ChangeGates, ChangeOptions, CompareRevisionsRequest, ConnectionType, CreatePolicyTestRequest, Decision,
    DeleteRuleRequest, ErrorReason, ListPolicyTestsRequest, ListSessionsRequest, Mutation, Node, PolicyTest,
    PreviewChangeRequest, PreviewChangeResponse, Rule, SessionState, UpdateNodeRequest, UpdateRuleRequest,
};
use prost_types::{FieldMask, Timestamp};
use tonic::{Code, Status};

use crate::clock::{Hand, until};
use crate::harness::{Service, assert_error, fields};

pub(crate) const DEFAULT: &str = "organizations/default";
pub(crate) const ALLOWED: &str = "203.0.113.7";
pub(crate) const WORLD: &str = "8.8.8.8";

/// Three seconds after `Hand::new`, as messages say it.
pub(crate) const SOON: &str = "from 2027-01-15T08:00:03Z on";
pub(crate) const TOMORROW: &str = "from 2027-01-16T08:00:00Z on";
pub(crate) const DAY: Duration = Duration::from_hours(24);

/// A moment so long after the one that the clock shows.
pub(crate) fn after(hand: &Hand, time: Duration) -> Timestamp {
    Timestamp { seconds: i64::try_from((hand.now() + time).as_secs()).unwrap(), nanos: 0 }
}

pub(crate) fn in_three_seconds(hand: &Hand) -> Timestamp {
    after(hand, Duration::from_secs(3))
}

/// A service in which one range is allowed, and everybody else denied.
pub(crate) async fn start() -> (Service, Hand) {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    service.add_rule("office", Action::Allow, "203.0.113.0/24").await;
    service.add_rule("shut", Action::Deny, "any").await;
    (service, hand)
}

pub(crate) async fn set_gates(service: &Service, gates: ChangeGates) {
    let node = Node { name: DEFAULT.to_owned(), change_gates: Some(gates), ..Node::default() };
    let request = UpdateNodeRequest { node: Some(node), ..UpdateNodeRequest::default() };
    service.hierarchy().update_node(request).await.unwrap();
}

pub(crate) fn careful() -> ChangeGates {
    ChangeGates { refuse_open_to_internet: true, ..ChangeGates::default() }
}

pub(crate) fn guarding(ip: &str) -> ChangeGates {
    ChangeGates { guard_ips: vec![ip.to_owned()], ..ChangeGates::default() }
}

pub(crate) fn test_of(ip: &str, expected: Decision) -> PolicyTest {
    PolicyTest {
        ip: ip.to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        expected_decision: expected.into(),
        ..PolicyTest::default()
    }
}

pub(crate) async fn add_test(service: &Service, id: &str, test: PolicyTest) -> Result<PolicyTest, Status> {
    let request = CreatePolicyTestRequest {
        parent: DEFAULT.to_owned(),
        policy_test: Some(test),
        policy_test_id: id.to_owned(),
        options: None,
    };
    service.analysis().create_policy_test(request).await.map(tonic::Response::into_inner)
}

/// The request that gives a rule an expire time, or takes it away.
pub(crate) fn expiring(id: &str, expire_time: Option<Timestamp>, options: ChangeOptions) -> UpdateRuleRequest {
    let rule = Rule { name: format!("{DEFAULT}/rules/{id}"), expire_time, ..Rule::default() };
    let update_mask = Some(FieldMask { paths: vec!["expire_time".to_owned()] });
    UpdateRuleRequest { rule: Some(rule), update_mask, options: Some(options) }
}

pub(crate) async fn expire(
    service: &Service,
    id: &str,
    expire_time: Option<Timestamp>,
    options: ChangeOptions,
) -> Result<Rule, Status> {
    service.firewall().update_rule(expiring(id, expire_time, options)).await.map(tonic::Response::into_inner)
}

pub(crate) async fn preview(service: &Service, request: Request) -> PreviewChangeResponse {
    let mutations = vec![Mutation { request: Some(request) }];
    let request = PreviewChangeRequest { parent: DEFAULT.to_owned(), mutations, replay_within: None };
    service.analysis().preview_change(request).await.unwrap().into_inner()
}

/// Refused, for reasons of which the first is `reason`; each message says the moment.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, reason: &str, moment: &str) -> Status {
    let status = assert_error(result, Code::FailedPrecondition, reason);
    assert!(status.message().split("; ").all(|refusal| refusal.contains(moment)), "{status:?}");
    status
}

pub(crate) fn override_tests() -> ChangeOptions {
    ChangeOptions { override_tests: true, ..ChangeOptions::default() }
}

async fn decision(service: &Service, ip: &str) -> Decision {
    service.check(ip, DEFAULT).await.decision()
}

#[tokio::test]
async fn a_deny_rule_that_is_to_expire_is_refused_as_its_deletion_is() {
    let (service, hand) = start().await;
    set_gates(&service, careful()).await;
    add_test(&service, "world", test_of(WORLD, Decision::Deny)).await.unwrap();
    let name = format!("{DEFAULT}/rules/shut");
    let delete = DeleteRuleRequest { name, ..DeleteRuleRequest::default() };
    let status =
        assert_error(service.firewall().delete_rule(delete).await, Code::FailedPrecondition, "OPEN_TO_INTERNET");
    assert!(!status.message().contains("2027"), "it opens at once: {status:?}");

    let soon = in_three_seconds(&hand);
    let status =
        refused(expire(&service, "shut", Some(soon), ChangeOptions::default()).await, "OPEN_TO_INTERNET", SOON);
    assert!(status.message().contains("`world`") && status.message().matches(SOON).count() == 2, "{status:?}");
    let previewed =
        preview(&service, Request::UpdateRule(expiring("shut", Some(soon), ChangeOptions::default()))).await;
    let told: Vec<_> = previewed.refusals.iter().map(|refusal| (refusal.reason(), refusal.from_time)).collect();
    assert_eq!(told, [(ErrorReason::OpenToInternet, Some(soon)), (ErrorReason::TestsFailed, Some(soon))]);
    assert!(previewed.refusals.iter().all(|refusal| refusal.message.contains(SOON)), "{:?}", previewed.refusals);
    // The organization and every project that is not registered, for both connection types.
    assert_eq!(previewed.differences.len(), 4);
    for difference in &previewed.differences {
        assert_eq!((difference.from_time, difference.to_time), (Some(soon), None));
        assert_eq!((difference.newly_permitted[0].as_str(), difference.newly_denied.len()), ("::/0", 0));
        assert!(difference.newly_permitted.contains(&"0.0.0.0/1".to_owned()));
    }

    // What it would have done, once nothing refuses it.
    set_gates(&service, ChangeGates::default()).await;
    refused(expire(&service, "shut", Some(soon), ChangeOptions::default()).await, "TESTS_FAILED", SOON);
    expire(&service, "shut", Some(soon), override_tests()).await.unwrap();
    let list = ListPolicyTestsRequest { parent: DEFAULT.to_owned(), ..ListPolicyTestsRequest::default() };
    let tests = service.analysis().list_policy_tests(list.clone()).await.unwrap().into_inner().policy_tests;
    assert_eq!((tests[0].actual_decision(), tests[0].fail_time), (Decision::Deny, Some(soon)));
    hand.advance(Duration::from_millis(2_999));
    assert_eq!(decision(&service, WORLD).await, Decision::Deny);
    hand.advance(Duration::from_millis(1));
    assert_eq!(decision(&service, WORLD).await, Decision::Allow);
    let tests = service.analysis().list_policy_tests(list).await.unwrap().into_inner().policy_tests;
    assert_eq!((tests[0].actual_decision(), tests[0].fail_time), (Decision::Allow, Some(soon)));
    service.stop().await;
}

#[tokio::test]
async fn an_allow_rule_of_a_guarded_address_that_is_to_expire_is_refused() {
    let (service, hand) = start().await;
    set_gates(&service, guarding(ALLOWED)).await;
    let soon = in_three_seconds(&hand);
    let status =
        refused(expire(&service, "office", Some(soon), ChangeOptions::default()).await, "GUARD_VIOLATED", SOON);
    assert!(status.message().contains(ALLOWED), "{status:?}");
    let previewed =
        preview(&service, Request::UpdateRule(expiring("office", Some(soon), ChangeOptions::default()))).await;
    let told: Vec<_> = previewed.refusals.iter().map(|refusal| (refusal.reason(), refusal.from_time)).collect();
    assert_eq!(told, [(ErrorReason::GuardViolated, Some(soon))]);
    assert_eq!(previewed.differences[0].newly_denied, ["203.0.113.0/24"]);
    assert_eq!(previewed.differences[0].from_time, Some(soon));

    set_gates(&service, ChangeGates::default()).await;
    // A guard of the single change says the same.
    let options = ChangeOptions { guard_ips: vec![ALLOWED.to_owned()], ..ChangeOptions::default() };
    refused(expire(&service, "office", Some(soon), options).await, "GUARD_VIOLATED", SOON);
    expire(&service, "office", Some(soon), ChangeOptions::default()).await.unwrap();
    assert_eq!(decision(&service, ALLOWED).await, Decision::Allow);
    hand.advance(Duration::from_secs(3));
    assert_eq!(decision(&service, ALLOWED).await, Decision::Deny);
    service.stop().await;
}

#[tokio::test]
async fn what_was_going_to_happen_anyway_refuses_nothing_until_a_change_makes_it_worse() {
    let (service, hand) = start().await;
    let tomorrow = after(&hand, DAY);
    expire(&service, "shut", Some(tomorrow), ChangeOptions::default()).await.unwrap();
    expire(&service, "office", Some(after(&hand, DAY / 2)), ChangeOptions::default()).await.unwrap();
    // Nothing is made worse by gates, and a test that holds until then is no new fault.
    set_gates(&service, careful()).await;
    let status = refused(add_test(&service, "world", test_of(WORLD, Decision::Deny)).await, "TESTS_FAILED", TOMORROW);
    assert!(status.message().contains("`world`"), "{status:?}");
    let ending = PolicyTest { end_time: Some(tomorrow), ..test_of(WORLD, Decision::Deny) };
    let made = add_test(&service, "world", ending).await.unwrap();
    assert_eq!((made.actual_decision(), made.fail_time, made.end_time), (Decision::Deny, None, Some(tomorrow)));

    // An unrelated change passes; so does one that makes what comes less bad.
    service.add_rule("lab", Action::Allow, "198.51.100.0/24").await;
    expire(&service, "shut", Some(after(&hand, 2 * DAY)), ChangeOptions::default()).await.unwrap();
    set_gates(&service, ChangeGates { guard_ips: vec![ALLOWED.to_owned()], ..careful() }).await;
    let sooner = expire(&service, "shut", Some(in_three_seconds(&hand)), ChangeOptions::default()).await;
    let status = assert_error(sooner, Code::FailedPrecondition, "OPEN_TO_INTERNET");
    assert!(status.message().contains(SOON), "{status:?}");
    // From the end of the test on, only the gate refuses.
    let at_end = expire(&service, "shut", Some(tomorrow), ChangeOptions::default()).await;
    let status = refused(at_end, "OPEN_TO_INTERNET", TOMORROW);
    assert!(!status.message().contains("`world`"), "{status:?}");
    // Shut for another day, the guarded address loses what it was going to have on that day.
    let longer = expire(&service, "shut", Some(after(&hand, 3 * DAY)), ChangeOptions::default()).await;
    refused(longer, "GUARD_VIOLATED", "from 2027-01-17T08:00:00Z on");
    // It loses from noon on what it has until then, which was going to be; a minute sooner is worse.
    let sooner = Duration::from_mins(12 * 60 - 1);
    let sooner = expire(&service, "office", Some(after(&hand, sooner)), ChangeOptions::default()).await;
    refused(sooner, "GUARD_VIOLATED", "from 2027-01-15T19:59:00Z on");

    hand.advance(Duration::from_secs(2 * 86_400 - 1));
    assert_eq!(decision(&service, WORLD).await, Decision::Deny);
    hand.advance(Duration::from_secs(1));
    assert_eq!(decision(&service, WORLD).await, Decision::Allow);
    // What is open already refuses nothing.
    service.add_rule("more", Action::Allow, "198.51.100.0/25").await;
    service.stop().await;
}

#[tokio::test]
async fn sessions_that_a_change_revokes_later_count_and_those_that_were_to_go_anyway_do_not() {
    let (service, hand) = start().await;
    let soon = in_three_seconds(&hand);
    assert_eq!(decision(&service, ALLOWED).await, Decision::Allow);
    assert_eq!(decision(&service, "203.0.113.200").await, Decision::Allow);
    let none = || ChangeOptions { max_revocations: Some(0), ..ChangeOptions::default() };
    let status = refused(
        expire(&service, "office", Some(soon), none()).await,
        "TOO_MANY_REVOCATIONS",
        "revoke 2 sessions by 2027-01-15T08:00:03Z, and at most 0",
    );
    assert!(!status.message().contains("in all"), "{status:?}");
    let request = expiring("office", Some(soon), ChangeOptions::default());
    let previewed = preview(&service, Request::UpdateRule(request.clone())).await;
    assert_eq!((previewed.revocation_count, previewed.later_revocation_count), (2, 2));
    assert_eq!(previewed.revoked_sessions.len(), 2);
    // Connections of the past that some moment from now on decides otherwise are replayed.
    assert_eq!(previewed.replay.unwrap().newly_denied_count, 2);
    expire(&service, "office", Some(soon), ChangeOptions::default()).await.unwrap();

    // Both were to go: a change that shuts one of them out at that moment revokes nobody, at once it does.
    let shut = service.add_rule("half", Action::Deny, "203.0.113.128/25").await;
    let position = |expire_time| portcullis::proto::v1::MoveRuleRequest {
        name: shut.name.clone(),
        position: 1,
        options: expire_time,
        ..Default::default()
    };
    let moved = Request::MoveRule(position(None));
    let previewed = preview(&service, moved).await;
    assert_eq!((previewed.revocation_count, previewed.later_revocation_count), (1, 0));
    let status = assert_error(
        service.firewall().move_rule(position(Some(none()))).await,
        Code::FailedPrecondition,
        "TOO_MANY_REVOCATIONS",
    );
    assert!(status.message().contains("revoke 1 session,") && !status.message().contains("2027"), "{status:?}");
    expire(&service, "office", Some(soon), none()).await.unwrap();
    let later = expire(&service, "office", Some(after(&hand, Duration::from_secs(2))), none()).await;
    refused(later, "TOO_MANY_REVOCATIONS", "by 2027-01-15T08:00:02Z, and at most 0");

    hand.advance(Duration::from_secs(3));
    let request = ListSessionsRequest { parent: DEFAULT.to_owned(), ..ListSessionsRequest::default() };
    until("the sessions are revoked", async || {
        let sessions = service.audit().list_sessions(request.clone()).await.unwrap().into_inner().sessions;
        let revoked = |session: &portcullis::proto::v1::Session| {
            session.revoke_time.is_some() || session.state() == SessionState::Ended
        };
        (sessions.len() == 2 && sessions.iter().all(revoked)).then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn a_difference_has_the_period_in_which_it_holds_also_between_two_revisions() {
    let (service, hand) = start().await;
    let (noon, tomorrow) = (after(&hand, DAY / 2), after(&hand, DAY));
    expire(&service, "shut", Some(noon), ChangeOptions::default()).await.unwrap();
    let later = expire(&service, "shut", Some(tomorrow), ChangeOptions::default()).await.unwrap();
    let name = |revision: i64| format!("{DEFAULT}/revisions/{revision}");
    let compare = CompareRevisionsRequest { base: name(later.revision - 1), name: name(later.revision) };
    let compared = service.analysis().compare_revisions(compare.clone()).await.unwrap().into_inner();
    let told = &compared.differences[0];
    assert_eq!((told.from_time, told.to_time), (Some(noon), Some(tomorrow)));
    assert_eq!((told.newly_permitted.len(), told.newly_denied[0].as_str()), (0, "::/0"));
    assert_eq!(compared.differences.len(), 4);
    // What has begun is there from now on, and what is over is no difference.
    hand.advance(DAY / 2);
    let compared = service.analysis().compare_revisions(compare.clone()).await.unwrap().into_inner();
    assert_eq!((compared.differences[0].from_time, compared.differences[0].to_time), (None, Some(tomorrow)));
    hand.advance(DAY / 2);
    assert_eq!(service.analysis().compare_revisions(compare).await.unwrap().into_inner().differences, []);
    service.stop().await;
}

#[tokio::test]
async fn a_test_that_has_ended_is_not_created_and_one_that_ends_holds_nothing_up_afterwards() {
    let (service, hand) = start().await;
    let test = |end| PolicyTest { end_time: Some(end), ..test_of(WORLD, Decision::Deny) };
    for end in [after(&hand, Duration::ZERO), Timestamp { seconds: 1, nanos: 0 }] {
        let status = assert_error(add_test(&service, "world", test(end)).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), ["policy_test.end_time"]);
    }
    let end = in_three_seconds(&hand);
    add_test(&service, "world", test(end)).await.unwrap();
    let name = format!("{DEFAULT}/rules/shut");
    let delete = DeleteRuleRequest { name, ..DeleteRuleRequest::default() };
    assert_error(service.firewall().delete_rule(delete.clone()).await, Code::FailedPrecondition, "TESTS_FAILED");
    expire(&service, "shut", Some(end), ChangeOptions::default()).await.unwrap();
    hand.advance(Duration::from_secs(3));
    service.firewall().delete_rule(delete).await.unwrap();
    service.stop().await;
}
