//! What is the same after a policy is applied: objects without an id are those that they equal.
//!
//! Invariant: only what truly differs changes.
//! Not here: which look-alikes are paired (`policy::plan`).

use std::time::Duration;

use portcullis::proto::v1::mutation::Request;
use portcullis::proto::v1::{
    Action, AddressGroup, ApplyPolicyRequest, ChangeOptions, ConnectionType, CreateAddressGroupRequest,
    CreateNodeRequest, CreatePolicyTestRequest, CreateRuleRequest, Decision, DeleteNodeRequest, GetShadowPolicyRequest,
    ListAuditRecordsRequest, Mutation, ObjectChange, Policy, PolicyTest, PreviewChangeRequest,
    PromoteShadowPolicyRequest, ReplaceRulesRequest, Rule, SetShadowPolicyRequest, policy_object,
};

use crate::clock::Hand;
use crate::harness::{Service, rule};
use crate::policy_api::{DEFAULT, apply, export};
use crate::rules_api::list;

fn test_of(ip: &str, expected: Decision) -> PolicyTest {
    PolicyTest {
        ip: ip.to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        expected_decision: expected.into(),
        ..PolicyTest::default()
    }
}

/// A policy without any ids, two of whose rules look the same.
fn without_ids() -> Policy {
    let office = Rule { description: "office".to_owned(), ..rule(Action::Allow, "10.0.0.0/8") };
    Policy {
        rules: vec![
            office,
            rule(Action::Deny, "192.0.2.0/24"),
            rule(Action::Deny, "192.0.2.0/24"),
            rule(Action::Deny, "any"),
        ],
        policy_tests: vec![test_of("10.0.0.1", Decision::Allow), test_of("203.0.113.1", Decision::Deny)],
        ..Policy::default()
    }
}

/// Twenty rules without ids.
fn twenty(rule_at: impl Fn(usize) -> Rule) -> Vec<Rule> {
    (0..20).map(rule_at).collect()
}

async fn preview(service: &Service, request: Request) -> Vec<ObjectChange> {
    let mutations = vec![Mutation { request: Some(request) }];
    let request = PreviewChangeRequest { parent: DEFAULT.to_owned(), mutations, replay_within: None };
    service.analysis().preview_change(request).await.unwrap().into_inner().changes
}

fn application(policy: Policy) -> ApplyPolicyRequest {
    ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(policy), ..ApplyPolicyRequest::default() }
}

/// The names of rules that are new in changes.
fn made(changes: &[ObjectChange]) -> Vec<String> {
    let rule = |change: &ObjectChange| match change.after.clone()?.object? {
        policy_object::Object::Rule(rule) => Some(rule.name),
        _ => None,
    };
    changes.iter().filter_map(rule).collect()
}

#[tokio::test]
async fn applying_the_same_policy_again_changes_nothing_at_all() {
    let service = Service::start().await;
    let first = apply(&service, without_ids()).await.unwrap();
    for ip in ["10.0.0.1", "192.0.2.1", "192.0.2.2", "203.0.113.1"] {
        service.check(ip, DEFAULT).await;
    }
    let create = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule(Action::Deny, "10.9.0.0/16")),
        ..CreateRuleRequest::default()
    };
    let shadow = SetShadowPolicyRequest {
        parent: DEFAULT.to_owned(),
        mutations: vec![Mutation { request: Some(Request::CreateRule(create)) }],
        options: None,
    };
    service.analysis().set_shadow_policy(shadow).await.unwrap();
    let before = (export(&service, false).await, list(&service).await);
    assert_eq!(before.1.rules.iter().map(|rule| rule.match_count).collect::<Vec<_>>(), [1, 2, 0, 1]);

    for _ in 0..2 {
        let again = apply(&service, without_ids()).await.unwrap();
        assert_eq!((again.revision, again.changes.len()), (first.revision + 1, 0));
        assert_eq!((export(&service, false).await, list(&service).await), before);
        assert_eq!(preview(&service, Request::ApplyPolicy(application(without_ids()))).await, []);
    }
    let rules = without_ids().rules;
    let request = ReplaceRulesRequest { parent: DEFAULT.to_owned(), rules, ..ReplaceRulesRequest::default() };
    let replaced = service.firewall().replace_rules(request).await.unwrap().into_inner();
    assert_eq!((replaced.revision, &replaced.etag), (before.1.revision, &before.1.etag));
    assert_eq!(list(&service).await, before.1);

    // The audit log still finds by the rule what the rule decided, and how it was made.
    let request = ListAuditRecordsRequest {
        parent: DEFAULT.to_owned(),
        rule: before.1.rules[1].name.clone(),
        ..ListAuditRecordsRequest::default()
    };
    let records = crate::clock::until("the records are durable", async || {
        let page = service.audit().list_audit_records(request.clone()).await.unwrap().into_inner();
        (page.audit_records.len() == 3).then_some(page.audit_records)
    });
    assert_eq!(records.await.len(), 3, "two decisions and the creation");
    // And the shadow policy is not outdated.
    let request = GetShadowPolicyRequest { parent: DEFAULT.to_owned(), include_policy: false };
    service.analysis().get_shadow_policy(request).await.unwrap();
    let request = PromoteShadowPolicyRequest { parent: DEFAULT.to_owned(), ..PromoteShadowPolicyRequest::default() };
    let promoted = service.analysis().promote_shadow_policy(request).await.unwrap().into_inner();
    assert_eq!(made(&promoted.policy_change.unwrap().changes).len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn a_rule_that_is_put_between_twenty_without_ids_is_one_change() {
    for look_alike in [false, true] {
        let service = Service::start().await;
        let rules = twenty(|at| rule(Action::Deny, &format!("10.0.{}.0/24", if look_alike { at % 2 } else { at })));
        apply(&service, Policy { rules: rules.clone(), ..Policy::default() }).await.unwrap();
        let before = list(&service).await.rules;
        let mut more = rules.clone();
        more.insert(10, rule(Action::Allow, "192.0.2.1"));
        let applied = apply(&service, Policy { rules: more.clone(), ..Policy::default() }).await.unwrap();
        assert_eq!(applied.changes.len(), 1, "{:?}", applied.changes);
        let now = list(&service).await.rules;
        let mut kept = now.clone();
        assert_eq!(kept.remove(10).name, made(&applied.changes)[0]);
        let identity = |rules: &[Rule]| -> Vec<_> {
            rules.iter().map(|rule| (rule.name.clone(), rule.etag.clone(), rule.create_time)).collect()
        };
        assert_eq!(identity(&kept), identity(&before));

        // The same by replacing the rules: one more that looks like its neighbors.
        more.insert(4, rules[4].clone());
        let request = ReplaceRulesRequest { parent: DEFAULT.to_owned(), rules: more, ..ReplaceRulesRequest::default() };
        let changes = preview(&service, Request::ReplaceRules(request.clone())).await;
        assert_eq!(changes.len(), 1, "{changes:?}");
        let after = service.firewall().replace_rules(request).await.unwrap().into_inner().rules;
        let is_new = |rule: &&Rule| !now.iter().any(|known| known.name == rule.name);
        let new: Vec<&Rule> = after.iter().filter(is_new).collect();
        assert_eq!((new.len(), &new[0].name), (1, &made(&changes)[0]));
        service.stop().await;
    }
}

#[tokio::test]
async fn what_moves_stays_itself_and_what_differs_is_new() {
    let service = Service::start().await;
    let mut policy = without_ids();
    apply(&service, policy.clone()).await.unwrap();
    let before = list(&service).await.rules;
    let tests = export(&service, false).await.policy_tests;
    policy.rules.swap(1, 3);
    policy.policy_tests.clear();
    let moved = apply(&service, policy.clone()).await.unwrap();
    assert_eq!(moved.changes.len(), 1, "the order: {:?}", moved.changes);
    let names: Vec<String> = list(&service).await.rules.into_iter().map(|rule| rule.name).collect();
    assert_eq!(names, [0, 3, 1, 2].map(|at| before[at].name.clone()));
    assert_eq!(export(&service, false).await.policy_tests, tests, "a section that is not named");

    // Other settings are another rule; so is a rule that the policy gives an id.
    policy.rules[0].description = "the office".to_owned();
    policy.rules[1].name = format!("{DEFAULT}/rules/named");
    apply(&service, policy).await.unwrap();
    let now = list(&service).await.rules;
    let known = |at: usize| before.iter().position(|rule| rule.name == now[at].name);
    assert_eq!((known(0), known(1), known(2), known(3)), (None, None, Some(1), Some(2)));

    // A test that differs is new, the other one is not.
    let mut changed = without_ids().policy_tests;
    changed[0].description = "the office".to_owned();
    changed.reverse();
    let policy = Policy { policy_tests: changed, rules: without_ids().rules, ..Policy::default() };
    apply(&service, policy).await.unwrap();
    let now = export(&service, false).await.policy_tests;
    let find = |tests: &[PolicyTest], ip: &str| tests.iter().find(|test| test.ip == ip).unwrap().name.clone();
    assert_eq!(find(&now, "203.0.113.1"), find(&tests, "203.0.113.1"));
    assert_ne!(find(&now, "10.0.0.1"), find(&tests, "10.0.0.1"));
    service.stop().await;
}

#[tokio::test]
async fn a_preview_makes_up_the_ids_that_the_change_makes_up() {
    let service = Service::start().await;
    let validate = || Some(ChangeOptions { validate_only: true, ..ChangeOptions::default() });
    let create = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule(Action::Deny, "192.0.2.1")),
        ..CreateRuleRequest::default()
    };
    let shown = made(&preview(&service, Request::CreateRule(create.clone())).await);
    let judged = CreateRuleRequest { options: validate(), ..create.clone() };
    let judged = service.firewall().create_rule(judged).await.unwrap().into_inner().name;
    let rule_name = service.firewall().create_rule(create.clone()).await.unwrap().into_inner().name;
    assert_eq!((&shown[0], &judged), (&rule_name, &rule_name));
    // The next one has another id, and is previewed with it.
    let shown = made(&preview(&service, Request::CreateRule(create.clone())).await);
    let next = service.firewall().create_rule(create.clone()).await.unwrap().into_inner().name;
    assert_eq!(shown, [next.as_str()]);
    assert_ne!(next, rule_name);

    let group = CreateAddressGroupRequest {
        parent: DEFAULT.to_owned(),
        address_group: Some(AddressGroup::default()),
        ..CreateAddressGroupRequest::default()
    };
    let judged = CreateAddressGroupRequest { options: validate(), ..group.clone() };
    let judged = service.firewall().create_address_group(judged).await.unwrap().into_inner().name;
    assert_eq!(service.firewall().create_address_group(group).await.unwrap().into_inner().name, judged);
    let test = CreatePolicyTestRequest {
        parent: DEFAULT.to_owned(),
        policy_test: Some(test_of("10.0.0.1", Decision::Allow)),
        ..CreatePolicyTestRequest::default()
    };
    let judged = CreatePolicyTestRequest { options: validate(), ..test.clone() };
    let judged = service.analysis().create_policy_test(judged).await.unwrap().into_inner().name;
    assert_eq!(service.analysis().create_policy_test(test).await.unwrap().into_inner().name, judged);
    // A whole policy.
    let shown = made(&preview(&service, Request::ApplyPolicy(application(without_ids()))).await);
    let applied = apply(&service, without_ids()).await.unwrap();
    assert_eq!((made(&applied.changes), shown.len()), (shown, 4));
    service.stop().await;
}

#[tokio::test]
async fn an_organization_that_is_made_again_makes_up_other_ids() {
    // The clock stands still, so only what the service keeps of the organization tells the two apart.
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let mut ids = std::collections::BTreeSet::new();
    for round in 0..3 {
        let request = CreateNodeRequest { node_id: "again".to_owned(), ..CreateNodeRequest::default() };
        service.hierarchy().create_node(request).await.unwrap();
        let create = CreateRuleRequest {
            parent: "organizations/again".to_owned(),
            rule: Some(rule(Action::Deny, "192.0.2.1")),
            ..CreateRuleRequest::default()
        };
        for _ in 0..3 {
            ids.insert(service.firewall().create_rule(create.clone()).await.unwrap().into_inner().name);
        }
        let request =
            DeleteNodeRequest { name: "organizations/again".to_owned(), force: true, ..DeleteNodeRequest::default() };
        service.hierarchy().delete_node(request).await.unwrap();
        hand.advance(Duration::from_secs(round));
    }
    assert_eq!(ids.len(), 9, "{ids:?}");
    service.stop().await;
}
