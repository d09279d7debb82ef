//! When something falls due, by organization.
//!
//! Invariant: an organization has at most one deadline.
//! Not here: what falls due (`keeper`, `unconfirmed`, `expiry`), and the clock.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::policy::name::Id;
use crate::policy::time::Timestamp;

/// The deadlines of organizations.
#[derive(Default)]
pub(super) struct Deadlines {
    by_organization: HashMap<Id, Timestamp>,
    by_time: BTreeSet<(Timestamp, Id)>,
}

impl Deadlines {
    /// Sets the deadline of an organization, or takes it away.
    pub(super) fn set(&mut self, organization: &Id, deadline: Option<Timestamp>) {
        if let Some(before) = self.by_organization.remove(organization) {
            self.by_time.remove(&(before, organization.clone()));
        }
        if let Some(deadline) = deadline {
            self.by_organization.insert(organization.clone(), deadline);
            self.by_time.insert((deadline, organization.clone()));
        }
    }

    /// The deadline of an organization.
    pub(super) fn get(&self, organization: &Id) -> Option<Timestamp> {
        self.by_organization.get(organization).copied()
    }

    /// How long until the next deadline; zero where it has passed.
    pub(super) fn next_in(&self, now: Timestamp) -> Option<Duration> {
        let (deadline, _) = self.by_time.first()?;
        let micros = deadline.micros().saturating_sub(now.micros()).max(0);
        Some(Duration::from_micros(micros.unsigned_abs()))
    }

    /// Whether some deadline has passed.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.by_time.first().is_some_and(|(deadline, _)| *deadline <= now)
    }

    /// The organizations whose deadlines passed first, so many at most.
    pub(super) fn first_due(&self, now: Timestamp, count_max: usize) -> Vec<Id> {
        let due = self.by_time.iter().take_while(|(deadline, _)| *deadline <= now);
        due.take(count_max).map(|(_, id)| id.clone()).collect()
    }

    /// The organizations whose deadline has passed.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Id> {
        self.by_time.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, id)| id.clone()).collect()
    }
}
