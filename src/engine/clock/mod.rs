//! The time of decisions and changes (design.md §2.2).
//!
//! Decision time runs with the steady clock and follows the wall clock (`pace`). It is computed from a line that changes
//! seldom: reading it takes one reading of the steady clock and four loads.
//!
//! Invariant: decision time never goes back, except by a correction that the caller of [`Clock::correct`] records. A
//! [`Moment`]'s steady time never steps at all. Policy reads the system's clocks nowhere else.
//! Not here: timeouts and intervals, which are the runtime's; who looks at the wall clock and records corrections
//! (`timekeeping`).

mod kept;
mod pace;
mod shared_line;
mod source;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use kept::{KeepText, Kept};
pub use source::{Source, SystemSource};

use kept::KeptLine;
use pace::{LASTING, Line, Pacer, SLEW_MAX, Step, direction, usable};
use shared_line::SharedLine;

use crate::locks::IgnorePoison;
use crate::policy::time::Timestamp;

/// A wall clock is not read from where reading both clocks took longer than this many microseconds.
const READING_MAX: i64 = 1_000;

/// A start warns of a wall clock that is further ahead of the newest record than this many microseconds.
const WARN_AHEAD: i64 = 3_600_000_000;

/// How often the clock is kept, in microseconds of the steady clock.
const KEEP_INTERVAL: i64 = 10_000_000;

/// The clock of a server.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    source: Arc<dyn Source>,
    line: SharedLine,
    /// What the steady time of a [`Moment`] has in addition to the steady clock, in microseconds.
    steady_offset: AtomicI64,
    /// By how many microseconds decision time leapt ahead at starts that nothing has confirmed yet; 0 where the clock has
    /// settled.
    unconfirmed: AtomicI64,
    pacing: Mutex<Pacing>,
}

/// What only those need that move the clock.
struct Pacing {
    pacer: Pacer,
    /// When the clock is settled, by the steady clock; none where it is.
    settles_at: Option<i64>,
    kept: Option<Kept>,
    /// When the clock was kept last, by the steady clock.
    kept_at: i64,
}

impl Pacing {
    /// Whether the wall clock has shown about the decision time for long enough. `agrees` tells whether it does now.
    fn has_settled(&mut self, steady: i64, agrees: bool) -> bool {
        if !agrees && self.settles_at.is_some() {
            self.settles_at = Some(steady.saturating_add(LASTING));
        }
        self.settles_at.is_some_and(|at| steady >= at)
    }
}

/// A moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The decision time, which is recorded and shown. A correction makes it step.
    pub time: Timestamp,
    /// The decision time as it was at the start, and has run on evenly since. Leases, idle times and confirmations are
    /// measured by it.
    pub steady: Timestamp,
}

/// What a look at the wall clock asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A large difference has lasted: [`Clock::correct`].
    Correction {
        /// It leads to an earlier time.
        backwards: bool,
    },
    /// The clock has settled: [`Clock::confirm`].
    Confirmation,
}

/// A step of the decision time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The decision time just before.
    pub from: Timestamp,
    /// The decision time just after.
    pub to: Timestamp,
}

/// What is on the record about the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The last record that is about it; 0 where there is none.
    pub sequence: u64,
    /// The decision time just after that; at a start the latest that is on the record.
    pub time: Option<Timestamp>,
    /// By how many microseconds decision time leapt ahead at starts that no record after them confirms.
    pub unconfirmed: i64,
}

impl Correction {
    /// By how many microseconds it leads forwards.
    pub fn by(self) -> i64 {
        self.to.micros().saturating_sub(self.from.micros())
    }

    /// Warns of it.
    pub(super) fn log(self) {
        let by = self.by();
        let (seconds, direction) = (by.unsigned_abs() / 1_000_000, direction(by));
        tracing::warn!("the wall clock stayed {seconds} s {direction} the decision time: it is followed now");
    }
}

impl Clock {
    /// A clock that begins at the time of the wall clock.
    pub fn new(source: Arc<dyn Source>) -> Self {
        let (steady, wall) = (source.steady(), source.wall());
        // Where the wall clock shows nothing usable, years remain to the end of what can be recorded.
        let time = usable(wall).unwrap_or_default();
        let line = SharedLine::new(Line { steady, time, slew: 0 });
        let pacing = Pacing { pacer: Pacer::default(), settles_at: None, kept: None, kept_at: steady };
        let (steady_offset, unconfirmed) = (AtomicI64::new(time - steady), AtomicI64::new(0));
        Self(Arc::new(Inner { source, line, steady_offset, unconfirmed, pacing: Mutex::new(pacing) }))
    }

    /// The operating system's clocks.
    pub fn system() -> Self {
        Self::new(Arc::new(SystemSource))
    }

    /// The same clock, kept across restarts.
    #[must_use]
    pub fn kept(self, kept: Kept) -> Self {
        self.pacing().kept = Some(kept);
        self
    }

    fn pacing(&self) -> MutexGuard<'_, Pacing> {
        self.0.pacing.lock().ignore_poison()
    }

    /// The present decision time, to the microsecond.
    pub fn now(&self) -> Timestamp {
        let (line, steady) = self.0.line.read(&*self.0.source);
        Timestamp::from_micros(line.at(steady))
    }

    /// The present moment by both clocks.
    pub fn moment(&self) -> Moment {
        let (line, steady) = self.0.line.read(&*self.0.source);
        let of_start = steady.saturating_add(self.0.steady_offset.load(Ordering::Relaxed));
        Moment { time: Timestamp::from_micros(line.at(steady)), steady: Timestamp::from_micros(of_start) }
    }

    /// Begins a start: goes on from the clock of the last run if that was on the same boot of the machine, else from the
    /// wall clock; never from before `newest`, the time of the newest record. `recorded` is what the log says of the clock
    /// before. Before anything is decided or recorded.
    ///
    /// Some where decision time leaps ahead of the newest record: nothing but the wall clock says that this time has passed.
    /// It leads to the moment just before the start. The caller records it before anything that is timed since.
    pub fn begin(&self, newest: Option<Timestamp>, recorded: Recorded) -> Option<Correction> {
        let newest = newest.map(Timestamp::micros);
        let recorded_time = recorded.time.map(Timestamp::micros).or(newest);
        let Inner { source, line, steady_offset, unconfirmed, .. } = &*self.0;
        let mut leap = None;
        let mut pacing = self.pacing();
        let last = pacing.kept.as_ref().and_then(|kept| kept.last.as_deref()).and_then(KeptLine::parse);
        // One that does not know of the last correction is from before it.
        let known = last.filter(|kept| kept.sequence >= recorded.sequence);
        let same_boot = known.filter(|kept| source.boot().as_ref() == Some(&kept.boot)).map(|kept| kept.line);
        let mut began = 0;
        line.change(&**source, |_, steady| {
            let wall = usable(source.wall());
            let went_on = same_boot.filter(|line| line.steady <= steady).and_then(|line| usable(line.at(steady)));
            let time = went_on.or(wall).unwrap_or(newest.unwrap_or_default());
            let time = newest.map_or(time, |newest| newest.max(time));
            steady_offset.store(time - steady, Ordering::Relaxed);
            leap = recorded_time
                .filter(|known| went_on.is_none() && time.saturating_sub(*known) > SLEW_MAX)
                .map(|known| Correction { from: Timestamp::from_micros(known), to: Timestamp::from_micros(time - 1) });
            began = steady;
            Line { steady, time, slew: 0 }
        });
        let ahead = recorded.unconfirmed.saturating_add(leap.map_or(0, Correction::by));
        pacing.settles_at = (ahead > 0).then(|| began.saturating_add(LASTING));
        unconfirmed.store(ahead, Ordering::Release);
        drop(pacing);
        if ahead > WARN_AHEAD {
            let (seconds, lasting) = (ahead / 1_000_000, LASTING / 1_000_000);
            tracing::warn!(
                "the wall clock is {seconds} s ahead of the newest record: nothing ends, is marked as expired or removed \
                 by it before it has stayed so for {lasting} s"
            );
        }
        leap
    }

    /// Whether decision time may be the reason for what cannot be undone. Not so after a start from the wall clock, until
    /// that has shown for a minute what it showed then, or a correction has followed it.
    pub fn is_settled(&self) -> bool {
        self.0.unconfirmed.load(Ordering::Acquire) == 0
    }

    /// A time that has surely passed: the decision time, without what it leapt ahead at a start that nothing has confirmed.
    pub fn surely_passed(&self) -> Timestamp {
        let unconfirmed = self.0.unconfirmed.load(Ordering::Acquire);
        Timestamp::from_micros(self.now().micros().saturating_sub(unconfirmed))
    }

    /// Compares the decision time with the wall clock, and follows small differences. Call it several times a second.
    pub fn follow(&self) -> Option<Due> {
        let Inner { source, line, .. } = &*self.0;
        let (step, notice, has_settled) = {
            let mut pacing = self.pacing();
            let (current, steady) = line.read(&**source);
            let wall = source.wall();
            if source.steady() - steady > READING_MAX {
                return None;
            }
            let (step, notice) = pacing.pacer.look(&current, steady, usable(wall));
            let ahead = usable(wall).map(|wall| wall.saturating_sub(current.at(steady)));
            let agrees = ahead.is_some_and(|ahead| ahead.saturating_abs() <= SLEW_MAX);
            let has_settled = pacing.has_settled(steady, agrees);
            if let Step::Slew(slew) = step {
                line.change(&**source, |before, steady| Line { steady, time: before.at(steady), slew });
            }
            (step, notice, has_settled)
        };
        if let Some(notice) = notice {
            notice.log();
        }
        match step {
            Step::Nothing | Step::Slew(_) => has_settled.then_some(Due::Confirmation),
            Step::Correct { backwards } => Some(Due::Correction { backwards }),
        }
    }

    /// Takes over the wall clock; the caller logs it. None where the wall clock does not show any more what has lasted:
    /// it may be long since that was seen.
    pub fn correct(&self) -> Option<Correction> {
        self.correct_noting(|_| ())
    }

    /// As [`Clock::correct`]. `note` puts it on the record before anybody can read the time that it leads to: readers wait
    /// for it, so it must neither block nor read the clock.
    pub(super) fn correct_noting(&self, note: impl FnOnce(Correction)) -> Option<Correction> {
        let Inner { source, line, unconfirmed, .. } = &*self.0;
        let mut correction = None;
        {
            let mut pacing = self.pacing();
            line.change(&**source, |before, steady| {
                let from = before.at(steady);
                let Some(wall) = usable(source.wall()) else { return before };
                if !pacing.pacer.has_lasted(steady, wall.saturating_sub(from)) {
                    return before;
                }
                let (from, to) = (Timestamp::from_micros(from), Timestamp::from_micros(wall));
                correction = Some(Correction { from, to });
                note(Correction { from, to });
                Line { steady, time: wall, slew: 0 }
            });
            if correction.is_some() {
                pacing.pacer.corrected();
                pacing.settles_at = None;
                unconfirmed.store(0, Ordering::Release);
            }
            // A start must not go on from before the correction.
            pacing.kept_at = i64::MIN;
        }
        correction
    }

    /// Takes the time that decision time leapt ahead at starts as passed. None where there is none.
    pub fn confirm(&self) -> Option<Correction> {
        self.confirm_noting(|_| ())
    }

    /// As [`Clock::confirm`]. `note` puts it on the record, from what had surely passed to the decision time, before anybody
    /// goes by it.
    pub(super) fn confirm_noting(&self, note: impl FnOnce(Correction)) -> Option<Correction> {
        let mut pacing = self.pacing();
        pacing.settles_at.take()?;
        let to = self.now();
        let ahead = self.0.unconfirmed.load(Ordering::Acquire);
        let confirmed = Correction { from: Timestamp::from_micros(to.micros().saturating_sub(ahead)), to };
        note(confirmed);
        self.0.unconfirmed.store(0, Ordering::Release);
        Some(confirmed)
    }

    /// Forgets what is kept, so that a start after a correction never goes on from before it, not even where nothing can be
    /// kept any more. An error leaves what was kept.
    pub fn forget_kept(&self) {
        let Some(kept) = self.pacing().kept.take() else { return };
        if let Err(error) = (kept.forget)() {
            tracing::warn!(%error, "the clock of before the correction is still kept: a restart may go on from it");
        }
        self.pacing().kept = Some(kept);
    }

    /// Keeps the clock across restarts, if it is time or `now`. `sequence` is the last record that is about the clock.
    pub fn keep(&self, now: bool, sequence: u64) {
        let Inner { source, line, .. } = &*self.0;
        let (line, steady) = line.read(&**source);
        if !now && steady.saturating_sub(self.pacing().kept_at) < KEEP_INTERVAL {
            return;
        }
        // Where it cannot be read, as without a free file descriptor, the next look tries again.
        let Some(boot) = source.boot() else { return };
        let kept = {
            let mut pacing = self.pacing();
            pacing.kept_at = steady;
            pacing.kept.take()
        };
        let Some(kept) = kept else { return };
        let text = KeptLine { boot, line: Line { steady, time: line.at(steady), slew: 0 }, sequence }.to_string();
        if let Err(error) = (kept.write)(&text) {
            tracing::debug!(%error, "the clock cannot be kept: a restart begins with the wall clock");
        }
        self.pacing().kept = Some(kept);
    }
}

impl From<Timestamp> for Moment {
    /// A moment of a clock that was never corrected.
    fn from(time: Timestamp) -> Self {
        Self { time, steady: time }
    }
}

impl Moment {
    /// When the steady clock will show, or has shown, `steady`, as decision time is counted now.
    pub fn time_at(&self, steady: Timestamp) -> Timestamp {
        let later = steady.micros().saturating_sub(self.steady.micros());
        Timestamp::from_micros(self.time.micros().saturating_add(later))
    }

    /// What the steady clock will show, or has shown, at a decision time, as that is counted now.
    pub fn steady_at(&self, time: Timestamp) -> Timestamp {
        let later = time.micros().saturating_sub(self.time.micros());
        Timestamp::from_micros(self.steady.micros().saturating_add(later))
    }

    /// The moment that much later.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self { time: self.time.after(by), steady: self.steady.after(by) }
    }
}
