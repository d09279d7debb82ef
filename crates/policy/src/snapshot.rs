//! The compiled policy of one organization, and the decision (design.md §2.4).
//!
//! Invariant: a snapshot is immutable. It decides as design.md §2 says of the state that it was compiled from.
//! `advance` gives the same decisions as compiling anew.
//! Not here: which snapshot is current (`engine`).

use std::sync::Arc;

use super::address::Address;
use super::change::Delta;
use super::decision::{Level, Reason, Verdict};
use super::firewall::Firewall;
use super::members::{CompiledAccess, List, MembersCache};
use super::name::{Id, NodePath};
use super::node::Access;
use super::node_index::NodeIndex;
use super::organization::{Cluster, Organization};
use super::rule::{ConnectionType, Source};
use super::time::Timestamp;

/// The compiled policy of one organization.
#[derive(Clone, Debug)]
pub struct Snapshot {
    revision: u64,
    require_projects: bool,
    firewall: Firewall,
    access: CompiledAccess,
    nodes: NodeIndex,
}

/// The compiled access setting of the cluster.
#[derive(Clone, Debug)]
pub struct ClusterSnapshot {
    revision: u64,
    access: CompiledAccess,
}

impl ClusterSnapshot {
    /// Compiles the cluster's access setting.
    pub fn compile(cluster: &Cluster) -> Self {
        let access = match &cluster.node.access {
            Access::AllowList(entries) => {
                let ranges = entries.iter().filter_map(|entry| match &entry.source {
                    Source::Range(range) => Some(*range),
                    Source::Group(_) => None,
                });
                let set = ranges.collect::<super::ranges::RangeList>().to_set();
                CompiledAccess::AllowList(Arc::new(List::of_set(&set)))
            }
            Access::Inherit | Access::AllowAll => CompiledAccess::AllowAll,
        };
        Self { revision: cluster.revision, access }
    }

    /// The cluster's revision that was compiled.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

/// The verdict on a target in an organization that does not exist.
pub fn unknown_organization() -> Verdict<'static> {
    Verdict { reason: Reason::UnknownEndpoint, rule: None, first_match: None, level: None }
}

impl Snapshot {
    /// Compiles an organization's policy.
    pub fn compile(organization: &Organization, lists: &mut MembersCache) -> Self {
        Self {
            revision: organization.revision,
            require_projects: organization.node.require_projects,
            firewall: Firewall::compile(organization),
            access: lists.compile(organization, &organization.node.access),
            nodes: NodeIndex::compile(organization, lists),
        }
    }

    /// The snapshot of `organization` after a change with these deltas. Compiles only what the deltas concern.
    #[must_use]
    pub fn advance<'a>(
        &self,
        organization: &Organization,
        deltas: impl IntoIterator<Item = &'a Delta>,
        lists: &mut MembersCache,
    ) -> Self {
        let mut next = self.clone();
        next.revision = organization.revision;
        let mut firewall_changed = false;
        for delta in deltas {
            match delta {
                Delta::SetOrganization { node } => {
                    next.require_projects = node.require_projects;
                    next.access = lists.compile(organization, &node.access);
                }
                Delta::SetNode { key, node } => {
                    next.nodes.set(key, lists.compile(organization, &node.access));
                }
                Delta::RemoveNode { key } => next.nodes.remove_subtree(key),
                Delta::InsertRule { .. }
                | Delta::SetRule { .. }
                | Delta::RemoveRule { .. }
                | Delta::MoveRule { .. }
                | Delta::OrderRules { .. }
                | Delta::ReplaceRules { .. }
                | Delta::ExpireRules { .. } => firewall_changed = true,
                // A new or removed group is not in use, and the other steps do not concern decisions.
                Delta::SetGroup { .. }
                | Delta::RemoveGroup { .. }
                | Delta::SetTests { .. }
                | Delta::SetShadowPolicy { .. }
                | Delta::RemoveShadowPolicy
                | Delta::Confirm { .. } => {}
                Delta::SetGroupContent { id, .. } => {
                    firewall_changed |= organization.rules.iter().any(|rule| names(&rule.source, id));
                    next.recompile_lists_with(organization, id, lists);
                }
            }
        }
        if firewall_changed {
            next.firewall = Firewall::compile(organization);
        }
        next
    }

    fn recompile_lists_with(&mut self, organization: &Organization, group: &Id, lists: &mut MembersCache) {
        let listed = |access: &Access| access.entries().iter().any(|entry| names(&entry.source, group));
        if listed(&organization.node.access) {
            self.access = lists.compile(organization, &organization.node.access);
        }
        for (key, node) in organization.nodes.iter().filter(|(_, node)| listed(&node.access)) {
            self.nodes.set(key, lists.compile(organization, &node.access));
        }
    }

    /// The organization's revision that was compiled.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The compiled firewall.
    pub fn firewall(&self) -> &Firewall {
        &self.firewall
    }

    /// Decides: may `address` open this type of connection to `target` at `now`?
    #[inline]
    pub fn decide(
        &self,
        cluster: &ClusterSnapshot,
        address: Address,
        connection_type: ConnectionType,
        target: &NodePath<'_>,
        now: Timestamp,
    ) -> Verdict<'_> {
        // When the firewall alone decides, its verdict is returned without a branch on it: such a branch would be
        // mispredicted as often as addresses differ, and that would double the cost of a decision.
        let has_list = |access: &CompiledAccess| matches!(access, CompiledAccess::AllowList(_));
        if target.project.is_none() && !has_list(&cluster.access) && !has_list(&self.access) {
            return self.firewall.verdict(address, connection_type, now);
        }
        self.decide_by_all(cluster, address, connection_type, target, now)
    }

    /// All steps, in the order of design.md §2.4.
    #[inline(never)]
    fn decide_by_all(
        &self,
        cluster: &ClusterSnapshot,
        address: Address,
        connection_type: ConnectionType,
        target: &NodePath<'_>,
        now: Timestamp,
    ) -> Verdict<'_> {
        self.evaluate(cluster, address, connection_type, target, now, |_| false)
    }

    /// Whether everything but the firewall lets an address connect to `target`. No moment alters that.
    pub fn permits_beside_firewall(&self, cluster: &ClusterSnapshot, address: Address, target: &NodePath<'_>) -> bool {
        let Some(effective) = self.nodes.effective(target, self.require_projects) else { return false };
        permits(&cluster.access, address)
            && permits(&self.access, address)
            && effective.is_none_or(|(_, access)| permits(access, address))
    }

    /// Takes the steps of a decision in their order; the first that refuses decides. Calls `step` with the result of
    /// each step. When a step refuses, `step` returns whether to take the remaining ones as well.
    #[inline]
    pub(super) fn evaluate<'a>(
        &'a self,
        cluster: &ClusterSnapshot,
        address: Address,
        connection_type: ConnectionType,
        target: &NodePath<'_>,
        now: Timestamp,
        mut step: impl FnMut(Step<'a>) -> bool,
    ) -> Verdict<'a> {
        let known = self.nodes.effective(target, self.require_projects);
        step(Step::Target { known: known.is_some() });
        let Some(effective) = known else { return unknown_organization() };
        let mut refusal = None;
        let outside = |reason, level, first_match| Verdict { reason, rule: None, first_match, level: Some(level) };

        let permitted = permits(&cluster.access, address);
        let goes_on = step(Step::Access { level: Level::Cluster, permitted });
        if !permitted {
            let verdict = outside(Reason::OutsideCluster, Level::Cluster, None);
            if !goes_on {
                return verdict;
            }
            refusal = Some(verdict);
        }
        let verdict = self.firewall.verdict(address, connection_type, now);
        let goes_on = step(Step::Firewall(verdict));
        if verdict.reason == Reason::DenyRule {
            if !goes_on {
                return verdict;
            }
            refusal = refusal.or(Some(verdict));
        }
        let first_match = verdict.first_match;
        let permitted = permits(&self.access, address);
        let goes_on = step(Step::Access { level: Level::Organization, permitted });
        if !permitted {
            let verdict = outside(Reason::OutsideOrganization, Level::Organization, first_match);
            if !goes_on {
                return verdict;
            }
            refusal = refusal.or(Some(verdict));
        }
        if let Some((level, access)) = effective {
            let permitted = permits(access, address);
            step(Step::Access { level, permitted });
            if !permitted {
                refusal = refusal.or(Some(outside(Reason::OutsideEndpoint, level, first_match)));
            }
        }
        refusal.unwrap_or(verdict)
    }
}

/// The result of one step of a decision.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// Whether the target is known. If it is not, this is the only step.
    Target { known: bool },
    /// Whether the access setting of a level permits the address.
    Access { level: Level, permitted: bool },
    /// What the firewall alone decides.
    Firewall(Verdict<'a>),
}

/// Whether a source is this group.
fn names(source: &Source, group: &Id) -> bool {
    matches!(source, Source::Group(id) if id == group)
}

/// Whether an access setting permits an address. `Inherit` permits here, because the parent's setting is a step of its
/// own.
#[inline]
fn permits(access: &CompiledAccess, address: Address) -> bool {
    match access {
        CompiledAccess::Inherit | CompiledAccess::AllowAll => true,
        CompiledAccess::AllowList(members) => members.contains(address),
    }
}
