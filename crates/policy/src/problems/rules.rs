//! The problems of rules and groups.
//!
//! Invariant: what is said of a rule holds at every moment from the given one on, or from the moment that the problem
//! names. Rules are identified by their 0-based index.
//! Not here: which rules win where (`segments`), allowlists (`nodes`), the policy as a whole (`whole`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::ends::Ends;
use super::examined::{Examined, LevelSets};
use super::problem::{Code, Found, Problem, RELATED_MAX, Resource, listed};
use super::segments::TypeSegments;
use super::shadows::Shadow;
use super::steps::Steps;
use super::translated;
use crate::address::Range;
use crate::name::Id;
use crate::node::Access;
use crate::organization::Organization;
use crate::ranges::RangeSet;
use crate::rule::{Action, ConnectionType, Rule, Source};

/// The problems of the rules, of the groups, and of the firewall as a whole. Ranges are taken from those that are `left`.
pub(super) fn problems(examined: &Examined<'_>, levels: &LevelSets, left: &mut Steps) -> Found {
    let organization = examined.organization;
    let ends = Ends::new(examined);
    let found = TypeSegments::all(examined, levels, &ends);
    let mut steps = Steps::new(0);
    let intervals = found.iter().map(TypeSegments::interval_count).sum();
    for found in &found {
        steps.note(&found.steps);
    }
    let mut judged = Judged { examined, ends: &ends, found: &found, steps: Steps::of(examined, intervals), left };
    let mut sources = HashMap::new();
    let mut problems = Vec::new();
    for (index, rule) in organization.rules.iter().enumerate() {
        let source = sources.entry(&rule.source).or_insert_with(|| organization.source_set(&rule.source));
        judged.add_rule(index, rule, source, &mut problems);
    }
    steps.note(&judged.steps);
    let catch_alls = catch_alls(examined, &ends, &found, left);
    let mut of_translated = Steps::of(examined, intervals);
    problems.extend(translated::problems(examined, levels, &ends, &found, &catch_alls, (&mut of_translated, left)));
    steps.note(&of_translated);
    problems.extend(catch_alls.into_values().map(|(problem, _)| problem));
    problems.extend(groups(organization));
    Found { problems, incomplete: steps.is_short(), steps: steps.taken() }
}

/// What rules are judged by.
struct Judged<'a, 'e> {
    examined: &'e Examined<'a>,
    ends: &'e Ends,
    found: &'e [TypeSegments],
    steps: Steps,
    left: &'e mut Steps,
}

impl Judged<'_, '_> {
    fn add_rule(&mut self, index: usize, rule: &Rule, source: &RangeSet, problems: &mut Vec<Problem>) {
        let problem = |code| Problem::new(code, Resource::Rule(rule.id.clone()));
        if rule.disabled {
            return;
        }
        if u32::try_from(index).is_ok_and(|index| self.ends.rank(index) == 0) {
            problems.push(problem(Code::ExpiredRule));
            return;
        }
        if source.is_empty() {
            let mut problem = problem(Code::EmptyGroup);
            if let Source::Group(id) = &rule.source {
                problem.related.push(Resource::Group(id.clone()));
            }
            problems.push(problem);
            return;
        }
        if let Some(related) = self.never_wins(index, rule) {
            problems.push(Problem { related, ..problem(Code::ShadowedRule) });
            return;
        }
        let found = self.found;
        let applicable = || found.iter().filter(|found| found.has(rule));
        if applicable().all(|found| found.piece_count(index) == 0) {
            // It is not known whether it wins.
            return;
        }
        let known = applicable().all(|found| found.knows(source));
        if known && !applicable().any(|found| found.alters(index)) {
            problems.push(problem(Code::RedundantRule));
        }
        let matches = (self.examined.matches)(index);
        let last = matches.map(|matches| matches.last.unwrap_or(matches.start).max(matches.start));
        if let Some(since) = last.filter(|last| *last < self.examined.unused_since) {
            problems.push(Problem { since: Some(since), ..problem(Code::UnusedRule) });
        }
        let cost = source.interval_count() + applicable().map(|found| found.piece_count(index)).sum::<usize>();
        if known && self.steps.take(cost) {
            let won = applicable().fold(RangeSet::default(), |won, found| won.union(&found.won(index)));
            let covered = source.difference(&won);
            if !covered.is_empty() {
                problems.push(problem(Code::PartlyShadowedRule).with_ranges(&covered, self.left));
            }
        }
    }

    /// The rules because of which a rule never wins, where it is known that it never does.
    fn never_wins(&self, index: usize, rule: &Rule) -> Option<Vec<Resource>> {
        let mut covering = BTreeSet::new();
        for found in self.found.iter().filter(|found| found.has(rule)) {
            match found.shadow(index) {
                Shadow::Never(rules) => covering.extend(rules.iter().copied()),
                Shadow::Unknown | Shadow::Wins => return None,
            }
        }
        let rules = covering.into_iter().filter_map(|index| self.examined.organization.rules.get(index as usize));
        Some(rules.take(RELATED_MAX).map(|rule| Resource::Rule(rule.id.clone())).collect())
    }
}

/// Rules that deny every address of one family, while no rule matches some addresses of the other from some moment of
/// their lives on. Each with its index and those addresses.
fn catch_alls(
    examined: &Examined<'_>,
    ends: &Ends,
    found: &[TypeSegments],
    left: &mut Steps,
) -> BTreeMap<usize, (Problem, Arc<RangeSet>)> {
    let organization = examined.organization;
    let full = RangeSet::full();
    let unmatched: Vec<_> = found.iter().map(|found| found.first_unmatched(ends)).collect();
    let (mut families, mut unions) = (HashMap::new(), HashMap::new());
    let mut problems = BTreeMap::new();
    for (index, rule) in organization.rules.iter().enumerate() {
        let lives_at = |at| rule.end().is_none_or(|end| at < end);
        if rule.action != Action::Deny || rule.disabled || !lives_at(examined.now) {
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
            (found.has(rule) && lives_at(*at)).then_some((*at, &found.connection_types, open))
        });
        let applicable: Vec<_> = applicable.collect();
        let Some(from) = applicable.iter().map(|(at, ..)| *at).min() else { continue };
        let first = || applicable.iter().filter(|(at, ..)| *at == from);
        let types: Vec<ConnectionType> = first().flat_map(|(_, of, _)| of.iter().copied()).collect();
        let (open, ranges) = unions.entry((all_v4, types.clone())).or_insert_with(|| {
            let open = first().fold(RangeSet::default(), |open, (.., set)| open.union(set));
            let ranges: Arc<[Range]> = listed(&open, left);
            (Arc::new(open), ranges)
        });
        let problem = Problem::new(Code::Ipv4OnlyCatchAll, Resource::Rule(rule.id.clone())).from(from, examined.now);
        let problem = Problem { connection_types: types, ranges: Arc::clone(ranges), ..problem };
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
