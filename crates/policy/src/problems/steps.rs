//! How many steps a part of the analysis may take.
//!
//! Most policies take a few steps for each rule and range. A policy can be made in which far more is true than can be
//! found out: then a part stops, and says so.
//!
//! Invariant: no more steps are taken than there are.
//! Not here: what is left out when they do not suffice (`rules`, `nodes`).

use super::examined::Examined;

/// Steps for policies of every size.
const BASE: u64 = 500_000;

/// Further steps for each rule and each of its intervals.
const FOR_EACH: u64 = 16;

/// A supply of steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    left: u64,
    taken: u64,
    short: bool,
}

impl Steps {
    pub(super) fn new(steps: u64) -> Self {
        Self { left: steps, taken: 0, short: false }
    }

    /// As many as a part that looks at all rules and at `intervals` of their sources may take.
    pub(super) fn of(examined: &Examined<'_>, intervals: usize) -> Self {
        let count = u64::try_from(examined.organization.rules.len().saturating_add(intervals)).unwrap_or(u64::MAX);
        Self::new(BASE.saturating_add(count.saturating_mul(FOR_EACH)))
    }

    /// Takes steps. When there are too few, none is taken, and the supply is short from then on.
    pub(super) fn take(&mut self, count: usize) -> bool {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        match self.left.checked_sub(count) {
            Some(left) if !self.short => {
                self.left = left;
                self.taken += count;
                true
            }
            _ => {
                self.short = true;
                false
            }
        }
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether some steps could not be taken.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// Notes what another part took.
    pub(super) fn note(&mut self, other: &Self) {
        self.taken += other.taken;
        self.short |= other.short;
    }
}
