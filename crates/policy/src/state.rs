//! The whole policy of a server, as the journal tells it.
//!
//! Invariant: it is what follows from applying the changes of the journal, in order, to the initial state; the same
//! changes always give the same state.
//! Not here: which changes are permitted (`plan`) and what is compiled of it (`engine`).

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
    /// Last revisions of deleted organizations, which recreated ones go on from.
    pub deleted: BTreeMap<Id, u64>,
}

/// What a change makes of what it is about.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The cluster is this.
    Cluster(Arc<Cluster>),
    /// An organization is this.
    Organization(Arc<Organization>),
    /// An organization is gone; its last revision.
    Deleted(Id, u64),
}

/// A change that does not follow the state it is applied to: a revision would be skipped or used twice.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{scope}` is at revision {current}, and the change is for revision {change}")]
pub struct OutOfOrder {
    /// `cluster` or the organization's name.
    pub scope: String,
    /// Its revision; 0 where it does not exist.
    pub current: u64,
    /// The revision that the change would make.
    pub change: u64,
}

impl PolicyState {
    /// The state before the first change. Its cluster is at revision 0, which no server shows: the first changes of a
    /// journal are [`PolicyState::first_changes`].
    pub fn empty() -> Self {
        let cluster = Cluster { revision: 0, ..Cluster::new(Timestamp::default()) };
        Self { cluster: Arc::new(cluster), organizations: BTreeMap::new(), deleted: BTreeMap::new() }
    }

    /// How many changes a fresh data directory begins with.
    pub const FIRST_CHANGES: u64 = 2;

    /// The changes that a fresh data directory begins with: the cluster, allowing everything, and the organization
    /// `default`.
    pub fn first_changes(now: Timestamp) -> Result<[Change; 2], NameError> {
        let change = |effect| Change::new(now, effect);
        let node = Node::new(Access::AllowAll, now, 1);
        let default = Effect::CreateOrganization { id: Id::parse("default")?, revision: 1, node: node.clone() };
        Ok([change(Effect::Cluster { revision: 1, node }), change(default)])
    }

    /// The last revision that was used for an organization; 0 where there never was one.
    pub fn last_revision(&self, id: &Id) -> u64 {
        let existing = self.organizations.get(id).map(|organization| organization.revision);
        existing.or_else(|| self.deleted.get(id).copied()).unwrap_or(0)
    }

    /// What the change makes of what it is about; `before` is the organization as it stands.
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
                    organization.pending = change.confirm_until.map(|until| {
                        let base = Arc::new(Organization { pending: None, ..(**before).clone() });
                        Arc::new(Pending { revision: *revision, until, base })
                    });
                    Outcome::Organization(Arc::new(organization))
                }
                None => Outcome::Deleted(id.clone(), *revision),
            },
        }
    }

    /// Puts the outcome of a change in its place.
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
        self.check_order(&change.effect)?;
        let before = change.effect.organization().and_then(|id| self.organizations.get(id));
        self.set(Self::outcome(change, before));
        Ok(())
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
