//! Random jumps of the wall clock under load, over restarts, kills, boots and power cuts, and while the policy journal or the
//! audit log fails, by a clock that the test moves. Each run has other seeds; `PORTCULLIS_CAMPAIGN_SEED` repeats one.
//!
//! Invariant: every judgement is by the true time of the model, never by the service's own clock.
//! Not here: what must hold (`clock_truth`), the model of time (`clock_model`), single jumps through the API
//! (`clock_follows`), the real binary under a false clock (`clock_false`).

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::session::SessionId;
use portcullis::engine::audit::{AuditOptions, Durability};
use portcullis::engine::change::{ChangeError, ChangeRequest, ChangeTarget};
use portcullis::engine::question::{CheckError, Question};
use portcullis::engine::{Engine, Options};
use portcullis::policy::decision::Reason;
use portcullis::policy::name::{Id, NodePath};
use portcullis::policy::plan::Mutation;
use portcullis::policy::rule::{Action, ConnectionType, RulePatch, Source};
use portcullis::policy::time::Timestamp;
use tokio::task::JoinHandle;

use crate::audit_engine::{DEFAULT, check, settle, small_units};
use crate::campaign::{any_seed, rounds, seed};
use crate::clock::{Hand, until};
use crate::clock_model::{KeptText, LASTING, SECOND, SMALL, Span, Watched};
use crate::clock_truth::{KEPT, Model, Ruled, micros};
use crate::faults_disk::{Store, Surroundings};
use crate::store_disk::{Fault, Survival, Trouble};

const STEPS: usize = 12;
/// More than is slewed.
const JUMPS: [i64; 3] = [3_600, 30 * 86_400, 365 * 86_400];
/// Schedules that run at a time: most of the time they wait for the service to look at the clocks.
const AT_ONCE: u64 = 40;

/// Numbers that a seed gives.
pub(crate) struct Random(u64);

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

    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }

    fn large(&mut self) -> i64 {
        self.one_of(&JUMPS) * if self.flip() { 1 } else { -1 }
    }
}

/// What the schedules have come to: a campaign that never comes to it shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reached {
    pub(crate) jumps: usize,
    pub(crate) forwards: usize,
    pub(crate) backwards: usize,
    /// A boot with a wrong clock was corrected, or has settled.
    pub(crate) boots_corrected: usize,
    pub(crate) boots_settled: usize,
    pub(crate) marks: usize,
    pub(crate) prunes: usize,
    pub(crate) ends: usize,
    pub(crate) undone: usize,
    /// Corrections that a crash or a failing log came upon.
    pub(crate) interrupted: usize,
}

impl Reached {
    fn all(self) -> [usize; 10] {
        let Self { jumps, forwards, backwards, boots_corrected, boots_settled, .. } = self;
        let Self { marks, prunes, ends, undone, interrupted, .. } = self;
        [jumps, forwards, backwards, boots_corrected, boots_settled, marks, prunes, ends, undone, interrupted]
    }
}

impl AddAssign for Reached {
    fn add_assign(&mut self, other: Self) {
        let [jumps, forwards, backwards, boots_corrected, boots_settled, marks, prunes, ends, undone, interrupted] =
            std::array::from_fn(|at| self.all()[at] + other.all()[at]);
        *self = Self {
            jumps,
            forwards,
            backwards,
            boots_corrected,
            boots_settled,
            marks,
            prunes,
            ends,
            undone,
            interrupted,
        };
    }
}

/// One schedule under way.
pub(crate) struct Run {
    seed: u64,
    random: Random,
    pub(crate) hand: Hand,
    /// What small jumps have come to, in seconds.
    small: i64,
    kept: KeptText,
    pub(crate) watched: Arc<Watched>,
    surroundings: Surroundings,
    /// The policy journal cannot be written.
    pub(crate) journal_fails: bool,
    engine: Option<Arc<Engine>>,
    pub(crate) model: Model,
    number: usize,
    steps: Vec<String>,
    pub(crate) reached: Reached,
}

/// How the service ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Regular,
    Killed,
    PowerCut(Survival),
}

fn options() -> Options {
    let small = small_units();
    let audit =
        AuditOptions { shell: Durability::Sync, preview: Durability::Async, retention_age: Some(KEPT), ..small.audit };
    let mut options = Options { audit, ..Options::default() };
    options.sessions.max_age = KEPT;
    options
}

impl Run {
    fn new(seed: u64) -> Self {
        let (hand, kept, surroundings) = (Hand::new(), KeptText::default(), Surroundings::default());
        let watched = Watched::new(&hand);
        let clock = kept.clock(watched.clone());
        let engine = Arc::new(Engine::open(surroundings.stores().unwrap(), options(), clock).unwrap());
        let model = Model::new(&hand);
        let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Self {
            seed,
            random,
            hand,
            small: 0,
            kept,
            watched,
            surroundings,
            journal_fails: false,
            engine: Some(engine),
            model,
            number: 0,
            steps: Vec::new(),
            reached: Reached::default(),
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub(crate) fn context(&self) -> String {
        format!("PORTCULLIS_CAMPAIGN_SEED={}: {}", self.seed, self.steps.join(", "))
    }

    fn says(&mut self, what: impl Into<String>) {
        self.steps.push(what.into());
    }

    pub(crate) async fn ask(&self, ip: &str, lease: Option<Duration>) -> (Reason, Option<SessionId>) {
        let answer = self.try_to_ask(ip, lease).await;
        answer.unwrap_or_else(|error| panic!("{}: {error}", self.context()))
    }

    async fn try_to_ask(&self, ip: &str, lease: Option<Duration>) -> Result<(Reason, Option<SessionId>), CheckError> {
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
        self.engine().check(&question).await.map(|answer| (answer.reason, answer.session))
    }

    async fn deny(
        &self,
        id: &str,
        ip: &str,
        expire_time: Option<Timestamp>,
        confirm_within: Option<Duration>,
    ) -> Result<(), ChangeError> {
        let patch = RulePatch {
            action: Some(Action::Deny),
            source: Some(Source::Range(ip.parse().unwrap())),
            expire_time: Some(expire_time),
            ..RulePatch::default()
        };
        let mutation = Mutation::CreateRule { id: Some(Id::parse(id).unwrap()), position: None, patch };
        let target = ChangeTarget::Organization { id: Id::parse("default").unwrap(), mutation };
        let request = ChangeRequest { confirm_within, ..ChangeRequest::new(target) };
        self.engine().change(request).await.map(|_| ())
    }

    async fn step(&mut self) {
        let seconds = self.random.one_of(&[8_u64, 40, 200, 4_000]);
        match self.random.below(24) {
            0..3 => {
                let by = self.random.large();
                self.jump(by);
            }
            3 => self.jump_a_little(),
            4..7 => {
                let by = self.random.one_of(&[1_u64, 12, 61, 130, 4_100]);
                self.advance(by);
            }
            7 => self.start_again(End::Regular, false).await,
            8 => self.start_again(End::Killed, false).await,
            9..11 => {
                let end = self.any_end();
                self.start_again(end, true).await;
            }
            11 => self.load(None).await,
            12..14 => {
                let jump = (self.random.large(), self.random.flip());
                self.load(Some(jump)).await;
            }
            14 => self.turn_journal().await,
            15..18 => self.wrong_boot().await,
            18 => self.interrupted_correction().await,
            19 => self.unrecordable_correction().await,
            20..22 => self.rule(seconds).await,
            22 if self.model.waiting.is_none() && !self.journal_fails => {
                self.says(format!("waits {seconds} s"));
                let ip = format!("198.51.100.{}", self.number);
                let within = Some(Duration::from_secs(seconds));
                self.deny(&format!("w{}", self.number), &ip, None, within).await.unwrap();
                self.model.waiting = Some((ip, Span::new(self.model.times.even + micros(seconds))));
            }
            _ => {
                self.says(format!("lease {seconds} s"));
                let (_, session) = self.ask("203.0.113.7", Some(Duration::from_secs(seconds))).await;
                self.model.sessions.push((session.unwrap(), Span::new(self.model.times.even + micros(seconds))));
            }
        }
    }

    fn jump(&mut self, by: i64) {
        self.says(format!("jump {by}"));
        self.reached.jumps += 1;
        self.hand.jump(by);
        self.model.times.jump(by);
    }

    fn jump_a_little(&mut self) {
        let most = SMALL / SECOND;
        let by = if self.small >= most || (self.small > -most && self.random.flip()) { -1 } else { 1 };
        self.says(format!("jump {by}"));
        self.small += by;
        self.hand.jump(by);
    }

    fn advance(&mut self, seconds: u64) {
        self.says(format!("advance {seconds}"));
        self.hand.advance(Duration::from_secs(seconds));
        self.model.times.advance(Duration::from_secs(seconds));
    }

    async fn pass_lasting(&mut self) {
        for _ in 0..2 {
            self.advance(31);
            self.look().await;
        }
    }

    async fn rule(&mut self, seconds: u64) {
        if self.model.waiting.is_some() || self.journal_fails {
            return;
        }
        self.says(format!("rule for {seconds} s"));
        let (id, ip) = (format!("r{}", self.number), format!("192.0.2.{}", self.number));
        let end = self.model.times.now() + micros(seconds);
        self.deny(&id, &ip, Some(Timestamp::from_micros(end)), None).await.unwrap();
        self.model.rules.push(Ruled::new(id, ip, end));
    }

    fn any_end(&mut self) -> End {
        match self.random.below(3) {
            0 => End::Regular,
            1 => End::Killed,
            _ => End::PowerCut(self.random.one_of(&Survival::ALL)),
        }
    }

    /// The service ends, perhaps with the machine, and starts again.
    async fn start_again(&mut self, end: End, is_booted: bool) {
        self.says(format!("{}{end:?}", if is_booted { "boot after " } else { "" }));
        let ended = self.engine.take().unwrap();
        match end {
            End::Regular => {
                ended.close();
                drop(ended);
                self.surroundings.heal();
            }
            End::Killed | End::PowerCut(_) => {
                // The power goes with the machine only.
                let survival = if let End::PowerCut(survival) = end { Some(survival) } else { None };
                self.kept.die(|| self.surroundings.crash(survival, false));
                drop(ended);
            }
        }
        self.journal_fails = false;
        if is_booted {
            self.hand.boot();
        }
        self.start(!is_booted && self.kept.is_there());
    }

    fn start(&mut self, goes_on: bool) {
        self.watched = Watched::new(&self.hand);
        let clock = self.kept.clock(self.watched.clone());
        let opened = Engine::open(self.surroundings.stores().unwrap(), options(), clock);
        let engine = opened.unwrap_or_else(|error| panic!("{}: {error}", self.context()));
        self.engine = Some(Arc::new(engine));
        self.started(goes_on);
    }

    /// Several clients at once; the wall clock jumps meanwhile, and perhaps back.
    async fn load(&mut self, jump: Option<(i64, bool)>) {
        self.says("load");
        let clients: Vec<JoinHandle<()>> = (0..4)
            .map(|client| {
                let engine = Arc::clone(self.engine.as_ref().unwrap());
                tokio::spawn(async move {
                    for number in 0..150 {
                        let ip = format!("203.0.113.{}", 100 + number % 7 + client);
                        check(&engine, "bob@example.com", &ip, ConnectionType::Preview, DEFAULT).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        if let Some((by, is_passing)) = jump {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            self.jump(by);
            if is_passing {
                self.watched.looked().await;
                self.model.times.looked();
                self.jump(-by);
            }
        }
        for client in clients {
            client.await.unwrap();
        }
        settle(self.engine()).await;
    }

    /// The policy journal fails from now on, or works again.
    async fn turn_journal(&mut self) {
        self.says("journal");
        if self.journal_fails {
            self.mend().await;
        } else {
            self.surroundings.trouble(Store::Policy, Trouble::Always(Fault::Error));
            self.journal_fails = true;
        }
    }

    async fn mend(&mut self) {
        self.surroundings.heal();
        self.journal_fails = false;
        let mut writable = self.engine().writable();
        let mends = tokio::time::timeout(crate::clock::PATIENCE, writable.wait_for(|writable| *writable)).await;
        assert!(mends.is_ok(), "{}: it does not recover", self.context());
    }

    /// The machine is booted with a wall clock that is ahead; it is put right before anybody may believe it, perhaps after
    /// another start.
    async fn wrong_boot(&mut self) {
        if !self.journal_fails {
            let seconds = self.random.one_of(&[200, 4_000]);
            self.rule(seconds).await;
        }
        let by = self.random.one_of(&JUMPS);
        self.jump(by);
        let end = self.any_end();
        self.start_again(end, true).await;
        self.look().await;
        let seconds = self.random.one_of(&[1, 13, 45]);
        self.advance(seconds);
        self.look().await;
        let (is_again, is_first, is_booted) = (self.random.flip(), self.random.flip(), self.random.flip());
        if is_first {
            self.jump(-by);
        }
        if is_again {
            let end = if is_booted { self.any_end() } else { self.random.one_of(&[End::Regular, End::Killed]) };
            self.start_again(end, is_booted).await;
            self.look().await;
        }
        if !is_first {
            self.jump(-by);
            self.look().await;
        }
        self.pass_lasting().await;
    }

    /// A correction comes due, and the service dies at that moment.
    async fn interrupted_correction(&mut self) {
        if !self.model.times.is_settled() {
            return;
        }
        let by = self.random.large();
        self.jump(by);
        self.look().await;
        self.advance(u64::try_from(LASTING / SECOND).unwrap() + 1);
        // About as long as the service takes to look.
        tokio::time::sleep(Duration::from_millis(self.random.below(220))).await;
        self.model.times.looked();
        self.hold();
        self.reached.interrupted += 1;
        let end = if self.random.flip() { End::Regular } else { End::Killed };
        self.start_again(end, false).await;
    }

    /// A correction comes due while the audit log fails, perhaps unknown to the service; then it is mended, or a start comes.
    async fn unrecordable_correction(&mut self) {
        if !self.model.times.is_settled() || self.journal_fails {
            return;
        }
        let by = self.random.large();
        self.jump(by);
        self.look().await;
        self.says("the audit log fails");
        self.surroundings.trouble(Store::Audit, Trouble::Always(Fault::Error));
        if self.random.flip() {
            let fails = async || self.try_to_ask("203.0.113.8", None).await.err();
            until("the service knows that the audit log fails", fails).await;
        }
        self.advance(u64::try_from(LASTING / SECOND).unwrap() + 1);
        self.watched.looked().await;
        self.model.times.looked();
        self.hold();
        self.reached.interrupted += 1;
        match self.random.below(3) {
            0 => {
                self.says("mended");
                self.mend().await;
            }
            1 => self.start_again(End::Regular, false).await,
            _ => self.start_again(End::Killed, false).await,
        }
    }
}

async fn schedule(seed: u64) -> Reached {
    let mut run = Run::new(seed);
    for number in 1..=STEPS {
        run.number = number;
        run.step().await;
        run.look().await;
    }
    run.surroundings.heal();
    run.engine.take().unwrap().close();
    run.reached
}

fn run(seed: u64) -> Reached {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(schedule(seed))
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are what the long form is run for")]
fn no_schedule_of_jumps_revives_a_rule_or_moves_a_deadline() {
    if let Some(seed) = seed() {
        println!("{:?}", run(seed));
        return;
    }
    let (first, mut reached, mut failed) = (any_seed(), Reached::default(), 0);
    let rounds = rounds(1, 13);
    for round in 0..rounds {
        std::thread::scope(|scope| {
            let seeds = (0..AT_ONCE).map(|number| first.wrapping_add(round * AT_ONCE + number));
            let threads: Vec<_> = seeds.map(|seed| scope.spawn(move || run(seed))).collect();
            for thread in threads {
                match thread.join() {
                    Ok(more) => reached += more,
                    Err(_) => failed += 1,
                }
            }
        });
    }
    println!("{} schedules from seed {first} on: {reached:?}", rounds * AT_ONCE);
    assert_eq!(failed, 0, "schedules failed; each has said its seed");
    assert!(reached.all().iter().all(|times| *times > 0), "something is never reached: {reached:?}");
}
