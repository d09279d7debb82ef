//! The problems of a firewall.
//!
//! One sweep over the ranges of all rules sees, for every stretch of addresses, the rules that are there, in order. At a
//! moment the first that is not expired wins, so each rule wins from when all before it are expired until it is itself.
//!
//! Invariant: what is said of a rule holds for every moment from the given one on.
//! Not here: allowlists (`nodes`).

use std::collections::{BTreeSet, HashMap};

use super::examined::{Examined, Levels};
use super::problem::{Code, Problem, RELATED_MAX, Resource};
use crate::intervals::IntervalSet;
use crate::name::Id;
use crate::node::Access;
use crate::organization::Organization;
use crate::ranges::RangeSet;
use crate::rule::{Action, ConnectionType, Rule, Source};
use crate::time::Timestamp;
use crate::word::Word;

/// When something ends; last of all what never does.
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

/// The stretches of one family for one connection type, and the rules that win there, one after the other.
struct Stretches<W> {
    /// First and last address, and where its winners begin.
    places: Vec<(W, W, usize)>,
    winners: Vec<u32>,
    /// Where each rule wins at some moment.
    won: Vec<IntervalSet<W>>,
}

/// What is found out about one connection type.
struct OfType {
    connection_type: ConnectionType,
    v4: Stretches<u32>,
    v6: Stretches<u128>,
    /// Whether removing the rule would alter a decision.
    alters: Vec<bool>,
}

/// The problems of the rules, of the groups, and of the firewall as a whole.
pub(super) fn problems(examined: &Examined<'_>, levels: &Levels) -> Vec<Problem> {
    let organization = examined.organization;
    let found = ConnectionType::ALL.map(|connection_type| OfType::new(examined, levels, connection_type));
    let mut coverers = HashMap::new();
    let mut problems = Vec::new();
    for (place, rule) in organization.rules.iter().enumerate() {
        problems.extend(of_rule(examined, &found, &mut coverers, place, rule));
    }
    problems.extend(catch_alls(examined, levels, &found));
    problems.extend(locks(levels));
    problems.extend(groups(organization));
    problems
}

fn of_rule(
    examined: &Examined<'_>,
    found: &[OfType],
    coverers: &mut HashMap<(Source, ConnectionType, End), Vec<u32>>,
    place: usize,
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
    let won = applicable().fold(RangeSet::default(), |won, found| won.union(&found.won(place)));
    if won.is_empty() {
        let mut problem = problem(Code::ShadowedRule);
        let mut places = BTreeSet::new();
        for found in applicable() {
            let key = (rule.source.clone(), found.connection_type, End::of(rule));
            let known = coverers.entry(key).or_insert_with(|| found.coverers(&source, End::of(rule), examined));
            places.extend(known.iter().copied());
        }
        let names = places.into_iter().filter_map(|place| examined.organization.rules.get(place as usize));
        problem.related = names.take(RELATED_MAX).map(|rule| Resource::Rule(rule.id.clone())).collect();
        return vec![problem];
    }
    let mut problems = Vec::new();
    if !applicable().any(|found| found.alters.get(place).copied().unwrap_or_default()) {
        problems.push(problem(Code::RedundantRule));
    }
    let matches = (examined.matches)(place);
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

/// Rules that deny all of one family and leave addresses of the other to no rule.
fn catch_alls(examined: &Examined<'_>, levels: &Levels, found: &[OfType]) -> Vec<Problem> {
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

/// Connection types for which cluster, firewall and organization together let nobody in.
fn locks(levels: &Levels) -> Option<Problem> {
    let locked = |at: usize| levels.allowed.get(at).is_some_and(|allowed| !allowed.meets(&levels.permitted));
    let types: Vec<ConnectionType> =
        ConnectionType::ALL.into_iter().enumerate().filter(|(at, _)| locked(*at)).map(|(_, of)| of).collect();
    let problem = Problem::new(Code::LocksEveryoneOut, Resource::Organization);
    (!types.is_empty()).then_some(Problem { connection_types: types, ..problem })
}

/// Groups that nothing names.
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

impl OfType {
    fn new(examined: &Examined<'_>, levels: &Levels, connection_type: ConnectionType) -> Self {
        let sources = Sources::new(examined, connection_type);
        let mut alters = vec![false; examined.organization.rules.len()];
        let v4 = Stretches::new(examined, &sources, &sources.v4, &levels.permitted.v4, &mut alters);
        let v6 = Stretches::new(examined, &sources, &sources.v6, &levels.permitted.v6, &mut alters);
        Self { connection_type, v4, v6, alters }
    }

    /// What rules match that are not expired.
    fn matched(&self) -> RangeSet {
        RangeSet { v4: self.v4.matched(), v6: self.v6.matched() }
    }

    fn won(&self, place: usize) -> RangeSet {
        RangeSet {
            v4: self.v4.won.get(place).cloned().unwrap_or_default(),
            v6: self.v6.won.get(place).cloned().unwrap_or_default(),
        }
    }

    /// The rules that together keep one with this source and end from winning.
    fn coverers(&self, source: &RangeSet, end: End, examined: &Examined<'_>) -> Vec<u32> {
        let mut places = BTreeSet::new();
        self.v4.add_coverers(&source.v4, end, examined, &mut places);
        self.v6.add_coverers(&source.v6, end, examined, &mut places);
        places.into_iter().collect()
    }
}

/// The ranges of the rules that apply, each with the places of the rules that have it.
struct Sources {
    places: Vec<Vec<u32>>,
    v4: Vec<(u32, u32, usize)>,
    v6: Vec<(u128, u128, usize)>,
}

impl Sources {
    fn new(examined: &Examined<'_>, connection_type: ConnectionType) -> Self {
        let organization = examined.organization;
        let mut index: HashMap<&Source, usize> = HashMap::new();
        let mut sources = Self { places: Vec::new(), v4: Vec::new(), v6: Vec::new() };
        for (place, rule) in (0_u32..).zip(organization.rules.iter()) {
            let alive = !rule.disabled && End::of(rule) > End::At(examined.now);
            if !alive || !rule.connection_types.applies_to(connection_type) {
                continue;
            }
            let at = *index.entry(&rule.source).or_insert_with(|| {
                let at = sources.places.len();
                sources.places.push(Vec::new());
                let set = organization.source_set(&rule.source);
                sources.v4.extend(set.v4.intervals().iter().map(|(first, last)| (*first, *last, at)));
                sources.v6.extend(set.v6.intervals().iter().map(|(first, last)| (*first, *last, at)));
                at
            });
            let Some(places) = sources.places.get_mut(at) else { continue };
            // Behind the second that never ends no rule with the same source has a say, not even when one is removed.
            let lasting = places.iter().filter_map(|place| organization.rules.get(*place as usize));
            if lasting.filter(|rule| rule.expire_time.is_none()).count() < 2 {
                places.push(place);
            }
        }
        sources
    }
}

impl<W: Word> Stretches<W> {
    fn new(
        examined: &Examined<'_>,
        sources: &Sources,
        items: &[(W, W, usize)],
        permitted: &IntervalSet<W>,
        alters: &mut [bool],
    ) -> Self {
        let rules = &examined.organization.rules;
        let mut found =
            Self { places: Vec::new(), winners: Vec::new(), won: vec![IntervalSet::default(); rules.len()] };
        let mut events: Vec<(W, bool, usize)> = Vec::with_capacity(2 * items.len());
        for (first, last, source) in items {
            events.push((*first, true, *source));
            events.extend(last.next().map(|after| (after, false, *source)));
        }
        events.sort_unstable();
        let mut active: BTreeSet<u32> = BTreeSet::new();
        let mut rest = events.as_slice();
        while let Some((at, ..)) = rest.first().copied() {
            while let [(here, begins, source), behind @ ..] = rest
                && *here == at
            {
                for place in sources.places.get(*source).into_iter().flatten() {
                    if *begins {
                        active.insert(*place);
                    } else {
                        active.remove(place);
                    }
                }
                rest = behind;
            }
            let last = rest.first().map_or(Some(W::MAX), |(next, ..)| next.previous());
            if let Some(last) = last.filter(|_| !active.is_empty()) {
                found.stretch(examined, at, last, &active, permitted, alters);
            }
        }
        found
    }

    fn matched(&self) -> IntervalSet<W> {
        let mut matched = IntervalSet::default();
        for (first, last, _) in &self.places {
            matched.push(*first, *last);
        }
        matched
    }

    /// Notes who wins in a stretch, and whose removal would alter a decision.
    fn stretch(
        &mut self,
        examined: &Examined<'_>,
        first: W,
        last: W,
        active: &BTreeSet<u32>,
        permitted: &IntervalSet<W>,
        alters: &mut [bool],
    ) {
        let rule = |place: u32| examined.organization.rules.get(place as usize);
        let start = self.winners.len();
        let mut begin = End::At(examined.now);
        let mut rest = active.iter().copied();
        while let Some(place) = rest.next() {
            let Some(of) = rule(place) else { continue };
            let end = End::of(of);
            if begin < end {
                self.winners.push(place);
                if let Some(won) = self.won.get_mut(place as usize) {
                    won.push(first, last);
                }
                let followers = rest.clone().filter_map(rule).map(|rule| (End::of(rule), rule.action));
                if alters.get(place as usize) == Some(&false)
                    && differs(of.action, begin, end, followers)
                    && permitted.meets(first, last)
                    && let Some(alters) = alters.get_mut(place as usize)
                {
                    *alters = true;
                }
                begin = end;
            }
            if begin == End::Never {
                break;
            }
        }
        self.places.push((first, last, start));
    }

    fn add_coverers(&self, source: &IntervalSet<W>, end: End, examined: &Examined<'_>, places: &mut BTreeSet<u32>) {
        let rules = &examined.organization.rules;
        let lasts = |place: &&u32| rules.get(**place as usize).is_some_and(|rule| End::of(rule) >= end);
        for (first, last) in source.intervals() {
            let from = self.places.partition_point(|(_, end, _)| end < first);
            for (at, (begin, _, winners)) in self.places.iter().enumerate().skip(from) {
                if begin > last || places.len() > RELATED_MAX {
                    break;
                }
                let until = self.places.get(at + 1).map_or(self.winners.len(), |(.., next)| *next);
                let winners = self.winners.get(*winners..until).unwrap_or_default();
                places.extend(winners.iter().find(lasts));
            }
        }
    }
}

/// Whether at some moment from `begin` to `end` what comes next decides otherwise than `action`; without any, the
/// firewall lets through.
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
