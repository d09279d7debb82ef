//! A problem: a fact about a valid policy that is hardly ever meant.
//!
//! Invariant: problems sort by code, the most severe first.
//! Not here: finding problems (`rules`, `nodes`), words for people (`api`).

use crate::address::Range;
use crate::name::{Id, NodeKey};
use crate::ranges::RangeSet;
use crate::rule::ConnectionType;
use crate::time::Timestamp;

/// Ranges that a problem lists at most.
pub const RANGES_MAX: usize = 1_000;

/// Related resources that a problem lists at most.
pub const RELATED_MAX: usize = 100;

/// What kind of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// For some connection type nobody can connect to anything.
    LocksEveryoneOut,
    /// Every address of a family can reach what is below the node.
    OpenToInternet,
    /// The access permits nobody.
    NoAddresses,
    /// A rule never wins: those before it cover it.
    ShadowedRule,
    /// A catch-all for one family leaves the other open.
    Ipv4OnlyCatchAll,
    /// Ranges are listed that the organization does not permit.
    ExceedsOrganization,
    /// The access permits a whole family, as far as it is concerned.
    AllowsAll,
    /// An entry is denied whole by the firewall.
    UnreachableEntry,
    /// A rule or an entry names a group without ranges.
    EmptyGroup,
    /// Removing the rule alters no decision, though it wins.
    RedundantRule,
    /// A rule is expired.
    ExpiredRule,
    /// A rule has not matched for long.
    UnusedRule,
    /// A group is named nowhere.
    UnusedGroup,
    /// There are addresses for which a rule never wins.
    PartlyShadowedRule,
}

/// What has a problem, or takes part in one.
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
}

/// A fact about a policy that is hardly ever meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind it is.
    pub code: Code,
    /// What has it.
    pub resource: Resource,
    /// The addresses that it is about, as the fewest ranges, at most [`RANGES_MAX`]; empty: all or none.
    pub ranges: Vec<Range>,
    /// What takes part, at most [`RELATED_MAX`].
    pub related: Vec<Resource>,
    /// The connection types that it is about; empty: all.
    pub connection_types: Vec<ConnectionType>,
    /// For [`Code::UnusedRule`]: since when it was counted, or when it last matched.
    pub since: Option<Timestamp>,
}

impl Problem {
    pub(super) fn new(code: Code, resource: Resource) -> Self {
        Self { code, resource, ranges: Vec::new(), related: Vec::new(), connection_types: Vec::new(), since: None }
    }

    pub(super) fn with_ranges(mut self, set: &RangeSet) -> Self {
        self.ranges = set.ranges().take(RANGES_MAX).collect();
        self
    }
}
