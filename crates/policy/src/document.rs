//! The policy of an organization, or some sections of it, as one document.
//!
//! Invariant: replacing any version of an organization by its document restores the policy of the document.
//! Not here: what such a replacement changes (`plan`), how documents are written (`api`, `cli`).

use std::sync::Arc;

use super::address::Address;
use super::decision::Decision;
use super::name::{Id, NodeKey};
use super::node::NodePatch;
use super::organization::Organization;
use super::policy_test::PolicyTest;
use super::ranges::RangeList;
use super::rule::{ConnectionType, RulePatch};
use super::time::Timestamp;

/// The policy that an organization shall have. A section that is none stays as it is (design.md §2.10). In a section that
/// is there, objects that are not named are deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// The organization's own node; absent fields stay as they are.
    pub own: NodePatch,
    /// The nodes below it.
    pub nodes: Option<Vec<NodeSpec>>,
    /// The address groups.
    pub groups: Option<Vec<GroupSpec>>,
    /// The rules of the firewall, in order.
    pub rules: Option<Vec<RuleSpec>>,
    /// The tests.
    pub tests: Option<Vec<TestSpec>>,
}

/// A rule of a list that replaces all rules.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// Its 0-based index among the rules of the request, which violations name.
    pub index: usize,
    /// The id of the rule. None: that of an equal rule that is there, or a new one.
    pub id: Option<Id>,
    /// Its fields; absent ones have the default of a new rule.
    pub patch: RulePatch,
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
    /// Its 0-based index among the groups of the request, which violations name.
    pub index: usize,
    /// The id of the group.
    pub id: Id,
    /// Free text.
    pub description: Arc<str>,
    /// Its ranges; none leaves them as they are.
    pub ranges: Option<Arc<RangeList>>,
}

/// A policy test that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct TestSpec {
    /// Its 0-based index among the tests of the request, which violations name.
    pub index: usize,
    /// The id of the test. None: a new one; in a document that of an equal test that is there, if there is one.
    pub id: Option<Id>,
    /// See [`PolicyTest::address`].
    pub address: Address,
    /// See [`PolicyTest::connection_type`].
    pub connection_type: ConnectionType,
    /// See [`PolicyTest::endpoint`].
    pub endpoint: Arc<str>,
    /// See [`PolicyTest::expected`].
    pub expected: Decision,
    /// See [`PolicyTest::description`].
    pub description: Arc<str>,
    /// See [`PolicyTest::end_time`].
    pub end_time: Option<Timestamp>,
}

impl TestSpec {
    /// What asks for a test as it is.
    pub fn of(index: usize, test: &PolicyTest) -> Self {
        let PolicyTest { id, address, connection_type, endpoint, expected, description, end_time } = test.clone();
        Self { index, id: Some(id), address, connection_type, endpoint, expected, description, end_time }
    }

    /// The test, under an id.
    pub fn to_test(self, id: Id) -> PolicyTest {
        let Self { index: _, id: _, address, connection_type, endpoint, expected, description, end_time } = self;
        PolicyTest { id, address, connection_type, endpoint, expected, description, end_time }
    }
}

impl Document {
    /// The document of an organization's present policy, with all sections.
    pub fn of(organization: &Organization) -> Self {
        let node = |(index, (key, node)): (usize, (&NodeKey, &Arc<super::node::Node>))| NodeSpec {
            index,
            key: key.clone(),
            patch: NodePatch::of(node),
        };
        let group = |(index, group): (usize, &Arc<super::group::Group>)| GroupSpec {
            index,
            id: group.id.clone(),
            description: Arc::clone(&group.description),
            ranges: Some(Arc::clone(group.ranges())),
        };
        let rule = |(index, rule): (usize, &Arc<super::rule::Rule>)| RuleSpec {
            index,
            id: Some(rule.id.clone()),
            patch: RulePatch::of(rule),
        };
        let test = |(index, test): (usize, &PolicyTest)| TestSpec::of(index, test);
        Self {
            own: NodePatch::of(&organization.node),
            nodes: Some(organization.nodes.iter().enumerate().map(node).collect()),
            groups: Some(organization.groups.values().enumerate().map(group).collect()),
            rules: Some(organization.rules.iter().enumerate().map(rule).collect()),
            tests: Some(organization.tests.iter().enumerate().map(test).collect()),
        }
    }

    /// Whether the document has no section.
    pub fn is_empty(&self) -> bool {
        let Self { own: _, nodes, groups, rules, tests } = self;
        nodes.is_none() && groups.is_none() && rules.is_none() && tests.is_none()
    }
}
