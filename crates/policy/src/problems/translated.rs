//! Rules that deny IPv4 addresses while IPv6 addresses that stand for them are allowed.
//!
//! The allowed twins are brought into the order of the IPv4 addresses that they stand for, and then compared with the
//! pieces in which a rule wins.
//!
//! Invariant: a rule is named only for addresses at which it wins at a moment at which their twin is permitted by
//! cluster, firewall and organization.
//! Not here: how addresses are translated (`translation`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ends::Ends;
use super::examined::{Examined, LevelSets};
use super::problem::{Code, Problem, Resource};
use super::segments::TypeSegments;
use super::stairs::Piece;
use super::steps::Steps;
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

/// The problems of the rules. `said` are the addresses that a rule, by its index, is reported for already. The steps are
/// those of the analysis, and the ranges that are left for all problems.
pub(super) fn problems(
    examined: &Examined<'_>,
    levels: &LevelSets,
    ends: &Ends,
    found: &[TypeSegments],
    said: &BTreeMap<usize, (Problem, Arc<RangeSet>)>,
    (steps, left): (&mut Steps, &mut Steps),
) -> Vec<Problem> {
    let translations = Translation::all(examined.nat64_prefixes);
    let twins: Vec<Vec<_>> = found
        .iter()
        .map(|of_type| translations.iter().map(|translation| allowed_twins(levels, of_type, *translation)).collect())
        .collect();
    let mut problems = Vec::new();
    for (index, rule) in (0_u32..).zip(examined.organization.rules.iter()) {
        if rule.action != Action::Deny || ends.rank(index) == 0 {
            continue;
        }
        let mut finding: Option<Finding> = None;
        for (of_type, twins) in found.iter().zip(&twins) {
            let pieces = of_type.v4.pieces(index as usize);
            for (translation, twins) in translations.iter().zip(twins) {
                if let Some((from, twins)) = compare(ends, pieces, *translation, twins, steps) {
                    add(&mut finding, from, &twins, &of_type.connection_types);
                }
                if steps.is_short() {
                    return problems;
                }
            }
        }
        let knows = |found: &&TypeSegments| !found.has(rule) || found.v4.is_known();
        if let Some(finding) = finding.filter(|_| found.iter().all(|found| knows(&found))) {
            problems.extend(problem(examined, index, finding, said.get(&(index as usize)), left));
        }
    }
    problems
}

/// The IPv6 addresses of a translation that are allowed at some moment, ascending.
fn allowed_twins<'a>(levels: &'a LevelSets, of_type: &TypeSegments, translation: Translation) -> Vec<Twins<'a>> {
    // The same is permitted for all types that the segments are of.
    let mut permitted = ConnectionType::ALL.into_iter().zip(&levels.permitted_from);
    let Some((_, allowed)) = permitted.find(|(of, _)| of_type.connection_types.contains(of)) else { return Vec::new() };
    let (first, last) = (translation.twins(u32::MIN).0, translation.twins(u32::MAX).1);
    let twins = allowed.v6_from_to(first, last).filter_map(|(first, last, allowed)| {
        let originals = translation.originals(first, last)?;
        Some(Twins { originals, bounds: (first, last), allowed })
    });
    twins.collect()
}

/// Adds what is found for other addresses or connection types of the same rule: what begins first counts.
fn add(finding: &mut Option<Finding>, from: Moment, twins: &IntervalSet<u128>, connection_types: &[ConnectionType]) {
    let new = || Finding { from, twins: IntervalSet::default(), connection_types: Vec::new() };
    let finding = finding.get_or_insert_with(new);
    if from < finding.from {
        *finding = new();
    }
    if from == finding.from {
        finding.twins = finding.twins.union(twins);
        if !finding.connection_types.ends_with(connection_types) {
            finding.connection_types.extend(connection_types);
        }
    }
}

/// The first moment at which a rule that denies wins at addresses whose twins are allowed, and those twins.
type First = (Moment, IntervalSet<u128>);

/// What is found of a rule that wins in some pieces. Not all of it when there are too few steps.
fn compare(
    ends: &Ends,
    pieces: &[Piece<u32>],
    translation: Translation,
    twins: &[Twins<'_>],
    steps: &mut Steps,
) -> Option<First> {
    let mut found: Option<First> = None;
    for piece in pieces {
        let from = twins.partition_point(|twins| twins.originals.1 < piece.first);
        let twins = twins.get(from..).unwrap_or_default();
        for twins in twins.iter().take_while(|twins| twins.originals.0 <= piece.last) {
            if !steps.take(1) {
                return found;
            }
            let end = ends.time(ends.rank(piece.rule));
            let from = twins.allowed.first_from(ends.moment(piece.begin));
            let Some(from) = from.filter(|from| end.is_none_or(|end| *from < Moment::At(end))) else { continue };
            if found.as_ref().is_none_or(|(known, _)| from < *known) {
                found = Some((from, IntervalSet::default()));
            }
            if let Some((_, set)) = found.as_mut().filter(|(known, _)| *known == from) {
                let originals = (twins.originals.0.max(piece.first), twins.originals.1.min(piece.last));
                translation.add_twins(originals, twins.bounds, set);
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
    left: &mut Steps,
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
    Some(Problem { connection_types, from, ..problem.with_ranges(&twins, left) })
}
