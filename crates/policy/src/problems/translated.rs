//! Rules that deny IPv4 addresses while IPv6 addresses that stand for them are allowed.
//!
//! The allowed twins are brought into the order of the IPv4 addresses that they stand for, and then compared with the
//! segments in one pass.
//!
//! Invariant: a rule is named only for addresses at which it wins at a moment at which their twin is permitted by
//! cluster, firewall and organization.
//! Not here: how addresses are translated (`translation`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::examined::{Examined, LevelSets};
use super::problem::{Code, Problem, RANGES_MAX, Resource};
use super::segments::{Segments, TypeSegments};
use super::translation::Translation;
use crate::intervals::IntervalSet;
use crate::ranges::RangeSet;
use crate::rule::{Action, ConnectionType, Rule};
use crate::time::Timestamp;
use crate::timeline::{Moment, Timeline};

/// IPv6 addresses that are allowed at the same moments, and the IPv4 addresses that they stand for.
struct Twins<'a> {
    originals: (u32, u32),
    bounds: (u128, u128),
    allowed: &'a Timeline,
}

/// The first moment at which a rule denies addresses whose twins are allowed, and those twins.
struct Finding {
    from: Moment,
    twins: IntervalSet<u128>,
    connection_types: Vec<ConnectionType>,
}

/// The problems of the rules. `said` are the addresses that a rule, by its index, is reported for already.
pub(super) fn problems(
    examined: &Examined<'_>,
    levels: &LevelSets,
    found: &[TypeSegments],
    said: &BTreeMap<usize, (Problem, Arc<RangeSet>)>,
) -> Vec<Problem> {
    let denials = Denials::new(&examined.organization.rules);
    let mut findings: BTreeMap<u32, Finding> = BTreeMap::new();
    for of_type in found {
        // The same is permitted for all types that the segments are of.
        let mut permitted = ConnectionType::ALL.into_iter().zip(&levels.permitted_from);
        let Some((_, allowed)) = permitted.find(|(of, _)| of_type.connection_types.contains(of)) else { continue };
        for translation in Translation::all(examined.nat64_prefixes) {
            let (first, last) = (translation.twins(u32::MIN).0, translation.twins(u32::MAX).1);
            let pieces = allowed.v6_from_to(first, last);
            let twins = pieces.filter_map(|(first, last, allowed)| {
                let originals = translation.originals(first, last)?;
                Some(Twins { originals, bounds: (first, last), allowed })
            });
            let twins: Vec<_> = twins.collect();
            for (index, (from, twins)) in compare(&denials, &of_type.v4, translation, &twins) {
                let new = || Finding { from, twins: IntervalSet::default(), connection_types: Vec::new() };
                let finding = findings.entry(index).or_insert_with(new);
                if from < finding.from {
                    *finding = new();
                }
                if from == finding.from {
                    finding.twins = finding.twins.union(&twins);
                    if !finding.connection_types.ends_with(&of_type.connection_types) {
                        finding.connection_types.extend(&of_type.connection_types);
                    }
                }
            }
        }
    }
    let problem = |(index, finding)| problem(examined, index, finding, said.get(&(index as usize)));
    findings.into_iter().filter_map(problem).collect()
}

/// The first moment at which a rule wins at addresses whose twins are allowed, and those twins.
type First = (Moment, IntervalSet<u128>);

/// What is found of each rule that denies, by its index.
fn compare(
    denials: &Denials,
    segments: &Segments<u32>,
    translation: Translation,
    twins: &[Twins<'_>],
) -> impl Iterator<Item = (u32, First)> {
    let mut found: Vec<Option<First>> = vec![None; denials.rules.len()];
    let mut rest = twins;
    for (first, last, winners) in segments.iter() {
        while let [before, following @ ..] = rest
            && before.originals.1 < first
        {
            rest = following;
        }
        for twins in rest.iter().take_while(|twins| twins.originals.0 <= last) {
            let originals = (twins.originals.0.max(first), twins.originals.1.min(last));
            for (index, from) in denials.meeting(winners, twins.allowed) {
                let Some(known) = found.get_mut(index as usize) else { continue };
                if known.as_ref().is_none_or(|(known, _)| from < *known) {
                    *known = Some((from, IntervalSet::default()));
                }
                if let Some((_, set)) = known.as_mut().filter(|(known, _)| *known == from) {
                    translation.add_twins(originals, twins.bounds, set);
                }
            }
        }
    }
    (0..).zip(found).filter_map(|(index, found)| Some((index, found?)))
}

/// Whether each rule denies, and when it expires, close together in memory.
struct Denials {
    rules: Vec<(bool, Option<Timestamp>)>,
}

impl Denials {
    fn new(rules: &[Arc<Rule>]) -> Self {
        Self { rules: rules.iter().map(|rule| (rule.action == Action::Deny, rule.expire_time)).collect() }
    }

    /// Of rules that win one after the other: those that deny at a moment at which something is allowed, each with the
    /// first such moment.
    fn meeting(&self, winners: &[u32], allowed: &Timeline) -> impl Iterator<Item = (u32, Moment)> {
        let mut next = Moment::Now;
        winners.iter().filter_map(move |index| {
            let (denies, expires) = *self.rules.get(*index as usize)?;
            let (begin, end) = (next, expires.map(Moment::At));
            next = end.unwrap_or(next);
            let from = if denies { allowed.first_from(begin)? } else { return None };
            end.is_none_or(|end| from < end).then_some((*index, from))
        })
    }
}

fn problem(
    examined: &Examined<'_>,
    index: u32,
    finding: Finding,
    said: Option<&(Problem, Arc<RangeSet>)>,
) -> Option<Problem> {
    let Finding { from, twins, connection_types } = finding;
    let from = from.time();
    // A rule that forgets IPv6 is reported with all IPv6 addresses that it leaves open.
    if said.is_some_and(|(problem, open)| problem.from <= from && twins.is_subset(&open.v6)) {
        return None;
    }
    let rule = examined.organization.rules.get(index as usize)?;
    let problem = Problem::new(Code::TranslatedAddress, Resource::Rule(rule.id.clone()));
    let twins = RangeSet { v6: twins, ..RangeSet::default() };
    let ranges = twins.ranges().take(RANGES_MAX).collect();
    Some(Problem { ranges, connection_types, from, ..problem })
}
