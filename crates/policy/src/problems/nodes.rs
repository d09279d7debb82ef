//! The problems of access settings.
//!
//! Invariant: a setting is judged by itself and by the levels above it. Equal allowlists are judged once.
//! Not here: rules (`rules`).

use std::collections::HashMap;

use super::examined::{Examined, LevelSets};
use super::problem::{Code, Problem, Resource};
use super::steps::Steps;
use super::whole::{by_moment, is_whole_family};
use crate::name::NodeKey;
use crate::node::Access;
use crate::ranges::{RangeList, RangeSet};
use crate::rule::Source;
use crate::timeline::{Moment, Timeline};

/// The problems of the node `key` and the nodes below it. Without a key, those of all nodes and of the organization.
/// Ranges are taken from those that are `left`.
pub(super) fn problems(
    examined: &Examined<'_>,
    levels: &LevelSets,
    key: Option<&NodeKey>,
    left: &mut Steps,
) -> Vec<Problem> {
    let organization = examined.organization;
    let mut judged: HashMap<Vec<&Source>, Vec<Problem>> = HashMap::new();
    let mut firewall = Firewall { examined, levels, findings: HashMap::new(), left };
    let mut problems = Vec::new();
    if key.is_none() {
        let access = &organization.node.access;
        problems.extend(entries(&mut firewall, access));
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
            Access::AllowAll | Access::Inherit => judge(&mut firewall, access),
            Access::AllowList(_) => judged.entry(sources).or_insert_with(|| judge(&mut firewall, access)).clone(),
        };
        problems.extend(findings.into_iter().map(|problem| problem.of(Resource::Node(of.clone()))));
    }
    // A node that is not registered inherits from its nearest known ancestor.
    if let Some(key) = key
        && organization.nodes.get(key).is_none()
        && let Some((_, access)) = organization.effective_access(key)
    {
        let findings = judge(&mut firewall, access);
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

/// What the firewall lets through, as far as access settings are judged by it. What it says of a source is kept: many
/// nodes name the same ones.
struct Firewall<'a, 'e> {
    examined: &'e Examined<'a>,
    levels: &'e LevelSets,
    findings: HashMap<Source, Option<Problem>>,
    left: &'e mut Steps,
}

impl Firewall<'_, '_> {
    /// What is wrong with an entry of this source. The caller puts in the node.
    fn of_entry(&mut self, source: &Source) -> Option<Problem> {
        if let Some(known) = self.findings.get(source) {
            return known.clone();
        }
        let set = self.examined.organization.source_set(source);
        let related = match source {
            Source::Range(_) => Vec::new(),
            Source::Group(id) => vec![Resource::Group(id.clone())],
        };
        let fault = if set.is_empty() {
            Some((Code::EmptyGroup, Moment::Now))
        } else {
            self.never_reached_from(&set).map(|from| (Code::UnreachableEntry, from))
        };
        let finding = fault.map(|(code, from)| {
            let problem = Problem::new(code, Resource::Organization).with_ranges(&set, self.left);
            Problem { related, from: from.time(), ..problem }
        });
        self.findings.insert(source.clone(), finding.clone());
        finding
    }

    /// The first moment at which the firewall denies all of a set.
    fn never_reached_from(&self, set: &RangeSet) -> Option<Moment> {
        if self.levels.always_allowed.meets(set) {
            return None;
        }
        let reached = self.levels.allowed_from.each_ref().map(|allowed| allowed.within(set).somebody());
        Timeline::any(&reached).negated().first()
    }
}

/// The problems of the access setting of any node below the organization. The caller puts in the node.
fn judge(firewall: &mut Firewall<'_, '_>, access: &Access) -> Vec<Problem> {
    let (examined, levels) = (firewall.examined, firewall.levels);
    let problem = |code| Problem::new(code, Resource::Organization);
    let mut problems = entries(firewall, access);
    let set = examined.organization.access_set(access);
    if set.is_empty() {
        problems.push(problem(Code::NoAddresses));
    }
    let listed = listed(examined, access);
    if !listed.is_subset(&levels.organization) {
        let outside = listed.difference(&levels.organization);
        problems.push(problem(Code::ExceedsOrganization).with_ranges(&outside, firewall.left));
    }
    let full = RangeSet::full();
    let families = [full.v4.is_subset(&set.v4), full.v6.is_subset(&set.v6)];
    if families != [false, false] {
        problems.push(problem(Code::AllowsAll));
        problems.extend(by_moment(&problem(Code::OpenToInternet), levels.opened(families)));
    }
    problems
}

/// The problems of the entries of an access setting. The caller puts in the node.
fn entries(firewall: &mut Firewall<'_, '_>, access: &Access) -> Vec<Problem> {
    access.entries().iter().filter_map(|entry| firewall.of_entry(&entry.source)).collect()
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
