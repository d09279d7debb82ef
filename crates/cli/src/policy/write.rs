//! Writes a policy file.
//!
//! Invariant: reading the file gives the policy that it was written from.
//! Not here: the schema (`document`).

use super::document::{Document, Entry, Gates, Group, Node, Rule, Test};
use super::schema::ORGANIZATION;
use crate::names::id;
use crate::times::rfc3339;
use crate::words::{AccessMode, ConnectionType, Decision};
use portcullis_proto::v1;

/// The file as YAML, with organization and revision in a comment.
pub(super) fn yaml(policy: &v1::Policy, document: &Document) -> anyhow::Result<String> {
    let schema = "# The JSON Schema of this file: portcullis policy schema\n";
    let head = format!("# The policy of {} at revision {}\n{schema}", policy.organization, policy.revision);
    Ok(head + &serde_saphyr::to_string(document)?)
}

/// The policy in the form of the file.
pub(super) fn document(policy: &v1::Policy) -> Document {
    let parent = &policy.organization;
    Document {
        organization: id(parent).to_owned(),
        ranges_omitted: policy.ranges_omitted,
        rules: policy.rules.iter().map(rule).collect(),
        groups: policy.address_groups.iter().map(|of| group(of, policy.ranges_omitted)).collect(),
        nodes: policy.nodes.iter().map(|of| node(parent, of)).collect(),
        tests: policy.policy_tests.iter().map(|of| test(parent, of)).collect(),
    }
}

fn rule(rule: &v1::Rule) -> Rule {
    let (range, group) = match &rule.source {
        Some(v1::rule::Source::Range(range)) => (Some(range.clone()), None),
        Some(v1::rule::Source::AddressGroup(group)) => (None, Some(id(group).to_owned())),
        None => (None, None),
    };
    Rule {
        id: Some(id(&rule.name).to_owned()),
        action: if rule.action() == v1::Action::Deny { Decision::Deny } else { Decision::Allow },
        range,
        group,
        types: rule.connection_types().map(connection_type).collect(),
        description: rule.description.clone(),
        disabled: rule.disabled,
        expires: rule.expire_time.as_ref().map(rfc3339),
    }
}

fn group(group: &v1::AddressGroup, are_omitted: bool) -> Group {
    let ranges = (!are_omitted).then(|| group.ranges.clone());
    Group { id: id(&group.name).to_owned(), description: group.description.clone(), ranges }
}

/// A node's name below its organization.
fn node_name(parent: &str, name: &str) -> String {
    let below = name.strip_prefix(parent).and_then(|rest| rest.strip_prefix('/'));
    below.unwrap_or(ORGANIZATION).to_owned()
}

fn node(parent: &str, node: &v1::Node) -> Node {
    let is_own = node.name == parent;
    let access = node.access.as_ref();
    let mode = access.map(|access| match access.mode() {
        v1::AccessMode::AllowAll => AccessMode::AllowAll,
        v1::AccessMode::AllowList => AccessMode::AllowList,
        v1::AccessMode::Inherit | v1::AccessMode::Unspecified => AccessMode::Inherit,
    });
    let entry = |entry: &v1::AccessEntry| {
        let (range, group) = match &entry.source {
            Some(v1::access_entry::Source::Range(range)) => (Some(range.clone()), None),
            Some(v1::access_entry::Source::AddressGroup(group)) => (None, Some(id(group).to_owned())),
            None => (None, None),
        };
        Entry { range, group, description: entry.description.clone() }
    };
    let gates = |gates: &v1::ChangeGates| Gates {
        guard_ips: gates.guard_ips.clone(),
        max_revocations: gates.max_revocations,
        refuse_open_to_internet: gates.refuse_open_to_internet,
    };
    Node {
        name: node_name(parent, &node.name),
        display_name: node.display_name.clone(),
        require_projects: is_own.then(|| node.require_projects()),
        // Inheriting is the default of a node.
        access: mode.filter(|mode| *mode != AccessMode::Inherit),
        entries: access.iter().flat_map(|access| &access.entries).map(entry).collect(),
        gates: node.change_gates.as_ref().map(gates),
    }
}

fn test(parent: &str, test: &v1::PolicyTest) -> Test {
    Test {
        id: Some(id(&test.name).to_owned()),
        ip: test.ip.clone(),
        connection_type: connection_type(test.connection_type()),
        endpoint: node_name(parent, &test.endpoint),
        expect: if test.expected_decision() == v1::Decision::Deny { Decision::Deny } else { Decision::Allow },
        description: test.description.clone(),
        until: test.end_time.as_ref().map(rfc3339),
    }
}

fn connection_type(of: v1::ConnectionType) -> ConnectionType {
    if of == v1::ConnectionType::Preview { ConnectionType::Preview } else { ConnectionType::Shell }
}
