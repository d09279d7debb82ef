//! The policy that is examined for problems, and the sets that all parts of the analysis share.
//!
//! Invariant: all sets are those of one moment.
//! Not here: the analysis itself (`rules`, `nodes`).

use crate::organization::{Cluster, Organization};
use crate::ranges::RangeSet;
use crate::rule::{ConnectionType, RuleMatches};
use crate::snapshot::Snapshot;
use crate::time::Timestamp;

/// A version of a policy that is examined for problems.
#[derive(Clone, Copy)]
pub struct Examined<'a> {
    /// The organization.
    pub organization: &'a Organization,
    /// The compiled policy of the organization.
    pub snapshot: &'a Snapshot,
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The moment from which on problems are looked for.
    pub now: Timestamp,
    /// The matches of the rule at a 0-based index; none when they are not known.
    pub matches: &'a dyn Fn(usize) -> Option<RuleMatches>,
    /// A rule that has not matched since this moment is unused.
    pub unused_since: Timestamp,
}

/// What the levels above the nodes permit at the moment of the analysis.
pub(super) struct LevelSets {
    /// The addresses that both cluster and organization permit.
    pub(super) permitted: RangeSet,
    /// The addresses that the organization permits.
    pub(super) organization: RangeSet,
    /// The addresses that the firewall allows, for each connection type.
    pub(super) allowed: [RangeSet; 2],
}

impl LevelSets {
    pub(super) fn new(examined: &Examined<'_>) -> Self {
        let Examined { organization, snapshot, cluster, now, .. } = examined;
        let own = organization.access_set(&organization.node.access);
        Self {
            permitted: own.intersection(&organization.access_set(&cluster.node.access)),
            organization: own,
            allowed: ConnectionType::ALL.map(|connection_type| snapshot.firewall().allowed(connection_type, *now)),
        }
    }
}
