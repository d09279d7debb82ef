//! Applying a durable change: updates the state, records it, publishes the new version, and tells keeper and follower.
//!
//! Every change goes this way: a caller's, the undoing of an unconfirmed one, and a record that a start reads back. A
//! start only updates the state change by change ([`DurableChange::put_into`]) and compiles once, at the end.
//!
//! Invariant: only what is durable is applied, once, in the order of the journal. A change is in the audit log's queue
//! before a Check can be decided by it, and published before the keeper of the sessions hears of it.
//! Not here: planning and writing changes, and answering those who asked for them (`writer`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::advance::{next_version, scopes};
use super::audit::{AuditError, AuditLog};
use super::change::DurableChange;
use super::change_log;
use super::clock::Clock;
use super::deadlines::Deadlines;
use super::directory::{Directory, PublishedCluster};
use super::expiry::{has_same_rules, next_expiry};
use super::follower::Follower;
use super::keeper::KeeperInbox;
use super::unconfirmed::{Unconfirmed, deadline};
use crate::audit::policy_change::changes as object_changes;
use crate::audit::record::{Actor, Content, Entry, Identity, ObjectChange, PolicyChangeRecord};
use crate::policy::change::Change;
use crate::policy::members::MembersCache;
use crate::policy::name::Id;
use crate::policy::organization::{Cluster, Organization};
use crate::policy::snapshot::ClusterSnapshot;
use crate::policy::state::PolicyState;

/// The most changes in the journal whose audit records are not durable. No more can be without one after a crash; what is
/// without more has lost its log.
pub(super) const OWED_MAX: usize = 256;

/// The policy in force, and everything that is told when it changes. Owned by the one thread that applies changes.
pub(super) struct Applier {
    pub(super) state: PolicyState,
    /// The audit records of changes that were not durable when this was last looked at, oldest first.
    pub(super) owed: VecDeque<u64>,
    /// When the changes that wait for their confirmation are to be undone.
    pub(super) unconfirmed: Unconfirmed,
    /// When the next rule of each organization expires, or has expired without being marked.
    pub(super) expiries: Deadlines,
    /// Compiled lists of members that the versions of an organization share.
    pub(super) lists: HashMap<Id, MembersCache>,
    pub(super) clock: Clock,
    pub(super) audit: Arc<AuditLog>,
    pub(super) directory: Arc<Directory>,
    pub(super) keeper: Arc<KeeperInbox>,
    pub(super) follower: Arc<Follower>,
}

/// What a change replaced in the state.
pub(super) struct Replaced {
    /// The organization that it is about, as it was; none for a new one.
    organization: Option<Arc<Organization>>,
    cluster: Arc<Cluster>,
}

impl DurableChange<'_> {
    /// Puts it into the state.
    pub(super) fn put_into(self, state: &mut PolicyState) -> Replaced {
        let organization = self.change.effect.organization().and_then(|id| state.organizations.get(id)).cloned();
        let replaced = Replaced { organization, cluster: Arc::clone(&state.cluster) };
        state.set(self.outcome.clone());
        replaced
    }

    /// Its audit record, with who made it.
    pub(super) fn entry(self, replaced: &Replaced) -> (Entry, Option<Identity>) {
        let Replaced { organization, cluster } = replaced;
        let changes = object_changes(self.change, organization.as_deref(), Some(cluster), self.outcome);
        change_entry(self.sequence, self.change, changes)
    }
}

impl Applier {
    /// Waits until the journal may take `more` changes, at most [`OWED_MAX`].
    ///
    /// # Errors
    ///
    /// The audit log cannot be written, or not in time.
    pub(super) fn wait_for_records(&mut self, more: usize) -> Result<(), AuditError> {
        let newest = self.audit.newest_sequence();
        while self.owed.pop_front_if(|sequence| *sequence <= newest).is_some() {}
        let excess = (self.owed.len() + more).saturating_sub(OWED_MAX);
        match excess.checked_sub(1).and_then(|index| self.owed.get(index)) {
            Some(last) => self.audit.wait_durable(*last, self.audit.options().deadline),
            None => Ok(()),
        }
    }

    /// Applies changes, in the order of the journal. An organization is compiled once for all its changes.
    pub(super) fn apply(&mut self, changes: &[DurableChange<'_>]) {
        let mut touched: BTreeMap<Option<&Id>, Vec<&Change>> = BTreeMap::new();
        for durable in changes {
            let replaced = durable.put_into(&mut self.state);
            // Before it is visible: the log has the change before any decision that it led to.
            let (entry, actor) = durable.entry(&replaced);
            self.owed.push_back(self.audit.queue().push(entry, actor, true));
            change_log::log(durable.change);
            let before = replaced.organization.as_deref();
            let id = durable.change.effect.organization();
            if let Some(id) = id {
                let after = durable.outcome.organization();
                self.unconfirmed.set(id, after.and_then(|after| deadline(after)), self.clock.moment());
                let same = before.zip(after).is_some_and(|(before, after)| has_same_rules(before, after));
                if !same {
                    self.expiries.set(id, after.and_then(|after| next_expiry(after)));
                }
            }
            self.follower.note(*durable, before);
            touched.entry(id).or_default().push(durable.change);
        }
        for (id, changes) in touched {
            match id {
                None => self.publish_cluster(),
                Some(id) => self.publish(id, &changes),
            }
            for scope in scopes(id, &changes) {
                self.keeper.changed(scope);
            }
        }
    }

    fn publish_cluster(&self) {
        let cluster = Arc::clone(&self.state.cluster);
        let snapshot = ClusterSnapshot::compile(&cluster);
        self.directory.publish_cluster(PublishedCluster { cluster, snapshot });
    }

    fn publish(&mut self, id: &Id, changes: &[&Change]) {
        let Some(organization) = self.state.organizations.get(id).cloned() else {
            self.directory.withdraw(id, self.state.last_revision(id));
            self.lists.remove(id);
            return;
        };
        let lists = self.lists.entry(id.clone()).or_default();
        let current = self.directory.organization(id.as_str());
        let published = next_version(current.as_deref(), organization, changes, lists, self.clock.now());
        self.directory.publish(published);
    }
}

impl Drop for Applier {
    /// Also when its thread ends by a panic: then there is nothing left to follow, and closing waits for the follower.
    fn drop(&mut self) {
        self.follower.stop();
    }
}

/// The audit record of a change, with who made it, and what it altered as far as that is known.
pub(super) fn change_entry(sequence: u64, change: &Change, changes: Vec<ObjectChange>) -> (Entry, Option<Identity>) {
    let content = PolicyChangeRecord {
        policy_sequence: sequence,
        revision: change.effect.revision(),
        comment: Arc::clone(&change.comment),
        changes,
        confirm_until: change.confirm_until,
        overridden_tests: change.overridden_tests.clone(),
    };
    let organization = change.effect.organization().cloned();
    let actor = (!change.actor.is_empty()).then(|| Identity::Actor(Actor { name: Arc::clone(&change.actor) }));
    (Entry { time: change.time, organization, content: Content::PolicyChanged(content) }, actor)
}
