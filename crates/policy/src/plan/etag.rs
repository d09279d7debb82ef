//! Etags: what guards an object against a change that its caller has not seen.
//!
//! Invariant: two states of an object never have the same etag. It holds the revision that last changed the object, and
//! a revision is never used twice, so an object that is deleted and created again has another etag.
//! Not here: how etags travel (`api`).

use super::error::PlanError;

/// The etag of a rule.
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

/// Characters of a wrong etag that a message repeats: ours are far shorter.
const ETAG_SHOWN_CHARACTERS_MAX: usize = 64;

pub(super) fn check_etag(name: &str, given: Option<&str>, current: &str) -> Result<(), PlanError> {
    match given {
        Some(given) if given != current => Err(PlanError::Stale {
            name: name.to_owned(),
            given: given.chars().take(ETAG_SHOWN_CHARACTERS_MAX).collect(),
        }),
        _ => Ok(()),
    }
}
