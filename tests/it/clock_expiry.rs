//! Expiry as a fact, through the API: a rule whose time has passed is marked in the policy, and nothing revives it.
//!
//! Invariant: only another expire time takes the mark away.
//! Not here: how time follows the wall clock (`clock_follows`).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::proto::v1::{
    Action, ApplyPolicyRequest, ChangeOptions, CreateRuleRequest, Decision, DeleteRuleRequest, ExplainRequest,
    ExportPolicyRequest, GetRuleRequest, ListProblemsRequest, ListRevisionsRequest, ProblemCode, Revision,
    RollbackRevisionRequest, Rule, UpdateRuleRequest,
};
use prost_types::{FieldMask, Timestamp};

use crate::clock::{Hand, until};
use crate::clock_follows::{corrections, jump, pass};
use crate::harness::{Service, rule};

const DEFAULT: &str = "organizations/default";
const DAY: i64 = 86_400;
const HOUR: Duration = Duration::from_hours(1);

fn at(time: Duration) -> Timestamp {
    Timestamp { seconds: i64::try_from(time.as_secs()).unwrap(), nanos: 0 }
}

pub(crate) fn name(id: &str) -> String {
    format!("{DEFAULT}/rules/{id}")
}

pub(crate) fn expiring(range: &str, time: Duration) -> Rule {
    Rule { expire_time: Some(at(time)), ..rule(Action::Deny, range) }
}

pub(crate) async fn add(service: &Service, id: &str, rule: Rule) -> Rule {
    let request = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule),
        rule_id: id.to_owned(),
        ..CreateRuleRequest::default()
    };
    service.firewall().create_rule(request).await.unwrap().into_inner()
}

pub(crate) async fn get(service: &Service, id: &str) -> Rule {
    service.firewall().get_rule(GetRuleRequest { name: name(id), ..Default::default() }).await.unwrap().into_inner()
}

pub(crate) async fn newest(service: &Service) -> Revision {
    let request = ListRevisionsRequest { parent: DEFAULT.to_owned(), page_size: 1, ..Default::default() };
    service.analysis().list_revisions(request).await.unwrap().into_inner().revisions.remove(0)
}

pub(crate) async fn decision(service: &Service, ip: &str) -> Decision {
    service.check(ip, DEFAULT).await.decision()
}

/// Waits for the change that marks what has expired.
pub(crate) async fn marked(service: &Service, revision: i64) {
    until("the mark", async || (newest(service).await.revision >= revision).then_some(())).await;
    let newest = newest(service).await;
    assert_eq!((newest.revision, newest.policy_change.unwrap().actor.as_str()), (revision, "expiry"));
}

/// The wall clock goes back two days, and the service follows.
pub(crate) async fn go_back(service: &Service, hand: &Hand) {
    jump(hand, -2 * DAY).await;
    pass(hand, 31).await;
    pass(hand, 31).await;
    let (from, to) = until("the correction", async || corrections(service).await.pop()).await;
    assert_eq!(to - from, -2 * DAY);
}

#[tokio::test]
async fn what_has_expired_is_one_change_and_no_clock_revives_it() {
    let temporary = tempfile::tempdir().unwrap();
    let config = Config::for_data_dir(temporary.path());
    let hand = Hand::new();
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    add(&service, "lasting", rule(Action::Deny, "203.0.113.128/25")).await;
    let one = add(&service, "one", expiring("192.0.2.0/24", hand.now() + HOUR)).await;
    add(&service, "two", Rule { disabled: true, ..expiring("198.51.100.0/24", hand.now() + HOUR) }).await;
    let before = newest(&service).await.revision;
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Deny);
    hand.advance(HOUR);
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Allow, "never late");
    marked(&service, before + 1).await;
    let expired = get(&service, "one").await;
    assert!(expired.expired && get(&service, "two").await.expired);
    assert_eq!((expired.etag, expired.update_time), (one.etag, one.update_time), "nobody changed its settings");

    go_back(&service, &hand).await;
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Allow);
    assert!(get(&service, "one").await.expired);
    let explained = ExplainRequest {
        ip: "192.0.2.1".to_owned(),
        connection_type: 1,
        endpoint: DEFAULT.to_owned(),
        ..Default::default()
    };
    let explained = service.analysis().explain(explained).await.unwrap().into_inner();
    assert_eq!(explained.decision(), Decision::Allow);
    let problems = ListProblemsRequest { parent: DEFAULT.to_owned(), ..Default::default() };
    let problems = service.analysis().list_problems(problems).await.unwrap().into_inner().problems;
    let about: Vec<_> = problems.iter().filter(|of| of.code() == ProblemCode::ExpiredRule).collect();
    assert_eq!(about.iter().map(|of| of.resource.clone()).collect::<Vec<_>>(), [name("one")]);

    // Neither an update of something else, nor enabling it, nor a restart, nor the policy file, nor a rollback.
    let update = |rule: Rule, paths: &[&str]| UpdateRuleRequest {
        rule: Some(rule),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..UpdateRuleRequest::default()
    };
    for id in ["one", "two"] {
        let described = Rule { name: name(id), description: "still there".to_owned(), ..Rule::default() };
        service.firewall().update_rule(update(described, &["description", "disabled"])).await.unwrap();
    }
    assert_eq!(decision(&service, "198.51.100.1").await, Decision::Allow);
    let file = ExportPolicyRequest { parent: DEFAULT.to_owned(), ..Default::default() };
    let policy = service.analysis().export_policy(file).await.unwrap().into_inner();
    let apply = ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(policy), ..Default::default() };
    service.analysis().apply_policy(apply).await.unwrap();
    let back = RollbackRevisionRequest { name: format!("{DEFAULT}/revisions/{before}"), ..Default::default() };
    service.analysis().rollback_revision(back).await.unwrap();
    service.stop().await;
    let service = Service::with_clock(config, hand.clock()).await;
    for ip in ["192.0.2.1", "198.51.100.1"] {
        assert_eq!(decision(&service, ip).await, Decision::Allow, "{ip}");
    }
    assert!(get(&service, "one").await.expired && get(&service, "two").await.expired);
    // Another expire time does.
    let later = Rule { name: name("one"), expire_time: Some(at(hand.now() + HOUR)), ..Rule::default() };
    let revived = service.firewall().update_rule(update(later, &["expire_time"])).await.unwrap().into_inner();
    assert!(!revived.expired);
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Deny);
    service.stop().await;
}

#[tokio::test]
async fn what_expired_while_the_service_was_stopped_is_marked_before_the_first_answer() {
    let temporary = tempfile::tempdir().unwrap();
    let config = Config::for_data_dir(temporary.path());
    let hand = Hand::new();
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    for number in 1..=5 {
        add(&service, &format!("r{number}"), expiring(&format!("192.0.2.{number}"), hand.now() + HOUR)).await;
    }
    let before = newest(&service).await.revision;
    service.stop().await;
    hand.advance(2 * HOUR);
    let service = Service::with_clock(config, hand.clock()).await;
    let answer = service.check("192.0.2.1", DEFAULT).await;
    assert_eq!((answer.decision(), answer.revision), (Decision::Allow, before + 1));
    marked(&service, before + 1).await;
    service.stop().await;
}

#[tokio::test]
async fn undoing_an_unconfirmed_change_revives_nothing_and_expiry_confirms_nothing() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    add(&service, "lasting", rule(Action::Deny, "203.0.113.128/25")).await;
    add(&service, "there", expiring("192.0.2.0/24", hand.now() + Duration::from_secs(30))).await;
    add(&service, "deleted", expiring("198.51.100.0/24", hand.now() + Duration::from_secs(30))).await;
    let confirm_within = Some(Duration::from_mins(2).try_into().unwrap());
    let options = Some(ChangeOptions { confirm_within, ..ChangeOptions::default() });
    let request = DeleteRuleRequest { name: name("deleted"), options, ..Default::default() };
    service.firewall().delete_rule(request).await.unwrap();
    let waiting = newest(&service).await.revision;
    hand.advance(Duration::from_secs(31));
    marked(&service, waiting + 1).await;
    let node = portcullis::proto::v1::GetNodeRequest { name: DEFAULT.to_owned() };
    let node = service.hierarchy().get_node(node).await.unwrap().into_inner();
    assert_eq!(node.pending_revision.unwrap().revision, waiting, "it still waits");
    // Nor does it where the clock has gone back to before the expire time by then.
    go_back(&service, &hand).await;
    hand.advance(Duration::from_secs(30));
    until("the change is undone", async || (newest(&service).await.revision >= waiting + 2).then_some(())).await;
    assert!(get(&service, "there").await.expired && get(&service, "deleted").await.expired);
    for ip in ["192.0.2.1", "198.51.100.1"] {
        assert_eq!(decision(&service, ip).await, Decision::Allow, "{ip}");
    }
    assert_eq!(newest(&service).await.revision, waiting + 2, "what came back expired needs no change of its own");
    service.stop().await;
}

#[tokio::test]
async fn a_new_expire_time_that_has_passed_is_said_at_once() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    add(&service, "one", rule(Action::Deny, "192.0.2.0/24")).await;
    let created = add(&service, "two", expiring("198.51.100.0/24", hand.now())).await;
    let past = Rule { name: name("one"), expire_time: Some(at(Duration::from_hours(1_000))), ..Rule::default() };
    let update = UpdateRuleRequest {
        rule: Some(past),
        update_mask: Some(FieldMask { paths: vec!["expire_time".to_owned()] }),
        ..UpdateRuleRequest::default()
    };
    let updated = service.firewall().update_rule(update).await.unwrap().into_inner();
    assert!(created.expired && updated.expired, "the answer says so");
    let revision = newest(&service).await.revision;
    assert_eq!(revision, updated.revision);
    go_back(&service, &hand).await;
    for ip in ["192.0.2.1", "198.51.100.1"] {
        assert_eq!(decision(&service, ip).await, Decision::Allow, "{ip}");
    }
    assert_eq!(newest(&service).await.revision, revision, "it needs no second change");
    service.stop().await;
}
