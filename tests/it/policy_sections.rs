//! Policies that have some sections only: those are replaced, the others stay.
//!
//! Invariant: nothing is deleted that the policy does not own.
//! Not here: whole policies (`policy_api`), files (`cli_policy`).

use portcullis::proto::v1::mutation::Request;
use portcullis::proto::v1::rule::Source;
use portcullis::proto::v1::{
    AccessMode, Action, AddressGroup, ApplyPolicyRequest, ChangeGates, Mutation, Node, Policy, PolicySection,
    PreviewChangeRequest, Reason, Rule, UpdateNodeRequest,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{Service, access, allow_list, assert_error, fields, rule};
use crate::policy_api::{DEFAULT, apply, export, sample};

/// What a policy is besides when it was read.
fn content(policy: Policy) -> Policy {
    let mut policy = Policy { etag: String::new(), revision: 0, ..policy };
    policy.nodes.iter_mut().for_each(|node| node.revision = 0);
    policy.address_groups.iter_mut().for_each(|group| group.revision = 0);
    policy.rules.iter_mut().for_each(|rule| rule.revision = 0);
    policy
}

fn sections(named: &[PolicySection]) -> Policy {
    Policy { sections: named.iter().map(|section| (*section).into()).collect(), ..Policy::default() }
}

#[tokio::test]
async fn a_policy_without_any_section_is_refused_and_deletes_nothing() {
    let service = Service::start().await;
    apply(&service, sample()).await.unwrap();
    let before = export(&service, false).await;
    let named = Policy { organization: DEFAULT.to_owned(), etag: "x".to_owned(), revision: 7, ..Policy::default() };
    for empty in [Policy::default(), named, Policy { ranges_omitted: true, ..Policy::default() }] {
        let status = assert_error(apply(&service, empty.clone()).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), ["policy"]);
        let expected = "empty document: it names none of rules, address_groups, nodes, policy_tests";
        assert!(status.message().contains(expected), "{status:?}");
        let request = ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(empty), ..Default::default() };
        let mutations = vec![Mutation { request: Some(Request::ApplyPolicy(request)) }];
        let request = PreviewChangeRequest { parent: DEFAULT.to_owned(), mutations, replay_within: None };
        let refused = service.analysis().preview_change(request).await;
        let status = assert_error(refused, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), ["mutations[0].apply_policy.policy"]);
    }
    assert_eq!(export(&service, false).await, before);
    service.stop().await;
}

#[tokio::test]
async fn the_sections_that_a_policy_does_not_name_stay_as_they_are() {
    let service = Service::start().await;
    apply(&service, sample()).await.unwrap();
    let gates = ChangeGates { max_revocations: Some(100), ..ChangeGates::default() };
    let own = Node { name: DEFAULT.to_owned(), change_gates: Some(gates), ..Node::default() };
    let request = UpdateNodeRequest { node: Some(own), ..UpdateNodeRequest::default() };
    service.hierarchy().update_node(request).await.unwrap();
    let before = content(export(&service, false).await);
    assert_eq!(before.sections.len(), 4, "an export has every section");

    // Rules only: groups, nodes, gates and tests stay.
    let only = Policy { rules: vec![before.rules[0].clone()], ..Policy::default() };
    let applied = apply(&service, only).await.unwrap();
    assert_eq!(applied.changes.len(), 1, "{:?}", applied.changes);
    let mut expected = before.clone();
    expected.rules.truncate(1);
    assert_eq!(content(export(&service, false).await), expected);

    // Each section by itself, emptied. A group goes only after the rule that names it.
    for (section, emptied) in [
        (PolicySection::Rules, Policy { rules: Vec::new(), ..expected.clone() }),
        (PolicySection::AddressGroups, Policy { rules: Vec::new(), address_groups: Vec::new(), ..expected.clone() }),
    ] {
        let forced = ApplyPolicyRequest {
            parent: DEFAULT.to_owned(),
            policy: Some(sections(&[section])),
            ..ApplyPolicyRequest::default()
        };
        service.analysis().apply_policy(forced).await.unwrap();
        assert_eq!(content(export(&service, false).await), emptied, "{section:?}");
    }
    apply(&service, sections(&[PolicySection::PolicyTests])).await.unwrap();
    // Projects are required, so deleting all nodes opens nothing.
    apply(&service, sections(&[PolicySection::Nodes])).await.unwrap();
    let left = export(&service, false).await;
    assert_eq!((left.policy_tests.len(), left.nodes.len()), (0, 1));
    assert!(left.nodes[0].require_projects() && left.nodes[0].change_gates.is_some());
    let unknown = format!("{DEFAULT}/projects/web");
    assert_eq!(service.check("10.1.2.3", &unknown).await.reason(), Reason::UnknownEndpoint);
    service.stop().await;
}

#[tokio::test]
async fn objects_outside_the_named_sections_and_unknown_sections_are_refused() {
    let service = Service::start().await;
    let policy = Policy { sections: vec![PolicySection::Rules.into()], ..sample() };
    let status = assert_error(apply(&service, policy).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["policy.nodes", "policy.address_groups", "policy.policy_tests"]);
    let policy = Policy { sections: vec![1, 0, 99], ..Policy::default() };
    let status = assert_error(apply(&service, policy).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["policy.sections[1]", "policy.sections[2]"]);
    // Naming a section twice asks for the same once.
    let policy = Policy { rules: vec![rule(Action::Deny, "10.0.0.0/8")], sections: vec![1, 1], ..Policy::default() };
    assert_eq!(apply(&service, policy).await.unwrap().revision, 2);
    service.stop().await;
}

#[tokio::test]
async fn fields_of_the_organization_that_a_policy_does_not_give_stay_as_they_are() {
    let service = Service::start().await;
    let gates = ChangeGates { max_revocations: Some(3), ..ChangeGates::default() };
    let own = Node {
        name: DEFAULT.to_owned(),
        display_name: "All of us".to_owned(),
        access: Some(allow_list(&["10.0.0.0/8"])),
        change_gates: Some(gates),
        ..Node::default()
    };
    let request = UpdateNodeRequest { node: Some(own.clone()), ..UpdateNodeRequest::default() };
    service.hierarchy().update_node(request).await.unwrap();
    let own_now = async || export(&service, false).await.nodes.remove(0);
    let web = Node { name: format!("{DEFAULT}/projects/web"), ..Node::default() };

    // The first project requires projects, as when it is created by itself; nothing else of the organization changes.
    apply(&service, Policy { nodes: vec![web.clone()], ..Policy::default() }).await.unwrap();
    let first = own_now().await;
    assert!(first.require_projects());
    assert_eq!((&first.access, &first.change_gates), (&own.access, &own.change_gates));
    assert_eq!(first.display_name, own.display_name);
    // A policy without nodes, or without the organization among them, leaves that as it is.
    apply(&service, Policy { rules: vec![rule(Action::Deny, "192.0.2.1")], ..Policy::default() }).await.unwrap();
    apply(&service, sections(&[PolicySection::Nodes])).await.unwrap();
    assert_eq!(Node { revision: 0, ..own_now().await }, Node { revision: 0, ..first.clone() });
    // Only the field that is given changes.
    let named = Node { name: DEFAULT.to_owned(), display_name: "Everybody".to_owned(), ..Node::default() };
    apply(&service, Policy { nodes: vec![named, web.clone()], ..Policy::default() }).await.unwrap();
    let renamed = own_now().await;
    assert_eq!((renamed.display_name.as_str(), &renamed.access), ("Everybody", &own.access));
    assert!(renamed.require_projects());
    assert_eq!(renamed.change_gates, own.change_gates);
    // What the policy says holds, also with the first project.
    let off = Node { name: DEFAULT.to_owned(), require_projects: Some(false), ..Node::default() };
    apply(&service, sections(&[PolicySection::Nodes])).await.unwrap();
    apply(&service, Policy { nodes: vec![off.clone()], ..Policy::default() }).await.unwrap();
    apply(&service, Policy { nodes: vec![off, web], ..Policy::default() }).await.unwrap();
    assert!(!own_now().await.require_projects());
    service.stop().await;
}

#[tokio::test]
async fn a_group_that_goes_must_not_be_named_by_what_stays() {
    let service = Service::start().await;
    apply(&service, sample()).await.unwrap();
    let group = format!("{DEFAULT}/addressGroups/office");
    let without_groups = || sections(&[PolicySection::AddressGroups]);
    let refused = async |user: &str| {
        let status = apply(&service, without_groups()).await;
        let status = assert_error(status, Code::FailedPrecondition, "GROUP_IN_USE");
        let expected = format!("`{group}` is in use by `{user}`");
        assert!(status.message().contains(&expected), "{status:?}");
    };
    refused(&format!("{DEFAULT}/rules/office")).await;
    let by_group = || portcullis::proto::v1::AccessEntry {
        source: Some(portcullis::proto::v1::access_entry::Source::AddressGroup(group.clone())),
        description: String::new(),
    };
    let list = || portcullis::proto::v1::Access { mode: AccessMode::AllowList.into(), entries: vec![by_group()] };
    let without_rules = sections(&[PolicySection::Rules, PolicySection::PolicyTests]);
    apply(&service, without_rules).await.unwrap();
    let web = format!("{DEFAULT}/projects/web");
    service.set_access(&web, list()).await;
    refused(&web).await;
    service.set_access(DEFAULT, list()).await;
    refused(DEFAULT).await;
    // The organization is named, but its access is not given and stays.
    let mut policy = without_groups();
    policy.sections.push(PolicySection::Nodes.into());
    policy.nodes = vec![Node { name: DEFAULT.to_owned(), ..Node::default() }];
    let status = assert_error(apply(&service, policy).await, Code::FailedPrecondition, "GROUP_IN_USE");
    assert!(status.message().contains(&format!("`{DEFAULT}`")), "{status:?}");
    service.set_access(DEFAULT, access(AccessMode::AllowAll)).await;
    service.set_access(&web, allow_list(&["10.0.0.0/8"])).await;
    apply(&service, without_groups()).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn a_renamed_group_without_its_ranges_is_refused() {
    let service = Service::start().await;
    let name = |id: &str| format!("{DEFAULT}/addressGroups/{id}");
    let group = |id: &str| AddressGroup { name: name(id), ..AddressGroup::default() };
    let deny = |id: &str| Rule { source: Some(Source::AddressGroup(name(id))), ..rule(Action::Deny, "any") };
    let blocked = AddressGroup { ranges: vec!["203.0.113.0/24".to_owned()], ..group("blocked") };
    let first = Policy { address_groups: vec![blocked], rules: vec![deny("blocked")], ..Policy::default() };
    apply(&service, first).await.unwrap();
    let renamed = Policy {
        address_groups: vec![group("blocklist")],
        rules: vec![deny("blocklist")],
        ranges_omitted: true,
        ..Policy::default()
    };
    let status = assert_error(apply(&service, renamed).await, Code::InvalidArgument, "INVALID_FIELD");
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!(violations[0].field, "policy.address_groups[0].name");
    let expected = format!(
        "`{}` does not exist, and the policy leaves its ranges out: apply the policy with its ranges, or name the group \
         as it is",
        name("blocklist")
    );
    assert_eq!(violations[0].description, expected);
    assert_eq!(service.check("203.0.113.1", DEFAULT).await.reason(), Reason::DenyRule);
    service.stop().await;
}
