//! The active sessions that a change would revoke, at once or later.
//!
//! Invariant: a session counts where some moment from now on denies it with the change and allows it without.
//! Not here: revoking sessions (`keeper`), and how many a change may revoke (`policy::gates`).

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use super::prospect::{Prospect, Prospected};
use super::sessions::{JudgedSession, Session, SessionTable};
use crate::policy::address::Address;
use crate::policy::decision::Decision;
use crate::policy::firewall::{Firewall, Interval};
use crate::policy::judging::Losses;
use crate::policy::rule::ConnectionType;
use crate::policy::timeline::Moment;
use crate::policy::version::Version;

/// The sessions that a change would revoke.
#[derive(Debug, Default)]
pub struct Revoked {
    /// How many it would revoke at each moment.
    by_moment: BTreeMap<Moment, u64>,
    /// The first of them.
    pub listed: Vec<Session>,
}

/// What is known of addresses for which it takes long to find out, by organization, connection type and the intervals
/// that they are in before and after the change.
type Known = RefCell<HashMap<(usize, ConnectionType, Option<Interval>, Option<Interval>), Losses>>;

impl Revoked {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.by_moment.values().sum()
    }

    /// How many of them are revoked later.
    pub fn later(&self) -> u64 {
        self.count() - self.by_moment.get(&Moment::Now).copied().unwrap_or_default()
    }

    /// The moment at which there are more than `max`.
    pub(super) fn exceeds(&self, max: u64) -> Option<Moment> {
        let mut so_far = 0;
        let (moment, _) = self.by_moment.iter().find(|(_, count)| {
            so_far += *count;
            so_far > max
        })?;
        Some(*moment)
    }
}

impl Prospect {
    /// The active sessions that the change would revoke, and the first of them, at most `listed_max`.
    pub fn revoked(&self, sessions: &SessionTable, listed_max: usize) -> Revoked {
        let (by_moment, known) = (RefCell::new(BTreeMap::new()), Known::default());
        // Asked once: there can be very many sessions, and most policies never change by themselves.
        let changes = |version: Option<Version<'_>>| {
            version.is_some_and(|version| version.snapshot.firewall().changes_after(self.now))
        };
        let changes = |prospected: &Prospected| changes(prospected.before(self)) || changes(prospected.after(self));
        let changes: Vec<bool> = self.organizations.iter().map(changes).collect();
        let is_revoked = |session: &JudgedSession<'_>| {
            let of_organization = |prospected: &Prospected| prospected.id.cmp(session.organization);
            let found = self.organizations.binary_search_by(of_organization).ok();
            let found = found.and_then(|at| Some((at, self.organizations.get(at)?, *changes.get(at)?)));
            let moment = found.and_then(|found| self.revocation(session, found, &known));
            if let Some(moment) = moment {
                *by_moment.borrow_mut().entry(moment).or_default() += 1;
            }
            moment.is_some()
        };
        let (_, listed) = sessions.find(&self.scope, is_revoked, listed_max);
        Revoked { by_moment: by_moment.into_inner(), listed }
    }

    /// When the change would revoke a session.
    fn revocation(
        &self,
        session: &JudgedSession<'_>,
        (at, prospected, changes): (usize, &Prospected, bool),
        known: &Known,
    ) -> Option<Moment> {
        let (before, after) = (prospected.before(self)?, prospected.after(self));
        // Its address was erased: the next change that is judged at all revokes it.
        let Some(address) = session.address else { return Some(Moment::Now) };
        let JudgedSession { connection_type, endpoint, .. } = *session;
        if !changes {
            let denies = |version: &Version<'_>| {
                version.decision(address, connection_type, endpoint, self.now) == Decision::Deny
            };
            return (after.as_ref().is_none_or(denies) && !denies(&before)).then_some(Moment::Now);
        }
        let losses = losses(address, connection_type, (at, &before, after.as_ref()), self, known);
        losses.of(&before, after.as_ref(), address, endpoint)
    }
}

fn losses(
    address: Address,
    connection_type: ConnectionType,
    (at, before, after): (usize, &Version<'_>, Option<&Version<'_>>),
    prospect: &Prospect,
    known: &Known,
) -> Losses {
    let compare = || Losses::new(address, connection_type, before, after, prospect.now);
    let interval = |firewall: &Firewall| firewall.interval(address, connection_type);
    let firewalls = [Some(before), after].map(|version| version.map(|version| version.snapshot.firewall()));
    if !firewalls.iter().flatten().any(|firewall| firewall.is_costly(address, connection_type)) {
        return compare();
    }
    let [of_before, of_after] = firewalls.map(|firewall| firewall.map(interval));
    *known.borrow_mut().entry((at, connection_type, of_before, of_after)).or_insert_with(compare)
}
