//! A journal in memory, for tests and for comparison.
//!
//! Invariant: it behaves like the journal in files, except that nothing survives the process.
//!
//! Not here: failures; a test that wants them puts a failing disk under the journal in files.

use std::collections::VecDeque;

use super::super::{Edit, JournalError, Log, OwnedRecords, Records, Redaction, Segments};
use super::frame;

/// A journal that is gone with the process.
#[derive(Debug)]
pub struct MemoryJournal {
    records: VecDeque<Vec<u8>>,
    first_sequence: u64,
}

impl MemoryJournal {
    /// An empty journal whose first record gets the sequence 1.
    pub fn new() -> Self {
        Self { records: VecDeque::new(), first_sequence: 1 }
    }
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::new()
    }
}

impl Log for MemoryJournal {
    fn append(&mut self, records: &[Vec<u8>]) -> Result<u64, JournalError> {
        frame::measure(records)?;
        let first = self.next_sequence();
        self.records.extend(records.iter().cloned());
        Ok(first)
    }

    fn next_sequence(&self) -> u64 {
        self.first_sequence + self.records.len() as u64
    }

    fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    fn read_from(&self, sequence: u64) -> Result<Records<'_>, JournalError> {
        let out_of_range =
            JournalError::OutOfRange { sequence, first: self.first_sequence, next: self.next_sequence() };
        if sequence > self.next_sequence() {
            return Err(out_of_range);
        }
        let Some(skipped) = sequence.checked_sub(self.first_sequence) else {
            return Err(out_of_range);
        };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let records = self.records.iter().skip(skipped).cloned();
        Ok(Box::new((sequence..).zip(records).map(Ok)))
    }

    fn records_from(&self, sequence: u64) -> Result<OwnedRecords, JournalError> {
        let records: Vec<_> = self.read_from(sequence)?.collect();
        Ok(Box::new(records.into_iter()))
    }

    fn recover(&mut self) -> Result<(), JournalError> {
        Ok(())
    }
}

impl Segments for MemoryJournal {
    fn roll(&mut self) -> Result<(), JournalError> {
        Ok(())
    }

    fn truncate_before(&mut self, sequence: u64) -> Result<(), JournalError> {
        while self.first_sequence < sequence && self.records.pop_front().is_some() {
            self.first_sequence += 1;
        }
        Ok(())
    }
}

impl Redaction for MemoryJournal {
    fn redact(&mut self, from: u64, edit: &mut Edit<'_>) -> Result<u64, JournalError> {
        let numbered = (self.first_sequence..).zip(&mut self.records);
        let changed = numbered.filter(|(sequence, _)| *sequence >= from).filter_map(|(sequence, record)| {
            let changed = edit(sequence, record);
            changed.then_some(())
        });
        Ok(changed.count() as u64)
    }

    fn redact_part(&mut self, _part: u64, edit: &mut Edit<'_>) -> Result<Option<u64>, JournalError> {
        self.redact(0, edit).map(|_| None)
    }
}
