//! The policy whose every level has a large list.
//!
//! Invariant: the same in every run. The lists let nearly all addresses through, so that the next level is asked too.
//! Not here: the ranges that the firewall allows (`data`).

use std::sync::Arc;

use portcullis::policy::address::{Block, Range};
use portcullis::policy::name::{NodeKey, NodePath};
use portcullis::policy::node::{Access, AccessEntry, Node};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::ranges::{RangeList, RangeSet};
use portcullis::policy::rule::{Action, Source};
use portcullis::policy::time::Timestamp;

use crate::data::{self, Family, Random};

/// The organization itself, which is what a deployment without projects names.
pub(crate) const TARGET: &str = "organizations/default";

/// An endpoint below three nodes with lists of their own.
pub(crate) const ENDPOINT: &str = "organizations/default/projects/shop/workspaces/frontend/endpoints/preview";

/// /24 that a list has not.
const HOLES: usize = 1_000;

/// A cluster that lets everybody through.
pub(crate) fn open_cluster() -> Cluster {
    Cluster::new(Timestamp::default())
}

/// A node of its own access.
pub(crate) fn node(access: Access) -> Arc<Node> {
    Arc::new(Node::new(access, Timestamp::default(), 1))
}

/// A firewall that allows the blocks, and below it lists of nearly all addresses.
pub(crate) fn all_levels(blocks: &[Block<u32>]) -> (Cluster, Organization) {
    let mut random = Random::seeded();
    let listed = |name: &str| node(allow_list([Source::Group(data::id(name))]));
    let mut cluster = open_cluster();
    cluster.node = node(allow_list(sieve(&mut random).into_iter().map(Source::Range)));
    let mut organization = data::organization();
    data::add_group(&mut organization, "allowed", blocks.iter().copied().map(Range::V4));
    data::set_rules(&mut organization, [(Action::Allow, Source::Group(data::id("allowed")))]);
    for name in ["organization", "project", "workspace", "endpoint"] {
        data::add_group(&mut organization, name, sieve(&mut random));
    }
    organization.node = listed("organization");
    let path = NodePath::parse(ENDPOINT).unwrap();
    for (level, name) in [(1, "project"), (2, "workspace"), (3, "endpoint")] {
        let key = NodeKey::of(&NodePath::parse(path.ancestor(level)).unwrap()).unwrap();
        organization.nodes.insert(key, listed(name));
    }
    (cluster, organization)
}

fn sieve(random: &mut Random) -> Vec<Range> {
    let holes: RangeList = (0..HOLES).map(|_| Range::V4(u32::from_bits(random.wide_bits()).block_around(24))).collect();
    RangeSet::full().difference(&holes.to_set()).ranges().collect()
}

fn allow_list(sources: impl IntoIterator<Item = Source>) -> Access {
    Access::AllowList(sources.into_iter().map(|source| AccessEntry { source, description: "".into() }).collect())
}
