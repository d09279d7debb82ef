//! Many threads that read one clock while it is slewed and corrected.
//!
//! Invariant: between two corrections time strictly advances for every reader, and the steady time always does.
//! Not here: what slews and corrections are for (`clock_follows`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use portcullis::engine::clock::{Clock, Source};

use crate::campaign::rounds;

/// Each reading of the even clock is some microseconds later; a thread makes the wall clock jump.
struct Ticking {
    steady: AtomicI64,
    ahead: AtomicI64,
}

/// More than a clock that runs 5 % slower needs to advance by a microsecond.
const TICK: i64 = 2;

impl Source for Ticking {
    fn wall(&self) -> i64 {
        1_800_000_000_000_000 + self.steady.load(Ordering::SeqCst) + self.ahead.load(Ordering::SeqCst)
    }

    fn steady(&self) -> i64 {
        self.steady.fetch_add(TICK, Ordering::SeqCst) + TICK
    }

    fn boot(&self) -> Option<String> {
        None
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are what the long form is run for")]
fn time_strictly_advances_for_every_reader_between_corrections() {
    let source = Arc::new(Ticking { steady: AtomicI64::new(0), ahead: AtomicI64::new(0) });
    let clock = Clock::new(Arc::<Ticking>::clone(&source));
    // Odd while a correction is under way.
    let (corrections, stop, read) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = (u64::MAX, clock.moment());
                while !stop.load(Ordering::SeqCst) {
                    let before = corrections.load(Ordering::SeqCst);
                    let moment = clock.moment();
                    assert!(moment.steady > last.1.steady, "{moment:?} after {:?}", last.1);
                    let is_between = before.is_multiple_of(2) && corrections.load(Ordering::SeqCst) == before;
                    assert!(!is_between || last.0 != before || moment.time > last.1.time, "{moment:?} {last:?}");
                    last = (if is_between { before } else { u64::MAX }, moment);
                    read.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut slews = 0;
        for step in 0..rounds(40_000_i64, 2_000_000) {
            let by = [0, 900_000, -900_000, 9_000_000, -9_000_000, 0, 86_400_000_000, -86_400_000_000];
            if step % 500 == 0 {
                let of = usize::try_from(step / 1_000).unwrap();
                source.ahead.store(by[of % by.len()], Ordering::SeqCst);
                source.steady.fetch_add(70_000_000, Ordering::SeqCst);
                slews += 1;
            }
            if clock.follow().is_some() {
                corrections.fetch_add(1, Ordering::SeqCst);
                clock.correct().unwrap();
                corrections.fetch_add(1, Ordering::SeqCst);
            }
        }
        stop.store(true, Ordering::SeqCst);
        assert!(slews >= 40);
    });
    let corrected = corrections.load(Ordering::SeqCst) / 2;
    assert!(corrected >= 4, "{corrected} corrections");
    println!("{} readings over {corrected} corrections", read.load(Ordering::Relaxed));
}
