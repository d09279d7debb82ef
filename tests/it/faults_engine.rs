//! A campaign over faults: an engine on a simulated disk, to which anything may happen at any time, against a model of
//! what it has acknowledged.
//!
//! Invariant: time, faults and crashes come from the schedule only. Threads are real, so a schedule may go well once and
//! wrong once.
//! Not here: which schedules are run (`faults_schedules`), what is demanded (`faults_invariants`), and what lies outside the
//! engine (`faults_process`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::record::DecisionId;
use portcullis::engine::audit::{AuditOptions, Durability, OnAuditFailure};
use portcullis::engine::change::ChangeRequest;
use portcullis::engine::sessions::SessionOptions;
use portcullis::engine::{Engine, OpenError, Options};
use portcullis::policy::rule::ConnectionType;
use proptest::prelude::*;
use tokio::time::{Instant, timeout};

use crate::clock::Hand;
use crate::clock_model::{KeptText, Times, Watched};
use crate::faults_actions::{ADDRESSES, Action, Asked, Edit};
use crate::faults_calls::traffic;
use crate::faults_disk::{Store, Surroundings};
use crate::faults_invariants as invariants;
use crate::faults_model::{IDLE, MAX_AGE, Model};
use crate::store_disk::{Survival, Trouble};

/// So few that a crash shows when more are lost than may be.
const QUEUE_RECORDS_MAX: usize = 64;

/// The longest that anything may take on a disk that answers, and that an engine may take to end or to recover.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// How an engine is configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) preview_sync: bool,
    pub(crate) lets_go: bool,
    pub(crate) retention: bool,
}

impl Setup {
    fn options(self) -> Options {
        let audit = AuditOptions {
            shell: Durability::Sync,
            preview: if self.preview_sync { Durability::Sync } else { Durability::Async },
            on_failure: if self.lets_go { OnAuditFailure::Allow } else { OnAuditFailure::Deny },
            async_interval: Duration::from_millis(1),
            queue_records_max: QUEUE_RECORDS_MAX,
            retention_age: self.retention.then_some(MAX_AGE),
            unit_age_max: Duration::ZERO,
            checkpoint_interval: Duration::ZERO,
            retention_interval: Duration::ZERO,
            closing_interval: Duration::from_millis(100),
            ..AuditOptions::default()
        };
        let sessions = SessionOptions { idle: IDLE, max_age: MAX_AGE, key: [1, 2], ..SessionOptions::default() };
        Options { audit, sessions, ..Options::default() }
    }
}

pub(crate) fn setup() -> impl Strategy<Value = Setup> {
    (any::<bool>(), prop::bool::weighted(0.25), any::<bool>()).prop_map(|(preview_sync, lets_go, retention)| Setup {
        preview_sync,
        lets_go,
        retention,
    })
}

/// One schedule under way.
pub(crate) struct Campaign {
    pub(crate) setup: Setup,
    pub(crate) surroundings: Surroundings,
    pub(crate) hand: Hand,
    engine: Option<Arc<Engine>>,
    pub(crate) model: Model,
    /// What was put aside, and what was acknowledged by then.
    copy: Option<(Surroundings, Model, Times)>,
    /// The decisions of all lineages.
    pub(crate) given: HashSet<DecisionId>,
    /// What becomes of the disk when a cut comes.
    armed: (Option<Survival>, bool),
    /// The audit log fails for good, and the engine knows.
    pub(crate) unrecordable: bool,
    /// What decision time must be.
    pub(crate) times: Times,
    pub(crate) kept: KeptText,
    pub(crate) watched: Arc<Watched>,
    /// The machine goes off after some operations.
    pub(crate) is_armed: bool,
    /// What the audit log fails with.
    pub(crate) audit_trouble: Option<Trouble>,
    /// Engines that have died and are still ending.
    ending: Vec<std::thread::JoinHandle<()>>,
}

impl Drop for Campaign {
    /// Also after a failure: no thread may wait for a disk that never answers.
    fn drop(&mut self) {
        self.surroundings.crash(None, false);
    }
}

impl Campaign {
    pub(crate) async fn run(setup: Setup, schedule: &[Action]) {
        let (surroundings, hand) = (Surroundings::default(), Hand::new());
        let (kept, watched, times) = (KeptText::default(), Watched::new(&hand), Times::new(&hand));
        let clock = kept.clock(watched.clone());
        let engine = Engine::open(surroundings.stores().unwrap(), setup.options(), clock).unwrap();
        let model = Model::of(&engine);
        let mut campaign = Self {
            setup,
            surroundings,
            hand,
            engine: Some(Arc::new(engine)),
            model,
            copy: None,
            given: HashSet::new(),
            armed: (None, false),
            unrecordable: false,
            times,
            kept,
            watched,
            is_armed: false,
            audit_trouble: None,
            ending: Vec::new(),
        };
        for action in schedule {
            campaign.perform(action).await;
            if campaign.surroundings.is_off() {
                campaign.crash(campaign.armed).await;
            }
            campaign.look(false);
        }
        campaign.heal().await;
        campaign.restart(false).await;
        campaign.crash((Some(Survival::Synced), false)).await;
        for ending in campaign.ending.drain(..) {
            let begun = Instant::now();
            while !ending.is_finished() {
                assert!(begun.elapsed() < LIMIT, "an engine does not end after its disk is gone");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            ending.join().unwrap();
        }
    }

    pub(crate) fn engine(&self) -> Arc<Engine> {
        Arc::clone(self.engine.as_ref().unwrap())
    }

    /// Whether something may be refused now.
    pub(crate) fn may_refuse(&self) -> bool {
        self.surroundings.is_troubled() || self.surroundings.is_off()
    }

    async fn perform(&mut self, action: &Action) {
        match action {
            Action::Change { organization, edit } => self.change(*organization, edit).await,
            Action::Check(asked) => self.check(asked).await,
            Action::Traffic { count } => self.traffic(*count).await,
            Action::End { nth } => self.end(*nth).await,
            Action::Renew { nth, lease } => self.renew(*nth, *lease).await,
            Action::Erase { user, meanwhile } => self.erase(*user, meanwhile).await,
            Action::Jump(seconds) => self.jump(*seconds).await,
            Action::Advance { seconds, stays } => self.advance(*seconds, *stays).await,
            Action::Trouble { store, trouble } => {
                self.surroundings.trouble(*store, *trouble);
                if *store == Store::Audit {
                    self.audit_trouble = Some(*trouble);
                    self.unrecordable = false;
                }
            }
            Action::Stall { store } => self.surroundings.stall(*store),
            Action::Heal => self.heal().await,
            Action::Crash { survival, lost } => self.crash((*survival, *lost)).await,
            Action::CutAfter { operations, survival, lost } => {
                self.armed = (*survival, *lost);
                self.is_armed = true;
                self.surroundings.cut_after(*operations);
            }
            Action::Restart => self.restart(false).await,
            Action::Copy => self.restart(true).await,
            Action::PutBack => self.put_back().await,
        }
    }

    /// Everything works again, and then everything is done that was to be done.
    async fn heal(&mut self) {
        self.surroundings.heal();
        self.audit_trouble = None;
        self.unrecordable = false;
        self.settle().await;
    }

    /// §2.8 and §5: nothing is refused once its cause is gone, and nothing needs a restart.
    async fn settle(&mut self) {
        let engine = self.engine();
        let (writable, begun) = (engine.writable(), Instant::now());
        while !*writable.borrow() {
            if self.surroundings.is_off() {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "it does not recover");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.resolve_late(&engine).await;
        self.everything_is_recorded(&engine).await;
        let begun = Instant::now();
        loop {
            self.look(false);
            let faults =
                invariants::sessions_that_are_not_what_they_must_be(&self.model, &engine, self.now(), self.even());
            if faults.is_empty() || self.surroundings.is_off() {
                break;
            }
            assert!(begun.elapsed() < LIMIT, "{faults:#?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.everything_is_recorded(&engine).await;
        if self.surroundings.is_off() {
            return;
        }
        self.look(false);
        let (model, lets_go) = (&mut self.model, self.setup.lets_go);
        invariants::every_acknowledged_decision_is_recorded_or_in_a_gap(
            model,
            false,
            lets_go,
            QUEUE_RECORDS_MAX as u64,
            engine.audit().first_sequence(),
        );
        invariants::every_change_has_one_record_and_revisions_are_dense(model, &engine);
        invariants::the_erased_are_nowhere(model, &engine, &self.surroundings);
        if !lets_go {
            invariants::every_acknowledged_end_is_recorded(model, &engine);
        }
        let address = ADDRESSES[self.model.log.len() % ADDRESSES.len()];
        let shell = Asked { ip: address, connection_type: ConnectionType::Shell, ..traffic(0) };
        self.check(&[Asked { user: 0, ..shell.clone() }]).await;
        self.ask_for_more(&shell).await;
    }

    /// Waits until everything that was queued is durable.
    pub(crate) async fn everything_is_recorded(&self, engine: &Engine) {
        let begun = Instant::now();
        while engine.audit().newest_sequence() < engine.audit().queue().last_sequence() {
            if self.surroundings.is_off() {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "what was queued is not recorded");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Finds out whether a change that nobody answered was made: one that is judged now is judged after it.
    async fn resolve_late(&mut self, engine: &Engine) {
        let judged = ChangeRequest {
            validate_only: true,
            ..ChangeRequest::new(Edit::RequireProjects(false).target("default", self.now()))
        };
        let judged = timeout(LIMIT, engine.change(judged)).await.expect("the policy writer does not answer");
        drop(judged);
        self.look(false);
        self.model.maybe.iter_mut().for_each(|maybe| maybe.late = false);
    }

    /// What holds at every moment.
    pub(crate) fn look(&mut self, after_a_crash: bool) {
        let (engine, now, even) = (self.engine(), self.now(), self.even());
        let model = &mut self.model;
        invariants::every_acknowledged_change_is_there_and_nothing_else(model, &engine, after_a_crash, now);
        invariants::sequences_are_dense_and_what_was_shown_stays(model, &engine, after_a_crash, &self.surroundings);
        invariants::nothing_younger_than_the_longest_session_was_removed(model, &engine, even);
        invariants::checkpoints_cover_only_what_is_durable(model, &engine);
        let gone = self.model.answered.values().any(|(_, waited)| *waited);
        assert!(!gone, "an answer had waited for a record that is not shown");
    }

    async fn crash(&mut self, (survival, lost): (Option<Survival>, bool)) {
        self.die(survival, lost);
        if survival.is_some() {
            self.boot();
        }
        self.abandon();
        self.model.crashed();
        invariants::the_log_verifies_and_older_checkpoints_hold(&self.model, &self.surroundings);
        self.start().await;
    }

    /// Leaves an engine to itself whose disk is gone.
    fn abandon(&mut self) {
        let engine = self.engine.take().unwrap();
        self.audit_trouble = None;
        self.unrecordable = false;
        self.ending.push(std::thread::spawn(move || {
            engine.close();
            drop(engine);
        }));
    }

    async fn put_back(&mut self) {
        let Some((copy, model, times)) = self.copy.take() else { return };
        self.surroundings.put_back(copy);
        self.abandon();
        self.model = model;
        self.go_back_to(&times);
        self.start().await;
    }

    async fn restart(&mut self, copies: bool) {
        // A disk that does not answer holds the end up: that is what the bound of the server is for.
        self.surroundings.answer();
        let engine = self.engine.take().unwrap();
        let (done, closed) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            engine.close();
            drop(engine);
            let _ = done.send(());
        });
        timeout(LIMIT, closed).await.expect("the engine does not close").unwrap();
        if self.surroundings.is_off() {
            let (survival, lost) = self.armed;
            self.die(survival, lost);
            self.audit_trouble = None;
            self.unrecordable = false;
            self.model.crashed();
        }
        if self.surroundings.is_troubled() || self.setup.lets_go {
            self.model.crashed();
        }
        if copies && !self.may_refuse() {
            self.copy = Some((self.surroundings.copy(), self.model.clone(), self.times.clone()));
        }
        self.start().await;
    }

    /// Starts on what is there. Where a start fails, it may: the next one, on a disk that works, does not.
    async fn start(&mut self) {
        let engine = loop {
            match self.open() {
                Ok(engine) => break engine,
                Err(error) => {
                    assert!(self.may_refuse(), "a crash keeps the service from starting: {error}");
                    let survival = if self.surroundings.is_off() { self.armed.0 } else { None };
                    self.die(survival, self.armed.1);
                    self.audit_trouble = None;
                    self.unrecordable = false;
                    self.model.crashed();
                }
            }
        };
        self.engine = Some(Arc::new(engine));
        self.times.started(true, 0, 0);
        self.look(true);
        self.model.maybe.clear();
        self.model.judge(self.now());
        let engine = self.engine();
        invariants::every_acknowledged_decision_is_recorded_or_in_a_gap(
            &mut self.model,
            true,
            self.setup.lets_go,
            QUEUE_RECORDS_MAX as u64,
            engine.audit().first_sequence(),
        );
        invariants::every_session_was_opened_on_the_record(&self.model, &engine);
        if !self.may_refuse() {
            invariants::the_history_is_dense(&self.model, &engine, &self.surroundings).await;
            self.until_settled().await;
            self.settle().await;
        }
    }

    fn open(&mut self) -> Result<Engine, OpenError> {
        let stores = self.surroundings.stores()?;
        self.watched = Watched::new(&self.hand);
        Engine::open(stores, self.setup.options(), self.kept.clock(self.watched.clone()))
    }

    /// The process dies, at one moment for its disk and its clock.
    fn die(&mut self, survival: Option<Survival>, lost: bool) {
        self.is_armed = false;
        self.kept.die(|| self.surroundings.crash(survival, lost));
    }
}
