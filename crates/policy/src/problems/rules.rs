//! The problems of rules and groups.
//!
//! Invariant: what is said of a rule holds at every moment from the given one on, or from the moment that the problem
//! names. Rules are identified by their 0-based index.
//! Not here: which rules win where (`segments`), allowlists (`nodes`), the policy as a whole (`whole`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::examined::{Examined, LevelSets};
use super::problem::{Code, Problem, RANGES_MAX, RELATED_MAX, Resource};
use super::segments::{End, TypeSegments};
use super::translated;
use crate::address::Range;
use crate::name::Id;
use crate::node::Access;
use crate::organization::Organization;
use crate::ranges::RangeSet;
use crate::rule::{Action, ConnectionType, Rule, Source};

/// The problems of the rules, of the groups, and of the firewall as a whole.
pub(super) fn problems(examined: &Examined<'_>, levels: &LevelSets) -> Vec<Problem> {
    let organization = examined.organization;
    let found = TypeSegments::all(examined, levels);
    let mut coverers = HashMap::new();
    let mut problems = Vec::new();
    for (index, rule) in organization.rules.iter().enumerate() {
        problems.extend(of_rule(examined, &found, &mut coverers, index, rule));
    }
    let catch_alls = catch_alls(examined, levels, &found);
    problems.extend(translated::problems(examined, levels, &found, &catch_alls));
    problems.extend(catch_alls.into_values().map(|(problem, _)| problem));
    problems.extend(groups(organization));
    problems
}

fn of_rule(
    examined: &Examined<'_>,
    found: &[TypeSegments],
    coverers: &mut HashMap<(Source, usize, End), Vec<u32>>,
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
    let applicable = || found.iter().enumerate().filter(|(_, found)| found.has(rule));
    let won = applicable().fold(RangeSet::default(), |won, (_, found)| won.union(&found.won(index)));
    if won.is_empty() {
        let mut problem = problem(Code::ShadowedRule);
        let mut covering = BTreeSet::new();
        for (of, found) in applicable() {
            let key = (rule.source.clone(), of, End::of(rule));
            let known = coverers.entry(key).or_insert_with(|| found.coverers(&source, End::of(rule), examined));
            covering.extend(known.iter().copied());
        }
        let rules = covering.into_iter().filter_map(|index| examined.organization.rules.get(index as usize));
        problem.related = rules.take(RELATED_MAX).map(|rule| Resource::Rule(rule.id.clone())).collect();
        return vec![problem];
    }
    let mut problems = Vec::new();
    if !applicable().any(|(_, found)| found.alters(index)) {
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

/// Rules that deny every address of one family, while no rule matches some addresses of the other from some moment of
/// their lives on. Each with its index and those addresses.
fn catch_alls(
    examined: &Examined<'_>,
    levels: &LevelSets,
    found: &[TypeSegments],
) -> BTreeMap<usize, (Problem, Arc<RangeSet>)> {
    let organization = examined.organization;
    let full = RangeSet::full();
    let unmatched: Vec<_> = found.iter().map(|found| found.first_unmatched(examined, levels)).collect();
    let (mut families, mut unions) = (HashMap::new(), HashMap::new());
    let mut problems = BTreeMap::new();
    for (index, rule) in organization.rules.iter().enumerate() {
        if rule.action != Action::Deny || rule.disabled || End::of(rule) <= End::At(examined.now) {
            continue;
        }
        let (all_v4, all_v6) = *families.entry(&rule.source).or_insert_with(|| {
            let set = organization.source_set(&rule.source);
            (full.v4.is_subset(&set.v4), full.v6.is_subset(&set.v6))
        });
        if all_v4 == all_v6 {
            continue;
        }
        let applicable = found.iter().zip(&unmatched).filter_map(|(found, [v4, v6])| {
            let (at, open) = if all_v4 { v6 } else { v4 }.as_ref()?;
            (found.has(rule) && End::At(*at) < End::of(rule)).then_some((*at, &found.connection_types, open))
        });
        let applicable: Vec<_> = applicable.collect();
        let Some(from) = applicable.iter().map(|(at, ..)| *at).min() else { continue };
        let first = || applicable.iter().filter(|(at, ..)| *at == from);
        let types: Vec<ConnectionType> = first().flat_map(|(_, of, _)| of.iter().copied()).collect();
        let (open, ranges) = unions.entry((all_v4, types.clone())).or_insert_with(|| {
            let open = first().fold(RangeSet::default(), |open, (.., set)| open.union(set));
            let ranges: Vec<Range> = open.ranges().take(RANGES_MAX).collect();
            (Arc::new(open), ranges)
        });
        let problem = Problem::new(Code::Ipv4OnlyCatchAll, Resource::Rule(rule.id.clone())).from(from, examined.now);
        let problem = Problem { connection_types: types, ranges: ranges.clone(), ..problem };
        problems.insert(index, (problem, Arc::clone(open)));
    }
    problems
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
