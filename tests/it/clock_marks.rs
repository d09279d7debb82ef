//! Marks of expired rules in what can come back: revisions, shadow policies. Through the API.
//!
//! Invariant: a rule that is on the record as expired comes back as expired, whatever the clock shows then.
//! Not here: marks in the present policy, and undoing what was not confirmed (`clock_expiry`).

use std::time::Duration;

use portcullis::proto::v1::mutation::Request;
use portcullis::proto::v1::policy_object::Object;
use portcullis::proto::v1::{
    Action, CompareRevisionsRequest, CreateRuleRequest, Decision, DeleteRuleRequest, GetShadowPolicyRequest,
    ListDivergencesRequest, Mutation, PromoteShadowPolicyRequest, RollbackRevisionRequest, Rule,
    SetShadowPolicyRequest, UpdateRuleRequest, WatchDivergencesRequest,
};
use prost_types::{FieldMask, Timestamp};

use crate::clock::Hand;
use crate::clock_expiry::{add, decision, expiring, get, go_back, marked, name, newest};
use crate::harness::{Service, rule};

const DEFAULT: &str = "organizations/default";
const HOUR: Duration = Duration::from_hours(1);

async fn delete(service: &Service, id: &str) {
    let request = DeleteRuleRequest { name: name(id), ..Default::default() };
    service.firewall().delete_rule(request).await.unwrap();
}

async fn roll_back(service: &Service, revision: i64) {
    let request = RollbackRevisionRequest { name: format!("{DEFAULT}/revisions/{revision}"), ..Default::default() };
    service.analysis().rollback_revision(request).await.unwrap();
}

async fn set_shadow(service: &Service, id: &str, rule: Rule) {
    let create = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule),
        rule_id: id.to_owned(),
        position: Some(1),
        ..CreateRuleRequest::default()
    };
    let request = SetShadowPolicyRequest {
        parent: DEFAULT.to_owned(),
        mutations: vec![Mutation { request: Some(Request::CreateRule(create)) }],
        options: None,
    };
    service.analysis().set_shadow_policy(request).await.unwrap();
}

#[tokio::test]
async fn a_rollback_brings_back_no_rule_that_is_on_the_record_as_expired() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    add(&service, "one", expiring("192.0.2.0/24", hand.now() + HOUR)).await;
    let made = newest(&service).await.revision;
    hand.advance(HOUR);
    marked(&service, made + 1).await;
    delete(&service, "one").await;
    go_back(&service, &hand).await;
    // The revision that marked it, and the one before.
    for revision in [made + 1, made] {
        roll_back(&service, revision).await;
        assert!(get(&service, "one").await.expired, "{revision}");
        assert_eq!(decision(&service, "192.0.2.1").await, Decision::Allow, "{revision}");
        delete(&service, "one").await;
    }
    // Also where the rule is there with another expire time.
    roll_back(&service, made + 1).await;
    let later = Timestamp { seconds: i64::try_from((hand.now() + 9 * HOUR).as_secs()).unwrap(), nanos: 0 };
    let update = UpdateRuleRequest {
        rule: Some(Rule { name: name("one"), expire_time: Some(later), ..Rule::default() }),
        update_mask: Some(FieldMask { paths: vec!["expire_time".to_owned()] }),
        ..UpdateRuleRequest::default()
    };
    service.firewall().update_rule(update).await.unwrap();
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Deny);
    roll_back(&service, made + 1).await;
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Allow);
    service.stop().await;
}

#[tokio::test]
async fn a_promotion_brings_no_rule_that_expired_in_the_shadow_policy() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    set_shadow(&service, "tried", expiring("192.0.2.0/24", hand.now() + HOUR)).await;
    let set = newest(&service).await.revision;
    hand.advance(HOUR);
    marked(&service, set + 1).await;
    go_back(&service, &hand).await;
    let promote = PromoteShadowPolicyRequest { parent: DEFAULT.to_owned(), ..PromoteShadowPolicyRequest::default() };
    service.analysis().promote_shadow_policy(promote).await.unwrap();
    assert!(get(&service, "tried").await.expired);
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Allow);
    service.stop().await;
}

#[tokio::test]
async fn a_shadow_policy_is_counted_on_when_rules_expire() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    add(&service, "one", expiring("192.0.2.0/24", hand.now() + HOUR)).await;
    set_shadow(&service, "tried", rule(Action::Deny, "10.0.0.0/8")).await;
    let set = newest(&service).await.revision;
    let request = WatchDivergencesRequest { parent: DEFAULT.to_owned() };
    let mut watched = service.analysis().watch_divergences(request).await.unwrap().into_inner();
    assert_eq!(decision(&service, "10.0.0.1").await, Decision::Allow);
    hand.advance(HOUR);
    marked(&service, set + 1).await;
    assert_eq!(decision(&service, "10.0.0.2").await, Decision::Allow);
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Allow);
    for number in [1, 2] {
        assert_eq!(watched.message().await.unwrap().unwrap().number, number);
    }
    let request = GetShadowPolicyRequest { parent: DEFAULT.to_owned(), include_policy: true };
    let shadow = service.analysis().get_shadow_policy(request).await.unwrap().into_inner();
    assert_eq!((shadow.check_count, shadow.newly_denied_count, shadow.newly_permitted_count), (3, 2, 0));
    assert!(shadow.policy.unwrap().rules.iter().any(|rule| rule.name == name("one") && rule.expired));
    let request = ListDivergencesRequest { parent: DEFAULT.to_owned(), ..ListDivergencesRequest::default() };
    let found = service.analysis().list_divergences(request).await.unwrap().into_inner().divergences;
    assert_eq!(found.iter().map(|divergence| divergence.number).collect::<Vec<_>>(), [2, 1]);
    service.stop().await;
}

#[tokio::test]
async fn a_comparison_names_the_rule_that_only_one_revision_marks() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    add(&service, "one", expiring("192.0.2.0/24", hand.now() + HOUR)).await;
    let made = newest(&service).await.revision;
    hand.advance(HOUR);
    marked(&service, made + 1).await;
    for (base, other) in [(made, made + 1), (made + 1, made)] {
        let name_of = |revision: i64| format!("{DEFAULT}/revisions/{revision}");
        let request = CompareRevisionsRequest { base: name_of(base), name: name_of(other) };
        let compared = service.analysis().compare_revisions(request).await.unwrap().into_inner();
        let [change] = compared.changes.as_slice() else { panic!("{:?}", compared.changes) };
        let marks = [&change.before, &change.after].map(|of| match &of.as_ref().unwrap().object {
            Some(Object::Rule(rule)) => (rule.name.clone(), rule.expired),
            other => panic!("{other:?}"),
        });
        assert_eq!(marks, [(name("one"), base > made), (name("one"), other > made)]);
    }
    service.stop().await;
}
