//! The engine joins the policy with the store: it decides, it changes, and it knows which policy is current.
//!
//! Invariant: what decides is durable. A Check takes no lock, waits for nothing and touches no store; a change is
//! answered when it is durable and visible.
//! Not here: gRPC, generated types, and which adapters stand behind the ports.

pub mod change;
pub mod check;
pub mod clock;
pub mod counters;
pub mod directory;
mod follower;
mod recovery;
mod staged;
mod writer;

use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::{io, thread};

use thiserror::Error;
use tokio::sync::watch;

pub use recovery::RecoveryError;

use change::ChangeError;
use check::DecisionIds;
use clock::Clock;
use counters::{RuleCounter, RuleCounters};
use directory::{Directory, OrganizationView, Published, PublishedCluster};
use follower::Follower;
use writer::{Order, Writer};

use crate::policy::cow_map::CowMap;
use crate::policy::limits::Limits;
use crate::policy::members::MembersCache;
use crate::policy::organization::Organization;
use crate::policy::rule::RuleMatches;
use crate::policy::snapshot::{ClusterSnapshot, Snapshot};
use crate::policy::state::PolicyState;
use crate::store::codec::CounterKey;
use crate::store::{Journal, Snapshots, StateStores};

/// Changes that may wait for the writer. More are refused: each may hold a request of many megabytes.
const ORDERS_WAITING_MAX: usize = 1_024;

/// Where the engine keeps things.
pub struct Stores {
    /// The truth.
    pub journal: Box<dyn Journal>,
    /// Shortens the replay of the journal.
    pub snapshots: Box<dyn Snapshots>,
    /// What is read.
    pub state: Box<dyn StateStores>,
    /// Whatever must live as long as the stores are used, such as the lock on their directory.
    pub keep: Box<dyn Send + Sync>,
}

/// Why the engine does not start.
#[derive(Debug, Error)]
pub enum OpenError {
    /// What is stored cannot be used.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The operating system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    /// The operating system gives no random numbers.
    #[error("cannot draw a random number: {0}")]
    Random(String),
}

/// The policy service without its edges.
pub struct Engine {
    directory: Arc<Directory>,
    clock: Clock,
    decision_ids: DecisionIds,
    writable: watch::Receiver<bool>,
    /// Taken away when the engine closes.
    orders: Mutex<Option<SyncSender<Order>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// See [`Stores::keep`]; given up last of all.
    _keep: Box<dyn Send + Sync>,
}

impl Engine {
    /// Recovers the policy from the stores and starts the threads that change it.
    pub fn open(mut stores: Stores, limits: Limits, clock: Clock) -> Result<Self, OpenError> {
        let recovered = recovery::recover(&mut *stores.journal, &*stores.snapshots, &clock)?;
        let store = recovery::open_state(&*stores.state, &recovered.state, recovered.sequence)?;
        let counters = store.as_deref().map(|store| recovery::read_counters(store, &recovered.state));
        let (directory, lists) = publish_all(&recovered.state, &counters.unwrap_or_default(), &clock);
        let directory = Arc::new(directory);
        let boot = getrandom::u64().map_err(|error| OpenError::Random(error.to_string()))?;
        let (writable_sender, writable) = watch::channel(true);
        let (sender, orders) = sync_channel(ORDERS_WAITING_MAX);
        let follower = Arc::new(Follower::default());
        let task = follower::Task {
            follower: Arc::clone(&follower),
            store,
            stores: stores.state,
            snapshots: stores.snapshots,
            state: recovered.state.clone(),
            sequence: recovered.sequence,
            snapshot_sequence: recovered.snapshot_sequence,
            bytes: recovered.bytes,
            directory: Arc::clone(&directory),
            clock: clock.clone(),
            counters_written_millis: i64::MIN / 2,
        };
        let writer = Writer {
            journal: stores.journal,
            state: recovered.state,
            directory: Arc::clone(&directory),
            follower,
            clock: clock.clone(),
            limits,
            writable: writable_sender,
            lists,
        };
        let threads = vec![
            thread::Builder::new().name("policy-follower".to_owned()).spawn(move || task.run())?,
            thread::Builder::new().name("policy-writer".to_owned()).spawn(move || writer.run(&orders))?,
        ];
        Ok(Self {
            directory,
            clock,
            decision_ids: DecisionIds::new(boot),
            writable,
            orders: Mutex::new(Some(sender)),
            threads: Mutex::new(threads),
            _keep: stores.keep,
        })
    }

    /// Which policy is current.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The clock of decisions and changes.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether changes can be made durable; follows the journal's failures and recoveries.
    pub fn writable(&self) -> watch::Receiver<bool> {
        self.writable.clone()
    }

    fn send(&self, order: Order) -> Result<(), ChangeError> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = orders.as_ref().ok_or(ChangeError::ShuttingDown)?;
        sender.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => ChangeError::Overloaded,
            TrySendError::Disconnected(_) => ChangeError::ShuttingDown,
        })
    }

    /// Takes no more changes, finishes those under way, and returns when everything is on the disk. Checks go on being
    /// answered.
    pub fn close(&self) {
        drop(self.orders.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!(thread = name, "a thread ended by a panic");
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

fn publish_all(
    state: &PolicyState,
    counters: &HashMap<CounterKey, RuleMatches>,
    clock: &Clock,
) -> (Directory, HashMap<crate::policy::name::Id, MembersCache>) {
    let cluster =
        PublishedCluster { cluster: Arc::clone(&state.cluster), snapshot: ClusterSnapshot::compile(&state.cluster) };
    let mut deleted = CowMap::default();
    for (id, revision) in &state.deleted {
        deleted.insert(id.clone(), Arc::new(*revision));
    }
    let directory = Directory::new(cluster, deleted);
    let mut lists = HashMap::new();
    for (id, organization) in &state.organizations {
        let mut cache = MembersCache::default();
        let snapshot = Snapshot::compile(organization, &mut cache);
        let counters = restored_counters(organization, counters, clock);
        let view = OrganizationView { organization: Arc::clone(organization), counters: Arc::new(counters) };
        directory.publish(Published { view, snapshot });
        lists.insert(id.clone(), cache);
    }
    (directory, lists)
}

/// The counters of an organization's rules as they were kept. A rule without one counts from now on, unless it was just
/// made.
fn restored_counters(
    organization: &Organization,
    kept: &HashMap<CounterKey, RuleMatches>,
    clock: &Clock,
) -> RuleCounters {
    let restored = organization.rules.iter().filter_map(|rule| {
        let matches = *kept.get(&CounterKey::new(&organization.id, rule))?;
        // What was kept is rounded down, perhaps to before the rule was made.
        let matches = RuleMatches { start: matches.start.max(rule.create_time), ..matches };
        Some(((rule.id.clone(), rule.create_time), Arc::new(RuleCounter::new(matches))))
    });
    RuleCounters::following(organization, &restored.collect(), clock.now())
}
