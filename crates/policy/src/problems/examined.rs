//! The policy that is examined for problems, and the sets that all parts of the analysis share.
//!
//! Invariant: all sets are those of one moment.
//! Not here: the analysis itself (`rules`, `nodes`).

use crate::organization::{Cluster, Organization};
use crate::ranges::RangeSet;
use crate::rule::{ConnectionType, RuleMatches};
use crate::snapshot::Snapshot;
use crate::time::Timestamp;

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
pub(super) struct Levels {
    /// What cluster and organization permit.
    pub(super) permitted: RangeSet,
    pub(super) organization: RangeSet,
    /// What the firewall lets through, for each connection type.
    pub(super) allowed: [RangeSet; 2],
}

impl Levels {
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
