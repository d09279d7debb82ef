//! Etags: what guards an object against a change that its caller has not seen.
//!
//! Invariant: two states of an object never have the same etag. It holds the revision that last changed the object, and
//! a revision is never used twice, so an object that is deleted and created again has another etag.
//! Not here: how etags travel (`api`).

use super::error::PlanError;

/// The etag of a rule; `changed_at` is [`Rule::changed_at`](crate::rule::Rule::changed_at).
pub fn etag_of_rule(changed_at: u64) -> String {
    format!("rule-{changed_at}")
}

/// The etag of an organization's list of rules; the argument is
/// [`Organization::rules_changed_at`](crate::organization::Organization::rules_changed_at).
pub fn etag_of_rules(rules_changed_at: u64) -> String {
    format!("rules-{rules_changed_at}")
}

/// The etag of an address group; `changed_at` is [`Group::changed_at`](crate::group::Group::changed_at).
pub fn etag_of_group(changed_at: u64) -> String {
    format!("group-{changed_at}")
}

/// The etag of an organization's whole policy at a revision.
pub fn etag_of_policy(revision: u64) -> String {
    format!("policy-{revision}")
}

/// The etag of a node; `changed_at` is [`Node::changed_at`](crate::node::Node::changed_at).
pub fn etag_of_node(changed_at: u64) -> String {
    format!("node-{changed_at}")
}

/// Characters of a stale etag that a message repeats. The service's own etags are far shorter.
const ETAG_SHOWN_CHARACTERS_MAX: usize = 64;

/// Refuses an etag that is not the current one. None guards nothing.
pub(super) fn check_etag(name: &str, given: Option<&str>, current: &str) -> Result<(), PlanError> {
    match given {
        Some(given) if given != current => Err(PlanError::Stale {
            name: name.to_owned(),
            given: given.chars().take(ETAG_SHOWN_CHARACTERS_MAX).collect(),
        }),
        _ => Ok(()),
    }
}
