//! The policy state of one organization and of the cluster: the editable form of the policy, and how a change alters
//! it.
//!
//! Invariant: `apply` is the only way to a new state, at run time and when the journal is replayed, so both give the
//! same state. A clone shares with its original everything that no later change alters.
//! Not here: whether a change is permitted (`plan`), its compiled form (`snapshot`).

use std::sync::Arc;

use super::change::{Delta, GroupContent};
use super::cow_map::CowMap;
use super::group::Group;
use super::name::{Id, NodeKey};
use super::node::{Access, Node};
use super::policy_test::PolicyTest;
use super::ranges::{RangeList, RangeSet};
use super::rule::{Rule, Source};
use super::time::Timestamp;

/// The policy of one organization.
#[derive(Clone, Debug, PartialEq)]
pub struct Organization {
    /// Its id.
    pub id: Id,
    /// The number of its changes (design.md §2.5).
    pub revision: u64,
    /// Its own node.
    pub node: Arc<Node>,
    /// The rules of the firewall, in order. A rule's index in this list is its position less one.
    pub rules: Arc<Vec<Arc<Rule>>>,
    /// The revision that last changed the list of rules or one of them: what the list's etag holds.
    pub rules_changed_at: u64,
    /// The address groups.
    pub groups: CowMap<Id, Group>,
    /// The nodes below it.
    pub nodes: CowMap<NodeKey, Node>,
    /// The policy tests by ascending id.
    pub tests: Arc<Vec<PolicyTest>>,
    /// The last change, when it waits for its confirmation.
    pub pending: Option<Arc<Pending>>,
    /// The shadow policy, which decides beside this one and is never enforced.
    pub shadow: Option<Arc<ShadowPolicy>>,
}

/// A policy that decides every Check beside the enforced one, without effect.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowPolicy {
    /// The revision at which it was set.
    pub revision: u64,
    /// When it was set.
    pub time: Timestamp,
    /// The organization with the shadow policy. It has neither a shadow policy nor a pending change of its own.
    pub organization: Arc<Organization>,
}

/// A change that is undone unless it is confirmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// The revision that it made.
    pub revision: u64,
    /// When it is undone.
    pub until: Timestamp,
    /// What an undo restores: the last state of the organization that waits for no confirmation. That is the one before
    /// the change, or, where the change itself ended the waiting of another, the one before that.
    pub base: Arc<Organization>,
}

/// The operator's restriction of the whole installation (design.md §2.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The number of its changes (design.md §2.5).
    pub revision: u64,
    /// The node named `cluster`.
    pub node: Arc<Node>,
}

impl Cluster {
    /// A cluster that allows everything, at revision 1.
    pub fn new(now: Timestamp) -> Self {
        Self { revision: 1, node: Arc::new(Node::new(Access::AllowAll, now, 1)) }
    }
}

impl Organization {
    /// An organization without rules, groups, nodes and tests.
    pub fn new(id: Id, revision: u64, node: Node) -> Self {
        Self {
            id,
            revision,
            node: Arc::new(node),
            rules: Arc::default(),
            rules_changed_at: revision,
            groups: CowMap::default(),
            nodes: CowMap::default(),
            tests: Arc::default(),
            pending: None,
            shadow: None,
        }
    }

    /// A rule and its index; none when there is no rule of this id.
    pub fn rule(&self, id: &str) -> Option<(usize, &Arc<Rule>)> {
        self.rules.iter().enumerate().find(|(_, rule)| rule.id.as_str() == id)
    }

    /// How many rules have expired. Only when this number changes can decisions differ from moment to moment.
    pub fn count_expired(&self, now: Timestamp) -> usize {
        self.rules.iter().filter(|rule| rule.has_expired(now)).count()
    }

    /// Whether a node, or the organization itself (no key), has children.
    pub(crate) fn has_children(&self, key: Option<&NodeKey>) -> bool {
        match key {
            None => !self.nodes.is_empty(),
            Some(key) => self.nodes.iter_after(Some(key)).next().is_some_and(|(next, _)| next.is_within(key)),
        }
    }

    /// The effective access of a node: the own access of the nearest of the node and its ancestors that does not
    /// inherit, and the key of that ancestor (design.md §2.3). None when the project is unknown: then cluster, firewall
    /// and organization alone decide.
    pub fn effective_access(&self, key: &NodeKey) -> Option<(NodeKey, &Access)> {
        let mut at = Some(key.clone());
        while let Some(key) = at {
            match self.nodes.get(&key) {
                Some(node) if node.access != Access::Inherit => return Some((key, &node.access)),
                _ => at = key.parent(),
            }
        }
        None
    }

    /// The addresses of a source. A group that does not exist has none.
    pub(crate) fn source_set(&self, source: &Source) -> RangeSet {
        match source {
            Source::Range(range) => std::iter::once(*range).collect::<RangeList>().to_set(),
            Source::Group(id) => self.groups.get(id.as_str()).map(|group| (**group.set()).clone()).unwrap_or_default(),
        }
    }

    /// The addresses that an access setting permits by itself; none for `Inherit`.
    pub(crate) fn access_set(&self, access: &Access) -> RangeSet {
        match access {
            Access::Inherit => RangeSet::default(),
            Access::AllowAll => RangeSet::full(),
            Access::AllowList(entries) => {
                let (mut ranges, mut set) = (Vec::new(), RangeSet::default());
                for entry in entries.iter() {
                    match &entry.source {
                        Source::Range(range) => ranges.push(*range),
                        group @ Source::Group(_) => set = set.union(&self.source_set(group)),
                    }
                }
                set.union(&ranges.into_iter().collect::<RangeList>().to_set())
            }
        }
    }

    /// Applies the deltas of one change in order, and sets the revision. A delta that names an object that does not
    /// exist has no effect; planning never makes one.
    pub fn apply(&mut self, revision: u64, time: Timestamp, deltas: &[Delta]) {
        self.revision = revision;
        for delta in deltas {
            self.apply_delta(revision, time, delta);
        }
    }

    fn apply_delta(&mut self, revision: u64, time: Timestamp, delta: &Delta) {
        match delta {
            Delta::SetOrganization { node } => self.node = Arc::new(node.clone()),
            Delta::SetNode { key, node } => self.nodes.insert(key.clone(), Arc::new(node.clone())),
            Delta::RemoveNode { key } => self.remove_subtree(key),
            Delta::SetGroup { id, description } => self.set_group(id, description, time, revision),
            Delta::SetGroupContent { id, content } => self.set_group_content(id, content, time, revision),
            Delta::RemoveGroup { id } => {
                self.groups.remove(id.as_str());
            }
            Delta::SetTests { tests } => self.tests = Arc::new(tests.clone()),
            Delta::Confirm { .. } => {}
            Delta::SetShadowPolicy { deltas } => {
                let mut organization = Self { shadow: None, pending: None, ..self.clone() };
                organization.apply(revision, time, deltas);
                self.shadow = Some(Arc::new(ShadowPolicy { revision, time, organization: Arc::new(organization) }));
            }
            Delta::RemoveShadowPolicy => self.shadow = None,
            Delta::ExpireRules { indexes } => self.expire_rules(indexes, time, revision),
            Delta::InsertRule { .. }
            | Delta::SetRule { .. }
            | Delta::RemoveRule { .. }
            | Delta::MoveRule { .. }
            | Delta::OrderRules { .. }
            | Delta::ReplaceRules { .. } => {
                self.rules_changed_at = revision;
                apply_to_rules(Arc::make_mut(&mut self.rules), delta);
            }
        }
    }

    /// Marks rules as expired. The shadow policy and what an undo would restore follow with all their rules whose time has
    /// passed, so that neither brings one back. Nobody changed the policy that the shadow policy was made from.
    fn expire_rules(&mut self, indexes: &[u32], time: Timestamp, revision: u64) {
        if !indexes.is_empty() {
            self.rules_changed_at = revision;
            let rules = Arc::make_mut(&mut self.rules);
            for index in indexes {
                if let Some(rule) = rules.get_mut(*index as usize) {
                    Arc::make_mut(rule).expired = true;
                }
            }
        }
        if let Some(shadow) = &mut self.shadow {
            let shadow = Arc::make_mut(shadow);
            if shadow.revision + 1 == revision {
                shadow.revision = revision;
            }
            mark_due(&mut shadow.organization, time);
        }
        if let Some(pending) = &mut self.pending
            && pending.base.due_rules(time).next().is_some()
        {
            mark_due(&mut Arc::make_mut(pending).base, time);
        }
    }

    /// The rules that have expired at a moment and are not marked, with their indexes.
    pub fn due_rules(&self, at: Timestamp) -> impl Iterator<Item = (u32, &Id)> {
        let is_due = move |rule: &Rule| !rule.expired && rule.has_expired(at);
        (0..).zip(self.rules.iter()).filter(move |(_, rule)| is_due(rule)).map(|(index, rule)| (index, &rule.id))
    }

    /// The versions that a later change may bring back: the shadow policy, and what an undo restores.
    pub fn kept_versions(&self) -> impl Iterator<Item = &Self> {
        let shadow = self.shadow.as_ref().map(|shadow| &*shadow.organization);
        shadow.into_iter().chain(self.pending.as_ref().map(|pending| &*pending.base))
    }

    fn remove_subtree(&mut self, root: &NodeKey) {
        let below: Vec<NodeKey> = self
            .nodes
            .iter_after(Some(root))
            .map(|(key, _)| key)
            .take_while(|key| key.is_within(root))
            .cloned()
            .collect();
        self.nodes.remove(root);
        for key in below {
            self.nodes.remove(&key);
        }
    }

    fn set_group(&mut self, id: &Id, description: &Arc<str>, time: Timestamp, revision: u64) {
        let description = Arc::clone(description);
        let group = match self.groups.get(id.as_str()) {
            Some(group) => group.with_description(description, time, revision),
            None => Group::new(id.clone(), description, RangeList::default(), time, revision),
        };
        self.groups.insert(id.clone(), Arc::new(group));
    }

    fn set_group_content(&mut self, id: &Id, content: &GroupContent, time: Timestamp, revision: u64) {
        let Some(group) = self.groups.get(id.as_str()) else { return };
        let ranges = match content {
            GroupContent::Whole(ranges) => ranges.clone(),
            GroupContent::Patch { added, removed } => group.ranges().without(removed).with(added),
        };
        let group = group.with_ranges(ranges, time, revision);
        self.groups.insert(id.clone(), Arc::new(group));
    }
}

/// Marks every rule of a version that has expired at a moment.
fn mark_due(organization: &mut Arc<Organization>, at: Timestamp) {
    let due: Vec<u32> = organization.due_rules(at).map(|(index, _)| index).collect();
    if due.is_empty() {
        return;
    }
    let rules = Arc::make_mut(&mut Arc::make_mut(organization).rules);
    for index in due {
        if let Some(rule) = rules.get_mut(index as usize) {
            Arc::make_mut(rule).expired = true;
        }
    }
}

fn apply_to_rules(rules: &mut Vec<Arc<Rule>>, delta: &Delta) {
    match delta {
        Delta::InsertRule { index, rule } => rules.insert((*index).min(rules.len()), Arc::new(rule.clone())),
        Delta::SetRule { rule } => {
            if let Some(slot) = rules.iter_mut().find(|slot| slot.id == rule.id) {
                *slot = Arc::new(rule.clone());
            }
        }
        Delta::RemoveRule { id } => rules.retain(|rule| rule.id != *id),
        Delta::MoveRule { id, index } => {
            if let Some(from) = rules.iter().position(|rule| rule.id == *id) {
                let rule = rules.remove(from);
                rules.insert((*index).min(rules.len()), rule);
            }
        }
        Delta::OrderRules { order } => {
            let old = rules.clone();
            rules.clear();
            rules.extend(order.iter().filter_map(|index| old.get(*index as usize).cloned()));
        }
        Delta::ReplaceRules { rules: new } => *rules = new.iter().cloned().map(Arc::new).collect(),
        Delta::SetOrganization { .. }
        | Delta::SetNode { .. }
        | Delta::RemoveNode { .. }
        | Delta::SetGroup { .. }
        | Delta::SetGroupContent { .. }
        | Delta::RemoveGroup { .. }
        | Delta::SetTests { .. }
        | Delta::SetShadowPolicy { .. }
        | Delta::RemoveShadowPolicy
        | Delta::ExpireRules { .. }
        | Delta::Confirm { .. } => {}
    }
}
