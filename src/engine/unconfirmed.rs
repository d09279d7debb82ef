//! A change that waits for its confirmation: until when, and what undoes it.
//!
//! Invariant: undoing brings back exactly the last policy that waited for no confirmation. What nobody confirmed never
//! stays, nor longer than until the first deadline.
//! Not here: when it is undone (`writer`); confirming, which is a change like any other.

use std::collections::HashMap;

use super::audit::{AuditError, AuditLog};
use super::change::{ChangeRequest, ChangeTarget};
use super::clock::Moment;
use super::deadlines::Deadlines;
use crate::audit::filter::RecordFilter;
use crate::audit::record::{Content, RecordType};
use crate::policy::document::Document;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::plan::Mutation;
use crate::policy::state::PolicyState;
use crate::policy::time::Timestamp;

/// Records that are read at once.
const PAGE: usize = 1_000;

/// When the changes that wait are to be undone, by the steady clock.
#[derive(Default)]
pub(super) struct Unconfirmed {
    deadlines: Deadlines,
    /// The same as the policy has them, in decision time: what has not changed there is not computed anew, for the decision
    /// time may have been corrected meanwhile.
    untils: HashMap<Id, Timestamp>,
}

impl Unconfirmed {
    /// Those of a state, at the start, and where the leap of a start is confirmed. Where the log has corrections of the clock that were made since, the deadlines follow
    /// them.
    pub(super) fn of(state: &PolicyState, now: Moment, log: &AuditLog) -> Result<Self, AuditError> {
        let mut unconfirmed = Self::default();
        for organization in state.organizations.values() {
            let Some(pending) = &organization.pending else { continue };
            let corrected = corrected_since(log, &organization.id, pending.revision)?;
            let until = Timestamp::from_micros(pending.until.micros().saturating_add(corrected));
            unconfirmed.deadlines.set(&organization.id, Some(now.steady_at(until)));
            unconfirmed.untils.insert(organization.id.clone(), pending.until);
        }
        Ok(unconfirmed)
    }

    /// Notes the deadline of an organization, in decision time, or that it has none. While one waits, no later one takes
    /// its place, whatever corrections of the clock make of their times.
    pub(super) fn set(&mut self, organization: &Id, until: Option<Timestamp>, now: Moment) {
        if self.untils.get(organization).copied() == until {
            return;
        }
        let Some(until) = until else {
            self.untils.remove(organization);
            return self.deadlines.set(organization, None);
        };
        self.untils.insert(organization.clone(), until);
        let (waiting, until) = (self.deadlines.get(organization), now.steady_at(until));
        self.deadlines.set(organization, Some(waiting.map_or(until, |waiting| waiting.min(until))));
    }

    /// The organizations whose deadline has passed.
    pub(super) fn due(&self, now: Moment) -> Vec<Id> {
        self.deadlines.due(now.steady)
    }
}

/// By how many microseconds decision time was corrected since a revision was made. The leap of a start counts as a
/// correction until it is confirmed.
fn corrected_since(log: &AuditLog, organization: &Id, revision: u64) -> Result<i64, AuditError> {
    let of = |types: &[RecordType]| RecordFilter { types: types.to_vec(), ..RecordFilter::default() };
    if log.last_correction() == 0 {
        return Ok(0);
    }
    let (filter, mut before) = (of(&[RecordType::PolicyChanged]), None);
    loop {
        let page = log.list(&filter, before, PAGE)?;
        for record in &page.records {
            let is_its = record.entry.organization.as_ref() == Some(organization);
            match &record.entry.content {
                Content::PolicyChanged(change) if is_its && change.revision <= revision => {
                    return Ok(log.corrected_since(record.sequence));
                }
                _ => {}
            }
        }
        match page.next_before {
            None => return Ok(log.corrected_since(0)),
            next => before = next,
        }
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
