//! Replay of the audit log: what a change would have meant for past connections.
//!
//! Invariant: every recorded decision of the organization from a moment on is counted. Records of addresses for which
//! the change makes no difference are not read.
//! Not here: finding and reading records (`audit`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::audit::AuditError;
use super::prospect::Prospect;
use crate::audit::filter::RecordFilter;
use crate::audit::record::RecordType;
use crate::policy::impact::Impact;
use crate::policy::time::Timestamp;
use crate::policy::timeline::Timeline;
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
    /// Whether it ended before it had read all records.
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
        if concerned.is_empty() {
            return Ok(replay);
        }
        let complete = self.audit.for_each_decision(&filter, &concerned, REPLAY_MAX, &mut |decided| {
            let allowed = |version: Option<&Version<'_>>| {
                version.map_or(Timeline::constant(false), |version| {
                    version.allowed(decided.address, decided.connection_type, decided.endpoint, prospect.now)
                })
            };
            let (was, is) = (allowed(before.as_ref()), allowed(after.as_ref()));
            if let Some(moment) = was.combined(&is, |was, is| was != is).first() {
                let is_allowed = is.holds_at(moment);
                let one = Flipped { denied: u64::from(!is_allowed), permitted: u64::from(is_allowed) };
                replay.flipped.add(one);
                match replay.users.get_mut(decided.email) {
                    Some(user) => user.add(one),
                    None => drop(replay.users.insert(decided.email.into(), one)),
                }
            }
        })?;
        replay.truncated = !complete;
        Ok(replay)
    }
}

impl Flipped {
    fn add(&mut self, other: Self) {
        self.denied += other.denied;
        self.permitted += other.permitted;
    }
}
