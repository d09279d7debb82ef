//! Starting the engine: recover, publish, start the threads.
//!
//! Invariant: nothing is answered before everything acknowledged is restored: policy, audit log and sessions. By then the
//! audit log has the changes that a crash kept out of it. Nothing of this runs again later.
//! Not here: reading each of them back (`recovery`, `session_files`, `audit::recovery`), and which adapters there are
//! (`server`).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::Duration;

use super::actors::PolicyActors;
use super::apply::Applier;
use super::audit::{AuditError, AuditLog, Condition, LeftAs, Maintenance, Opened};
use super::background;
use super::check::DecisionIds;
use super::clock::{Clock, Correction, Recorded};
use super::commands::{Command, Commands};
use super::counters::{RuleCounter, RuleCounters};
use super::directory::{Directory, OrganizationView, Published, PublishedCluster};
use super::expiry;
use super::follower::{self, Follower};
use super::keeper::Keeper;
use super::lookups::Lookups;
use super::mirror::StoredCounters;
use super::parallel;
use super::read_back::{self, Heard, PolicyFiles};
use super::recount;
use super::recovery::{self, Recovered};
use super::scales::Scales;
use super::session_files::{Renewals, SessionSaver};
use super::sessions::SessionTable;
use super::shadow::Shadow;
use super::unconfirmed::Unconfirmed;
use super::writer::{Timekeeping, Writer};
use super::{Closing, Engine, OpenError, Options, Stores};
use crate::audit::record::{Content, Entry, GapRecord, Record};
use crate::lifeline::spawn;
use crate::locks::IgnorePoison;
use crate::policy::cow_map::CowMap;
use crate::policy::limits::Limits;
use crate::policy::members::MembersCache;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::rule::RuleMatches;
use crate::policy::snapshot::{ClusterSnapshot, Snapshot};
use crate::policy::state::PolicyState;
use crate::policy::time::Timestamp;
use crate::store::codec::CounterKey;
use crate::store::{Redaction, Snapshots};

/// So many of the newest records are looked at for the latest time.
const NEWEST_RECORDS: u64 = 1_000;

impl Engine {
    /// Recovers policy, audit log and sessions from the stores, and starts the threads that keep them.
    pub fn open(stores: Stores, options: Options, clock: Clock) -> Result<Self, OpenError> {
        Self::open_and(stores, options, clock, || Ok(()))
    }

    /// The same. `agreed` is called once everything was compared, before anything is written: so what it writes is not left
    /// behind by a start that is refused.
    pub fn open_and(
        stores: Stores,
        options: Options,
        clock: Clock,
        agreed: impl FnOnce() -> io::Result<()>,
    ) -> Result<Self, OpenError> {
        let Stores { mut journal, snapshots, state: state_stores, audit, sessions, lineage, backup, keep } = stores;
        let random = getrandom::u64().map_err(|error| OpenError::Random(error.to_string()))?;
        let boot = lineage.boot(random);
        let condition = Arc::new(Condition::new());
        let audit = AuditLog::read_back(audit, options.audit, &clock, Arc::clone(&condition));
        let mut policy = PolicyFiles { journal: &mut *journal, snapshots: &*snapshots, copies: &*state_stores };
        let Heard { audit, sessions: restored, policy } =
            read_back::hear(audit, &sessions, &mut policy, &clock, options.restored)?;
        let Recovered { state, sequence, last_change, snapshot_sequence, bytes, owed } = policy;
        let recorded = newest_time(&audit.log)?.max(sessions.last_seen(restored.as_ref(), &audit.log)?);
        // A change that the log still owes may be from after a correction that is not on the record.
        let newest = owed.last().map(|(entry, _)| entry.time).max(recorded);
        let leap = clock.begin(newest, Recorded { time: recorded, ..audit.log.recorded_clock() });
        let (table, max_age) = (SessionTable::new(boot, &options.sessions), options.sessions.max_age);
        // The first record that an open session can have.
        let oldest = audit.log.first_since(before(leap.map_or(clock.now(), |leap| leap.from), max_age));
        sessions.restore(restored, &table, &audit.log, oldest, &audit.erasing)?;
        // The policies are compiled while the mirror is compared with them, which takes longer.
        let (compiled, mirror) = while_compiling(&state, &clock, || {
            let mirror = recovery::open_mirror(&*state_stores, &state, sequence, audit.log.newest_sequence())?;
            let counters = mirror.as_ref().map(|mirror| mirror.read_counters(&state));
            let counters = counters.unwrap_or_default().if_followed_by(&audit.log);
            Ok::<_, OpenError>((mirror, counters))
        });
        let (mirror, counters) = mirror?;
        agreed().map_err(OpenError::Write)?;
        // Everything agrees: from here on the log is in use.
        let Opened { log, left, shared, erasing } = audit.start().map_err(recovery_error)?;
        for (entry, actor) in owed {
            log.queue().push(entry, actor, true);
        }
        note_leap(&log, leap, &table);
        note_unclean(&log, left, recorded, &clock);
        note_key_change(&log, &clock);
        let (directory, lists) = publish_all(&state, compiled, &counters, &clock);
        // The first records are durable before the first answer, and those of changes before matches are counted after them.
        log.wait_durable(log.queue().last_sequence(), log.options().deadline)?;
        log.forget_how_it_was_left();
        recount::recount(&directory, &log, &counters);
        log.sign_first();
        let (sender, commands) = Commands::new();
        let (renewals, write_renewals) = Renewals::new(sessions.journal);
        let engine = Self {
            directory,
            clock,
            decision_ids: DecisionIds::new(boot),
            sessions: Arc::new(table),
            audit: Arc::new(log),
            renewals,
            lookups: Lookups::new(),
            condition,
            keeper: Arc::default(),
            history: Arc::default(),
            commands: Arc::new(sender),
            threads: Mutex::default(),
            closing: Closing::default(),
            nat64_prefixes: options.nat64_prefixes,
            lineage,
            backup_files: backup,
            _keep: keep,
        };
        let follower = Arc::new(Follower::default());
        let task = follower::Task {
            follower: Arc::clone(&follower),
            mirror,
            stores: state_stores,
            snapshots,
            state: state.clone(),
            sequence,
            last_change,
            snapshot_sequence,
            bytes,
            directory: Arc::clone(&engine.directory),
            audit: Arc::clone(&engine.audit),
            counters_written: None,
        };
        let writer = engine.writer(journal, options.limits, state, lists, follower)?;
        let saver = Box::new(engine.saver(sessions.snapshots, max_age));
        let actors = PolicyActors { commands: Arc::clone(&engine.commands), history: Arc::clone(&engine.history) };
        let maintenance = Maintenance::new(shared, engine.clock.clone(), saver, Box::new(actors), erasing);
        engine.start(task, (writer, commands), maintenance, write_renewals)?;
        Ok(engine)
    }

    fn writer(
        &self,
        journal: Box<dyn Redaction>,
        limits: Limits,
        state: PolicyState,
        lists: HashMap<Id, MembersCache>,
        follower: Arc<Follower>,
    ) -> Result<Writer, OpenError> {
        let applier = Applier {
            unconfirmed: Unconfirmed::of(&state, self.clock.moment(), &self.audit)?,
            expiries: expiry::deadlines(&state),
            state,
            owed: VecDeque::new(),
            lists,
            clock: self.clock.clone(),
            audit: Arc::clone(&self.audit),
            directory: Arc::clone(&self.directory),
            keeper: Arc::clone(&self.keeper),
            follower,
        };
        let (sessions, condition) = (Arc::clone(&self.sessions), Arc::clone(&self.condition));
        let (etags, timekeeping) = (self.etags(), Timekeeping::default());
        Ok(Writer { journal, applier, limits, etags, sessions, condition, writable: true, timekeeping })
    }

    fn saver(&self, snapshots: Box<dyn Snapshots>, max_age: Duration) -> SessionSaver {
        let (table, audit) = (Arc::clone(&self.sessions), Arc::clone(&self.audit));
        let (renewals, directory) = (Arc::clone(&self.renewals), Arc::clone(&self.directory));
        SessionSaver { table, audit, snapshots, renewals, directory, clock: self.clock.clone(), max_age }
    }

    /// Starts the threads. Returns once overdue unconfirmed changes are undone.
    fn start(
        &self,
        mut follower: follower::Task,
        (mut writer, commands): (Writer, Receiver<Command>),
        mut maintenance: Maintenance,
        write_renewals: impl FnMut() + Send + 'static,
    ) -> Result<(), OpenError> {
        let keeper = Keeper {
            inbox: Arc::clone(&self.keeper),
            directory: Arc::clone(&self.directory),
            sessions: Arc::clone(&self.sessions),
            audit: Arc::clone(&self.audit),
            clock: self.clock.clone(),
        };
        let (say_ready, ready) = sync_channel(1);
        let mut threads = self.threads.lock().ignore_poison();
        threads.policy.push(spawn("policy-writer", &self.condition, move || writer.run(&commands, &say_ready))?);
        // Ends once the writer has.
        threads.policy.push(spawn("policy-follower", &self.condition, move || follower.run())?);
        threads.keeper = Some(spawn("session-keeper", &self.condition, move || keeper.run())?);
        threads.sealer = Some(background::spawn("audit-sealer", &self.condition, move || maintenance.run())?);
        threads.renewals = Some(spawn("session-journal", &self.condition, write_renewals)?);
        drop(threads);
        if ready.recv().is_err() {
            tracing::error!("the policy writer ended before it was ready");
        }
        Ok(())
    }
}

/// The latest time of the newest records, each as it is counted at its place. Those of before the last record about the
/// clock say nothing, for a correction may have led back. In a log of an earlier version the end of a session has the time
/// when it was due, so that the very newest record does not suffice.
fn newest_time(log: &AuditLog) -> Result<Option<Timestamp>, AuditError> {
    let (newest, clock, scales) = (log.newest_sequence(), log.recorded_clock(), Scales::of(log)?);
    let mut next = newest.saturating_sub(NEWEST_RECORDS - 1).max(clock.sequence).max(log.first_sequence());
    let mut latest = clock.time;
    while next <= newest {
        let records = log.read(next, usize::MAX).unwrap_or_default();
        let Some(last) = records.last() else { break };
        next = last.sequence + 1;
        let in_place =
            |record: &Record| scales.in_place(record.sequence, record.entry.time).unwrap_or(record.entry.time);
        latest = records.iter().map(|record| in_place(record)).chain(latest).max();
    }
    Ok(latest)
}

/// The moment `age` before `now`.
fn before(now: Timestamp, age: Duration) -> Timestamp {
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX / 2);
    Timestamp::from_micros(now.micros().saturating_sub(age))
}

fn recovery_error(error: super::audit::AuditOpenError) -> OpenError {
    OpenError::Recovery(error.into())
}

/// Decision time leapt ahead at this start. What was owed is from before it; all else that this start records is not.
fn note_leap(log: &AuditLog, leap: Option<Correction>, table: &SessionTable) {
    if let Some((sequence, change)) = leap.map(|leap| log.record_leap(leap)) {
        table.replay_correction(sequence, &change);
    }
}

/// Records of answered decisions may be missing after the newest record that was found, which has the time `last`.
fn note_unclean(log: &AuditLog, left: LeftAs, last: Option<Timestamp>, clock: &Clock) {
    let count = match left {
        LeftAs::UncleanAsync => log.options().queue_records_max as u64,
        LeftAs::UncleanUnrecorded => 0,
        LeftAs::Clean | LeftAs::Unclean => return,
    };
    let (Some(last), now) = (last, clock.now()) else { return };
    let gap = GapRecord { from_time: last, to_time: now, count };
    tracing::warn!(
        "the service was not shut down cleanly: decisions of its last moments may be missing from the audit log"
    );
    log.queue().push(Entry { time: now, organization: None, content: Content::Gap(gap) }, None, true);
}

/// Another key signs from now on. Durable before it does.
fn note_key_change(log: &AuditLog, clock: &Clock) {
    let Some(change) = log.key_change() else { return };
    tracing::warn!(
        previous_key = %change.previous_key,
        key = %change.key,
        "another key signs the audit log from now on: tell whoever verifies it"
    );
    log.queue().push(Entry { time: clock.now(), organization: None, content: Content::KeyChanged(change) }, None, true);
}

/// The compiled parts of an organization.
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
        let shadow = Shadow::following(organization.shadow.as_ref(), None, clock.now());
        Compiled { snapshot, shadow, lists }
    })
}

/// Compiles all organizations while `other` runs.
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
    counters: &StoredCounters,
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

/// The stored counters of an organization's rules. A rule without one was made after they were stored, and is counted since
/// then; where it is not known what was stored, it is counted from now on.
fn restored_counters(organization: &Organization, kept: &StoredCounters, clock: &Clock) -> RuleCounters {
    let restored = organization.rules.iter().filter_map(|rule| {
        let counter = match kept.counters.get(&CounterKey::new(&organization.id, rule)) {
            Some((matches, through)) => {
                // The stored time is rounded down, perhaps to before the rule was created.
                let matches = RuleMatches { start: matches.start.max(rule.create_time), ..*matches };
                RuleCounter::new(matches, *through)
            }
            None if kept.counted.is_some() => RuleCounter::starting(rule.create_time.max(kept.time)),
            None => return None,
        };
        Some(((rule.id.clone(), rule.create_time), Arc::new(counter)))
    });
    RuleCounters::following(organization, &restored.collect(), clock.now())
}
