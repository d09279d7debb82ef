//! What looking at a large policy costs: its problems, one explained decision, and previews of changes with a day of
//! recorded decisions made again; and judging a change where every rule expires.
//!
//! Run with `cargo bench --bench analysis`. The policy has 10,000 rules, some of which expire, and 10,000 nodes with
//! lists of their own or inherited.
//!
//! Invariant: the goal is printed beside what was measured, met or not.
//! Not here: whether the answers are right, which the tests check.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench that goes wrong ends, takes times, and reports to its terminal"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::config::{Config, Durability};
use portcullis::engine::Engine;
use portcullis::engine::change::{ChangeRequest, ChangeTarget};
use portcullis::engine::question;
use portcullis::policy::address::Address;
use portcullis::policy::document::Document;
use portcullis::policy::explain::{self, Attempt};
use portcullis::policy::forecast::{Budget, Comparison, Event};
use portcullis::policy::gates::Gates;
use portcullis::policy::group::Group;
use portcullis::policy::impact::Impact;
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{Id, NodeKey, NodePath};
use portcullis::policy::node::{Access, AccessEntry, Node};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::plan::Mutation;
use portcullis::policy::problems::{self, Code, Examined};
use portcullis::policy::rule::{Action, ConnectionType, Rule, Source};
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::time::Timestamp;
use portcullis::policy::version::Version;
use portcullis::proto::v1;
use portcullis::proto::v1::analysis_service_client::AnalysisServiceClient;

const RULES: u32 = 10_000;
const NODES: u32 = 10_000;

/// Decisions of a day.
const RECORDS: u32 = 1_000_000;
const TASKS: u32 = 64;

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
        expire_time: number.is_multiple_of(20).then(|| {
            // Some are expired when previews are asked for, and some never will be.
            let far = if number.is_multiple_of(40) { 0 } else { 4_000_000_000_000 };
            Timestamp::from_millis(1_000_000 + far + i64::from(number))
        }),
        create_time: now,
        update_time: now,
        changed_at: 1,
        expired: false,
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

/// A policy of 100,000 rules, each with an expire time of its own, and one without any.
fn expiring(what: &str) -> Organization {
    const MANY: u32 = 100_000;
    let now = Timestamp::from_millis(0);
    let mut organization = Organization::new(id("default"), 1, Node::new(Access::AllowAll, now, 1));
    let narrow = |number: u32| format!("{}.{}.{}.0/24", 1 + number / 65_536, number / 256 % 256, number % 256);
    let ranges = (0..100_000).map(|number| narrow(number).parse().unwrap()).collect();
    organization.groups.insert(id("large"), Arc::new(Group::new(id("large"), "".into(), ranges, now, 1)));
    let rule = |number: u32| {
        let source = match what {
            "of a range of its own" => Source::Range(narrow(number).parse().unwrap()),
            "of every address" | "of every address, and all deny" => Source::Range("any".parse().unwrap()),
            // Thousands of each size.
            "each within those before" => {
                let range = format!("{}/{}", Address::V4(7 << 24), number * 31 / MANY);
                Source::Range(range.parse().unwrap())
            }
            "of one group of 100,000 ranges" => Source::Group(id("large")),
            _ if number.is_multiple_of(2) => Source::Range(narrow(number).parse().unwrap()),
            _ => Source::Range("any".parse().unwrap()),
        };
        Arc::new(Rule {
            source,
            action: match what {
                "of every address, and all deny" | "half of a range of its own, and all deny" => Action::Deny,
                _ if (number / 2).is_multiple_of(2) => Action::Deny,
                _ => Action::Allow,
            },
            connection_types: std::iter::empty().collect(),
            expire_time: (number < MANY - 1).then(|| Timestamp::from_millis(1_000_000 + 1_000 * i64::from(number))),
            id: id(&format!("r{number}")),
            ..self::rule(number % RULES)
        })
    };
    organization.rules = Arc::new((0..MANY).map(rule).collect());
    organization
}

/// Judges a change of a policy in which everything expires: one rule in the middle expires a little later.
fn moments() {
    let (cluster, now) = (Cluster::new(Timestamp::from_millis(0)), Timestamp::from_millis(1_000));
    let cluster_snapshot = ClusterSnapshot::compile(&cluster);
    for what in [
        "of a range of its own",
        "of every address",
        "of one group of 100,000 ranges",
        "half of a range of its own, half of every address",
        "of every address, and all deny",
        "half of a range of its own, and all deny",
        "each within those before",
    ] {
        let before = expiring(what);
        let mut after = before.clone();
        let middle = Rule {
            expire_time: Some(Timestamp::from_millis(1_000_000 + 50_001_500)),
            ..(*before.rules[50_001]).clone()
        };
        Arc::make_mut(&mut after.rules)[50_001] = Arc::new(middle);
        let snapshots = [&before, &after].map(|of| Snapshot::compile(of, &mut MembersCache::default()));
        let version = |organization, snapshot| Version {
            organization,
            snapshot,
            cluster: &cluster,
            cluster_snapshot: &cluster_snapshot,
        };
        let (old, new) = (version(&before, &snapshots[0]), version(&after, &snapshots[1]));
        let guard = (0..100).map(|number| Address::V4((1 << 24) + 256 * number)).collect();
        let gates = Gates { guard, max_revocations: None, refuse_open_to_internet: true };
        let begun = Instant::now();
        let refusals = gates.refusals(&Gates::default(), Some(&old), Some(&new), now, &Budget::default());
        let judged = begun.elapsed();
        let begun = Instant::now();
        let impact = Impact::new(Some(old), Some(new), now);
        let differences = impact.differences().take(1_000).count();
        println!(
            "100,000 rules that expire, {what}: gates {judged:.2?} ({} refusals), differences {:.2?} ({differences}{}) \
             (goal < 2 s each)",
            refusals.len(),
            begun.elapsed(),
            if impact.horizon().is_some() { ", cut" } else { "" }
        );
        let begun = Instant::now();
        let found = problems::of_organization(&Examined {
            organization: &before,
            snapshot: &snapshots[0],
            cluster: &cluster,
            cluster_snapshot: &cluster_snapshot,
            now,
            matches: &|_| None,
            unused_since: Timestamp::from_millis(0),
            nat64_prefixes: &[],
        });
        println!(
            "  its problems: {:.2?} (goal < 2 s), {} steps, {} found{}",
            begun.elapsed(),
            found.steps,
            found.problems.len(),
            if found.incomplete { ", some left out" } else { "" }
        );
        // Sessions from addresses of which each has other rules, where rules have a range of their own.
        let [one, other] = [old, new].map(|version| version.snapshot.firewall());
        let (begun, budget) = (Instant::now(), Budget::default());
        let comparison = Comparison::new(Some(one), Some(other), None, now);
        let judged = (0..20_000)
            .map(|number| Address::V4((1 << 24) + 512 * number))
            .map(|address| comparison.first(Event::Lost, address, ConnectionType::Shell, &budget).is_ok());
        let within = judged.filter(|judged| *judged).count();
        println!("    20,000 sessions judged {:.2?}, {within} of them within the budget (goal < 4 s)", begun.elapsed());
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap()
}

fn main() {
    moments();
    let (organization, cluster) = policy();
    let snapshot = Snapshot::compile(&organization, &mut MembersCache::default());
    let cluster_snapshot = ClusterSnapshot::compile(&cluster);
    let examined = Examined {
        organization: &organization,
        snapshot: &snapshot,
        cluster: &cluster,
        cluster_snapshot: &cluster_snapshot,
        now: Timestamp::from_millis(1_000),
        matches: &|_| None,
        unused_since: Timestamp::from_millis(0),
        nat64_prefixes: &[],
    };
    let (mut times, mut found) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let begun = Instant::now();
        found = problems::of_organization(&examined).problems;
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
    let question = Attempt {
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
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(previews(organization));
}

/// Fills a server with the policy and the decisions of a day, and asks it for previews as a portal would.
async fn previews(organization: Organization) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(directory.path());
    config.record.audit_shell = Durability::Async;
    config.record.session_idle = Duration::from_secs(2);
    config.record.session_max_age = Duration::from_secs(2);
    config.record.active_sessions_max = 100_000_000;
    let engine = Arc::new(portcullis::server::open(&config).unwrap());
    let document = Box::new(Document::of(&organization));
    let mutation = Mutation::ReplacePolicy { document, etag: None, goes_back: false, force: true };
    let target = ChangeTarget::Organization { id: organization.id.clone(), mutation };
    engine.change(ChangeRequest::new(target)).await.unwrap();
    record(&engine).await;
    engine.close();
    drop(engine);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(portcullis::server::run(config, listener, async {
        let _ = stopped.await;
    }));
    let mut client = AnalysisServiceClient::connect(format!("http://{address}")).await.unwrap();
    for (what, range) in [("a /16 denied", "7.1.0.0/16"), ("everybody denied", "any")] {
        let rule = v1::Rule {
            action: v1::Action::Deny.into(),
            source: Some(v1::rule::Source::Range(range.to_owned())),
            ..v1::Rule::default()
        };
        let request = v1::CreateRuleRequest {
            parent: "organizations/default".to_owned(),
            rule: Some(rule),
            position: Some(1),
            ..v1::CreateRuleRequest::default()
        };
        let request = v1::PreviewChangeRequest {
            parent: "organizations/default".to_owned(),
            mutations: vec![v1::Mutation { request: Some(v1::mutation::Request::CreateRule(request)) }],
            replay_within: None,
        };
        let (mut times, mut answer) = (Vec::new(), None);
        while times.len() < 5 {
            let begun = Instant::now();
            match client.preview_change(request.clone()).await {
                Ok(preview) => {
                    times.push(begun.elapsed());
                    answer = Some(preview.into_inner());
                }
                // It is starting.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        let answer = answer.unwrap();
        let replay = answer.replay.unwrap();
        println!(
            "preview of {what}, {RULES} rules, {NODES} nodes, {} recorded decisions: first {:.2?}, median {:.2?} (goal < 2 \
             s); {} differences, {} decisions of {} users would be others{}",
            replay.decision_count,
            times.first().copied().unwrap(),
            median(times),
            answer.differences.len(),
            replay.newly_denied_count + replay.newly_permitted_count,
            replay.user_count,
            if answer.truncated { "; more than an answer holds" } else { "" }
        );
    }
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

/// Records a day of decisions.
async fn record(engine: &Arc<Engine>) {
    let tasks = (0..TASKS).map(|task| {
        let engine = Arc::clone(engine);
        tokio::spawn(async move {
            for number in (task..RECORDS).step_by(TASKS as usize) {
                // Spread over users and endpoints, the same ones again and again.
                let user = number.wrapping_mul(2_654_435_761) % 4_000;
                let (project, workspace) = (user % 100, 1 + number % 99);
                let endpoint = format!("organizations/default/projects/p{project}/workspaces/w{workspace}");
                let email = format!("firstname.lastname-{user}@example.com");
                let question = question::Question {
                    address: Address::V4(((1 + project) << 24) + ((number % 3) << 16) + user),
                    connection_type: ConnectionType::Preview,
                    target: NodePath::parse(&endpoint).unwrap(),
                    user_email: &email,
                    session_lease: None,
                    request_id: "",
                    min_revision: 0,
                    min_cluster_revision: 0,
                };
                engine.check(&question).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}
