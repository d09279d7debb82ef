//! Time in the campaign over faults: it passes, the wall clock jumps and is followed or not, and the machine is booted.
//!
//! Invariant: decision time is known at every moment. A wall clock that is wrong stays so only while nothing else fails; the
//! other ways are those of `clock_campaign`.
//! Not here: what decision time must be (`clock_model`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::RecordType;
use tokio::time::{Instant, sleep};

use crate::clock_model::{KeptText, Times, correction};
use crate::faults_engine::{Campaign, LIMIT};
use crate::faults_invariants as invariants;

/// Corrections and boots, over all schedules.
pub(crate) static REACHED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

const LOOK: Duration = Duration::from_millis(2);

fn since_1970(micros: i64) -> Duration {
    Duration::from_micros(micros.unsigned_abs())
}

impl Campaign {
    /// The decision time.
    pub(crate) fn now(&self) -> Duration {
        since_1970(self.times.now())
    }

    /// The true time, by which deadlines run.
    pub(crate) fn even(&self) -> Duration {
        since_1970(self.times.now() - self.times.ahead())
    }

    /// The wall clock shows the decision time again.
    fn jump_back(&mut self) {
        let by = -self.times.differs();
        self.hand.jump(by);
        self.times.jump(by);
    }

    /// Nothing fails, nor will before the next action.
    fn is_quiet(&self) -> bool {
        !self.may_refuse() && !self.is_armed
    }

    pub(crate) async fn jump(&mut self, seconds: i64) {
        if !self.is_quiet() {
            return;
        }
        self.is_looked_at().await;
        self.hand.jump(seconds);
        self.times.jump(seconds);
        self.is_looked_at().await;
    }

    pub(crate) async fn advance(&mut self, seconds: u64, stays: bool) {
        let by = Duration::from_secs(seconds);
        let stays = stays && self.is_quiet() && self.times.differs() != 0;
        if stays {
            // Also after a start: from now on it counts how long it has lasted.
            self.is_looked_at().await;
        } else {
            self.jump_back();
        }
        self.hand.advance(by);
        self.times.advance(by);
        if !stays {
            self.times.looked();
            self.model.judge(self.now());
            return;
        }
        self.model.judge(self.now());
        self.is_looked_at().await;
        self.follow().await;
    }

    /// The service has looked at the clocks as they are.
    async fn is_looked_at(&mut self) {
        self.watched.looked().await;
        self.times.looked();
    }

    /// The service follows the wall clock where it must, and not where it must not.
    async fn follow(&mut self) {
        let engine = self.engine();
        if let Some(due) = self.times.due() {
            let (wanted, begun) = (self.times.now() + due, Instant::now());
            while (engine.clock().now().micros() - wanted).abs() > 1_000_000 {
                assert!(begun.elapsed() < LIMIT, "the wall clock is not followed by {due} us");
                sleep(LOOK).await;
            }
        }
        self.everything_is_recorded(&engine).await;
        // What had expired before a correction is marked, and stays so; what expires by it may be.
        let latest = since_1970(self.times.now() + self.times.due().unwrap_or(0).max(0));
        invariants::every_acknowledged_change_is_there_and_nothing_else(&mut self.model, &engine, false, latest);
        let known = self.model.scales.last_key_value().map_or(0, |(sequence, _)| *sequence);
        let filter = RecordFilter { types: vec![RecordType::ClockChanged], ..RecordFilter::default() };
        let records = engine.audit().list(&filter, None, 1_000).unwrap().records;
        for record in records.iter().rev().filter(|record| record.sequence > known) {
            if let Some(by) = correction(&record.entry.content) {
                self.times.corrected(by, "while nothing fails");
                REACHED[0].fetch_add(1, Ordering::SeqCst);
                self.model.scales.insert(record.sequence, self.times.ahead());
                self.model.judge(self.now());
            }
        }
        let off = engine.clock().now().micros() - self.times.now();
        assert!(off.abs() <= 1_000_000, "decision time is {off} us ahead: {:?}", self.times);
    }

    /// The machine is booted, with a wall clock that is right.
    pub(crate) fn boot(&mut self) {
        self.jump_back();
        self.hand.boot();
        REACHED[1].fetch_add(1, Ordering::SeqCst);
    }

    /// A copy is put back in another place: nothing is known there of the clock, nor of corrections since.
    pub(crate) fn go_back_to(&mut self, times: &Times) {
        self.kept = KeptText::default();
        let by = self.times.go_back_to(times);
        self.hand.jump(by);
    }

    /// After a start from the wall clock, time passes until that is believed.
    pub(crate) async fn until_settled(&mut self) {
        let engine = self.engine();
        if engine.clock().is_settled() {
            return;
        }
        let begun = Instant::now();
        self.advance(61, false).await;
        while !engine.clock().is_settled() {
            assert!(begun.elapsed() < LIMIT, "the clock of a boot never settles");
            sleep(LOOK).await;
        }
        self.everything_is_recorded(&engine).await;
    }
}
