//! Addresses that the same rules contain, for the rare firewalls in which so many rules expire one after the other that
//! the compiled chains do not hold them all.
//!
//! A sweep over the ends of all ranges knows which rules contain each interval. Sets of rules are trees in which equal
//! parts are one node, so the next set shares almost all of the one before, equal sets are one number, and the rules that
//! win in turn are found without visiting those that never do.
//!
//! Invariant: for every interval, `label` was given the rules that win there one after the other from `now` on, all of
//! them.
//! Not here: the chains that decisions use (`overlay`), and what the rules do (`firewall`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::address::Range;
use super::cow_map::CowMap;
use super::group::Group;
use super::intervals::IntervalMap;
use super::name::Id;
use super::rule::{ConnectionType, Rule, Source};
use super::time::Timestamp;
use super::word::Word;

/// The labels of both families.
pub(super) struct Classes {
    pub(super) v4: IntervalMap<u32>,
    pub(super) v6: IntervalMap<u128>,
}

/// One interval of a source.
struct Item<W> {
    first: W,
    last: W,
    source: u32,
}

/// The set without rules.
const EMPTY: u32 = 0;

/// Expire times by rank: 0 is before all, and this one after all.
const NEVER: u32 = u32::MAX;

/// Sets of rules. A set is the number of its root.
struct Sets {
    nodes: Vec<Node>,
    /// The node of each pair of halves.
    known: HashMap<(u32, u32), u32>,
    /// The set that another becomes when the rules of a source enter or leave it.
    toggled: HashMap<(u32, u32), u32>,
    /// Half of the rules that a tree has room for; a power of two.
    half: u32,
}

#[derive(Clone, Copy)]
struct Node {
    left: u32,
    right: u32,
    /// The rank of the latest expire time in it.
    latest: u32,
}

/// The sources of rules, each with the rules that can win where it is, in order.
#[derive(Default)]
struct Sources<'a> {
    rules: Vec<Vec<u32>>,
    groups: HashMap<&'a Id, u32>,
    /// The rank of the latest expire time of each source's rules.
    latest: Vec<u32>,
}

impl Classes {
    /// Labels every interval. `label` is called once for each distinct list of rules.
    pub(super) fn new(
        rules: &[Arc<Rule>],
        groups: &CowMap<Id, Group>,
        connection_type: ConnectionType,
        now: Timestamp,
        mut label: impl FnMut(&[u32]) -> u32,
    ) -> Self {
        let ranks = ranks(rules, now);
        let (mut sources, mut v4, mut v6) = (Sources::default(), Vec::new(), Vec::new());
        for ((index, rule), rank) in (0_u32..).zip(rules).zip(&ranks) {
            if *rank == 0 || rule.disabled || !rule.connection_types.applies_to(connection_type) {
                continue;
            }
            match &rule.source {
                Source::Range(range) => add_range(*range, sources.add(index, *rank), &mut v4, &mut v6),
                Source::Group(id) => {
                    let Some(group) = groups.get(id.as_str()) else { continue };
                    if let Some(source) = sources.add_to_group(id, index, *rank) {
                        let item = |(first, last): &(u32, u32)| Item { first: *first, last: *last, source };
                        v4.extend(group.set().v4.intervals().iter().map(item));
                        let item = |(first, last): &(u128, u128)| Item { first: *first, last: *last, source };
                        v6.extend(group.set().v6.intervals().iter().map(item));
                    }
                }
            }
        }
        let mut sets = Sets::new(&ranks);
        let mut labels = HashMap::new();
        let mut label_of = |sets: &Sets, set: u32| *labels.entry(set).or_insert_with(|| label(&sets.winners(set)));
        let v4 = sweep(v4, &sources.rules, &mut sets, &mut label_of);
        let v6 = sweep(v6, &sources.rules, &mut sets, &mut label_of);
        Self { v4, v6 }
    }
}

/// The rank of each rule's expire time among all; 0 where it is expired at `now`.
fn ranks(rules: &[Arc<Rule>], now: Timestamp) -> Vec<u32> {
    let mut times: Vec<Timestamp> =
        rules.iter().filter_map(|rule| rule.expire_time).filter(|time| *time > now).collect();
    times.sort_unstable();
    times.dedup();
    let rank = |rule: &Arc<Rule>| match rule.expire_time {
        None => NEVER,
        Some(time) if time <= now => 0,
        Some(time) => u32::try_from(1 + times.partition_point(|other| *other < time)).unwrap_or(NEVER - 1),
    };
    rules.iter().map(rank).collect()
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

impl<'a> Sources<'a> {
    /// The new source of one rule.
    fn add(&mut self, rule: u32, rank: u32) -> u32 {
        self.rules.push(vec![rule]);
        self.latest.push(rank);
        u32::try_from(self.rules.len() - 1).unwrap_or(u32::MAX)
    }

    /// Adds a rule to the source that its group is. Returns the source where it is new.
    fn add_to_group(&mut self, id: &'a Id, rule: u32, rank: u32) -> Option<u32> {
        let Some(source) = self.groups.get(id).map(|source| *source as usize) else {
            let source = self.add(rule, rank);
            self.groups.insert(id, source);
            return Some(source);
        };
        // A rule of the same group that expires no later than one above it never wins.
        if let (Some(rules), Some(latest)) = (self.rules.get_mut(source), self.latest.get_mut(source))
            && rank > *latest
        {
            rules.push(rule);
            *latest = rank;
        }
        None
    }
}

impl Sets {
    fn new(ranks: &[u32]) -> Self {
        let leaf = |rank: &u32| Node { left: EMPTY, right: EMPTY, latest: *rank };
        let empty = Node { left: EMPTY, right: EMPTY, latest: 0 };
        let half = u32::try_from(ranks.len().max(2).next_power_of_two() / 2).unwrap_or(1 << 31);
        let nodes = std::iter::once(empty).chain(ranks.iter().map(leaf)).collect();
        Self { nodes, known: HashMap::new(), toggled: HashMap::new(), half }
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
    fn winners(&self, set: u32) -> Vec<u32> {
        let (mut winners, mut latest) = (Vec::new(), 0);
        let mut rest = vec![(set, self.half)];
        while let Some((number, half)) = rest.pop() {
            let node = self.node(number);
            if node.latest <= latest {
                continue;
            }
            if half == 0 {
                latest = node.latest;
                winners.extend(number.checked_sub(1));
            } else {
                rest.push((node.right, half / 2));
                rest.push((node.left, half / 2));
            }
        }
        winners
    }
}

/// Labels every interval by the set of rules that contain it. The items of one source are disjoint.
fn sweep<W: Word>(
    mut items: Vec<Item<W>>,
    rules: &[Vec<u32>],
    sets: &mut Sets,
    label_of: &mut impl FnMut(&Sets, u32) -> u32,
) -> IntervalMap<W> {
    items.sort_by_key(|item| item.first);
    let mut map = IntervalMap::with_capacity(2 * items.len() + 1);
    let mut set = EMPTY;
    map.push(W::MIN, label_of(sets, set));
    let mut ends: BinaryHeap<Reverse<(W, u32)>> = BinaryHeap::new();
    let rules_of = |source: u32| rules.get(source as usize).map_or(&[][..], Vec::as_slice);
    let mut rest = items.as_slice();
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
            set = sets.toggle(set, source, rules_of(source));
        }
        while let [item, following @ ..] = rest
            && item.first == start
        {
            set = sets.toggle(set, item.source, rules_of(item.source));
            ends.push(Reverse((item.last, item.source)));
            rest = following;
        }
        map.push(start, label_of(sets, set));
    }
}
