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
use std::sync::Arc;

use super::address::{Address, Range};
use super::covered::{Covered, NEVER};
use super::cow_map::CowMap;
use super::group::Group;
use super::intervals::{IntervalMap, IntervalSet};
use super::name::Id;
use super::rule::{Action, ConnectionType, Rule, Source};
use super::rule_sets::{EMPTY, Numbers, RuleSets};
use super::time::Timestamp;
use super::timeline::{Moment, Timeline};
use super::word::Word;

/// The steps that finding classes, or when all of them are allowed, may take. Policies that need so many have tens of
/// thousands of rules on groups of as many ranges that overlap in nearly all ways there are.
const STEPS_MAX: u64 = 16_000_000;

/// The intervals of both families, labelled by their classes.
pub(super) struct Classes {
    pub(super) v4: Family<u32>,
    pub(super) v6: Family<u128>,
    sources: Sources,
    sets: RuleSets,
    ranks: Ranks,
}

/// The intervals of one family. A class is a set of rules; its number is its place in the order of first addresses.
pub(super) struct Family<W> {
    /// The class of every address.
    pub(super) map: IntervalMap<W>,
    /// The set of rules of each class.
    pub(super) sets: Vec<u32>,
    /// The classes that each source holds: runs of numbers, because a class is in a source wholly or not at all, so the
    /// classes that a source holds are those that first occur in it.
    runs: Vec<Vec<(u32, u32)>>,
}

/// The addresses that classes are asked about: all, or some in order.
struct Asked<'a> {
    v4: Option<&'a [u32]>,
    v6: Option<&'a [u128]>,
}

/// One interval of a source.
struct Item<W> {
    first: W,
    last: W,
    source: u32,
}

/// The sources of rules. Rules with the same addresses are of one source.
#[derive(Default)]
struct Sources {
    /// The rules that can win where each source is, in order.
    rules: Vec<Vec<u32>>,
    /// The rank of the latest expire time of each source's rules.
    latest: Vec<u32>,
}

/// The first and the last of some addresses of a family; none where it has none of them.
type Bounds<W> = Option<(W, W)>;

/// The set that another becomes when the rules of a source enter or leave it.
struct Sweep<'a> {
    sets: &'a mut RuleSets,
    trees: &'a [u32],
    toggled: HashMap<(u32, u32), u32, Numbers>,
}

/// Expire times that are later than now, in order.
struct Ranks {
    times: Vec<Timestamp>,
    /// The rank of each rule's: 0 where it is expired, and from 1 on otherwise.
    of_rules: Vec<u32>,
}

impl Classes {
    /// Sweeps over the rules that apply to the connection type and are not expired at `now`. None where that takes too many
    /// steps. With `points`, only the classes of these addresses are found, and other addresses may have any.
    pub(super) fn new(
        rules: &[Arc<Rule>],
        groups: &CowMap<Id, Group>,
        connection_type: ConnectionType,
        now: Timestamp,
        points: Option<&[Address]>,
    ) -> Option<Self> {
        let ranks = Ranks::new(rules, now);
        let (of_v4, of_v6) = words(points.unwrap_or_default());
        let asked = Asked { v4: points.map(|_| &*of_v4), v6: points.map(|_| &*of_v6) };
        let (mut sources, mut v4, mut v6) = (Sources::default(), Vec::new(), Vec::new());
        let (mut of_groups, mut of_ranges) = (HashMap::new(), HashMap::new());
        for ((index, rule), rank) in (0_u32..).zip(rules).zip(&ranks.of_rules) {
            if *rank == 0 || rule.disabled || !rule.connection_types.applies_to(connection_type) {
                continue;
            }
            let (known, range) = match &rule.source {
                Source::Range(range) => {
                    let (of_v4, of_v6) = bounds(*range);
                    let range = (rounded(of_v4, asked.v4), rounded(of_v6, asked.v6));
                    if range == (None, None) {
                        continue;
                    }
                    (of_ranges.entry(range).or_insert(u32::MAX), Some(range))
                }
                Source::Group(id) => (of_groups.entry(id).or_insert(u32::MAX), None),
            };
            if *known != u32::MAX {
                sources.add_to(*known, index, *rank);
                continue;
            }
            *known = sources.add(index, *rank);
            match (&rule.source, range) {
                (_, Some((of_v4, of_v6))) => {
                    v4.extend(of_v4.map(|(first, last)| Item { first, last, source: *known }));
                    v6.extend(of_v6.map(|(first, last)| Item { first, last, source: *known }));
                }
                (Source::Group(id), _) => {
                    let Some(group) = groups.get(id.as_str()) else { continue };
                    add_set(&group.set().v4, asked.v4, *known, &mut v4);
                    add_set(&group.set().v6, asked.v6, *known, &mut v6);
                }
                (Source::Range(_), None) => {}
            }
        }
        let allows = rules.iter().map(|rule| rule.action == Action::Allow);
        let mut sets = RuleSets::new(ranks.of_rules.iter().copied().zip(allows).collect::<Vec<_>>().into_iter());
        let trees: Vec<u32> = sources.rules.iter().map(|rules| sets.of_rules(rules)).collect();
        let mut sweep = Sweep { sets: &mut sets, trees: &trees, toggled: HashMap::default() };
        let (v4, v6) = (Family::new(v4, &mut sweep)?, Family::new(v6, &mut sweep)?);
        Some(Self { v4, v6, sources, sets, ranks })
    }

    /// What the rules of a set decide from now on, step by step: whether they allow.
    pub(super) fn steps(&self, set: u32) -> impl Iterator<Item = (Moment, bool)> + '_ {
        self.sets.steps_of(set).map(|(rank, allows)| (self.ranks.moment(rank), allows))
    }

    /// The set of rules that contain an address.
    pub(super) fn set_of(&self, address: Address) -> u32 {
        match address {
            Address::V4(word) => self.v4.set_of(word),
            Address::V6(word) => self.v6.set_of(word),
        }
    }

    /// When no rule that `denies` wins anywhere in a family. Looks at each rule once: above each class lies the latest
    /// expire time of the rules so far, so a rule wins in a class from that moment until it expires itself. None where that
    /// takes too many steps.
    pub(super) fn undenied(&self, denies: impl Fn(u32) -> bool) -> Option<[Timeline; 2]> {
        let families = [(&self.v4.runs, self.v4.sets.len()), (&self.v6.runs, self.v6.sets.len())];
        let steps_of = |(of_source, runs): (&Vec<u32>, &Vec<(u32, u32)>)| of_source.len() as u64 * runs.len() as u64;
        let steps = |runs: &Vec<Vec<(u32, u32)>>| self.sources.rules.iter().zip(runs).map(steps_of).sum::<u64>();
        if families.iter().any(|(runs, _)| steps(runs) > STEPS_MAX) {
            return None;
        }
        Some(families.map(|(runs, classes)| {
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
            let steps = (0_u32..).zip(edges.iter().take(self.ranks.times.len() + 1)).map(|(rank, edge)| {
                denying += edge;
                (self.ranks.moment(rank), denying == 0)
            });
            Timeline::of_steps(steps)
        }))
    }
}

impl Ranks {
    fn new(rules: &[Arc<Rule>], now: Timestamp) -> Self {
        let expire_times = rules.iter().filter_map(|rule| rule.end());
        let mut times: Vec<Timestamp> = expire_times.filter(|time| *time > now).collect();
        times.sort_unstable();
        times.dedup();
        let rank = |rule: &Arc<Rule>| match rule.end() {
            None => NEVER,
            Some(time) if time <= now => 0,
            Some(time) => u32::try_from(1 + times.partition_point(|other| *other < time)).unwrap_or(NEVER - 1),
        };
        let of_rules = rules.iter().map(rank).collect();
        Self { times, of_rules }
    }

    /// When the rules of a rank expire; now for rank 0.
    fn moment(&self, rank: u32) -> Moment {
        let time = rank.checked_sub(1).and_then(|at| self.times.get(at as usize));
        time.map_or(Moment::Now, |time| Moment::At(*time))
    }
}

/// The words of addresses, in order.
fn words(points: &[Address]) -> (Vec<u32>, Vec<u128>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for point in points {
        match point {
            Address::V4(word) => v4.push(*word),
            Address::V6(word) => v6.push(*word),
        }
    }
    v4.sort_unstable();
    v6.sort_unstable();
    (v4, v6)
}

/// The first and the last address of each family.
fn bounds(range: Range) -> (Bounds<u32>, Bounds<u128>) {
    match range {
        Range::Any => (Some((u32::MIN, u32::MAX)), Some((u128::MIN, u128::MAX))),
        Range::V4(block) => (Some((block.first(), block.last())), None),
        Range::V6(block) => (None, Some((block.first(), block.last()))),
    }
}

/// An interval from one to another of the addresses that are asked about; none where it has none of them.
fn rounded<W: Word>(bounds: Bounds<W>, asked: Option<&[W]>) -> Bounds<W> {
    let ((first, last), Some(asked)) = (bounds?, asked) else { return bounds };
    let from = asked.get(asked.partition_point(|word| *word < first))?;
    let to = asked.get(asked.partition_point(|word| *word <= last).checked_sub(1)?)?;
    (from <= to).then_some((*from, *to))
}

fn add_set<W: Word>(set: &IntervalSet<W>, asked: Option<&[W]>, source: u32, items: &mut Vec<Item<W>>) {
    match asked {
        Some(asked) if asked.len() < set.intervals().len() => {
            let inside = asked.iter().filter(|word| set.contains(**word));
            items.extend(inside.map(|word| Item { first: *word, last: *word, source }));
        }
        _ => {
            let rounded = set.intervals().iter().filter_map(|interval| rounded(Some(*interval), asked));
            items.extend(rounded.map(|(first, last)| Item { first, last, source }));
        }
    }
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
}

impl Sweep<'_> {
    fn toggle(&mut self, set: u32, source: u32) -> u32 {
        if let Some(next) = self.toggled.get(&(set, source)) {
            return *next;
        }
        let tree = self.trees.get(source as usize).copied().unwrap_or(EMPTY);
        let next = self.sets.apart(set, tree);
        self.toggled.extend([((set, source), next), ((next, source), set)]);
        next
    }
}

impl<W: Word> Family<W> {
    fn new(mut items: Vec<Item<W>>, sweep: &mut Sweep<'_>) -> Option<Self> {
        items.sort_by_key(|item| item.first);
        let map = sweep.over(&items)?;
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
        let mut runs: Vec<Vec<(u32, u32)>> = vec![Vec::new(); sweep.trees.len()];
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
        Some(Self { map: classes, sets: of_classes, runs })
    }

    fn set_of(&self, word: W) -> u32 {
        let interval = self.map.starts().partition_point(|start| *start <= word).checked_sub(1);
        let class = interval.and_then(|interval| self.map.labels().get(interval));
        class.and_then(|class| self.sets.get(*class as usize)).copied().unwrap_or(EMPTY)
    }
}

impl Sweep<'_> {
    /// Labels every interval by the set of rules that contain it. The items ascend, and those of one source are disjoint.
    fn over<W: Word>(&mut self, items: &[Item<W>]) -> Option<IntervalMap<W>> {
        let mut map = IntervalMap::with_capacity(2 * items.len() + 1);
        let mut set = EMPTY;
        map.push(W::MIN, set);
        let mut ends: BinaryHeap<Reverse<(W, u32)>> = BinaryHeap::new();
        let mut rest = items;
        while self.sets.steps <= STEPS_MAX {
            let next_first = rest.first().map(|item| item.first);
            let next_after_end = ends.peek().and_then(|Reverse((last, _))| last.next());
            let start = match (next_first, next_after_end) {
                (Some(first), Some(after)) => first.min(after),
                (Some(start), None) | (None, Some(start)) => start,
                (None, None) => return Some(map),
            };
            while let Some(Reverse((last, source))) = ends.peek().copied()
                && last < start
            {
                ends.pop();
                set = self.toggle(set, source);
            }
            while let [item, following @ ..] = rest
                && item.first == start
            {
                set = self.toggle(set, item.source);
                ends.push(Reverse((item.last, item.source)));
                rest = following;
            }
            map.push(start, set);
        }
        None
    }
}
