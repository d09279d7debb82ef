//! What an administrator asks for, read from a request.
//!
//! Invariant: a mutation says what is wanted, never how the policy looks now.
//! Not here: reading requests (`api`), what a mutation changes (the other files of `plan`).

use std::sync::Arc;

use super::error::Violation;
use crate::document::Document;
use crate::name::{Id, NodeKey};
use crate::node::NodePatch;
use crate::policy_test::PolicyTest;
use crate::ranges::RangeList;
use crate::rule::RulePatch;

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
