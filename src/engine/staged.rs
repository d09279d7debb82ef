//! Changes that are planned and not durable yet: what a batch stands on while it is planned.
//!
//! Invariant: nothing of it is published; it is dropped when the batch cannot be written.
//! Not here: planning and writing (`writer`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::policy::change::{Change, Delta, Effect};
use crate::policy::name::Id;
use crate::policy::organization::{Cluster, Organization};
use crate::policy::state::{Outcome, PolicyState};

/// The state as it will be once the pending changes are durable; only what differs from the state.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) cluster: Option<Arc<Cluster>>,
    /// None inside: deleted, at this revision.
    organizations: BTreeMap<Id, (Option<Arc<Organization>>, u64)>,
}

impl Staged {
    /// Notes what a change makes.
    pub(super) fn set(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Cluster(cluster) => self.cluster = Some(cluster),
            Outcome::Organization(organization) => {
                let (id, revision) = (organization.id.clone(), organization.revision);
                self.organizations.insert(id, (Some(organization), revision));
            }
            Outcome::Deleted(id, revision) => {
                self.organizations.insert(id, (None, revision));
            }
        }
    }

    /// An organization as it will be, where it differs: the inner none when it is gone.
    #[expect(clippy::option_option, reason = "unchanged and gone are different answers")]
    pub(super) fn organization(&self, id: &Id) -> Option<Option<Arc<Organization>>> {
        self.organizations.get(id).map(|(staged, _)| staged.clone())
    }

    /// The last revision of an organization, where it differs.
    pub(super) fn last_revision(&self, id: &Id) -> Option<u64> {
        self.organizations.get(id).map(|(_, revision)| *revision)
    }

    /// Number of organizations, as it will be.
    pub(super) fn count_organizations(&self, state: &PolicyState) -> usize {
        let here = |(pending, _): &&(Option<Arc<Organization>>, u64)| pending.is_some();
        let untouched = state.organizations.len()
            - self.organizations.keys().filter(|id| state.organizations.contains_key(*id)).count();
        untouched + self.organizations.values().filter(here).count()
    }
}

/// Ranges and rules that a change copies.
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
