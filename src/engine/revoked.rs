//! The active sessions that a change would revoke, at once or later.
//!
//! Invariant: a session counts where some moment from now on denies it with the change and allows it without.
//! Not here: revoking sessions (`keeper`), and how many a change may revoke (`policy::gates`).

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::prospect::{Prospect, Prospected};
use super::sessions::{JudgedSession, Session, SessionTable};
use crate::policy::decision::Decision;
use crate::policy::forecast::{Budget, Comparison, Event, TooCostly};
use crate::policy::name::Id;
use crate::policy::timeline::Moment;
use crate::policy::version::Version;

/// The sessions that a change would revoke.
#[derive(Debug, Default)]
pub struct Revoked {
    /// How many it would revoke at each moment.
    by_moment: BTreeMap<Moment, u64>,
    /// The first of them.
    pub listed: Vec<Session>,
    /// An organization with sessions that are not counted, because it takes too long to find out about them.
    pub uncounted_in: Option<Id>,
}

impl Revoked {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.by_moment.values().sum()
    }

    /// How many of them are revoked later.
    pub fn later(&self) -> u64 {
        self.count() - self.by_moment.get(&Moment::Now).copied().unwrap_or_default()
    }

    /// The moment at which there are more than `max`, and how many there are then.
    pub(super) fn exceeds(&self, max: u64) -> Option<(Moment, u64)> {
        let mut so_far = 0;
        let (moment, _) = self.by_moment.iter().find(|(_, count)| {
            so_far += *count;
            so_far > max
        })?;
        Some((*moment, so_far))
    }
}

impl Prospect {
    /// The active sessions that the change would revoke, and the first of them, at most `listed_max`.
    pub fn revoked(&self, sessions: &SessionTable, listed_max: usize, budget: &Budget) -> Revoked {
        let (by_moment, uncounted_in) = (RefCell::new(BTreeMap::new()), RefCell::new(None));
        let comparisons: Vec<Option<Comparison<'_>>> =
            self.organizations.iter().map(|of| self.comparison(of)).collect();
        let is_revoked = |session: &JudgedSession<'_>| {
            let of_organization = |prospected: &Prospected| prospected.id.cmp(session.organization);
            let found = self.organizations.binary_search_by(of_organization).ok();
            let found = found.and_then(|at| Some((self.organizations.get(at)?, comparisons.get(at)?.as_ref())));
            let revocation =
                found.map_or(Ok(None), |(of, comparison)| self.revocation(session, of, comparison, budget));
            let moment = revocation.unwrap_or_else(|TooCostly| {
                uncounted_in.borrow_mut().get_or_insert_with(|| session.organization.clone());
                None
            });
            if let Some(moment) = moment {
                *by_moment.borrow_mut().entry(moment).or_default() += 1;
            }
            moment.is_some()
        };
        let (_, listed) = sessions.find(&self.scope, is_revoked, listed_max);
        Revoked { by_moment: by_moment.into_inner(), listed, uncounted_in: uncounted_in.into_inner() }
    }

    /// The firewalls of an organization, compared; none where neither changes by itself, as most never do.
    pub(super) fn comparison<'a>(&'a self, prospected: &'a Prospected) -> Option<Comparison<'a>> {
        let firewall = |version: Version<'a>| version.snapshot.firewall();
        let (before, after) = (prospected.before(self).map(firewall), prospected.after(self).map(firewall));
        let changes = [before, after].into_iter().flatten().any(|firewall| firewall.changes_after(self.now));
        changes.then(|| Comparison::new(before, after, None, self.now))
    }

    /// When the change would revoke a session.
    fn revocation(
        &self,
        session: &JudgedSession<'_>,
        prospected: &Prospected,
        comparison: Option<&Comparison<'_>>,
        budget: &Budget,
    ) -> Result<Option<Moment>, TooCostly> {
        let (before, after) = (prospected.before(self), prospected.after(self));
        let Some(before) = before else { return Ok(None) };
        // Its address was erased: the next change that is judged at all revokes it.
        let Some(address) = session.address else { return Ok(Some(Moment::Now)) };
        let JudgedSession { connection_type, endpoint, .. } = *session;
        let Some(comparison) = comparison else {
            let denies = |version: &Version<'_>| {
                version.decision(address, connection_type, endpoint, self.now) == Decision::Deny
            };
            return Ok((after.as_ref().is_none_or(denies) && !denies(&before)).then_some(Moment::Now));
        };
        let permits = |version: &Version<'_>| version.permits_beside_firewall(address, endpoint);
        let event = match (permits(&before), after.as_ref().is_some_and(permits)) {
            (false, _) => return Ok(None),
            (true, true) => Event::Lost,
            (true, false) => Event::AllowedBefore,
        };
        comparison.first(event, address, connection_type, budget)
    }
}
