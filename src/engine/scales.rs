//! Which records were timed before a correction of the clock and queued after it.
//!
//! A decision reads the clock, and gets its place in the log a moment later. Where the clock is corrected in between, its
//! time is counted as before the correction. No record is the other way round: a correction gets its place before anybody
//! can read the time that it leads to.
//!
//! Invariant: a record is moved only where its time is the last moment before the correction, and it comes soon after it.
//! Not here: what replaying a record does (`sessions`), ages over corrections (`audit::corrections`).

use super::audit::{AuditError, AuditLog};
use crate::audit::filter::RecordFilter;
use crate::audit::record::{ClockChangeCause, ClockChangedRecord, Content, RecordType};
use crate::policy::time::Timestamp;

/// Records that are read at a time.
const PAGE: usize = 1_000;

/// The most corrections that are looked at, the newest ones. There is at most one a minute.
const CORRECTIONS_MAX: usize = 10_000;

/// So many records after a correction may have been timed before it.
const RECORDS_MAX: u64 = 65_536;

/// So long before the correction, in microseconds: no decision takes longer.
const AGE_MAX: i64 = 5_000_000;

/// The corrections on record.
#[derive(Debug, Default)]
pub(super) struct Scales {
    /// Oldest first, each with its sequence. The leaps of starts among them: what follows one is of another process.
    corrections: Vec<(u64, ClockChangedRecord)>,
}

impl Scales {
    /// Those of a log.
    pub(super) fn of(log: &AuditLog) -> Result<Self, AuditError> {
        if log.last_correction() == 0 {
            return Ok(Self::default());
        }
        let filter = RecordFilter { types: vec![RecordType::ClockChanged], ..RecordFilter::default() };
        let (mut corrections, mut before) = (Vec::new(), None);
        loop {
            let page = log.list(&filter, before, PAGE)?;
            for record in page.records {
                if let Content::ClockChanged(change) = record.entry.content
                    && change.cause != ClockChangeCause::Confirmation
                {
                    corrections.push((record.sequence, change));
                }
            }
            // A page may be short, or empty, and not the last.
            before = page.next_before;
            if before.is_none() || corrections.len() >= CORRECTIONS_MAX {
                break;
            }
        }
        corrections.reverse();
        Ok(Self { corrections })
    }

    /// The time of a record as it is counted at its place in the log; none where it is counted so already.
    pub(super) fn in_place(&self, sequence: u64, time: Timestamp) -> Option<Timestamp> {
        let later = self.corrections.partition_point(|(of, _)| *of < sequence);
        let (of, ClockChangedRecord { from_time, to_time, cause, .. }) = self.corrections.get(later.checked_sub(1)?)?;
        if *cause != ClockChangeCause::Correction {
            return None;
        }
        let (from, to, time) = (from_time.micros(), to_time.micros(), time.micros());
        let is_near = sequence - of <= RECORDS_MAX && (from.saturating_sub(AGE_MAX)..=from).contains(&time);
        is_near.then(|| Timestamp::from_micros(time.saturating_add(to.saturating_sub(from))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn scales(corrections: &[(u64, i64, i64)]) -> Scales {
        let cause = ClockChangeCause::Correction;
        let change = |from, to| ClockChangedRecord { from_time: at(from), to_time: at(to), cause };
        Scales { corrections: corrections.iter().map(|(of, from, to)| (*of, change(*from, *to))).collect() }
    }

    #[test]
    fn a_time_of_before_a_correction_is_counted_as_after_it() {
        for to in [10, 5_000] {
            let scales = scales(&[(100, 1_000, to)]);
            assert_eq!(scales.in_place(101, at(999)), Some(at(to - 1)));
            assert_eq!(scales.in_place(107, at(1_000)), Some(at(to)));
            assert_eq!(scales.in_place(101, at(to)), None, "of after it");
            assert_eq!(scales.in_place(101, at(to + 500)), None, "of long after it");
            assert_eq!(scales.in_place(99, at(999)), None, "in its place");
            assert_eq!(scales.in_place(100, at(to)), None, "the correction itself");
            assert_eq!(scales.in_place(100 + RECORDS_MAX + 1, at(1_000)), None, "time has come there once more");
        }
    }

    #[test]
    fn the_last_correction_before_a_record_counts() {
        let scales = scales(&[(100, 1_000, 10), (200, 70, 3_000)]);
        assert_eq!(scales.in_place(201, at(70)), Some(at(3_000)));
        assert_eq!(scales.in_place(201, at(1_000)), None);
        assert_eq!(scales.in_place(199, at(1_000)), Some(at(10)));
        assert_eq!(Scales::default().in_place(1, at(1)), None);
    }
}
