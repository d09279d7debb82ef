//! Planning beside a change that waits for its confirmation (design.md §3, `confirm_within`).
//!
//! Invariant: while a change waits, nothing but its confirmation and going back is planned.
//! Not here: undoing what nobody confirmed (`engine`).

use super::error::PlanError;
use super::task::Task;
use crate::change::Delta;
use crate::name::Name;
use crate::organization::{Organization, Pending};

impl Task<'_> {
    pub(super) fn confirm(mut self, revision: u64) -> Result<Vec<Delta>, PlanError> {
        self.refuse()?;
        match self.organization.pending.as_deref() {
            Some(pending) if pending.revision == revision => Ok(vec![Delta::Confirm { revision }]),
            _ if revision == 0 || revision > self.organization.revision => {
                Err(PlanError::NotFound(Name::revision(&self.organization.id, &revision).to_string()))
            }
            _ => Err(PlanError::NothingToConfirm {
                organization: Name::organization(&self.organization.id).to_string(),
                revision,
            }),
        }
    }
}

/// Refuses where a change waits for its confirmation.
pub(super) fn check_pending(organization: &Organization) -> Result<(), PlanError> {
    match organization.pending.as_deref() {
        None => Ok(()),
        Some(Pending { revision, .. }) => Err(PlanError::ConfirmationPending {
            organization: Name::organization(&organization.id).to_string(),
            revision: *revision,
        }),
    }
}
