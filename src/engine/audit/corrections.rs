//! The corrections of the decision time that the log has on record, so that ages are counted over them.
//!
//! Invariant: while a reader holds the corrections, decision time is not corrected. So what it reads from the clock, and
//! the times of records as they are counted now, belong together.
//! Not here: reading and recording them (`correcting`), when the decision time is corrected (`engine::timekeeping`).

use std::collections::VecDeque;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::units::UnitInfo;
use crate::audit::record::{ClockChangeCause, ClockChangedRecord};
use crate::engine::clock::{Clock, Recorded};
use crate::locks::IgnorePoison;
use crate::policy::time::Timestamp;

/// The most corrections that are known, the newest ones. There is at most one a minute.
pub(super) const CORRECTIONS_MAX: usize = 10_000;

/// The records about the decision time, oldest first.
#[derive(Debug, Default)]
pub(super) struct Corrections(RwLock<Known>);

/// As they were known at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    list: VecDeque<Step>,
}

/// A record about the decision time.
#[derive(Clone, Copy, Debug)]
struct Step {
    sequence: u64,
    change: ClockChangedRecord,
    /// By how many microseconds the times of earlier records are to be made later. The leap of a start counts as a
    /// correction, as if no time had passed, until it is confirmed.
    by: i64,
}

impl Known {
    pub(super) fn add(&mut self, sequence: u64, change: ClockChangedRecord) {
        let by = match change.cause {
            ClockChangeCause::Correction | ClockChangeCause::Start => change.by(),
            ClockChangeCause::Confirmation => {
                self.list.iter_mut().rev().take_while(|step| step.is_start()).for_each(|step| step.by = 0);
                0
            }
        };
        if self.list.len() >= CORRECTIONS_MAX {
            self.list.pop_front();
        }
        self.list.push_back(Step { sequence, change, by });
    }

    /// What is on the record about the clock.
    pub(super) fn recorded(&self) -> Recorded {
        let starts = self.list.iter().rev().take_while(|step| step.is_start());
        let unconfirmed = starts.fold(0_i64, |sum, step| sum.saturating_add(step.by));
        let last = self.list.back();
        let time = last.map(|step| step.change.to_time);
        Recorded { sequence: last.map_or(0, |step| step.sequence), time, unconfirmed }
    }

    /// The starts that a confirmation is about, newest first.
    pub(super) fn confirmed_by(&self, sequence: u64) -> Vec<ClockChangedRecord> {
        let before = self.list.iter().rev().skip_while(|step| step.sequence >= sequence);
        before.take_while(|step| step.is_start()).map(|step| step.change).collect()
    }

    /// By how many microseconds the times of a record and of those before it are earlier than decision time is counted
    /// now; negative where they are later.
    pub(super) fn since(&self, sequence: u64) -> i64 {
        let later = self.list.iter().rev().take_while(|step| step.sequence > sequence);
        later.fold(0, |sum, step| sum.saturating_add(step.by))
    }

    /// The latest time of a unit's records in microseconds, as decision time is counted now. `last` reads the time of the
    /// unit's last record: records before a correction have times that say nothing about those after it.
    pub(super) fn latest(&self, unit: &UnitInfo, last: impl FnOnce(u64) -> Option<i64>) -> i64 {
        let last_sequence = unit.next_sequence().saturating_sub(1);
        let is_corrected = self.list.iter().any(|step| (unit.first_sequence..=last_sequence).contains(&step.sequence));
        let time = if is_corrected { last(last_sequence) } else { None };
        time.unwrap_or(unit.max_time).saturating_add(self.since(last_sequence))
    }
}

impl Step {
    fn is_start(&self) -> bool {
        self.change.cause == ClockChangeCause::Start
    }
}

impl Corrections {
    /// Those known now, with the decision time as they leave it.
    pub(super) fn by(&self, clock: &Clock) -> (Known, Timestamp) {
        let known = self.0.read().ignore_poison();
        (known.clone(), clock.now())
    }

    /// Held by whoever must not be interrupted by a correction.
    pub(super) fn hold(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().ignore_poison()
    }

    /// Held by whoever adds some.
    pub(super) fn change(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().ignore_poison()
    }

    /// Those known now.
    pub(super) fn known(&self) -> Known {
        self.0.read().ignore_poison().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: UnitInfo = UnitInfo { first_sequence: 257, count: 256, min_time: 10, max_time: 90, bytes: 0 };

    fn change(by: i64, cause: ClockChangeCause) -> ClockChangedRecord {
        ClockChangedRecord { from_time: Timestamp::from_micros(0), to_time: Timestamp::from_micros(by), cause }
    }

    fn known(list: &[(u64, i64)]) -> Known {
        let mut known = Known::default();
        for (of, by) in list {
            known.add(*of, change(*by, ClockChangeCause::Correction));
        }
        known
    }

    #[test]
    fn the_leap_of_a_start_counts_as_no_time_until_it_is_confirmed() {
        let mut known = known(&[(10, 5)]);
        known.add(20, change(700, ClockChangeCause::Start));
        known.add(30, change(80, ClockChangeCause::Start));
        assert_eq!([5, 15, 25, 30].map(|of| known.since(of)), [785, 780, 80, 0]);
        assert_eq!(
            known.recorded(),
            Recorded { sequence: 30, time: Some(Timestamp::from_micros(80)), unconfirmed: 780 }
        );
        let mut corrected = known.clone();
        corrected.add(40, change(-780, ClockChangeCause::Correction));
        assert_eq!([5, 15, 25, 35].map(|of| corrected.since(of)), [5, 0, -700, -780]);
        corrected.add(50, change(60, ClockChangeCause::Start));
        corrected.add(60, change(60, ClockChangeCause::Confirmation));
        assert_eq!([15, 45, 55].map(|of| corrected.since(of)), [0, 0, 0]);
        known.add(40, change(780, ClockChangeCause::Confirmation));
        assert_eq!([5, 15, 25, 35].map(|of| known.since(of)), [5, 0, 0, 0]);
        assert_eq!(
            known.recorded(),
            Recorded { sequence: 40, time: Some(Timestamp::from_micros(780)), unconfirmed: 0 }
        );
        assert_eq!(known.confirmed_by(40).iter().map(ClockChangedRecord::by).collect::<Vec<_>>(), [80, 700]);
    }

    #[test]
    fn times_are_counted_over_the_corrections_after_them() {
        let known = known(&[(10, 7), (600, 1_000), (700, -300)]);
        assert_eq!([9, 10, 599, 600, 700].map(|of| known.since(of)), [707, 700, 700, -300, 0]);
        assert_eq!(known.latest(&UNIT, |_| panic!("nothing was corrected within it")), 790);
    }

    #[test]
    fn a_unit_within_which_time_was_corrected_is_as_old_as_its_last_record() {
        let known = known(&[(300, -50), (512, -5), (513, 1)]);
        assert_eq!(known.latest(&UNIT, |last| (last == 512).then_some(40)), 41);
        assert_eq!(known.latest(&UNIT, |_| None), 91, "it cannot be read");
    }

    #[test]
    fn only_the_newest_corrections_are_known() {
        let mut many = Known::default();
        for sequence in 1..=CORRECTIONS_MAX as u64 + 5 {
            many.add(sequence, change(1, ClockChangeCause::Correction));
        }
        assert_eq!(many.since(0), i64::try_from(CORRECTIONS_MAX).unwrap());
    }
}
