//! Where what is wrong with a policy is: the exact field of every fault, each said once.
//!
//! Invariant: an element that cannot be read shifts no index and causes no further faults.
//! Not here: files and their lines (`cli_policy`), single rules and groups (`malformed_rules`, `malformed_groups`).

use portcullis::proto::v1::rule::Source;
use portcullis::proto::v1::{
    Action, AddressGroup, ConnectionType, Decision, Node, Policy, PolicyTest, ReorderRulesRequest, ReplaceRulesRequest,
    Rule,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{Service, assert_error, fields, rule};
use crate::policy_api::{DEFAULT, apply};

fn name(rest: &str) -> String {
    format!("{DEFAULT}/{rest}")
}

fn named(rest: &str) -> Rule {
    Rule { name: name(rest), ..rule(Action::Deny, "192.0.2.1") }
}

fn of_group(id: &str) -> Rule {
    Rule { source: Some(Source::AddressGroup(name(&format!("addressGroups/{id}")))), ..rule(Action::Deny, "any") }
}

fn faults(status: &Status) -> Vec<String> {
    let mut fields = fields(status);
    fields.sort();
    fields
}

/// Rules of which the first, third and sixth are faulty, and their faults.
fn faulty_rules() -> (Vec<Rule>, [&'static str; 5]) {
    let rules = vec![
        named("rules/Bad_Id"),
        rule(Action::Deny, "192.0.2.0/24"),
        Rule { name: name("rules/-"), ..rule(Action::Unspecified, "10.0.0.1/8") },
        named("rules/twice"),
        named("rules/fine"),
        of_group("missing"),
        named("rules/twice"),
    ];
    (rules, ["[0].name", "[2].action", "[2].name", "[2].range", "[5].address_group"])
}

#[tokio::test]
async fn a_rule_that_cannot_be_read_shifts_no_index_and_causes_no_other_fault() {
    let service = Service::start().await;
    let (rules, expected) = faulty_rules();
    let at = |field: &str| {
        let mut paths: Vec<String> = expected.iter().map(|path| format!("{field}{path}")).collect();
        paths.push(format!("{field}[6].name"));
        paths.sort();
        paths
    };
    let policy = Policy { rules: rules.clone(), ..Policy::default() };
    let status = assert_error(apply(&service, policy).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(faults(&status), at("policy.rules"));
    let request = ReplaceRulesRequest { parent: DEFAULT.to_owned(), rules, ..ReplaceRulesRequest::default() };
    let refused = service.firewall().replace_rules(request).await;
    let status = assert_error(refused, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(faults(&status), at("rules"));
    assert!(status.message().starts_with("6 fields are invalid"), "{status:?}");
    service.stop().await;
}

#[tokio::test]
async fn groups_nodes_and_tests_that_cannot_be_read_shift_no_index_and_cause_no_other_fault() {
    let service = Service::start().await;
    let group = |id: &str| AddressGroup { name: name(&format!("addressGroups/{id}")), ..AddressGroup::default() };
    let node = |rest: &str| Node { name: name(rest), ..Node::default() };
    let test = |id: &str, ip: &str| PolicyTest {
        name: name(&format!("policyTests/{id}")),
        ip: ip.to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        expected_decision: Decision::Allow.into(),
        ..PolicyTest::default()
    };
    let policy = Policy {
        address_groups: vec![
            AddressGroup { name: name("addressGroup/office"), ..AddressGroup::default() },
            group("one"),
            AddressGroup { ranges: vec!["10.0.0.0/8".to_owned(), "10.0.0.1/8".to_owned()], ..group("two") },
            group("one"),
        ],
        // The group that this rule names is the one whose name has a typing error: one fault, not two.
        rules: vec![of_group("office"), of_group("one")],
        // So is the parent of the last node.
        nodes: vec![
            node("project/web"),
            node("projects/shop"),
            node("projects/shop"),
            node("projects/web/workspaces/main"),
        ],
        policy_tests: vec![
            test("Bad_Id", "192.0.2.1"),
            test("one", "192.0.2.300"),
            test("two", "192.0.2.1"),
            test("two", "::1"),
        ],
        ..Policy::default()
    };
    let status = assert_error(apply(&service, policy).await, Code::InvalidArgument, "INVALID_FIELD");
    let expected = [
        "policy.address_groups[0].name",
        "policy.address_groups[2].ranges[1]",
        "policy.address_groups[3].name",
        "policy.nodes[0].name",
        "policy.nodes[2].name",
        "policy.policy_tests[0].name",
        "policy.policy_tests[1].ip",
        "policy.policy_tests[3].name",
    ];
    assert_eq!(faults(&status), expected);
    service.stop().await;
}

#[tokio::test]
async fn a_name_that_cannot_be_read_makes_no_rule_of_an_order_missing() {
    let service = Service::start().await;
    service.add_rule("one", Action::Deny, "192.0.2.1").await;
    service.add_rule("two", Action::Deny, "192.0.2.2").await;
    let rules = vec![name("rule/one"), name("rules/two"), name("rules/two")];
    let request = ReorderRulesRequest { parent: DEFAULT.to_owned(), rules, ..ReorderRulesRequest::default() };
    let status = service.firewall().reorder_rules(request).await;
    let status = assert_error(status, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(faults(&status), ["rules[0]", "rules[2]"]);
    service.stop().await;
}

#[tokio::test]
async fn a_count_of_faults_that_nobody_finished_says_so() {
    let service = Service::start().await;
    let faulty = |count| Policy { rules: vec![rule(Action::Deny, "10.0.0.1/8"); count], ..Policy::default() };
    let status = assert_error(apply(&service, faulty(999)).await, Code::InvalidArgument, "INVALID_FIELD");
    assert!(status.message().starts_with("999 fields are invalid: "), "{status:?}");
    let status = assert_error(apply(&service, faulty(3_000)).await, Code::InvalidArgument, "INVALID_FIELD");
    assert!(status.message().starts_with("at least 1000 fields are invalid: "), "{status:?}");
    let last = status.get_details_bad_request().unwrap().field_violations.pop().unwrap();
    assert!(last.description.starts_with("and at least "), "{last:?}");
    // What planning finds is counted in the same way.
    let missing = Policy { rules: vec![of_group("missing"); 3_000], ..Policy::default() };
    let status = assert_error(apply(&service, missing).await, Code::InvalidArgument, "INVALID_FIELD");
    assert!(status.message().starts_with("at least 1000 fields are invalid: "), "{status:?}");
    // Where reading stopped, nothing follows for what was not read: these rules name a group that comes too late.
    let policy = Policy {
        address_groups: vec![
            AddressGroup { name: name("addressGroups/one"), ranges: vec!["x".to_owned(); 2_000], ..Default::default() },
            AddressGroup { name: name("addressGroups/late"), ..AddressGroup::default() },
        ],
        rules: vec![of_group("late")],
        ..Policy::default()
    };
    let status = assert_error(apply(&service, policy).await, Code::InvalidArgument, "INVALID_FIELD");
    assert!(fields(&status).iter().all(|field| field.starts_with("policy.address_groups[0].ranges[")), "{status:?}");
    service.stop().await;
}
