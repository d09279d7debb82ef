//! Addresses that the same rules contain, for the rare firewalls in which so many rules expire one after the other that
//! the compiled chains do not hold them all.
//!
//! A sweep over the ends of all ranges knows which rules contain each interval. Sets of rules are trees in which equal
//! parts are one node, so the next set shares almost all of the one before, equal sets are one number, and the rules that
//! win in turn are found without visiting those that never do.
//!
//! Invariant: two addresses are in one class exactly where the same rules that are not expired contain both.
//! Not here: the chains that decisions use (`overlay`), and what the rules do (`firewall`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::address::Range;
use super::covered::{Covered, NEVER};
use super::cow_map::CowMap;
use super::group::Group;
use super::intervals::{IntervalMap, IntervalSet};
use super::name::Id;
use super::rule::{ConnectionType, Rule, Source};
use super::time::Timestamp;
use super::timeline::{Moment, Timeline};
use super::word::Word;

/// The intervals of both families, labelled by their classes.
pub(super) struct Classes {
    pub(super) v4: Family<u32>,
    pub(super) v6: Family<u128>,
    sources: Sources,
    sets: Sets,
    ranks: Ranks,
}

/// The intervals of one family. A class is a set of rules; its number is its place in the order of first addresses.
pub(super) struct Family<W> {
    /// The class of every address.
    pub(super) map: IntervalMap<W>,
    /// The set of rules of each class.
    sets: Vec<u32>,
    /// The classes that each source holds: runs of numbers, because a class is in a source wholly or not at all, so the
    /// classes that a source holds are those that first occur in it.
    runs: Vec<Vec<(u32, u32)>>,
}

/// One interval of a source.
struct Item<W> {
    first: W,
    last: W,
    source: u32,
}

/// The set without rules.
const EMPTY: u32 = 0;

/// Sets of rules. A set is the number of its root.
struct Sets {
    nodes: Vec<Node>,
    /// The node of each pair of halves.
    known: HashMap<(u32, u32), u32, Numbers>,
    /// The set that another becomes when the rules of a source enter or leave it.
    toggled: HashMap<(u32, u32), u32, Numbers>,
    /// Half of the rules that a tree has room for; a power of two.
    half: u32,
}

/// Hashes pairs of numbers that are counted here. Nobody chooses them, so no key is needed.
type Numbers = BuildHasherDefault<NumbersHasher>;

#[derive(Default)]
struct NumbersHasher(u64);

impl Hasher for NumbersHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0.rotate_left(29) ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[derive(Clone, Copy)]
struct Node {
    left: u32,
    right: u32,
    /// The rank of the latest expire time in it.
    latest: u32,
}

/// The sources of rules.
#[derive(Default)]
struct Sources {
    /// The rules that can win where each source is, in order.
    rules: Vec<Vec<u32>>,
    /// The rank of the latest expire time of each source's rules.
    latest: Vec<u32>,
}

/// Expire times that are later than now, in order.
struct Ranks {
    times: Vec<Timestamp>,
    /// The rank of each rule's: 0 where it is expired, and from 1 on otherwise.
    of_rules: Vec<u32>,
}

impl Classes {
    /// Sweeps over the rules that apply to the connection type and are not expired at `now`.
    pub(super) fn new(
        rules: &[Arc<Rule>],
        groups: &CowMap<Id, Group>,
        connection_type: ConnectionType,
        now: Timestamp,
    ) -> Self {
        let ranks = Ranks::new(rules, now);
        let (mut sources, mut v4, mut v6) = (Sources::default(), Vec::new(), Vec::new());
        let mut of_groups: HashMap<&Id, u32> = HashMap::new();
        for ((index, rule), rank) in (0_u32..).zip(rules).zip(&ranks.of_rules) {
            if *rank == 0 || rule.disabled || !rule.connection_types.applies_to(connection_type) {
                continue;
            }
            match &rule.source {
                Source::Range(range) => add_range(*range, sources.add(index, *rank), &mut v4, &mut v6),
                Source::Group(id) => {
                    if let Some(source) = of_groups.get(id) {
                        sources.add_to(*source, index, *rank);
                        continue;
                    }
                    let Some(group) = groups.get(id.as_str()) else { continue };
                    let source = sources.add(index, *rank);
                    of_groups.insert(id, source);
                    add_set(&group.set().v4, source, &mut v4);
                    add_set(&group.set().v6, source, &mut v6);
                }
            }
        }
        let mut sets = Sets::new(&ranks.of_rules);
        let (v4, v6) = (Family::new(v4, &sources, &mut sets), Family::new(v6, &sources, &mut sets));
        Self { v4, v6, sources, sets, ranks }
    }

    /// For each class, first of IPv4 and then of IPv6, the rules that win there one after the other. The list is made as
    /// far as it is read.
    pub(super) fn winners(&self) -> [Vec<impl Iterator<Item = u32> + '_>; 2] {
        [&self.v4.sets, &self.v6.sets].map(|sets| sets.iter().map(|set| self.sets.winners(*set)).collect())
    }

    /// When no rule that `denies` wins anywhere in a family. Looks at each rule once: above each class lies the latest
    /// expire time of the rules so far, so a rule wins in a class from that moment until it expires itself.
    pub(super) fn undenied(&self, denies: impl Fn(u32) -> bool) -> [Timeline; 2] {
        [(&self.v4.runs, self.v4.sets.len()), (&self.v6.runs, self.v6.sets.len())].map(|(runs, classes)| {
            let mut covered = Covered::new(classes);
            // How many periods of denial begin, less how many end, at each rank.
            let mut edges = vec![0_i64; self.ranks.times.len() + 2];
            let mut rules: Vec<(u32, usize)> = Vec::new();
            for (source, of_source) in self.sources.rules.iter().enumerate() {
                rules.extend(of_source.iter().map(|rule| (*rule, source)));
            }
            rules.sort_unstable();
            for (rule, source) in rules {
                let rank = self.ranks.of_rules.get(rule as usize).copied().unwrap_or_default();
                let end = (rank as usize).min(edges.len() - 1);
                for run in runs.get(source).map_or(&[][..], Vec::as_slice) {
                    let from = covered.raise(*run, rank);
                    if from < rank && denies(rule) {
                        if let Some(edge) = edges.get_mut(from as usize) {
                            *edge += 1;
                        }
                        if let Some(edge) = edges.get_mut(end) {
                            *edge -= 1;
                        }
                    }
                }
            }
            let mut denying = 0;
            // The last edge is that of rules that never expire, so nothing follows it.
            let steps = edges.iter().take(self.ranks.times.len() + 1).enumerate().map(|(rank, edge)| {
                denying += edge;
                let time = rank.checked_sub(1).and_then(|at| self.ranks.times.get(at));
                (time.map_or(Moment::Now, |time| Moment::At(*time)), denying == 0)
            });
            Timeline::of_steps(steps)
        })
    }
}

impl Ranks {
    fn new(rules: &[Arc<Rule>], now: Timestamp) -> Self {
        let expire_times = rules.iter().filter_map(|rule| rule.expire_time);
        let mut times: Vec<Timestamp> = expire_times.filter(|time| *time > now).collect();
        times.sort_unstable();
        times.dedup();
        let rank = |rule: &Arc<Rule>| match rule.expire_time {
            None => NEVER,
            Some(time) if time <= now => 0,
            Some(time) => u32::try_from(1 + times.partition_point(|other| *other < time)).unwrap_or(NEVER - 1),
        };
        let of_rules = rules.iter().map(rank).collect();
        Self { times, of_rules }
    }
}

fn add_range(range: Range, source: u32, v4: &mut Vec<Item<u32>>, v6: &mut Vec<Item<u128>>) {
    match range {
        Range::Any => {
            v4.push(Item { first: u32::MIN, last: u32::MAX, source });
            v6.push(Item { first: u128::MIN, last: u128::MAX, source });
        }
        Range::V4(block) => v4.push(Item { first: block.first(), last: block.last(), source }),
        Range::V6(block) => v6.push(Item { first: block.first(), last: block.last(), source }),
    }
}

fn add_set<W: Word>(set: &IntervalSet<W>, source: u32, items: &mut Vec<Item<W>>) {
    items.extend(set.intervals().iter().map(|(first, last)| Item { first: *first, last: *last, source }));
}

impl Sources {
    /// The new source of one rule.
    fn add(&mut self, rule: u32, rank: u32) -> u32 {
        self.rules.push(vec![rule]);
        self.latest.push(rank);
        u32::try_from(self.rules.len() - 1).unwrap_or(u32::MAX)
    }

    /// Adds another rule to a source.
    fn add_to(&mut self, source: u32, rule: u32, rank: u32) {
        let (rules, latest) = (self.rules.get_mut(source as usize), self.latest.get_mut(source as usize));
        // A rule of the same source that expires no later than one above it never wins.
        if let (Some(rules), Some(latest)) = (rules, latest)
            && rank > *latest
        {
            rules.push(rule);
            *latest = rank;
        }
    }

    fn rules_of(&self, source: u32) -> &[u32] {
        self.rules.get(source as usize).map_or(&[], Vec::as_slice)
    }
}

impl Sets {
    fn new(ranks: &[u32]) -> Self {
        let leaf = |rank: &u32| Node { left: EMPTY, right: EMPTY, latest: *rank };
        let empty = Node { left: EMPTY, right: EMPTY, latest: 0 };
        let half = u32::try_from(ranks.len().max(2).next_power_of_two() / 2).unwrap_or(1 << 31);
        let nodes = std::iter::once(empty).chain(ranks.iter().map(leaf)).collect();
        Self { nodes, known: HashMap::default(), toggled: HashMap::default(), half }
    }

    fn node(&self, number: u32) -> Node {
        self.nodes.get(number as usize).copied().unwrap_or(Node { left: EMPTY, right: EMPTY, latest: 0 })
    }

    /// The set after the rules of a source enter it, or leave it where they are in it.
    fn toggle(&mut self, set: u32, source: u32, rules: &[u32]) -> u32 {
        if let Some(next) = self.toggled.get(&(set, source)) {
            return *next;
        }
        let next = rules.iter().fold(set, |set, rule| self.toggle_rule(set, self.half, *rule));
        self.toggled.extend([((set, source), next), ((next, source), set)]);
        next
    }

    fn toggle_rule(&mut self, node: u32, half: u32, rule: u32) -> u32 {
        if half == 0 {
            // A leaf is in the set or not. Leaves come first among the nodes.
            return if node == EMPTY { rule + 1 } else { EMPTY };
        }
        let Node { left, right, .. } = self.node(node);
        let (left, right) = if rule & half == 0 {
            (self.toggle_rule(left, half / 2, rule), right)
        } else {
            (left, self.toggle_rule(right, half / 2, rule))
        };
        if (left, right) == (EMPTY, EMPTY) {
            return EMPTY;
        }
        if let Some(known) = self.known.get(&(left, right)) {
            return *known;
        }
        let number = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let latest = self.node(left).latest.max(self.node(right).latest);
        self.nodes.push(Node { left, right, latest });
        self.known.insert((left, right), number);
        number
    }

    /// The rules of a set that win in turn: each expires later than all before it.
    fn winners(&self, set: u32) -> impl Iterator<Item = u32> + '_ {
        let (mut latest, mut rest) = (0, vec![(set, self.half)]);
        std::iter::from_fn(move || {
            while let Some((number, half)) = rest.pop() {
                let node = self.node(number);
                if node.latest <= latest {
                    continue;
                }
                if half == 0 {
                    latest = node.latest;
                    return number.checked_sub(1);
                }
                rest.push((node.right, half / 2));
                rest.push((node.left, half / 2));
            }
            None
        })
    }
}

impl<W: Word> Family<W> {
    fn new(mut items: Vec<Item<W>>, sources: &Sources, sets: &mut Sets) -> Self {
        items.sort_by_key(|item| item.first);
        let map = sweep(&items, sources, sets);
        // The sweep labels by sets; classes count them as they come.
        let (mut numbers, mut of_classes, mut firsts) = (HashMap::new(), Vec::new(), Vec::new());
        let mut classes = IntervalMap::with_capacity(map.starts().len());
        for (start, set) in map.starts().iter().zip(map.labels()) {
            let number = *numbers.entry(*set).or_insert_with(|| {
                of_classes.push(*set);
                firsts.push(*start);
                u32::try_from(firsts.len() - 1).unwrap_or(u32::MAX)
            });
            classes.push(*start, number);
        }
        let mut runs: Vec<Vec<(u32, u32)>> = vec![Vec::new(); sources.rules.len()];
        for item in &items {
            let from = firsts.partition_point(|first| *first < item.first);
            let to = firsts.partition_point(|first| *first <= item.last);
            let run = (u32::try_from(from).unwrap_or(u32::MAX), u32::try_from(to).unwrap_or(u32::MAX));
            let Some(of_source) = runs.get_mut(item.source as usize).filter(|_| from < to) else { continue };
            match of_source.last_mut() {
                Some((_, end)) if *end == run.0 => *end = run.1,
                _ => of_source.push(run),
            }
        }
        Self { map: classes, sets: of_classes, runs }
    }
}

/// Labels every interval by the set of rules that contain it. The items ascend, and those of one source are disjoint.
fn sweep<W: Word>(items: &[Item<W>], sources: &Sources, sets: &mut Sets) -> IntervalMap<W> {
    let mut map = IntervalMap::with_capacity(2 * items.len() + 1);
    let mut set = EMPTY;
    map.push(W::MIN, set);
    let mut ends: BinaryHeap<Reverse<(W, u32)>> = BinaryHeap::new();
    let mut rest = items;
    loop {
        let next_first = rest.first().map(|item| item.first);
        let next_after_end = ends.peek().and_then(|Reverse((last, _))| last.next());
        let start = match (next_first, next_after_end) {
            (Some(first), Some(after)) => first.min(after),
            (Some(start), None) | (None, Some(start)) => start,
            (None, None) => return map,
        };
        while let Some(Reverse((last, source))) = ends.peek().copied()
            && last < start
        {
            ends.pop();
            set = sets.toggle(set, source, sources.rules_of(source));
        }
        while let [item, following @ ..] = rest
            && item.first == start
        {
            set = sets.toggle(set, item.source, sources.rules_of(item.source));
            ends.push(Reverse((item.last, item.source)));
            rest = following;
        }
        map.push(start, set);
    }
}
