//! The policy that is examined for problems, and the sets that all parts of the analysis share.
//!
//! Invariant: all sets are of the moments from the given one on.
//! Not here: the analysis itself (`rules`, `nodes`).

use super::translation::Nat64Prefix;
use crate::organization::{Cluster, Organization};
use crate::ranges::RangeSet;
use crate::rule::{ConnectionType, RuleMatches};
use crate::snapshot::{ClusterSnapshot, Snapshot};
use crate::time::Timestamp;
use crate::timed_set::TimedSet;
use crate::timeline::Timeline;
use crate::version::Version;

/// A version of a policy that is examined for problems.
#[derive(Clone, Copy)]
pub struct Examined<'a> {
    /// The organization.
    pub organization: &'a Organization,
    /// The compiled policy of the organization.
    pub snapshot: &'a Snapshot,
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The compiled access setting of the cluster.
    pub cluster_snapshot: &'a ClusterSnapshot,
    /// The moment from which on problems are looked for.
    pub now: Timestamp,
    /// The matches of the rule at a 0-based index; none when they are not known.
    pub matches: &'a dyn Fn(usize) -> Option<RuleMatches>,
    /// A rule that has not matched since this moment is unused.
    pub unused_since: Timestamp,
    /// The prefixes of translators, beside the well-known one.
    pub nat64_prefixes: &'a [Nat64Prefix],
}

impl<'a> Examined<'a> {
    pub(super) fn version(&self) -> Version<'a> {
        let Self { organization, snapshot, cluster, cluster_snapshot, .. } = *self;
        Version { organization, snapshot, cluster, cluster_snapshot }
    }
}

/// What the levels above the nodes permit. Timed sets may end at a horizon (see `TimedSet::horizon`): what begins after
/// it is found once it is nearer.
pub(super) struct LevelSets {
    /// The addresses that both cluster and organization permit.
    pub(super) permitted: RangeSet,
    /// The addresses that the organization permits.
    pub(super) organization: RangeSet,
    /// The addresses that the firewall allows and when, for each connection type.
    pub(super) allowed_from: [TimedSet; 2],
    /// The addresses that cluster, firewall and organization permit and when, for each connection type.
    pub(super) permitted_from: [TimedSet; 2],
    /// When cluster, firewall and organization permit all of IPv4 and all of IPv6, for each connection type.
    pub(super) open_from: [[Timeline; 2]; 2],
    /// Whether it takes too long to find out when families are open. Then none is in `open_from`.
    pub(super) is_open_unknown: bool,
    /// The addresses that the firewall always allows for some connection type.
    pub(super) always_allowed: RangeSet,
}

impl LevelSets {
    pub(super) fn new(examined: &Examined<'_>) -> Self {
        let Examined { organization, snapshot, cluster, now, .. } = examined;
        let own = organization.access_set(&organization.node.access);
        let permitted = own.intersection(&organization.access_set(&cluster.node.access));
        let firewall = snapshot.firewall();
        let full = RangeSet::full();
        let [of_v4, of_v6] = [full.v4.is_subset(&permitted.v4), full.v6.is_subset(&permitted.v6)];
        let [(shell, shell_permitted, shell_open, of_shell), (preview, preview_permitted, preview_open, of_preview)] =
            firewall.of_types(|connection_type| {
                let allowed = firewall.allowed_from(connection_type, *now);
                let permitted = allowed.within(&permitted);
                let whole = firewall.whole_families(connection_type, *now);
                let is_unknown = whole.is_none();
                let [v4, v6] = whole.unwrap_or([const { false }; 2].map(Timeline::constant));
                let of = |of_firewall, family| if family { of_firewall } else { Timeline::constant(false) };
                (allowed, permitted, [of(v4, of_v4), of(v6, of_v6)], is_unknown)
            });
        Self {
            permitted,
            organization: own,
            always_allowed: shell.always().union(&preview.always()),
            allowed_from: [shell, preview],
            permitted_from: [shell_permitted, preview_permitted],
            open_from: [shell_open, preview_open],
            is_open_unknown: of_shell || of_preview,
        }
    }

    /// The moments at which what permits all of some families is open to every address of one of them.
    pub(super) fn opened(&self, [v4, v6]: [bool; 2]) -> impl Iterator<Item = (ConnectionType, Timeline)> {
        ConnectionType::ALL.into_iter().zip(&self.open_from).map(move |(connection_type, [of_v4, of_v6])| {
            let of_families = [(v4, of_v4), (v6, of_v6)].into_iter().filter(|(listed, _)| *listed);
            (connection_type, Timeline::any(of_families.map(|(_, timeline)| timeline)))
        })
    }

    /// Whether something is not known: what begins after some moment, or when families are open.
    pub(super) fn are_short(&self) -> bool {
        self.is_open_unknown || self.allowed_from.iter().any(|allowed| allowed.horizon().is_some())
    }
}
