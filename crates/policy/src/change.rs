//! A change of the policy, as data: what the journal holds.
//!
//! Invariant: applying a change is deterministic: the state that it was planned on gives always the same new state.
//! Not here: requests (`plan`) and the stored form (`store::codec`).

use std::sync::Arc;

use super::name::{Id, NodeKey};
use super::node::Node;
use super::policy_test::PolicyTest;
use super::ranges::RangeList;
use super::rule::Rule;
use super::time::Timestamp;

/// The number of broken policy tests that a change can name.
pub const OVERRIDDEN_TESTS_MAX: usize = 100;

/// One change of the policy: who made it, when, and what it does.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When it was made: the creation or update time of every object that it sets.
    pub time: Timestamp,
    /// Who made it; empty when the server does not identify callers.
    pub actor: Arc<str>,
    /// The caller's comment.
    pub comment: Arc<str>,
    /// When it is undone unless it is confirmed before; none means that it needs no confirmation.
    pub confirm_until: Option<Timestamp>,
    /// The policy tests that it breaks with the administrator's consent (`override_tests`), at most
    /// [`OVERRIDDEN_TESTS_MAX`].
    pub overridden_tests: Vec<Id>,
    /// What it does.
    pub effect: Effect,
}

/// What tells a change from others: no two agree in all of it, for the clock tells microseconds. Its audit record and a
/// snapshot of the policy after it have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeIdentity {
    /// When it was made.
    pub time: Timestamp,
    /// The organization that it is of; none where it is of the cluster.
    pub organization: Option<Id>,
    /// The revision that it made.
    pub revision: u64,
}

/// What a change does, and to which part of the policy.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Sets the cluster's node.
    Cluster {
        /// The cluster's revision after the change.
        revision: u64,
        /// The new node.
        node: Node,
    },
    /// Creates an organization.
    CreateOrganization {
        /// Its id.
        id: Id,
        /// Its first revision: 1, or one more than the last revision of a deleted organization of this id.
        revision: u64,
        /// Its node.
        node: Node,
    },
    /// Deletes an organization with everything in it.
    DeleteOrganization {
        /// Its id.
        id: Id,
        /// Its last revision. An organization that is created again continues from it.
        revision: u64,
    },
    /// Changes an organization.
    Organization {
        /// Its id.
        id: Id,
        /// Its revision after the change.
        revision: u64,
        /// The steps, in order.
        deltas: Vec<Delta>,
    },
}

/// One step of a change inside an organization. Objects are as they are after the step. An index of a rule is 0-based.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// Sets the organization's own node.
    SetOrganization {
        /// The new node.
        node: Node,
    },
    /// Creates or replaces a node.
    SetNode {
        /// The key of the node.
        key: NodeKey,
        /// The new node.
        node: Node,
    },
    /// Removes a node and all below it.
    RemoveNode {
        /// The key of the node.
        key: NodeKey,
    },
    /// Inserts a new rule.
    InsertRule {
        /// The index that the rule will have.
        index: usize,
        /// The rule.
        rule: Rule,
    },
    /// Replaces a rule; its index stays.
    SetRule {
        /// The new rule.
        rule: Rule,
    },
    /// Removes a rule.
    RemoveRule {
        /// The id of the object.
        id: Id,
    },
    /// Moves a rule.
    MoveRule {
        /// The id of the object.
        id: Id,
        /// The index that the rule will have.
        index: usize,
    },
    /// Reorders the rules.
    OrderRules {
        /// The former index of each rule, in the new order.
        order: Vec<u32>,
    },
    /// Marks rules as expired.
    ExpireRules {
        /// The indexes of the rules, ascending.
        indexes: Vec<u32>,
    },
    /// Replaces all rules.
    ReplaceRules {
        /// The new rules in order.
        rules: Vec<Rule>,
    },
    /// Creates an empty address group, or sets the description of an existing one.
    SetGroup {
        /// The id of the object.
        id: Id,
        /// The new description.
        description: Arc<str>,
    },
    /// Changes the ranges of an address group.
    SetGroupContent {
        /// The id of the object.
        id: Id,
        /// How they change.
        content: GroupContent,
    },
    /// Removes an address group.
    RemoveGroup {
        /// The id of the object.
        id: Id,
    },
    /// Replaces the policy tests.
    SetTests {
        /// The new tests by ascending id.
        tests: Vec<PolicyTest>,
    },
    /// Sets the shadow policy: the present policy after these steps.
    SetShadowPolicy {
        /// The steps.
        deltas: Vec<Delta>,
    },
    /// Removes the shadow policy.
    RemoveShadowPolicy,
    /// Confirms a change that would be undone otherwise.
    Confirm {
        /// The revision that the change made.
        revision: u64,
    },
}

/// How the ranges of an address group change.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupContent {
    /// They are replaced by these.
    Whole(RangeList),
    /// Some are removed, then others are added.
    Patch {
        /// The ranges that are added; the group did not have them.
        added: RangeList,
        /// The ranges that are removed.
        removed: RangeList,
    },
}

impl Change {
    /// A change without an actor, a comment or a confirmation: one that the service itself makes.
    pub fn new(time: Timestamp, effect: Effect) -> Self {
        Self {
            time,
            actor: Arc::default(),
            comment: Arc::default(),
            confirm_until: None,
            overridden_tests: Vec::new(),
            effect,
        }
    }

    /// What tells it from others.
    pub fn identity(&self) -> ChangeIdentity {
        let organization = self.effect.organization().cloned();
        ChangeIdentity { time: self.time, organization, revision: self.effect.revision() }
    }
}

impl Effect {
    /// The id of the organization that is changed; none when it is the cluster.
    pub fn organization(&self) -> Option<&Id> {
        match self {
            Self::Cluster { .. } => None,
            Self::CreateOrganization { id, .. }
            | Self::DeleteOrganization { id, .. }
            | Self::Organization { id, .. } => Some(id),
        }
    }

    /// Whether it only marks what has expired. Such a change is nobody's: it neither confirms nor replaces one that waits.
    pub fn is_expiry(&self) -> bool {
        let is_expiry = |delta: &Delta| matches!(delta, Delta::ExpireRules { .. });
        matches!(self, Self::Organization { deltas, .. } if deltas.iter().all(is_expiry))
    }

    /// The revision of the organization or the cluster after the change.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Cluster { revision, .. }
            | Self::CreateOrganization { revision, .. }
            | Self::DeleteOrganization { revision, .. }
            | Self::Organization { revision, .. } => *revision,
        }
    }
}
