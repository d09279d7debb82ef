//! One version of a policy: its editable and its compiled form.
//!
//! Invariant: both forms are of the same revision.
//! Not here: which version is current (`engine`).

use super::address::Address;
use super::decision::{Decision, Verdict};
use super::name::NodePath;
use super::organization::{Cluster, Organization};
use super::rule::ConnectionType;
use super::snapshot::{ClusterSnapshot, Snapshot};
use super::time::Timestamp;
use super::timeline::Timeline;

/// One version of an organization's policy, and of the cluster's.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// The organization.
    pub organization: &'a Organization,
    /// The compiled policy of the organization.
    pub snapshot: &'a Snapshot,
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The compiled access setting of the cluster.
    pub cluster_snapshot: &'a ClusterSnapshot,
}

impl Version<'_> {
    /// The decision about a connection at `now`. A target that is not a node's name, or belongs to another
    /// organization, is denied.
    pub fn decision(
        &self,
        address: Address,
        connection_type: ConnectionType,
        target: &str,
        now: Timestamp,
    ) -> Decision {
        self.verdict(address, connection_type, target, now).map_or(Decision::Deny, |verdict| verdict.decision())
    }

    /// The same with its reason; none for a target that is not a node's name, or belongs to another organization.
    pub fn verdict(
        &self,
        address: Address,
        connection_type: ConnectionType,
        target: &str,
        now: Timestamp,
    ) -> Option<Verdict<'_>> {
        let target = NodePath::parse(target).ok()?;
        let is_inside = target.organization == self.organization.id.as_str();
        is_inside.then(|| self.snapshot.decide(self.cluster_snapshot, address, connection_type, &target, now))
    }

    /// Whether everything but the firewall allows a connection: never for a target that is always denied.
    pub fn permits_beside_firewall(&self, address: Address, target: &str) -> bool {
        NodePath::parse(target).is_ok_and(|target| {
            target.organization == self.organization.id.as_str()
                && self.snapshot.permits_beside_firewall(self.cluster_snapshot, address, &target)
        })
    }

    /// When a connection is allowed, from `now` on: at every moment as [`Version::decision`] decides.
    pub fn allowed(&self, address: Address, connection_type: ConnectionType, target: &str, now: Timestamp) -> Timeline {
        if self.permits_beside_firewall(address, target) {
            self.snapshot.firewall().timeline(address, connection_type, now)
        } else {
            Timeline::constant(false)
        }
    }
}
