//! Policy tests over real gRPC and at the command line: what a refusal tells of them, and what a test is that has ended.
//!
//! Invariant: a refusal tells of a test what is decided at the moment at which it fails, and why.
//! Not here: which tests break at which moment (`moments_judged`, `moments_api`).

use std::time::Duration;

use portcullis::proto::v1::{
    Action, ApplyPolicyRequest, ChangeOptions, Decision, DeleteRuleRequest, ExportPolicyRequest,
    ListPolicyTestsRequest, Policy, PolicyTest,
};
use tonic::Code;

use crate::cli_edit::run;
use crate::harness::{Service, assert_error};
use crate::moments_api::{ALLOWED, SOON, TOMORROW, WORLD, add_test, after, expire, in_three_seconds, start, test_of};

const DEFAULT: &str = "organizations/default";

const ADVICE: &str = "alter the change, or set `override_tests`";

async fn tests(service: &Service) -> Vec<PolicyTest> {
    let request = ListPolicyTestsRequest { parent: DEFAULT.to_owned(), ..ListPolicyTestsRequest::default() };
    service.analysis().list_policy_tests(request).await.unwrap().into_inner().policy_tests
}

async fn export(service: &Service) -> Policy {
    let request = ExportPolicyRequest { parent: DEFAULT.to_owned(), ..ExportPolicyRequest::default() };
    service.analysis().export_policy(request).await.unwrap().into_inner()
}

async fn apply(service: &Service, policy: Policy) -> Result<i64, tonic::Status> {
    let request = ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(policy), ..Default::default() };
    service.analysis().apply_policy(request).await.map(|answer| answer.into_inner().revision)
}

fn delete(rule: &str) -> DeleteRuleRequest {
    DeleteRuleRequest { name: format!("{DEFAULT}/rules/{rule}"), ..DeleteRuleRequest::default() }
}

#[tokio::test]
async fn a_refusal_tells_what_was_expected_what_is_decided_and_why() {
    let (service, hand) = start().await;
    let message = |status: tonic::Status| {
        assert_eq!(status.code(), Code::FailedPrecondition);
        status.message().to_owned()
    };
    // A new test that fails is not broken by the change: it does not hold.
    let refused = add_test(&service, "world", test_of(WORLD, Decision::Allow)).await;
    let expected = format!(
        "1 new policy test of `{DEFAULT}` does not hold, `world` (must be allowed, and is denied by rule `shut`): {ADVICE}"
    );
    assert_eq!(message(refused.unwrap_err()), expected);
    expire(&service, "shut", Some(in_three_seconds(&hand)), ChangeOptions::default()).await.unwrap();
    let refused = add_test(&service, "world", test_of(WORLD, Decision::Deny)).await;
    let expected = format!(
        "1 new policy test of `{DEFAULT}` does not hold, `world` {SOON} (must be denied, and is allowed because no rule \
         matches): {ADVICE}"
    );
    assert_eq!(message(refused.unwrap_err()), expected);

    let lost = PolicyTest { endpoint: format!("{DEFAULT}/projects/web"), ..test_of(ALLOWED, Decision::Allow) };
    service.add_node(DEFAULT, "shop", None).await;
    let refused = message(add_test(&service, "lost", lost).await.unwrap_err());
    assert!(refused.contains("(must be allowed, and is denied because the endpoint is unknown)"), "{refused}");
    let closed = PolicyTest { endpoint: format!("{DEFAULT}/projects/shop"), ..test_of(ALLOWED, Decision::Allow) };
    let refused = message(add_test(&service, "closed", closed).await.unwrap_err());
    assert!(refused.contains("denied because the access of the endpoint does not permit the address"), "{refused}");

    // One that is kept is broken, a new one does not hold: each from its moment on.
    expire(&service, "shut", None, ChangeOptions::default()).await.unwrap();
    add_test(&service, "world", test_of(WORLD, Decision::Deny)).await.unwrap();
    let mut policy = export(&service).await;
    let name = format!("{DEFAULT}/policyTests/office");
    policy.policy_tests.push(PolicyTest { name, ..test_of(ALLOWED, Decision::Deny) });
    let shut = policy.rules.iter_mut().find(|rule| rule.name.ends_with("/shut")).unwrap();
    shut.expire_time = Some(after(&hand, Duration::from_hours(24)));
    let refused = assert_error(apply(&service, policy).await, Code::FailedPrecondition, "TESTS_FAILED");
    let expected = format!(
        "the change breaks 1 policy test of `{DEFAULT}`, `world` {TOMORROW} (must be denied, and is allowed because no \
         rule matches), and 1 new policy test of `{DEFAULT}` does not hold, `office` (must be denied, and is allowed by \
         rule `office`): {ADVICE}"
    );
    assert_eq!(refused.message(), expected);
    service.stop().await;
}

#[tokio::test]
async fn of_many_broken_tests_the_first_are_told_and_all_are_counted() {
    let (service, _hand) = start().await;
    for number in 0..7 {
        add_test(&service, &format!("t{number}"), test_of(WORLD, Decision::Deny)).await.unwrap();
    }
    let status = service.firewall().delete_rule(delete("shut")).await.unwrap_err();
    let told = "(must be denied, and is allowed because no rule matches)";
    let expected = format!(
        "the change breaks 7 policy tests of `{DEFAULT}`, `t0` {told}, `t1` {told}, `t2` {told}, `t3`, `t4`, …: alter the \
         change, or set `override_tests`"
    );
    assert_eq!(status.message(), expected);
    service.stop().await;
}

#[tokio::test]
async fn a_document_with_a_test_that_has_ended_is_applied_and_the_test_asks_for_nothing() {
    let (service, hand) = start().await;
    add_test(
        &service,
        "world",
        PolicyTest { end_time: Some(in_three_seconds(&hand)), ..test_of(WORLD, Decision::Deny) },
    )
    .await
    .unwrap();
    assert!(!tests(&service).await[0].ended);
    let exported = export(&service).await;
    hand.advance(Duration::from_secs(3));
    let listed = tests(&service).await;
    assert_eq!((listed[0].ended, listed[0].fail_time, listed[0].actual_decision()), (true, None, Decision::Deny));
    let shown = run(&service, "policy tests list").await.done().0;
    assert!(shown.contains("ended") && !shown.contains("passes"), "{shown}");

    // The export is applied to the policy that has the test, and to one that does not.
    let other = Service::start_at(&hand).await;
    for service in [&service, &other] {
        apply(service, exported.clone()).await.unwrap();
        assert!(tests(service).await[0].ended);
        assert_eq!(export(service).await.policy_tests, exported.policy_tests, "it is kept as it is");
        // It refuses nothing, also where it would fail.
        service.firewall().delete_rule(delete("shut")).await.unwrap();
        let listed = tests(service).await;
        assert_eq!((listed[0].ended, listed[0].actual_decision()), (true, Decision::Allow));
        let ran = run(service, "policy tests list").await;
        assert_eq!((ran.status, ran.shown.contains("ended")), (0, true), "{ran:?}");
    }
    // A call that creates one is still told.
    let ended = PolicyTest { end_time: Some(after(&hand, Duration::ZERO)), ..test_of(WORLD, Decision::Deny) };
    assert_error(add_test(&other, "new", ended).await, Code::InvalidArgument, "INVALID_FIELD");
    other.add_rule("more", Action::Allow, "198.51.100.0/25").await;
    other.stop().await;
    service.stop().await;
}
