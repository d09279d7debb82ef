//! The policy writer: one thread through which every change goes, one after the other.
//!
//! plan → journal (durable) → publish (visible) → answer → hand to the follower. What waits while a batch is written is
//! planned on top of it and written as the next batch, so many small changes share one sync of the disk.
//!
//! Invariant: what is published is durable; what is answered as done is published. Revisions are dense: a batch that
//! could not be written leaves no trace in the state.
//! Not here: the state store (`follower`), which may lag behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use tokio::sync::oneshot;

use super::advance::{counters_of, next_version, scopes};
use super::audit::{AuditLog, Condition};
use super::change::{After, ChangeError, ChangeRequest, ChangeTarget, Changed};
use super::clock::Clock;
use super::counters::RuleCounters;
use super::directory::{Directory, OrganizationView, PublishedCluster};
use super::follower::Follower;
use super::keeper::KeeperInbox;
use super::recovery::change_entry;
use super::sessions::SessionTable;
use super::staged::{Staged, weight_of};
use super::unconfirmed::Unconfirmed;
use crate::policy::change::{Change, Effect};
use crate::policy::limits::Limits;
use crate::policy::members::MembersCache;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::plan::{PlanError, Planner};
use crate::policy::snapshot::ClusterSnapshot;
use crate::policy::state::{Outcome, PolicyState};
use crate::store::codec::{encode_change, erase_actor};
use crate::store::{JournalError, OwnedRecords, Redaction};

/// Changes that share one sync at most.
const BATCH_CHANGES_MAX: usize = 256;

/// How often a failed journal is tried again at least; it is also tried before every batch.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait at least before an unconfirmed change is undone: as precise as that need be.
const UNDO_PAUSE: Duration = Duration::from_millis(10);

/// A request on its way to the writer.
pub(super) enum Order {
    /// A change.
    Change { request: Box<ChangeRequest>, reply: oneshot::Sender<Result<Changed, ChangeError>> },
    /// The journal from a record on, to read.
    Records { from: u64, reply: oneshot::Sender<Result<OwnedRecords, JournalError>> },
    /// Erases an actor from the changes of an organization, or of all and the cluster.
    EraseActor { organization: Option<Id>, name: String, reply: oneshot::Sender<Result<(), JournalError>> },
}

/// What the writer thread owns.
pub(super) struct Writer {
    pub(super) journal: Box<dyn Redaction>,
    pub(super) state: PolicyState,
    pub(super) directory: Arc<Directory>,
    pub(super) follower: Arc<Follower>,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) condition: Arc<Condition>,
    pub(super) writable: bool,
    pub(super) audit: Arc<AuditLog>,
    pub(super) keeper: Arc<KeeperInbox>,
    pub(super) lists: HashMap<Id, MembersCache>,
    pub(super) sessions: Arc<SessionTable>,
    pub(super) unconfirmed: Unconfirmed,
}

/// Ranges and rules that the changes of a batch may copy into new versions: what a batch holds in memory, and how long
/// everybody else waits for it.
const BATCH_WEIGHT_MAX: usize = 1_000_000;

/// Bytes of changes that are written in one piece, unless a single change has more.
const APPEND_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request that waits for the disk.
struct Pending {
    step: Step,
    reply: oneshot::Sender<Result<Changed, ChangeError>>,
}

/// What planning a request came to.
enum Step {
    /// A change, its bytes, and what it makes.
    Change { change: Box<Change>, record: Vec<u8>, outcome: Outcome },
    /// An answer that needs no change of its own.
    Answer(Result<Changed, ChangeError>),
}

impl Writer {
    /// Serves orders until the senders are gone. Says when it is ready, which is when nothing is overdue.
    pub(super) fn run(mut self, orders: &Receiver<Order>, ready: &SyncSender<()>) {
        self.undo_unconfirmed();
        if ready.send(()).is_err() {
            return;
        }
        loop {
            let next = self.unconfirmed.next_in(self.clock.now());
            // What is overdue could not be undone just now: it is tried again after a pause.
            let next = next.filter(|next| !next.is_zero());
            let wait = next.map_or(PROBE_INTERVAL, |next| next.clamp(UNDO_PAUSE, PROBE_INTERVAL));
            let first = match orders.recv_timeout(wait) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Also when changes keep coming: they are what it is to be writable for.
            if !self.writable {
                self.probe();
            }
            self.undo_unconfirmed();
            let more = std::iter::from_fn(|| orders.try_recv().ok()).take(BATCH_CHANGES_MAX - 1);
            self.serve(first.into_iter().chain(more));
        }
    }

    /// Plans a batch, each change on top of those before it, and writes it. An answer that was found on top of a change
    /// that is not durable yet waits until it is: nobody is told what a crash could undo.
    pub(super) fn serve(&mut self, orders: impl Iterator<Item = Order>) {
        let mut orders = orders.peekable();
        while orders.peek().is_some() {
            let batch = self.plan_batch(&mut orders);
            self.write(batch);
        }
    }

    /// Plans until there are no more orders, or the versions that the changes make have grown heavy.
    fn plan_batch(&mut self, orders: &mut impl Iterator<Item = Order>) -> Vec<Pending> {
        let mut staged = Staged::default();
        let (mut pending, mut weight) = (Vec::new(), 0);
        while weight < BATCH_WEIGHT_MAX
            && let Some(order) = orders.next()
        {
            let (request, reply) = match order {
                Order::Change { request, reply } => (*request, reply),
                Order::Records { from, reply } => {
                    drop(reply.send(self.journal.records_from(from)));
                    continue;
                }
                Order::EraseActor { organization, name, reply } => {
                    drop(reply.send(self.erase_actor(organization.as_ref(), &name)));
                    continue;
                }
            };
            // Nobody waits for it any more: it is as if it had never come.
            if reply.is_closed() {
                continue;
            }
            let step = match self.plan(&staged, request) {
                Ok(Planned::Change(change, outcome)) => {
                    staged.set(outcome.clone());
                    weight += weight_of(&change, &outcome);
                    Step::Change { record: encode_change(&change), change, outcome }
                }
                Ok(Planned::Answer(changed)) => Step::Answer(Ok(changed)),
                Err(error) => Step::Answer(Err(error)),
            };
            match step {
                Step::Answer(answer) if pending.is_empty() => drop(reply.send(answer)),
                step => pending.push(Pending { step, reply }),
            }
        }
        pending
    }

    /// Writes a batch, makes it visible and answers.
    fn write(&mut self, pending: Vec<Pending>) {
        let mut pending = pending.into_iter().peekable();
        while pending.peek().is_some() {
            let (mut piece, mut records, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some(mut next) = pending.next_if(|_| bytes < APPEND_BYTES_MAX) {
                if let Step::Change { record, .. } = &mut next.step {
                    bytes += record.len();
                    records.push(std::mem::take(record));
                }
                piece.push(next);
            }
            match self.append(&records) {
                Ok(first_sequence) => self.commit(first_sequence, &records, piece),
                // What follows was planned on top of what failed.
                Err(error) => {
                    for Pending { reply, .. } in piece.into_iter().chain(pending.by_ref()) {
                        drop(reply.send(Err(refusal(&error))));
                    }
                }
            }
        }
    }

    fn erase_actor(&mut self, organization: Option<&Id>, name: &str) -> Result<(), JournalError> {
        let first = self.journal.first_sequence();
        self.journal.redact(first, &mut |_, record| erase_actor(record, organization, name)).map(drop)
    }

    fn outcome(&self, staged: &Staged, change: &Change) -> Outcome {
        let before = change.effect.organization().and_then(|id| self.organization(staged, id));
        PolicyState::outcome(change, before.as_ref())
    }

    fn append(&mut self, records: &[Vec<u8>]) -> Result<u64, JournalError> {
        let result = self.journal.append(records);
        if let Err(error) = &result
            && !matches!(error, JournalError::TooLarge { .. })
            && self.writable
        {
            tracing::error!(%error, "the policy journal cannot be written: changes are refused until it can");
            self.set_writable(false);
        }
        result
    }

    fn set_writable(&mut self, writable: bool) {
        self.writable = writable;
        self.condition.set_policy(writable);
    }

    /// Tries to make a failed journal writable again.
    fn probe(&mut self) {
        match self.journal.recover() {
            Ok(()) => {
                tracing::info!("the policy journal is writable again");
                self.set_writable(true);
            }
            Err(error) => tracing::debug!(%error, "the policy journal still cannot be written"),
        }
    }

    /// The changes are durable: makes them visible and answers.
    fn commit(&mut self, first_sequence: u64, records: &[Vec<u8>], pending: Vec<Pending>) {
        let mut touched: BTreeMap<Option<Id>, Vec<&Change>> = BTreeMap::new();
        let changes = pending.iter().filter_map(|pending| match &pending.step {
            Step::Change { change, outcome, .. } => Some((&**change, outcome)),
            Step::Answer(_) => None,
        });
        for ((sequence, record), (change, outcome)) in (first_sequence..).zip(records).zip(changes) {
            let before = change.effect.organization().and_then(|id| self.state.organizations.get(id)).cloned();
            // On the record before it is visible: the log tells the change before what it decides.
            let (entry, actor) = change_entry(sequence, change, before.as_deref(), &self.state.cluster, outcome);
            self.audit.queue().push(entry, actor, true);
            if let Some(id) = change.effect.organization() {
                let after = match outcome {
                    Outcome::Organization(after) => Some(&**after),
                    Outcome::Cluster(_) | Outcome::Deleted(..) => None,
                };
                self.unconfirmed.follow(id, before.as_deref(), after);
            }
            self.state.set(outcome.clone());
            self.clock.advance_to(change.time);
            self.follower.note((sequence, record.len()), change, before.as_deref(), outcome.clone());
            touched.entry(change.effect.organization().cloned()).or_default().push(change);
        }
        for (id, changes) in touched {
            match &id {
                None => self.publish_cluster(),
                Some(id) => self.publish(id, &changes),
            }
            for scope in scopes(id.as_ref(), &changes) {
                self.keeper.changed(scope);
            }
        }
        for Pending { step, reply } in pending {
            let answer = match step {
                Step::Answer(answer) => answer,
                Step::Change { change, outcome, .. } => {
                    Ok(Changed { after: self.after(outcome), revision: change.effect.revision() })
                }
            };
            drop(reply.send(answer));
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

    fn after(&self, outcome: Outcome) -> After {
        match outcome {
            Outcome::Cluster(cluster) => After::Cluster(cluster),
            Outcome::Organization(organization) => After::Organization(self.view(&organization)),
            Outcome::Deleted(..) => After::Deleted,
        }
    }

    fn plan(&self, staged: &Staged, request: ChangeRequest) -> Result<Planned, ChangeError> {
        if !request.validate_only {
            if !self.writable {
                return Err(ChangeError::NotWritable("an earlier write failed".to_owned()));
            }
            self.audit.queue().check_writable()?;
        }
        let now = self.clock.now();
        let cluster = staged.cluster.as_ref().unwrap_or(&self.state.cluster);
        // What was a policy before may be one again, also where limits were lowered since.
        let unlimited = Limits::none();
        let limits = if request.is_gated { &self.limits } else { &unlimited };
        let planner = Planner { now, limits, cluster };
        let ChangeRequest { target, violations, actor, comment, validate_only, gates, is_gated, confirm_within } =
            request;
        let effect = match target {
            ChangeTarget::Cluster { etag, patch } => planner.update_cluster(etag.as_deref(), &patch, violations)?,
            ChangeTarget::CreateOrganization { id, patch } => {
                let exists = self.organization(staged, &id).is_some();
                let last = staged.last_revision(&id).unwrap_or_else(|| self.state.last_revision(&id));
                let count = staged.count_organizations(&self.state);
                Some(planner.create_organization(id, &patch, exists, last, count, violations)?)
            }
            ChangeTarget::DeleteOrganization { id, etag, force } => {
                let organization = self.existing(staged, &id)?;
                Some(planner.delete_organization(&organization, etag.as_deref(), force, violations)?)
            }
            ChangeTarget::Organization { id, mutation } => {
                let organization = self.existing(staged, &id)?;
                let deltas = planner.plan(&organization, mutation, violations)?;
                let revision = organization.revision + 1;
                if deltas.is_empty() {
                    let view = self.view(&organization);
                    let after = After::Organization(view);
                    return Ok(Planned::Answer(Changed { after, revision: organization.revision }));
                }
                Some(Effect::Organization { id, revision, deltas })
            }
        };
        let Some(effect) = effect else {
            let (after, revision) = (After::Cluster(Arc::clone(cluster)), cluster.revision);
            return Ok(Planned::Answer(Changed { after, revision }));
        };
        let confirm_until = confirm_within.map(|within| now.after(within));
        let mut change = Change { actor, comment, confirm_until, ..Change::new(now, effect) };
        let outcome = self.outcome(staged, &change);
        if is_gated {
            self.judge(staged, &mut change, &outcome, &gates)?;
        }
        if validate_only {
            let after = self.after(outcome);
            return Ok(Planned::Answer(Changed { after, revision: change.effect.revision() - 1 }));
        }
        Ok(Planned::Change(Box::new(change), outcome))
    }

    /// A view of one version, with the counters of those of its rules that are published.
    fn view(&self, organization: &Arc<Organization>) -> OrganizationView {
        let current = self.directory.organization(organization.id.as_str());
        if let Some(current) = &current
            && Arc::ptr_eq(&current.view.organization.rules, &organization.rules)
        {
            let counters = Arc::clone(&current.view.counters);
            return OrganizationView { organization: Arc::clone(organization), counters };
        }
        let known = current.map(|current| counters_of(&current.view)).unwrap_or_default();
        let counters = RuleCounters::following(organization, &known, self.clock.now());
        OrganizationView { organization: Arc::clone(organization), counters: Arc::new(counters) }
    }

    pub(super) fn organization(&self, staged: &Staged, id: &Id) -> Option<Arc<Organization>> {
        staged.organization(id).unwrap_or_else(|| self.state.organizations.get(id).cloned())
    }

    fn existing(&self, staged: &Staged, id: &Id) -> Result<Arc<Organization>, PlanError> {
        self.organization(staged, id).ok_or_else(|| PlanError::NotFound(format!("organizations/{id}")))
    }
}

impl Drop for Writer {
    /// Also when it ends by a panic: without a writer there is nothing left to follow, and closing waits for both.
    fn drop(&mut self) {
        self.follower.stop();
    }
}

/// A request that is acceptable.
enum Planned {
    /// Nothing is to be written: no effect, or only judged.
    Answer(Changed),
    /// This is to be written, and makes this.
    Change(Box<Change>, Outcome),
}

fn refusal(error: &JournalError) -> ChangeError {
    match error {
        JournalError::TooLarge { .. } => ChangeError::TooLarge(error.to_string()),
        _ => ChangeError::NotWritable(error.to_string()),
    }
}
