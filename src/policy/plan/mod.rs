//! From a mutation that somebody asks for to the change that it makes, or the reason why it is refused.
//!
//! Invariant: planning alters nothing; what it returns can be applied to the state that it was given. The order of
//! judgement is: does the object exist, is the etag current, are the fields valid (all violations at once), do
//! references, preconditions and limits hold.
//! Not here: parsing of requests (`api`), durability (`store`).

mod groups;
mod nodes;
mod rules;

use thiserror::Error;

use super::change::{Delta, Effect};
use super::limits::Limits;
use super::name::{Id, NodeKey};
use super::node::NodePatch;
use super::organization::{Cluster, Organization};
use super::ranges::RangeList;
use super::rule::RulePatch;
use super::time::Timestamp;

use std::sync::Arc;

/// A field of a request that is malformed, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request, such as `rule.range` or `rules[3].address_group`.
    pub field: String,
    /// What is wrong and what to do; lowercase, no full stop.
    pub description: String,
}

impl Violation {
    /// A violation of one field.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Why a mutation is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The object, or the parent of the one to create, does not exist.
    #[error("`{0}` does not exist")]
    NotFound(String),
    /// The id is taken.
    #[error("`{0}` exists already: choose another id or update it")]
    AlreadyExists(String),
    /// The caller's etag is not the current one.
    #[error("`{name}` was changed since etag `{given}` was read: read it again and repeat the change")]
    Stale {
        /// What the etag guards.
        name: String,
        /// The caller's etag.
        given: String,
    },
    /// Fields are malformed.
    #[error("{} invalid: {}", plural(.0.len()), list(.0))]
    Invalid(Vec<Violation>),
    /// A node with children is not deleted without `force`.
    #[error("`{0}` has nodes below it: delete them first, or set `force` to delete them with it")]
    HasChildren(String),
    /// Deleting the node would let addresses in that are kept out now.
    #[error("deleting `{0}` would permit addresses that it keeps out now: set `force` if that is meant")]
    WouldWidenAccess(String),
    /// A group that is named somewhere is not deleted.
    #[error("`{group}` is in use by `{user}`: remove it there first")]
    GroupInUse {
        /// The group.
        group: String,
        /// One of its users.
        user: String,
    },
    /// A limit of the policy's size is reached.
    #[error("{what} are limited to {max}, and this change would make it {would_be}")]
    LimitReached {
        /// What is limited.
        what: &'static str,
        /// How many are permitted.
        max: usize,
        /// How many there would be.
        would_be: usize,
    },
}

fn plural(count: usize) -> String {
    if count == 1 { "1 field is".to_owned() } else { format!("{count} fields are") }
}

/// The first few violations in one line; the details carry all of them.
fn list(violations: &[Violation]) -> String {
    const SHOWN_MAX: usize = 3;
    let shown: Vec<String> =
        violations.iter().take(SHOWN_MAX).map(|v| format!("{}: {}", v.field, v.description)).collect();
    let more = if violations.len() > SHOWN_MAX { "; …" } else { "" };
    format!("{}{more}", shown.join("; "))
}

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
        }
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
            return Err(PlanError::AlreadyExists(format!("organizations/{id}")));
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
        let name = format!("organizations/{}", organization.id);
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
            let name = format!("organizations/{}/addressGroups/{id}", self.organization.id);
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

fn refuse(violations: Vec<Violation>) -> Result<(), PlanError> {
    if violations.is_empty() { Ok(()) } else { Err(PlanError::Invalid(violations)) }
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

/// The etag of a node.
pub fn etag_of_node(changed_at: u64) -> String {
    format!("node-{changed_at}")
}
