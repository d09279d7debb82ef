//! Policy tests that fail and guarded addresses that lose something: equal to deciding every connection at every moment.
//!
//! Invariant: what is expected is decided by the naive model of `problems`, one moment after the other.
//! Not here: words and pages (`problems_moments_api`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis::policy::decision::Decision;
use portcullis::policy::gates::Gates;
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{NodeKey, NodePath};
use portcullis::policy::node::{Access, Node};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::policy_test::PolicyTest;
use portcullis::policy::problems::{self, Code, Resource};
use portcullis::policy::rule::ConnectionType;
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::time::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;

use crate::campaign::rounds;
use crate::problems::{Mask, NOW, Naive, and, begins, examined, id, is_empty, mask_where, model, point};

const TARGETS: [&str; 5] = [
    "organizations/default",
    "organizations/default/projects/p",
    "organizations/default/projects/p/workspaces/w",
    "organizations/default/projects/p/workspaces/w/endpoints/e",
    "organizations/default/projects/unknown/workspaces/w",
];

#[derive(Clone, Debug)]
struct TestModel {
    point: usize,
    connection_type: ConnectionType,
    target: &'static str,
    expected: Decision,
    end: Option<i64>,
}

/// Points inside the ranges of the models, and others.
fn points() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..514_usize, 1 => select(vec![0, 255, 256, 511, 512, 513])]
}

prop_compose! {
    fn test()(
        point in points(),
        connection_type in select(ConnectionType::ALL.to_vec()),
        target in select(TARGETS.to_vec()),
        expected in select(vec![Decision::Allow, Decision::Deny]),
        end in select(vec![None, None, Some(NOW), Some(120), Some(150), Some(180), Some(200), Some(250)]),
    ) -> TestModel {
        TestModel { point, connection_type, target, expected, end }
    }
}

fn guard() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(points(), 0..4)
}

fn with_guard(node: &Node, points: Vec<usize>) -> Arc<Node> {
    let gates = Gates { guard: points.into_iter().map(point).collect(), ..Gates::default() };
    Arc::new(Node { gates: Arc::new(gates), ..node.clone() })
}

fn is_allowed(naive: &Naive<'_>, permitted: bool, at_point: usize, of: ConnectionType, target: &str, at: i64) -> bool {
    let organization = naive.organization;
    let has = |mask: Mask| !is_empty(&and(&mask, &mask_where(|at| at == at_point)));
    let key = NodeKey::of(&NodePath::parse(target).unwrap());
    let known = target != TARGETS[4] || !organization.node.require_projects;
    let effective = match key.as_ref().and_then(|key| organization.effective_access(key)) {
        None | Some((_, Access::AllowAll)) => true,
        Some((_, access)) => has(naive.access(access)),
    };
    permitted && known && effective && has(naive.firewall(of, at, None).0)
}

fn compare(organization: &Organization, cluster: &Cluster, tests: &[TestModel]) {
    let snapshot = Snapshot::compile(organization, &mut MembersCache::default());
    let cluster_snapshot = ClusterSnapshot::compile(cluster);
    let found = problems::of_organization(&examined(organization, &snapshot, cluster, &cluster_snapshot)).problems;
    let naive = Naive::new(organization, cluster);
    let levels = and(&naive.access(&organization.node.access), &naive.access(&cluster.node.access));
    let permitted = |at_point: usize| levels[at_point / 64] >> (at_point % 64) & 1 == 1;
    let allowed =
        |at_point: usize, of, target: &str, at| is_allowed(&naive, permitted(at_point), at_point, of, target, at);
    let failing: BTreeMap<String, Option<i64>> = found
        .iter()
        .filter(|problem| problem.code == Code::FailingTest)
        .map(|problem| match &problem.resource {
            Resource::Test(id) => (id.to_string(), problem.from.map(Timestamp::millis)),
            other => panic!("{other:?} is no test"),
        })
        .collect();
    let expected = tests.iter().enumerate().filter_map(|(place, test)| {
        let held = naive.moments().into_iter().filter(|at| test.end.is_none_or(|end| *at < end));
        let fails = |at: &i64| {
            allowed(test.point, test.connection_type, test.target, *at) != (test.expected == Decision::Allow)
        };
        let at = held.into_iter().find(fails)?;
        Some((format!("t{place}"), (at != NOW).then_some(at)))
    });
    assert_eq!(failing, expected.collect());

    let guards = organization.node.gates.guard.iter().chain(&cluster.node.gates.guard);
    for address in guards.copied().collect::<BTreeSet<_>>() {
        let at_point = (0..514).find(|at| point(*at) == address).unwrap();
        let of_address = found
            .iter()
            .filter(|problem| problem.code == Code::GuardedAddressLockedOut && *problem.ranges == [address.into()]);
        let kind = |problem: &problems::Problem| {
            assert_eq!(problem.resource, Resource::Organization);
            (problem.code, problem.from.map(Timestamp::millis), problem.connection_types.clone())
        };
        let lost = |of, at| {
            TARGETS.iter().any(|target| allowed(at_point, of, target, NOW) && !allowed(at_point, of, target, at))
        };
        let expected = begins(&naive, Code::GuardedAddressLockedOut, lost);
        assert_eq!(of_address.map(kind).collect::<BTreeSet<_>>(), expected, "{address}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(3_000, 20_000), max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn tests_that_fail_and_guarded_addresses_that_lose_something_are_those_that_deciding_at_every_moment_finds(
        (mut organization, mut cluster) in model(),
        tests in prop::collection::vec(test(), 0..4),
        guards in (guard(), guard()),
        require_projects in any::<bool>(),
    ) {
        organization.node = with_guard(&organization.node, guards.0);
        Arc::make_mut(&mut organization.node).require_projects = require_projects;
        cluster.node = with_guard(&cluster.node, guards.1);
        let of_model = |(place, test): (usize, &TestModel)| PolicyTest {
            id: id(&format!("t{place}")),
            address: point(test.point),
            connection_type: test.connection_type,
            endpoint: test.target.into(),
            expected: test.expected,
            description: "".into(),
            end_time: test.end.map(Timestamp::from_millis),
        };
        organization.tests = Arc::new(tests.iter().enumerate().map(of_model).collect());
        compare(&organization, &cluster, &tests);
    }
}
