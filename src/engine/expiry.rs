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
pub(super) const ACTOR: &str = "expiry";

/// When the next rules expire.
pub(super) fn deadlines(state: &PolicyState) -> Deadlines {
    let mut deadlines = Deadlines::default();
    for organization in state.organizations.values() {
        deadlines.set(&organization.id, next_expiry(organization));
    }
    deadlines
}

/// When the first rule of an organization that is not marked expires, or has expired; in a version that may come back too.
pub(super) fn next_expiry(organization: &Organization) -> Option<Timestamp> {
    let versions = std::iter::once(organization).chain(organization.kept_versions());
    let rules = versions.flat_map(|version| version.rules.iter()).filter(|rule| !rule.expired);
    rules.filter_map(|rule| rule.expire_time).min()
}

/// Whether two versions surely have the same next expiry.
pub(super) fn has_same_rules(one: &Organization, other: &Organization) -> bool {
    fn is_same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
        one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
    }
    Arc::ptr_eq(&one.rules, &other.rules)
        && is_same(one.shadow.as_ref(), other.shadow.as_ref())
        && is_same(one.pending.as_ref(), other.pending.as_ref())
}

/// The change that marks the rules of an organization which have expired by `passed`; none where none has. It is made `now`.
pub(super) fn plan(before: &Arc<Organization>, passed: Timestamp, now: Timestamp) -> Option<Planned> {
    let rules: Vec<(u32, &Id)> = before.due_rules(passed).collect();
    let comment = match rules.as_slice() {
        [] => {
            let (_, id) = before.kept_versions().flat_map(|version| version.due_rules(passed)).next()?;
            format!("rule {id} expired, which the policy does not have")
        }
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
