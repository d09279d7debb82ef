//! A decision explained step by step (design.md §3.6).
//!
//! Invariant: the verdict and the result of each step are the evaluator's own (`Snapshot`). This module adds only where
//! in the policy they come from.
//! Not here: words for people (`api`).

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

/// The number of rules that a trace lists, besides the one that matched.
pub const RULES_TRACED_MAX: usize = 100;

/// An attempt to connect, whose decision is to be explained.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Where the connection comes from.
    pub address: Address,
    /// How the person connects.
    pub connection_type: ConnectionType,
    /// What the person connects to.
    pub target: NodePath<'a>,
    /// The moment of the decision.
    pub at: Timestamp,
}

/// A decision and the result of each step that led to it.
#[derive(Clone, Debug)]
pub struct Trace<'a> {
    /// The decision.
    pub verdict: Verdict<'a>,
    /// Whether the target is known. If it is not, the trace has no other step.
    pub known: bool,
    /// The step of the cluster's access.
    pub cluster: Option<AccessTrace<'a>>,
    /// The step of the firewall.
    pub firewall: Option<FirewallTrace<'a>>,
    /// The step of the organization's access.
    pub organization: Option<AccessTrace<'a>>,
    /// The step of the target's effective access; none when cluster, firewall and organization alone decide.
    pub effective: Option<AccessTrace<'a>>,
}

/// What one access setting permits, and why.
#[derive(Clone, Debug)]
pub struct AccessTrace<'a> {
    /// The level of the node that has the setting.
    pub level: Level,
    /// The setting.
    pub access: &'a Access,
    /// Whether the setting permits the address.
    pub permitted: bool,
    /// The narrowest listed range that contains the address.
    pub matched: Option<Listed<'a>>,
    /// When none contains it, the listed range of the same family that is nearest to the address.
    pub nearest: Option<Listed<'a>>,
}

/// A range that a rule or an allowlist names, by itself or by an address group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The range.
    pub range: Range,
    /// The group that has the range; none when it is named by itself.
    pub group: Option<&'a Id>,
}

/// What the firewall decides, and by which rules.
#[derive(Clone, Debug)]
pub struct FirewallTrace<'a> {
    /// The verdict of the firewall alone.
    pub verdict: Verdict<'a>,
    /// The number of rules that were tried: up to the one that matched, or all.
    pub tried: usize,
    /// The rules whose source contains the address, in order: the first [`RULES_TRACED_MAX`], and the one that matched.
    pub rules: Vec<RuleTrace<'a>>,
}

/// A rule whose source contains the address.
#[derive(Clone, Debug)]
pub struct RuleTrace<'a> {
    /// Its 0-based index.
    pub index: usize,
    /// The rule.
    pub rule: &'a Rule,
    /// Why it matched, or why not.
    pub outcome: RuleOutcome,
    /// The narrowest range of its source that contains the address.
    pub listed: Listed<'a>,
}

/// Why a rule whose source contains the address matched, or why not.
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
    /// An earlier rule matched, so it was not tried.
    NotReached,
}

/// Decides, and traces the steps of the decision.
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

/// The access setting of a level of the target.
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
    for (index, rule) in organization.rules.iter().enumerate() {
        let matched = verdict.first_match == Some(index);
        if rules.len() >= RULES_TRACED_MAX && !matched {
            if verdict.first_match.is_none_or(|first| first < index) {
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
        } else if rule.has_expired(*at) {
            RuleOutcome::Expired
        } else if !rule.connection_types.applies_to(*connection_type) {
            RuleOutcome::OtherConnectionType
        } else {
            RuleOutcome::NotReached
        };
        rules.push(RuleTrace { index, rule, outcome, listed });
    }
    let tried = verdict.first_match.map_or(organization.rules.len(), |index| index + 1);
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

/// The range of a source that is nearest to an address outside it, and its distance.
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

/// The distance from a range to an address outside it, as the difference of the numbers; none when the families differ.
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

/// Orders ranges that contain the same address from the widest to the narrowest.
fn prefix_length(range: Range) -> Option<u8> {
    match range {
        Range::Any => None,
        Range::V4(block) => Some(block.prefix_length()),
        Range::V6(block) => Some(block.prefix_length()),
    }
}
