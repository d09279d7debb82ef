//! Match counters: how often each rule decided, and when last.
//!
//! Invariant: counting is one atomic addition and never waits; a counter belongs to one creation of a rule, so a rule
//! that is deleted and made again starts from zero.
//! Not here: how counts are kept over a restart (`mirror`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::rule::{Rule, RuleMatches};
use crate::policy::time::Timestamp;

/// No match yet.
const NEVER: i64 = i64::MIN;

/// Never written to the state store. Such a counter is written even at zero, so that its start is kept.
const UNSAVED: u64 = u64::MAX;

/// The counter of one rule.
#[derive(Debug)]
pub struct RuleCounter {
    count: AtomicU64,
    last_match_millis: AtomicI64,
    start: Timestamp,
    /// The last record of the audit log that a stored count was said to include. What came later is counted at a start.
    through: u64,
    /// The count that was last written to the state store, or `UNSAVED`.
    saved: AtomicU64,
}

impl RuleCounter {
    /// A counter that goes on from a stored count.
    pub fn new(matches: RuleMatches, through: u64) -> Self {
        Self {
            through,
            count: AtomicU64::new(matches.count),
            last_match_millis: AtomicI64::new(matches.last.map_or(NEVER, Timestamp::millis)),
            start: matches.start,
            saved: AtomicU64::new(matches.count),
        }
    }

    /// A counter at zero, not saved yet.
    pub fn starting(start: Timestamp) -> Self {
        Self { saved: AtomicU64::new(UNSAVED), ..Self::new(RuleMatches { count: 0, start, last: None }, 0) }
    }

    /// Counts one decision.
    pub fn count(&self, now: Timestamp) {
        self.count.fetch_add(1, Ordering::Relaxed);
        // The last one, not the latest: the clock may have been corrected.
        self.last_match_millis.store(now.millis(), Ordering::Relaxed);
    }

    /// Counts one decision that the audit log holds, unless the stored count includes it.
    pub fn recount(&self, sequence: u64, time: Timestamp) {
        if sequence > self.through {
            self.count(time);
        }
    }

    /// Has the count saved again, whether it has changed or not.
    pub fn mark_unsaved(&self) {
        self.saved.store(UNSAVED, Ordering::Relaxed);
    }

    /// The count now; none if it has not changed since it was last taken. For the one thread that saves counters.
    pub fn take_unsaved(&self) -> Option<RuleMatches> {
        let matches = self.matches();
        (self.saved.swap(matches.count, Ordering::Relaxed) != matches.count).then_some(matches)
    }

    /// Whether the count has changed since it was last taken.
    pub fn is_unsaved(&self) -> bool {
        self.saved.load(Ordering::Relaxed) != self.count.load(Ordering::Relaxed)
    }

    /// The count now.
    pub fn matches(&self) -> RuleMatches {
        let last = self.last_match_millis.load(Ordering::Relaxed);
        RuleMatches {
            count: self.count.load(Ordering::Relaxed),
            start: self.start,
            last: (last != NEVER).then(|| Timestamp::from_millis(last)),
        }
    }
}

/// Names one creation of a rule.
pub type RuleKey = (Id, Timestamp);

/// The counters of an organization's rules, in the order of the rules.
#[derive(Debug, Default)]
pub struct RuleCounters {
    in_order: Vec<Arc<RuleCounter>>,
}

impl RuleCounters {
    /// The counters for the organization's rules: rules that stay keep theirs, new rules get new ones, which count from
    /// `now` on.
    pub fn following(organization: &Organization, old: &HashMap<RuleKey, Arc<RuleCounter>>, now: Timestamp) -> Self {
        let counter = |rule: &Arc<Rule>| {
            let key = (rule.id.clone(), rule.create_time);
            // Counters are stored to the millisecond. A finer start would move with the next restart.
            let start = Timestamp::from_millis(now.millis()).max(rule.create_time);
            old.get(&key).map_or_else(|| Arc::new(RuleCounter::starting(start)), Arc::clone)
        };
        Self { in_order: organization.rules.iter().map(counter).collect() }
    }

    /// The counters by rule, for the next version.
    pub fn by_key(&self, organization: &Organization) -> HashMap<RuleKey, Arc<RuleCounter>> {
        let keys = organization.rules.iter().map(|rule| (rule.id.clone(), rule.create_time));
        keys.zip(self.in_order.iter().cloned()).collect()
    }

    /// Has all of them saved again.
    pub fn mark_unsaved(&self) {
        self.in_order.iter().for_each(|counter| counter.mark_unsaved());
    }

    /// The counter of the rule at an index, 0 being the first.
    pub fn at(&self, index: usize) -> Option<&RuleCounter> {
        self.in_order.get(index).map(|counter| &**counter)
    }
}
