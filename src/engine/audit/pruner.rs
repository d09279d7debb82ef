//! The pruner removes the oldest units, as retention demands, in these steps:
//!
//! 1. Make a PRUNED record durable and sign it. It holds the root over the removed records.
//! 2. Write files with what later proofs need of the units: tile roots and counts.
//! 3. Remove the units' files.
//!
//! Invariant: every removal is recorded, nothing younger than the longest session is removed, and every kept record can
//! still be proven. Ages count no time that only a clock shows which has not settled (`corrections`). What stays beyond age
//! and size is less than a unit, and the tile that is begun (`unit_limits`).
//! Not here: when to look (`maintenance`), what is kept of removed units (`removed`).

use std::sync::Arc;
use std::time::Duration;

use super::corrections::Known;
use super::error::AuditError;
use super::removed::write_removed;
use super::shared::Shared;
use super::tail::TailUnit;
use super::units::{UnitInfo, micros};
use crate::audit::record::{Content, Entry, PrunedRecord};
use crate::engine::clock::Clock;

/// About how many bytes an opening has in the journal.
const OPENING_BYTES: u64 = 128;

/// See the module.
pub(super) struct Pruner {
    shared: Arc<Shared>,
    clock: Clock,
    /// The longest time that a session is open.
    session_age_max: Duration,
}

impl Pruner {
    pub(super) fn new(shared: Arc<Shared>, clock: Clock, session_age_max: Duration) -> Self {
        Self { shared, clock, session_age_max }
    }

    /// The last record that retention no longer keeps; none where it keeps all.
    pub(super) fn due_to(&self) -> Option<u64> {
        // A record of it might come after the writer's end.
        if self.shared.is_closing() {
            return None;
        }
        self.due().last().map(|last| last.next_sequence() - 1)
    }

    /// Removes the units up to a record.
    pub(super) fn prune_to(&self, to_sequence: u64) {
        if let Err(error) = self.prune(to_sequence) {
            tracing::warn!(%error, to_sequence, "cannot remove old records of the audit log: it is tried again later");
        }
    }

    /// The units that are to go, oldest first.
    fn due(&self) -> Vec<UnitInfo> {
        let options = &self.shared.options;
        let units = self.shared.units.list();
        // A correction of the clock makes no record older or younger.
        let (corrections, now) = self.shared.corrections.by(&self.clock);
        let now = now.micros();
        let sealed: u64 = units.iter().map(|unit| unit.bytes).sum();
        let mut bytes = sealed + self.tail_bytes();
        // An active session may have been opened that long ago.
        let needed = now - micros(self.session_age_max);
        let latest = self.latest(&units, &corrections);
        let mut due = Vec::new();
        for (unit, latest) in units.into_iter().zip(latest) {
            let too_old = options.retention_age.is_some_and(|age| latest < now - micros(age));
            let too_much = options.retention_bytes.is_some_and(|bytes_max| bytes > bytes_max);
            if !(too_old || too_much) || latest >= needed {
                break;
            }
            bytes -= unit.bytes;
            due.push(unit);
        }
        due
    }

    /// When the records of each unit were made at the latest, as decision time is counted now.
    fn latest(&self, units: &[UnitInfo], corrections: &Known) -> Vec<i64> {
        let time = |unit: &UnitInfo| corrections.latest(unit, |last| self.shared.time_of(last));
        let tail = self.shared.tail.units();
        let in_tail = tail.iter().filter_map(|unit| unit.info()).map(|info| time(&info)).min().unwrap_or(i64::MAX);
        no_later_than_what_follows(units.iter().map(time), in_tail)
    }

    /// About how many bytes the records have in the journal that are not sealed.
    fn tail_bytes(&self) -> u64 {
        let bytes = |unit: Arc<TailUnit>| {
            let content = unit.read();
            content.bytes() as u64 + content.openings.len() as u64 * OPENING_BYTES
        };
        self.shared.tail.units().into_iter().map(bytes).sum()
    }

    fn prune(&self, to_sequence: u64) -> Result<(), AuditError> {
        let shared = &self.shared;
        let tree = shared.tree().clone();
        let root = tree.root_at(to_sequence, &**shared).map_err(AuditError::not_readable)?;
        let content = Content::Pruned(PrunedRecord { to_sequence, root });
        let entry = Entry { time: self.clock.now(), organization: None, content };
        shared.wait_durable(shared.queue.push(entry, None, true), None)?;
        shared.sign();
        let layout = shared.layout.hold();
        write_removed(&shared.folder, &shared.units, &tree, to_sequence).map_err(AuditError::not_writable)?;
        let mut gone = shared.units.list();
        gone.retain(|unit| unit.next_sequence() <= to_sequence + 1);
        shared.units.forget_before(to_sequence + 1);
        let removed = gone.iter().try_for_each(|unit| shared.units.files.remove(unit.first_sequence));
        // Nothing is logged under a lock.
        drop(layout);
        tracing::info!(to_sequence, "old records of the audit log are removed");
        removed.map_err(AuditError::not_writable)
    }
}

/// The times of units, each lowered to the earliest after it; `last` is the time of what follows all. What was recorded
/// before something old is old, whatever its own times say: records of a clock that ran ahead would else stop retention
/// until real time catches up.
fn no_later_than_what_follows(times: impl DoubleEndedIterator<Item = i64>, last: i64) -> Vec<i64> {
    let from_the_end = times.rev().scan(last, |earliest, time| {
        *earliest = time.min(*earliest);
        Some(*earliest)
    });
    let mut times: Vec<i64> = from_the_end.collect();
    times.reverse();
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_before_something_old_is_old() {
        let times = |times: &[i64], last| no_later_than_what_follows(times.iter().copied(), last);
        assert_eq!(times(&[10, 20, 30], 40), [10, 20, 30], "the clock ran evenly");
        assert_eq!(times(&[10, 900, 30], 40), [10, 30, 30], "it ran ahead for a while");
        assert_eq!(times(&[700, 800, 900], 40), [40, 40, 40], "it was set right before the tail");
        assert_eq!(times(&[10, 20], i64::MAX), [10, 20], "there is no tail");
        assert_eq!(times(&[], 40), [0; 0]);
    }
}
