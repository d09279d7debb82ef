//! A problem: a fact about a valid policy that is probably a mistake.
//!
//! Invariant: problems sort by code, the most severe first.
//! Not here: finding problems (`rules`, `nodes`), words for people (`api`).

use std::sync::Arc;

use super::steps::Steps;
use crate::address::Range;
use crate::name::{Id, NodeKey};
use crate::ranges::RangeSet;
use crate::rule::ConnectionType;
use crate::time::Timestamp;

/// The number of ranges that a problem can list.
pub const RANGES_MAX: usize = 1_000;

/// The number of ranges that all problems of an analysis together can list. After them, each lists one.
pub(super) const RANGES_OF_ALL_MAX: u64 = 1_000_000;

/// The number of related resources that a problem can list.
pub const RELATED_MAX: usize = 100;

/// The kinds of problems, the most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// Nobody can connect to anything by some connection type.
    LocksEveryoneOut,
    /// A guarded address will lose a connection that it is allowed now.
    GuardedAddressLockedOut,
    /// A policy test fails.
    FailingTest,
    /// Every address of a family can connect to the organization or the node.
    OpenToInternet,
    /// The access setting permits nobody.
    NoAddresses,
    /// A rule never wins, because earlier rules cover its addresses.
    ShadowedRule,
    /// A rule denies every address of one family, and no rule matches addresses of the other.
    Ipv4OnlyCatchAll,
    /// An allowlist has addresses that the organization does not permit.
    ExceedsOrganization,
    /// The access setting by itself permits every address of a family.
    AllowsAll,
    /// The firewall denies every address of an allowlist entry.
    UnreachableEntry,
    /// A rule or an allowlist entry names a group without ranges.
    EmptyGroup,
    /// A rule wins at some addresses, and yet removing it would alter no decision.
    RedundantRule,
    /// A rule is expired.
    ExpiredRule,
    /// A rule has not matched for a long time.
    UnusedRule,
    /// No rule and no allowlist names a group.
    UnusedGroup,
    /// A rule never wins at some of its addresses, because earlier rules cover them.
    PartlyShadowedRule,
    /// A rule denies IPv4 addresses, and IPv6 addresses that stand for them are allowed.
    TranslatedAddress,
}

impl Code {
    /// Whether every problem of this kind is found, with all its ranges, however many steps that takes: see
    /// [`Found::incomplete`]. The ranges of an [`Code::Ipv4OnlyCatchAll`] can be fewer.
    pub fn is_always_found(self) -> bool {
        match self {
            Self::GuardedAddressLockedOut
            | Self::NoAddresses
            | Self::Ipv4OnlyCatchAll
            | Self::AllowsAll
            | Self::EmptyGroup
            | Self::ExpiredRule
            | Self::UnusedGroup => true,
            Self::LocksEveryoneOut
            | Self::FailingTest
            | Self::OpenToInternet
            | Self::ShadowedRule
            | Self::ExceedsOrganization
            | Self::UnreachableEntry
            | Self::RedundantRule
            | Self::UnusedRule
            | Self::PartlyShadowedRule
            | Self::TranslatedAddress => false,
        }
    }
}

/// An object that has a problem, or that is related to one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// The cluster.
    Cluster,
    /// The organization.
    Organization,
    /// A node below it.
    Node(NodeKey),
    /// One of its rules.
    Rule(Id),
    /// One of its groups.
    Group(Id),
    /// One of its policy tests.
    Test(Id),
}

/// A fact about a policy that is probably a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kind of problem.
    pub code: Code,
    /// The object that has the problem.
    pub resource: Resource,
    /// The addresses that the problem concerns, at the moment of `from`, as the fewest ranges, at most [`RANGES_MAX`];
    /// empty when it does not concern certain addresses.
    pub ranges: Arc<[Range]>,
    /// Other objects that cause the problem, at most [`RELATED_MAX`].
    pub related: Vec<Resource>,
    /// The connection types that the problem concerns; empty means all.
    pub connection_types: Vec<ConnectionType>,
    /// For [`Code::UnusedRule`]: when the rule last matched, or since when its matches are counted.
    pub since: Option<Timestamp>,
    /// For [`Code::OpenToInternet`] of an organization: whether projects that are not registered are open as well.
    pub unregistered: bool,
    /// The first moment at which it is a problem; none means that it is one now.
    pub from: Option<Timestamp>,
}

impl Problem {
    pub(super) fn new(code: Code, resource: Resource) -> Self {
        let (ranges, related, connection_types) = (Arc::default(), Vec::new(), Vec::new());
        Self { code, resource, ranges, related, connection_types, since: None, unregistered: false, from: None }
    }

    /// It is a problem from a moment on, which is not before `now`.
    pub(super) fn from(self, moment: Timestamp, now: Timestamp) -> Self {
        Self { from: (now < moment).then_some(moment), ..self }
    }

    /// Lists the ranges of a set, of those that are left for all problems.
    pub(super) fn with_ranges(self, set: &RangeSet, left: &mut Steps) -> Self {
        Self { ranges: listed(set, left), ..self }
    }
}

/// The ranges of a set that a problem lists, of those that are left for all problems.
pub(super) fn listed(set: &RangeSet, left: &mut Steps) -> Arc<[Range]> {
    let mut ranges: Vec<Range> = set.ranges().take(RANGES_MAX).collect();
    if !left.take(ranges.len()) {
        ranges.truncate(1);
    }
    ranges.into()
}

/// What an analysis finds.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The problems, the most severe first.
    pub problems: Vec<Problem>,
    /// Whether some problems, or some of their ranges, are left out, because finding them takes too many steps.
    pub incomplete: bool,
    /// The number of steps that it took, beside one pass over the policy.
    pub steps: u64,
}
