//! A change that waits for its confirmation: until when, and what undoes it.
//!
//! Invariant: undoing brings back exactly the last policy that waited for no confirmation. What nobody confirmed never
//! stays, nor longer than until the first deadline.
//! Not here: when it is undone (`writer`); confirming, which is a change like any other.

use super::change::{ChangeRequest, ChangeTarget};
use super::deadlines::Deadlines;
use crate::policy::document::Document;
use crate::policy::organization::Organization;
use crate::policy::plan::Mutation;
use crate::policy::state::PolicyState;
use crate::policy::time::Timestamp;

/// When the changes that wait are to be undone.
pub(super) fn deadlines(state: &PolicyState) -> Deadlines {
    let mut deadlines = Deadlines::default();
    for organization in state.organizations.values() {
        deadlines.set(&organization.id, deadline(organization));
    }
    deadlines
}

/// When the change that waits in an organization is to be undone.
pub(super) fn deadline(organization: &Organization) -> Option<Timestamp> {
    organization.pending.as_ref().map(|pending| pending.until)
}

/// What undoes the change that waits in an organization, with the revision that it undoes.
pub(super) fn undoing(organization: &Organization) -> Option<(ChangeRequest, u64)> {
    let pending = organization.pending.as_ref()?;
    let document = Box::new(Document::of(&pending.base));
    let mutation = Mutation::ReplacePolicy { document, etag: None, goes_back: true, force: true };
    let target = ChangeTarget::Organization { id: organization.id.clone(), mutation };
    let comment = format!("revision {} was not confirmed in time", pending.revision).into();
    // The caller agreed to this when making the change, so no gate applies, and no deletion needs more consent.
    let request = ChangeRequest { comment, is_gated: false, ..ChangeRequest::new(target) };
    Some((request, pending.revision))
}
