//! Replay of the audit log: what a change would have meant for past connections.
//!
//! Invariant: every recorded decision of the organization from a moment on is counted. Records of addresses for which
//! the change makes no difference are not read.
//! Not here: finding and reading records (`audit`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::audit::{AuditError, RecordedDecision};
use super::prospect::{Prospect, Prospected};
use crate::audit::filter::RecordFilter;
use crate::audit::record::RecordType;
use crate::policy::decision::Decision;
use crate::policy::forecast::{Budget, Comparison, Event, TooCostly};
use crate::policy::impact::Impact;
use crate::policy::time::Timestamp;
use crate::policy::version::Version;

/// How long a replay may take. Then it ends with what was found until then.
const REPLAY_MAX: Duration = Duration::from_secs(10);

/// Connections that a change would have decided otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flipped {
    /// Allowed without the change, and denied with it.
    pub denied: u64,
    /// Denied without the change, and allowed with it.
    pub permitted: u64,
}

/// The result of a replay.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// How many decisions were counted.
    pub decisions: u64,
    /// How many would differ.
    pub flipped: Flipped,
    /// Those that would differ by user; under the empty email those without a known user.
    pub users: HashMap<Arc<str>, Flipped>,
    /// Whether it ended before it had read all records, retention had removed some of them, or some took too long to decide
    /// again.
    pub truncated: bool,
}

impl Engine {
    /// Decides again what was decided since a moment, by the policy with and without a change of one organization, as of
    /// now and every later moment: the first at which the two differ counts. Reads files: call it on a thread that may
    /// block.
    pub fn replay(&self, prospect: &Prospect, since: Timestamp) -> Result<Replay, AuditError> {
        let mut replay = Replay::default();
        let [prospected] = prospect.organizations.as_slice() else { return Ok(replay) };
        let (before, after) = (prospected.before(prospect), prospected.after(prospect));
        let concerned = Impact::new(before, after, prospect.now).concerned();
        let filter = RecordFilter {
            organization: Some(prospected.id.clone()),
            types: vec![RecordType::Decision],
            start_time: Some(since),
            ..RecordFilter::default()
        };
        replay.decisions = self.audit.count(&filter)?;
        replay.truncated = !self.audit.reaches_back_to(since);
        if concerned.is_empty() {
            return Ok(replay);
        }
        let (comparison, budget) = (prospect.comparison(prospected), Budget::default());
        let mut is_known = true;
        let complete = self.audit.for_each_decision(&filter, &concerned, REPLAY_MAX, &mut |decided| {
            let is_allowed = match prospect.flip(decided, prospected, comparison.as_ref(), &budget) {
                Ok(None) => return,
                Ok(Some(is_allowed)) => is_allowed,
                Err(TooCostly) => return is_known = false,
            };
            let one = Flipped { denied: u64::from(!is_allowed), permitted: u64::from(is_allowed) };
            replay.flipped.add(one);
            match replay.users.get_mut(decided.email) {
                Some(user) => user.add(one),
                None => drop(replay.users.insert(decided.email.into(), one)),
            }
        })?;
        replay.truncated |= !complete || !is_known;
        Ok(replay)
    }
}

impl Prospect {
    /// Whether a connection is allowed with the change, at the first moment at which the change decides it otherwise; none
    /// where there is no such moment.
    fn flip(
        &self,
        decided: &RecordedDecision<'_>,
        prospected: &Prospected,
        comparison: Option<&Comparison<'_>>,
        budget: &Budget,
    ) -> Result<Option<bool>, TooCostly> {
        let RecordedDecision { address, connection_type, endpoint, .. } = *decided;
        let versions = [prospected.before(self), prospected.after(self)];
        let Some(comparison) = comparison else {
            let allows = |version: &Version<'_>| {
                version.decision(address, connection_type, endpoint, self.now) == Decision::Allow
            };
            let [was, is] = versions.map(|version| version.as_ref().is_some_and(allows));
            return Ok((was != is).then_some(is));
        };
        let permits = |version: &Version<'_>| version.permits_beside_firewall(address, endpoint);
        let first = |event| comparison.first(event, address, connection_type, budget);
        let denied = match versions.map(|version| version.as_ref().is_some_and(permits)) {
            [false, false] => return Ok(None),
            [true, false] => return Ok(first(Event::AllowedBefore)?.map(|_| false)),
            [false, true] => return Ok(first(Event::AllowedAfter)?.map(|_| true)),
            [true, true] => first(Event::Lost)?,
        };
        let permitted = first(Event::Gained)?;
        Ok(match (denied, permitted) {
            (None, None) => None,
            (Some(denied), Some(permitted)) => Some(permitted < denied),
            (denied, _) => Some(denied.is_none()),
        })
    }
}

impl Flipped {
    fn add(&mut self, other: Self) {
        self.denied += other.denied;
        self.permitted += other.permitted;
    }
}
