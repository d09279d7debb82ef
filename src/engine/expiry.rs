//! Expiry as a fact: rules whose time has passed are marked in the policy, so that no clock revives them (design.md §2.2).
//!
//! Invariant: a rule is marked only after its time has passed, and stays marked. Until then decisions go by the decision
//! time. All rules of an organization that are due share one change.
//! Not here: what a mark means for decisions (`policy::rule`), revoking sessions (`keeper`), when to look (`timekeeping`).

use std::sync::Arc;

use super::deadlines::Deadlines;
use super::planning::Planned;
use crate::policy::change::{Change, Delta, Effect};
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::state::{Outcome, PolicyState};
use crate::policy::time::Timestamp;
use crate::store::codec::encode_change;

/// Who makes these changes.
const ACTOR: &str = "expiry";

/// When the next rules expire.
pub(super) fn deadlines(state: &PolicyState) -> Deadlines {
    let mut deadlines = Deadlines::default();
    for organization in state.organizations.values() {
        deadlines.set(&organization.id, next_expiry(organization));
    }
    deadlines
}

/// When the first rule of an organization that is not marked expires, or has expired.
pub(super) fn next_expiry(organization: &Organization) -> Option<Timestamp> {
    let rules = organization.rules.iter().filter(|rule| !rule.expired);
    rules.filter_map(|rule| rule.expire_time).min()
}

/// The change that marks the rules of an organization which have expired; none where none has.
pub(super) fn plan(before: &Arc<Organization>, now: Timestamp) -> Option<Planned> {
    let is_due = |rule: &crate::policy::rule::Rule| !rule.expired && rule.has_expired(now);
    let rules: Vec<(u32, &Id)> = (0..)
        .zip(before.rules.iter())
        .filter(|(_, rule)| is_due(rule))
        .map(|(index, rule)| (index, &rule.id))
        .collect();
    let comment = match rules.as_slice() {
        [] => return None,
        [(_, id)] => format!("rule {id} expired"),
        [(_, first), ..] => format!("{} rules expired, the first is {first}", rules.len()),
    };
    let indexes = rules.into_iter().map(|(index, _)| index).collect();
    let deltas = vec![Delta::ExpireRules { indexes }];
    let effect = Effect::Organization { id: before.id.clone(), revision: before.revision + 1, deltas };
    let change = Change { actor: ACTOR.into(), comment: comment.into(), ..Change::new(now, effect) };
    let outcome = PolicyState::outcome(&change, Some(before));
    let before = Outcome::Organization(Arc::clone(before));
    Some(Planned::Change { record: encode_change(&change), change: Box::new(change), before, outcome })
}
