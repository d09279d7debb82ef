//! The problems of access settings.
//!
//! Invariant: a setting is judged by itself and by the levels above it. Equal allowlists are judged once.
//! Not here: rules (`rules`).

use std::collections::HashMap;

use super::examined::{Examined, LevelSets};
use super::problem::{Code, Problem, Resource};
use crate::address::Range;
use crate::name::NodeKey;
use crate::node::Access;
use crate::ranges::{RangeList, RangeSet};
use crate::rule::{ConnectionType, Source};

/// The problems of the node `key` and the nodes below it. Without a key, those of all nodes and of the organization.
pub(super) fn problems(examined: &Examined<'_>, levels: &LevelSets, key: Option<&NodeKey>) -> Vec<Problem> {
    let organization = examined.organization;
    let mut judged: HashMap<Vec<&Source>, Vec<Problem>> = HashMap::new();
    let mut problems = Vec::new();
    if key.is_none() {
        let access = &organization.node.access;
        problems
            .extend(entries(examined, levels, access).into_iter().map(|problem| problem.of(Resource::Organization)));
        if nobody(examined, access) {
            problems.push(Problem::new(Code::NoAddresses, Resource::Organization));
        }
    }
    let within = |of: &NodeKey| key.is_none_or(|key| of == key || of.is_within(key));
    for (of, node) in organization.nodes.iter().filter(|(of, _)| within(of)) {
        // An inherited setting is reported at the node that has it, and at the node that was asked about.
        let access = match &node.access {
            Access::Inherit if key == Some(of) => match organization.effective_access(of) {
                Some((_, access)) => access,
                None => continue,
            },
            Access::Inherit => continue,
            own => own,
        };
        let sources = access.entries().iter().map(|entry| &entry.source).collect();
        let findings = match access {
            Access::AllowAll | Access::Inherit => judge(examined, levels, access),
            Access::AllowList(_) => judged.entry(sources).or_insert_with(|| judge(examined, levels, access)).clone(),
        };
        problems.extend(findings.into_iter().map(|problem| problem.of(Resource::Node(of.clone()))));
    }
    // A node that is not registered inherits from its nearest known ancestor.
    if let Some(key) = key
        && organization.nodes.get(key).is_none()
        && let Some((_, access)) = organization.effective_access(key)
    {
        let findings = judge(examined, levels, access);
        problems.extend(findings.into_iter().map(|problem| problem.of(Resource::Node(key.clone()))));
    }
    problems
}

impl Problem {
    fn of(self, resource: Resource) -> Self {
        Self { resource, ..self }
    }
}

fn nobody(examined: &Examined<'_>, access: &Access) -> bool {
    matches!(access, Access::AllowList(_)) && examined.organization.access_set(access).is_empty()
}

/// The problems of the access setting of any node below the organization. The caller puts in the node.
fn judge(examined: &Examined<'_>, levels: &LevelSets, access: &Access) -> Vec<Problem> {
    let problem = |code| Problem::new(code, Resource::Organization);
    let mut problems = entries(examined, levels, access);
    let set = examined.organization.access_set(access);
    if set.is_empty() {
        problems.push(problem(Code::NoAddresses));
    }
    let listed = listed(examined, access);
    if !listed.is_subset(&levels.organization) {
        problems.push(problem(Code::ExceedsOrganization).with_ranges(&listed.difference(&levels.organization)));
    }
    let full = RangeSet::full();
    if !full.v4.is_subset(&set.v4) && !full.v6.is_subset(&set.v6) {
        return problems;
    }
    problems.push(problem(Code::AllowsAll));
    let reached = set.intersection(&levels.permitted);
    let open = ConnectionType::ALL.into_iter().zip(&levels.allowed).filter(|(_, allowed)| {
        let reached = reached.intersection(allowed);
        full.v4.is_subset(&reached.v4) || full.v6.is_subset(&reached.v6)
    });
    let types: Vec<_> = open.map(|(of, _)| of).collect();
    if !types.is_empty() {
        problems.push(Problem { connection_types: types, ..problem(Code::OpenToInternet) });
    }
    problems
}

/// The problems of the entries of an access setting. The caller puts in the node.
fn entries(examined: &Examined<'_>, levels: &LevelSets, access: &Access) -> Vec<Problem> {
    let mut problems = Vec::new();
    for entry in access.entries() {
        let set = examined.organization.source_set(&entry.source);
        let related = match &entry.source {
            Source::Range(_) => Vec::new(),
            Source::Group(id) => vec![Resource::Group(id.clone())],
        };
        let code = if set.is_empty() {
            Code::EmptyGroup
        } else if !levels.allowed.iter().any(|allowed| allowed.meets(&set)) {
            Code::UnreachableEntry
        } else {
            continue;
        };
        problems.push(Problem { related, ..Problem::new(code, Resource::Organization).with_ranges(&set) });
    }
    problems
}

/// The addresses that an allowlist names, without ranges of a whole family: administrators list those on purpose and
/// leave the restriction to the organization.
fn listed(examined: &Examined<'_>, access: &Access) -> RangeSet {
    let mut ranges = Vec::new();
    let mut set = RangeSet::default();
    for entry in access.entries() {
        match &entry.source {
            Source::Range(range) => ranges.push(*range),
            source @ Source::Group(id) => {
                let Some(group) = examined.organization.groups.get(id.as_str()) else { continue };
                if group.ranges().iter().any(is_whole_family) {
                    ranges.extend(group.ranges().iter());
                } else {
                    set = set.union(&examined.organization.source_set(source));
                }
            }
        }
    }
    ranges.retain(|range| !is_whole_family(*range));
    set.union(&ranges.into_iter().collect::<RangeList>().to_set())
}

fn is_whole_family(range: Range) -> bool {
    match range {
        Range::Any => true,
        Range::V4(block) => block.prefix_length() == 0,
        Range::V6(block) => block.prefix_length() == 0,
    }
}
