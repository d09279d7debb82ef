//! The policy with and without a change that is not made (yet): what gates judge and previews show.
//!
//! Invariant: nothing here is published, and nothing compiled for it is kept.
//! Not here: how a change is planned (`policy::plan`), what differs (`policy::impact`).

use std::sync::Arc;

use super::directory::{Published, PublishedCluster};
use super::sessions::{Scope, SessionTable};
use crate::policy::breakage::{Broken, broken_tests};
use crate::policy::change::Delta;
use crate::policy::forecast::Budget;
use crate::policy::gates::Gates;
use crate::policy::judging::{Judged, Refusal};
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
    /// A version of an organization, compiled.
    pub(super) fn of(organization: Arc<Organization>) -> Self {
        let snapshot = Snapshot::compile(&organization, &mut MembersCache::default());
        Self { organization, snapshot }
    }

    /// The published version of an organization.
    pub(super) fn published(published: &Published) -> Self {
        Self { organization: Arc::clone(&published.view.organization), snapshot: published.snapshot.clone() }
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

    /// A change of the cluster, which affects every organization. They come in the order of their ids.
    pub(super) fn of_cluster(
        now: Timestamp,
        before: Arc<PublishedCluster>,
        after: Arc<Cluster>,
        organizations: impl IntoIterator<Item = Compiled>,
    ) -> Self {
        let snapshot = ClusterSnapshot::compile(&after);
        let same = |compiled: Compiled| {
            let id = compiled.organization.id.clone();
            Prospected { id, before: Some(compiled.clone()), after: Some(compiled) }
        };
        Self {
            now,
            cluster_before: before,
            cluster_after: Arc::new(PublishedCluster { cluster: after, snapshot }),
            organizations: organizations.into_iter().map(same).collect(),
            scope: Scope::All,
        }
    }

    /// The gates of what the change is about, as they are and as they would be, together: neither those that a change
    /// lifts nor those that it sets are passed over.
    fn own_gates(&self) -> Gates {
        let of_cluster = [&self.cluster_before, &self.cluster_after].map(|of| Some(Arc::clone(&of.cluster.node.gates)));
        let of_organization = |one: &Prospected| {
            [&one.before, &one.after].map(|of| of.as_ref().map(|compiled| compiled.organization.node.gates.clone()))
        };
        let [before, after] = match (&self.scope, self.organizations.as_slice()) {
            (Scope::All, _) => of_cluster,
            (_, [one]) => of_organization(one),
            _ => [None, None],
        };
        before.unwrap_or_default().and(&after.unwrap_or_default())
    }

    /// What the caller's gates and those that are kept refuse; and the policy tests that break, where the caller overrides
    /// them.
    pub fn refusals(&self, options: &GateOptions, sessions: &SessionTable) -> (Vec<Refusal>, Vec<Id>) {
        let gates = options.gates.and(&self.own_gates());
        let (mut refusals, mut overridden) = (Vec::new(), Vec::new());
        let (for_gates, for_tests) = (Budget::default(), Budget::default());
        for prospected in &self.organizations {
            let (before, after) = (prospected.before(self), prospected.after(self));
            refusals.extend(gates.refusals(&options.gates, before.as_ref(), after.as_ref(), self.now, &for_gates));
            let Broken { tests, unknown } = broken_tests(before.as_ref(), after.as_ref(), self.now, &for_tests);
            let organization = &prospected.id;
            if options.override_tests {
                overridden.extend(tests.into_iter().map(|test| test.id).chain(unknown));
                continue;
            }
            if !tests.is_empty() {
                refusals.push(Refusal::TestsFailed { organization: organization.clone(), broken: tests });
            }
            if !unknown.is_empty() {
                refusals.push(Refusal::CannotJudge { organization: organization.clone(), judged: Judged::Tests });
            }
        }
        if let Some(max) = gates.max_revocations {
            let revoked = self.revoked(sessions, 0, &Budget::default());
            let would_be = revoked.count();
            if let Some((from, by_then)) = revoked.exceeds(max) {
                refusals.push(Refusal::TooManyRevocations { would_be, by_then, max, from });
            } else if let Some(organization) = revoked.uncounted_in {
                refusals.push(Refusal::CannotJudge { organization, judged: Judged::Revocations });
            }
        }
        // Once the steps are used up, nothing is known of the other organizations either, whatever expires there.
        let mut unjudged = Vec::new();
        refusals.retain(|refusal| match refusal {
            Refusal::CannotJudge { judged, .. } => {
                let is_first = !unjudged.contains(judged);
                unjudged.push(*judged);
                is_first
            }
            _ => true,
        });
        (refusals, overridden)
    }
}
