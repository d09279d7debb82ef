//! The problems of a firewall.
//!
//! A sweep over the ranges of all rules yields segments: intervals of addresses that the same rules contain. In a
//! segment, at any moment, the first rule that is not expired wins. So a rule wins from the moment when all earlier
//! rules are expired until it expires itself.
//!
//! Invariant: what is said of a rule holds at every moment from the given one on. Rules are identified by their 0-based
//! index.
//! Not here: allowlists (`nodes`).

use std::collections::{BTreeSet, HashMap};

use super::examined::{Examined, LevelSets};
use super::problem::{Code, Problem, RELATED_MAX, Resource};
use crate::intervals::IntervalSet;
use crate::name::Id;
use crate::node::Access;
use crate::organization::Organization;
use crate::ranges::RangeSet;
use crate::rule::{Action, ConnectionType, Rule, Source};
use crate::time::Timestamp;
use crate::word::Word;

/// When a rule stops matching. `Never` is later than every moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum End {
    At(Timestamp),
    Never,
}

impl End {
    fn of(rule: &Rule) -> Self {
        rule.expire_time.map_or(Self::Never, Self::At)
    }
}

/// The segments of one family for one connection type, and the rules that win in each of them, one after the other.
struct Segments<W> {
    /// For each segment: its first and its last address, and the index in `winners` at which its winners begin.
    bounds: Vec<(W, W, usize)>,
    winners: Vec<u32>,
    /// For each rule: the addresses at which it wins at some moment.
    won: Vec<IntervalSet<W>>,
}

/// The segments of one connection type.
struct TypeSegments {
    connection_type: ConnectionType,
    v4: Segments<u32>,
    v6: Segments<u128>,
    /// For each rule: whether removing it would alter a decision.
    alters: Vec<bool>,
}

/// The problems of the rules, of the groups, and of the firewall as a whole.
pub(super) fn problems(examined: &Examined<'_>, levels: &LevelSets) -> Vec<Problem> {
    let organization = examined.organization;
    let found = ConnectionType::ALL.map(|connection_type| TypeSegments::new(examined, levels, connection_type));
    let mut coverers = HashMap::new();
    let mut problems = Vec::new();
    for (index, rule) in organization.rules.iter().enumerate() {
        problems.extend(of_rule(examined, &found, &mut coverers, index, rule));
    }
    problems.extend(catch_alls(examined, levels, &found));
    problems.extend(locks(levels));
    problems.extend(groups(organization));
    problems
}

fn of_rule(
    examined: &Examined<'_>,
    found: &[TypeSegments],
    coverers: &mut HashMap<(Source, ConnectionType, End), Vec<u32>>,
    index: usize,
    rule: &Rule,
) -> Vec<Problem> {
    let problem = |code| Problem::new(code, Resource::Rule(rule.id.clone()));
    if rule.disabled {
        return Vec::new();
    }
    if End::of(rule) <= End::At(examined.now) {
        return vec![problem(Code::ExpiredRule)];
    }
    let source = examined.organization.source_set(&rule.source);
    if source.is_empty() {
        let mut problem = problem(Code::EmptyGroup);
        if let Source::Group(id) = &rule.source {
            problem.related.push(Resource::Group(id.clone()));
        }
        return vec![problem];
    }
    let applicable = || found.iter().filter(|found| rule.connection_types.applies_to(found.connection_type));
    let won = applicable().fold(RangeSet::default(), |won, found| won.union(&found.won(index)));
    if won.is_empty() {
        let mut problem = problem(Code::ShadowedRule);
        let mut covering = BTreeSet::new();
        for found in applicable() {
            let key = (rule.source.clone(), found.connection_type, End::of(rule));
            let known = coverers.entry(key).or_insert_with(|| found.coverers(&source, End::of(rule), examined));
            covering.extend(known.iter().copied());
        }
        let rules = covering.into_iter().filter_map(|index| examined.organization.rules.get(index as usize));
        problem.related = rules.take(RELATED_MAX).map(|rule| Resource::Rule(rule.id.clone())).collect();
        return vec![problem];
    }
    let mut problems = Vec::new();
    if !applicable().any(|found| found.alters.get(index).copied().unwrap_or_default()) {
        problems.push(problem(Code::RedundantRule));
    }
    let matches = (examined.matches)(index);
    let last = matches.map(|matches| matches.last.unwrap_or(matches.start).max(matches.start));
    if let Some(since) = last.filter(|last| *last < examined.unused_since) {
        problems.push(Problem { since: Some(since), ..problem(Code::UnusedRule) });
    }
    let covered = source.difference(&won);
    if !covered.is_empty() {
        problems.push(problem(Code::PartlyShadowedRule).with_ranges(&covered));
    }
    problems
}

/// Rules that deny every address of one family while no rule matches some addresses of the other.
fn catch_alls(examined: &Examined<'_>, levels: &LevelSets, found: &[TypeSegments]) -> Vec<Problem> {
    let organization = examined.organization;
    let full = RangeSet::full();
    let unmatched: Vec<RangeSet> = found.iter().map(|found| levels.permitted.difference(&found.matched())).collect();
    let mut problems = Vec::new();
    for rule in organization.rules.iter().filter(|rule| rule.action == Action::Deny) {
        if rule.disabled || End::of(rule) <= End::At(examined.now) {
            continue;
        }
        let set = organization.source_set(&rule.source);
        let (all_v4, all_v6) = (full.v4.is_subset(&set.v4), full.v6.is_subset(&set.v6));
        if all_v4 == all_v6 {
            continue;
        }
        let (mut open, mut types) = (RangeSet::default(), Vec::new());
        for (found, unmatched) in found.iter().zip(&unmatched) {
            if !rule.connection_types.applies_to(found.connection_type) {
                continue;
            }
            let mut left = unmatched.clone();
            if all_v4 {
                left.v4 = IntervalSet::default();
            } else {
                left.v6 = IntervalSet::default();
            }
            if !left.is_empty() {
                types.push(found.connection_type);
                open = open.union(&left);
            }
        }
        if !open.is_empty() {
            let problem = Problem::new(Code::Ipv4OnlyCatchAll, Resource::Rule(rule.id.clone())).with_ranges(&open);
            problems.push(Problem { connection_types: types, ..problem });
        }
    }
    problems
}

/// The connection types for which cluster, firewall and organization together permit nobody.
fn locks(levels: &LevelSets) -> Option<Problem> {
    let locked = |at: usize| levels.allowed.get(at).is_some_and(|allowed| !allowed.meets(&levels.permitted));
    let types: Vec<ConnectionType> =
        ConnectionType::ALL.into_iter().enumerate().filter(|(at, _)| locked(*at)).map(|(_, of)| of).collect();
    let problem = Problem::new(Code::LocksEveryoneOut, Resource::Organization);
    (!types.is_empty()).then_some(Problem { connection_types: types, ..problem })
}

/// The groups that no rule and no allowlist names.
fn groups(organization: &Organization) -> Vec<Problem> {
    let of_rules = organization.rules.iter().map(|rule| &rule.source);
    let accesses = organization.nodes.values().map(|node| &node.access).chain([&organization.node.access]);
    let of_entries = accesses.flat_map(Access::entries).map(|entry| &entry.source);
    let named: BTreeSet<&Id> = of_rules
        .chain(of_entries)
        .filter_map(|source| match source {
            Source::Group(id) => Some(id),
            Source::Range(_) => None,
        })
        .collect();
    let unused = organization.groups.iter().filter(|(id, _)| !named.contains(id));
    unused.map(|(id, _)| Problem::new(Code::UnusedGroup, Resource::Group(id.clone()))).collect()
}

impl TypeSegments {
    fn new(examined: &Examined<'_>, levels: &LevelSets, connection_type: ConnectionType) -> Self {
        let sources = Sources::new(examined, connection_type);
        let mut alters = vec![false; examined.organization.rules.len()];
        let v4 = Segments::new(examined, &sources, &sources.v4, &levels.permitted.v4, &mut alters);
        let v6 = Segments::new(examined, &sources, &sources.v6, &levels.permitted.v6, &mut alters);
        Self { connection_type, v4, v6, alters }
    }

    /// The addresses that some rule contains.
    fn matched(&self) -> RangeSet {
        RangeSet { v4: self.v4.matched(), v6: self.v6.matched() }
    }

    /// The addresses at which a rule wins at some moment.
    fn won(&self, index: usize) -> RangeSet {
        RangeSet {
            v4: self.v4.won.get(index).cloned().unwrap_or_default(),
            v6: self.v6.won.get(index).cloned().unwrap_or_default(),
        }
    }

    /// The rules that together keep a rule with this source and end from winning.
    fn coverers(&self, source: &RangeSet, end: End, examined: &Examined<'_>) -> Vec<u32> {
        let mut rules = BTreeSet::new();
        self.v4.add_coverers(&source.v4, end, examined, &mut rules);
        self.v6.add_coverers(&source.v6, end, examined, &mut rules);
        rules.into_iter().collect()
    }
}

/// The distinct sources of the rules that apply to a connection type.
struct Sources {
    /// For each source: the rules that have it.
    rules: Vec<Vec<u32>>,
    /// The intervals of all sources: first address, last address, source.
    v4: Vec<(u32, u32, usize)>,
    v6: Vec<(u128, u128, usize)>,
}

impl Sources {
    fn new(examined: &Examined<'_>, connection_type: ConnectionType) -> Self {
        let organization = examined.organization;
        let mut numbers: HashMap<&Source, usize> = HashMap::new();
        let mut sources = Self { rules: Vec::new(), v4: Vec::new(), v6: Vec::new() };
        for (index, rule) in (0_u32..).zip(organization.rules.iter()) {
            let alive = !rule.disabled && End::of(rule) > End::At(examined.now);
            if !alive || !rule.connection_types.applies_to(connection_type) {
                continue;
            }
            let number = *numbers.entry(&rule.source).or_insert_with(|| {
                let number = sources.rules.len();
                sources.rules.push(Vec::new());
                let set = organization.source_set(&rule.source);
                sources.v4.extend(set.v4.intervals().iter().map(|(first, last)| (*first, *last, number)));
                sources.v6.extend(set.v6.intervals().iter().map(|(first, last)| (*first, *last, number)));
                number
            });
            let Some(rules) = sources.rules.get_mut(number) else { continue };
            // After two rules with the same source that never expire, no other can win, even if one of the two is
            // removed.
            let lasting = rules.iter().filter_map(|index| organization.rules.get(*index as usize));
            if lasting.filter(|rule| rule.expire_time.is_none()).count() < 2 {
                rules.push(index);
            }
        }
        sources
    }
}

impl<W: Word> Segments<W> {
    fn new(
        examined: &Examined<'_>,
        sources: &Sources,
        items: &[(W, W, usize)],
        permitted: &IntervalSet<W>,
        alters: &mut [bool],
    ) -> Self {
        let rules = &examined.organization.rules;
        let mut found =
            Self { bounds: Vec::new(), winners: Vec::new(), won: vec![IntervalSet::default(); rules.len()] };
        let mut events: Vec<(W, bool, usize)> = Vec::with_capacity(2 * items.len());
        for (first, last, source) in items {
            events.push((*first, true, *source));
            events.extend(last.next().map(|after| (after, false, *source)));
        }
        events.sort_unstable();
        let mut active: BTreeSet<u32> = BTreeSet::new();
        let mut rest = events.as_slice();
        while let Some((at, ..)) = rest.first().copied() {
            while let [(event_at, begins, source), following @ ..] = rest
                && *event_at == at
            {
                for rule in sources.rules.get(*source).into_iter().flatten() {
                    if *begins {
                        active.insert(*rule);
                    } else {
                        active.remove(rule);
                    }
                }
                rest = following;
            }
            let last = rest.first().map_or(Some(W::MAX), |(next, ..)| next.previous());
            if let Some(last) = last.filter(|_| !active.is_empty()) {
                found.add_segment(examined, at, last, &active, permitted, alters);
            }
        }
        found
    }

    fn matched(&self) -> IntervalSet<W> {
        let mut matched = IntervalSet::default();
        for (first, last, _) in &self.bounds {
            matched.push(*first, *last);
        }
        matched
    }

    /// Adds a segment: which rules win in it, and which of them would alter a decision if they were removed.
    fn add_segment(
        &mut self,
        examined: &Examined<'_>,
        first: W,
        last: W,
        active: &BTreeSet<u32>,
        permitted: &IntervalSet<W>,
        alters: &mut [bool],
    ) {
        let rule = |index: u32| examined.organization.rules.get(index as usize);
        let start = self.winners.len();
        let mut begin = End::At(examined.now);
        let mut rest = active.iter().copied();
        while let Some(index) = rest.next() {
            let Some(winner) = rule(index) else { continue };
            let end = End::of(winner);
            if begin < end {
                self.winners.push(index);
                if let Some(won) = self.won.get_mut(index as usize) {
                    won.push(first, last);
                }
                let followers = rest.clone().filter_map(rule).map(|rule| (End::of(rule), rule.action));
                if alters.get(index as usize) == Some(&false)
                    && differs(winner.action, begin, end, followers)
                    && permitted.meets(first, last)
                    && let Some(alters) = alters.get_mut(index as usize)
                {
                    *alters = true;
                }
                begin = end;
            }
            if begin == End::Never {
                break;
            }
        }
        self.bounds.push((first, last, start));
    }

    /// Adds, for each segment that meets the source, the first winner that lasts until `end` or longer.
    fn add_coverers(&self, source: &IntervalSet<W>, end: End, examined: &Examined<'_>, covering: &mut BTreeSet<u32>) {
        let rules = &examined.organization.rules;
        let lasts = |index: &&u32| rules.get(**index as usize).is_some_and(|rule| End::of(rule) >= end);
        for (first, last) in source.intervals() {
            let from = self.bounds.partition_point(|(_, end, _)| end < first);
            for (at, (begin, _, winners)) in self.bounds.iter().enumerate().skip(from) {
                if begin > last || covering.len() > RELATED_MAX {
                    break;
                }
                let until = self.bounds.get(at + 1).map_or(self.winners.len(), |(.., next)| *next);
                let winners = self.winners.get(*winners..until).unwrap_or_default();
                covering.extend(winners.iter().find(lasts));
            }
        }
    }
}

/// Whether, at some moment from `begin` to `end`, the rules that follow decide otherwise than `action`. When none of
/// them matches, the firewall allows.
fn differs(action: Action, mut begin: End, end: End, followers: impl Iterator<Item = (End, Action)>) -> bool {
    for (follower_end, follower) in followers {
        if begin < follower_end {
            if follower != action {
                return true;
            }
            begin = follower_end;
        }
        if begin >= end {
            return false;
        }
    }
    action != Action::Allow
}
