//! A change that waits for its confirmation: until when, and what undoes it.
//!
//! Invariant: undoing brings back exactly the last policy that waited for no confirmation. What nobody confirmed never
//! stays, nor longer than until the first deadline.
//! Not here: when it is undone (`writer`); confirming, which is a change like any other.

use super::change::{ChangeRequest, ChangeTarget};
use super::clock::Moment;
use super::deadlines::Deadlines;
use crate::policy::document::Document;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::plan::Mutation;
use crate::policy::state::PolicyState;
use crate::policy::time::Timestamp;

/// When the changes that wait are to be undone, by the steady clock.
#[derive(Default)]
pub(super) struct Unconfirmed(Deadlines);

impl Unconfirmed {
    /// Those of a state, at the start.
    pub(super) fn of(state: &PolicyState, now: Moment) -> Self {
        let mut unconfirmed = Self::default();
        for organization in state.organizations.values() {
            unconfirmed.set(&organization.id, deadline(organization), now);
        }
        unconfirmed
    }

    /// Notes the deadline of an organization, in decision time, or that it has none. While one waits, no later one takes
    /// its place, whatever corrections of the clock make of their times.
    pub(super) fn set(&mut self, organization: &Id, until: Option<Timestamp>, now: Moment) {
        let until = until.map(|until| now.steady_at(until));
        let waiting = self.0.get(organization);
        let until = until.map(|until| waiting.map_or(until, |waiting| waiting.min(until)));
        if until != waiting {
            self.0.set(organization, until);
        }
    }

    /// The organizations whose deadline has passed.
    pub(super) fn due(&self, now: Moment) -> Vec<Id> {
        self.0.due(now.steady)
    }
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
