//! A policy state from its entries.
//!
//! Invariant: the entries may come in any order. An entry that refers to one that is missing is an error.
//! Not here: what entries look like (`entry`) and what objects look like (`object`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::CodecError;
use super::object::{from_named_node, from_node, from_ranges, from_rule, from_test, from_time, id, required};
use crate::policy::group::Group;
use crate::policy::name::{Id, NodeKey};
use crate::policy::organization::{Cluster, Organization, Pending, ShadowPolicy};
use crate::policy::ranges::RangeList;
use crate::policy::rule::Rule;
use crate::policy::state::PolicyState;
use crate::proto::storage as stored;
use crate::proto::storage::state_entry::Entry;

/// Collects entries, in any order, into a state.
#[derive(Default)]
pub(super) struct StateBuilder {
    cluster: Option<Cluster>,
    deleted: BTreeMap<Id, u64>,
    organizations: BTreeMap<Id, OrganizationParts>,
}

#[derive(Default)]
struct OrganizationParts {
    own: Option<Organization>,
    rules: HashMap<Id, Arc<Rule>>,
    order: Vec<Id>,
    groups: Vec<stored::GroupEntry>,
    ranges: HashMap<Id, RangeList>,
    nodes: Vec<(NodeKey, crate::policy::node::Node)>,
    tests: Vec<stored::PolicyTest>,
    pending: Option<Pending>,
    shadow: Option<ShadowPolicy>,
}

impl StateBuilder {
    fn parts(&mut self, organization: &str) -> Result<&mut OrganizationParts, CodecError> {
        Ok(self.organizations.entry(id(organization)?).or_default())
    }

    /// Adds an entry.
    pub(super) fn add(&mut self, entry: stored::StateEntry) -> Result<(), CodecError> {
        match required(entry.entry, "entry")? {
            Entry::Cluster(stored::ClusterEntry { revision, node }) => {
                self.cluster = Some(Cluster { revision, node: Arc::new(from_node(node)?) });
            }
            Entry::Deleted(stored::DeletedEntry { id: deleted, revision }) => {
                self.deleted.insert(id(&deleted)?, revision);
            }
            Entry::Organization(stored::OrganizationEntry { id: name, revision, rules_changed_at, node }) => {
                let organization = Organization::new(id(&name)?, revision, from_node(node)?);
                self.parts(&name)?.own = Some(Organization { rules_changed_at, ..organization });
            }
            Entry::Rule(stored::RuleEntry { organization, rule }) => {
                let rule = from_rule(rule)?;
                self.parts(&organization)?.rules.insert(rule.id.clone(), Arc::new(rule));
            }
            Entry::RuleOrder(stored::RuleOrderEntry { organization, rules }) => {
                self.parts(&organization)?.order = rules.iter().map(|rule| id(rule)).collect::<Result<_, _>>()?;
            }
            Entry::Group(group) => self.parts(&group.organization.clone())?.groups.push(group),
            Entry::GroupRanges(stored::GroupRangesEntry { organization, id: group, ranges }) => {
                let (group, ranges) = (id(&group)?, from_ranges(ranges)?);
                self.parts(&organization)?.ranges.insert(group, ranges);
            }
            Entry::Node(stored::NodeEntry { organization, node }) => {
                let named = from_named_node(node)?;
                self.parts(&organization)?.nodes.push(named);
            }
            Entry::Tests(stored::TestsEntry { organization, tests }) => self.parts(&organization)?.tests = tests,
            Entry::Pending(pending) => {
                let organization = pending.organization.clone();
                self.parts(&organization)?.pending = Some(from_pending(pending)?);
            }
            Entry::Candidate(shadow) => {
                let organization = shadow.organization.clone();
                self.parts(&organization)?.shadow = Some(from_shadow(shadow)?);
            }
            // It is no object of the state.
            Entry::Change(_) => return Err(CodecError::Invalid("entry")),
        }
        Ok(())
    }

    /// The state; an error when an object refers to one that is missing.
    pub(super) fn finish(self) -> Result<PolicyState, CodecError> {
        let mut state = PolicyState::empty();
        state.cluster = Arc::new(required(self.cluster, "cluster")?);
        state.deleted = self.deleted;
        for (id, parts) in self.organizations {
            state.organizations.insert(id, Arc::new(parts.finish()?));
        }
        Ok(state)
    }
}

impl OrganizationParts {
    fn finish(mut self) -> Result<Organization, CodecError> {
        let mut organization = required(self.own, "organization")?;
        let rules =
            self.order.iter().map(|id| required(self.rules.remove(id), "rule order")).collect::<Result<_, _>>()?;
        if !self.rules.is_empty() {
            return Err(CodecError::Invalid("rule order"));
        }
        organization.rules = Arc::new(rules);
        organization.tests = Arc::new(self.tests.into_iter().map(from_test).collect::<Result<_, _>>()?);
        organization.pending = self.pending.map(Arc::new);
        organization.shadow = self.shadow.map(Arc::new);
        for stored in self.groups {
            let stored::GroupEntry {
                organization: _,
                id: group,
                description,
                create_time,
                update_time,
                changed_at,
                content_changed_at,
            } = stored;
            let group = id(&group)?;
            let ranges = required(self.ranges.remove(&group), "group ranges")?;
            let made = Group::new(group.clone(), description.into(), ranges, from_time(create_time)?, changed_at);
            let made = made.with_history(from_time(update_time)?, content_changed_at);
            organization.groups.insert(group, Arc::new(made));
        }
        for (key, node) in self.nodes {
            organization.nodes.insert(key, Arc::new(node));
        }
        Ok(organization)
    }
}

fn from_pending(pending: stored::PendingEntry) -> Result<Pending, CodecError> {
    let stored::PendingEntry { organization, revision, until, base } = pending;
    Ok(Pending { revision, until: from_time(until)?, base: from_entries(&organization, base)? })
}

fn from_shadow(shadow: stored::CandidateEntry) -> Result<ShadowPolicy, CodecError> {
    let stored::CandidateEntry { organization, revision, time, entries } = shadow;
    Ok(ShadowPolicy { revision, time: from_time(time)?, organization: from_entries(&organization, entries)? })
}

fn from_entries(organization: &str, entries: Vec<stored::StateEntry>) -> Result<Arc<Organization>, CodecError> {
    let mut builder = StateBuilder::default();
    for entry in entries {
        builder.add(entry)?;
    }
    let parts = builder.organizations.remove(organization);
    Ok(Arc::new(required(parts, "other version of an organization")?.finish()?))
}
