//! Corrections of the decision time, as the log records and reads them.
//!
//! Invariant: a correction is known as soon as it is in force. Nobody who holds the corrections sees one without the other.
//! Not here: counting over corrections (`corrections`), when there is one (`engine::timekeeping`).

use super::corrections::{CORRECTIONS_MAX, Known};
use super::error::AuditError;
use super::log::AuditLog;
use crate::audit::filter::RecordFilter;
use crate::audit::record::{ClockChangeCause, ClockChangedRecord, Content, Entry, Record, RecordType};
use crate::engine::clock::{Clock, Correction, Recorded};

/// How many records are read at a time.
const PAGE: usize = 1_000;

impl AuditLog {
    /// Takes in the corrections that are on record. For a log that was just read back.
    pub(super) fn read_corrections(&self) -> Result<(), AuditError> {
        let filter = RecordFilter { types: vec![RecordType::ClockChanged], ..RecordFilter::default() };
        let (mut records, mut before) = (Vec::new(), None);
        loop {
            let page = self.list(&filter, before, PAGE)?;
            records.extend(page.records);
            before = page.next_before;
            if before.is_none() || records.len() >= CORRECTIONS_MAX {
                break;
            }
        }
        let mut known = self.shared.corrections.change();
        for Record { sequence, entry, .. } in records.iter().rev() {
            if let Content::ClockChanged(change) = &entry.content {
                known.add(*sequence, *change);
            }
        }
        Ok(())
    }

    /// Corrects the decision time on the record. `follow` has whatever counts in decision time follow, before anybody
    /// reads with [`AuditLog::uncorrected`] again; it must not block. None where the clock is not corrected.
    pub(crate) fn correct(&self, clock: &Clock, follow: impl FnOnce()) -> Option<Correction> {
        let mut known = self.shared.corrections.change();
        let correction = clock.correct_noting(|correction| {
            self.record_step(&mut known, correction, ClockChangeCause::Correction);
        })?;
        follow();
        Some(correction)
    }

    /// Takes the time by which decision time leapt ahead at starts as passed, on the record. `follow` gets the sequence of
    /// that, and the starts, newest first; for it the same holds as in [`AuditLog::correct`].
    pub(crate) fn confirm(&self, clock: &Clock, follow: impl FnOnce(u64, &[ClockChangedRecord])) -> Option<Correction> {
        let (mut known, mut sequence) = (self.shared.corrections.change(), 0);
        let confirmed = clock.confirm_noting(|confirmed| {
            sequence = self.record_step(&mut known, confirmed, ClockChangeCause::Confirmation).0;
        })?;
        follow(sequence, &known.confirmed_by(sequence));
        Some(confirmed)
    }

    /// Records that decision time leapt ahead at this start. Before anything that was timed since.
    pub(crate) fn record_leap(&self, leap: Correction) -> (u64, ClockChangedRecord) {
        self.record_step(&mut self.shared.corrections.change(), leap, ClockChangeCause::Start)
    }

    /// No record before it has a time after it.
    fn record_step(&self, known: &mut Known, step: Correction, cause: ClockChangeCause) -> (u64, ClockChangedRecord) {
        let change = ClockChangedRecord { from_time: step.from, to_time: step.to, cause };
        let entry = Entry { time: step.to, organization: None, content: Content::ClockChanged(change) };
        let sequence = self.queue().push(entry, None, true);
        known.add(sequence, change);
        (sequence, change)
    }

    /// What is on the record about the clock.
    pub(crate) fn recorded_clock(&self) -> Recorded {
        self.shared.corrections.hold().recorded()
    }

    /// The last record about the clock; 0 where there is none.
    pub(crate) fn last_correction(&self) -> u64 {
        self.recorded_clock().sequence
    }

    /// The starts that a confirmation on the record is about, newest first.
    pub(crate) fn confirmed_by(&self, sequence: u64) -> Vec<ClockChangedRecord> {
        self.shared.corrections.hold().confirmed_by(sequence)
    }

    /// Runs something short while the decision time is not corrected.
    pub(crate) fn uncorrected<T>(&self, run: impl FnOnce() -> T) -> T {
        let _known = self.shared.corrections.hold();
        run()
    }

    /// By how many microseconds decision time was corrected after a record, forwards in all.
    pub(crate) fn corrected_since(&self, sequence: u64) -> i64 {
        self.shared.corrections.hold().since(sequence)
    }
}
