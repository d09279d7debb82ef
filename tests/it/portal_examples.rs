//! The portal's own examples, through real gRPC: what docs/tour.md walks through.
//!
//! Invariant: every expectation here is a sentence of the product, so none is changed to make a test pass.
//! Not here: random policies (`decisions`).

use portcullis::proto::v1::{
    AccessMode, Action, CheckResponse, Decision, Reason, ReorderRulesRequest, UpdateRuleRequest,
};

use crate::harness::{Service, access, allow_list, rule};

const ORGANIZATION: &str = "organizations/default";

fn assert_allowed(answer: &CheckResponse, reason: Reason) {
    assert_eq!((answer.decision(), answer.reason()), (Decision::Allow, reason), "{answer:?}");
    assert_eq!((answer.message.as_str(), answer.node.as_str()), ("", ""), "{answer:?}");
}

fn assert_denied(answer: &CheckResponse, reason: Reason, message: &str) {
    assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, reason), "{answer:?}");
    assert_eq!((answer.message.as_str(), answer.session.as_str()), (message, ""), "{answer:?}");
}

fn rule_name(id: &str) -> String {
    format!("{ORGANIZATION}/rules/{id}")
}

#[tokio::test]
async fn the_first_matching_rule_wins_and_reordering_is_one_change() {
    let service = Service::start().await;
    service.add_rule("offices", Action::Allow, "10.0.0.0/8").await;
    service.add_rule("lab", Action::Deny, "10.0.5.0/24").await;
    service.add_rule("rest", Action::Deny, "0.0.0.0/0").await;

    let answer = service.check("10.0.5.15", ORGANIZATION).await;
    assert_allowed(&answer, Reason::AllowRule);
    assert_eq!(answer.rule, rule_name("offices"));
    let revision = answer.revision;

    let order = ["lab", "offices", "rest"].map(rule_name).to_vec();
    let request = ReorderRulesRequest { parent: ORGANIZATION.to_owned(), rules: order.clone(), ..Default::default() };
    let reordered = service.firewall().reorder_rules(request).await.unwrap().into_inner();
    assert_eq!(reordered.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>(), order);
    assert_eq!(reordered.rules.iter().map(|rule| rule.position).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(reordered.revision, revision + 1, "one change, one revision");

    let answer = service.check("10.0.5.15", ORGANIZATION).await;
    assert_denied(&answer, Reason::DenyRule, "firewall_blocked");
    assert_eq!((answer.rule, answer.revision), (rule_name("lab"), revision + 1));

    let answer = service.check("8.8.8.8", ORGANIZATION).await;
    assert_denied(&answer, Reason::DenyRule, "firewall_blocked");
    assert_eq!(answer.rule, rule_name("rest"));

    // 0.0.0.0/0 is IPv4 and nothing else; `any` is both.
    assert_allowed(&service.check("2001:db8::1", ORGANIZATION).await, Reason::DefaultAllow);
    let mut any = rule(Action::Deny, "any");
    any.name = rule_name("rest");
    let request = UpdateRuleRequest { rule: Some(any), ..Default::default() };
    assert_eq!(service.firewall().update_rule(request).await.unwrap().into_inner().position, 3);
    assert_denied(&service.check("2001:db8::1", ORGANIZATION).await, Reason::DenyRule, "firewall_blocked");
    service.stop().await;
}

#[tokio::test]
async fn without_rules_everything_is_allowed() {
    let service = Service::start().await;
    for ip in ["8.8.8.8", "10.0.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
        let answer = service.check(ip, ORGANIZATION).await;
        assert_allowed(&answer, Reason::DefaultAllow);
        assert_eq!((answer.rule.as_str(), answer.revision, answer.cluster_revision), ("", 1, 1));
        assert!(!answer.decision_id.is_empty());
    }
    service.stop().await;
}

#[tokio::test]
async fn office_only_lets_the_office_in_and_nobody_else() {
    let service = Service::start().await;
    service.add_rule("office", Action::Allow, "203.0.113.0/24").await;
    service.add_rule("rest", Action::Deny, "any").await;
    assert_allowed(&service.check("203.0.113.9", ORGANIZATION).await, Reason::AllowRule);
    for ip in ["203.0.112.255", "203.0.114.0", "2001:db8::1"] {
        assert_denied(&service.check(ip, ORGANIZATION).await, Reason::DenyRule, "firewall_blocked");
    }
    service.stop().await;
}

#[tokio::test]
async fn one_bad_address_is_denied_in_every_spelling_and_the_rest_allowed() {
    let service = Service::start().await;
    service.add_rule("bad", Action::Deny, "198.51.100.42").await;
    for ip in ["198.51.100.42", "::ffff:198.51.100.42", "::ffff:c633:642a"] {
        assert_denied(&service.check(ip, ORGANIZATION).await, Reason::DenyRule, "firewall_blocked");
    }
    for ip in ["198.51.100.41", "198.51.100.43", "::198.51.100.42", "2001:db8::1"] {
        assert_allowed(&service.check(ip, ORGANIZATION).await, Reason::DefaultAllow);
    }
    service.stop().await;
}

#[tokio::test]
async fn an_address_must_be_permitted_by_the_organization_and_by_the_endpoint() {
    let service = Service::start().await;
    service.set_access(ORGANIZATION, allow_list(&["203.0.113.0/24", "198.51.100.0/24"])).await;
    let project = service.add_node(ORGANIZATION, "web", None).await.name;
    // A new project permits nobody.
    let answer = service.check("203.0.113.9", &project).await;
    assert_denied(&answer, Reason::OutsideEndpoint, "endpoint_restricted");
    assert_eq!(answer.node, project);

    service.set_access(&project, allow_list(&["203.0.113.0/24"])).await;
    let workspace = service.add_node(&project, "main", None).await.name;
    let own = service.add_node(&workspace, "own", Some(allow_list(&["198.51.100.7"]))).await.name;
    let inheriting = service.add_node(&workspace, "inheriting", None).await.name;

    assert_allowed(&service.check("203.0.113.9", &inheriting).await, Reason::DefaultAllow);
    let answer = service.check("198.51.100.7", &inheriting).await;
    assert_denied(&answer, Reason::OutsideEndpoint, "endpoint_restricted");
    assert_eq!(answer.node, project, "the node whose own setting applied");
    assert_allowed(&service.check("198.51.100.7", &own).await, Reason::DefaultAllow);
    let answer = service.check("203.0.113.9", &own).await;
    assert_denied(&answer, Reason::OutsideEndpoint, "endpoint_restricted");
    assert_eq!(answer.node, own);

    // ALLOW_ALL on the endpoint is still clipped by the organization.
    service.set_access(&own, access(AccessMode::AllowAll)).await;
    assert_allowed(&service.check("203.0.113.9", &own).await, Reason::DefaultAllow);
    let answer = service.check("8.8.8.8", &own).await;
    assert_denied(&answer, Reason::OutsideOrganization, "organization_restricted");
    assert_eq!(answer.node, ORGANIZATION);

    // Another new project permits nobody, and an unknown one is unknown.
    let empty = service.add_node(ORGANIZATION, "empty", None).await.name;
    assert_denied(&service.check("203.0.113.9", &empty).await, Reason::OutsideEndpoint, "endpoint_restricted");
    let answer = service.check("203.0.113.9", "organizations/default/projects/unknown").await;
    assert_denied(&answer, Reason::UnknownEndpoint, "unknown_endpoint");
    service.stop().await;
}
