//! Shadow policies: a candidate that decides every Check beside the policy, and is never enforced.
//!
//! Invariant: nothing that is answered, recorded or revoked depends on a candidate. A divergence is counted once, and the
//! newest are remembered; nothing of a person who was erased is.
//! Not here: setting and promoting candidates, which are changes like any other (`policy::plan`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use super::check::Question;
use crate::policy::address::Address;
use crate::policy::decision::{Decision, Reason, Verdict};
use crate::policy::members::MembersCache;
use crate::policy::name::Id;
use crate::policy::organization::ShadowPolicy;
use crate::policy::rule::ConnectionType;
use crate::policy::snapshot::{ClusterSnapshot, Snapshot};
use crate::policy::time::Timestamp;

/// Divergences that are remembered.
pub const REMEMBERED_MAX: usize = 1_000;

/// Divergences that a subscriber may be behind.
const BEHIND_MAX: usize = 1_000;

/// A Check that the candidate decided otherwise.
#[derive(Clone)]
pub struct Divergence {
    /// Counts those of the candidate from 1 on.
    pub number: u64,
    /// When it was decided.
    pub time: Timestamp,
    /// Where the connection came from.
    pub address: Address,
    /// The user; empty where none was named, or it was erased.
    pub email: Arc<str>,
    /// The connection type.
    pub connection_type: ConnectionType,
    /// The node.
    pub endpoint: Arc<str>,
    /// What the policy said: why, and by which rule.
    pub enforced: (Reason, Option<Id>),
    /// What the candidate said: why, and by which rule.
    pub tried: (Reason, Option<Id>),
}

/// A candidate at work.
#[derive(Debug)]
pub struct Shadow {
    /// What it is.
    pub candidate: Arc<ShadowPolicy>,
    /// Since when it is counted.
    pub since: Timestamp,
    snapshot: Snapshot,
    checks: AtomicU64,
    denied: AtomicU64,
    permitted: AtomicU64,
    remembered: Mutex<VecDeque<Divergence>>,
    subscribers: broadcast::Sender<Divergence>,
}

/// How a candidate decided so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowCounts {
    /// Checks that it decided.
    pub checks: u64,
    /// Those that it denied and the policy allowed.
    pub denied: u64,
    /// Those that it allowed and the policy denied.
    pub permitted: u64,
}

impl std::fmt::Debug for Divergence {
    /// Without personal data, which must not get into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Divergence({})", self.number)
    }
}

impl Shadow {
    /// The candidate of a version: the one at work goes on where it is the same.
    pub(super) fn following(
        candidate: Option<&Arc<ShadowPolicy>>,
        current: Option<&Arc<Self>>,
        now: Timestamp,
    ) -> Option<Arc<Self>> {
        let candidate = candidate?;
        if let Some(current) = current.filter(|current| Arc::ptr_eq(&current.candidate, candidate)) {
            return Some(Arc::clone(current));
        }
        Some(Arc::new(Self {
            candidate: Arc::clone(candidate),
            since: now,
            snapshot: Snapshot::compile(&candidate.organization, &mut MembersCache::default()),
            checks: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            permitted: AtomicU64::new(0),
            remembered: Mutex::default(),
            subscribers: broadcast::Sender::new(BEHIND_MAX),
        }))
    }

    /// Decides a Check too, and notes it where it comes out otherwise.
    pub(super) fn try_on(
        &self,
        cluster: &ClusterSnapshot,
        question: &Question<'_>,
        enforced: &Verdict<'_>,
        now: Timestamp,
    ) {
        let Question { address, connection_type, target, .. } = question;
        let tried = self.snapshot.decide(cluster, *address, *connection_type, target, now);
        self.checks.fetch_add(1, Ordering::Relaxed);
        if tried.decision() == enforced.decision() {
            return;
        }
        let count = if tried.decision() == Decision::Deny { &self.denied } else { &self.permitted };
        count.fetch_add(1, Ordering::Relaxed);
        let said = |verdict: &Verdict<'_>| (verdict.reason, verdict.rule.map(|(_, rule)| rule.id.clone()));
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let divergence = Divergence {
            number: remembered.back().map_or(1, |last| last.number + 1),
            time: now,
            address: *address,
            email: question.user_email.into(),
            connection_type: *connection_type,
            endpoint: question.target.text.into(),
            enforced: said(enforced),
            tried: said(&tried),
        };
        if remembered.len() >= REMEMBERED_MAX {
            remembered.pop_front();
        }
        remembered.push_back(divergence.clone());
        // Under the lock, so that subscribers get them in order; without any it is dropped.
        drop(self.subscribers.send(divergence));
    }

    /// How it decided so far.
    pub fn counts(&self) -> ShadowCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ShadowCounts { checks: of(&self.checks), denied: of(&self.denied), permitted: of(&self.permitted) }
    }

    /// The divergences that are remembered below a number (all where there is none), newest first, at most `count_max`.
    pub fn divergences(&self, before: Option<u64>, count_max: usize) -> Vec<Divergence> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let below = |divergence: &&Divergence| before.is_none_or(|before| divergence.number < before);
        remembered.iter().rev().filter(below).take(count_max).cloned().collect()
    }

    /// Those that come.
    pub fn subscribe(&self) -> broadcast::Receiver<Divergence> {
        self.subscribers.subscribe()
    }

    /// Forgets who a user was.
    pub(super) fn erase(&self, email: &str) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|divergence| *divergence.email != *email);
    }
}
