//! The policy core compiles alone: with the standard library, `ipnet` and an error derive, and nothing else.
//!
//! Invariant: this file includes the core's sources as they are; a `use` of anything else in them breaks this build.
//! Not here: what the core does, which the integration tests check.

use policy::address::Address;
use policy::decision::Reason;
use policy::members::MembersCache;
use policy::name::{Id, NodePath};
use policy::node::{Access, Node};
use policy::organization::{Cluster, Organization};
use policy::rule::ConnectionType;
use policy::snapshot::{ClusterSnapshot, Snapshot};
use policy::time::Timestamp;

#[path = "../src/policy/mod.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::struct_field_names,
    clippy::unused_self,
    clippy::option_option,
    reason = "the whole core is compiled here, and little of it is used"
)]
mod policy;

#[test]
fn the_core_decides_without_the_rest_of_the_program() {
    let now = Timestamp::default();
    let id = Id::parse("default").unwrap();
    let organization = Organization::new(id, 1, Node::new(Access::AllowAll, now, 1));
    let snapshot = Snapshot::compile(&organization, &mut MembersCache::default());
    let cluster = ClusterSnapshot::compile(&Cluster::new(now));
    let address: Address = "203.0.113.7".parse().unwrap();
    let target = NodePath::parse("organizations/default").unwrap();
    let verdict = snapshot.decide(&cluster, address, ConnectionType::Shell, &target, now);
    assert_eq!(verdict.reason, Reason::DefaultAllow);
}
