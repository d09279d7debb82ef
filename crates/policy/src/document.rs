//! The whole policy of an organization as one document.
//!
//! Invariant: replacing any version of an organization by its document restores the policy of the document.
//! Not here: what such a replacement changes (`plan`), how documents are written (`api`, `cli`).

use std::sync::Arc;

use super::name::{Id, NodeKey};
use super::node::NodePatch;
use super::organization::Organization;
use super::policy_test::PolicyTest;
use super::ranges::RangeList;
use super::rule::RulePatch;

/// The policy that an organization shall have. Objects that it does not name are deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// The organization's own node; absent fields stay as they are.
    pub own: NodePatch,
    /// The nodes below it.
    pub nodes: Vec<NodeSpec>,
    /// The address groups.
    pub groups: Vec<GroupSpec>,
    /// The rules of the firewall, in order.
    pub rules: Vec<(Id, RulePatch)>,
    /// The tests.
    pub tests: Vec<PolicyTest>,
}

/// A node of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec {
    /// Its 0-based index among the nodes of the request, which violations name.
    pub index: usize,
    /// The key of the node.
    pub key: NodeKey,
    /// Its fields; absent ones have the default of a new node.
    pub patch: NodePatch,
}

/// An address group of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSpec {
    /// The id of the group.
    pub id: Id,
    /// Free text.
    pub description: Arc<str>,
    /// Its ranges; none leaves them as they are.
    pub ranges: Option<Arc<RangeList>>,
}

impl Document {
    /// The document of an organization's present policy.
    pub fn of(organization: &Organization) -> Self {
        let node = |(index, (key, node)): (usize, (&NodeKey, &Arc<super::node::Node>))| NodeSpec {
            index,
            key: key.clone(),
            patch: NodePatch::of(node),
        };
        let group = |group: &Arc<super::group::Group>| GroupSpec {
            id: group.id.clone(),
            description: Arc::clone(&group.description),
            ranges: Some(Arc::clone(group.ranges())),
        };
        Self {
            own: NodePatch::of(&organization.node),
            nodes: organization.nodes.iter().enumerate().map(node).collect(),
            groups: organization.groups.values().map(group).collect(),
            rules: organization.rules.iter().map(|rule| (rule.id.clone(), RulePatch::of(rule))).collect(),
            tests: organization.tests.to_vec(),
        }
    }
}
