//! What rules do to Checks, through the API: counts, expiry, connection types, disabling.
//!
//! Invariant: a rule counts the decisions that it was the first match of, and no others; a rule that does not match
//! now lets the next one decide.
//! Not here: changing rules (`rules_api`), random policies (`decisions`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis::proto::v1::{
    Action, CheckRequest, ConnectionType, CreateRuleRequest, Decision, GetRuleRequest, Reason, Rule, UpdateRuleRequest,
};
use prost_types::{FieldMask, Timestamp};

use crate::clock::Hand;
use crate::harness::{Service, access, allow_list, rule};

const ORGANIZATION: &str = "organizations/default";

async fn add(service: &Service, id: &str, rule: Rule) {
    let request = CreateRuleRequest {
        parent: ORGANIZATION.to_owned(),
        rule: Some(rule),
        rule_id: id.to_owned(),
        ..CreateRuleRequest::default()
    };
    service.firewall().create_rule(request).await.unwrap();
}

async fn get(service: &Service, id: &str) -> Rule {
    let name = format!("{ORGANIZATION}/rules/{id}");
    service.firewall().get_rule(GetRuleRequest { name, ..Default::default() }).await.unwrap().into_inner()
}

/// Which rule decides: its id, or nothing.
async fn decides(service: &Service, ip: &str, connection_type: ConnectionType) -> String {
    let request = CheckRequest {
        ip: ip.to_owned(),
        connection_type: connection_type.into(),
        endpoint: ORGANIZATION.to_owned(),
        ..CheckRequest::default()
    };
    let answer = service.decisions().check(request).await.unwrap().into_inner();
    answer.rule.rsplit('/').next().unwrap_or_default().to_owned()
}

fn millis(time: Timestamp) -> i64 {
    time.seconds * 1_000 + i64::from(time.nanos / 1_000_000)
}

#[expect(clippy::disallowed_methods, reason = "the test compares with the clock that the server reads")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

#[tokio::test]
async fn a_rule_counts_the_decisions_that_it_was_the_first_match_of() {
    let service = Service::start().await;
    add(&service, "first", rule(Action::Allow, "192.0.2.0/24")).await;
    add(&service, "second", rule(Action::Deny, "192.0.0.0/16")).await;
    add(&service, "never", rule(Action::Deny, "192.0.2.0/25")).await;
    let unmatched = get(&service, "first").await;
    assert_eq!((unmatched.match_count, unmatched.last_match_time), (0, None));
    let before = millis(Timestamp { seconds: i64::try_from(now().as_secs()).unwrap(), nanos: 0 });
    for ip in ["192.0.2.1", "::ffff:192.0.2.2", "192.0.2.3", "192.0.3.1", "8.8.8.8"] {
        service.check(ip, ORGANIZATION).await;
    }
    // An allowlist that refuses in the end does not undo the match, an earlier step that refuses has none.
    service.set_access(ORGANIZATION, allow_list(&["203.0.113.0/24"])).await;
    assert_eq!(service.check("192.0.2.1", ORGANIZATION).await.reason(), Reason::OutsideOrganization);
    service.set_access("cluster", allow_list(&["203.0.113.0/24"])).await;
    assert_eq!(service.check("192.0.2.1", ORGANIZATION).await.reason(), Reason::OutsideCluster);
    let counted = |rule: &Rule| (rule.match_count, rule.last_match_time.is_some());
    let (first, second, never) =
        (get(&service, "first").await, get(&service, "second").await, get(&service, "never").await);
    assert_eq!([counted(&first), counted(&second), counted(&never)], [(4, true), (1, true), (0, false)]);
    let last = millis(first.last_match_time.unwrap());
    let after = i64::try_from(now().as_millis()).unwrap();
    assert!(before <= last && last <= after, "{before} {last} {after}");
    assert!(millis(first.match_count_start_time.unwrap()) <= last);
    // Counting is no change: neither revision nor etag moved, and an update keeps the count.
    assert_eq!(first.etag, unmatched.etag);
    let changed = Rule { description: "new".to_owned(), name: first.name.clone(), ..Rule::default() };
    let request = UpdateRuleRequest { rule: Some(changed), ..UpdateRuleRequest::default() };
    let changed = service.firewall().update_rule(request).await.unwrap().into_inner();
    assert_eq!(
        (changed.match_count, changed.last_match_time, changed.match_count_start_time),
        (4, first.last_match_time, first.match_count_start_time)
    );
    service.stop().await;
}

#[tokio::test]
async fn a_rule_applies_to_its_connection_types_and_without_any_to_all() {
    let service = Service::start().await;
    let (shell, preview) = (ConnectionType::Shell, ConnectionType::Preview);
    let of = |types: &[ConnectionType], range: &str| Rule {
        connection_types: types.iter().map(|named| i32::from(*named)).collect(),
        ..rule(Action::Deny, range)
    };
    add(&service, "shell", of(&[shell], "192.0.2.0/24")).await;
    add(&service, "preview", of(&[preview], "192.0.2.0/24")).await;
    add(&service, "both", of(&[preview, shell], "198.51.100.0/24")).await;
    add(&service, "all", of(&[], "203.0.113.0/24")).await;
    for (ip, of_shell, of_preview) in
        [("192.0.2.1", "shell", "preview"), ("198.51.100.1", "both", "both"), ("203.0.113.1", "all", "all")]
    {
        assert_eq!(decides(&service, ip, shell).await, of_shell);
        assert_eq!(decides(&service, ip, preview).await, of_preview);
    }
    assert_eq!(get(&service, "shell").await.connection_types, [i32::from(shell)]);
    assert_eq!(get(&service, "both").await.connection_types.len(), 2);
    service.stop().await;
}

#[tokio::test]
async fn a_disabled_rule_is_kept_and_does_not_match() {
    let service = Service::start().await;
    add(&service, "off", Rule { disabled: true, ..rule(Action::Deny, "any") }).await;
    add(&service, "on", rule(Action::Allow, "any")).await;
    assert_eq!(decides(&service, "192.0.2.1", ConnectionType::Shell).await, "on");
    for (disabled, decider) in [(false, "off"), (true, "on")] {
        let given = Rule { name: "organizations/default/rules/off".to_owned(), disabled, ..Rule::default() };
        let update_mask = Some(FieldMask { paths: vec!["disabled".to_owned()] });
        let request = UpdateRuleRequest { rule: Some(given), update_mask, options: None };
        service.firewall().update_rule(request).await.unwrap();
        assert_eq!(decides(&service, "192.0.2.1", ConnectionType::Shell).await, decider);
    }
    assert_eq!(get(&service, "off").await.position, 1);
    service.stop().await;
}

#[tokio::test]
async fn a_rule_matches_until_it_expires_and_the_next_one_decides_from_then_on() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let expiring = |at: Duration| Rule {
        expire_time: Some(Timestamp {
            seconds: i64::try_from(at.as_secs()).unwrap(),
            nanos: i32::try_from(at.subsec_nanos()).unwrap(),
        }),
        ..rule(Action::Deny, "192.0.2.0/24")
    };
    add(&service, "past", expiring(Duration::ZERO)).await;
    let end = hand.now() + Duration::from_mins(7);
    add(&service, "soon", expiring(end)).await;
    add(&service, "later", expiring(end + Duration::from_hours(1))).await;
    hand.advance(Duration::from_mins(7) - Duration::from_micros(1));
    assert_eq!(decides(&service, "192.0.2.1", ConnectionType::Shell).await, "soon");
    hand.set(end);
    assert_eq!(decides(&service, "192.0.2.1", ConnectionType::Shell).await, "later");
    let expired = get(&service, "soon").await;
    assert_eq!((expired.position, expired.disabled), (2, false));
    // Extended, it matches again.
    let extended = Rule { name: expired.name, ..expiring(end + Duration::from_mins(1)) };
    let request = UpdateRuleRequest { rule: Some(extended), ..UpdateRuleRequest::default() };
    service.firewall().update_rule(request).await.unwrap();
    assert_eq!(decides(&service, "192.0.2.1", ConnectionType::Shell).await, "soon");
    service.stop().await;
}

#[tokio::test]
async fn an_allow_rule_lifts_no_allowlist_and_a_deny_rule_comes_before_the_organizations_own() {
    let service = Service::start().await;
    service.set_access(ORGANIZATION, allow_list(&["203.0.113.0/24"])).await;
    add(&service, "allow", rule(Action::Allow, "192.0.2.0/24")).await;
    add(&service, "deny", rule(Action::Deny, "198.51.100.0/24")).await;
    for (ip, decision, reason, decider) in [
        ("192.0.2.1", Decision::Deny, Reason::OutsideOrganization, ""),
        ("198.51.100.1", Decision::Deny, Reason::DenyRule, "organizations/default/rules/deny"),
        ("203.0.113.1", Decision::Allow, Reason::DefaultAllow, ""),
    ] {
        let answer = service.check(ip, ORGANIZATION).await;
        assert_eq!((answer.decision(), answer.reason(), answer.rule.as_str()), (decision, reason, decider), "{ip}");
    }
    service.set_access(ORGANIZATION, access(portcullis::proto::v1::AccessMode::AllowAll)).await;
    assert_eq!(service.check("192.0.2.1", ORGANIZATION).await.reason(), Reason::AllowRule);
    service.stop().await;
}
