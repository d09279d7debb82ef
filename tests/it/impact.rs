//! What a change permits and denies differently: equal to what enumerating every address before and after finds, for
//! random pairs of policies over small universes; and a policy put in place of another is exactly that policy.
//!
//! Invariant: that of `problems`, whose universe this is.
//! Not here: moments after the present one (`moments_judged`), previews through the API (`preview_api`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis::policy::address::Range;
use portcullis::policy::document::Document;
use portcullis::policy::impact::{Difference, Impact, TargetClass, permitted as permitted_by};
use portcullis::policy::limits::Limits;
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{NodeKey, NodePath};
use portcullis::policy::node::Access;
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::plan::{Etags, Mutation, Planner};
use portcullis::policy::rule::ConnectionType;
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::time::Timestamp;
use portcullis::policy::timeline::Moment;
use portcullis::policy::version::Version;
use proptest::prelude::*;
use proptest::sample::select;

use crate::campaign::rounds;
use crate::policy_documents::marked;
use crate::problems::{Mask, NOW, Naive, and, and_not, is_empty, model, of_ranges, or};

const PLACES: [&str; 6] =
    ["", "projects/-", "projects/p", "projects/p/workspaces/w", "projects/p/workspaces/w/endpoints/e", "projects/q"];

fn key(name: &str) -> Option<NodeKey> {
    NodePath::parse(&format!("organizations/default/{name}")).ok().and_then(|path| NodeKey::of(&path))
}

/// A policy in which some nodes are missing, so that pairs differ in their nodes too.
fn policy() -> impl Strategy<Value = (Organization, Cluster)> {
    let kept = select(vec![0, 1, 2, 2, 2]);
    (model(), kept, any::<bool>()).prop_map(|((mut organization, cluster), kept, require_projects)| {
        let mut node = (*organization.node).clone();
        node.require_projects = require_projects;
        organization.node = Arc::new(node);
        for name in ["projects/p", "projects/p/workspaces/w"].iter().skip(kept) {
            organization.nodes.remove(&key(name).unwrap());
        }
        (organization, cluster)
    })
}

/// What is permitted at a place, by enumeration.
fn permitted(organization: &Organization, cluster: &Cluster, place: &str, connection_type: ConnectionType) -> Mask {
    let naive = Naive::new(organization, cluster);
    let levels = and(&naive.access(&organization.node.access), &naive.access(&cluster.node.access));
    let levels = and(&levels, &naive.firewall(connection_type, NOW, None).0);
    let Some(project) = place.split('/').nth(1) else { return levels };
    let known = organization.nodes.iter().any(|(key, _)| key.project.as_str() == project);
    if !known {
        return if organization.node.require_projects { Mask::default() } else { levels };
    }
    let mut name = place;
    loop {
        match key(name).and_then(|key| organization.nodes.get(&key)).map(|node| &node.access) {
            Some(Access::Inherit) | None => {}
            Some(access) => return and(&levels, &naive.access(access)),
        }
        // One level up: a collection and an id less.
        let Some((above, _)) = name.rsplit_once('/').and_then(|(rest, _)| rest.rsplit_once('/')) else { return levels };
        name = above;
    }
}

/// What is permitted is listed as the fewest ranges: none within another, and no two that are one.
fn check_permitted(version: Version<'_>, place: &str, connection_type: ConnectionType, expected: &Mask) {
    let of = match place {
        "" => TargetClass::Organization,
        "projects/-" => TargetClass::UnregisteredProject,
        _ => TargetClass::Node(key(place).unwrap()),
    };
    let now = Timestamp::from_millis(NOW);
    let ranges: Vec<Range> = permitted_by(version, &of, connection_type, now).ranges().collect();
    assert_eq!(of_ranges(&ranges), *expected, "{place}");
    let mut v4 = BTreeSet::new();
    let mut v6 = BTreeSet::new();
    for range in ranges {
        match range {
            Range::Any => panic!("`any` is no range in CIDR notation"),
            Range::V4(block) => assert!(v4.insert((block.first(), block.prefix_length()))),
            Range::V6(block) => assert!(v6.insert((block.first(), block.prefix_length()))),
        }
    }
    for (first, length) in &v4 {
        for shorter in 0..*length {
            assert!(!v4.contains(&(first & !(u32::MAX.checked_shr(shorter.into()).unwrap_or(0)), shorter)), "{place}");
        }
        let sibling = length.checked_sub(1).map(|_| first ^ (1 << (32 - length)));
        assert!(sibling.is_none_or(|sibling| !v4.contains(&(sibling, *length))), "{place}");
    }
    for (first, length) in &v6 {
        for shorter in 0..*length {
            let above = first & !(u128::MAX.checked_shr(shorter.into()).unwrap_or(0));
            assert!(!v6.contains(&(above, shorter)), "{place}");
        }
        let sibling = length.checked_sub(1).map(|_| first ^ (1 << (128 - length)));
        assert!(sibling.is_none_or(|sibling| !v6.contains(&(sibling, *length))), "{place}");
    }
}

fn compare(before: &(Organization, Cluster), after: &(Organization, Cluster)) {
    let now = Timestamp::from_millis(NOW);
    let snapshots = [before, after].map(|(organization, cluster)| {
        (Snapshot::compile(organization, &mut MembersCache::default()), ClusterSnapshot::compile(cluster))
    });
    let [old, new] = [(before, &snapshots[0]), (after, &snapshots[1])].map(
        |((organization, cluster), (snapshot, cluster_snapshot))| Version {
            organization,
            snapshot,
            cluster,
            cluster_snapshot,
        },
    );
    let impact = Impact::new(Some(old), Some(new), now);
    let concerned = of_ranges(&impact.concerned().ranges().collect::<Vec<_>>());
    let mut found: BTreeMap<(String, ConnectionType), (Mask, Mask)> = BTreeMap::new();
    for Difference { targets: place, connection_type, newly_permitted, newly_denied, period } in impact.differences() {
        let name = place.name(&before.0.id);
        let name = name.trim_start_matches("organizations/default").trim_start_matches('/').to_owned();
        let mask = |set: portcullis::policy::ranges::RangeSet| of_ranges(&set.ranges().collect::<Vec<_>>());
        let masks = (mask(newly_permitted), mask(newly_denied));
        assert!(!is_empty(&masks.0) || !is_empty(&masks.1), "{name}");
        if period.from == Moment::Now {
            let told = found.entry((name, connection_type)).or_default();
            *told = (or(&told.0, &masks.0), or(&told.1, &masks.1));
        }
    }
    for place in PLACES {
        for connection_type in ConnectionType::ALL {
            let [was, is] =
                [before, after].map(|(organization, cluster)| permitted(organization, cluster, place, connection_type));
            for (version, expected) in [(old, was), (new, is)] {
                check_permitted(version, place, connection_type, &expected);
            }
            let expected = (and_not(&is, &was), and_not(&was, &is));
            for flips in [&expected.0, &expected.1] {
                assert!(is_empty(&and_not(flips, &concerned)), "{place} is not among what is concerned");
            }
            let told_apart = matches!(place, "" | "projects/-")
                || [before, after]
                    .iter()
                    .any(|(organization, _)| key(place).is_some_and(|key| organization.nodes.get(&key).is_some()));
            // What is not registered is told at the nearest that is.
            let registered = if told_apart {
                place
            } else if place == "projects/q" || !before.0.nodes.iter().chain(after.0.nodes.iter()).any(|_| true) {
                "projects/-"
            } else {
                let known = |name: &&str| {
                    [before, after]
                        .iter()
                        .any(|(organization, _)| organization.nodes.get(&key(name).unwrap()).is_some())
                };
                ["projects/p/workspaces/w", "projects/p"].into_iter().find(known).unwrap_or("projects/-")
            };
            let told = found.get(&(registered.to_owned(), connection_type)).copied().unwrap_or_default();
            assert_eq!(told, expected, "{place} by {registered} for {connection_type:?}");
        }
    }
}

/// One policy planned in place of another is it, and its compiled form decides as if compiled anew.
fn replace(before: &(Organization, Cluster), after: &Organization) {
    let now = Timestamp::from_millis(NOW);
    let planner = Planner { now, limits: &Limits::default(), cluster: &before.1, etags: Etags::of_lineage(0) };
    let document = Box::new(Document::of(after));
    let mutation = Mutation::ReplacePolicy { document, etag: None, goes_back: false, force: true };
    let deltas = planner.plan(&before.0, mutation.clone(), Vec::new()).unwrap();
    let mut made = before.0.clone();
    made.apply(made.revision + 1, now, &deltas);
    assert_eq!(marked(Document::of(&made)), marked(Document::of(after)));
    assert_eq!(planner.plan(&made, mutation, Vec::new()).unwrap(), []);
    let mut lists = MembersCache::default();
    let advanced = Snapshot::compile(&before.0, &mut lists).advance(&made, &deltas, &mut lists);
    let compiled = Snapshot::compile(&made, &mut MembersCache::default());
    let cluster = ClusterSnapshot::compile(&before.1);
    let version = |snapshot| Version { organization: &made, snapshot, cluster: &before.1, cluster_snapshot: &cluster };
    assert_eq!(Impact::new(Some(version(&advanced)), Some(version(&compiled)), now).differences().next(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(1_000, 10_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_differs_is_what_enumerating_every_address_finds(
        before in policy(),
        other in policy(),
        shared in select(vec![0, 1, 2, 3]),
    ) {
        // Most changes leave most of a policy as it was.
        let mut after = other;
        if shared == 1 {
            after.0.rules = Arc::clone(&before.0.rules);
        }
        if shared == 2 {
            (after.0.nodes, after.0.node) = (before.0.nodes.clone(), Arc::clone(&before.0.node));
            after.1 = before.1.clone();
        }
        if shared == 3 {
            after.0 = Organization { rules: after.0.rules, ..before.0.clone() };
        }
        compare(&before, &after);
        replace(&before, &after.0);
    }
}

#[test]
fn an_organization_that_does_not_exist_permits_nobody() {
    let now = Timestamp::from_millis(NOW);
    let organization = Organization::new(
        crate::problems::id("default"),
        1,
        portcullis::policy::node::Node::new(Access::AllowAll, now, 1),
    );
    let (cluster, snapshot) = (Cluster::new(now), Snapshot::compile(&organization, &mut MembersCache::default()));
    let cluster_snapshot = ClusterSnapshot::compile(&cluster);
    let version = Version {
        organization: &organization,
        snapshot: &snapshot,
        cluster: &cluster,
        cluster_snapshot: &cluster_snapshot,
    };
    let gone: Vec<Difference> = Impact::new(Some(version), None, now).differences().collect();
    assert_eq!(gone.len(), 4);
    for difference in gone {
        assert!(matches!(difference.targets, TargetClass::Organization | TargetClass::UnregisteredProject));
        let denied: Vec<String> = difference.newly_denied.ranges().map(|range| range.to_string()).collect();
        assert_eq!((denied, difference.newly_permitted.is_empty()), (vec!["0.0.0.0/0".into(), "::/0".into()], true));
    }
}
