//! The policy with and without a change that is not made (yet): what gates judge and previews show.
//!
//! Invariant: nothing here is published, and nothing compiled for it is kept.
//! Not here: how a change is planned (`policy::plan`), what differs (`policy::impact`).

use std::sync::Arc;

use super::directory::{Directory, Published, PublishedCluster};
use super::sessions::{Scope, SessionTable};
use crate::policy::broken_tests::broken_tests;
use crate::policy::change::{Delta, Effect};
use crate::policy::gates::Gates;
use crate::policy::judging::Refusal;
use crate::policy::members::MembersCache;
use crate::policy::name::Id;
use crate::policy::organization::{Cluster, Organization};
use crate::policy::snapshot::{ClusterSnapshot, Snapshot};
use crate::policy::time::Timestamp;
use crate::policy::version::Version;

/// An organization and its compiled snapshot.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What it is.
    pub organization: Arc<Organization>,
    /// What decides.
    pub snapshot: Snapshot,
}

/// One organization before and after the change. None stands for one that does not exist.
#[derive(Clone, Debug)]
pub struct Prospected {
    /// Its id.
    pub id: Id,
    /// As it is.
    pub before: Option<Compiled>,
    /// As it would be.
    pub after: Option<Compiled>,
}

/// The policy with and without a change, as far as the change affects it.
#[derive(Debug)]
pub struct Prospect {
    /// The moment that it is judged for.
    pub now: Timestamp,
    /// The cluster as it is.
    pub cluster_before: Arc<PublishedCluster>,
    /// The cluster as it would be.
    pub cluster_after: Arc<PublishedCluster>,
    /// The organizations that are affected.
    pub organizations: Vec<Prospected>,
    /// Which sessions may be affected.
    pub scope: Scope,
}

/// The gates of a change.
#[derive(Clone, Debug, Default)]
pub struct GateOptions {
    /// The conditions.
    pub gates: Gates,
    /// Whether policy tests may break.
    pub override_tests: bool,
}

impl GateOptions {
    /// Whether the caller gave any.
    pub fn is_given(&self) -> bool {
        self.override_tests || !self.gates.is_empty()
    }
}

impl Compiled {
    /// A version of an organization. Compiled anew unless it is the one that is published.
    pub(super) fn of(organization: Arc<Organization>, published: Option<&Published>) -> Self {
        let snapshot = match published {
            Some(published) if Arc::ptr_eq(&published.view.organization, &organization) => published.snapshot.clone(),
            _ => Snapshot::compile(&organization, &mut MembersCache::default()),
        };
        Self { organization, snapshot }
    }

    /// The version after deltas.
    pub(super) fn after(&self, organization: Arc<Organization>, deltas: &[Delta]) -> Self {
        // Not with the shared cache, because most judged changes are never made.
        let snapshot = self.snapshot.advance(&organization, deltas, &mut MembersCache::default());
        Self { organization, snapshot }
    }
}

impl Prospected {
    /// The version of the policy before the change.
    pub fn before<'a>(&'a self, prospect: &'a Prospect) -> Option<Version<'a>> {
        self.before.as_ref().map(|compiled| version(compiled, &prospect.cluster_before))
    }

    /// The version of the policy after the change.
    pub fn after<'a>(&'a self, prospect: &'a Prospect) -> Option<Version<'a>> {
        self.after.as_ref().map(|compiled| version(compiled, &prospect.cluster_after))
    }
}

fn version<'a>(compiled: &'a Compiled, cluster: &'a PublishedCluster) -> Version<'a> {
    Version {
        organization: &compiled.organization,
        snapshot: &compiled.snapshot,
        cluster: &cluster.cluster,
        cluster_snapshot: &cluster.snapshot,
    }
}

impl Prospect {
    /// A change inside an organization.
    pub(super) fn of_organization(
        now: Timestamp,
        cluster: Arc<PublishedCluster>,
        id: Id,
        before: Option<Compiled>,
        after: Option<Compiled>,
    ) -> Self {
        Self {
            now,
            cluster_before: Arc::clone(&cluster),
            cluster_after: cluster,
            scope: Scope::Organization(id.clone()),
            organizations: vec![Prospected { id, before, after }],
        }
    }

    /// A change of the cluster, which affects every organization.
    pub(super) fn of_cluster(
        now: Timestamp,
        before: Arc<PublishedCluster>,
        after: Arc<Cluster>,
        directory: &Directory,
    ) -> Self {
        let snapshot = ClusterSnapshot::compile(&after);
        let organizations = directory.organizations_after(None, usize::MAX);
        let same = |published: &Arc<Published>| {
            let organization = Arc::clone(&published.view.organization);
            let compiled = Some(Compiled { organization, snapshot: published.snapshot.clone() });
            let id = published.view.organization.id.clone();
            Prospected { id, before: compiled.clone(), after: compiled }
        };
        Self {
            now,
            cluster_before: before,
            cluster_after: Arc::new(PublishedCluster { cluster: after, snapshot }),
            organizations: organizations.iter().map(same).collect(),
            scope: Scope::All,
        }
    }

    /// What the gates refuse; and the policy tests that break, where the caller overrides them.
    pub fn refusals(&self, options: &GateOptions, sessions: &SessionTable) -> (Vec<Refusal>, Vec<Id>) {
        let (mut refusals, mut overridden) = (Vec::new(), Vec::new());
        for prospected in &self.organizations {
            let (before, after) = (prospected.before(self), prospected.after(self));
            refusals.extend(options.gates.refusals(before.as_ref(), after.as_ref(), self.now));
            let broken = broken_tests(before.as_ref(), after.as_ref(), self.now);
            let Some(from) = broken.iter().map(|test| test.from).min() else { continue };
            if options.override_tests {
                overridden.extend(broken.into_iter().map(|test| test.id));
                overridden.dedup();
            } else {
                refusals.push(Refusal::TestsFailed { organization: prospected.id.clone(), broken, from });
            }
        }
        if let Some(max) = options.gates.max_revocations {
            let revoked = self.revoked(sessions, 0);
            let would_be = revoked.count();
            if let Some(from) = revoked.exceeds(max) {
                refusals.push(Refusal::TooManyRevocations { would_be, max, from });
            }
        }
        (refusals, overridden)
    }

    /// Whether there is anything that could refuse the change.
    pub(super) fn is_gated(gates: &Gates, effect: &Effect, before: Option<&Organization>, any_tests: bool) -> bool {
        let sets_tests = matches!(effect, Effect::Organization { deltas, .. }
            if deltas.iter().any(|delta| matches!(delta, Delta::SetTests { .. })));
        !gates.is_empty() || sets_tests || any_tests || before.is_some_and(|before| !before.tests.is_empty())
    }
}
