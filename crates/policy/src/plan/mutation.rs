//! What an administrator asks for, read from a request.
//!
//! Invariant: a mutation says what is wanted, whatever the policy is now.
//! Not here: reading requests (`api`), what a mutation changes (the other files of `plan`).

use std::sync::Arc;

use super::error::Violation;
use crate::document::Document;
use crate::name::{Id, NodeKey};
use crate::node::NodePatch;
use crate::policy_test::PolicyTest;
use crate::ranges::RangeList;
use crate::rule::RulePatch;

/// What is asked for inside an organization.
///
/// An `etag` is the caller's; the mutation is refused when it is not the current one, and none means that the caller
/// does not guard against other changes. A position is 1-based (design.md §2.2).
#[derive(Clone, Debug)]
pub enum Mutation {
    /// Creates a rule.
    CreateRule {
        /// The id of the rule.
        id: Id,
        /// The position that the rule will have; none means at the end.
        position: Option<i32>,
        /// Its fields.
        patch: RulePatch,
    },
    /// Updates fields of a rule.
    UpdateRule {
        /// The id of the rule.
        id: Id,
        /// The etag of the rule.
        etag: Option<String>,
        /// The new values.
        patch: RulePatch,
    },
    /// Deletes a rule.
    DeleteRule {
        /// The id of the rule.
        id: Id,
        /// The etag of the rule.
        etag: Option<String>,
    },
    /// Moves a rule to another position.
    MoveRule {
        /// The id of the rule.
        id: Id,
        /// Its new position; the number of rules plus one also means the end.
        position: i32,
        /// The etag of the rule or of the list of rules.
        etag: Option<String>,
    },
    /// Reorders all rules.
    ReorderRules {
        /// The id of every rule, in the new order.
        order: Vec<Id>,
        /// The etag of the list of rules.
        etag: Option<String>,
    },
    /// Replaces the list of rules.
    ReplaceRules {
        /// The new rules in order. A rule whose id exists keeps its creation time.
        rules: Vec<(Id, RulePatch)>,
        /// The etag of the list of rules.
        etag: Option<String>,
    },
    /// Creates an address group.
    CreateGroup {
        /// The id of the group.
        id: Id,
        /// Its description.
        description: Arc<str>,
        /// Its ranges.
        ranges: RangeList,
    },
    /// Updates the description of an address group.
    UpdateGroup {
        /// The id of the group.
        id: Id,
        /// The etag of the group.
        etag: Option<String>,
        /// The new description; none leaves it as it is.
        description: Option<Arc<str>>,
    },
    /// Deletes an address group.
    DeleteGroup {
        /// The id of the group.
        id: Id,
        /// The etag of the group.
        etag: Option<String>,
    },
    /// Adds ranges to an address group.
    AddRanges {
        /// The id of the group.
        id: Id,
        /// The ranges; those that the group has already are ignored.
        ranges: RangeList,
    },
    /// Removes ranges from an address group.
    RemoveRanges {
        /// The id of the group.
        id: Id,
        /// The ranges; those that the group does not have are ignored.
        ranges: RangeList,
    },
    /// Replaces the ranges of an address group.
    ReplaceRanges {
        /// The id of the group.
        id: Id,
        /// The etag of the group.
        etag: Option<String>,
        /// The new ranges.
        ranges: RangeList,
    },
    /// Adds ranges to an address group and removes others from it, or creates the group.
    PatchRanges {
        /// The id of the group.
        id: Id,
        /// The etag of the group.
        etag: Option<String>,
        /// The description of the group to create; none means that the group exists.
        create: Option<Arc<str>>,
        /// The ranges to add; those that the group has already are ignored.
        added: Arc<RangeList>,
        /// The ranges to remove; those that the group does not have are ignored. Shared, as the ranges to add are, with
        /// the answer, which tells what had no effect.
        removed: Arc<RangeList>,
    },
    /// Creates a node below the organization.
    CreateNode {
        /// The key of the node.
        key: NodeKey,
        /// Its fields.
        patch: NodePatch,
    },
    /// Updates fields of a node.
    UpdateNode {
        /// The key of the node; none means the organization itself.
        key: Option<NodeKey>,
        /// The etag of the node.
        etag: Option<String>,
        /// The new values.
        patch: NodePatch,
    },
    /// Deletes a node.
    DeleteNode {
        /// The key of the node.
        key: NodeKey,
        /// The etag of the node.
        etag: Option<String>,
        /// Whether to delete it even when it has nodes below it, or when that would permit more addresses.
        force: bool,
    },
    /// Creates a policy test.
    CreateTest {
        /// The test.
        test: PolicyTest,
    },
    /// Deletes a policy test.
    DeleteTest {
        /// The id of the test.
        id: Id,
    },
    /// Replaces the whole policy.
    ReplacePolicy {
        /// The new policy.
        document: Box<Document>,
        /// The etag of the policy.
        etag: Option<String>,
        /// Whether this rolls the policy back to an earlier one. Only a rollback may replace a change that waits for
        /// its confirmation.
        goes_back: bool,
    },
    /// Sets a shadow policy: the policy as these mutations would make it, one after the other.
    SetShadowPolicy {
        /// The mutations.
        steps: Vec<ShadowStep>,
    },
    /// Removes the shadow policy.
    RemoveShadowPolicy,
    /// Replaces the policy by the shadow policy.
    PromoteShadowPolicy,
    /// Confirms a change that would be undone otherwise.
    Confirm {
        /// The revision that the change made.
        revision: u64,
    },
}

/// One of the mutations that make a shadow policy.
#[derive(Clone, Debug)]
pub struct ShadowStep {
    /// Its path in the request, which violations begin with.
    pub path: String,
    /// The mutation.
    pub mutation: Mutation,
    /// The violations that were found while it was read from the request.
    pub violations: Vec<Violation>,
}
