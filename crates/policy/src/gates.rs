//! Gates: conditions on what a change may do, which refuse it otherwise (design.md §3, `ChangeOptions`).
//!
//! Invariant: a gate compares what is decided before and after the change, by the evaluator itself; what was so before
//! never refuses a change.
//! Not here: counting the sessions that would be revoked (`engine`), and who may pass over a gate.

use thiserror::Error;

use super::address::Address;
use super::decision::Decision;
use super::impact::{Impact, Place, places};
use super::name::Id;
use super::ranges::RangeSet;
use super::rule::ConnectionType;
use super::time::Timestamp;
use super::version::Version;

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

/// Why a gate refuses a change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A guarded address would lose something.
    #[error(
        "the change would deny the guarded address `{address}` its {connection_type} connections to `{node}`: alter the \
         change, or leave the address out of `guard_ips`"
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
    #[error(
        "the change would revoke {}, and at most {max} may be revoked: alter the change, or permit more",
        counted(*.would_be, "session")
    )]
    TooManyRevocations {
        /// How many it would be.
        would_be: u64,
        /// How many may be.
        max: u64,
    },
    /// Something would be open to a whole family that was not.
    #[error(
        "the change would open `{node}` to every address of {family} for {connection_type} connections: alter the \
         change, or clear `refuse_open_to_internet`"
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
        "the change breaks {} of `organizations/{organization}`, {}: alter the change, or set `override_tests`",
        counted(.broken.len() as u64, "policy test"), list(.broken)
    )]
    TestsFailed {
        /// Whose tests.
        organization: Id,
        /// Which.
        broken: Vec<Id>,
    },
}

/// A count with its noun, in the number that fits.
fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn list(ids: &[Id]) -> String {
    const SHOWN_MAX: usize = 5;
    let shown: Vec<String> = ids.iter().take(SHOWN_MAX).map(|id| format!("`{id}`")).collect();
    let more = if ids.len() > SHOWN_MAX { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

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
    let failed_before = |test: &super::policy_test::PolicyTest| {
        before.is_some_and(|before| before.organization.tests.contains(test) && !test.passes(before, now))
    };
    let tests = after.organization.tests.iter().filter(|test| !test.passes(after, now) && !failed_before(test));
    tests.map(|test| test.id.clone()).collect()
}

impl Place {
    /// A target that is decided as the place is.
    fn target(
        &self,
        before: &super::organization::Organization,
        after: Option<&super::organization::Organization>,
    ) -> String {
        match self {
            Self::AnyProject => format!("organizations/{}/projects/{}", before.id, Self::unregistered(before, after)),
            _ => self.name(&before.id),
        }
    }
}
