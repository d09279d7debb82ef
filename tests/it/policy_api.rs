//! The whole policy in one message: exported and applied, atomically and exactly.
//!
//! Invariant: applying what was exported changes nothing.
//! Not here: the file that people write (`cli_policy`).

use portcullis::proto::v1::{
    AccessMode, Action, AddressGroup, ApplyPolicyRequest, ApplyPolicyResponse, ChangeOptions, ConnectionType,
    CreateAddressGroupRequest, Decision, ExportPolicyRequest, GetNodeRequest, ListRangesRequest, Node, Policy,
    PolicyTest, Rule, rule::Source,
};
use tonic::{Code, Status};

use crate::harness::{Service, access, allow_list, assert_error, fields, rule};

pub(crate) const DEFAULT: &str = "organizations/default";

pub(crate) async fn export(service: &Service, omit_ranges: bool) -> Policy {
    let request = ExportPolicyRequest { parent: DEFAULT.to_owned(), omit_ranges };
    service.analysis().export_policy(request).await.unwrap().into_inner()
}

pub(crate) async fn apply(service: &Service, policy: Policy) -> Result<ApplyPolicyResponse, Status> {
    let request =
        ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(policy), ..ApplyPolicyRequest::default() };
    service.analysis().apply_policy(request).await.map(tonic::Response::into_inner)
}

pub(crate) fn sample() -> Policy {
    let name = |rest: &str| format!("{DEFAULT}/{rest}");
    let node = |rest: &str, access| Node { name: name(rest), access, ..Node::default() };
    let office = Source::AddressGroup(name("addressGroups/office"));
    Policy {
        organization: DEFAULT.to_owned(),
        nodes: vec![
            Node { name: DEFAULT.to_owned(), require_projects: Some(true), ..Node::default() },
            node("projects/web", Some(allow_list(&["10.0.0.0/8"]))),
            node("projects/web/workspaces/main", None),
            node("projects/web/workspaces/main/endpoints/shell", Some(access(AccessMode::AllowAll))),
        ],
        address_groups: vec![AddressGroup {
            name: name("addressGroups/office"),
            description: "everybody".to_owned(),
            ranges: vec!["10.1.0.0/16".to_owned(), "2001:db8::/48".to_owned()],
            ..AddressGroup::default()
        }],
        rules: vec![
            Rule { name: name("rules/office"), action: Action::Allow.into(), source: Some(office), ..Rule::default() },
            Rule { name: name("rules/rest"), ..rule(Action::Deny, "any") },
        ],
        policy_tests: vec![PolicyTest {
            name: name("policyTests/office"),
            ip: "10.1.2.3".to_owned(),
            connection_type: ConnectionType::Shell.into(),
            endpoint: name("projects/web"),
            expected_decision: Decision::Allow.into(),
            ..PolicyTest::default()
        }],
        ..Policy::default()
    }
}

#[tokio::test]
async fn a_policy_is_applied_as_one_revision_and_what_was_exported_changes_nothing() {
    let service = Service::start().await;
    service.add_rule("old", Action::Allow, "192.0.2.0/24").await;
    let web = format!("{DEFAULT}/projects/web");
    let applied = apply(&service, sample()).await.unwrap();
    assert_eq!(applied.revision, 3);
    let altered: usize = applied.changes.len();
    assert_eq!(altered, 9, "{:?}", applied.changes);
    assert_eq!(service.check("10.1.2.3", &web).await.decision(), Decision::Allow);
    assert_eq!(service.check("10.2.2.3", &web).await.decision(), Decision::Deny);

    let exported = export(&service, false).await;
    assert_eq!((exported.revision, exported.etag.as_str()), (3, applied.etag.as_str()));
    assert_eq!(exported.rules.iter().map(|rule| &rule.name).collect::<Vec<_>>().len(), 2);
    let again = apply(&service, exported.clone()).await.unwrap();
    assert_eq!((again.revision, again.changes.len()), (3, 0));
    // So does what was exported without ranges.
    let without = export(&service, true).await;
    assert!(without.ranges_omitted && without.address_groups[0].ranges.is_empty());
    assert_eq!(apply(&service, without).await.unwrap().revision, 3);

    // What a policy does not name goes; what is the same keeps its etag.
    let mut less = exported.clone();
    less.nodes.truncate(2);
    less.rules.remove(1);
    let applied = apply(&service, less).await.unwrap();
    assert_eq!((applied.revision, applied.changes.len()), (4, 3));
    let gone = GetNodeRequest { name: format!("{web}/workspaces/main") };
    assert_error(service.hierarchy().get_node(gone).await, Code::NotFound, "NOT_FOUND");
    let kept = service.hierarchy().get_node(GetNodeRequest { name: web }).await.unwrap().into_inner();
    assert_eq!(kept.etag, exported.nodes[1].etag);
    service.stop().await;
}

#[tokio::test]
async fn validating_changes_nothing_and_a_stale_etag_is_refused() {
    let service = Service::start().await;
    let request = ApplyPolicyRequest {
        parent: DEFAULT.to_owned(),
        policy: Some(sample()),
        validate_only: true,
        ..ApplyPolicyRequest::default()
    };
    let judged = service.analysis().apply_policy(request).await.unwrap().into_inner();
    assert_eq!((judged.revision, judged.changes.len()), (1, 8));
    assert_eq!(export(&service, false).await.rules.len(), 0);
    let request = ApplyPolicyRequest {
        parent: DEFAULT.to_owned(),
        policy: Some(sample()),
        etag: "policy-7".to_owned(),
        ..ApplyPolicyRequest::default()
    };
    assert_error(service.analysis().apply_policy(request).await, Code::Aborted, "STALE_ETAG");
    // A policy that breaks its own tests is no policy.
    let mut broken = sample();
    broken.rules.remove(0);
    assert_error(apply(&service, broken).await, Code::FailedPrecondition, "TESTS_FAILED");
    service.stop().await;
}

#[tokio::test]
async fn all_that_is_wrong_with_a_policy_is_told_at_once_and_nothing_is_applied() {
    let service = Service::start().await;
    let mut policy = sample();
    policy.nodes[1].access = Some(access(AccessMode::Inherit));
    policy.nodes.push(Node { name: format!("{DEFAULT}/projects/ops/workspaces/main"), ..Node::default() });
    policy.address_groups[0].ranges.push("10.0.0.5/8".to_owned());
    policy.rules[1].source = Some(Source::AddressGroup(format!("{DEFAULT}/addressGroups/nobody")));
    policy.rules.push(policy.rules[0].clone());
    policy.policy_tests[0].ip = "x".to_owned();
    let status = assert_error(apply(&service, policy).await, Code::InvalidArgument, "INVALID_FIELD");
    let mut paths = fields(&status);
    paths.sort();
    let expected = [
        "policy.address_groups[0].ranges[2]",
        "policy.nodes[1].access.mode",
        "policy.nodes[4].name",
        "policy.policy_tests[0].ip",
        "policy.rules[1].address_group",
        "policy.rules[2].name",
    ];
    assert_eq!(paths, expected);
    assert_eq!(export(&service, false).await.revision, 1);
    service.stop().await;
}

#[tokio::test]
async fn a_group_that_goes_must_not_be_named_and_ranges_are_replaced_exactly() {
    let service = Service::start().await;
    apply(&service, sample()).await.unwrap();
    let mut policy = export(&service, false).await;
    policy.address_groups.clear();
    let status = assert_error(apply(&service, policy.clone()).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["policy.rules[0].address_group"]);
    policy.rules.remove(0);
    // The test that goes with the group would fail.
    policy.policy_tests.clear();
    // The test that goes would fail: that takes saying so.
    assert_error(apply(&service, policy.clone()).await, Code::FailedPrecondition, "TESTS_FAILED");
    let options = ChangeOptions { override_tests: true, ..ChangeOptions::default() };
    let (parent, policy, options) = (DEFAULT.to_owned(), Some(policy), Some(options));
    let request = ApplyPolicyRequest { parent, policy, options, ..ApplyPolicyRequest::default() };
    service.analysis().apply_policy(request).await.unwrap();
    let group = CreateAddressGroupRequest {
        parent: DEFAULT.to_owned(),
        address_group: Some(AddressGroup { ranges: vec!["192.0.2.0/24".to_owned()], ..AddressGroup::default() }),
        address_group_id: "office".to_owned(),
        options: None,
    };
    service.firewall().create_address_group(group).await.unwrap();
    apply(&service, sample()).await.unwrap();
    let request = ListRangesRequest { name: format!("{DEFAULT}/addressGroups/office"), ..ListRangesRequest::default() };
    let ranges = service.firewall().list_ranges(request).await.unwrap().into_inner().ranges;
    assert_eq!(ranges, ["10.1.0.0/16", "2001:db8::/48"]);
    service.stop().await;
}
