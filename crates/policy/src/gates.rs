//! Gates: conditions that a change has to meet (design.md §3, `ChangeOptions`).
//!
//! Invariant: gates without a condition refuse nothing.
//! Not here: judging a change by them (`judging`), and who may pass over a gate.

use super::address::Address;

/// Conditions that every change of an organization has to meet, at every moment from now on: what was going to happen
/// without the change is no fault of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    /// Addresses that must keep every connection that they are allowed, or are going to be, at most [`GUARD_MAX`].
    pub guard: Vec<Address>,
    /// The number of active sessions that one change may revoke, at once or later; none means any number.
    pub max_revocations: Option<u64>,
    /// Whether a change may not open a node to every address of a family.
    pub refuse_open_to_internet: bool,
}

/// The number of addresses that gates can guard.
pub const GUARD_MAX: usize = 100;

impl Gates {
    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The gates that refuse whatever one of the two refuses.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut guard = self.guard.clone();
        guard.extend(other.guard.iter().filter(|address| !self.guard.contains(address)));
        let max_revocations = self.max_revocations.into_iter().chain(other.max_revocations).min();
        Self {
            guard,
            max_revocations,
            refuse_open_to_internet: self.refuse_open_to_internet || other.refuse_open_to_internet,
        }
    }
}
