//! Judging a change: what its gates and the policy tests refuse (design.md §2.10).
//!
//! Invariant: a change is refused only for what it makes worse. Both sides are decided by the evaluator itself, and what
//! was so before refuses nothing.
//! Not here: counting the sessions that would be revoked (`engine`), and who may pass over a refusal.

use thiserror::Error;

use super::address::Address;
use super::decision::Decision;
use super::gates::Gates;
use super::impact::{Impact, places};
use super::name::Id;
use super::policy_test::PolicyTest;
use super::ranges::RangeSet;
use super::rule::ConnectionType;
use super::time::Timestamp;
use super::version::Version;

/// Why a gate refuses a change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A guarded address would lose something.
    #[error(
        "the change would deny the guarded address `{address}` its {connection_type} connections to `{node}`: change it, \
         or leave the address out of `guard_ips`"
    )]
    GuardViolated {
        /// The address.
        address: Address,
        /// What it would lose.
        node: String,
        /// For which connections.
        connection_type: ConnectionType,
    },
    /// More sessions would be revoked than may be.
    #[error("the change would revoke {would_be} sessions, and {max} are permitted: change it, or permit more")]
    TooManyRevocations {
        /// How many it would be.
        would_be: u64,
        /// How many may be.
        max: u64,
    },
    /// Something would be open to a whole family that was not.
    #[error(
        "the change would open `{node}` to every address of {family} for {connection_type} connections: restrict it, or \
         clear `refuse_open_to_internet`"
    )]
    OpenToInternet {
        /// What would be open.
        node: String,
        /// To whom.
        family: &'static str,
        /// For which connections.
        connection_type: ConnectionType,
    },
    /// Policy tests would break.
    #[error(
        "the change breaks {} of `organizations/{organization}`: {}; change it, or set `override_tests`",
        tests(.broken.len()), list(.broken)
    )]
    TestsFailed {
        /// Whose tests.
        organization: Id,
        /// Which.
        broken: Vec<Id>,
    },
}

fn tests(count: usize) -> String {
    if count == 1 { "1 policy test".to_owned() } else { format!("{count} policy tests") }
}

fn list(ids: &[Id]) -> String {
    const SHOWN_MAX: usize = 5;
    let shown: Vec<String> = ids.iter().take(SHOWN_MAX).map(|id| format!("`{id}`")).collect();
    let more = if ids.len() > SHOWN_MAX { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

impl Gates {
    /// What the gates, but for the one on sessions, refuse about a change from one version to another. None stands for an
    /// organization that does not exist.
    pub fn refusals(&self, before: Option<&Version<'_>>, after: Option<&Version<'_>>, now: Timestamp) -> Vec<Refusal> {
        let guarded = self.guard.iter().filter_map(|address| locked_out(*address, before, after, now));
        let mut refusals: Vec<Refusal> = guarded.collect();
        if self.refuse_open_to_internet {
            refusals.extend(opened(before, after, now));
        }
        refusals
    }
}

/// The first connection that the address loses.
fn locked_out(
    address: Address,
    before: Option<&Version<'_>>,
    after: Option<&Version<'_>>,
    now: Timestamp,
) -> Option<Refusal> {
    let before = before?;
    let organization = &before.organization.id;
    for place in places(before.organization, after.map(|after| after.organization)) {
        let target = place.target(before.organization, after.map(|after| after.organization));
        for connection_type in ConnectionType::ALL {
            let denies =
                |version: &Version<'_>| version.decision(address, connection_type, &target, now) == Decision::Deny;
            if !denies(before) && after.is_none_or(denies) {
                return Some(Refusal::GuardViolated { address, node: place.name(organization), connection_type });
            }
        }
    }
    None
}

/// What every address of a family can reach after the change, and could not before.
fn opened(before: Option<&Version<'_>>, after: Option<&Version<'_>>, now: Timestamp) -> Option<Refusal> {
    let after = after?;
    let impact = Impact::new(before.copied(), Some(*after), now);
    let full = RangeSet::full();
    // Only where all levels above the node let a whole family through can a node be open to it.
    if !impact.lets_a_family_through() {
        return None;
    }
    let organization = &after.organization.id;
    places(after.organization, None).find_map(|place| {
        ConnectionType::ALL.into_iter().find_map(|connection_type| {
            let [before, after] = impact.permitted(&place, connection_type);
            let family = if full.v4.is_subset(&after.v4) && !full.v4.is_subset(&before.v4) {
                "IPv4"
            } else if full.v6.is_subset(&after.v6) && !full.v6.is_subset(&before.v6) {
                "IPv6"
            } else {
                return None;
            };
            Some(Refusal::OpenToInternet { node: place.name(organization), family, connection_type })
        })
    })
}

/// The tests of the later version that fail by it, and that the earlier one passed or did not have.
pub fn broken_tests(before: Option<&Version<'_>>, after: &Version<'_>, now: Timestamp) -> Vec<Id> {
    let failed_before = |test: &PolicyTest| {
        before.is_some_and(|before| before.organization.tests.contains(test) && !test.passes(before, now))
    };
    let tests = after.organization.tests.iter().filter(|test| !test.passes(after, now) && !failed_before(test));
    tests.map(|test| test.id.clone()).collect()
}

impl PolicyTest {
    /// What a version of the policy decides about the test's connection.
    pub fn actual(&self, version: &Version<'_>, now: Timestamp) -> Decision {
        version.decision(self.address, self.connection_type, &self.endpoint, now)
    }

    /// Whether a version of the policy decides as the test expects.
    pub fn passes(&self, version: &Version<'_>, now: Timestamp) -> bool {
        self.actual(version, now) == self.expected
    }
}
