//! What compiling costs, against sorting the same ranges; and what one change costs.
//!
//! Run with `PORTCULLIS_TEST_DATA=… cargo bench --bench compile`. The last lines are ratios of times taken in turns
//! within this run; `cargo bench --bench compile -- ratios` prints them alone.
//!
//! Invariant: what is compiled is in memory already, parsed and, where it is a group, sorted, as in the running
//! service; what is sorted has the order of a shuffled file.
//! Not here: reading from the store, and what a decision costs (`decide`).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that goes wrong ends, and reports to its terminal"
)]

mod data;

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use portcullis::policy::address::Block;
use portcullis::policy::change::{Delta, GroupContent};
use portcullis::policy::firewall::Firewall;
use portcullis::policy::members::{Members, MembersCache};
use portcullis::policy::name::{NodeKey, NodePath};
use portcullis::policy::node::{Access, AccessEntry, Node};
use portcullis::policy::organization::Organization;
use portcullis::policy::ranges::RangeList;
use portcullis::policy::rule::{Action, Source};
use portcullis::policy::snapshot::Snapshot;
use portcullis::policy::time::Timestamp;

use data::{Family, Random};

/// At most so many times the time that sorting takes (design.md §6).
const GOAL: f64 = 4.0;

/// One question that is measured.
struct Scenario {
    family: &'static str,
    ranges: usize,
    what: &'static str,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.what, self.family, data::short(self.ranges))
    }
}

/// A line of the final table.
struct Ratio {
    scenario: Scenario,
    sort: f64,
    compile: f64,
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.compile / self.sort;
        let (question, compile, sort) = (self.scenario.to_string(), self.compile / 1e6, self.sort / 1e6);
        write!(f, "{question:<44} {compile:>9.4} ms, slice::sort {sort:>9.4} ms, ratio {ratio:>5.2}")?;
        if [10_000, 1_000_000].contains(&self.scenario.ranges) {
            write!(f, " (goal ≤ {GOAL}: {})", if ratio <= GOAL { "pass" } else { "MISS" })?;
        }
        Ok(())
    }
}

/// Measures compiling against sorting: with criterion, then side by side.
fn compare<W: Family, T>(
    criterion: &mut Criterion,
    ratios: &mut Vec<Ratio>,
    scenario: Scenario,
    blocks: &[Block<W>],
    compile: impl Fn() -> T,
) {
    measure(criterion, &scenario, &compile);
    if !data::is_measuring() {
        return;
    }
    // Small ones are done many times in one turn, for the clock's sake. Copies are made and results dropped outside of
    // what is measured.
    let times = (20_000 / scenario.ranges).max(1);
    let rounds = if scenario.ranges > 500_000 { 7 } else { 15 };
    let mut sort = || {
        let mut copies = vec![blocks.to_vec(); times];
        let time = data::time(|| copies.iter_mut().for_each(|copy| copy.sort()));
        black_box(copies);
        time
    };
    let mut compile = || {
        let mut results = Vec::with_capacity(times);
        let time = data::time(|| results.extend((0..times).map(|_| compile())));
        black_box(&results);
        time
    };
    #[expect(clippy::cast_precision_loss, reason = "few times")]
    let medians: Vec<f64> =
        data::side_by_side(rounds, &mut [&mut sort, &mut compile]).iter().map(|time| time / times as f64).collect();
    ratios.push(Ratio { scenario, sort: medians[0], compile: medians[1] });
}

fn measure<T>(criterion: &mut Criterion, scenario: &Scenario, run: impl Fn() -> T) {
    let mut group = criterion.benchmark_group("compile");
    group.throughput(Throughput::Elements(scenario.ranges as u64));
    group.bench_function(BenchmarkId::from_parameter(scenario), |bencher| bencher.iter_with_large_drop(&run));
    group.finish();
}

/// A group in one rule; the same as the members of an allowlist; the whole way from shuffled ranges to members, sorting
/// included; and a rule for each range.
fn family<W: Family>(criterion: &mut Criterion, ranges: usize, ratios: &mut Vec<Ratio>) {
    let blocks = data::ranges::<W>(W::ANNOUNCED, ranges);
    let scenario = |what| Scenario { family: W::NAME, ranges, what };
    let mut grouped = data::organization();
    data::add_group(&mut grouped, "listed", blocks.iter().copied().map(W::range));
    data::set_rules(&mut grouped, [(Action::Deny, Source::Group(data::id("listed")))]);
    compare(criterion, ratios, scenario("firewall of one group"), &blocks, || Firewall::compile(&grouped));
    let set = Arc::clone(grouped.groups.get("listed").unwrap().set());
    compare(criterion, ratios, scenario("members"), &blocks, || Members::new(&set));
    compare(criterion, ratios, scenario("members from unsorted ranges"), &blocks, || {
        let list: RangeList = blocks.iter().copied().map(W::range).collect();
        Members::new(&list.to_set())
    });
    drop(grouped);
    let mut single = data::organization();
    data::set_rules(&mut single, data::rule_per_range(&blocks));
    compare(criterion, ratios, scenario("firewall of a rule each"), &blocks, || Firewall::compile(&single));
}

/// What one change costs: the new state and the new snapshot.
fn changes(criterion: &mut Criterion) {
    let rules = data::ranges::<u32>(u32::CLOUD, 100_000);
    let mut organization = data::organization();
    data::set_rules(&mut organization, data::rule_per_range(&rules));
    let mut rule = (*organization.rules[50_000]).clone();
    rule.action = if rule.action == Action::Deny { Action::Allow } else { Action::Deny };
    change(criterion, "one rule changed among", 100_000, &organization, Delta::SetRule { rule });

    let mut blocks = data::ranges::<u32>(u32::ANNOUNCED, 564_579);
    let added: RangeList = blocks.pop().into_iter().map(u32::range).collect();
    let mut organization = data::organization();
    data::add_group(&mut organization, "listed", blocks.iter().copied().map(u32::range));
    data::set_rules(&mut organization, [(Action::Deny, Source::Group(data::id("listed")))]);
    let content = GroupContent::Patch { added, removed: RangeList::default() };
    let delta = Delta::SetGroupContent { id: data::id("listed"), content };
    change(criterion, "one range added to a group of", blocks.len(), &organization, delta);

    let mut random = Random::seeded();
    let mut organization = data::organization();
    for at in 0..100_000 {
        organization.nodes.insert(key(at), Arc::new(node(&mut random)));
    }
    let delta = Delta::SetNode { key: key(50_000), node: node(&mut random) };
    change(criterion, "one node changed among", 100_000, &organization, delta);
}

fn key(at: usize) -> NodeKey {
    let name = format!("organizations/default/projects/project-{at}");
    NodeKey::of(&NodePath::parse(&name).unwrap()).unwrap()
}

/// A node with a short list of its own.
fn node(random: &mut Random) -> Node {
    let range = u32::range(u32::from_bits(random.wide_bits()).block_around(24));
    let entry = AccessEntry { source: Source::Range(range), description: "".into() };
    Node::new(Access::AllowList([entry].into()), Timestamp::default(), 1)
}

fn change(criterion: &mut Criterion, what: &'static str, size: usize, organization: &Organization, delta: Delta) {
    let mut lists = MembersCache::default();
    let snapshot = Snapshot::compile(organization, &mut lists);
    let deltas = [delta];
    let mut group = criterion.benchmark_group("change");
    group.bench_function(format!("{what} {}", data::short(size)), |bencher| {
        bencher.iter_with_large_drop(|| advance(organization, &snapshot, &deltas, &mut lists));
    });
    group.finish();
    if data::is_measuring() {
        let mut advance = || {
            let mut result = None;
            let time = data::time(|| result = Some(advance(organization, &snapshot, &deltas, &mut lists)));
            drop(result);
            time
        };
        let median = data::side_by_side(15, &mut [&mut advance])[0] / 1e6;
        println!("{what} {}: {median:.4} ms", data::short(size));
    }
}

fn advance(
    organization: &Organization,
    snapshot: &Snapshot,
    deltas: &[Delta],
    lists: &mut MembersCache,
) -> (Organization, Snapshot) {
    let mut next = organization.clone();
    next.apply(organization.revision + 1, Timestamp::default(), deltas);
    let snapshot = snapshot.advance(&next, deltas, lists);
    (next, snapshot)
}

fn main() {
    data::print_origin();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    let mut ratios = Vec::new();
    for ranges in [10, 1_000, 10_000, 100_000, 564_579, 1_000_000] {
        family::<u32>(&mut criterion, ranges, &mut ratios);
        family::<u128>(&mut criterion, ranges, &mut ratios);
    }
    changes(&mut criterion);
    criterion.final_summary();
    if data::is_measuring() {
        println!("\nside by side, medians of turns:");
        for ratio in &ratios {
            println!("{ratio}");
        }
    }
}
