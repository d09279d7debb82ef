//! The policy state of a server: the cluster and all organizations.
//!
//! Invariant: the state is the result of applying the journal's changes in order to the empty state. The same changes
//! always give the same state.
//! Not here: which changes are permitted (`plan`), compiled forms (`snapshot`).

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use super::change::{Change, Effect};
use super::name::{Id, Name, NameError};
use super::node::{Access, Node};
use super::organization::{Cluster, Organization, Pending};
use super::time::Timestamp;

/// The policy of a server: the cluster and all organizations.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyState {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The organizations by id.
    pub organizations: BTreeMap<Id, Arc<Organization>>,
    /// The last revisions of deleted organizations. An organization that is created again continues from them.
    pub deleted: BTreeMap<Id, u64>,
}

/// The new state of the cluster or of the organization that a change concerns.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The cluster after the change.
    Cluster(Arc<Cluster>),
    /// The organization after the change.
    Organization(Arc<Organization>),
    /// The organization is deleted. Holds its id and its last revision.
    Deleted(Id, u64),
}

impl Outcome {
    /// The revision that it leads to; of a deleted organization the last one.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Cluster(cluster) => cluster.revision,
            Self::Organization(organization) => organization.revision,
            Self::Deleted(_, revision) => *revision,
        }
    }

    /// The organization, where it is one.
    pub fn organization(&self) -> Option<&Arc<Organization>> {
        match self {
            Self::Organization(organization) => Some(organization),
            Self::Cluster(_) | Self::Deleted(..) => None,
        }
    }
}

/// A change that does not follow the state it is applied to: a revision would be skipped or used twice.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{scope}` is at revision {current}, and the change is for revision {change}")]
pub struct OutOfOrder {
    /// `cluster` or the organization's name.
    pub scope: String,
    /// The revision of the state; 0 for an organization that never existed.
    pub current: u64,
    /// The revision that the change would make.
    pub change: u64,
}

impl PolicyState {
    /// The state before the first change. Its cluster has revision 0, which no server shows, because a journal begins
    /// with [`PolicyState::first_changes`].
    pub fn empty() -> Self {
        let cluster = Cluster { revision: 0, ..Cluster::new(Timestamp::default()) };
        Self { cluster: Arc::new(cluster), organizations: BTreeMap::new(), deleted: BTreeMap::new() }
    }

    /// The number of changes that a new data directory begins with.
    pub const FIRST_CHANGES: u64 = 2;

    /// The changes that a new data directory begins with: a cluster that allows everything, and the organization
    /// `default`.
    ///
    /// # Errors
    ///
    /// None in practice: `default` is a valid id.
    pub fn first_changes(now: Timestamp) -> Result<[Change; 2], NameError> {
        let change = |effect| Change::new(now, effect);
        let node = Node::new(Access::AllowAll, now, 1);
        let default = Effect::CreateOrganization { id: Id::parse("default")?, revision: 1, node: node.clone() };
        Ok([change(Effect::Cluster { revision: 1, node }), change(default)])
    }

    /// The last revision that was used for an organization; 0 when it never existed.
    pub fn last_revision(&self, id: &Id) -> u64 {
        let existing = self.organizations.get(id).map(|organization| organization.revision);
        existing.or_else(|| self.deleted.get(id).copied()).unwrap_or(0)
    }

    /// The result of a change; `before` is the organization before it, if there is one.
    pub fn outcome(change: &Change, before: Option<&Arc<Organization>>) -> Outcome {
        match &change.effect {
            Effect::Cluster { revision, node } => {
                Outcome::Cluster(Arc::new(Cluster { revision: *revision, node: Arc::new(node.clone()) }))
            }
            Effect::CreateOrganization { id, revision, node } => {
                Outcome::Organization(Arc::new(Organization::new(id.clone(), *revision, node.clone())))
            }
            Effect::DeleteOrganization { id, revision } => Outcome::Deleted(id.clone(), *revision),
            Effect::Organization { id, revision, deltas } => match before {
                Some(before) => {
                    let mut organization = (**before).clone();
                    organization.apply(*revision, change.time, deltas);
                    let pending = |until| Arc::new(Pending { revision: *revision, until, base: base_of(before) });
                    if !change.effect.is_expiry() {
                        organization.pending = change.confirm_until.map(pending);
                    }
                    Outcome::Organization(Arc::new(organization))
                }
                None => Outcome::Deleted(id.clone(), *revision),
            },
        }
    }

    /// Stores the outcome of a change.
    pub fn set(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Cluster(cluster) => self.cluster = cluster,
            Outcome::Organization(organization) => {
                self.deleted.remove(&organization.id);
                self.organizations.insert(organization.id.clone(), organization);
            }
            Outcome::Deleted(id, revision) => {
                self.organizations.remove(&id);
                self.deleted.insert(id, revision);
            }
        }
    }

    /// Applies one change that is read back from the journal.
    pub fn apply(&mut self, change: &Change) -> Result<(), OutOfOrder> {
        self.set(self.next(change)?);
        Ok(())
    }

    /// What a change that was planned elsewhere makes of this state.
    ///
    /// # Errors
    ///
    /// [`OutOfOrder`] where it was planned on another state.
    pub fn next(&self, change: &Change) -> Result<Outcome, OutOfOrder> {
        self.check_order(&change.effect)?;
        let before = change.effect.organization().and_then(|id| self.organizations.get(id));
        Ok(Self::outcome(change, before))
    }

    fn check_order(&self, effect: &Effect) -> Result<(), OutOfOrder> {
        let (scope, current, exists) = match effect.organization() {
            None => (super::name::CLUSTER.to_owned(), self.cluster.revision, true),
            Some(id) => {
                (Name::organization(id).to_string(), self.last_revision(id), self.organizations.contains_key(id))
            }
        };
        let expects_existing = !matches!(effect, Effect::CreateOrganization { .. });
        if effect.revision() == current + 1 && exists == expects_existing {
            Ok(())
        } else {
            Err(OutOfOrder { scope, current, change: effect.revision() })
        }
    }
}

/// What undoing a change restores. The organization before it may hold another change that waits, which nobody has
/// confirmed either: then it is what that one restores.
fn base_of(before: &Arc<Organization>) -> Arc<Organization> {
    before.pending.as_ref().map_or_else(|| Arc::clone(before), |waiting| Arc::clone(&waiting.base))
}
