//! The time of decisions and changes (design.md §2.2).
//!
//! Decision time runs with the steady clock and follows the wall clock (`pace`). It is computed from a line that changes
//! seldom: reading it takes one reading of the steady clock and four loads.
//!
//! Invariant: decision time never goes back, except by a correction that the caller of [`Clock::correct`] records. A
//! [`Moment`]'s steady time never steps at all. Policy reads the system's clocks nowhere else.
//! Not here: timeouts and intervals, which are the runtime's; who looks at the wall clock and records corrections
//! (`timekeeping`).

mod pace;
mod source;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use source::{Source, SystemSource};

use pace::{LASTING, Line, Pacer, SLEW_MAX, Step, direction, usable};

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
    /// See [`Clock::is_settled`].
    settled: AtomicBool,
    /// What has surely passed is this much ahead of the steady clock, while the clock is not settled.
    known_offset: AtomicI64,
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
    /// Whether the clock settles now. `agrees` tells whether the wall clock shows about the decision time.
    fn settles(&mut self, steady: i64, agrees: bool) -> bool {
        match self.settles_at {
            None => return false,
            Some(_) if !agrees => self.settles_at = Some(steady.saturating_add(LASTING)),
            Some(at) if steady >= at => self.settles_at = None,
            Some(_) => {}
        }
        self.settles_at.is_none()
    }
}

/// Keeps a text instead of the last one.
pub type KeepText = dyn Fn(&str) -> io::Result<()> + Send;

/// Where the clock is kept across restarts. Its loss is harmless.
pub struct Kept {
    /// What was kept last; none where nothing was.
    pub last: Option<String>,
    /// Keeps a text instead of the last one.
    pub write: Box<KeepText>,
    /// Removes the text, where there is one. Needs no room on a disk.
    pub forget: Box<dyn Fn() -> io::Result<()> + Send>,
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

/// A large difference has lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The correction leads to an earlier time.
    pub backwards: bool,
}

/// A correction of the decision time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The decision time just before.
    pub from: Timestamp,
    /// The decision time just after.
    pub to: Timestamp,
}

impl Correction {
    /// Warns of it.
    pub(super) fn log(self) {
        let by = self.to.micros().saturating_sub(self.from.micros());
        let (seconds, direction) = (by.unsigned_abs() / 1_000_000, direction(by));
        tracing::warn!("the wall clock stayed {seconds} s {direction} the decision time: it is followed now");
    }
}

/// The line in force. Readers take no lock; there is one writer at a time.
struct SharedLine {
    /// Odd while the line is changed.
    version: AtomicU64,
    steady: AtomicI64,
    time: AtomicI64,
    slew: AtomicI64,
}

impl SharedLine {
    fn new(line: Line) -> Self {
        let Line { steady, time, slew } = line;
        let version = AtomicU64::new(0);
        Self { version, steady: AtomicI64::new(steady), time: AtomicI64::new(time), slew: AtomicI64::new(slew) }
    }

    /// The line, and the steady clock while it was in force: a later line begins later.
    fn read(&self, source: &dyn Source) -> (Line, i64) {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let line = Line {
                steady: self.steady.load(Ordering::Relaxed),
                time: self.time.load(Ordering::Relaxed),
                slew: self.slew.load(Ordering::Relaxed),
            };
            let steady = source.steady();
            fence(Ordering::Acquire);
            if version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version {
                return (line, steady);
            }
            // The line is changed a few times a day, within a microsecond.
            std::thread::yield_now();
        }
    }

    /// Replaces the line by the one that `next` makes of it and of the steady clock. The caller holds the lock of
    /// `Pacing`.
    fn change(&self, source: &dyn Source, next: impl FnOnce(Line, i64) -> Line) {
        let (line, _) = self.read(source);
        self.version.fetch_add(1, Ordering::Relaxed);
        let _even = EvenAgain(&self.version);
        fence(Ordering::SeqCst);
        // Nothing is stored before it returns: a panic leaves the line as it was.
        let Line { steady, time, slew } = next(line, source.steady());
        self.steady.store(steady, Ordering::Relaxed);
        self.time.store(time, Ordering::Relaxed);
        self.slew.store(slew, Ordering::Relaxed);
    }
}

/// Ends a change of the line, also by a panic: readers wait for it.
struct EvenAgain<'a>(&'a AtomicU64);

impl Drop for EvenAgain<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
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
        let (settled, known_offset) = (AtomicBool::new(true), AtomicI64::new(0));
        let (steady_offset, pacing) = (AtomicI64::new(time - steady), Mutex::new(pacing));
        Self(Arc::new(Inner { source, line, steady_offset, settled, known_offset, pacing }))
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
    /// wall clock, which has to settle then; never from before `newest`, the time of the newest record. Before anything is
    /// decided or recorded.
    pub fn begin(&self, newest: Option<Timestamp>) {
        let newest = newest.map(Timestamp::micros);
        let Inner { source, line, steady_offset, settled, known_offset, .. } = &*self.0;
        let mut ahead = None;
        let mut pacing = self.pacing();
        let last = pacing.kept.as_ref().and_then(|kept| kept.last.as_deref()).and_then(parse);
        let same_boot = last.filter(|(boot, _)| source.boot().as_ref() == Some(boot)).map(|(_, line)| line);
        line.change(&**source, |_, steady| {
            let wall = usable(source.wall());
            let went_on = same_boot.filter(|line| line.steady <= steady).and_then(|line| usable(line.at(steady)));
            let time = went_on.or(wall).unwrap_or(newest.unwrap_or_default());
            let time = newest.map_or(time, |newest| newest.max(time));
            steady_offset.store(time - steady, Ordering::Relaxed);
            if let (None, Some(newest)) = (went_on, newest) {
                known_offset.store(newest.saturating_sub(steady), Ordering::Relaxed);
                ahead = Some((time.saturating_sub(newest), steady)).filter(|(by, _)| *by > SLEW_MAX);
            }
            Line { steady, time, slew: 0 }
        });
        pacing.settles_at = ahead.map(|(_, steady)| steady.saturating_add(LASTING));
        settled.store(ahead.is_none(), Ordering::Release);
        drop(pacing);
        if let Some((by, _)) = ahead.filter(|(by, _)| *by > WARN_AHEAD) {
            let (seconds, lasting) = (by / 1_000_000, LASTING / 1_000_000);
            tracing::warn!(
                "the wall clock is {seconds} s ahead of the newest record: nothing is marked as expired by it, and no record \
                 removed, before it has stayed so for {lasting} s"
            );
        }
    }

    /// Whether decision time may be the reason for what cannot be undone. Not so after a start from the wall clock, until
    /// that has shown for a minute what it showed then, or a correction has followed it.
    pub fn is_settled(&self) -> bool {
        self.0.settled.load(Ordering::Acquire)
    }

    /// A time that has surely passed: the decision time, or, while the clock is not settled, the time of the newest record
    /// before the start and what has passed since the start.
    pub fn surely_passed(&self) -> Timestamp {
        let now = self.now();
        if self.is_settled() {
            return now;
        }
        let known = self.0.source.steady().saturating_add(self.0.known_offset.load(Ordering::Relaxed));
        now.min(Timestamp::from_micros(known))
    }

    /// Compares the decision time with the wall clock, and follows small differences. Some where a large one has lasted, so
    /// that [`Clock::correct`] is to be called. Call it several times a second.
    pub fn follow(&self) -> Option<Due> {
        let Inner { source, line, settled, .. } = &*self.0;
        let (step, notice) = {
            let mut pacing = self.pacing();
            let (current, steady) = line.read(&**source);
            let wall = source.wall();
            if source.steady() - steady > READING_MAX {
                return None;
            }
            let (step, notice) = pacing.pacer.look(&current, steady, usable(wall));
            let ahead = usable(wall).map(|wall| wall.saturating_sub(current.at(steady)));
            if pacing.settles(steady, ahead.is_some_and(|ahead| ahead.saturating_abs() <= SLEW_MAX)) {
                settled.store(true, Ordering::Release);
            }
            if let Step::Slew(slew) = step {
                line.change(&**source, |before, steady| Line { steady, time: before.at(steady), slew });
            }
            (step, notice)
        };
        if let Some(notice) = notice {
            notice.log();
        }
        match step {
            Step::Nothing | Step::Slew(_) => None,
            Step::Correct { backwards } => Some(Due { backwards }),
        }
    }

    /// Takes over the wall clock; the caller logs it. None where the wall clock shows no usable time.
    pub fn correct(&self) -> Option<Correction> {
        self.correct_noting(|_| ())
    }

    /// As [`Clock::correct`]. `note` puts it on the record before anybody can read the time that it leads to: readers wait
    /// for it, so it must neither block nor read the clock.
    pub(super) fn correct_noting(&self, note: impl FnOnce(Correction)) -> Option<Correction> {
        let Inner { source, line, settled, .. } = &*self.0;
        let mut correction = None;
        {
            let mut pacing = self.pacing();
            line.change(&**source, |before, steady| {
                let from = before.at(steady);
                let Some(wall) = usable(source.wall()) else { return before };
                let (from, to) = (Timestamp::from_micros(from), Timestamp::from_micros(wall));
                correction = Some(Correction { from, to });
                note(Correction { from, to });
                Line { steady, time: wall, slew: 0 }
            });
            pacing.pacer.corrected();
            if correction.is_some() {
                pacing.settles_at = None;
                settled.store(true, Ordering::Release);
            }
            // A start must not go on from before the correction.
            pacing.kept_at = i64::MIN;
        }
        correction
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

    /// Keeps the clock across restarts, if it is time or `now`.
    pub fn keep(&self, now: bool) {
        let Inner { source, line, .. } = &*self.0;
        let (line, steady) = line.read(&**source);
        let kept = {
            let mut pacing = self.pacing();
            if !now && steady.saturating_sub(pacing.kept_at) < KEEP_INTERVAL {
                return;
            }
            pacing.kept_at = steady;
            pacing.kept.take()
        };
        let (Some(kept), Some(boot)) = (kept, source.boot()) else { return };
        if let Err(error) = (kept.write)(&format!("{boot} {steady} {}\n", line.at(steady))) {
            tracing::debug!(%error, "the clock cannot be kept: a restart begins with the wall clock");
        }
        self.pacing().kept = Some(kept);
    }
}

/// Reads what [`Clock::keep`] wrote: the boot, and the line at that moment.
fn parse(text: &str) -> Option<(String, Line)> {
    let mut words = text.strip_suffix('\n')?.split(' ');
    let (boot, steady, time) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let line = Line { steady, time: usable(time)?, slew: 0 };
    words.next().is_none().then(|| (boot.to_owned(), line))
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
