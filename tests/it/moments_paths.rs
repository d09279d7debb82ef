//! A change whose effect comes later, by every way of changing a policy: each is judged alike, and tests that a change
//! removes are judged as they were.
//!
//! Invariant: what is refused leaves the revision as it was.
//! Not here: what the moments are (`moments_api`).

use std::time::Duration;

use portcullis::proto::v1::mutation::Request;
use portcullis::proto::v1::{
    Action, ApplyPolicyRequest, ChangeGates, ChangeOptions, Decision, DeleteNodeRequest, DeletePolicyTestRequest,
    ErrorReason, ExportPolicyRequest, GetNodeRequest, ListRulesRequest, Mutation, Node, Policy, PreviewChangeRequest,
    PromoteShadowPolicyRequest, ReplaceRulesRequest, RollbackRevisionRequest, Rule, SetShadowPolicyRequest,
    UpdateNodeRequest,
};
use prost_types::Timestamp;
use tonic::Code;

use crate::clock::Hand;
use crate::harness::{Service, access, allow_list, assert_error};
use crate::moments_api::{
    ALLOWED, DAY, DEFAULT, SOON, TOMORROW, WORLD, add_test, after, careful, expire, expiring, guarding,
    in_three_seconds, override_tests, preview, refused, set_gates, start, test_of,
};

async fn revision(service: &Service) -> i64 {
    let request = GetNodeRequest { name: DEFAULT.to_owned() };
    service.hierarchy().get_node(request).await.unwrap().into_inner().revision
}

/// The rules, of which one has another expire time.
async fn rules(service: &Service, id: &str, expire_time: Option<Timestamp>) -> Vec<Rule> {
    let request = ListRulesRequest { parent: DEFAULT.to_owned(), ..ListRulesRequest::default() };
    let mut rules = service.firewall().list_rules(request).await.unwrap().into_inner().rules;
    let name = format!("{DEFAULT}/rules/{id}");
    rules.iter_mut().filter(|rule| rule.name == name).for_each(|rule| rule.expire_time = expire_time);
    rules
}

async fn export(service: &Service) -> Policy {
    let request = ExportPolicyRequest { parent: DEFAULT.to_owned(), omit_ranges: false };
    service.analysis().export_policy(request).await.unwrap().into_inner()
}

fn replace(rules: Vec<Rule>) -> ReplaceRulesRequest {
    ReplaceRulesRequest { parent: DEFAULT.to_owned(), rules, ..ReplaceRulesRequest::default() }
}

fn apply(policy: Policy, options: ChangeOptions) -> ApplyPolicyRequest {
    ApplyPolicyRequest {
        parent: DEFAULT.to_owned(),
        policy: Some(policy),
        options: Some(options),
        ..ApplyPolicyRequest::default()
    }
}

/// Gives a rule an expire time in three seconds by every way, each of which is refused for `reason`, then.
async fn by_every_way(service: &Service, hand: &Hand, id: &str, reason: ErrorReason) {
    let reason_name = reason.as_str_name().trim_start_matches("ERROR_REASON_");
    let soon = Some(in_three_seconds(hand));
    let before = revision(service).await;
    refused(expire(service, id, soon, ChangeOptions::default()).await, reason_name, SOON);
    let validate = ChangeOptions { validate_only: true, ..ChangeOptions::default() };
    refused(expire(service, id, soon, validate).await, reason_name, SOON);
    let changed = rules(service, id, soon).await;
    refused(service.firewall().replace_rules(replace(changed.clone())).await, reason_name, SOON);
    let policy = Policy { rules: changed.clone(), ..export(service).await };
    let applied = apply(policy, ChangeOptions::default());
    refused(service.analysis().apply_policy(applied.clone()).await, reason_name, SOON);
    assert_eq!(revision(service).await, before);

    let update = Request::UpdateRule(expiring(id, soon, ChangeOptions::default()));
    for request in [update.clone(), Request::ReplaceRules(replace(changed)), Request::ApplyPolicy(applied)] {
        let previewed = preview(service, request).await;
        let told = previewed.refusals.iter().find(|refusal| refusal.reason() == reason);
        assert_eq!(told.map(|told| told.from_time), Some(soon), "{:?}", previewed.refusals);
        assert!(previewed.differences.iter().all(|difference| difference.from_time == soon));
        assert_eq!(previewed.differences.len(), 4);
    }
    // A shadow policy may be tried, and not promoted.
    let mutations = vec![Mutation { request: Some(update) }];
    let shadow = SetShadowPolicyRequest { parent: DEFAULT.to_owned(), mutations, options: None };
    service.analysis().set_shadow_policy(shadow).await.unwrap();
    let before = revision(service).await;
    let promote = PromoteShadowPolicyRequest { parent: DEFAULT.to_owned(), ..PromoteShadowPolicyRequest::default() };
    refused(service.analysis().promote_shadow_policy(promote).await, reason_name, SOON);
    assert_eq!(revision(service).await, before);
}

/// A revision at which a rule was to expire, which it no longer is.
async fn once_expiring(service: &Service, hand: &Hand, id: &str) -> String {
    let then = expire(service, id, Some(in_three_seconds(hand)), override_tests()).await.unwrap();
    expire(service, id, None, ChangeOptions::default()).await.unwrap();
    format!("{DEFAULT}/revisions/{}", then.revision)
}

#[tokio::test]
async fn opening_later_is_refused_by_every_way_of_changing_a_policy() {
    let (service, hand) = start().await;
    let back = once_expiring(&service, &hand, "shut").await;
    set_gates(&service, careful()).await;
    by_every_way(&service, &hand, "shut", ErrorReason::OpenToInternet).await;
    let rollback = RollbackRevisionRequest { name: back, ..RollbackRevisionRequest::default() };
    refused(service.analysis().rollback_revision(rollback.clone()).await, "OPEN_TO_INTERNET", SOON);
    let previewed = preview(&service, Request::RollbackRevision(rollback)).await;
    assert_eq!(previewed.refusals[0].from_time, Some(in_three_seconds(&hand)));
    service.stop().await;
}

#[tokio::test]
async fn locking_a_guarded_address_out_later_is_refused_by_every_way_of_changing_a_policy() {
    let (service, hand) = start().await;
    let back = once_expiring(&service, &hand, "office").await;
    set_gates(&service, guarding(ALLOWED)).await;
    by_every_way(&service, &hand, "office", ErrorReason::GuardViolated).await;
    let rollback = RollbackRevisionRequest { name: back, ..RollbackRevisionRequest::default() };
    refused(service.analysis().rollback_revision(rollback).await, "GUARD_VIOLATED", SOON);
    service.stop().await;
}

#[tokio::test]
async fn breaking_a_test_later_is_refused_by_every_way_of_changing_a_policy() {
    let (service, hand) = start().await;
    let back = once_expiring(&service, &hand, "shut").await;
    add_test(&service, "world", test_of(WORLD, Decision::Deny)).await.unwrap();
    by_every_way(&service, &hand, "shut", ErrorReason::TestsFailed).await;
    // That revision had no test: going back to it removes the test, which is judged all the same.
    let rollback = RollbackRevisionRequest { name: back, ..RollbackRevisionRequest::default() };
    let status = refused(service.analysis().rollback_revision(rollback.clone()).await, "TESTS_FAILED", SOON);
    assert!(status.message().contains("`world`"), "{status:?}");
    let forced = RollbackRevisionRequest { options: Some(override_tests()), ..rollback };
    let made = service.analysis().rollback_revision(forced).await.unwrap().into_inner();
    assert_eq!(made.policy_change.unwrap().overridden_tests, [format!("{DEFAULT}/policyTests/world")]);
    hand.advance(Duration::from_secs(3));
    assert_eq!(service.check(WORLD, DEFAULT).await.decision(), Decision::Allow);
    service.stop().await;
}

#[tokio::test]
async fn a_test_that_a_change_removes_or_rewrites_is_judged_as_it_was() {
    let (service, hand) = start().await;
    add_test(&service, "world", test_of(WORLD, Decision::Deny)).await.unwrap();
    let policy = export(&service).await;
    let open = |rules: &[Rule]| rules.iter().filter(|rule| !rule.name.ends_with("/shut")).cloned().collect();
    // Gone with the rule that it is about, at once and later.
    let removed = Policy { rules: open(&policy.rules), policy_tests: Vec::new(), ..policy.clone() };
    let answer = service.analysis().apply_policy(apply(removed.clone(), ChangeOptions::default())).await;
    let status = assert_error(answer, Code::FailedPrecondition, "TESTS_FAILED");
    assert!(status.message().contains("`world`") && !status.message().contains("2027"), "{status:?}");
    let later = rules(&service, "shut", Some(in_three_seconds(&hand))).await;
    let later = Policy { rules: later, policy_tests: Vec::new(), ..policy.clone() };
    refused(service.analysis().apply_policy(apply(later, ChangeOptions::default())).await, "TESTS_FAILED", SOON);
    // Rewritten so that it passes.
    let mut rewritten = Policy { rules: open(&policy.rules), ..policy.clone() };
    rewritten.policy_tests[0].expected_decision = Decision::Allow.into();
    let answer = service.analysis().apply_policy(apply(rewritten, ChangeOptions::default())).await;
    assert_error(answer, Code::FailedPrecondition, "TESTS_FAILED");
    // A test that passes before and after may go, and its words may change.
    let mut renamed = policy.clone();
    renamed.policy_tests[0].name = format!("{DEFAULT}/policyTests/outside");
    renamed.policy_tests[0].description = "the internet".to_owned();
    service.analysis().apply_policy(apply(renamed, ChangeOptions::default())).await.unwrap();
    let name = format!("{DEFAULT}/policyTests/outside");
    let delete = DeletePolicyTestRequest { name, options: None };
    service.analysis().delete_policy_test(delete).await.unwrap();
    service.analysis().apply_policy(apply(removed, ChangeOptions::default())).await.unwrap();
    assert_eq!(service.check(WORLD, DEFAULT).await.decision(), Decision::Allow);
    service.stop().await;
}

#[tokio::test]
async fn a_change_of_the_cluster_that_opens_later_is_refused_with_the_moment() {
    let (service, hand) = start().await;
    let cluster = |access| Node { name: "cluster".to_owned(), access: Some(access), ..Node::default() };
    let set = async |node, options| {
        let request = UpdateNodeRequest { node: Some(node), options: Some(options), ..UpdateNodeRequest::default() };
        service.hierarchy().update_node(request).await
    };
    set(cluster(allow_list(&["203.0.113.0/24"])), ChangeOptions::default()).await.unwrap();
    expire(&service, "shut", Some(after(&hand, DAY)), ChangeOptions::default()).await.unwrap();
    add_test(&service, "world", test_of(WORLD, Decision::Deny)).await.unwrap();
    let open = || cluster(access(portcullis::proto::v1::AccessMode::AllowAll));
    refused(set(open(), ChangeOptions::default()).await, "TESTS_FAILED", TOMORROW);
    let careful = ChangeOptions { refuse_open_to_internet: true, ..override_tests() };
    refused(set(open(), careful).await, "OPEN_TO_INTERNET", TOMORROW);
    let request = UpdateNodeRequest { node: Some(open()), ..UpdateNodeRequest::default() };
    let mutations = vec![Mutation { request: Some(Request::UpdateNode(request)) }];
    let request = PreviewChangeRequest { parent: "cluster".to_owned(), mutations, replay_within: None };
    let previewed = service.analysis().preview_change(request).await.unwrap().into_inner();
    assert_eq!(previewed.refusals[0].from_time, Some(after(&hand, DAY)));
    set(open(), override_tests()).await.unwrap();
    assert_eq!(service.check(WORLD, DEFAULT).await.decision(), Decision::Deny);
    hand.advance(DAY);
    assert_eq!(service.check(WORLD, DEFAULT).await.decision(), Decision::Allow);
    service.stop().await;
}

#[tokio::test]
async fn deleting_an_organization_takes_what_was_to_be_allowed_and_is_judged() {
    let (service, hand) = start().await;
    // The range is kept out for three seconds, and let in then.
    let rule =
        Rule { expire_time: Some(in_three_seconds(&hand)), ..crate::harness::rule(Action::Deny, "203.0.113.0/24") };
    let request = portcullis::proto::v1::CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule),
        position: Some(1),
        ..Default::default()
    };
    service.firewall().create_rule(request).await.unwrap();
    let delete = |options| DeleteNodeRequest {
        name: DEFAULT.to_owned(),
        force: true,
        options: Some(options),
        ..DeleteNodeRequest::default()
    };
    let guard = ChangeOptions { guard_ips: vec![ALLOWED.to_owned()], ..ChangeOptions::default() };
    refused(service.hierarchy().delete_node(delete(guard)).await, "GUARD_VIOLATED", SOON);
    set_gates(&service, guarding(ALLOWED)).await;
    refused(service.hierarchy().delete_node(delete(ChangeOptions::default())).await, "GUARD_VIOLATED", SOON);
    set_gates(&service, ChangeGates::default()).await;
    let test = refused(add_test(&service, "office", test_of(ALLOWED, Decision::Deny)).await, "TESTS_FAILED", SOON);
    assert!(test.message().contains("`office`"), "{test:?}");
    hand.advance(Duration::from_secs(3));
    add_test(&service, "office", test_of(ALLOWED, Decision::Allow)).await.unwrap();
    let answer = service.hierarchy().delete_node(delete(ChangeOptions::default())).await;
    assert_error(answer, Code::FailedPrecondition, "TESTS_FAILED");
    service.hierarchy().delete_node(delete(override_tests())).await.unwrap();
    service.stop().await;
}
