//! From a mutation that somebody asks for to the change that it makes, or the reason why it is refused.
//!
//! Invariant: planning alters nothing; what it returns can be applied to the state that it was given. The order of
//! judgement is: does the object exist, is the etag current, are the fields valid (all violations at once), do
//! references, preconditions and limits hold.
//! Not here: parsing of requests (`api`), durability (`store`).

mod candidate;
mod document;
mod error;
mod groups;
mod nodes;
mod rules;
mod tests;

pub use error::{PlanError, Violation};

use error::refuse;

use super::change::{Delta, Effect};
use super::document::Document;
use super::limits::Limits;
use super::name::{Id, Name, NodeKey};
use super::node::NodePatch;
use super::organization::{Cluster, Organization, Pending};
use super::policy_test::PolicyTest;
use super::ranges::RangeList;
use super::rule::RulePatch;
use super::time::Timestamp;

use std::sync::Arc;

/// What a mutation inside an organization asks for. `etag` fields hold what the caller gave; none means unguarded.
#[derive(Clone, Debug)]
pub enum Mutation {
    /// A new rule, at a 1-based position or at the end.
    CreateRule {
        /// Its id.
        id: Id,
        /// Where; none is the end.
        position: Option<i32>,
        /// Its fields.
        patch: RulePatch,
    },
    /// Other values for fields of a rule.
    UpdateRule {
        /// Which.
        id: Id,
        /// Guards the rule.
        etag: Option<String>,
        /// The values.
        patch: RulePatch,
    },
    /// A rule less.
    DeleteRule {
        /// Which.
        id: Id,
        /// Guards the rule.
        etag: Option<String>,
    },
    /// A rule elsewhere in the order.
    MoveRule {
        /// Which.
        id: Id,
        /// Its new 1-based position; one behind the last is the last.
        position: i32,
        /// Guards the rule or the list.
        etag: Option<String>,
    },
    /// A new order of all rules.
    ReorderRules {
        /// Every rule, in the new order.
        order: Vec<Id>,
        /// Guards the list.
        etag: Option<String>,
    },
    /// Another list of rules in place of the present one.
    ReplaceRules {
        /// The rules; one whose id exists keeps its time of creation.
        rules: Vec<(Id, RulePatch)>,
        /// Guards the list.
        etag: Option<String>,
    },
    /// A new address group.
    CreateGroup {
        /// Its id.
        id: Id,
        /// Its description.
        description: Arc<str>,
        /// Its ranges.
        ranges: RangeList,
    },
    /// Another description.
    UpdateGroup {
        /// Which.
        id: Id,
        /// Guards the group.
        etag: Option<String>,
        /// The description, where it is to change.
        description: Option<Arc<str>>,
    },
    /// A group less.
    DeleteGroup {
        /// Which.
        id: Id,
        /// Guards the group.
        etag: Option<String>,
    },
    /// Ranges more.
    AddRanges {
        /// Which group.
        id: Id,
        /// The ranges; those already there are no-ops.
        ranges: RangeList,
    },
    /// Ranges less.
    RemoveRanges {
        /// Which group.
        id: Id,
        /// The ranges; those not there are no-ops.
        ranges: RangeList,
    },
    /// Other ranges in place of the present ones.
    ReplaceRanges {
        /// Which group.
        id: Id,
        /// Guards the group.
        etag: Option<String>,
        /// The ranges.
        ranges: RangeList,
    },
    /// A new node below the organization.
    CreateNode {
        /// Where.
        key: NodeKey,
        /// Its fields.
        patch: NodePatch,
    },
    /// Other values for fields of a node; no key means the organization's own.
    UpdateNode {
        /// Which.
        key: Option<NodeKey>,
        /// Guards the node.
        etag: Option<String>,
        /// The values.
        patch: NodePatch,
    },
    /// A node less, and with `force` all below it.
    DeleteNode {
        /// Which.
        key: NodeKey,
        /// Guards the node.
        etag: Option<String>,
        /// Whether children, or access that widens, are accepted.
        force: bool,
    },
    /// A new policy test.
    CreateTest {
        /// The test.
        test: PolicyTest,
    },
    /// A policy test less.
    DeleteTest {
        /// Which.
        id: Id,
    },
    /// Another policy in place of the present one.
    ReplacePolicy {
        /// The policy.
        document: Box<Document>,
        /// Guards the policy.
        etag: Option<String>,
        /// Whether it goes back to what was: then it may end a change that waits for its confirmation.
        goes_back: bool,
    },
    /// A candidate for the policy: what it would be after these mutations, made one after the other.
    SetCandidate {
        /// The mutations.
        steps: Vec<CandidateStep>,
    },
    /// The candidate less.
    RemoveCandidate,
    /// The candidate in place of the policy.
    PromoteCandidate,
    /// Keeps a change that waits for its confirmation.
    Confirm {
        /// The revision that it led to.
        revision: u64,
    },
}

/// One of the mutations that lead to a candidate.
#[derive(Clone, Debug)]
pub struct CandidateStep {
    /// Its path in the request, for violations.
    pub path: String,
    /// The mutation.
    pub mutation: Mutation,
    /// What parsing it found wrong.
    pub violations: Vec<Violation>,
}

/// What planning needs besides the state.
#[derive(Clone, Copy, Debug)]
pub struct Planner<'a> {
    /// The time of the change.
    pub now: Timestamp,
    /// The limits that hold.
    pub limits: &'a Limits,
    /// The cluster's setting, which bounds whom a deletion can let in.
    pub cluster: &'a Cluster,
}

impl Planner<'_> {
    /// What the mutation does to the organization; nothing when it has no effect. `violations` are those that parsing
    /// the request found.
    pub fn plan(
        &self,
        organization: &Organization,
        mutation: Mutation,
        violations: Vec<Violation>,
    ) -> Result<Vec<Delta>, PlanError> {
        let ends_pending =
            matches!(mutation, Mutation::Confirm { .. } | Mutation::ReplacePolicy { goes_back: true, .. });
        if !ends_pending {
            check_pending(organization)?;
        }
        let task = Task { planner: *self, organization, revision: organization.revision + 1, violations };
        match mutation {
            Mutation::CreateRule { id, position, patch } => task.create_rule(id, position, &patch),
            Mutation::UpdateRule { id, etag, patch } => task.update_rule(&id, etag.as_deref(), &patch),
            Mutation::DeleteRule { id, etag } => task.delete_rule(id, etag.as_deref()),
            Mutation::MoveRule { id, position, etag } => task.move_rule(id, position, etag.as_deref()),
            Mutation::ReorderRules { order, etag } => task.reorder_rules(&order, etag.as_deref()),
            Mutation::ReplaceRules { rules, etag } => task.replace_rules(rules, etag.as_deref()),
            Mutation::CreateGroup { id, description, ranges } => task.create_group(id, description, ranges),
            Mutation::UpdateGroup { id, etag, description } => task.update_group(id, etag.as_deref(), description),
            Mutation::DeleteGroup { id, etag } => task.delete_group(id, etag.as_deref()),
            Mutation::AddRanges { id, ranges } => task.add_ranges(id, &ranges),
            Mutation::RemoveRanges { id, ranges } => task.remove_ranges(id, &ranges),
            Mutation::ReplaceRanges { id, etag, ranges } => task.replace_ranges(id, etag.as_deref(), ranges),
            Mutation::CreateNode { key, patch } => task.create_node(key, &patch),
            Mutation::UpdateNode { key: None, etag, patch } => task.update_organization(etag.as_deref(), &patch),
            Mutation::UpdateNode { key: Some(key), etag, patch } => task.update_node(key, etag.as_deref(), &patch),
            Mutation::DeleteNode { key, etag, force } => task.delete_node(key, etag.as_deref(), force),
            Mutation::CreateTest { test } => task.create_test(test),
            Mutation::DeleteTest { id } => task.delete_test(&id),
            Mutation::ReplacePolicy { document, etag, goes_back } => {
                let deltas = task.replace_policy(*document, etag.as_deref())?;
                // Going back to what is already there still ends the waiting.
                let pending = organization.pending.as_deref().filter(|_| goes_back && deltas.is_empty());
                Ok(pending.map_or(deltas, |pending| vec![Delta::Confirm { revision: pending.revision }]))
            }
            Mutation::SetCandidate { steps } => task.set_candidate(steps),
            Mutation::RemoveCandidate => task.remove_candidate(),
            Mutation::PromoteCandidate => task.promote_candidate(),
            Mutation::Confirm { revision } => task.confirm(revision),
        }
    }

    /// What mutations, made one after the other, do to the organization as one change, and what it then is. An error
    /// comes with the place of the mutation that it is about.
    pub fn plan_all(
        &self,
        organization: &Organization,
        mutations: Vec<(Mutation, Vec<Violation>)>,
    ) -> Result<(Vec<Delta>, Organization), (usize, PlanError)> {
        let (mut after, mut all) = (organization.clone(), Vec::new());
        for (place, (mutation, violations)) in mutations.into_iter().enumerate() {
            let deltas = self.plan(&after, mutation, violations).map_err(|error| (place, error))?;
            after.apply(organization.revision + 1, self.now, &deltas);
            // They are one change, so every one of them is planned for the same revision.
            after.revision = organization.revision;
            after.pending = None;
            all.extend(deltas);
        }
        if !all.is_empty() {
            after.revision = organization.revision + 1;
        }
        Ok((all, after))
    }

    /// The effect of a new organization. `last_revision` is that of a deleted one of the same id, or 0.
    pub fn create_organization(
        &self,
        id: Id,
        patch: &NodePatch,
        exists: bool,
        last_revision: u64,
        organizations: usize,
        violations: Vec<Violation>,
    ) -> Result<Effect, PlanError> {
        if exists {
            return Err(PlanError::AlreadyExists(Name::organization(&id).to_string()));
        }
        nodes::create_organization(self, id, patch, last_revision, organizations, violations)
    }

    /// The effect of deleting an organization.
    pub fn delete_organization(
        &self,
        organization: &Organization,
        etag: Option<&str>,
        force: bool,
        violations: Vec<Violation>,
    ) -> Result<Effect, PlanError> {
        let name = Name::organization(&organization.id).to_string();
        check_pending(organization)?;
        check_etag(&name, etag, &etag_of_node(organization.node.changed_at))?;
        refuse(violations)?;
        if organization.has_children(None) && !force {
            return Err(PlanError::HasChildren(name));
        }
        Ok(Effect::DeleteOrganization { id: organization.id.clone(), revision: organization.revision + 1 })
    }

    /// The effect of other values for the cluster's node; none when there is no effect.
    pub fn update_cluster(
        &self,
        etag: Option<&str>,
        patch: &NodePatch,
        violations: Vec<Violation>,
    ) -> Result<Option<Effect>, PlanError> {
        nodes::update_cluster(self, etag, patch, violations)
    }
}

/// One mutation while it is planned.
struct Task<'a> {
    planner: Planner<'a>,
    organization: &'a Organization,
    /// The organization's revision once the change is made.
    revision: u64,
    violations: Vec<Violation>,
}

impl Task<'_> {
    /// Notes a reference to a group that does not exist.
    fn check_group(&mut self, field: &str, source: Option<&super::rule::Source>) {
        if let Some(super::rule::Source::Group(id)) = source
            && self.organization.groups.get(id.as_str()).is_none()
        {
            let name = Name::group(&self.organization.id, id).to_string();
            self.violations.push(Violation::new(field, format!("`{name}` does not exist: create the group first")));
        }
    }

    fn violation(&mut self, field: &str, description: impl Into<String>) {
        self.violations.push(Violation::new(field, description));
    }

    /// Refuses the mutation when a field is malformed.
    fn refuse(&mut self) -> Result<(), PlanError> {
        refuse(std::mem::take(&mut self.violations))
    }
}

fn check_pending(organization: &Organization) -> Result<(), PlanError> {
    match organization.pending.as_deref() {
        None => Ok(()),
        Some(Pending { revision, .. }) => Err(PlanError::ConfirmationPending {
            organization: Name::organization(&organization.id).to_string(),
            revision: *revision,
        }),
    }
}

fn check_limit(what: &'static str, would_be: usize, max: usize) -> Result<(), PlanError> {
    if would_be <= max { Ok(()) } else { Err(PlanError::LimitReached { what, max, would_be }) }
}

/// Characters of a wrong etag that a message repeats: ours are far shorter.
const ETAG_SHOWN_CHARACTERS_MAX: usize = 64;

fn check_etag(name: &str, given: Option<&str>, current: &str) -> Result<(), PlanError> {
    match given {
        Some(given) if given != current => Err(PlanError::Stale {
            name: name.to_owned(),
            given: given.chars().take(ETAG_SHOWN_CHARACTERS_MAX).collect(),
        }),
        _ => Ok(()),
    }
}

/// The etag of a rule. An etag holds the revision that made the object what it is: revisions are never used twice, so
/// a deleted and recreated object has another etag.
pub fn etag_of_rule(changed_at: u64) -> String {
    format!("rule-{changed_at}")
}

/// The etag of an organization's list of rules.
pub fn etag_of_rules(rules_changed_at: u64) -> String {
    format!("rules-{rules_changed_at}")
}

/// The etag of an address group.
pub fn etag_of_group(changed_at: u64) -> String {
    format!("group-{changed_at}")
}

/// The etag of an organization's whole policy.
pub fn etag_of_policy(revision: u64) -> String {
    format!("policy-{revision}")
}

/// The etag of a node.
pub fn etag_of_node(changed_at: u64) -> String {
    format!("node-{changed_at}")
}
