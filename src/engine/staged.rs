//! The state that the next change is planned on: the one in force, with the changes of the batch on top.
//!
//! Invariant: it is never published, and dropped once its batch is planned. What is compiled of it is of exactly the version
//! that is asked for.
//! Not here: planning (`planning`) and writing (`writer`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::directory::{Directory, PublishedCluster};
use super::prospect::Compiled;
use crate::policy::change::{Change, Delta, Effect};
use crate::policy::name::Id;
use crate::policy::organization::{Cluster, Organization};
use crate::policy::snapshot::ClusterSnapshot;
use crate::policy::state::{Outcome, PolicyState};

/// The state as it will be once the planned changes are durable; holds only what differs from the one in force.
pub(super) struct Staged<'a> {
    state: &'a PolicyState,
    cluster: Option<Arc<Cluster>>,
    /// None inside: deleted, at this revision.
    organizations: BTreeMap<Id, (Option<Arc<Organization>>, u64)>,
    /// The last version of each organization that was compiled to judge a change of this batch.
    compiled: RefCell<BTreeMap<Id, Compiled>>,
}

impl<'a> Staged<'a> {
    /// The state, with nothing planned yet.
    pub(super) fn new(state: &'a PolicyState) -> Self {
        Self { state, cluster: None, organizations: BTreeMap::new(), compiled: RefCell::default() }
    }

    /// Adds the outcome of a planned change.
    pub(super) fn set(&mut self, outcome: Outcome) {
        let revision = outcome.revision();
        match outcome {
            Outcome::Cluster(cluster) => self.cluster = Some(cluster),
            Outcome::Organization(organization) => {
                self.organizations.insert(organization.id.clone(), (Some(organization), revision));
            }
            Outcome::Deleted(id, _) => {
                self.organizations.insert(id, (None, revision));
            }
        }
    }

    /// The cluster.
    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        self.cluster.as_ref().unwrap_or(&self.state.cluster)
    }

    /// An organization.
    pub(super) fn organization(&self, id: &Id) -> Option<&Arc<Organization>> {
        match self.organizations.get(id) {
            Some((staged, _)) => staged.as_ref(),
            None => self.state.organizations.get(id),
        }
    }

    /// The cluster with its compiled form.
    pub(super) fn compiled_cluster(&self, directory: &Directory) -> Arc<PublishedCluster> {
        let (published, cluster) = (directory.cluster(), self.cluster());
        if Arc::ptr_eq(&published.cluster, cluster) {
            return published;
        }
        Arc::new(PublishedCluster { cluster: Arc::clone(cluster), snapshot: ClusterSnapshot::compile(cluster) })
    }

    /// An organization with its compiled form.
    pub(super) fn compiled(&self, id: &Id, directory: &Directory) -> Option<Compiled> {
        let organization = self.organization(id)?;
        let published = directory.organization(id.as_str());
        if let Some(published) = published.filter(|known| Arc::ptr_eq(&known.view.organization, organization)) {
            return Some(Compiled::published(&published));
        }
        if let Some(known) = self.compiled.borrow().get(id)
            && Arc::ptr_eq(&known.organization, organization)
        {
            return Some(known.clone());
        }
        let compiled = Compiled::of(Arc::clone(organization));
        self.keep(&compiled);
        Some(compiled)
    }

    /// Keeps a compiled version, so that the next change of the batch is judged without compiling it anew.
    pub(super) fn keep(&self, compiled: &Compiled) {
        self.compiled.borrow_mut().insert(compiled.organization.id.clone(), compiled.clone());
    }

    /// All organizations with their compiled forms, in the order of their ids.
    pub(super) fn all_compiled(&self, directory: &Directory) -> Vec<Compiled> {
        let ids: BTreeSet<&Id> = self.state.organizations.keys().chain(self.organizations.keys()).collect();
        ids.into_iter().filter_map(|id| self.compiled(id, directory)).collect()
    }

    /// The last revision of an organization, also of a deleted one; 0 where there never was one.
    pub(super) fn last_revision(&self, id: &Id) -> u64 {
        self.organizations.get(id).map_or_else(|| self.state.last_revision(id), |(_, revision)| *revision)
    }

    /// What a change of this organization, or of the cluster, is planned on.
    pub(super) fn current(&self, id: Option<&Id>) -> Outcome {
        let Some(id) = id else { return Outcome::Cluster(Arc::clone(self.cluster())) };
        match self.organization(id) {
            Some(organization) => Outcome::Organization(Arc::clone(organization)),
            None => Outcome::Deleted(id.clone(), self.last_revision(id)),
        }
    }

    /// Number of organizations.
    pub(super) fn count_organizations(&self) -> usize {
        let known = &self.state.organizations;
        let untouched = known.len() - self.organizations.keys().filter(|id| known.contains_key(*id)).count();
        untouched + self.organizations.values().filter(|(staged, _)| staged.is_some()).count()
    }

    /// Whether any organization has policy tests.
    pub(super) fn has_tests(&self) -> bool {
        let staged = self.organizations.values().filter_map(|(staged, _)| staged.as_ref());
        self.state.organizations.values().chain(staged).any(|organization| !organization.tests.is_empty())
    }
}

/// How many ranges and rules a change copies into new versions.
pub(super) fn weight_of(change: &Change, outcome: &Outcome) -> usize {
    let (Effect::Organization { deltas, .. }, Outcome::Organization(organization)) = (&change.effect, outcome) else {
        return 1;
    };
    let weight = |delta: &Delta| match delta {
        Delta::SetGroupContent { id, .. } => {
            organization.groups.get(id.as_str()).map_or(1, |group| group.ranges().len())
        }
        Delta::InsertRule { .. }
        | Delta::SetRule { .. }
        | Delta::RemoveRule { .. }
        | Delta::MoveRule { .. }
        | Delta::OrderRules { .. }
        | Delta::ExpireRules { .. }
        | Delta::ReplaceRules { .. } => organization.rules.len(),
        Delta::SetOrganization { .. }
        | Delta::SetNode { .. }
        | Delta::RemoveNode { .. }
        | Delta::SetGroup { .. }
        | Delta::RemoveGroup { .. }
        | Delta::RemoveShadowPolicy
        | Delta::Confirm { .. } => 1,
        Delta::SetShadowPolicy { deltas } => 1 + organization.rules.len() + deltas.len(),
        Delta::SetTests { tests } => tests.len(),
    };
    1 + deltas.iter().map(weight).sum::<usize>()
}
