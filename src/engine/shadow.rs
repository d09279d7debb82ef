//! Shadow policies: each decides every Check beside the policy, and is never enforced.
//!
//! Invariant: nothing that is answered, recorded or revoked depends on a shadow policy. A divergence is counted once, and
//! the newest are kept; nothing is kept of a person who was erased.
//! Not here: setting and promoting shadow policies, which are changes like any other (`policy::plan`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::question::Question;
use crate::audit::rule_text::RuleText;
use crate::locks::IgnorePoison;
use crate::policy::address::Address;
use crate::policy::decision::{Decision, Reason, Verdict};
use crate::policy::members::MembersCache;
use crate::policy::name::Id;
use crate::policy::organization::ShadowPolicy;
use crate::policy::rule::ConnectionType;
use crate::policy::snapshot::{ClusterSnapshot, Snapshot};
use crate::policy::time::Timestamp;

/// Divergences that are kept.
pub const KEPT_MAX: usize = 1_000;

/// Divergences that a subscriber may be behind: those that are kept.
const BEHIND_MAX: usize = KEPT_MAX;

/// A Check that the shadow policy decided otherwise.
#[derive(Clone)]
pub struct Divergence {
    /// Counts those of the shadow policy from 1 on.
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
    pub enforced: (Reason, Option<(Id, RuleText)>),
    /// What the shadow policy said: why, and by which rule.
    pub tried: (Reason, Option<(Id, RuleText)>),
}

/// A shadow policy and what it has counted.
#[derive(Debug)]
pub struct Shadow {
    /// The policy.
    pub policy: Arc<ShadowPolicy>,
    /// Since when it is counted.
    pub since: Timestamp,
    snapshot: Arc<Snapshot>,
    /// Goes on when rules of the policy are marked as expired.
    counted: Arc<Counted>,
}

/// What a shadow policy has counted, and who is told.
#[derive(Debug)]
struct Counted {
    checks: AtomicU64,
    denied: AtomicU64,
    permitted: AtomicU64,
    kept: Mutex<Kept>,
    /// Tells numbers, so that nothing of a person stays here.
    subscribers: broadcast::Sender<u64>,
}

/// The newest divergences.
#[derive(Debug, Default)]
struct Kept {
    /// By rising number. Those of erased users are missing.
    divergences: VecDeque<Divergence>,
    /// The number of the last one that there was.
    last: u64,
}

/// Follows the divergences of a shadow policy.
#[derive(Debug)]
pub struct Subscription {
    /// Without the sender, so that the end of the shadow policy is noticed.
    counted: Weak<Counted>,
    numbers: broadcast::Receiver<u64>,
}

impl Subscription {
    /// The next divergence that is still kept; none once the shadow policy is another one, or gone. Numbers tell which ones
    /// a subscriber has missed that is too slow.
    pub async fn next(&mut self) -> Option<Divergence> {
        loop {
            match self.numbers.recv().await {
                Ok(number) => {
                    if let Some(divergence) = self.counted.upgrade()?.kept(number) {
                        return Some(divergence);
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// How a shadow policy decided so far.
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

impl Counted {
    fn new() -> Self {
        Self {
            checks: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            permitted: AtomicU64::new(0),
            kept: Mutex::default(),
            subscribers: broadcast::Sender::new(BEHIND_MAX),
        }
    }

    /// One that is still kept.
    fn kept(&self, number: u64) -> Option<Divergence> {
        let kept = self.kept.lock().ignore_poison();
        let index = kept.divergences.binary_search_by_key(&number, |divergence| divergence.number).ok()?;
        kept.divergences.get(index).cloned()
    }
}

impl Shadow {
    /// The shadow policy of a version. It keeps its counts if the version before had the same one, be it with fewer rules
    /// marked as expired: such a mark is no other policy.
    pub(super) fn following(
        policy: Option<&Arc<ShadowPolicy>>,
        current: Option<&Arc<Self>>,
        now: Timestamp,
    ) -> Option<Arc<Self>> {
        let policy = policy?;
        if let Some(current) = current.filter(|current| Arc::ptr_eq(&current.policy, policy)) {
            return Some(Arc::clone(current));
        }
        // The revision of its organization is the one at which it was set. Marks leave it, and no other policy has it.
        let current = current.filter(|current| current.policy.organization.revision == policy.organization.revision);
        let compiled = current.filter(|current| Arc::ptr_eq(&current.policy.organization, &policy.organization));
        let snapshot = compiled.map_or_else(
            || Arc::new(Snapshot::compile(&policy.organization, &mut MembersCache::default())),
            |current| Arc::clone(&current.snapshot),
        );
        let counted = current.map_or_else(|| Arc::new(Counted::new()), |current| Arc::clone(&current.counted));
        let since = current.map_or(now, |current| current.since);
        Some(Arc::new(Self { policy: Arc::clone(policy), since, snapshot, counted }))
    }

    /// Decides a Check by the shadow policy, and keeps the divergence where the decision differs.
    pub(super) fn evaluate(
        &self,
        cluster: &ClusterSnapshot,
        question: &Question<'_>,
        enforced: &Verdict<'_>,
        now: Timestamp,
    ) {
        let Question { address, connection_type, target, .. } = question;
        let tried = self.snapshot.decide(cluster, *address, *connection_type, target, now);
        let counted = &self.counted;
        counted.checks.fetch_add(1, Ordering::Relaxed);
        if tried.decision() == enforced.decision() {
            return;
        }
        let count = if tried.decision() == Decision::Deny { &counted.denied } else { &counted.permitted };
        count.fetch_add(1, Ordering::Relaxed);
        let said = |verdict: &Verdict<'_>| {
            (verdict.reason, verdict.rule.map(|(_, rule)| (rule.id.clone(), RuleText::of(rule))))
        };
        let mut kept = counted.kept.lock().ignore_poison();
        kept.last += 1;
        let number = kept.last;
        if kept.divergences.len() >= KEPT_MAX {
            kept.divergences.pop_front();
        }
        kept.divergences.push_back(Divergence {
            number,
            time: now,
            address: *address,
            email: question.user_email.into(),
            connection_type: *connection_type,
            endpoint: question.target.text.into(),
            enforced: said(enforced),
            tried: said(&tried),
        });
        // Sent under the lock, so that subscribers get divergences in order. Without subscribers it is dropped.
        drop(counted.subscribers.send(number));
    }

    /// How it decided so far.
    pub fn counts(&self) -> ShadowCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counted { checks, denied, permitted, .. } = &*self.counted;
        ShadowCounts { checks: of(checks), denied: of(denied), permitted: of(permitted) }
    }

    /// What tells its divergences from those of another policy, or of another start, whose numbers begin anew.
    pub fn list_state(&self) -> String {
        format!("{}-{}", self.policy.organization.revision, self.since.micros())
    }

    /// The kept divergences, newest first, at most `count_max`; where `before` is given, those with lower numbers.
    pub fn divergences(&self, before: Option<u64>, count_max: usize) -> Vec<Divergence> {
        let kept = self.counted.kept.lock().ignore_poison();
        let below = |divergence: &&Divergence| before.is_none_or(|before| divergence.number < before);
        kept.divergences.iter().rev().filter(below).take(count_max).cloned().collect()
    }

    /// The divergences from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription { counted: Arc::downgrade(&self.counted), numbers: self.counted.subscribers.subscribe() }
    }

    /// Erases a user from the kept divergences, also from those that a subscriber has not received yet.
    pub(super) fn erase(&self, email: &str) {
        let mut kept = self.counted.kept.lock().ignore_poison();
        kept.divergences.retain(|divergence| *divergence.email != *email);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::name::NodePath;
    use crate::policy::node::{Access, Node};
    use crate::policy::organization::{Cluster, Organization};

    #[tokio::test]
    async fn a_subscriber_that_lags_gets_nothing_of_somebody_who_is_erased() {
        let (now, id) = (Timestamp::from_micros(0), Id::parse("default").unwrap());
        let with = |access| Organization::new(id.clone(), 1, Node::new(access, now, 1));
        let compiled = Snapshot::compile(&with(Access::AllowAll), &mut MembersCache::default());
        let policy = ShadowPolicy { revision: 2, time: now, organization: Arc::new(with(Access::nobody())) };
        let shadow = Shadow::following(Some(&Arc::new(policy)), None, now).unwrap();
        let cluster = ClusterSnapshot::compile(&Cluster::new(now));
        let check = |email: &str| {
            let question = Question {
                address: "192.0.2.1".parse().unwrap(),
                connection_type: ConnectionType::Shell,
                target: NodePath::parse("organizations/default").unwrap(),
                user_email: email,
                session_lease: None,
                request_id: "",
                min_revision: 0,
                min_cluster_revision: 0,
            };
            let Question { address, connection_type, target, .. } = &question;
            let enforced = compiled.decide(&cluster, *address, *connection_type, target, now);
            shadow.evaluate(&cluster, &question, &enforced, now);
        };
        let mut coming = shadow.subscribe();
        for email in ["ada", "bob", "ada", "bob", "ada"] {
            check(email);
        }
        shadow.erase("ada");
        check("bob");
        let mut received = Vec::new();
        for _ in 0..3 {
            let Divergence { number, email, .. } = coming.next().await.unwrap();
            received.push((number, email.to_string()));
        }
        assert_eq!(received, [(2, "bob".to_owned()), (4, "bob".to_owned()), (6, "bob".to_owned())]);
        // The numbers go on where none is kept.
        shadow.erase("bob");
        check("eve");
        assert_eq!(coming.next().await.unwrap().number, 7);
        // What is no longer kept is missed.
        for _ in 0..2 * KEPT_MAX {
            check("eve");
        }
        assert_eq!(coming.next().await.unwrap().number, 7 + KEPT_MAX as u64 + 1);
        drop(shadow);
        while coming.next().await.is_some() {}
    }
}
