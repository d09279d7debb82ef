//! Judging a change: what its gates and the policy tests refuse (design.md §2.10).
//!
//! Every moment from now on is judged, because rules expire: a change is refused for what it makes worse at some moment,
//! compared with the same moment without the change.
//!
//! Invariant: a change is refused only for what it makes worse. Both sides are decided as the evaluator decides, and
//! what was so before, or was going to be so, refuses nothing.
//! Not here: which tests break (`broken_tests`), counting the sessions that would be revoked (`engine`), and who may pass
//! over a refusal.

use thiserror::Error;

use super::address::Address;
use super::broken_tests::{BrokenTest, Told};
use super::decision::Decision;
use super::gates::Gates;
use super::impact::{Opening, TargetClass, openings, target_classes};
use super::name::Id;
use super::policy_test::PolicyTest;
use super::rule::ConnectionType;
use super::time::Timestamp;
use super::timeline::{Moment, Timeline};
use super::version::Version;

/// Why a gate refuses a change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A guarded address would lose a connection that it has, or was going to have.
    #[error(
        "the change would deny the guarded address `{address}` its {connection_type} connections to `{node}`{}: alter \
         the change, or leave the address out of `guard_ips`",
        on(.from)
    )]
    GuardViolated {
        /// The address.
        address: Address,
        /// The name of the node that it could no longer connect to.
        node: String,
        /// The type of the connection that it would lose.
        connection_type: ConnectionType,
        /// The first moment at which it would.
        from: Moment,
    },
    /// The change would revoke more sessions than the gate permits.
    #[error(
        "the change would revoke {}{}, and at most {max} may be revoked: alter the change, or raise `max_revocations`",
        counted(*.would_be, "session"), on(.from)
    )]
    TooManyRevocations {
        /// The number of sessions that the change would revoke.
        would_be: u64,
        /// The number that the gate permits.
        max: u64,
        /// The moment at which one more than that would be revoked.
        from: Moment,
    },
    /// A node would become open to every address of a family.
    #[error(
        "the change would open `{node}` to every address of {family} for {connection_type} connections{}: alter the \
         change, or clear `refuse_open_to_internet`",
        on(.from)
    )]
    OpenToInternet {
        /// The name of the node.
        node: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The type of connection that it would be open for.
        connection_type: ConnectionType,
        /// The first moment at which it would.
        from: Moment,
    },
    /// Policy tests fail because of the change.
    #[error("{}: alter the change, or set `override_tests`", Told { organization, broken })]
    TestsFailed {
        /// The organization that has the tests.
        organization: Id,
        /// The tests.
        broken: Vec<BrokenTest>,
        /// The first moment at which one of them fails.
        from: Moment,
    },
}

impl Refusal {
    /// The first moment at which the change makes things worse.
    pub fn from(&self) -> Moment {
        match self {
            Self::GuardViolated { from, .. }
            | Self::TooManyRevocations { from, .. }
            | Self::OpenToInternet { from, .. }
            | Self::TestsFailed { from, .. } => *from,
        }
    }
}

/// The end of a sentence about a moment; empty where the moment is now.
fn on(from: &Moment) -> String {
    from.time().map(|time| format!(" from {time} on")).unwrap_or_default()
}

/// A count with its noun, in the singular or the plural.
fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

impl Gates {
    /// Why these gates refuse a change from one version to another, from `now` on. None stands for an organization that
    /// does not exist. `max_revocations` is not judged here, because only the engine knows the sessions.
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
    let apart = [Some(before), after].into_iter().flatten().any(|of| of.snapshot.firewall().tells_types_apart());
    let shell = Losses::new(address, ConnectionType::Shell, before, after, now);
    let preview = if apart { Losses::new(address, ConnectionType::Preview, before, after, now) } else { shell };
    let losses = [(ConnectionType::Shell, shell), (ConnectionType::Preview, preview)];
    let mut first: Option<(Moment, TargetClass, ConnectionType)> = None;
    for targets in target_classes(before.organization, after.map(|after| after.organization)) {
        let target = targets.example(before.organization, after.map(|after| after.organization));
        for (connection_type, losses) in &losses {
            let lost = losses.of(before, after, address, &target);
            if let Some(lost) = lost.filter(|lost| first.as_ref().is_none_or(|(first, ..)| lost < first)) {
                first = Some((lost, targets.clone(), *connection_type));
            }
        }
        if first.as_ref().is_some_and(|(first, ..)| *first == Moment::Now) {
            break;
        }
    }
    let (from, targets, connection_type) = first?;
    Some(Refusal::GuardViolated { address, node: targets.name(organization), connection_type, from })
}

/// When a change denies an address connections that it allows without the change, as far as the firewalls say: the same
/// for all targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Losses {
    /// The first moment at which the firewall before allows the address.
    allowed: Option<Moment>,
    /// The first moment at which the firewall before does, and the one after does not.
    lost: Option<Moment>,
}

impl Losses {
    /// Compares the firewalls of two versions at one address. None stands for an organization that does not exist.
    pub fn new(
        address: Address,
        connection_type: ConnectionType,
        before: &Version<'_>,
        after: Option<&Version<'_>>,
        now: Timestamp,
    ) -> Self {
        let of = |version: &Version<'_>| version.snapshot.firewall().timeline(address, connection_type, now);
        let allowed = of(before);
        let lost = after.map_or_else(|| allowed.first(), |after| allowed.and_not(&of(after)).first());
        Self { allowed: allowed.first(), lost }
    }

    /// The first moment at which the address loses a connection to a target. The versions and the address are those that
    /// the firewalls were compared for.
    pub fn of(
        &self,
        before: &Version<'_>,
        after: Option<&Version<'_>>,
        address: Address,
        target: &str,
    ) -> Option<Moment> {
        let allowed = self.allowed.filter(|_| before.permits_beside_firewall(address, target))?;
        match after {
            Some(after) if after.permits_beside_firewall(address, target) => self.lost,
            _ => Some(allowed),
        }
    }
}

/// The first node that the change opens to every address of a family.
fn opened(before: Option<&Version<'_>>, after: Option<&Version<'_>>, now: Timestamp) -> Option<Refusal> {
    let mut first: Option<Opening> = None;
    for opening in openings(before.copied(), *after?, now) {
        if first.as_ref().is_none_or(|first| opening.from < first.from) {
            let is_now = opening.from == Moment::Now;
            first = Some(opening);
            if is_now {
                break;
            }
        }
    }
    let Opening { targets, connection_type, family, from } = first?;
    Some(Refusal::OpenToInternet { node: targets.name(&after?.organization.id), family, connection_type, from })
}

impl PolicyTest {
    /// What a test says, whatever its id and description are.
    pub(super) fn assertion(&self) -> (Address, ConnectionType, &str, bool, Option<Timestamp>) {
        let Self { id: _, address, connection_type, endpoint, expected, description: _, end_time } = self;
        (*address, *connection_type, endpoint, *expected == Decision::Allow, *end_time)
    }

    /// What a version of the policy decides about the test's connection.
    pub fn actual(&self, version: &Version<'_>, now: Timestamp) -> Decision {
        version.decision(self.address, self.connection_type, &self.endpoint, now)
    }

    /// When a version of the policy decides otherwise than the test expects, from `now` on and before the test ends. None
    /// stands for an organization that does not exist: it denies everything.
    pub fn failing(&self, version: Option<&Version<'_>>, now: Timestamp) -> Timeline {
        let holds = match self.end_time {
            Some(end) if end <= now => return Timeline::constant(false),
            end => Timeline::until(end),
        };
        let allowed = version.map_or(Timeline::constant(false), |version| {
            version.allowed(self.address, self.connection_type, &self.endpoint, now)
        });
        match self.expected {
            Decision::Allow => holds.and_not(&allowed),
            Decision::Deny => holds.and(&allowed),
        }
    }
}
