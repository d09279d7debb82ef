//! What looking at a large policy costs: its problems, and one explained decision.
//!
//! Run with `cargo bench --bench analysis`. The policy has 10,000 rules, some of which expire, and 10,000 nodes with
//! lists of their own or inherited.
//!
//! Invariant: the goal is printed beside what was measured, met or not.
//! Not here: the way over gRPC.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench that goes wrong ends, takes times, and reports to its terminal"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::policy::explain::{self, Question};
use portcullis::policy::group::Group;
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{Id, NodeKey, NodePath};
use portcullis::policy::node::{Access, AccessEntry, Node};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::problems::{self, Code, Subject};
use portcullis::policy::rule::{Action, ConnectionType, Rule, Source};
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::time::Timestamp;
use portcullis::policy::version::Version;

const RULES: u32 = 10_000;
const NODES: u32 = 10_000;

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn rule(number: u32) -> Rule {
    let now = Timestamp::from_millis(0);
    let source = match number % 100 {
        0 => Source::Group(id("blocklist")),
        1 => Source::Range(format!("10.{}.0.0/16", number / 100 % 256).parse().unwrap()),
        2 => Source::Range(format!("2001:db8:{number:x}::/48").parse().unwrap()),
        _ => {
            Source::Range(format!("{}.{}.{}.0/24", 1 + number % 200, number / 256 % 256, number % 256).parse().unwrap())
        }
    };
    Rule {
        id: id(&format!("r{number}")),
        action: if number.is_multiple_of(3) { Action::Allow } else { Action::Deny },
        source,
        connection_types: if number.is_multiple_of(7) {
            [ConnectionType::Shell].into_iter().collect()
        } else {
            std::iter::empty().collect()
        },
        description: "".into(),
        disabled: false,
        expire_time: number.is_multiple_of(20).then(|| Timestamp::from_millis(1_000_000 + i64::from(number))),
        create_time: now,
        update_time: now,
        changed_at: 1,
    }
}

fn policy() -> (Organization, Cluster) {
    let now = Timestamp::from_millis(0);
    let list = |ranges: Vec<String>| {
        let entry =
            |range: String| AccessEntry { source: Source::Range(range.parse().unwrap()), description: "".into() };
        Access::AllowList(ranges.into_iter().map(entry).collect::<Vec<_>>().into())
    };
    let own = list((0..200).map(|number| format!("{number}.0.0.0/8")).collect());
    let mut organization = Organization::new(id("default"), 1, Node::new(own, now, 1));
    let blocklist =
        (0..50_000_u32).map(|number| format!("{}.{}.{}.7", 1 + number % 220, number / 220 % 256, number % 251));
    let ranges = blocklist.map(|range| range.parse().unwrap()).collect();
    organization.groups.insert(id("blocklist"), Arc::new(Group::new(id("blocklist"), "".into(), ranges, now, 1)));
    organization.rules = Arc::new((0..RULES).map(|number| Arc::new(rule(number))).collect());
    for number in 0..NODES {
        let (project, workspace) = (number / 100, number % 100);
        let (name, access) = if workspace == 0 {
            (
                format!("projects/p{project}"),
                list(vec![format!("{}.0.0.0/8", project % 250), "192.0.2.0/24".to_owned()]),
            )
        } else {
            let own = list((0..5).map(|part| format!("{}.{part}.{workspace}.0/24", 1 + project)).collect());
            (
                format!("projects/p{project}/workspaces/w{workspace}"),
                if workspace % 3 == 0 { Access::Inherit } else { own },
            )
        };
        let name = format!("organizations/default/{name}");
        let key = NodeKey::of(&NodePath::parse(&name).unwrap()).unwrap();
        organization.nodes.insert(key, Arc::new(Node::new(access, now, 1)));
    }
    (organization, Cluster::new(now))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap()
}

fn main() {
    let (organization, cluster) = policy();
    let snapshot = Snapshot::compile(&organization, &mut MembersCache::default());
    let cluster_snapshot = ClusterSnapshot::compile(&cluster);
    let subject = Subject {
        organization: &organization,
        snapshot: &snapshot,
        cluster: &cluster,
        now: Timestamp::from_millis(1_000),
        matches: &|_| None,
        unused_since: Timestamp::from_millis(0),
    };
    let (mut times, mut found) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let begun = Instant::now();
        found = problems::of_organization(&subject);
        times.push(begun.elapsed());
    }
    let count = |code| found.iter().filter(|problem| problem.code == code).count();
    println!(
        "problems of {RULES} rules and {NODES} nodes: {:.0?} (goal < 1 s); {} found, of them {} rules that never win, {} \
         that are redundant",
        median(times),
        found.len(),
        count(Code::ShadowedRule),
        count(Code::RedundantRule)
    );
    let policy = Version {
        organization: &organization,
        snapshot: &snapshot,
        cluster: &cluster,
        cluster_snapshot: &cluster_snapshot,
    };
    let question = Question {
        address: "7.1.2.3".parse().unwrap(),
        connection_type: ConnectionType::Shell,
        target: NodePath::parse("organizations/default/projects/p6/workspaces/w2/endpoints/e").unwrap(),
        at: Timestamp::from_millis(1_000),
    };
    let times = (0..101).map(|_| {
        let begun = Instant::now();
        std::hint::black_box(explain::explain(&policy, &question));
        begun.elapsed()
    });
    println!("one decision explained: {:.0?}", median(times.collect()));
}
