//! Judging a change: what its gates refuse, and how a refusal reads (design.md §2.10).
//!
//! Every moment from now on is judged, because rules expire: a change is refused for what it makes worse at some moment,
//! compared with the same moment without the change.
//!
//! Invariant: a change is refused only for what it makes worse. Both sides are decided as the evaluator decides, and
//! what was so before, or was going to be so, refuses nothing.
//! Not here: which policy tests break (`breakage`) and how that is told (`broken_test`), counting the sessions that would
//! be revoked (`engine`), and who may pass over a refusal.

use thiserror::Error;

use super::address::Address;
use super::broken_test::{BrokenTest, Told};
use super::forecast::{Budget, Comparison, Event, TooCostly};
use super::gates::Gates;
use super::impact::{Opening, TargetClass, openings, target_classes};
use super::name::Id;
use super::rule::ConnectionType;
use super::time::Timestamp;
use super::timeline::Moment;
use super::version::Version;

/// What is judged by looking at the moments to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Whether guarded addresses lose connections.
    Guards,
    /// Which sessions would be revoked.
    Revocations,
    /// Whether a node becomes open to every address of a family.
    Openness,
    /// Whether policy tests fail.
    Tests,
}

/// Why a gate refuses a change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A guarded address would lose a connection that it has, or was going to have.
    #[error(
        "the change would deny the guarded address `{address}` its {connection_type} connections to `{node}`{}{}: \
         alter the change, or leave the address out of `guard_ips`",
        unregistered(.node), on(.from)
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
        "the change would revoke {}, and at most {max} may be revoked: alter the change, or raise `max_revocations`",
        revoked(*.would_be, *.by_then, .from)
    )]
    TooManyRevocations {
        /// The number of sessions that the change would revoke, at once or later.
        would_be: u64,
        /// How many of them it would revoke at `from` or before.
        by_then: u64,
        /// The number that the gate permits.
        max: u64,
        /// The moment at which there would be more than that.
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
        /// The tests, those that fail first before the others.
        broken: Vec<BrokenTest>,
    },
    /// Too much happens later, so nobody knows whether the change meets a condition.
    #[error(
        "whether the change {} cannot be judged, because too many rules of `organizations/{organization}` expire one after \
         the other: let fewer rules expire, or {}",
        .judged.question(), .judged.way_out()
    )]
    CannotJudge {
        /// The organization whose rules they are.
        organization: Id,
        /// What cannot be judged.
        judged: Judged,
    },
}

impl Judged {
    fn question(self) -> &'static str {
        match self {
            Self::Guards => "locks out a guarded address",
            Self::Revocations => "revokes more sessions than may be revoked",
            Self::Openness => "opens a node to every address",
            Self::Tests => "breaks policy tests",
        }
    }

    fn way_out(self) -> &'static str {
        match self {
            Self::Guards => "guard no address: clear `guard_ips`",
            Self::Revocations => "let any number be revoked: clear `max_revocations`",
            Self::Openness => "clear `refuse_open_to_internet`",
            Self::Tests => "set `override_tests`",
        }
    }
}

impl Refusal {
    /// The first moment at which the change makes things worse.
    pub fn from(&self) -> Moment {
        match self {
            Self::GuardViolated { from, .. }
            | Self::TooManyRevocations { from, .. }
            | Self::OpenToInternet { from, .. } => *from,
            Self::TestsFailed { broken, .. } => broken.iter().map(|test| test.from).min().unwrap_or(Moment::Now),
            Self::CannotJudge { .. } => Moment::Now,
        }
    }
}

/// What the name of projects that are not registered stands for; empty for other names.
fn unregistered(node: &str) -> &'static str {
    if node.ends_with("/projects/-") { ", which are all projects that are not registered" } else { "" }
}

/// The end of a sentence about a moment; empty where the moment is now.
fn on(from: &Moment) -> String {
    from.time().map(|time| format!(" from {time} on")).unwrap_or_default()
}

/// A count with its noun, in the singular or the plural.
fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// How many sessions are revoked until there are too many, and how many in all.
fn revoked(would_be: u64, by_then: u64, from: &Moment) -> String {
    let counted = |count| counted(count, "session");
    match from.time() {
        _ if by_then < would_be => {
            let by = from.time().map_or_else(|| "at once".to_owned(), |time| format!("by {time}"));
            format!("{} {by} and {would_be} in all", counted(by_then))
        }
        Some(time) => format!("{} by {time}", counted(would_be)),
        None => counted(would_be),
    }
}

impl Gates {
    /// Why these gates refuse a change from one version to another, from `now` on. None stands for an organization that
    /// does not exist. `asked` are those of them that the caller set, for this change alone. `max_revocations` is not judged
    /// here, because only the engine knows the sessions.
    pub fn refusals(
        &self,
        asked: &Gates,
        before: Option<&Version<'_>>,
        after: Option<&Version<'_>>,
        now: Timestamp,
        budget: &Budget,
    ) -> Vec<Refusal> {
        let Some(organization) = before.or(after).map(|version| &version.organization.id) else { return Vec::new() };
        let cannot_judge = |judged| Refusal::CannotJudge { organization: organization.clone(), judged };
        let locked_out =
            if self.guard.is_empty() { Ok(Vec::new()) } else { self.locked_out(asked, before, after, now, budget) };
        let mut refusals = locked_out.unwrap_or_else(|TooCostly| vec![cannot_judge(Judged::Guards)]);
        if self.refuse_open_to_internet {
            refusals
                .extend(opened(before, after, now).unwrap_or_else(|TooCostly| Some(cannot_judge(Judged::Openness))));
        }
        refusals
    }

    fn locked_out(
        &self,
        asked: &Gates,
        before: Option<&Version<'_>>,
        after: Option<&Version<'_>>,
        now: Timestamp,
        budget: &Budget,
    ) -> Result<Vec<Refusal>, TooCostly> {
        let Some(before) = before else { return Ok(Vec::new()) };
        let comparison = Comparison::of_versions(Some(before), after, self.guard.clone(), now);
        let refused = self.guard.iter().filter_map(|address| {
            let losses = |of| Losses::new(*address, of, &comparison, budget);
            let losses = losses(ConnectionType::Shell).and_then(|shell| {
                Ok([(ConnectionType::Shell, shell), (ConnectionType::Preview, losses(ConnectionType::Preview)?)])
            });
            let is_asked = asked.guard.contains(address);
            losses.map(|losses| locked_out(*address, is_asked, before, after, &losses)).transpose()
        });
        refused.collect()
    }
}

/// The first connection that a guarded address loses. `is_asked` says that the caller guards it, for this change.
fn locked_out(
    address: Address,
    is_asked: bool,
    before: &Version<'_>,
    after: Option<&Version<'_>>,
    losses: &[(ConnectionType, Losses)],
) -> Option<Refusal> {
    let organization = &before.organization.id;
    let mut first: Option<(Moment, TargetClass, ConnectionType)> = None;
    // Whatever the nodes permit, the firewall before never allows it.
    let any_allowed = losses.iter().any(|(_, losses)| losses.allowed.is_some());
    let classes = any_allowed.then(|| target_classes(before.organization, after.map(|after| after.organization)));
    // Whoever guards an address and requires projects in one change means the projects that exist. Whoever also asks that
    // this change denies it nothing is asked to be believed.
    let spares_unregistered = !is_asked && after.is_some_and(|after| sets_guard_and_projects(address, before, after));
    let is_judged = |targets: &TargetClass| !(spares_unregistered && *targets == TargetClass::UnregisteredProject);
    for targets in classes.into_iter().flatten().filter(is_judged) {
        let target = targets.example(before.organization, after.map(|after| after.organization));
        for (connection_type, losses) in losses {
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

/// Whether a change lets the organization guard the address and require projects, and both are new.
fn sets_guard_and_projects(address: Address, before: &Version<'_>, after: &Version<'_>) -> bool {
    let [before, after] = [before, after].map(|version| &version.organization.node);
    let guards = |gates: &Gates| gates.guard.contains(&address);
    !guards(&before.gates) && guards(&after.gates) && !before.require_projects && after.require_projects
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
    /// What two firewalls decide at one address.
    pub fn new(
        address: Address,
        connection_type: ConnectionType,
        comparison: &Comparison<'_>,
        budget: &Budget,
    ) -> Result<Self, TooCostly> {
        let first = |event| comparison.first(event, address, connection_type, budget);
        Ok(Self { allowed: first(Event::AllowedBefore)?, lost: first(Event::Lost)? })
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
fn opened(
    before: Option<&Version<'_>>,
    after: Option<&Version<'_>>,
    now: Timestamp,
) -> Result<Option<Refusal>, TooCostly> {
    let Some(after) = after else { return Ok(None) };
    let mut first: Option<Opening> = None;
    for opening in openings(before.copied(), *after, now)? {
        if first.as_ref().is_none_or(|first| opening.from < first.from) {
            let is_now = opening.from == Moment::Now;
            first = Some(opening);
            if is_now {
                break;
            }
        }
    }
    Ok(first.map(|Opening { targets, connection_type, family, from }| {
        let node = targets.name(&after.organization.id);
        Refusal::OpenToInternet { node, family, connection_type, from }
    }))
}
