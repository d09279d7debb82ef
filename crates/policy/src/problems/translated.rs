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
use crate::rule::{Action, ConnectionType};
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
    let mut findings: BTreeMap<u32, Finding> = BTreeMap::new();
    for (of_type, allowed) in found.iter().zip(&levels.permitted_from) {
        for translation in Translation::all(examined.nat64_prefixes) {
            let (first, last) = (translation.twins(u32::MIN).0, translation.twins(u32::MAX).1);
            let pieces = allowed.v6_from_to(first, last);
            let twins = pieces.filter_map(|(first, last, allowed)| {
                let originals = translation.originals(first, last)?;
                Some(Twins { originals, bounds: (first, last), allowed })
            });
            let of_rules = compare(examined, &of_type.v4, translation, &twins.collect::<Vec<_>>());
            for (index, (from, twins)) in of_rules {
                let new = || Finding { from, twins: IntervalSet::default(), connection_types: Vec::new() };
                let finding = findings.entry(index).or_insert_with(new);
                if from < finding.from {
                    *finding = new();
                }
                if from == finding.from {
                    finding.twins = finding.twins.union(&twins);
                    if finding.connection_types.last() != Some(&of_type.connection_type) {
                        finding.connection_types.push(of_type.connection_type);
                    }
                }
            }
        }
    }
    let problem = |(index, finding)| problem(examined, index, finding, said.get(&(index as usize)));
    findings.into_iter().filter_map(problem).collect()
}

/// For each rule that denies: the first moment at which it wins at addresses whose twins are allowed, and those twins.
fn compare(
    examined: &Examined<'_>,
    segments: &Segments<u32>,
    translation: Translation,
    twins: &[Twins<'_>],
) -> BTreeMap<u32, (Moment, IntervalSet<u128>)> {
    let mut found: BTreeMap<u32, (Moment, IntervalSet<u128>)> = BTreeMap::new();
    let mut rest = twins;
    for (first, last, winners) in segments.iter() {
        while let [before, following @ ..] = rest
            && before.originals.1 < first
        {
            rest = following;
        }
        for twins in rest.iter().take_while(|twins| twins.originals.0 <= last) {
            let originals = (twins.originals.0.max(first), twins.originals.1.min(last));
            let mut begin = Moment::Now;
            for index in winners {
                let Some(rule) = examined.organization.rules.get(*index as usize) else { continue };
                let end = rule.expire_time.map(Moment::At);
                let from = twins.allowed.first_from(begin).filter(|from| end.is_none_or(|end| *from < end));
                begin = end.unwrap_or(begin);
                let Some(from) = from.filter(|_| rule.action == Action::Deny) else { continue };
                let known = found.entry(*index).or_insert_with(|| (from, IntervalSet::default()));
                if from < known.0 {
                    *known = (from, IntervalSet::default());
                }
                if from == known.0 {
                    translation.add_twins(originals, twins.bounds, &mut known.1);
                }
            }
        }
    }
    found
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
