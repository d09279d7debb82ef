//! Gates: conditions that a change has to meet (design.md §3, `ChangeOptions`).
//!
//! Invariant: gates without a condition refuse nothing.
//! Not here: judging a change by them (`judging`), and who may pass over a gate.

use super::address::Address;

/// Conditions on changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    /// Addresses that must not be locked out.
    pub guard: Vec<Address>,
    /// How many active sessions one change may revoke; none: any number.
    pub max_revocations: Option<u64>,
    /// Whether nothing may become open to every address of a family.
    pub refuse_open_to_internet: bool,
}

/// Addresses that gates guard at most.
pub const GUARD_MAX: usize = 100;

impl Gates {
    /// Whether nothing is refused.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The gates that refuse what either does.
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
