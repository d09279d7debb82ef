//! Judging a change: what its gates and the policy tests refuse (design.md §2.10).
//!
//! Invariant: a change is refused only for what it makes worse. Both sides are decided by the evaluator itself, and
//! what was so before refuses nothing.
//! Not here: counting the sessions that would be revoked (`engine`), and who may pass over a refusal.

use thiserror::Error;

use super::address::Address;
use super::decision::Decision;
use super::gates::Gates;
use super::impact::{Impact, target_classes};
use super::name::Id;
use super::policy_test::PolicyTest;
use super::ranges::RangeSet;
use super::rule::ConnectionType;
use super::time::Timestamp;
use super::version::Version;

/// Why a gate refuses a change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A guarded address would lose a connection that it has now.
    #[error(
        "the change would deny the guarded address `{address}` its {connection_type} connections to `{node}`: alter \
         the change, or leave the address out of `guard_ips`"
    )]
    GuardViolated {
        /// The address.
        address: Address,
        /// The name of the node that it could no longer connect to.
        node: String,
        /// The type of the connection that it would lose.
        connection_type: ConnectionType,
    },
    /// The change would revoke more sessions than the gate permits.
    #[error(
        "the change would revoke {}, and at most {max} may be revoked: alter the change, or raise `max_revocations`",
        counted(*.would_be, "session")
    )]
    TooManyRevocations {
        /// The number of sessions that the change would revoke.
        would_be: u64,
        /// The number that the gate permits.
        max: u64,
    },
    /// A node would become open to every address of a family.
    #[error(
        "the change would open `{node}` to every address of {family} for {connection_type} connections: alter the \
         change, or clear `refuse_open_to_internet`"
    )]
    OpenToInternet {
        /// The name of the node.
        node: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The type of connection that it would be open for.
        connection_type: ConnectionType,
    },
    /// Policy tests fail because of the change.
    #[error(
        "the change breaks {} of `organizations/{organization}`, {}: alter the change, or set `override_tests`",
        counted(.broken.len() as u64, "policy test"), list(.broken)
    )]
    TestsFailed {
        /// The organization that has the tests.
        organization: Id,
        /// The ids of the tests.
        broken: Vec<Id>,
    },
}

/// A count with its noun, in the singular or the plural.
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
    /// Why these gates refuse a change from one version to another, at `now`. None stands for an organization that does
    /// not exist. `max_revocations` is not judged here, because only the engine knows the sessions.
    pub fn refusals(&self, before: Option<&Version<'_>>, after: Option<&Version<'_>>, now: Timestamp) -> Vec<Refusal> {
        let guarded = self.guard.iter().filter_map(|address| locked_out(*address, before, after, now));
        let mut refusals: Vec<Refusal> = guarded.collect();
        if self.refuse_open_to_internet {
            refusals.extend(opened(before, after, now));
        }
        refusals
    }
}

/// The first connection that a guarded address loses.
fn locked_out(
    address: Address,
    before: Option<&Version<'_>>,
    after: Option<&Version<'_>>,
    now: Timestamp,
) -> Option<Refusal> {
    let before = before?;
    let organization = &before.organization.id;
    for targets in target_classes(before.organization, after.map(|after| after.organization)) {
        let target = targets.example(before.organization, after.map(|after| after.organization));
        for connection_type in ConnectionType::ALL {
            let denies =
                |version: &Version<'_>| version.decision(address, connection_type, &target, now) == Decision::Deny;
            if !denies(before) && after.is_none_or(denies) {
                return Some(Refusal::GuardViolated { address, node: targets.name(organization), connection_type });
            }
        }
    }
    None
}

/// The first node that the change opens to every address of a family.
fn opened(before: Option<&Version<'_>>, after: Option<&Version<'_>>, now: Timestamp) -> Option<Refusal> {
    let after = after?;
    let impact = Impact::new(before.copied(), Some(*after), now);
    let full = RangeSet::full();
    // A node can be open to a whole family only if all levels above the nodes let it through.
    if !impact.lets_a_family_through() {
        return None;
    }
    let organization = &after.organization.id;
    target_classes(after.organization, None).find_map(|targets| {
        ConnectionType::ALL.into_iter().find_map(|connection_type| {
            let [before, after] = impact.permitted(&targets, connection_type);
            let family = if full.v4.is_subset(&after.v4) && !full.v4.is_subset(&before.v4) {
                "IPv4"
            } else if full.v6.is_subset(&after.v6) && !full.v6.is_subset(&before.v6) {
                "IPv6"
            } else {
                return None;
            };
            Some(Refusal::OpenToInternet { node: targets.name(organization), family, connection_type })
        })
    })
}

/// The tests of the version after a change that the change breaks. A test that failed before is not among them.
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
