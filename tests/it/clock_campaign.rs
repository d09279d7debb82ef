//! Random jumps of the wall clock under load and over restarts, by a clock that the test moves.
//!
//! Invariant: no expired rule is revived, no live rule expires early, time advances between corrections, and sessions and
//! unconfirmed changes end when their time has passed by the even clock.
//! Not here: single jumps through the API (`clock_follows`), the real binary under a false clock (`clock_false`).

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{Content, RecordType};
use portcullis::audit::session::SessionId;
use portcullis::engine::Engine;
use portcullis::engine::change::{ChangeRequest, ChangeTarget};
use portcullis::engine::clock::Kept;
use portcullis::engine::question::Question;
use portcullis::policy::decision::{Decision, Reason};
use portcullis::policy::name::{Id, NodePath};
use portcullis::policy::plan::Mutation;
use portcullis::policy::rule::{Action, ConnectionType, RulePatch, Source};
use portcullis::policy::time::Timestamp;
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};

use crate::audit_engine::{DEFAULT, key, open_with_policy, small_units};
use crate::campaign::rounds;
use crate::clock::{Hand, until};
use crate::clock_follows::A_LOOK;

const STEPS: usize = 14;
const JUMPS: [i64; 4] = [1, 3_600, 30 * 86_400, 365 * 86_400];
/// By so much a slew can move a deadline over restarts: each makes up for 10 s at most.
const SLEWS: i64 = 30_000_000;

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
    corrections: usize,
    newest: Timestamp,
}

struct Run {
    seed: u64,
    random: Random,
    hand: Hand,
    kept: Arc<Mutex<Option<String>>>,
    engine: Option<Engine>,
    model: Model,
    steps: Vec<String>,
}

fn open(data_dir: &Path, hand: &Hand, kept: &Arc<Mutex<Option<String>>>) -> Engine {
    for part in ["audit", "sessions", "policy"] {
        std::fs::create_dir_all(data_dir.join(part)).unwrap();
    }
    let policy = FileJournal::open(Arc::new(RealDisk), data_dir.join("policy"), JournalOptions::default()).unwrap();
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
    open_with_policy(Box::new(policy), Arc::new(RealDisk), data_dir, key(1), small_units(), clock)
}

impl Run {
    fn new(seed: u64, data_dir: &Path) -> Self {
        let (hand, kept) = (Hand::new(), Arc::default());
        let engine = open(data_dir, &hand, &kept);
        let newest = engine.clock().now();
        let model = Model { rules: Vec::new(), sessions: Vec::new(), waiting: None, corrections: 0, newest };
        let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Self { seed, random, hand, kept, engine: Some(engine), model, steps: Vec::new() }
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

    async fn step(&mut self, number: usize, data_dir: &Path) {
        let kind = self.random.below(10);
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
            6 => {
                self.steps.push("restart".to_owned());
                self.engine.take().unwrap().close();
                self.engine = Some(open(data_dir, &self.hand, &self.kept));
            }
            7 if self.model.waiting.is_none() => {
                self.steps.push(format!("rule for {seconds} s"));
                let (ip, end) = (format!("192.0.2.{number}"), self.engine().clock().now());
                let end = end.after(Duration::from_secs(seconds));
                self.deny(&format!("r{number}"), &ip, Some(end), None).await;
                self.model.rules.push((ip, end, false));
            }
            8 if self.model.waiting.is_none() => {
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

    /// The corrections on the record: the time before each.
    fn corrections(&self) -> Vec<Timestamp> {
        let filter = RecordFilter { types: vec![RecordType::ClockChanged], ..RecordFilter::default() };
        let records = self.engine().audit().list(&filter, None, 1_000).unwrap().records;
        let from = |content: &Content| match content {
            Content::ClockChanged(change) => change.from_time,
            other => panic!("{other:?}"),
        };
        records.iter().rev().map(|record| from(&record.entry.content)).collect()
    }

    async fn look(&mut self, advanced: bool) {
        tokio::time::sleep(A_LOOK).await;
        let context = format!("seed {}: {}", self.seed, self.steps.join(", "));
        let corrections = self.corrections();
        let now = self.engine().clock().now();
        let was_corrected = corrections.len() > self.model.corrections;
        assert!(was_corrected || now >= self.model.newest, "{context}: time went back without a record");
        assert!(was_corrected || !advanced || now > self.model.newest, "{context}: time stands still");
        for (ip, end, seen) in self.model.rules.clone() {
            let before = corrections.iter().skip(self.model.corrections).any(|from| *from >= end);
            let expired = seen || before || now >= end;
            let (reason, _) = self.ask(&ip, None).await;
            let expected = if expired { Decision::Allow } else { Decision::Deny };
            let settled = self.engine().clock().now() == now && self.corrections().len() == corrections.len();
            assert!(!settled || reason.decision() == expected, "{context}: {ip} until {end}, it is {now}: {reason:?}");
            for rule in &mut self.model.rules {
                rule.2 |= rule.0 == ip && expired;
            }
        }
        self.model.corrections = corrections.len();
        self.model.newest = now;
        self.look_at_deadlines(&context).await;
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

async fn schedule(seed: u64) {
    let temporary = tempfile::tempdir().unwrap();
    let mut run = Run::new(seed, temporary.path());
    for number in 1..=STEPS {
        run.step(number, temporary.path()).await;
        let advanced = run.steps.last().is_some_and(|step| step.starts_with("advance"));
        run.look(advanced).await;
    }
    run.engine.take().unwrap().close();
}

#[test]
fn no_schedule_of_jumps_revives_a_rule_or_moves_a_deadline() {
    let at_once = 25;
    for round in 0..rounds(2, 20) {
        std::thread::scope(|scope| {
            for number in 0..at_once {
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(schedule(1 + round * at_once + number));
                });
            }
        });
    }
}
