//! A change: what one mutation does to the policy, as data. This is what the journal holds.
//!
//! Invariant: applying a change to the state that it was planned on gives one certain new state; nothing in it depends
//! on a clock or on chance.
//! Not here: requests (`plan`) and the stored form (`store::codec`).

use std::sync::Arc;

use super::name::{Id, NodeKey};
use super::node::Node;
use super::policy_test::PolicyTest;
use super::ranges::RangeList;
use super::rule::Rule;
use super::time::Timestamp;

/// Broken policy tests that a change names.
pub const OVERRIDDEN_TESTS_MAX: usize = 100;

/// One change of the policy, complete: who, when, where, what.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When it was made; also the time of creation and update of what it sets.
    pub time: Timestamp,
    /// Who made it, empty where callers are not told apart.
    pub actor: Arc<str>,
    /// The caller's comment.
    pub comment: Arc<str>,
    /// When it is undone unless it is confirmed before; none: it stays.
    pub confirm_until: Option<Timestamp>,
    /// The policy tests that it breaks on purpose, at most [`OVERRIDDEN_TESTS_MAX`].
    pub overridden_tests: Vec<Id>,
    /// What it does.
    pub effect: Effect,
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
        /// Its first revision: 1, or what follows the count of a deleted organization of this id.
        revision: u64,
        /// Its node.
        node: Node,
    },
    /// Deletes an organization and all that is in it.
    DeleteOrganization {
        /// Its id.
        id: Id,
        /// Its last revision, which a recreated organization goes on from.
        revision: u64,
    },
    /// Changes what is in an organization.
    Organization {
        /// Its id.
        id: Id,
        /// Its revision after the change.
        revision: u64,
        /// What is done, in order.
        deltas: Vec<Delta>,
    },
}

/// One step of a change inside an organization. Objects are given as they are afterwards.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// Sets the organization's own node.
    SetOrganization {
        /// The new node.
        node: Node,
    },
    /// Creates or replaces a node.
    SetNode {
        /// Where.
        key: NodeKey,
        /// The new node.
        node: Node,
    },
    /// Removes a node and all below it.
    RemoveNode {
        /// Where.
        key: NodeKey,
    },
    /// Puts a new rule at a place, 0 being the first.
    InsertRule {
        /// The place it will have.
        at: usize,
        /// The rule.
        rule: Rule,
    },
    /// Replaces a rule where it stands.
    SetRule {
        /// The rule as it is afterwards.
        rule: Rule,
    },
    /// Removes a rule.
    RemoveRule {
        /// Which.
        id: Id,
    },
    /// Moves a rule to a place, 0 being the first, counted without the rule itself.
    MoveRule {
        /// Which.
        id: Id,
        /// The place it will have.
        at: usize,
    },
    /// Reorders the rules.
    OrderRules {
        /// The old places, 0 being the first, in the new order.
        order: Vec<u32>,
    },
    /// Replaces all rules.
    ReplaceRules {
        /// The new rules in order.
        rules: Vec<Rule>,
    },
    /// Creates an empty group, or sets the description of one.
    SetGroup {
        /// Which.
        id: Id,
        /// The new description.
        description: Arc<str>,
    },
    /// Changes the ranges of a group.
    SetGroupContent {
        /// Which.
        id: Id,
        /// How.
        content: GroupContent,
    },
    /// Removes a group.
    RemoveGroup {
        /// Which.
        id: Id,
    },
    /// Replaces the policy tests.
    SetTests {
        /// The new tests by ascending id.
        tests: Vec<PolicyTest>,
    },
    /// Sets a candidate: the policy as it is, with these steps.
    SetCandidate {
        /// The steps.
        deltas: Vec<Delta>,
    },
    /// Removes the candidate.
    RemoveCandidate,
    /// Confirms a change that would be undone otherwise.
    Confirm {
        /// The revision that it led to.
        revision: u64,
    },
}

/// How the ranges of a group change.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupContent {
    /// These are the ranges afterwards.
    Whole(RangeList),
    /// Some go, then some come.
    Patch {
        /// Ranges that are there afterwards and were not before.
        added: RangeList,
        /// Ranges that are gone afterwards.
        removed: RangeList,
    },
}

impl Change {
    /// A change that the service itself makes, without a comment and for good.
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
}

impl Effect {
    /// The organization that is changed; none for the cluster.
    pub fn organization(&self) -> Option<&Id> {
        match self {
            Self::Cluster { .. } => None,
            Self::CreateOrganization { id, .. }
            | Self::DeleteOrganization { id, .. }
            | Self::Organization { id, .. } => Some(id),
        }
    }

    /// The revision, of the organization or of the cluster, that the change makes.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Cluster { revision, .. }
            | Self::CreateOrganization { revision, .. }
            | Self::DeleteOrganization { revision, .. }
            | Self::Organization { revision, .. } => *revision,
        }
    }
}
