//! Corrections of the decision time, as the log records and reads them.
//!
//! Invariant: a correction is known as soon as it is in force. Nobody who holds the corrections sees one without the other.
//! Not here: counting over corrections (`corrections`), when there is one (`engine::timekeeping`).

use super::corrections::CORRECTIONS_MAX;
use super::error::AuditError;
use super::log::AuditLog;
use crate::audit::filter::RecordFilter;
use crate::audit::record::{ClockChangedRecord, Content, Entry, Record, RecordType};
use crate::engine::clock::{Clock, Correction};

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
                known.add(*sequence, change.to_time.micros().saturating_sub(change.from_time.micros()));
            }
        }
        Ok(())
    }

    /// Corrects the decision time on the record. `follow` has whatever counts in decision time follow, before anybody
    /// reads with [`AuditLog::uncorrected`] again; it must not block. None where the clock is not corrected.
    pub(crate) fn correct(&self, clock: &Clock, follow: impl FnOnce()) -> Option<Correction> {
        let mut known = self.shared.corrections.change();
        let correction = clock.correct()?;
        let Correction { from, to } = correction;
        let content = Content::ClockChanged(ClockChangedRecord { from_time: from, to_time: to });
        let sequence = self.queue().push(Entry { time: to, organization: None, content }, None, true);
        known.add(sequence, to.micros().saturating_sub(from.micros()));
        follow();
        Some(correction)
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
