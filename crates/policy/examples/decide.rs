//! Decides without a server: a policy built in code, compiled, and asked about addresses.
//!
//! Run it with `cargo run -p portcullis-policy --example decide`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;

use portcullis_policy::address::Address;
use portcullis_policy::limits::Limits;
use portcullis_policy::members::MembersCache;
use portcullis_policy::name::{Id, NodeKey, NodePath};
use portcullis_policy::node::{Access, AccessEntry, Node, NodePatch};
use portcullis_policy::organization::{Cluster, Organization};
use portcullis_policy::plan::{Etags, Mutation, Planner};
use portcullis_policy::rule::{Action, ConnectionType, RulePatch, Source};
use portcullis_policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis_policy::time::Timestamp;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The library has no clock: whoever uses it says what time it is.
    let now = Timestamp::from_millis(1_700_000_000_000);
    let cluster = Cluster::new(now);
    let empty = Organization::new(Id::parse("acme")?, 1, Node::new(Access::AllowAll, now, 1));

    // One range is denied by a rule, and previews of the project are for the office alone.
    let deny = RulePatch {
        action: Some(Action::Deny),
        source: Some(Source::Range("203.0.113.0/24".parse()?)),
        ..RulePatch::default()
    };
    let office = AccessEntry { source: Source::Range("198.51.100.0/24".parse()?), description: Arc::from("office") };
    let project = NodePath::parse("organizations/acme/projects/shop")?;
    let access = NodePatch { access: Some(Access::AllowList(Arc::from([office]))), ..NodePatch::default() };
    let mutations = [
        Mutation::CreateRule { id: Some(Id::parse("blocked")?), position: None, patch: deny },
        Mutation::CreateNode { key: NodeKey::of(&project).ok_or("a project has a key")?, patch: access },
    ];

    // Planning checks each mutation as the service does, and says what is wrong with one that it refuses.
    let limits = Limits::default();
    let planner = Planner { now, limits: &limits, cluster: &cluster, etags: Etags::of_lineage(0) };
    let mutations = mutations.map(|mutation| (mutation, Vec::new())).to_vec();
    let (_, policy) = planner.plan_all(&empty, mutations).map_err(|(index, error)| format!("{index}: {error}"))?;

    // A snapshot is the compiled form. It can be shared between threads, and deciding takes no lock.
    let (snapshot, cluster) =
        (Snapshot::compile(&policy, &mut MembersCache::default()), ClusterSnapshot::compile(&cluster));
    for text in ["198.51.100.7", "203.0.113.9", "192.0.2.1"] {
        let address: Address = text.parse()?;
        let verdict = snapshot.decide(&cluster, address, ConnectionType::Preview, &project, now);
        println!("{text}: {:?}, {:?}", verdict.decision(), verdict.reason);
    }
    Ok(())
}
