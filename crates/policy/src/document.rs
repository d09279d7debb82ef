//! The whole policy of an organization as one document: what it is to be.
//!
//! Invariant: the document of an organization, applied to any version of it, gives its policy again.
//! Not here: what applying one changes (`plan`), its written forms (`api`, `cli`).

use std::sync::Arc;

use super::name::{Id, NodeKey};
use super::node::NodePatch;
use super::organization::Organization;
use super::policy_test::PolicyTest;
use super::ranges::RangeList;
use super::rule::RulePatch;

/// The policy that an organization is to have. What it does not name is deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// The organization's own node; what is absent stays.
    pub own: NodePatch,
    /// The nodes below it.
    pub nodes: Vec<NodeSpec>,
    /// The address groups.
    pub groups: Vec<GroupSpec>,
    /// The firewall, first rule first.
    pub rules: Vec<(Id, RulePatch)>,
    /// The tests.
    pub tests: Vec<PolicyTest>,
}

/// A node of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec {
    /// Where it is among the nodes that the caller gave, for violations.
    pub index: usize,
    /// Which.
    pub key: NodeKey,
    /// Its fields; what is absent takes the default of a new node.
    pub patch: NodePatch,
}

/// An address group of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSpec {
    /// Which.
    pub id: Id,
    /// Free text.
    pub description: Arc<str>,
    /// Its ranges; absent: those that it has.
    pub ranges: Option<Arc<RangeList>>,
}

impl Document {
    /// The policy that an organization has.
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
