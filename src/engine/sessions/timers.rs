//! Timers: when to look at which session again, so that sessions which are not due cost nothing.
//!
//! Every renewal and every further check delays a deadline, but does not move the entry: the entry comes up at the old
//! deadline and is queued again. Only an earlier deadline needs a new entry.
//!
//! Invariant: every active session has one live entry, due no later than the session's deadline. Dead entries are at
//! most as many as the live ones and `DEAD_ENTRIES_MIN`.
//! Not here: what the deadline is (`lifetime`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::slab::{Active, Handle, Slab};

/// So few dead entries are not worth sweeping.
pub(super) const DEAD_ENTRIES_MIN: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// In microseconds since 1970.
    deadline: i64,
    handle: Handle,
}

/// The timers of a shard.
#[derive(Default)]
pub(super) struct Timers {
    entries: BinaryHeap<Reverse<Entry>>,
}

impl Entry {
    fn is_live(&self, slab: &Slab) -> bool {
        slab.get(self.handle).is_some_and(|active| active.queued == self.deadline)
    }
}

impl Timers {
    /// Queues a session that has no live entry, or whose entry is due too late.
    pub(super) fn queue(&mut self, slab: &mut Slab, slot: u32, deadline: i64) {
        let Some(handle) = slab.handle(slot) else { return };
        if let Some(active) = slab.at_mut(slot) {
            active.queued = deadline;
        }
        self.entries.push(Reverse(Entry { deadline, handle }));
        self.sweep(slab);
    }

    /// Drops dead entries once they are many.
    pub(super) fn sweep(&mut self, slab: &Slab) {
        if self.entries.len() > 2 * slab.len() + DEAD_ENTRIES_MIN {
            self.entries.retain(|Reverse(entry)| entry.is_live(slab));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When the next session is to be looked at.
    fn next(&mut self, slab: &Slab) -> Option<i64> {
        while let Some(Reverse(entry)) = self.entries.peek() {
            if entry.is_live(slab) {
                return Some(entry.deadline);
            }
            self.entries.pop();
        }
        None
    }

    /// Takes out the next session that is to be looked at by `now`; it is to be ended or queued again.
    pub(super) fn pop<'a>(&mut self, slab: &'a Slab, now: i64) -> Option<(u32, &'a Active)> {
        self.next(slab).filter(|deadline| *deadline <= now)?;
        let Reverse(entry) = self.entries.pop()?;
        slab.get(entry.handle).map(|active| (entry.handle.slot, active))
    }
}
