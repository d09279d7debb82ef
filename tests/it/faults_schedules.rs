//! The schedules of the campaign over faults: many at a time, each by its seed.
//!
//! `PORTCULLIS_CAMPAIGN=long` runs thousands of schedules. A failure tells its seed and the shortest schedule that was
//! found; `PORTCULLIS_CAMPAIGN_SEED` set to that seed runs the same again.
//!
//! Invariant: a schedule that hangs fails the test instead of holding it up.
//! Not here: what a schedule does (`faults_engine`), and what it consists of (`faults_actions`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use tokio::time::Instant;

use crate::campaign::{first_seed, rounds, seed};
use crate::faults_actions::action;
use crate::faults_engine::{Campaign, setup};
use crate::faults_time::REACHED;

/// Schedules in the short form and in the long one.
const SCHEDULES: (u64, u64) = (48, 4_000);

/// Schedules that run at a time: most of the time they wait for threads that try again.
const WORKERS: usize = 8;

const ACTIONS_MAX: usize = 40;

/// A schedule that takes longer than this hangs; looking for a shorter one is included.
const STUCK: Duration = Duration::from_mins(3);

/// So many failures are looked into before the rest is left.
const FAILURES_MAX: usize = 4;

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

/// Runs schedules until there are none left, and says of each how it went.
fn work(
    first: u64,
    schedules: u64,
    next: &AtomicU64,
    running: &Mutex<BTreeMap<u64, Instant>>,
    told: &mpsc::Sender<Told>,
) {
    loop {
        let number = next.fetch_add(1, Ordering::SeqCst);
        if number >= schedules {
            return;
        }
        let seed = first.wrapping_add(number);
        running.lock().unwrap().insert(seed, Instant::now());
        let result = run(seed);
        running.lock().unwrap().remove(&seed);
        if told.send(result).is_err() {
            return;
        }
    }
}

type Told = Result<(), String>;

#[test]
#[expect(clippy::print_stdout, reason = "the figure that the test is there to show")]
fn whatever_happens_what_was_acknowledged_holds() {
    let (first, schedules) = seed().map_or_else(|| (first_seed(), rounds(SCHEDULES.0, SCHEDULES.1)), |seed| (seed, 1));
    let (next, running, begun) = (Arc::new(AtomicU64::new(0)), Arc::<Mutex<BTreeMap<_, _>>>::default(), Instant::now());
    let (tell, told) = mpsc::channel();
    for _ in 0..WORKERS {
        let (next, running, tell) = (Arc::clone(&next), Arc::clone(&running), tell.clone());
        // Nobody waits for a thread that hangs.
        std::thread::spawn(move || work(first, schedules, &next, &running, &tell));
    }
    let mut failures = Vec::new();
    for _ in 0..schedules {
        let result = told.recv_timeout(STUCK);
        let hanging: Vec<u64> = {
            let running = running.lock().unwrap();
            running.iter().filter(|(_, since)| since.elapsed() > STUCK).map(|(seed, _)| *seed).collect()
        };
        let is_ended = result.is_ok() && hanging.is_empty();
        assert!(is_ended, "schedules hang; PORTCULLIS_CAMPAIGN_SEED={hanging:?}\n{}", failures.join("\n\n"));
        if let Ok(Err(failure)) = result {
            println!("{failure}");
            failures.push(failure);
            if failures.len() == FAILURES_MAX {
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let [corrections, boots] = [0, 1].map(|at| REACHED[at].load(Ordering::SeqCst));
    println!("{corrections} corrections of the clock, {boots} boots");
    assert!(schedules < 1_000 || corrections.min(boots) > 0, "something is never reached");
    println!("{schedules} schedules in {:?}, from seed {first} on", begun.elapsed());
}
