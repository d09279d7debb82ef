//! A campaign over faults: an engine on a simulated disk, to which anything may happen at any time, against a model of
//! what it has acknowledged.
//!
//! `PORTCULLIS_CAMPAIGN=long` runs thousands of schedules. A failure tells its seed and the shortest schedule that was
//! found; `PORTCULLIS_CAMPAIGN_SEED` set to that seed runs the same again.
//!
//! Invariant: time, faults and crashes come from the schedule only. Threads are real, so a schedule may go well once and
//! wrong once.
//! Not here: what is demanded (`faults_invariants`), and what lies outside the engine (`faults_process`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis::audit::record::Actor;
use portcullis::engine::audit::{AuditOptions, Durability, EraseRequest, OnAuditFailure};
use portcullis::engine::change::{ChangeError, ChangeRequest, Changed};
use portcullis::engine::question::{Answer, CheckError, Question};
use portcullis::engine::sessions::{Renewed, SessionOptions};
use portcullis::engine::{Engine, OpenError, Options};
use portcullis::policy::decision::Decision;
use portcullis::policy::name::NodePath;
use portcullis::policy::rule::ConnectionType;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use tokio::time::{Instant, timeout};

use crate::campaign::{any_seed, rounds, seed};
use crate::clock::Hand;
use crate::faults_actions::{ADDRESSES, Action, Asked, Edit, NODES, action, id};
use crate::faults_disk::{Store, Surroundings};
use crate::faults_invariants as invariants;
use crate::faults_model::{Erased, IDLE, Known, MAX_AGE, Maybe, Model, State};
use crate::store_disk::{Survival, Trouble};

/// Schedules in the short form and in the long one.
const SCHEDULES: (u64, u64) = (64, 4_000);

/// Schedules that run at a time: most of the time they wait for threads that try again.
const WORKERS: usize = 16;

const ACTIONS_MAX: usize = 40;

/// So few that a crash shows when more are lost than may be.
const QUEUE_RECORDS_MAX: usize = 64;

/// The longest that anything may take on a disk that answers, and that an engine may take to end or to recover.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a schedule waits for what may wait for a disk.
const SHORT: Duration = Duration::from_millis(200);

/// How an engine is configured.
#[derive(Clone, Copy, Debug)]
struct Setup {
    preview_sync: bool,
    lets_go: bool,
    retention: bool,
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

fn setup() -> impl Strategy<Value = Setup> {
    (any::<bool>(), prop::bool::weighted(0.25), any::<bool>()).prop_map(|(preview_sync, lets_go, retention)| Setup {
        preview_sync,
        lets_go,
        retention,
    })
}

/// One schedule under way.
struct Campaign {
    setup: Setup,
    surroundings: Surroundings,
    hand: Hand,
    engine: Option<Arc<Engine>>,
    model: Model,
    /// What becomes of the disk when a cut comes.
    armed: (Option<Survival>, bool),
    /// The audit log fails for good, and the engine knows.
    unrecordable: bool,
    /// What the audit log fails with.
    audit_trouble: Option<Trouble>,
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
    async fn run(setup: Setup, schedule: &[Action]) {
        let (surroundings, hand) = (Surroundings::default(), Hand::new());
        let engine = Engine::open(surroundings.stores().unwrap(), setup.options(), hand.clock()).unwrap();
        let model = Model::of(&engine);
        let mut campaign = Self {
            setup,
            surroundings,
            hand,
            engine: Some(Arc::new(engine)),
            model,
            armed: (None, false),
            unrecordable: false,
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
        campaign.restart().await;
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

    fn engine(&self) -> Arc<Engine> {
        Arc::clone(self.engine.as_ref().unwrap())
    }

    /// Whether something may be refused now.
    fn may_refuse(&self) -> bool {
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
            Action::Advance(seconds) => {
                self.hand.advance(Duration::from_secs(*seconds));
                self.model.judge(self.hand.now());
            }
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
                self.surroundings.cut_after(*operations);
            }
            Action::Restart => self.restart().await,
        }
    }

    /// How long to wait for an answer that may wait for a disk; none came: nobody knows.
    async fn answered<T>(&self, what: &str, answer: impl Future<Output = T>) -> Option<T> {
        let waits = self.may_refuse();
        let answer = timeout(if waits { SHORT } else { LIMIT }, answer).await.ok();
        assert!(answer.is_some() || self.may_refuse(), "{what} was never answered");
        answer
    }

    async fn change(&mut self, organization: usize, edit: &Edit) {
        // What comes late would come before it.
        if self.model.maybe.iter().any(|maybe| maybe.late) {
            return;
        }
        let (engine, name) = (self.engine(), crate::faults_actions::ORGANIZATIONS[organization]);
        let target = edit.target(name, self.hand.now());
        let request = ChangeRequest { actor: "admin@example.com".into(), ..ChangeRequest::new(target) };
        let judged = ChangeRequest { validate_only: true, ..request.clone() };
        let Some(judged) = self.answered("a change to be judged", engine.change(judged)).await else { return };
        let expected = match judged {
            Ok(Changed { outcome, .. }) => self.model.with(&outcome),
            Err(ChangeError::Refused(_) | ChangeError::Gated(_)) => return,
            Err(error) => {
                assert!(self.may_refuse(), "{error}");
                return;
            }
        };
        match self.answered("a change", engine.change(request)).await {
            Some(Ok(changed)) => {
                assert_eq!(self.model.with(&changed.outcome).policy, expected.policy, "judged, and made otherwise");
                self.model.adopt(expected, self.hand.now());
            }
            // Nothing of it was written.
            Some(Err(ChangeError::NotRecordable(error))) => assert!(self.may_refuse(), "{error}"),
            Some(Err(error)) => {
                assert!(self.may_refuse(), "{error}");
                self.model.maybe.push(expected);
            }
            None => self.model.maybe.push(Maybe { late: true, ..expected }),
        }
    }

    async fn check(&mut self, asked: &[Asked]) {
        let answers: Vec<_> = asked
            .iter()
            .map(|asked| (asked.clone(), self.model.email(asked.user)))
            .map(|(asked, email)| tokio::spawn(ask(self.engine(), asked, email)))
            .collect();
        for (asked, answer) in asked.iter().zip(answers) {
            let answer = timeout(LIMIT, answer).await.expect("a check is never answered").unwrap();
            let email = self.model.email(asked.user);
            self.acknowledge(asked, email, answer);
        }
    }

    fn acknowledge(&mut self, asked: &Asked, email: String, answer: Result<Answer, CheckError>) {
        let (now, is_sync) = (self.hand.now(), self.is_sync(asked.connection_type));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                assert!(self.may_refuse(), "{asked:?}: {error}");
                let fails_for_good = matches!(self.audit_trouble, Some(Trouble::Always(_)));
                self.unrecordable |= is_sync && fails_for_good && !self.setup.lets_go;
                return;
            }
        };
        assert!(!self.unrecordable, "{asked:?} is answered while nothing can be recorded: {answer:?}");
        invariants::a_check_is_decided_by_what_was_acknowledged(&self.model, asked, &answer, now);
        if !self.model.recorded.contains(&answer.decision_id) {
            self.model.answered.insert(answer.decision_id, is_sync);
        }
        let Some(session) = answer.session else {
            let is_denied = answer.reason.decision() == Decision::Deny;
            assert!(is_denied || self.setup.lets_go, "{asked:?} is allowed without a session");
            return;
        };
        let lease = asked.lease.map(|lease| now + Duration::from_secs(lease));
        let known = Known {
            email,
            ip: asked.ip,
            endpoint: asked.endpoint(),
            connection_type: asked.connection_type,
            start: now,
            seen: (now, now),
            lease: lease.map(|lease| (lease, lease)),
            state: State::Active,
            durable: (is_sync && !self.setup.lets_go) || self.model.opened.contains_key(&session),
            may_be_revoked: false,
        };
        match self.model.sessions.entry(session) {
            std::collections::btree_map::Entry::Vacant(vacant) => drop(vacant.insert(known)),
            std::collections::btree_map::Entry::Occupied(mut occupied) => {
                let folded = occupied.get_mut();
                let same = (&folded.email, folded.ip, &folded.endpoint) == (&known.email, known.ip, &known.endpoint);
                assert!(same && asked.connection_type == ConnectionType::Preview, "{session} is given out twice");
                assert!(matches!(folded.state, State::Active | State::Ending), "{folded:?} goes on");
                folded.seen.1 = now;
                if is_sync && !self.setup.lets_go {
                    folded.seen.0 = now;
                }
            }
        }
    }

    fn is_sync(&self, connection_type: ConnectionType) -> bool {
        connection_type == ConnectionType::Shell || self.setup.preview_sync
    }

    async fn traffic(&mut self, count: usize) {
        let engine = self.engine();
        let asked: Vec<Asked> = (0..count).map(traffic).collect();
        for asked in asked.chunks(32) {
            let answers: Vec<_> = asked
                .iter()
                .map(|asked| tokio::spawn(ask(Arc::clone(&engine), asked.clone(), "traffic@example.com".to_owned())))
                .collect();
            for (asked, answer) in asked.iter().zip(answers) {
                let answer = timeout(LIMIT, answer).await.expect("a check is never answered").unwrap();
                let refused = answer.is_err();
                self.acknowledge(asked, "traffic@example.com".to_owned(), answer);
                if refused {
                    return;
                }
            }
        }
    }

    /// The `nth` of the sessions that the PEP holds to be open.
    fn nth(
        &self,
        nth: usize,
        connection_type: Option<ConnectionType>,
    ) -> Option<portcullis::audit::session::SessionId> {
        let open = self.model.sessions.iter().filter(|(_, known)| {
            known.state != State::Ended
                && connection_type.is_none_or(|only| known.connection_type == only && known.lease.is_some())
        });
        let open: Vec<_> = open.map(|(id, _)| *id).collect();
        open.get(nth.checked_rem(open.len())?).copied()
    }

    async fn end(&mut self, nth: usize) {
        let Some(session) = self.nth(nth, None) else { return };
        let engine = self.engine();
        let known = self.model.sessions[&session].clone();
        let organization = id(known.endpoint.split('/').nth(1).unwrap());
        let ended = self.answered("the end of a session", engine.end_session(&organization, session)).await;
        let now = self.hand.now();
        let state = match ended {
            Some(Ok(Some(_))) => State::Ended,
            Some(Ok(None)) => {
                assert!(!known.is_active(now), "{session} is unknown: {known:?}");
                State::Ending
            }
            Some(Err(error)) => {
                assert!(self.may_refuse(), "{error}");
                State::Ending
            }
            None => State::Ending,
        };
        self.model.sessions.get_mut(&session).unwrap().state = state;
    }

    async fn renew(&mut self, nth: usize, lease: u64) {
        let Some(session) = self.nth(nth, Some(ConnectionType::Shell)) else { return };
        let (engine, now, lease) = (self.engine(), self.hand.now(), Duration::from_secs(lease));
        let known = self.model.sessions[&session].clone();
        let organization = id(known.endpoint.split('/').nth(1).unwrap());
        let named = [(organization, Some(session))];
        let renewed = self.answered("a renewal", engine.renew_sessions(&named, lease)).await;
        let renewed = match renewed {
            Some(Ok(renewed)) => Some(renewed[0]),
            Some(Err(error)) => {
                assert!(self.may_refuse(), "{error}");
                None
            }
            None => None,
        };
        let (first, last) = known.lease.unwrap();
        let until = match renewed {
            Some(Renewed::Renewed) => {
                assert!(known.state != State::Revoked && now < known.due().1, "{known:?} is renewed");
                (now + lease, now + lease)
            }
            Some(Renewed::Revoked) => {
                assert!(known.may_be_revoked, "{known:?} is revoked, and was never denied");
                (first, last)
            }
            Some(Renewed::Lost) => {
                assert!(!known.is_active(now), "{known:?} is lost");
                (first, last)
            }
            None => (first.min(now + lease), last.max(now + lease)),
        };
        self.model.sessions.get_mut(&session).unwrap().lease = Some(until);
    }

    async fn erase(&mut self, user: usize, meanwhile: &[Asked]) {
        let (engine, email) = (self.engine(), self.model.email(user));
        let asked_by = Actor { name: "admin@example.com".into() };
        let request = EraseRequest { organization: None, email: email.clone(), including_actor: false, asked_by };
        let erasing = tokio::spawn(async move { engine.erase_user(request).await });
        tokio::task::yield_now().await;
        self.model.perhaps_erased.insert(email.clone());
        self.check(meanwhile).await;
        let erased = self.answered("an erasure", erasing).await.map(Result::unwrap);
        let unused = meanwhile.iter().all(|asked| asked.user != user);
        match erased {
            Some(Ok((_, sequence))) => {
                self.model.erased.insert(email.clone(), Erased { sequence, unused });
            }
            Some(Err(error)) => assert!(self.may_refuse(), "{error}"),
            None => {}
        }
        for known in self.model.sessions.values_mut().filter(|known| known.email == email) {
            // Nothing shows any more that it would be allowed.
            known.may_be_revoked = true;
        }
        self.model.next_email(user);
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
        let mut writable = engine.writable();
        let healed = timeout(LIMIT, writable.wait_for(|writable| *writable)).await;
        if self.surroundings.is_off() {
            return;
        }
        healed.expect("it does not recover").unwrap();
        self.resolve_late(&engine).await;
        self.everything_is_recorded(&engine).await;
        let begun = Instant::now();
        loop {
            self.look(false);
            let faults = invariants::sessions_that_are_not_what_they_must_be(&self.model, &engine, self.hand.now());
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
        );
        invariants::every_change_has_one_record_and_revisions_are_dense(model, &engine);
        invariants::the_erased_are_nowhere(model, &engine, &self.surroundings);
        let address = ADDRESSES[self.model.log.len() % ADDRESSES.len()];
        let shell = Asked { ip: address, connection_type: ConnectionType::Shell, ..traffic(0) };
        self.check(&[Asked { user: 0, ..shell }]).await;
    }

    /// Waits until everything that was queued is durable.
    async fn everything_is_recorded(&self, engine: &Engine) {
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
            ..ChangeRequest::new(Edit::RequireProjects(false).target("default", self.hand.now()))
        };
        let judged = timeout(LIMIT, engine.change(judged)).await.expect("the policy writer does not answer");
        drop(judged);
        self.look(false);
        self.model.maybe.iter_mut().for_each(|maybe| maybe.late = false);
    }

    /// What holds at every moment.
    fn look(&mut self, after_a_crash: bool) {
        let (engine, now) = (self.engine(), self.hand.now());
        let model = &mut self.model;
        invariants::every_acknowledged_change_is_there_and_nothing_else(model, &engine, after_a_crash, now);
        invariants::sequences_are_dense_and_what_was_shown_stays(model, &engine, after_a_crash);
        invariants::nothing_younger_than_the_longest_session_was_removed(model, &engine, now);
        invariants::checkpoints_cover_only_what_is_durable(model, &engine);
        let gone = self.model.answered.values().any(|waited| *waited);
        assert!(self.setup.lets_go || !gone, "an answer had waited for a record that is not shown");
    }

    async fn crash(&mut self, (survival, lost): (Option<Survival>, bool)) {
        let engine = self.engine.take().unwrap();
        self.surroundings.crash(survival, lost);
        self.audit_trouble = None;
        self.unrecordable = false;
        self.ending.push(std::thread::spawn(move || {
            engine.close();
            drop(engine);
        }));
        self.model.crashed();
        invariants::the_log_verifies_and_older_checkpoints_hold(&self.model, &self.surroundings);
        self.start().await;
    }

    async fn restart(&mut self) {
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
            self.surroundings.crash(survival, lost);
        }
        if self.surroundings.is_troubled() || self.setup.lets_go {
            self.model.crashed();
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
                    self.surroundings.crash(survival, self.armed.1);
                    self.audit_trouble = None;
                    self.unrecordable = false;
                    self.model.crashed();
                }
            }
        };
        self.engine = Some(Arc::new(engine));
        self.look(true);
        self.model.maybe.clear();
        self.model.judge(self.hand.now());
        let engine = self.engine();
        invariants::every_acknowledged_decision_is_recorded_or_in_a_gap(
            &mut self.model,
            true,
            self.setup.lets_go,
            QUEUE_RECORDS_MAX as u64,
        );
        invariants::every_session_was_opened_on_the_record(&self.model, &engine);
        if !self.may_refuse() {
            invariants::the_history_is_dense(&self.model, &engine).await;
            self.settle().await;
        }
    }

    fn open(&self) -> Result<Engine, OpenError> {
        let stores = self.surroundings.stores()?;
        Engine::open(stores, self.setup.options(), self.hand.clock())
    }
}

/// A preview of somebody whom no other action names.
fn traffic(number: usize) -> Asked {
    Asked {
        user: 0,
        ip: ADDRESSES[number % 2],
        organization: 0,
        node: NODES[0],
        connection_type: ConnectionType::Preview,
        lease: None,
    }
}

async fn ask(engine: Arc<Engine>, asked: Asked, email: String) -> Result<Answer, CheckError> {
    let endpoint = asked.endpoint();
    let question = Question {
        address: asked.ip.parse().unwrap(),
        connection_type: asked.connection_type,
        target: NodePath::parse(&endpoint).unwrap(),
        user_email: &email,
        session_lease: asked.lease.map(Duration::from_secs),
        request_id: "",
        min_revision: 0,
        min_cluster_revision: 0,
    };
    engine.check(&question).await
}

/// Runs one schedule, and looks for a shorter one where it fails.
fn run(seed: u64) -> Result<(), String> {
    let config = ProptestConfig {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 100,
        max_shrink_time: 20_000,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    };
    let schedule = (setup(), vec(action(), 1..ACTIONS_MAX));
    let ran = TestRunner::new(config).run(&schedule, |(setup, schedule)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(Campaign::run(setup, &schedule));
        Ok(())
    });
    ran.map_err(|error| format!("PORTCULLIS_CAMPAIGN_SEED={seed}: {error}"))
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure that the test is there to show")]
fn whatever_happens_what_was_acknowledged_holds() {
    let (first, schedules) = seed().map_or_else(|| (any_seed(), rounds(SCHEDULES.0, SCHEDULES.1)), |seed| (seed, 1));
    let (next, begun) = (AtomicU64::new(0), Instant::now());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= schedules {
                return Ok(());
            }
            run(first.wrapping_add(number)).inspect_err(|failure| {
                println!("{failure}");
                next.store(schedules, Ordering::SeqCst);
            })?;
        }
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap().err()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    println!("{schedules} schedules in {:?}, from seed {first} on", begun.elapsed());
}
