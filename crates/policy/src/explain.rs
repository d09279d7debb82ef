//! How a decision comes about, step by step (design.md §3.6).
//!
//! Invariant: how each step came out, and the verdict, are the evaluator's own (`Snapshot`); what is added here is where
//! in the policy that comes from.
//! Not here: words for people, and the time, which is given.

use std::collections::HashMap;

use super::address::{Address, Range};
use super::decision::{Level, Verdict};
use super::name::{Id, NodeKey, NodePath};
use super::node::Access;
use super::organization::Organization;
use super::rule::{ConnectionType, Rule, Source};
use super::snapshot::Step;
use super::time::Timestamp;
use super::version::Version;

/// Rules that a trace lists at most, besides the one that matched.
pub const RULES_TRACED_MAX: usize = 100;

/// An attempt to connect, which is to be explained.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Where the connection comes from.
    pub address: Address,
    /// How the person connects.
    pub connection_type: ConnectionType,
    /// What the person connects to.
    pub target: NodePath<'a>,
    /// The moment to decide for.
    pub at: Timestamp,
}

/// A decision and how it came about.
#[derive(Clone, Debug)]
pub struct Trace<'a> {
    /// The decision.
    pub verdict: Verdict<'a>,
    /// Whether the target is known. Where it is not, there is nothing else.
    pub known: bool,
    /// What the cluster's access has to say.
    pub cluster: Option<AccessTrace<'a>>,
    /// What the firewall has to say.
    pub firewall: Option<FirewallTrace<'a>>,
    /// What the organization's own access has to say.
    pub organization: Option<AccessTrace<'a>>,
    /// What the effective access of the target has to say; none where only the organization's levels apply.
    pub effective: Option<AccessTrace<'a>>,
}

/// What an own access has to say.
#[derive(Clone, Debug)]
pub struct AccessTrace<'a> {
    /// Whose it is.
    pub level: Level,
    /// What it is.
    pub access: &'a Access,
    /// Whether it permits the address.
    pub permitted: bool,
    /// The narrowest listed range that contains the address.
    pub matched: Option<Listed<'a>>,
    /// Where none does, the listed range of the same family that is nearest to the address.
    pub nearest: Option<Listed<'a>>,
}

/// A range, and the group that it stands in where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The range.
    pub range: Range,
    /// The group.
    pub group: Option<&'a Id>,
}

/// What the firewall has to say.
#[derive(Clone, Debug)]
pub struct FirewallTrace<'a> {
    /// Its verdict by itself.
    pub verdict: Verdict<'a>,
    /// How many rules were tried: up to the one that matched, or all.
    pub tried: usize,
    /// The rules whose source contains the address, in order: the first [`RULES_TRACED_MAX`], and the one that matched.
    pub rules: Vec<RuleTrace<'a>>,
}

/// A rule whose source contains the address.
#[derive(Clone, Debug)]
pub struct RuleTrace<'a> {
    /// Its place in the order; 0 is the first.
    pub place: usize,
    /// The rule.
    pub rule: &'a Rule,
    /// What became of it.
    pub outcome: RuleOutcome,
    /// The narrowest range of its source that contains the address.
    pub listed: Listed<'a>,
}

/// What became of a rule whose source contains the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleOutcome {
    /// It is the first that matches.
    Matched,
    /// It is disabled.
    Disabled,
    /// It is expired.
    Expired,
    /// It does not apply to the connection type.
    OtherConnectionType,
    /// It would match, but one before it did.
    NotReached,
}

/// Decides, and notes how that comes about.
pub fn explain<'a>(policy: &Version<'a>, attempt: &Attempt<'_>) -> Trace<'a> {
    let Attempt { address, connection_type, target, at } = attempt;
    let mut steps = Vec::new();
    let verdict = policy.snapshot.evaluate(policy.cluster_snapshot, *address, *connection_type, target, *at, |step| {
        steps.push(step);
        true
    });
    let mut trace = Trace { verdict, known: false, cluster: None, firewall: None, organization: None, effective: None };
    for step in steps {
        match step {
            Step::Target { known } => trace.known = known,
            Step::Firewall(verdict) => trace.firewall = Some(firewall(policy.organization, attempt, verdict)),
            Step::Access { level, permitted } => {
                let own = access(policy, target, level)
                    .map(|access| access_trace(policy.organization, *address, level, access, permitted));
                match level {
                    Level::Cluster => trace.cluster = own,
                    Level::Organization => trace.organization = own,
                    Level::Project | Level::Workspace | Level::Endpoint => trace.effective = own,
                }
            }
        }
    }
    trace
}

/// The own access of a level of the target.
fn access<'a>(policy: &Version<'a>, target: &NodePath<'_>, level: Level) -> Option<&'a Access> {
    let key = |path: NodePath<'_>| NodeKey::of(&path);
    let key = match level {
        Level::Cluster => return Some(&policy.cluster.node.access),
        Level::Organization => return Some(&policy.organization.node.access),
        Level::Project => key(NodePath { workspace: None, endpoint: None, ..*target }),
        Level::Workspace => key(NodePath { endpoint: None, ..*target }),
        Level::Endpoint => key(*target),
    };
    policy.organization.nodes.get(&key?).map(|node| &node.access)
}

fn access_trace<'a>(
    organization: &'a Organization,
    address: Address,
    level: Level,
    access: &'a Access,
    permitted: bool,
) -> AccessTrace<'a> {
    let sources = || access.entries().iter().map(|entry| &entry.source);
    let matched = sources()
        .filter_map(|source| containing(organization, source, address))
        .max_by_key(|listed| prefix_length(listed.range));
    let nearest = if permitted || matched.is_some() {
        None
    } else {
        let near = sources().filter_map(|source| nearest(organization, source, address));
        near.min_by_key(|(distance, _)| *distance).map(|(_, listed)| listed)
    };
    AccessTrace { level, access, permitted, matched, nearest }
}

fn firewall<'a>(organization: &'a Organization, attempt: &Attempt<'_>, verdict: Verdict<'a>) -> FirewallTrace<'a> {
    let Attempt { address, connection_type, at, .. } = attempt;
    let mut of_groups: HashMap<&Id, Option<Listed<'_>>> = HashMap::new();
    let mut rules = Vec::new();
    for (place, rule) in organization.rules.iter().enumerate() {
        let matched = verdict.first_match == Some(place);
        if rules.len() >= RULES_TRACED_MAX && !matched {
            if verdict.first_match.is_none_or(|first| first < place) {
                break;
            }
            continue;
        }
        let listed = match &rule.source {
            source @ Source::Range(_) => containing(organization, source, *address),
            source @ Source::Group(id) => {
                *of_groups.entry(id).or_insert_with(|| containing(organization, source, *address))
            }
        };
        let Some(listed) = listed else { continue };
        let outcome = if matched {
            RuleOutcome::Matched
        } else if rule.disabled {
            RuleOutcome::Disabled
        } else if rule.expire_time.is_some_and(|time| time <= *at) {
            RuleOutcome::Expired
        } else if !rule.connection_types.applies_to(*connection_type) {
            RuleOutcome::OtherConnectionType
        } else {
            RuleOutcome::NotReached
        };
        rules.push(RuleTrace { place, rule, outcome, listed });
    }
    let tried = verdict.first_match.map_or(organization.rules.len(), |place| place + 1);
    FirewallTrace { verdict, tried, rules }
}

/// The narrowest range of a source that contains the address.
fn containing<'a>(organization: &'a Organization, source: &'a Source, address: Address) -> Option<Listed<'a>> {
    match source {
        Source::Range(range) => range.contains(address).then_some(Listed { range: *range, group: None }),
        Source::Group(id) => {
            let group = organization.groups.get(id.as_str())?;
            if !group.set().contains(address) {
                return None;
            }
            let containing = group.ranges().iter().filter(|range| range.contains(address));
            let range = containing.max_by_key(|range| prefix_length(*range))?;
            Some(Listed { range, group: Some(id) })
        }
    }
}

/// The range of a source that is nearest to an address that is not in it, and how far away it is.
fn nearest<'a>(organization: &'a Organization, source: &'a Source, address: Address) -> Option<(u128, Listed<'a>)> {
    let far = |range: Range, group| Some((distance(range, address)?, Listed { range, group }));
    match source {
        Source::Range(range) => far(*range, None),
        Source::Group(id) => {
            let group = organization.groups.get(id.as_str())?;
            let ranges = group.ranges().iter().filter_map(|range| far(range, Some(id)));
            ranges.min_by_key(|(distance, _)| *distance)
        }
    }
}

/// How many addresses lie from a range to an address outside of it; none where the families differ.
fn distance(range: Range, address: Address) -> Option<u128> {
    match (range, address) {
        (Range::V4(block), Address::V4(word)) => {
            let below = block.first().checked_sub(word);
            Some(below.or_else(|| word.checked_sub(block.last())).unwrap_or_default().into())
        }
        (Range::V6(block), Address::V6(word)) => {
            let below = block.first().checked_sub(word);
            Some(below.or_else(|| word.checked_sub(block.last())).unwrap_or_default())
        }
        _ => None,
    }
}

/// How narrow a range is, among those that contain the same address.
fn prefix_length(range: Range) -> Option<u8> {
    match range {
        Range::Any => None,
        Range::V4(block) => Some(block.prefix_length()),
        Range::V6(block) => Some(block.prefix_length()),
    }
}
