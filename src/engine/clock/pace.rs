//! How decision time follows the wall clock: small differences by running a little faster or slower, large ones by a
//! correction once they have lasted.
//!
//! Invariant: along a line, time never goes back. A difference above [`SLEW_MAX`] that passes within [`LASTING`] changes
//! nothing.
//! Not here: reading clocks, and what else a correction needs (`clock`, `engine::timekeeping`).

use crate::policy::time::Timestamp;

/// The largest difference that is made up for by the rate alone, in microseconds.
pub(super) const SLEW_MAX: i64 = 10_000_000;

/// How long a larger difference has to last before it is taken over, in microseconds of the steady clock.
pub(super) const LASTING: i64 = 60_000_000;

/// The rate differs from that of the steady clock by one part in so many at most.
const SLEW_PARTS: i64 = 20;

/// Smaller differences are left alone: they are within what reading two clocks costs. In microseconds.
const NEGLIGIBLE: i64 = 1_000;

/// The shortest time between two warnings, in microseconds of the steady clock.
const WARN_PAUSE: i64 = 10_000_000;

/// Decision time as a function of the steady clock. All in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The steady clock at the beginning.
    pub(super) steady: i64,
    /// The decision time then, since 1970.
    pub(super) time: i64,
    /// By how much it has to run ahead, or to stay behind, in all.
    pub(super) slew: i64,
}

impl Line {
    /// The decision time when the steady clock shows `steady`.
    pub(super) fn at(&self, steady: i64) -> i64 {
        let elapsed = steady.saturating_sub(self.steady).max(0);
        self.time.saturating_add(elapsed).saturating_add(self.slewed(elapsed))
    }

    /// By how much it ran ahead, or stayed behind, so far.
    fn slewed(&self, elapsed: i64) -> i64 {
        let most = elapsed / SLEW_PARTS;
        self.slew.clamp(-most, most)
    }

    /// The part of the slew that is still to come.
    fn remaining(&self, steady: i64) -> i64 {
        self.slew - self.slewed(steady.saturating_sub(self.steady).max(0))
    }
}

/// What a look at the wall clock leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Nothing,
    /// From now on time makes up for this difference.
    Slew(i64),
    /// A large difference has lasted: time is to be corrected.
    Correct {
        /// To an earlier time.
        backwards: bool,
    },
}

/// What an operator is to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The wall clock shows no usable time.
    Unusable,
    /// A large difference has passed.
    Agrees,
    /// By so many microseconds the wall clock is ahead of the decision time.
    Differs(i64),
}

impl Notice {
    pub(super) fn log(self) {
        match self {
            Self::Unusable => {
                tracing::warn!("the wall clock shows no year from 2 to 9998: it is ignored until it does");
            }
            Self::Agrees => tracing::info!("the wall clock agrees with the decision time again"),
            Self::Differs(difference) => {
                let (seconds, direction) = (difference.unsigned_abs() / 1_000_000, direction(difference));
                let lasting = LASTING / 1_000_000;
                tracing::warn!(
                    "the wall clock is {seconds} s {direction} the decision time: it is followed if it stays so for \
                     {lasting} s"
                );
            }
        }
    }
}

/// Compares decision time with the wall clock.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// The large difference that was seen last: since when, and how large it was then.
    large: Option<(i64, i64)>,
    warned: Option<i64>,
    said_unusable: Option<()>,
}

impl Pacer {
    /// Looks at the clocks. `wall` is none where the wall clock shows no usable time.
    pub(super) fn look(&mut self, line: &Line, steady: i64, wall: Option<i64>) -> (Step, Option<Notice>) {
        // A wall clock that is wrong now was perhaps wrong when it was followed last.
        let halt = if line.remaining(steady) == 0 { Step::Nothing } else { Step::Slew(0) };
        let Some(wall) = wall else {
            self.large = None;
            return (halt, self.said_unusable.replace(()).is_none().then_some(Notice::Unusable));
        };
        self.said_unusable = None;
        let difference = wall.saturating_sub(line.at(steady));
        if difference.saturating_abs() <= SLEW_MAX {
            let notice = self.large.take().map(|_| Notice::Agrees);
            let missing = difference - line.remaining(steady);
            let step = if missing.abs() > NEGLIGIBLE { Step::Slew(difference) } else { Step::Nothing };
            return (step, notice);
        }
        match self.large {
            Some((_, first)) if difference.saturating_sub(first).saturating_abs() <= SLEW_MAX => {
                let due = Step::Correct { backwards: difference < 0 };
                (if self.has_lasted(steady, difference) { due } else { halt }, None)
            }
            _ => {
                self.large = Some((steady, difference));
                (halt, self.warning(steady, difference))
            }
        }
    }

    /// Whether a difference is the large one that was seen last, and has lasted.
    pub(super) fn has_lasted(&self, steady: i64, difference: i64) -> bool {
        self.large.is_some_and(|(since, first)| {
            steady.saturating_sub(since) >= LASTING && difference.saturating_sub(first).saturating_abs() <= SLEW_MAX
        })
    }

    /// The difference was taken over.
    pub(super) fn corrected(&mut self) {
        self.large = None;
    }

    fn warning(&mut self, steady: i64, difference: i64) -> Option<Notice> {
        if self.warned.is_some_and(|warned| steady.saturating_sub(warned) < WARN_PAUSE) {
            return None;
        }
        self.warned = Some(steady);
        Some(Notice::Differs(difference))
    }
}

/// Whether a difference means that the wall clock is ahead or behind.
pub(super) fn direction(difference: i64) -> &'static str {
    if difference < 0 { "behind" } else { "ahead of" }
}

/// The time that a wall clock shows; none where it is too near to the ends of what can be recorded, so that time goes on
/// for years from any that is followed.
pub(super) fn usable(wall: i64) -> Option<i64> {
    const YEAR: i64 = 366 * 86_400;
    let range = (Timestamp::SECONDS_MIN + YEAR) * 1_000_000..(Timestamp::SECONDS_MAX - YEAR) * 1_000_000;
    range.contains(&wall).then_some(wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const START: Line = Line { steady: 0, time: 1_000_000 * SECOND, slew: 0 };

    /// Looks every 100 ms; `ahead` tells by how much the wall clock is ahead of an even one. Returns the decision times
    /// relative to that clock, one for each look.
    fn run(seconds: i64, ahead: impl Fn(i64) -> i64) -> Vec<i64> {
        let (mut line, mut pacer, mut found, mut last) = (START, Pacer::default(), Vec::new(), i64::MIN);
        for steady in (0..seconds * 10).map(|tenth| tenth * SECOND / 10) {
            let wall = START.time + steady + ahead(steady);
            let before = line.at(steady);
            match pacer.look(&line, steady, usable(wall)).0 {
                Step::Nothing => {}
                Step::Slew(slew) => line = Line { steady, time: before, slew },
                Step::Correct { .. } => {
                    line = Line { steady, time: wall, slew: 0 };
                    pacer.corrected();
                    last = i64::MIN;
                }
            }
            assert!(line.at(steady) > last, "time stands still at {steady}");
            last = line.at(steady);
            found.push(last - START.time - steady);
        }
        found
    }

    #[test]
    fn a_small_difference_is_slewed_in_time() {
        for by in [10 * SECOND, SECOND, -SECOND, -10 * SECOND, 5_000] {
            let found = run(400, |steady| if steady < SECOND { 0 } else { by });
            let needed = (by.abs() * SLEW_PARTS / SECOND + 2) * 10;
            let at = usize::try_from(needed).unwrap();
            assert!(
                found[at..].iter().all(|ahead| (ahead - by).abs() <= NEGLIGIBLE),
                "{by}: {:?}",
                &found[at - 9..=at]
            );
            assert!(found[at / 2].abs() < by.abs(), "{by}: a difference is no step");
        }
    }

    #[test]
    fn a_passing_jump_changes_nothing_and_a_lasting_one_is_followed() {
        for by in [11 * SECOND, -11 * SECOND, 30 * 86_400 * SECOND, -365 * 86_400 * SECOND] {
            let passing = run(200, |steady| if (10 * SECOND..69 * SECOND).contains(&steady) { by } else { 0 });
            assert!(passing.iter().all(|ahead| *ahead == 0), "{by}");
            let lasting = run(200, |steady| if steady >= 10 * SECOND { by } else { 0 });
            assert!(lasting[..700].iter().all(|ahead| *ahead == 0), "{by}");
            assert!(lasting[701..].iter().all(|ahead| *ahead == by), "{by}");
        }
    }

    #[test]
    fn a_clock_that_keeps_jumping_is_not_followed() {
        let jumps = |steady: i64| steady / (50 * SECOND);
        let found = run(600, |steady| jumps(steady) * 3_600 * SECOND * if jumps(steady) % 2 == 0 { 1 } else { -1 });
        assert!(found.iter().all(|ahead| *ahead == 0));
        // Nor is one that runs ten times too fast, nor one that shows the year 12000.
        let fast = run(600, |steady| 9 * steady);
        assert!(fast.iter().all(|ahead| *ahead <= 2 * SECOND), "{:?}", fast.last());
        let far = run(600, |_| 316_516_377_600 * SECOND);
        assert!(far.iter().all(|ahead| *ahead == 0));
    }
}
