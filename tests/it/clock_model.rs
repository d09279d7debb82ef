//! What decision time must be, by the true time: the one that the test lets pass, whatever the wall clock shows.
//!
//! Invariant: it knows the clocks that the test moves and the contract, and nothing that the service says of its own clock.
//! Not here: what is done to a service (`clock_campaign`, `faults_engine`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::audit::record::{ClockChangeCause, Content};
use portcullis::engine::clock::{Clock, Kept, Source};

use crate::clock::Hand;

pub(crate) const SECOND: i64 = 1_000_000;

/// How long a wall clock has to show another time before that is followed (design.md §2.2).
pub(crate) const LASTING: i64 = 60 * SECOND;

/// By so much small jumps, which are slewed, move the wall clock at most.
pub(crate) const SMALL: i64 = 2 * SECOND;

/// By so much decision time may differ from the model: it may be where any small jump left it, or on the way.
pub(crate) const TOLERANCE: i64 = 2 * SMALL + SECOND / 2;

/// All in microseconds. `wall`, `decision` and `sure` tell by how much a clock is ahead of the true time.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    began: i64,
    /// What has truly passed since the beginning, over all boots.
    pub(crate) even: i64,
    wall: i64,
    decision: i64,
    /// Since when the wall clock differs from the decision time, and by how much.
    large: Option<(i64, i64)>,
    unsettled: Option<Unsettled>,
}

/// A boot with a wall clock that is ahead of what is known to have passed.
#[derive(Clone, Copy, Debug)]
struct Unsettled {
    sure: i64,
    /// When it settles: at the earliest and at the latest. A restart may have it wait anew.
    first: i64,
    last: i64,
}

impl Times {
    pub(crate) fn new(hand: &Hand) -> Self {
        Self { began: hand.wall(), even: 0, wall: 0, decision: 0, large: None, unsettled: None }
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.even += i64::try_from(by.as_micros()).unwrap();
    }

    /// The wall clock jumps by more than is slewed.
    pub(crate) fn jump(&mut self, seconds: i64) {
        self.wall += seconds * SECOND;
    }

    /// The decision time, in microseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        self.began + self.even + self.decision
    }

    /// By how much that is ahead of the true time.
    pub(crate) fn ahead(&self) -> i64 {
        self.decision
    }

    /// By how many seconds the wall clock is ahead of the decision time.
    pub(crate) fn differs(&self) -> i64 {
        (self.wall - self.decision) / SECOND
    }

    /// Decision time is what it was once, and the wall clock shows it. Returns by how many seconds that has to jump.
    pub(crate) fn go_back_to(&mut self, times: &Self) -> i64 {
        let by = (times.decision - self.wall) / SECOND;
        (self.wall, self.decision, self.large, self.unsettled) = (times.decision, times.decision, None, None);
        by
    }

    /// The latest time that the service may hold to have surely passed.
    pub(crate) fn surely_passed(&self) -> i64 {
        self.now() - self.unsettled.filter(|_| !self.may_be_settled()).map_or(0, |of| self.decision - of.sure)
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_none()
    }

    pub(crate) fn may_be_settled(&self) -> bool {
        self.unsettled.is_none_or(|of| self.even >= of.first)
    }

    /// The service has looked at the clocks. True if its clock has settled by that.
    pub(crate) fn looked(&mut self) -> bool {
        let differs = self.wall - self.decision;
        self.large = match self.large {
            _ if differs == 0 => None,
            Some((_, before)) if before == differs => self.large,
            _ => Some((self.even, differs)),
        };
        let Some(unsettled) = &mut self.unsettled else { return false };
        if differs != 0 {
            (unsettled.first, unsettled.last) = (self.even + LASTING, self.even + LASTING);
        } else if self.even >= unsettled.last {
            self.unsettled = None;
            return true;
        }
        false
    }

    /// By how much decision time is to be corrected, and may be: the wall clock has differed by it for long enough.
    pub(crate) fn due(&self) -> Option<i64> {
        self.large.filter(|(since, _)| self.even - since >= LASTING).map(|(_, differs)| differs)
    }

    /// A correction was seen. Fails where there must not be one.
    pub(crate) fn corrected(&mut self, by: i64, context: &str) {
        let due = self.due();
        let is_due = due.is_some_and(|due| (due - by).abs() <= TOLERANCE);
        assert!(is_due, "{context}: time is corrected by {by} µs; what has lasted: {due:?}; {self:?}");
        self.decision = self.wall;
        self.large = None;
        self.unsettled = None;
    }

    /// The service starts. `newest` is the time of the newest record of before, `recorded` without those of changes that the
    /// start itself records: these may come from a clock that nothing else tells of. Returns by how much decision time leaps,
    /// and how long before that `recorded` is: nothing is known of the time between.
    pub(crate) fn started(&mut self, goes_on: bool, newest: i64, recorded: i64) -> (i64, i64) {
        self.large = None;
        let settles = self.even + LASTING;
        if goes_on {
            if let Some(unsettled) = &mut self.unsettled {
                unsettled.last = settles;
            }
            return (0, 0);
        }
        let lag = |of: i64| Some(self.now() - of).filter(|lags| *lags > TOLERANCE).unwrap_or_default();
        let (newest, lags) = (self.decision - lag(newest), lag(recorded));
        let recorded = self.decision - lags;
        let sure = self.unsettled.map_or(recorded, |of| of.sure.min(recorded));
        let before = self.decision;
        // Never from before the newest record.
        self.decision = self.wall.max(newest);
        self.unsettled = if self.decision > sure + TOLERANCE {
            Some(Unsettled { sure, first: settles, last: settles })
        } else {
            // A record that was lost may have been needed to know it.
            Some(Unsettled { sure, first: self.even, last: settles }).filter(|_| self.wall == before)
        };
        (self.decision - before, lags)
    }
}

/// By how much decision time was corrected, where a record says that it was.
pub(crate) fn correction(content: &Content) -> Option<i64> {
    let Content::ClockChanged(change) = content else { return None };
    (change.cause == ClockChangeCause::Correction).then(|| change.by())
}

/// A deadline that runs evenly: it comes no earlier and no later, by the true time. What decision time leaps ahead at a boot
/// counts once that has settled, and never where a correction comes instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    at: i64,
    pending: i64,
    /// What truly passed before a boot and no record tells: it counts with the leap only.
    unknown: i64,
}

impl Span {
    pub(crate) fn new(at: i64) -> Self {
        Self { at, pending: 0, unknown: 0 }
    }

    /// Whether it may have come, and whether it must have.
    pub(crate) fn has_come(&self, times: &Times) -> (bool, bool) {
        let pending = if times.may_be_settled() { self.pending } else { 0 };
        (times.even > self.at - pending - TOLERANCE, times.even > self.at + self.unknown + TOLERANCE)
    }

    /// Decision time leaps over it by a boot; perhaps the clock is wrong.
    pub(crate) fn leap(&mut self, by: i64, unknown: i64) {
        self.pending += by;
        self.unknown += unknown;
    }

    /// The clock of the boot has settled: what it showed has passed.
    pub(crate) fn settled(&mut self) {
        self.at -= std::mem::take(&mut self.pending);
        self.unknown = 0;
    }

    /// The clock of the boot was corrected.
    pub(crate) fn corrected(&mut self) {
        self.pending = 0;
    }
}

/// Where the clock is kept across restarts: a text that outlasts the process, and nothing that a dead process writes.
#[derive(Clone, Default)]
pub(crate) struct KeptText(Arc<Mutex<(Option<String>, u64)>>);

impl KeptText {
    /// A clock for the next process.
    pub(crate) fn clock(&self, source: Arc<dyn Source>) -> Clock {
        let mut text = self.0.lock().unwrap();
        text.1 += 1;
        let (last, process) = text.clone();
        drop(text);
        let by = move |to: &Self, text: Option<String>| {
            let mut kept = to.0.lock().unwrap();
            if kept.1 != process {
                return Err(std::io::Error::other("its process is dead"));
            }
            kept.0 = text;
            Ok(())
        };
        let (writing, forgetting) = (self.clone(), self.clone());
        let write = move |text: &str| by(&writing, Some(text.to_owned()));
        let forget = move || by(&forgetting, None);
        Clock::new(source).kept(Kept { last, write: Box::new(write), forget: Box::new(forget) })
    }

    /// The process dies at one moment for this text and for whatever `dies`.
    pub(crate) fn die<T>(&self, dies: impl FnOnce() -> T) -> T {
        let mut text = self.0.lock().unwrap();
        text.1 += 1;
        dies()
    }

    /// Whether a start on the same boot goes on from it.
    pub(crate) fn is_there(&self) -> bool {
        self.0.lock().unwrap().0.is_some()
    }
}

/// Clocks of one process, which tell how often its wall clock was read.
pub(crate) struct Watched {
    hand: Hand,
    reads: AtomicU64,
}

impl Watched {
    pub(crate) fn new(hand: &Hand) -> Arc<Self> {
        Arc::new(Self { hand: hand.clone(), reads: AtomicU64::new(0) })
    }

    /// Waits until the service has looked at the clocks as they are now: a look that is under way may not have seen them.
    pub(crate) async fn looked(&self) {
        let wanted = self.reads.load(Ordering::SeqCst) + 2;
        let seen = async || (self.reads.load(Ordering::SeqCst) >= wanted).then_some(());
        crate::clock::until("the service looks at the clocks", seen).await;
    }
}

impl Source for Watched {
    fn wall(&self) -> i64 {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.hand.wall()
    }

    fn steady(&self) -> i64 {
        self.hand.steady()
    }

    fn boot(&self) -> Option<String> {
        Source::boot(&self.hand)
    }
}
