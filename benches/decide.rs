//! What a decision costs, against the longest-prefix-match crates over the same ranges and addresses.
//!
//! Run with `PORTCULLIS_TEST_DATA=… cargo bench --bench decide`. The last lines are ratios of times taken in turns
//! within this run; `cargo bench --bench decide -- ratios` prints them alone.
//!
//! Invariant: before times are taken it is checked that everything compared finds the same ranges.
//! Not here: the way over gRPC, and what compiling costs (`compile`).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that goes wrong ends, and reports to its terminal"
)]

mod data;
mod levels;

use std::fmt;
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use ip_network::{Ipv4Network, Ipv6Network};
use ip_network_table::IpNetworkTable;
use iptrie::map::RTrieMap;
use iptrie::{Ipv4Prefix, Ipv6Prefix};
use portcullis::policy::address::{Address, Block};
use portcullis::policy::decision::{Decision, Verdict};
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{NodeKey, NodePath};
use portcullis::policy::node::Access;
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::ranges::RangeSet;
use portcullis::policy::rule::{Action, ConnectionType, Source};
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::table::Table;
use portcullis::policy::time::Timestamp;
use prefix_trie::PrefixMap;

use data::{Family, Random};
use levels::{ENDPOINT, TARGET, open_cluster};

/// Addresses that one iteration decides on: far more than branch predictors remember.
const ADDRESSES: usize = 1 << 17;
/// Turns of the side-by-side measurement.
const ROUNDS: usize = 15;

/// One question that is measured.
struct Scenario {
    family: &'static str,
    ranges: usize,
    policy: Policy,
}

/// What the ranges are used for.
#[derive(Clone, Copy)]
enum Policy {
    /// One deny rule naming one group; and a distinct label for each range.
    Announced,
    /// A rule for each of the clouds' nested ranges.
    FirstMatch,
    /// Lists at every level.
    AllLevels,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = match self.policy {
            Policy::Announced => "announced",
            Policy::FirstMatch => "first match",
            Policy::AllLevels => "all levels",
        };
        write!(f, "{policy}/{}/{}", self.family, data::short(self.ranges))
    }
}

type Sum<W> = Box<dyn Fn(&[W]) -> u64>;

/// A way to answer, for many addresses: the sum of what it found, so that nothing can be left out.
struct Contestant<W> {
    name: &'static str,
    sum: Sum<W>,
}

impl<W: Copy + 'static> Contestant<W> {
    fn new(name: &'static str, find: impl Fn(W) -> u64 + 'static) -> Self {
        Self { name, sum: Box::new(move |words| words.iter().fold(0, |sum, word| sum + find(*word))) }
    }
}

/// A line of the final table.
struct Ratio {
    question: String,
    ours: f64,
    theirs: f64,
    whose: &'static str,
    goal: Option<Goal>,
}

/// What is aimed at (design.md §6).
#[derive(Clone, Copy)]
enum Goal {
    /// So many times faster than the other.
    Faster(f64),
    /// At most so many times the other's time.
    AtMost(f64),
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { question, ours, theirs, whose, .. } = self;
        let ratio = match self.goal {
            Some(Goal::AtMost(_)) => ours / theirs,
            Some(Goal::Faster(_)) | None => theirs / ours,
        };
        write!(f, "{question:<52} {ours:>6.1} ns, {whose:<26} {theirs:>6.1} ns, ratio {ratio:>5.2}")?;
        let (relation, bound, pass) = match self.goal {
            Some(Goal::AtMost(bound)) => ('≤', bound, ratio <= bound),
            Some(Goal::Faster(bound)) => ('≥', bound, ratio >= bound),
            None => return Ok(()),
        };
        write!(f, " (goal {relation} {bound}: {})", if pass { "pass" } else { "MISS" })
    }
}

/// The address families, with the crates' types for them.
trait Competing: Family {
    /// The address as the policy knows it.
    fn address(self) -> Address;
    /// The family's part of a set.
    fn intervals(set: &RangeSet) -> &[(Self, Self)];
    /// Tables of the crates over the blocks, the value of each being its place plus one; each crate with the lookup
    /// that its documentation and its own benches recommend for addresses.
    fn crates(blocks: &[Block<Self>]) -> Vec<Contestant<Self>>;
}

macro_rules! competing {
    ($word:ty, $family:ident, $part:ident, $ip:ty, $net:path, $network:ty, $longest_match:ident, $prefix:ty) => {
        impl Competing for $word {
            fn address(self) -> Address {
                Address::$family(self)
            }

            fn intervals(set: &RangeSet) -> &[(Self, Self)] {
                set.$part.intervals()
            }

            fn crates(blocks: &[Block<Self>]) -> Vec<Contestant<Self>> {
                let values = || (1_u32..).zip(blocks);
                let mut map = PrefixMap::<$net, u32>::new();
                let mut table = IpNetworkTable::with_capacity(blocks.len(), blocks.len());
                let mut patricia = RTrieMap::<$prefix, u32>::with_root_and_capacity(0, blocks.len());
                for (value, block) in values() {
                    let (ip, length) = (<$ip>::from(block.first()), block.prefix_length());
                    map.insert(<$net>::new(ip, length).unwrap(), value);
                    table.insert(<$network>::new(ip, length).unwrap(), value);
                    patricia.insert(<$prefix>::new(ip, length).unwrap(), value);
                }
                let compressed = patricia.clone().compress();
                vec![
                    Contestant::new("prefix-trie", move |word: Self| {
                        map.get_lpm(&<$net>::from(<$ip>::from(word))).map_or(0, |(_, value)| u64::from(*value))
                    }),
                    Contestant::new("ip_network_table", move |word: Self| {
                        table.$longest_match(<$ip>::from(word)).map_or(0, |(_, value)| u64::from(*value))
                    }),
                    Contestant::new("iptrie (LC)", move |word: Self| {
                        u64::from(*compressed.lookup(&<$ip>::from(word)).1)
                    }),
                    Contestant::new("iptrie (Patricia)", move |word: Self| {
                        u64::from(*patricia.lookup(&<$ip>::from(word)).1)
                    }),
                ]
            }
        }
    };
}

competing!(u32, V4, v4, Ipv4Addr, ipnet::Ipv4Net, Ipv4Network, longest_match_ipv4, Ipv4Prefix);
competing!(u128, V6, v6, Ipv6Addr, ipnet::Ipv6Net, Ipv6Network, longest_match_ipv6, Ipv6Prefix);

/// Plain binary search over the bounds of disjoint blocks.
fn binary_search<W: Family>(blocks: &[Block<W>]) -> Contestant<W> {
    let mut sorted: Vec<(W, W, u32)> =
        (1..).zip(blocks).map(|(value, block)| (block.first(), block.last(), value)).collect();
    sorted.sort_unstable();
    let firsts: Vec<W> = sorted.iter().map(|(first, ..)| *first).collect();
    let found: Vec<(W, u32)> = sorted.iter().map(|(_, last, value)| (*last, *value)).collect();
    Contestant::new("binary search", move |word: W| {
        let after = firsts.partition_point(|first| *first <= word);
        after.checked_sub(1).map(|at| found[at]).filter(|(last, _)| word <= *last).map_or(0, |(_, value)| value.into())
    })
}

/// A random address of a block.
fn address_in<W: Family>(block: Block<W>, random: &mut Random) -> W {
    // The host bits of a random address, put behind the block's prefix octet by octet.
    let mut word = block.first();
    let bits = W::from_bits(random.wide_bits());
    for offset in (0..W::BITS).step_by(8) {
        let fixed = block.prefix_length().saturating_sub(offset);
        if fixed < 8 {
            word = word.with_octet_at(offset, bits.octet_at(offset) & (u8::MAX >> fixed));
        }
    }
    word
}

/// Half anywhere, half inside the blocks.
fn addresses<W: Family>(blocks: &[Block<W>]) -> Vec<W> {
    let mut random = Random::seeded();
    let mut words: Vec<W> = (0..ADDRESSES)
        .map(|at| {
            if at % 2 == 0 {
                W::from_bits(random.wide_bits())
            } else {
                address_in(blocks[random.below(blocks.len())], &mut random)
            }
        })
        .collect();
    random.shuffle(&mut words);
    words
}

fn compile(organization: &Organization) -> Snapshot {
    Snapshot::compile(organization, &mut MembersCache::default())
}

/// The place of the rule that decided, plus one, and whether it denied. Wrapping, because a check for overflow would be
/// one more branch on the outcome.
fn weigh(verdict: &Verdict<'_>) -> u64 {
    let place = verdict.rule.map_or(0, |(place, _)| (place as u64).wrapping_add(1));
    place << 1 | u64::from(verdict.decision() == Decision::Deny)
}

/// A full decision on a target.
fn decide<W: Competing>(
    name: &'static str,
    snapshot: Snapshot,
    cluster: &Cluster,
    target: &'static str,
) -> Contestant<W> {
    let (cluster, now) = (ClusterSnapshot::compile(cluster), Timestamp::from_millis(1_000));
    let target = NodePath::parse(target).unwrap();
    Contestant::new(name, move |word: W| {
        weigh(&snapshot.decide(&cluster, word.address(), ConnectionType::Shell, &target, now))
    })
}

/// Lets criterion measure each contestant, then measures all of them side by side.
fn measure<W: Copy>(
    criterion: &mut Criterion,
    scenario: &Scenario,
    words: &[W],
    contestants: &[Contestant<W>],
) -> Vec<f64> {
    let mut group = criterion.benchmark_group("decide");
    group.throughput(Throughput::Elements(words.len() as u64));
    for contestant in contestants {
        group.bench_function(BenchmarkId::new(contestant.name, scenario), |bencher| {
            bencher.iter(|| (contestant.sum)(black_box(words)));
        });
    }
    group.finish();
    if !data::is_measuring() {
        return vec![1.0; contestants.len()];
    }
    let run = |contestant: &Contestant<W>| _ = black_box((contestant.sum)(black_box(words)));
    let mut runs: Vec<_> = contestants
        .iter()
        .map(|contestant| {
            move || {
                // Each takes its own memory back into the caches first.
                run(contestant);
                data::time(|| run(contestant))
            }
        })
        .collect();
    let mut runs: Vec<_> = runs.iter_mut().map(|run| run as &mut dyn FnMut() -> Duration).collect();
    #[expect(clippy::cast_precision_loss, reason = "few addresses")]
    let times: Vec<f64> =
        data::side_by_side(ROUNDS, &mut runs).into_iter().map(|time| time / words.len() as f64).collect();
    let named = contestants.iter().zip(&times).map(|(contestant, time)| format!("{} {time:.1}", contestant.name));
    println!("{scenario}, ns each: {}", named.collect::<Vec<_>>().join(", "));
    times
}

/// The fastest of the crates' tables.
fn best<W>(contestants: &[Contestant<W>], times: &[f64]) -> (f64, &'static str) {
    let crates = contestants
        .iter()
        .zip(times)
        .filter(|(contestant, _)| contestant.name.contains("trie") || contestant.name.contains("table"));
    crates.map(|(contestant, time)| (*time, contestant.name)).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

/// One deny rule naming a group of all ranges, and a distinct label for each of them, against the crates.
fn announced<W: Competing>(criterion: &mut Criterion, ranges: usize, ratios: &mut Vec<Ratio>) {
    let blocks = data::ranges::<W>(W::ANNOUNCED, ranges);
    let words = addresses(&blocks);
    let mut organization = data::organization();
    data::add_group(&mut organization, "listed", blocks.iter().copied().map(W::range));
    data::set_rules(&mut organization, [(Action::Deny, Source::Group(data::id("listed")))]);
    let (labels, bytes) = label_each(&blocks);
    let mut contestants = vec![decide("decide", compile(&organization), &open_cluster(), TARGET), labels];
    contestants.push(binary_search(&blocks));
    contestants.extend(W::crates(&blocks));
    check(&contestants, &words);
    let scenario = Scenario { family: W::NAME, ranges, policy: Policy::Announced };
    let times = measure(criterion, &scenario, &words, &contestants);
    let set = organization.groups.get("listed").unwrap().set();
    let intervals = W::intervals(set).iter().map(|(first, last)| (*first, *last, 1));
    let set_bytes = Table::of_intervals(intervals).bytes();
    println!("{scenario}: the table of the set takes {set_bytes} bytes, that of a label for each range {bytes}");
    let (theirs, whose) = best(&contestants, &times);
    let goal = (ranges == FULL && W::NAME == u32::NAME).then_some(Goal::Faster(5.0));
    ratios.push(Ratio { question: format!("{scenario}: decide"), ours: times[0], theirs, whose, goal });
    let question = format!("{scenario}: a label each");
    ratios.push(Ratio { question, ours: times[1], theirs, whose, goal: None });
}

/// The table alone, with another label for each range, so that none can be merged: what the crates' tables hold.
fn label_each<W: Family>(blocks: &[Block<W>]) -> (Contestant<W>, usize) {
    let mut labels: Vec<(W, W, u32)> =
        (1..).zip(blocks).map(|(label, block)| (block.first(), block.last(), label)).collect();
    labels.sort_unstable();
    let table = Table::of_intervals(labels);
    let bytes = table.bytes();
    (Contestant::new("a label each", move |word: W| table.label(word).into()), bytes)
}

/// All find the same: the first one that something denies, the others which range.
fn check<W: Copy + fmt::Debug>(contestants: &[Contestant<W>], words: &[W]) {
    for word in words.iter().take(4_096) {
        let found: Vec<u64> = contestants.iter().map(|contestant| (contestant.sum)(&[*word])).collect();
        let decided = if found[1] == 0 { 0 } else { 0b11 };
        assert_eq!(found[0], decided, "at {word:?}");
        assert!(found[2..].iter().all(|other| *other == found[1]), "at {word:?}: {found:?}");
    }
}

/// A rule for each range, many of them inside others, against the crates, whose question is easier.
fn first_match<W: Competing>(criterion: &mut Criterion, ranges: usize, ratios: &mut Vec<Ratio>) {
    let blocks = data::ranges::<W>(W::CLOUD, ranges);
    let words = addresses(&blocks);
    let mut organization = data::organization();
    data::set_rules(&mut organization, data::rule_per_range(&blocks));
    let mut contestants = vec![decide("decide, a rule each", compile(&organization), &open_cluster(), TARGET)];
    contestants.extend(W::crates(&blocks));
    let scenario = Scenario { family: W::NAME, ranges, policy: Policy::FirstMatch };
    let times = measure(criterion, &scenario, &words, &contestants);
    let (theirs, whose) = best(&contestants, &times);
    let question = format!("{scenario}: {}", contestants[0].name);
    ratios.push(Ratio { question, ours: times[0], theirs, whose, goal: None });
}

/// All levels have large lists, against ten rules and nothing else.
fn all_levels(criterion: &mut Criterion, ratios: &mut Vec<Ratio>) {
    let blocks = data::ranges::<u32>(u32::ANNOUNCED, FULL);
    let words = addresses(&blocks);
    let (cluster, mut organization) = levels::all_levels(&blocks);
    for at in 0..10_000 {
        let name = format!("{TARGET}/projects/other-{at}");
        let key = NodeKey::of(&NodePath::parse(&name).unwrap()).unwrap();
        organization.nodes.insert(key, levels::node(Access::AllowAll));
    }
    let mut ten_rules = data::organization();
    data::set_rules(&mut ten_rules, data::rule_per_range(&blocks[..10]));
    let contestants = [
        decide("all levels", compile(&organization), &cluster, ENDPOINT),
        decide("ten rules", compile(&ten_rules), &open_cluster(), TARGET),
        decide("ten rules, an endpoint", compile(&ten_rules), &open_cluster(), ENDPOINT),
    ];
    let scenario = Scenario { family: u32::NAME, ranges: FULL, policy: Policy::AllLevels };
    let times = measure(criterion, &scenario, &words, &contestants);
    for at in [1, 2] {
        let goal = Some(Goal::AtMost(5.0));
        let whose = contestants[at].name;
        ratios.push(Ratio { question: scenario.to_string(), ours: times[0], theirs: times[at], whose, goal });
    }
}

/// All announced IPv4 ranges.
const FULL: usize = 564_579;

fn main() {
    data::print_origin();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    let mut ratios = Vec::new();
    for ranges in [10, 1_000, 100_000, FULL] {
        announced::<u32>(&mut criterion, ranges, &mut ratios);
        announced::<u128>(&mut criterion, ranges, &mut ratios);
    }
    for ranges in [10, 1_000, 100_000] {
        first_match::<u32>(&mut criterion, ranges, &mut ratios);
        first_match::<u128>(&mut criterion, ranges, &mut ratios);
    }
    all_levels(&mut criterion, &mut ratios);
    criterion.final_summary();
    if data::is_measuring() {
        println!(
            "\nside by side, medians of {ROUNDS} turns, {ADDRESSES} addresses; the other is the best crate, or as named:"
        );
        for ratio in &ratios {
            println!("{ratio}");
        }
    }
}
