//! What is probably not meant in a policy that is valid (design.md §3.6).
//!
//! Invariant: a problem is a fact about the policy as a function from addresses to decisions, at every moment from the
//! given one on; nothing is guessed.
//! Not here: words for people, and how often a rule matched, which is given.

mod nodes;
mod rules;

use super::address::Range;
use super::name::{Id, NodeKey};
use super::organization::{Cluster, Organization};
use super::ranges::RangeSet;
use super::rule::{ConnectionType, RuleMatches};
use super::snapshot::Snapshot;
use super::time::Timestamp;

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
    fn new(code: Code, resource: Resource) -> Self {
        Self { code, resource, ranges: Vec::new(), related: Vec::new(), connection_types: Vec::new(), since: None }
    }

    fn with_ranges(mut self, set: &RangeSet) -> Self {
        self.ranges = set.ranges().take(RANGES_MAX).collect();
        self
    }
}

/// What is looked at.
#[derive(Clone, Copy)]
pub struct Examined<'a> {
    /// The organization.
    pub organization: &'a Organization,
    /// What decides for it.
    pub snapshot: &'a Snapshot,
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The moment from which on.
    pub now: Timestamp,
    /// How often the rule at a place decided, where that is known.
    pub matches: &'a dyn Fn(usize) -> Option<RuleMatches>,
    /// A rule without a match since this moment is unused.
    pub unused_since: Timestamp,
}

/// The sets that the parts of the analysis share.
struct Levels {
    /// What cluster and organization permit.
    permitted: RangeSet,
    organization: RangeSet,
    /// What the firewall lets through, for each connection type.
    allowed: [RangeSet; 2],
}

impl Levels {
    fn new(examined: &Examined<'_>) -> Self {
        let Examined { organization, snapshot, cluster, now, .. } = examined;
        let own = organization.access_set(&organization.node.access);
        Self {
            permitted: own.intersection(&organization.access_set(&cluster.node.access)),
            organization: own,
            allowed: ConnectionType::ALL.map(|connection_type| snapshot.firewall().allowed(connection_type, *now)),
        }
    }
}

/// The problems of an organization and everything below it, the worst first.
pub fn of_organization(examined: &Examined<'_>) -> Vec<Problem> {
    let levels = Levels::new(examined);
    let mut problems = rules::problems(examined, &levels);
    problems.extend(nodes::problems(examined, &levels, None));
    sorted(problems)
}

/// The problems of a node below an organization and everything below that, the worst first.
pub fn of_node(examined: &Examined<'_>, key: &NodeKey) -> Vec<Problem> {
    sorted(nodes::problems(examined, &Levels::new(examined), Some(key)))
}

/// The problems of the cluster's own access.
pub fn of_cluster(cluster: &Cluster) -> Vec<Problem> {
    let none = matches!(&cluster.node.access, super::node::Access::AllowList(entries) if entries.is_empty());
    if none { vec![Problem::new(Code::NoAddresses, Resource::Cluster)] } else { Vec::new() }
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|one, other| (one.code, &one.resource).cmp(&(other.code, &other.resource)));
    problems
}
