//! Segments: intervals of addresses that the same rules contain, and the rules that win in each, one after the other.
//!
//! A sweep over the ranges of all rules yields them. In a segment, at any moment, the first rule that is not expired
//! wins. So a rule wins from the moment when all earlier rules are expired until it expires itself.
//!
//! Invariant: what is said of a segment holds at every moment from the given one on. Rules are identified by their
//! 0-based index.
//! Not here: what of it is a problem (`rules`, `translated`).

use std::collections::{BTreeSet, HashMap};

use super::examined::{Examined, LevelSets};
use super::problem::RELATED_MAX;
use crate::intervals::IntervalSet;
use crate::ranges::RangeSet;
use crate::rule::{Action, ConnectionType, Rule, Source};
use crate::time::Timestamp;
use crate::word::Word;

/// When a rule stops matching. `Never` is later than every moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    At(Timestamp),
    Never,
}

impl End {
    pub(super) fn of(rule: &Rule) -> Self {
        rule.expire_time.map_or(Self::Never, Self::At)
    }
}

/// The segments of one family for one connection type, and the rules that win in each of them, one after the other.
pub(super) struct Segments<W> {
    /// For each segment: its first and its last address, and the index in `winners` at which its winners begin.
    bounds: Vec<(W, W, usize)>,
    winners: Vec<u32>,
    /// For each rule: the addresses at which it wins at some moment.
    won: Vec<IntervalSet<W>>,
}

/// The segments of one connection type, or of both where no rule tells them apart.
pub(super) struct TypeSegments {
    pub(super) connection_types: Vec<ConnectionType>,
    pub(super) v4: Segments<u32>,
    v6: Segments<u128>,
    /// For each rule: whether removing it would alter a decision.
    alters: Vec<bool>,
}

impl TypeSegments {
    /// The segments of every connection type.
    pub(super) fn all(examined: &Examined<'_>, levels: &LevelSets) -> Vec<Self> {
        if !examined.snapshot.firewall().tells_types_apart() {
            return vec![Self::new(examined, levels, ConnectionType::ALL.to_vec())];
        }
        ConnectionType::ALL.into_iter().map(|of| Self::new(examined, levels, vec![of])).collect()
    }

    fn new(examined: &Examined<'_>, levels: &LevelSets, connection_types: Vec<ConnectionType>) -> Self {
        let sources = Sources::new(examined, &connection_types);
        let mut alters = vec![false; examined.organization.rules.len()];
        let v4 = Segments::new(examined, &sources, &sources.v4, &levels.permitted.v4, &mut alters);
        let v6 = Segments::new(examined, &sources, &sources.v6, &levels.permitted.v6, &mut alters);
        Self { connection_types, v4, v6, alters }
    }

    /// The first moment at which some permitted addresses of a family are matched by no rule, and those addresses: of
    /// IPv4, and of IPv6.
    pub(super) fn first_unmatched(&self, examined: &Examined<'_>, levels: &LevelSets) -> [Option<Unmatched>; 2] {
        let v4 = self.v4.first_unmatched(examined, &levels.permitted.v4);
        let v6 = self.v6.first_unmatched(examined, &levels.permitted.v6);
        let of_v4 = |v4| RangeSet { v4, ..RangeSet::default() };
        let of_v6 = |v6| RangeSet { v6, ..RangeSet::default() };
        [v4.map(|(at, set)| (at, of_v4(set))), v6.map(|(at, set)| (at, of_v6(set)))]
    }

    /// Whether a rule is among those that the segments are made of.
    pub(super) fn has(&self, rule: &Rule) -> bool {
        applies(rule, &self.connection_types)
    }

    /// Whether removing the rule at an index would alter a decision.
    pub(super) fn alters(&self, index: usize) -> bool {
        self.alters.get(index).copied().unwrap_or_default()
    }

    /// The addresses at which a rule wins at some moment.
    pub(super) fn won(&self, index: usize) -> RangeSet {
        RangeSet {
            v4: self.v4.won.get(index).cloned().unwrap_or_default(),
            v6: self.v6.won.get(index).cloned().unwrap_or_default(),
        }
    }

    /// The rules that together keep a rule with this source and end from winning.
    pub(super) fn coverers(&self, source: &RangeSet, end: End, examined: &Examined<'_>) -> Vec<u32> {
        let mut rules = BTreeSet::new();
        self.v4.add_coverers(&source.v4, end, examined, &mut rules);
        self.v6.add_coverers(&source.v6, end, examined, &mut rules);
        rules.into_iter().collect()
    }
}

fn applies(rule: &Rule, connection_types: &[ConnectionType]) -> bool {
    connection_types.iter().any(|of| rule.connection_types.applies_to(*of))
}

/// Addresses that no rule matches, and from which moment on.
pub(super) type Unmatched = (Timestamp, RangeSet);

/// The distinct sources of the rules that apply to a connection type.
struct Sources {
    /// For each source: the rules that have it.
    rules: Vec<Vec<u32>>,
    /// The intervals of all sources: first address, last address, source.
    v4: Vec<(u32, u32, usize)>,
    v6: Vec<(u128, u128, usize)>,
}

impl Sources {
    fn new(examined: &Examined<'_>, connection_types: &[ConnectionType]) -> Self {
        let organization = examined.organization;
        let mut numbers: HashMap<&Source, usize> = HashMap::new();
        let mut sources = Self { rules: Vec::new(), v4: Vec::new(), v6: Vec::new() };
        for (index, rule) in (0_u32..).zip(organization.rules.iter()) {
            let alive = !rule.disabled && End::of(rule) > End::At(examined.now);
            if !alive || !applies(rule, connection_types) {
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

    /// Every segment, as its first and last address and the indexes of its winners in their order. There is at least
    /// one winner.
    pub(super) fn iter(&self) -> impl Iterator<Item = (W, W, &[u32])> {
        let ends = self.bounds.iter().skip(1).map(|(.., next)| *next).chain([self.winners.len()]);
        self.bounds
            .iter()
            .zip(ends)
            .map(|((first, last, start), end)| (*first, *last, self.winners.get(*start..end).unwrap_or_default()))
    }

    fn first_unmatched(
        &self,
        examined: &Examined<'_>,
        permitted: &IntervalSet<W>,
    ) -> Option<(Timestamp, IntervalSet<W>)> {
        let unmatched = permitted.difference(&self.matched());
        if !unmatched.is_empty() {
            return Some((examined.now, unmatched));
        }
        let mut found: Option<(Timestamp, IntervalSet<W>)> = None;
        for (first, last, winners) in self.iter() {
            // No rule lives longer than the last winner.
            let last_winner = winners.last().and_then(|index| examined.organization.rules.get(*index as usize));
            let Some(at) = last_winner.and_then(|rule| rule.expire_time) else { continue };
            if found.as_ref().is_some_and(|(known, _)| *known < at) || !permitted.meets(first, last) {
                continue;
            }
            if found.as_ref().is_none_or(|(known, _)| at < *known) {
                found = Some((at, IntervalSet::default()));
            }
            if let Some((_, set)) = &mut found {
                set.push(first, last);
            }
        }
        found.map(|(at, set)| (at, set.intersection(permitted)))
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
