//! The corrections of the decision time that the log has on record, so that ages are counted over them.
//!
//! Invariant: while a reader holds the corrections, decision time is not corrected. So what it reads from the clock, and
//! the times of records as they are counted now, belong together.
//! Not here: reading and recording them (`correcting`), when the decision time is corrected (`engine::timekeeping`).

use std::collections::VecDeque;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::units::UnitInfo;
use crate::engine::clock::Clock;
use crate::locks::IgnorePoison;
use crate::policy::time::Timestamp;

/// The most corrections that are known, the newest ones. There is at most one a minute.
pub(super) const CORRECTIONS_MAX: usize = 10_000;

/// The corrections of the decision time, oldest first.
#[derive(Debug, Default)]
pub(super) struct Corrections(RwLock<Known>);

/// As they were known at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The sequence of each record, and by how many microseconds it led forwards.
    list: VecDeque<(u64, i64)>,
}

impl Known {
    pub(super) fn add(&mut self, sequence: u64, by: i64) {
        if self.list.len() >= CORRECTIONS_MAX {
            self.list.pop_front();
        }
        self.list.push_back((sequence, by));
    }

    /// By how many microseconds the times of a record and of those before it are earlier than decision time is counted
    /// now; negative where they are later.
    pub(super) fn since(&self, sequence: u64) -> i64 {
        let later = self.list.iter().rev().take_while(|(of, _)| *of > sequence);
        later.fold(0, |sum, (_, by)| sum.saturating_add(*by))
    }

    /// The latest time of a unit's records in microseconds, as decision time is counted now. `last` reads the time of the
    /// unit's last record: records before a correction have times that say nothing about those after it.
    pub(super) fn latest(&self, unit: &UnitInfo, last: impl FnOnce(u64) -> Option<i64>) -> i64 {
        let last_sequence = unit.next_sequence().saturating_sub(1);
        let is_corrected = self.list.iter().any(|(of, _)| (unit.first_sequence..=last_sequence).contains(of));
        let time = if is_corrected { last(last_sequence) } else { None };
        time.unwrap_or(unit.max_time).saturating_add(self.since(last_sequence))
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

    fn known(list: &[(u64, i64)]) -> Known {
        Known { list: list.iter().copied().collect() }
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
            many.add(sequence, 1);
        }
        assert_eq!(many.since(0), i64::try_from(CORRECTIONS_MAX).unwrap());
    }
}
