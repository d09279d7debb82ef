//! Planning the replacement of a whole policy by a document: the fewest steps from one to the other.
//!
//! Groups are set first, because rules and nodes name them. Groups that the document leaves out are removed last, when
//! nothing names them any more.
//!
//! Invariant: the policy after the change is the document's, whatever it was before. What is the same in both keeps its
//! times and etags. All violations of the document are reported at once.
//! Not here: parsing documents (`api`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::error::{PlanError, Violation};
use super::etag::{check_etag, etag_of_policy};
use super::task::{Task, check_limit};
use super::tests;
use crate::change::{Delta, GroupContent};
use crate::document::{Document, GroupSpec, NodeSpec};
use crate::name::{Name, NodeKey, NodeKind};
use crate::node::{Access, Node, NodePatch};
use crate::organization::Organization;
use crate::policy_test::PolicyTest;

impl Task<'_> {
    pub(super) fn replace_policy(mut self, document: Document, etag: Option<&str>) -> Result<Vec<Delta>, PlanError> {
        let organization = self.organization;
        let name = Name::organization(&organization.id).to_string();
        check_etag(&name, etag, &etag_of_policy(organization.revision))?;
        let Document { own, nodes, groups, rules, tests } = document;
        let mut deltas = self.groups_to(&groups)?;
        let mut working = organization.clone();
        working.apply(self.revision, self.planner.now, &deltas);
        // Rules and nodes of the document cannot name a group that it leaves out, although the group is removed last.
        let kept: BTreeSet<&str> = groups.iter().map(|group| group.id.as_str()).collect();
        let left_out: Vec<_> =
            organization.groups.iter().map(|(id, _)| id.clone()).filter(|id| !kept.contains(id.as_str())).collect();
        for id in &left_out {
            working.groups.remove(id.as_str());
        }
        let mut task = Task { organization: &working, violations: std::mem::take(&mut self.violations), ..self };
        let of_rules = task.rule_list(rules, "policy.rules");
        let of_nodes = task.nodes_to(&own, nodes);
        let of_tests = task.tests_to(tests);
        task.refuse()?;
        deltas.extend(of_rules?);
        deltas.extend(of_nodes?);
        deltas.extend(of_tests?);
        deltas.extend(left_out.into_iter().map(|id| Delta::RemoveGroup { id }));
        Ok(deltas)
    }

    fn groups_to(&mut self, groups: &[GroupSpec]) -> Result<Vec<Delta>, PlanError> {
        let (organization, limits) = (self.organization, self.planner.limits);
        let (mut deltas, mut named, mut ranges_of_all) = (Vec::new(), BTreeSet::new(), 0);
        for (index, GroupSpec { id, description, ranges }) in groups.iter().enumerate() {
            if !named.insert(id) {
                self.violation(
                    &format!("policy.address_groups[{index}].name"),
                    "is named twice: name every group once",
                );
                continue;
            }
            let old = organization.groups.get(id.as_str());
            if old.is_none_or(|old| old.description != *description) {
                deltas.push(Delta::SetGroup { id: id.clone(), description: Arc::clone(description) });
            }
            let old = old.map(|old| Arc::clone(old.ranges())).unwrap_or_default();
            let new = ranges.as_ref().unwrap_or(&old);
            check_limit("ranges of an address group", new.len(), limits.ranges_per_group_max)?;
            ranges_of_all += new.len();
            if *new != old {
                let (added, removed) = (new.without(&old), old.without(new));
                let content = if added.len() + removed.len() < new.len() {
                    GroupContent::Patch { added, removed }
                } else {
                    GroupContent::Whole((**new).clone())
                };
                deltas.push(Delta::SetGroupContent { id: id.clone(), content });
            }
        }
        let what = "ranges of all address groups of an organization";
        check_limit(what, ranges_of_all, limits.ranges_per_organization_max)?;
        check_limit("address groups of an organization", groups.len(), limits.groups_per_organization_max)?;
        Ok(deltas)
    }

    /// The deltas that set the nodes, the organization's own among them, parents first; then those that remove nodes.
    fn nodes_to(&mut self, own: &NodePatch, nodes: Vec<NodeSpec>) -> Result<Vec<Delta>, PlanError> {
        let organization = self.organization;
        let mut deltas = Vec::new();
        self.check_node_patch(None, own, "policy.nodes[0]");
        self.planner.check_entry_limit(own)?;
        deltas.extend(
            self.planner
                .changed_node(&organization.node, own, self.revision)
                .map(|node| Delta::SetOrganization { node }),
        );
        let mut wanted: BTreeMap<NodeKey, NodeSpec> = BTreeMap::new();
        for node in nodes {
            let (index, key) = (node.index, node.key.clone());
            if wanted.insert(key, node).is_some() {
                self.violation(&format!("policy.nodes[{index}].name"), "is named twice: name every node once");
            }
        }
        check_limit("nodes of an organization", wanted.len(), self.planner.limits.nodes_per_organization_max)?;
        for (key, NodeSpec { index, patch, .. }) in &wanted {
            let field = format!("policy.nodes[{index}]");
            if let Some(parent) = key.parent().filter(|parent| !wanted.contains_key(parent)) {
                let name = Name::node(&organization.id, parent).to_string();
                self.violation(&format!("{field}.name"), format!("its parent `{name}` is not among the nodes: add it"));
            }
            self.check_node_patch(Some(key.kind()), patch, &field);
            self.planner.check_entry_limit(patch)?;
            deltas.extend(self.node_to(organization, key, patch));
        }
        let removed = organization.nodes.iter().map(|(key, _)| key).filter(|key| !wanted.contains_key(*key));
        // Removing a node removes all nodes below it.
        let topmost = removed.filter(|key| {
            key.parent().is_none_or(|parent| wanted.contains_key(&parent) || organization.nodes.get(&parent).is_none())
        });
        deltas.extend(topmost.map(|key| Delta::RemoveNode { key: key.clone() }));
        Ok(deltas)
    }

    fn node_to(&self, organization: &Organization, key: &NodeKey, patch: &NodePatch) -> Option<Delta> {
        let default = if key.kind() == NodeKind::Project { Access::nobody() } else { Access::Inherit };
        let fresh = Node::new(default, self.planner.now, self.revision);
        let node = match organization.nodes.get(key) {
            None => patch.applied_to(&fresh),
            Some(old) => {
                // A field that the document leaves out has the value of a new node.
                let whole = NodePatch::of(&patch.applied_to(&fresh));
                self.planner.changed_node(old, &whole, self.revision)?
            }
        };
        Some(Delta::SetNode { key: key.clone(), node })
    }

    fn tests_to(&mut self, mut wanted: Vec<PolicyTest>) -> Result<Vec<Delta>, PlanError> {
        let mut named = BTreeSet::new();
        for (index, test) in wanted.iter().enumerate() {
            if !named.insert(&test.id) {
                let violation = Violation::new(
                    format!("policy.policy_tests[{index}].name"),
                    "is named twice: name every test once",
                );
                self.violations.push(violation);
            }
        }
        check_limit(tests::LIMITED, wanted.len(), self.planner.limits.tests_per_organization_max)?;
        wanted.sort_by(|one, other| one.id.cmp(&other.id));
        let differs = wanted != **self.organization.tests;
        Ok(if differs { vec![Delta::SetTests { tests: wanted }] } else { Vec::new() })
    }
}
