//! Published versions of policies: the editable form and the compiled snapshot.
//!
//! Invariant: a version never changes, except for its counters and those of its shadow policy.
//! Not here: which version is current (`directory`).

use std::sync::Arc;

use super::counters::{RuleCounter, RuleCounters};
use super::shadow::Shadow;
use crate::policy::organization::{Cluster, Organization};
use crate::policy::rule::RuleMatches;
use crate::policy::snapshot::{ClusterSnapshot, Snapshot};

/// An organization's editable policy with its counters, as readers see it.
#[derive(Clone, Debug)]
pub struct OrganizationView {
    /// The policy.
    pub organization: Arc<Organization>,
    pub(super) counters: Arc<RuleCounters>,
}

/// One version of an organization.
#[derive(Debug)]
pub struct Published {
    /// What is read.
    pub view: OrganizationView,
    /// What decides.
    pub snapshot: Snapshot,
    /// What is evaluated beside it, and never enforced.
    pub shadow: Option<Arc<Shadow>>,
}

/// One version of the cluster.
#[derive(Debug)]
pub struct PublishedCluster {
    /// What is read.
    pub cluster: Arc<Cluster>,
    /// What decides.
    pub snapshot: ClusterSnapshot,
}

/// The versions that all Checks of a batch in one organization are decided by.
pub(super) struct Pinned {
    pub(super) cluster: Arc<PublishedCluster>,
    /// None where the organization does not exist.
    pub(super) organization: Option<Arc<Published>>,
}

impl OrganizationView {
    /// A version whose rules are not counted.
    pub fn uncounted(organization: Arc<Organization>) -> Self {
        Self { organization, counters: Arc::default() }
    }

    /// How often a rule decided, by its position in the firewall; 0 is the first.
    pub fn matches(&self, position: usize) -> Option<RuleMatches> {
        self.counters.at(position).map(RuleCounter::matches)
    }
}
