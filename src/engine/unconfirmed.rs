//! Changes that wait for their confirmation: which they are, until when, and what undoes them.
//!
//! Invariant: every organization with such a change is listed once, at the time when the change is to be undone.
//! Not here: when they are undone (`writer`); confirming, which is a change like any other.

use std::collections::BTreeSet;
use std::time::Duration;

use super::change::{ChangeRequest, ChangeTarget};
use crate::policy::document::Document;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::plan::Mutation;
use crate::policy::state::PolicyState;
use crate::policy::time::Timestamp;

/// The organizations with a change that waits, by when it is to be undone.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    by_time: BTreeSet<(Timestamp, Id)>,
}

impl Unconfirmed {
    /// Those of a state.
    pub(super) fn of(state: &PolicyState) -> Self {
        let mut unconfirmed = Self::default();
        for organization in state.organizations.values() {
            unconfirmed.follow(&organization.id, None, Some(organization));
        }
        unconfirmed
    }

    /// Notes that an organization changed.
    pub(super) fn follow(&mut self, id: &Id, before: Option<&Organization>, after: Option<&Organization>) {
        let until = |organization: Option<&Organization>| Some(organization?.pending.as_ref()?.until);
        if let Some(time) = until(before) {
            self.by_time.remove(&(time, id.clone()));
        }
        if let Some(time) = until(after) {
            self.by_time.insert((time, id.clone()));
        }
    }

    /// How long until the next is undone.
    pub(super) fn next_in(&self, now: Timestamp) -> Option<Duration> {
        let (time, _) = self.by_time.first()?;
        let micros = time.micros().saturating_sub(now.micros()).max(0);
        Some(Duration::from_micros(micros.unsigned_abs()))
    }

    /// The organizations whose change is to be undone by now.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Id> {
        self.by_time.iter().take_while(|(time, _)| *time <= now).map(|(_, id)| id.clone()).collect()
    }
}

/// What undoes the change that waits in an organization, with the revision that it undoes.
pub(super) fn undoing(organization: &Organization) -> Option<(ChangeRequest, u64)> {
    let pending = organization.pending.as_ref()?;
    let document = Box::new(Document::of(&pending.base));
    let mutation = Mutation::ReplacePolicy { document, etag: None, goes_back: true };
    let target = ChangeTarget::Organization { id: organization.id.clone(), mutation };
    let comment = format!("revision {} was not confirmed in time", pending.revision).into();
    // Going back was agreed on when the change was made, so no gate is asked.
    let request = ChangeRequest { comment, is_gated: false, ..ChangeRequest::new(target) };
    Some((request, pending.revision))
}
