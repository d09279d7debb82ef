//! Limits of a policy's size: a refusal names the object that is too large.
//!
//! Invariant: of a whole document, the name of a node or group is its place in it.
//! Not here: the values of the limits (`cli_config`), limits of a request.

use portcullis::config::Config;
use portcullis::policy::limits::Limits;
use portcullis::proto::v1::{
    Action, AddressGroup, ApplyPolicyRequest, ConnectionType, CreateAddressGroupRequest, CreateNodeRequest, Decision,
    Node, Policy, PolicyTest,
};
use tonic::{Code, Status};

use crate::harness::{Service, allow_list, assert_error, rule};
use crate::patch_ranges::{first, patch};

const DEFAULT: &str = "organizations/default";

fn node(name: &str, ranges: &[&str]) -> Node {
    Node { name: format!("{DEFAULT}{name}"), access: Some(allow_list(ranges)), ..Node::default() }
}

fn group(id: &str, ranges: &[&str]) -> AddressGroup {
    let ranges = ranges.iter().map(|range| (*range).to_owned()).collect();
    AddressGroup { name: format!("{DEFAULT}/addressGroups/{id}"), ranges, ..AddressGroup::default() }
}

fn test(id: &str) -> PolicyTest {
    PolicyTest {
        name: format!("{DEFAULT}/policyTests/{id}"),
        ip: "192.0.2.1".to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        expected_decision: Decision::Allow.into(),
        ..PolicyTest::default()
    }
}

fn told<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    let status = assert_error(result, Code::ResourceExhausted, "LIMIT_REACHED");
    status.message().split(", and the change").next().unwrap().to_owned()
}

#[tokio::test]
async fn a_limit_names_the_object_that_is_too_large() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(directory.path().join("data"));
    config.limits = Limits {
        rules_per_organization_max: 2,
        groups_per_organization_max: 3,
        ranges_per_group_max: 2,
        ranges_per_organization_max: 4,
        nodes_per_organization_max: 2,
        entries_per_node_max: 2,
        tests_per_organization_max: 2,
        ..config.limits
    };
    let service = Service::with_config(config).await;
    let three = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    let own = || node("", &["any"]);
    let faulty = [
        (
            Policy {
                nodes: vec![own(), node("/projects/a", &["any"]), node("/projects/b", &three)],
                ..Policy::default()
            },
            format!("the entries of `{DEFAULT}/projects/b` are limited to 2"),
        ),
        (
            Policy { nodes: vec![node("", &three)], ..Policy::default() },
            format!("the entries of `{DEFAULT}` are limited to 2"),
        ),
        (
            Policy {
                nodes: [own()]
                    .into_iter()
                    .chain(["a", "b", "c"].map(|id| node(&format!("/projects/{id}"), &[])))
                    .collect(),
                ..Policy::default()
            },
            format!("the nodes of `{DEFAULT}` are limited to 2"),
        ),
        (
            Policy { address_groups: vec![group("a", &[]), group("b", &three)], ..Policy::default() },
            format!("the ranges of `{DEFAULT}/addressGroups/b` are limited to 2"),
        ),
        (
            Policy { address_groups: ["a", "b", "c"].map(|id| group(id, &three[..2])).to_vec(), ..Policy::default() },
            format!("the ranges of all address groups of `{DEFAULT}` are limited to 4"),
        ),
        (
            Policy { address_groups: ["a", "b", "c", "d"].map(|id| group(id, &[])).to_vec(), ..Policy::default() },
            format!("the address groups of `{DEFAULT}` are limited to 3"),
        ),
        (
            Policy { rules: vec![rule(Action::Deny, "192.0.2.1"); 3], ..Policy::default() },
            format!("the rules of `{DEFAULT}` are limited to 2"),
        ),
        (
            Policy { policy_tests: ["a", "b", "c"].map(test).to_vec(), ..Policy::default() },
            format!("the policy tests of `{DEFAULT}` are limited to 2"),
        ),
    ];
    for (policy, expected) in faulty {
        let request = ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(policy), ..Default::default() };
        assert_eq!(told(service.analysis().apply_policy(request).await), expected);
    }

    // Single calls name it, too.
    let request = CreateAddressGroupRequest {
        parent: DEFAULT.to_owned(),
        address_group: Some(group("", &three)),
        address_group_id: "office".to_owned(),
        ..CreateAddressGroupRequest::default()
    };
    let expected = format!("the ranges of `{DEFAULT}/addressGroups/office` are limited to 2");
    assert_eq!(told(service.firewall().create_address_group(request).await), expected);
    assert_eq!(told(patch(&service, vec![first("office", &three, &[])]).await), expected);
    let request = CreateNodeRequest {
        parent: DEFAULT.to_owned(),
        node_id: "web".to_owned(),
        node: Some(Node { access: Some(allow_list(&three)), ..Node::default() }),
        options: None,
    };
    let expected = format!("the entries of `{DEFAULT}/projects/web` are limited to 2");
    assert_eq!(told(service.hierarchy().create_node(request).await), expected);
    service.stop().await;
}
