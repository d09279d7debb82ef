//! Starting the engine: recover, publish, put the threads to work.
//!
//! Invariant: nothing is answered before everything that was acknowledged is back: policy, log, sessions; and what the
//! log was owed is in it.
//! Not here: reading each of them back (`recovery`, `audit::recovery`), and which adapters there are (`server`).

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::actors::PolicyActors;
use super::audit::{AuditLog, Condition, LeftAs, Maintenance, Opened};
use super::background;
use super::check::DecisionIds;
use super::clock::Clock;
use super::counters::{RuleCounter, RuleCounters};
use super::directory::{Directory, OrganizationView, Published, PublishedCluster};
use super::follower::{self, Follower};
use super::history::History;
use super::keeper::{Keeper, KeeperInbox};
use super::lookups::Lookups;
use super::parallel;
use super::recovery::{self, Recovered};
use super::session_files::{Renewals, SessionSaver, from_stored};
use super::sessions::SessionTable;
use super::shadow::Shadow;
use super::unconfirmed::Unconfirmed;
use super::writer::Writer;
use super::{Engine, ORDERS_WAITING_MAX, OpenError, Options, SessionStores, Stores, Threads};
use crate::audit::record::{Content, Entry, GapRecord, Identity};
use crate::policy::cow_map::CowMap;
use crate::policy::members::MembersCache;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::rule::RuleMatches;
use crate::policy::snapshot::{ClusterSnapshot, Snapshot};
use crate::policy::state::PolicyState;
use crate::policy::time::Timestamp;
use crate::store::Log;
use crate::store::codec::CounterKey;
use crate::store::codec::audit::{decode_renewal, decode_session_snapshot};

impl Engine {
    /// Recovers policy, audit log and sessions from the stores, and starts the threads that keep them.
    pub fn open(stores: Stores, options: Options, clock: Clock) -> Result<Self, OpenError> {
        let Stores { mut journal, snapshots, state: state_stores, audit, sessions, keep } = stores;
        let boot = getrandom::u64().map_err(|error| OpenError::Random(error.to_string()))?;
        let condition = Arc::new(Condition::new());
        let Opened { log, policy_sequence, left, shared, erasing } =
            AuditLog::open(audit, options.audit, &clock, Arc::clone(&condition)).map_err(recovery_error)?;
        let log = Arc::new(log);
        let Recovered { state, sequence, snapshot_sequence, bytes, owed } =
            recovery::recover(&mut *journal, &*snapshots, &clock, policy_sequence)?;
        let max_age = options.sessions.max_age;
        let table = Arc::new(SessionTable::new(boot, &options.sessions));
        let oldest = log.first_since(before(clock.now(), max_age));
        let SessionStores { snapshots: session_snapshots, journal: session_journal } = sessions;
        restore_sessions(&table, &log, &*session_snapshots, &*session_journal, oldest)?;
        note_unclean(&log, left, &clock);
        record_owed(&log, owed);
        // The policies are compiled while the state store is compared with them, which takes longer.
        let (compiled, store) = while_compiling(&state, &clock, || {
            let store = recovery::open_state(&*state_stores, &state, sequence)?;
            let counters = store.as_deref().map(|store| recovery::read_counters(store, &state));
            Ok::<_, OpenError>((store, counters.unwrap_or_default()))
        });
        let (store, counters) = store?;
        let (directory, lists) = publish_all(&state, compiled, &counters, &clock);
        let (sender, orders) = sync_channel(ORDERS_WAITING_MAX);
        let (say_ready, ready) = sync_channel(1);
        let (renewals, write_renewals) = Renewals::new(session_journal);
        let inbox = Arc::new(KeeperInbox::default());
        let follower = Arc::new(Follower::default());
        let task = follower::Task {
            follower: Arc::clone(&follower),
            store,
            stores: state_stores,
            snapshots,
            state: state.clone(),
            sequence,
            snapshot_sequence,
            bytes,
            directory: Arc::clone(&directory),
            clock: clock.clone(),
            counters_written_millis: i64::MIN / 2,
        };
        let writer = Writer {
            journal,
            unconfirmed: Unconfirmed::of(&state),
            state,
            directory: Arc::clone(&directory),
            follower,
            clock: clock.clone(),
            limits: options.limits,
            condition: Arc::clone(&condition),
            writable: true,
            audit: Arc::clone(&log),
            keeper: Arc::clone(&inbox),
            lists,
            sessions: Arc::clone(&table),
        };
        let saver = SessionSaver {
            table: Arc::clone(&table),
            audit: Arc::clone(&log),
            snapshots: session_snapshots,
            renewals: Arc::clone(&renewals),
            max_age,
        };
        let (orders_to_writer, history) = (Arc::new(Mutex::new(Some(sender))), Arc::<History>::default());
        let actors = PolicyActors { orders: Arc::clone(&orders_to_writer), history: Arc::clone(&history) };
        let maintenance = Maintenance::new(shared, clock.clone(), Box::new(saver), Box::new(actors), erasing);
        let keeper = Keeper {
            inbox: Arc::clone(&inbox),
            directory: Arc::clone(&directory),
            sessions: Arc::clone(&table),
            audit: Arc::clone(&log),
            clock: clock.clone(),
        };
        // The first records are durable before the first answer.
        log.wait_durable(log.queue().last_sequence(), log.options().deadline)?;
        let threads = Threads {
            policy: vec![
                spawn("policy-follower", move || task.run())?,
                spawn("policy-writer", move || writer.run(&orders, &say_ready))?,
            ],
            keeper: Some(spawn("session-keeper", move || keeper.run())?),
            sealer: Some(background::spawn("audit-sealer", move || maintenance.run())?),
            renewals: Some(spawn("session-journal", write_renewals)?),
        };
        // A change that was not confirmed while nothing ran is undone before anybody asks.
        if ready.recv().is_err() {
            tracing::error!("the policy writer ended before it began");
        }
        Ok(Self {
            directory,
            clock,
            decision_ids: DecisionIds::new(boot),
            sessions: table,
            audit: log,
            renewals,
            lookups: Lookups::new(),
            condition,
            keeper: inbox,
            history,
            orders: orders_to_writer,
            threads: Mutex::new(threads),
            _keep: keep,
        })
    }
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX / 2);
    Timestamp::from_micros(now.micros().saturating_sub(age))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(run)
}

fn recovery_error(error: super::audit::AuditOpenError) -> OpenError {
    OpenError::Recovery(error.into())
}

/// Puts on the record that answered decisions may be missing.
fn note_unclean(log: &AuditLog, left: LeftAs, clock: &Clock) {
    let newest = log.newest_sequence();
    if left != LeftAs::UncleanAsync || newest == 0 {
        return;
    }
    let now = clock.now();
    let last = log.read(newest, 1).ok().and_then(|records| records.first().map(|record| record.entry.time));
    let count = log.options().queue_records_max as u64;
    let gap = GapRecord { from_time: last.unwrap_or(now), to_time: now, count };
    tracing::warn!("the service did not end in order: decisions of its last moments may be missing from the audit log");
    log.queue().push(Entry { time: now, organization: None, content: Content::Gap(gap) }, None, true);
}

/// Puts changes on the record that a crash kept from it.
fn record_owed(log: &AuditLog, owed: Vec<(Entry, Option<Identity>)>) {
    for (entry, actor) in owed {
        log.queue().push(entry, actor, true);
    }
}

/// The sessions that were active: those of the newest snapshot, and what the log says since. Without a snapshot, what the
/// log says from `oldest` on, the first record that a session which is still open can be from.
fn restore_sessions(
    table: &SessionTable,
    log: &AuditLog,
    snapshots: &dyn crate::store::Snapshots,
    journal: &dyn Log,
    oldest: u64,
) -> Result<(), OpenError> {
    let newest = log.newest_sequence();
    let shards = snapshots.newest_valid()?.and_then(|(_, bytes)| match decode_session_snapshot(&bytes) {
        Ok(shards) if shards.iter().all(|shard| shard.sequence <= newest) => Some(shards),
        Ok(_) => {
            tracing::warn!("the saved sessions are newer than the audit log: the log alone is used");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the saved sessions cannot be used: the audit log is read instead");
            None
        }
    });
    let mut from = match &shards {
        Some(shards) => shards.iter().map(|shard| shard.sequence).min().unwrap_or_default() + 1,
        None => oldest,
    };
    if let Some(shards) = shards {
        table.restore(shards.into_iter().map(from_stored).collect());
    }
    from = from.max(log.first_sequence());
    while from <= newest {
        let records = log.read(from, usize::MAX)?;
        for record in &records {
            table.replay(record);
        }
        match records.last() {
            Some(last) => from = last.sequence + 1,
            None => break,
        }
    }
    for record in journal.read_from(journal.first_sequence())? {
        let (sequence, bytes) = record?;
        match decode_renewal(&bytes) {
            Ok(renewal) => table.replay_renewal(&renewal.sessions, renewal.time, renewal.lease_expire_time),
            Err(error) => tracing::error!(%error, sequence, "a renewal of sessions cannot be read and is passed over"),
        }
    }
    Ok(())
}

/// What is compiled of an organization.
struct Compiled {
    snapshot: Snapshot,
    shadow: Option<Arc<Shadow>>,
    lists: MembersCache,
}

/// Compiles all organizations, in their order.
fn compile_all(state: &PolicyState, clock: &Clock) -> Vec<Compiled> {
    let organizations: Vec<&Arc<Organization>> = state.organizations.values().collect();
    parallel::map(&organizations, parallel::threads(), |organization| {
        let mut lists = MembersCache::default();
        let snapshot = Snapshot::compile(organization, &mut lists);
        let shadow = Shadow::following(organization.candidate.as_ref(), None, clock.now());
        Compiled { snapshot, shadow, lists }
    })
}

/// Compiles all organizations, and does something else meanwhile.
fn while_compiling<T>(state: &PolicyState, clock: &Clock, other: impl FnOnce() -> T) -> (Vec<Compiled>, T) {
    std::thread::scope(|scope| {
        let compiling = Builder::new().spawn_scoped(scope, || compile_all(state, clock));
        let other = other();
        let compiled = match compiling {
            Ok(compiling) => compiling.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => compile_all(state, clock),
        };
        (compiled, other)
    })
}

fn publish_all(
    state: &PolicyState,
    compiled: Vec<Compiled>,
    counters: &HashMap<CounterKey, RuleMatches>,
    clock: &Clock,
) -> (Arc<Directory>, HashMap<Id, MembersCache>) {
    let cluster =
        PublishedCluster { cluster: Arc::clone(&state.cluster), snapshot: ClusterSnapshot::compile(&state.cluster) };
    let mut deleted = CowMap::default();
    for (id, revision) in &state.deleted {
        deleted.insert(id.clone(), Arc::new(*revision));
    }
    let mut lists = HashMap::with_capacity(compiled.len());
    let published = state.organizations.iter().zip(compiled).map(|((id, organization), compiled)| {
        let counters = restored_counters(organization, counters, clock);
        let view = OrganizationView { organization: Arc::clone(organization), counters: Arc::new(counters) };
        lists.insert(id.clone(), compiled.lists);
        Published { view, snapshot: compiled.snapshot, shadow: compiled.shadow }
    });
    let directory = Directory::new(cluster, deleted, published);
    (Arc::new(directory), lists)
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
