//! A Check: from a parsed question to the answer, synchronously.
//!
//! Invariant: one version of the organization and one of the cluster decide the whole answer; no lock is taken.
//! Not here: parsing and wording (`api::decision`).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use super::Engine;
use crate::policy::address::Address;
use crate::policy::decision::{Level, Reason};
use crate::policy::name::{Id, NodePath};
use crate::policy::rule::ConnectionType;
use crate::policy::snapshot::unknown_organization;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Where the connection comes from.
    pub address: Address,
    /// How the person connects.
    pub connection_type: ConnectionType,
    /// What the person connects to.
    pub target: NodePath<'a>,
    /// The oldest revision of the organization that may answer; 0 accepts any.
    pub min_revision: u64,
    /// The oldest revision of the cluster that may answer; 0 accepts any.
    pub min_cluster_revision: u64,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// At which step the decision fell, and how.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<Id>,
    /// The node that refused, as a level of the target's name.
    pub level: Option<Level>,
    /// The organization's revision that decided; 0 when it does not exist.
    pub revision: u64,
    /// The cluster's revision that decided.
    pub cluster_revision: u64,
    /// Names this decision.
    pub decision_id: DecisionId,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckError {
    /// The organization's policy is older than the caller accepts.
    #[error("`{organization}` is at revision {current}, and the check asks for {wanted} at least: try again")]
    RevisionNotReached {
        /// The organization's name.
        organization: String,
        /// Its revision here; 0 when it does not exist.
        current: u64,
        /// The revision asked for.
        wanted: u64,
    },
    /// The cluster's policy is older than the caller accepts.
    #[error("the cluster is at revision {current}, and the check asks for {wanted} at least: try again")]
    ClusterRevisionNotReached {
        /// Its revision here.
        current: u64,
        /// The revision asked for.
        wanted: u64,
    },
}

/// Names one decision: the process's random id and a counter. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionId {
    boot: u64,
    number: u64,
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.boot, self.number)
    }
}

/// Makes decision ids.
#[derive(Debug)]
pub(super) struct DecisionIds {
    boot: u64,
    next: AtomicU64,
}

impl DecisionIds {
    /// `boot` must be drawn at random for each start.
    pub(super) fn new(boot: u64) -> Self {
        Self { boot, next: AtomicU64::new(1) }
    }

    fn next(&self) -> DecisionId {
        DecisionId { boot: self.boot, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Engine {
    /// Decides.
    pub fn check(&self, question: &Question<'_>) -> Result<Answer, CheckError> {
        let now = self.clock.now();
        let cluster = self.directory.cluster_guard();
        let cluster_revision = cluster.snapshot.revision();
        if cluster_revision < question.min_cluster_revision {
            let wanted = question.min_cluster_revision;
            return Err(CheckError::ClusterRevisionNotReached { current: cluster_revision, wanted });
        }
        self.directory.with(question.target.organization, |published| {
            let revision = published.map_or(0, |published| published.snapshot.revision());
            let known = match published {
                Some(_) => revision,
                // One that was deleted had that revision: it is not the server that is behind.
                None => self.directory.last_revision_of_deleted(question.target.organization),
            };
            if known < question.min_revision {
                return Err(CheckError::RevisionNotReached {
                    organization: question.target.ancestor(0).to_owned(),
                    current: revision,
                    wanted: question.min_revision,
                });
            }
            let verdict = match published {
                None => unknown_organization(),
                Some(published) => {
                    let (address, connection_type) = (question.address, question.connection_type);
                    let snapshot = &published.snapshot;
                    snapshot.decide(&cluster.snapshot, address, connection_type, &question.target, now)
                }
            };
            if let Some(place) = verdict.first_match
                && let Some(counter) = published.and_then(|published| published.view.counters.at(place))
            {
                counter.count(now);
            }
            Ok(Answer {
                reason: verdict.reason,
                rule: verdict.rule.map(|(_, rule)| rule.id.clone()),
                level: verdict.level,
                revision,
                cluster_revision,
                decision_id: self.decision_ids.next(),
            })
        })
    }
}
