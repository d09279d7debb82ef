//! Expiry as a fact: rules whose time has passed are marked in the policy, so that no clock revives them (design.md §2.2).
//!
//! Invariant: a rule is marked only after its time has passed, and stays marked. Until then decisions go by the decision
//! time. All rules of an organization that are due share one change.
//! Not here: what a mark means for decisions (`policy::rule`), revoking sessions (`keeper`), when to look (`writer`).

use std::sync::Arc;

use tokio::sync::oneshot;

use super::deadlines::Deadlines;
use super::planning::Planned;
use super::writer::{Pending, Writer};
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

impl Writer {
    /// Marks what has expired. What cannot be written now stays due.
    pub(super) fn expire(&mut self) {
        let now = self.applier.clock.now();
        let now = self.timekeeping.expired_to.map_or(now, |before| before.max(now));
        let due = self.applier.expiries.due(now);
        if due.is_empty() {
            self.timekeeping.expired_to = None;
            return;
        }
        if !self.writable || self.applier.audit.queue().check_writable().is_err() {
            return;
        }
        let (mut pending, mut answers) = (Vec::new(), Vec::new());
        for id in due {
            let Some(planned) = self.applier.state.organizations.get(&id).and_then(|of| plan(of, now)) else {
                self.applier.expiries.set(&id, None);
                continue;
            };
            let (reply, answer) = oneshot::channel();
            pending.push(Pending { planned: Ok(planned), reply });
            answers.push((id, answer));
        }
        self.write(pending);
        for (id, mut answer) in answers {
            log(&id, answer.try_recv().ok());
        }
        if self.applier.expiries.due(now).is_empty() {
            self.timekeeping.expired_to = None;
        }
    }
}

fn log(id: &Id, answer: Option<Result<super::change::Changed, super::change::ChangeError>>) {
    let organization = id.as_str();
    match answer {
        Some(Ok(changed)) => tracing::info!(organization, revision = changed.revision, "rules have expired"),
        Some(Err(error)) => {
            tracing::error!(organization, %error, "expired rules cannot be marked yet: they match nothing meanwhile");
        }
        None => {}
    }
}

/// The change that marks the rules of an organization which have expired; none where none has.
fn plan(before: &Arc<Organization>, now: Timestamp) -> Option<Planned> {
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
