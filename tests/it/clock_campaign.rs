//! Random jumps of the wall clock under load, over restarts, kills and boots, and while the policy journal fails, by a clock
//! that the test moves.
//!
//! Invariant: no expired rule is revived, no live rule expires early, time advances between corrections, and sessions,
//! unconfirmed changes and what retention keeps end when their time has passed by the even clock.
//! Not here: single jumps through the API (`clock_follows`), the real binary under a false clock (`clock_false`).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{Content, RecordType};
use portcullis::audit::session::SessionId;
use portcullis::engine::audit::{AuditOptions, Durability};
use portcullis::engine::change::{ChangeRequest, ChangeTarget};
use portcullis::engine::clock::Kept;
use portcullis::engine::question::Question;
use portcullis::engine::{Engine, Options};
use portcullis::policy::decision::{Decision, Reason};
use portcullis::policy::name::{Id, NodePath};
use portcullis::policy::plan::Mutation;
use portcullis::policy::rule::{Action, ConnectionType, RulePatch, Source};
use portcullis::policy::time::Timestamp;

use crate::audit_engine::{DEFAULT, check, settle, small_units};
use crate::campaign::{rounds, seed};
use crate::clock::{Hand, until};
use crate::clock_follows::A_LOOK;
use crate::faults_disk::{Store, Surroundings};
use crate::store_disk::{Fault, Trouble};

const STEPS: usize = 20;
const JUMPS: [i64; 4] = [1, 3_600, 30 * 86_400, 365 * 86_400];
/// By so much a slew can move a deadline over restarts: each makes up for 10 s at most.
const SLEWS: i64 = 30_000_000;
/// How long records are kept, and how old a session becomes.
const KEPT: Duration = Duration::from_hours(2);
const KEPT_MICROS: i64 = 2 * 3_600 * 1_000_000;
/// Records that may stay, because they share a tile or a unit with younger ones.
const TILES: u64 = 512;

/// Numbers that a seed gives.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

struct Model {
    /// The address of a rule, when it expires, and whether it has been seen expired.
    rules: Vec<(String, Timestamp, bool)>,
    /// Sessions and unconfirmed changes, with when they end by the even clock, in microseconds.
    sessions: Vec<(SessionId, i64)>,
    waiting: Option<(String, i64)>,
    /// Records, each with when it was there by the even clock.
    records: Vec<(u64, i64)>,
    /// The sequence of the newest correction.
    corrected: u64,
    newest: Timestamp,
}

struct Run {
    seed: u64,
    random: Random,
    hand: Hand,
    kept: Arc<Mutex<Option<String>>>,
    surroundings: Surroundings,
    /// The policy journal cannot be written.
    journal_fails: bool,
    engine: Option<Arc<Engine>>,
    model: Model,
    steps: Vec<String>,
}

fn options() -> Options {
    let small = small_units();
    let audit = AuditOptions { preview: Durability::Async, retention_age: Some(KEPT), ..small.audit };
    let mut options = Options { audit, ..Options::default() };
    options.sessions.max_age = KEPT;
    options
}

fn open(surroundings: &Surroundings, hand: &Hand, kept: &Arc<Mutex<Option<String>>>) -> Arc<Engine> {
    let (last, to) = (kept.lock().unwrap().clone(), Arc::clone(kept));
    let write = move |text: &str| {
        *to.lock().unwrap() = Some(text.to_owned());
        Ok(())
    };
    let forgotten = Arc::clone(kept);
    let forget = move || {
        *forgotten.lock().unwrap() = None;
        Ok(())
    };
    let clock = hand.clock().kept(Kept { last, write: Box::new(write), forget: Box::new(forget) });
    Arc::new(Engine::open(surroundings.stores().unwrap(), options(), clock).unwrap())
}

impl Run {
    fn new(seed: u64) -> Self {
        let (hand, kept, surroundings) = (Hand::new(), Arc::default(), Surroundings::default());
        let engine = open(&surroundings, &hand, &kept);
        let newest = engine.clock().now();
        let (rules, sessions, records) = (Vec::new(), Vec::new(), Vec::new());
        let model = Model { rules, sessions, records, waiting: None, corrected: 0, newest };
        let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let (engine, steps) = (Some(engine), Vec::new());
        Self { seed, random, hand, kept, surroundings, journal_fails: false, engine, model, steps }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    fn steady(&self) -> i64 {
        portcullis::engine::clock::Source::steady(&self.hand)
    }

    async fn ask(&self, ip: &str, lease: Option<Duration>) -> (Reason, Option<SessionId>) {
        let question = Question {
            address: ip.parse().unwrap(),
            connection_type: ConnectionType::Shell,
            target: NodePath::parse(DEFAULT).unwrap(),
            user_email: "ann@example.com",
            session_lease: lease,
            request_id: "",
            min_revision: 0,
            min_cluster_revision: 0,
        };
        let answer = self.engine().check(&question).await.unwrap();
        (answer.reason, answer.session)
    }

    async fn deny(&self, id: &str, ip: &str, expire_time: Option<Timestamp>, confirm_within: Option<Duration>) {
        let patch = RulePatch {
            action: Some(Action::Deny),
            source: Some(Source::Range(ip.parse().unwrap())),
            expire_time: Some(expire_time),
            ..RulePatch::default()
        };
        let mutation = Mutation::CreateRule { id: Some(Id::parse(id).unwrap()), position: None, patch };
        let target = ChangeTarget::Organization { id: Id::parse("default").unwrap(), mutation };
        self.engine().change(ChangeRequest { confirm_within, ..ChangeRequest::new(target) }).await.unwrap();
    }

    async fn step(&mut self, number: usize) {
        let kind = self.random.below(14);
        let seconds = self.random.one_of(&[5_u64, 40, 200, 4_000]);
        match kind {
            0..3 => {
                let by = self.random.one_of(&JUMPS) * if self.random.below(2) == 0 { 1 } else { -1 };
                self.steps.push(format!("jump {by}"));
                self.hand.jump(by);
            }
            3..6 => {
                let by = self.random.one_of(&[1_u64, 12, 61, 130, 4_100]);
                self.steps.push(format!("advance {by}"));
                self.hand.advance(Duration::from_secs(by));
            }
            6 => self.start_again("restart", false, false).await,
            9 => self.start_again("kill", true, false).await,
            10 => {
                let is_killed = self.random.below(2) == 0;
                self.start_again("boot", is_killed, true).await;
            }
            11 => self.load().await,
            12 => self.turn_journal().await,
            7 if self.model.waiting.is_none() && !self.journal_fails => {
                self.steps.push(format!("rule for {seconds} s"));
                let (ip, end) = (format!("192.0.2.{number}"), self.engine().clock().now());
                let end = end.after(Duration::from_secs(seconds));
                self.deny(&format!("r{number}"), &ip, Some(end), None).await;
                self.model.rules.push((ip, end, false));
            }
            8 if self.model.waiting.is_none() && !self.journal_fails => {
                self.steps.push(format!("waits {seconds} s"));
                let ip = format!("198.51.100.{number}");
                self.deny(&format!("w{number}"), &ip, None, Some(Duration::from_secs(seconds))).await;
                self.model.waiting = Some((ip, self.steady() + i64::try_from(seconds).unwrap() * 1_000_000));
            }
            _ => {
                self.steps.push(format!("lease {seconds} s"));
                let lease = Duration::from_secs(seconds);
                let (_, session) = self.ask("203.0.113.7", Some(lease)).await;
                self.model
                    .sessions
                    .push((session.unwrap(), self.steady() + i64::try_from(seconds).unwrap() * 1_000_000));
            }
        }
    }

    /// The service ends, in order or not, perhaps with the machine, and starts again.
    async fn start_again(&mut self, how: &str, is_killed: bool, is_booted: bool) {
        self.steps.push(how.to_owned());
        self.surroundings.heal();
        self.journal_fails = false;
        settle(self.engine()).await;
        let ended = self.engine.take().unwrap();
        let (before, even) = (ended.clock().now(), self.steady());
        if is_killed {
            let kept = self.kept.lock().unwrap().clone();
            self.surroundings.crash(None, false);
            drop(ended);
            *self.kept.lock().unwrap() = kept;
        } else {
            ended.close();
        }
        if is_booted {
            self.hand.boot();
        }
        let engine = open(&self.surroundings, &self.hand, &self.kept);
        // Only a boot may make decision time leap: nothing is known of the time between. Deadlines leap with it.
        let now = engine.clock().now();
        let leap = (self.steady() - now.micros()) - (even - before.micros());
        self.engine = Some(engine);
        if is_booted {
            let Model { sessions, waiting, records, newest, .. } = &mut self.model;
            let times = sessions.iter_mut().map(|(_, at)| at).chain(records.iter_mut().map(|(_, at)| at));
            times.chain(waiting.iter_mut().map(|(_, at)| at)).for_each(|at| *at += leap);
            *newest = now;
        }
    }

    /// Several clients at once.
    async fn load(&mut self) {
        self.steps.push("load".to_owned());
        let clients = (0..4).map(|client| {
            let engine = Arc::clone(self.engine.as_ref().unwrap());
            tokio::spawn(async move {
                for number in 0..150 {
                    let ip = format!("203.0.113.{}", 100 + number % 7 + client);
                    check(&engine, "bob@example.com", &ip, ConnectionType::Preview, DEFAULT).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        settle(self.engine()).await;
    }

    /// The policy journal fails from now on, or works again.
    async fn turn_journal(&mut self) {
        self.steps.push("journal".to_owned());
        if self.journal_fails {
            self.surroundings.heal();
            // It is tried every second.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
        } else {
            self.surroundings.trouble(Store::Policy, Trouble::Always(Fault::Error));
        }
        self.journal_fails = !self.journal_fails;
    }

    /// What retention keeps is no younger than it says, and no older but for tiles that have begun.
    async fn look_at_retention(&mut self, context: &str) {
        let (steady, newest) = (self.steady(), settle(self.engine()).await);
        let first = || self.engine().audit().first_sequence();
        for (sequence, at) in &self.model.records {
            let is_young = steady - at < KEPT_MICROS - SLEWS;
            assert!(
                !is_young || first() <= *sequence,
                "{context}: record {sequence} went {} µs early",
                at + KEPT_MICROS
            );
        }
        // After a boot nothing goes for a minute.
        if !self.engine().clock().is_settled() {
            return;
        }
        let is_old = |(sequence, at): &&(u64, i64)| steady - at > KEPT_MICROS + SLEWS && *sequence + TILES < newest;
        if let Some((old, _)) = self.model.records.iter().rev().find(is_old) {
            let goes = async || (first() + TILES > *old).then_some(());
            until(&format!("{context}: record {old} goes"), goes).await;
        }
        self.model.records.push((newest, steady));
    }

    /// The corrections on the record: their sequences, and the time before each.
    fn corrections(&self) -> Vec<(u64, Timestamp)> {
        let filter = RecordFilter { types: vec![RecordType::ClockChanged], ..RecordFilter::default() };
        let records = self.engine().audit().list(&filter, None, 1_000).unwrap().records;
        let from = |content: &Content| match content {
            Content::ClockChanged(change) => change.from_time,
            other => panic!("{other:?}"),
        };
        records.iter().rev().map(|record| (record.sequence, from(&record.entry.content))).collect()
    }

    async fn look(&mut self, advanced: bool) {
        tokio::time::sleep(A_LOOK).await;
        let context = format!("seed {}: {}", self.seed, self.steps.join(", "));
        let mut corrections = self.corrections();
        corrections.retain(|(sequence, _)| *sequence > self.model.corrected);
        let corrected = corrections.last().map_or(self.model.corrected, |(sequence, _)| *sequence);
        let now = self.engine().clock().now();
        let was_corrected = !corrections.is_empty();
        assert!(was_corrected || now >= self.model.newest, "{context}: time went back without a record");
        assert!(was_corrected || !advanced || now > self.model.newest, "{context}: time stands still");
        for (ip, end, seen) in self.model.rules.clone() {
            let before = corrections.iter().any(|(_, from)| *from >= end);
            let expired = seen || before || now >= end;
            let (reason, _) = self.ask(&ip, None).await;
            let expected = if expired { Decision::Allow } else { Decision::Deny };
            let settled = self.engine().clock().now() == now
                && self.corrections().iter().all(|(sequence, _)| *sequence <= corrected);
            assert!(!settled || reason.decision() == expected, "{context}: {ip} until {end}, it is {now}: {reason:?}");
            for rule in &mut self.model.rules {
                rule.2 |= rule.0 == ip && expired;
            }
        }
        self.model.corrected = corrected;
        self.model.newest = now;
        self.look_at_deadlines(&context).await;
        self.look_at_retention(&context).await;
    }

    async fn look_at_deadlines(&mut self, context: &str) {
        let organization = Id::parse("default").unwrap();
        let steady = self.steady();
        for (id, end) in self.model.sessions.clone() {
            let is_active = || self.engine().sessions().get(&organization, id).is_some();
            assert!(is_active() || steady > end - SLEWS, "{context}: a session ended {} µs early", end - steady);
            if steady > end + SLEWS {
                until(&format!("{context}: the end of a session"), async || (!is_active()).then_some(())).await;
                self.model.sessions.retain(|(other, _)| *other != id);
            } else if !is_active() {
                self.model.sessions.retain(|(other, _)| *other != id);
            }
        }
        let Some((ip, end)) = self.model.waiting.clone() else { return };
        let (reason, _) = self.ask(&ip, None).await;
        let waits = reason.decision() == Decision::Deny;
        assert!(waits || steady > end - SLEWS, "{context}: a change was undone {} µs early", end - steady);
        if steady > end + SLEWS && self.journal_fails {
            return;
        }
        if steady > end + SLEWS {
            until(&format!("{context}: the undoing"), async || {
                (self.ask(&ip, None).await.0.decision() == Decision::Allow).then_some(())
            })
            .await;
        }
        if !waits || steady > end + SLEWS {
            self.model.waiting = None;
        }
    }
}

async fn schedule(seed: u64) -> usize {
    let mut run = Run::new(seed);
    for number in 1..=STEPS {
        run.step(number).await;
        let advanced = run.steps.last().is_some_and(|step| step.starts_with("advance"));
        run.look(advanced).await;
    }
    run.surroundings.heal();
    run.engine.take().unwrap().close();
    run.steps.iter().filter(|step| step.starts_with("jump")).count()
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are what the long form is run for")]
fn no_schedule_of_jumps_revives_a_rule_or_moves_a_deadline() {
    if let Some(seed) = seed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(schedule(seed));
        return;
    }
    let (at_once, rounds, mut jumps) = (25, rounds(2, 20), 0);
    for round in 0..rounds {
        jumps += std::thread::scope(|scope| {
            let run = |seed| {
                move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(schedule(seed))
                }
            };
            let threads: Vec<_> = (1..=at_once).map(|number| scope.spawn(run(round * at_once + number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
    }
    println!("{} schedules, {jumps} jumps", rounds * at_once);
}
