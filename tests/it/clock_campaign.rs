//! Random jumps of the wall clock under load, over restarts, kills, boots and power cuts, and while the policy journal or the
//! audit log fails, by a clock that the test moves. Each run has other seeds; `PORTCULLIS_CAMPAIGN_SEED` repeats one.
//!
//! Invariant: every judgement is by the true time of the model, never by the service's own clock.
//! Not here: the steps (`clock_steps`), what must hold (`clock_truth`), the model of time (`clock_model`), single jumps through the API
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

use crate::audit_engine::{DEFAULT, small_units};
use crate::campaign::{first_seed, rounds, seed};
use crate::clock::Hand;
use crate::clock_model::{KeptText, Watched};
use crate::clock_truth::{KEPT, Model};
use crate::faults_disk::Surroundings;

const STEPS: usize = 12;
/// More than is slewed.
pub(crate) const JUMPS: [i64; 3] = [3_600, 30 * 86_400, 365 * 86_400];
/// Schedules that run at a time: most of the time they wait for the service to look at the clocks.
const AT_ONCE: u64 = 40;

/// Numbers that a seed gives.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    pub(crate) fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    pub(crate) fn flip(&mut self) -> bool {
        self.below(2) == 0
    }

    pub(crate) fn large(&mut self) -> i64 {
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
    pub(crate) random: Random,
    pub(crate) hand: Hand,
    /// What small jumps have come to, in seconds.
    pub(crate) small: i64,
    pub(crate) kept: KeptText,
    pub(crate) watched: Arc<Watched>,
    pub(crate) surroundings: Surroundings,
    /// The policy journal cannot be written.
    pub(crate) journal_fails: bool,
    pub(crate) engine: Option<Arc<Engine>>,
    pub(crate) model: Model,
    pub(crate) number: usize,
    steps: Vec<String>,
    pub(crate) reached: Reached,
}

pub(crate) fn options() -> Options {
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

    pub(crate) fn says(&mut self, what: impl Into<String>) {
        self.steps.push(what.into());
    }

    pub(crate) async fn ask(&self, ip: &str, lease: Option<Duration>) -> (Reason, Option<SessionId>) {
        let answer = self.try_to_ask(ip, lease).await;
        answer.unwrap_or_else(|error| panic!("{}: {error}", self.context()))
    }

    pub(crate) async fn try_to_ask(
        &self,
        ip: &str,
        lease: Option<Duration>,
    ) -> Result<(Reason, Option<SessionId>), CheckError> {
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

    pub(crate) async fn deny(
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
    let (first, mut reached, mut failed) = (first_seed(), Reached::default(), 0);
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
    // So few schedules as the short form has may miss something.
    let is_long = rounds > 1;
    assert!(!is_long || reached.all().iter().all(|times| *times > 0), "something is never reached: {reached:?}");
}
