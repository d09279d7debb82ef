//! Planning the replacement of a policy, or of sections of it, by a document: the fewest steps from one to the other.
//!
//! Groups are set first, because rules and nodes name them. Groups that the document leaves out are removed last, when
//! nothing names them any more.
//!
//! Invariant: after the change, the sections that the document has are the document's, whatever they were before, and the
//! others are as they were. What is the same in both keeps its times and etags. All violations of the document are
//! reported at once.
//! Not here: parsing documents (`api`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::error::PlanError;
use super::etag::check_etag;
use super::task::{Task, check_limit};
use super::widening::refuse_widening;
use crate::change::{Delta, GroupContent};
use crate::document::{Document, GroupSpec, NodeSpec};
use crate::name::{Id, Name, NodeKey, NodeKind};
use crate::node::{Access, Node, NodePatch};
use crate::organization::Organization;
use crate::rule::Source;

const EMPTY: &str = "empty document: it names none of rules, address_groups, nodes, policy_tests: give what is to be \
                     replaced, and name in `sections` what is to be emptied";

/// The steps that set the groups of a document, and the groups that it leaves out.
#[derive(Default)]
struct GroupSteps {
    deltas: Vec<Delta>,
    left_out: Vec<Id>,
    /// Refused where there is no violation to be told first.
    limits: Vec<PlanError>,
}

impl Task<'_> {
    pub(super) fn replace_policy(
        mut self,
        document: Document,
        etag: Option<&str>,
        force: bool,
    ) -> Result<Vec<Delta>, PlanError> {
        let (organization, planner) = (self.organization, self.planner);
        let name = Name::organization(&organization.id).to_string();
        check_etag(&name, etag, &planner.etags.policy(organization.revision))?;
        if document.is_empty() && self.violations.is_empty() {
            self.violation("policy", EMPTY);
        }
        let Document { own, nodes, groups, rules, tests } = document;
        let has_rules = rules.is_some();
        let are_groups_read = !self.has_unread("policy.address_groups[");
        let GroupSteps { mut deltas, left_out, limits } =
            groups.map(|groups| self.groups_to(&groups)).unwrap_or_default();
        let mut working = organization.clone();
        working.apply(self.revision, planner.now, &deltas);
        // Rules and nodes of the document cannot name a group that it leaves out, although the group is removed last.
        for id in &left_out {
            working.groups.remove(id.as_str());
        }
        let mut task = Task { organization: &working, violations: std::mem::take(&mut self.violations), ..self };
        let first_planned = task.violations.len();
        let of_rules = rules.map(|rules| task.rule_list(rules, "policy.rules")).transpose();
        let of_nodes = nodes.map(|nodes| task.nodes_to(&own, nodes)).transpose();
        let of_tests = tests.map(|tests| task.test_list(tests)).transpose();
        if !are_groups_read {
            // A group whose name could not be read may be the one that seems to be missing.
            let found = task.violations.split_off(first_planned);
            task.violations.extend(found.into_iter().filter(|of| !of.field.ends_with(".address_group")));
        }
        task.refuse()?;
        limits.into_iter().next().map_or(Ok(()), Err)?;
        let mut after = working.clone();
        if has_rules {
            // They were checked above. Only rules that stay can still name a group that goes.
            after.rules = Arc::default();
        }
        let of_nodes = of_nodes?.unwrap_or_default();
        after.apply(self.revision, planner.now, &of_nodes);
        deltas.extend(of_rules?.into_iter().flatten().chain(of_nodes).chain(of_tests?.into_iter().flatten()));
        refuse_used(&after, &left_out)?;
        if !force {
            let deleted = organization.nodes.iter().filter(|(key, _)| after.nodes.get(*key).is_none());
            refuse_widening(organization, deleted, &after, planner.cluster)?;
        }
        deltas.extend(left_out.into_iter().map(|id| Delta::RemoveGroup { id }));
        Ok(deltas)
    }

    /// Whether the name of an object could not be read. `field` is what the fields of its section begin with.
    fn has_unread(&self, field: &str) -> bool {
        let is_it = |of: &str| of.starts_with(field) && of.ends_with("].name");
        self.violations.iter().any(|violation| is_it(&violation.field))
    }

    fn groups_to(&mut self, groups: &[GroupSpec]) -> GroupSteps {
        let (organization, limits) = (self.organization, self.planner.limits);
        let (mut steps, mut named, mut ranges_of_all) = (GroupSteps::default(), BTreeSet::new(), 0);
        for GroupSpec { index, id, description, ranges } in groups {
            let old = organization.groups.get(id.as_str());
            let (field, name) = (format!("policy.address_groups[{index}].name"), Name::group(&organization.id, id));
            if !named.insert(id) {
                self.violation(&field, format!("`{name}` is named twice: name every group once"));
                continue;
            }
            if old.is_none() && ranges.is_none() {
                let advice = "apply the policy with its ranges, or name the group as it is";
                let description = format!("`{name}` does not exist, and the policy leaves its ranges out: {advice}");
                self.violation(&field, description);
            }
            if old.is_none_or(|old| old.description != *description) {
                steps.deltas.push(Delta::SetGroup { id: id.clone(), description: Arc::clone(description) });
            }
            let old = old.map(|old| Arc::clone(old.ranges())).unwrap_or_default();
            let new = ranges.as_ref().unwrap_or(&old);
            let limit = check_limit("ranges", || name.to_string(), new.len(), limits.ranges_per_group_max);
            steps.limits.extend(limit.err());
            ranges_of_all += new.len();
            if *new != old {
                let (added, removed) = (new.without(&old), old.without(new));
                let content = if added.len() + removed.len() < new.len() {
                    GroupContent::Patch { added, removed }
                } else {
                    GroupContent::Whole((**new).clone())
                };
                steps.deltas.push(Delta::SetGroupContent { id: id.clone(), content });
            }
        }
        let what = "ranges of all address groups";
        steps.limits.extend(self.check_own_limit(what, ranges_of_all, limits.ranges_per_organization_max).err());
        let what = "address groups";
        steps.limits.extend(self.check_own_limit(what, groups.len(), limits.groups_per_organization_max).err());
        steps.left_out =
            organization.groups.iter().map(|(id, _)| id).filter(|id| !named.contains(id)).cloned().collect();
        steps
    }

    /// The deltas that set the nodes, the organization's own among them, parents first; then those that remove nodes.
    fn nodes_to(&mut self, own: &NodePatch, nodes: Vec<NodeSpec>) -> Result<Vec<Delta>, PlanError> {
        let organization = self.organization;
        let mut deltas = Vec::new();
        let are_names_read = !self.has_unread("policy.nodes[");
        let adds_first_project = organization.nodes.is_empty() && !nodes.is_empty();
        let own = &NodePatch {
            // As when the first project is created by itself.
            require_projects: own.require_projects.or(adds_first_project.then_some(true)),
            ..own.clone()
        };
        self.check_node_patch(None, own, "policy.nodes[0]");
        // Refused where there is no violation to be told first, in any of the nodes.
        let mut limits = self.planner.check_entry_limit(own, || Name::organization(&organization.id).to_string());
        deltas.extend(
            self.planner
                .changed_node(&organization.node, own, self.revision)
                .map(|node| Delta::SetOrganization { node }),
        );
        let mut wanted: BTreeMap<NodeKey, NodeSpec> = BTreeMap::new();
        for node in nodes {
            let (index, key) = (node.index, node.key.clone());
            let name = Name::node(&organization.id, &key).to_string();
            if wanted.insert(key, node).is_some() {
                let description = format!("`{name}` is named twice: name every node once");
                self.violation(&format!("policy.nodes[{index}].name"), description);
            }
        }
        limits =
            limits.and(self.check_own_limit("nodes", wanted.len(), self.planner.limits.nodes_per_organization_max));
        for (key, NodeSpec { index, patch, .. }) in &wanted {
            let field = format!("policy.nodes[{index}]");
            // A parent that seems to be missing may be the node whose name could not be read.
            let parent = key.parent().filter(|parent| are_names_read && !wanted.contains_key(parent));
            if let Some(parent) = parent {
                let name = Name::node(&organization.id, parent).to_string();
                self.violation(&format!("{field}.name"), format!("its parent `{name}` is not among the nodes: add it"));
            }
            self.check_node_patch(Some(key.kind()), patch, &field);
            let name = || Name::node(&organization.id, key).to_string();
            limits = limits.and(self.planner.check_entry_limit(patch, name));
            deltas.extend(self.node_to(organization, key, patch));
        }
        let removed = organization.nodes.iter().map(|(key, _)| key).filter(|key| !wanted.contains_key(*key));
        // Removing a node removes all nodes below it.
        let topmost = removed.filter(|key| {
            key.parent().is_none_or(|parent| wanted.contains_key(&parent) || organization.nodes.get(&parent).is_none())
        });
        deltas.extend(topmost.map(|key| Delta::RemoveNode { key: key.clone() }));
        limits.map(|()| deltas)
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
}

/// Refuses to remove a group that a rule or a node names which the document leaves as it is.
fn refuse_used(after: &Organization, removed: &[Id]) -> Result<(), PlanError> {
    if removed.is_empty() {
        return Ok(());
    }
    let removed: BTreeSet<&Id> = removed.iter().collect();
    let is_removed = |source: &Source| match source {
        Source::Group(id) if removed.contains(id) => Some(id.clone()),
        Source::Group(_) | Source::Range(_) => None,
    };
    let listed = |access: &Access| access.entries().iter().find_map(|entry| is_removed(&entry.source));
    let rule = || {
        let mut rules = after.rules.iter();
        rules.find_map(|rule| Some((is_removed(&rule.source)?, Name::rule(&after.id, &rule.id).to_string())))
    };
    let own = || Some((listed(&after.node.access)?, Name::organization(&after.id).to_string()));
    let below = || {
        let mut nodes = after.nodes.iter();
        nodes.find_map(|(key, node)| Some((listed(&node.access)?, Name::node(&after.id, key).to_string())))
    };
    match rule().or_else(own).or_else(below) {
        None => Ok(()),
        Some((group, user)) => Err(PlanError::GroupInUse { group: Name::group(&after.id, &group).to_string(), user }),
    }
}
