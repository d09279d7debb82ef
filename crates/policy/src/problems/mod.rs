//! What is probably not meant in a policy that is valid (design.md §3.6).
//!
//! Invariant: a problem is a fact about the policy as a function from addresses to decisions, at every moment from the
//! given one on. Where it is one from a later moment on, it names the first. Nothing is guessed.
//! Not here: words for people (`api`), and how often a rule matched, which the caller provides.

mod examined;
mod nodes;
mod problem;
mod rules;
mod segments;
mod translated;
mod translation;
mod whole;

pub use examined::Examined;
pub use problem::{Code, Problem, RANGES_MAX, RELATED_MAX, Resource};
pub use translation::{Nat64Prefix, Nat64PrefixError};

use super::name::NodeKey;
use super::node::Access;
use super::organization::Cluster;
use examined::LevelSets;

/// The problems of an organization and everything below it, the most severe first.
pub fn of_organization(examined: &Examined<'_>) -> Vec<Problem> {
    let levels = LevelSets::new(examined);
    let mut problems = rules::problems(examined, &levels);
    problems.extend(nodes::problems(examined, &levels, None));
    problems.extend(whole::locks(&levels));
    problems.extend(whole::guarded(examined));
    problems.extend(whole::tests(examined));
    sorted(problems)
}

/// The problems of the rules and groups of an organization, the most severe first.
pub fn of_firewall(examined: &Examined<'_>) -> Vec<Problem> {
    sorted(rules::problems(examined, &LevelSets::new(examined)))
}

/// The problems of a node below an organization, and of everything below the node, the most severe first.
pub fn of_node(examined: &Examined<'_>, key: &NodeKey) -> Vec<Problem> {
    sorted(nodes::problems(examined, &LevelSets::new(examined), Some(key)))
}

/// The problems of the cluster's access.
pub fn of_cluster(cluster: &Cluster) -> Vec<Problem> {
    let none = matches!(&cluster.node.access, Access::AllowList(entries) if entries.is_empty());
    if none { vec![Problem::new(Code::NoAddresses, Resource::Cluster)] } else { Vec::new() }
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|one, other| (one.code, &one.resource, one.from).cmp(&(other.code, &other.resource, other.from)));
    problems
}
