//! What is probably not meant in a policy that is valid (design.md §3.6).
//!
//! Invariant: a problem is a fact about the policy as a function from addresses to decisions, at every moment from the
//! given one on. Where it is one from a later moment on, it names the first. Nothing is guessed: what takes too many steps
//! to find out is left out, and the answer says so.
//! Not here: words for people (`api`), and how often a rule matched, which the caller provides.

mod ends;
mod examined;
mod nodes;
mod problem;
mod rules;
mod segments;
mod shadows;
mod sources;
mod stairs;
mod steps;
mod translated;
mod translation;
mod whole;

pub use examined::Examined;
pub use problem::{Code, Found, Problem, RANGES_MAX, RELATED_MAX, Resource};
pub use translation::{Nat64Prefix, Nat64PrefixError};

use super::name::NodeKey;
use super::node::Access;
use super::organization::Cluster;
use examined::LevelSets;
use problem::RANGES_OF_ALL_MAX;
use steps::Steps;

/// The problems of an organization and everything below it.
pub fn of_organization(examined: &Examined<'_>) -> Found {
    let (levels, mut left) = (LevelSets::new(examined), Steps::new(RANGES_OF_ALL_MAX));
    let mut found = rules::problems(examined, &levels, &mut left);
    found.problems.extend(nodes::problems(examined, &levels, None, &mut left));
    found.problems.extend(whole::locks(&levels));
    found.problems.extend(whole::opened(examined, &levels));
    found.problems.extend(whole::guarded(examined));
    let (tests, is_unknown) = whole::tests(examined);
    found.problems.extend(tests);
    found.incomplete |= is_unknown;
    finished(found, &levels, &left)
}

/// The problems of the rules and groups of an organization.
pub fn of_firewall(examined: &Examined<'_>) -> Found {
    let (levels, mut left) = (LevelSets::new(examined), Steps::new(RANGES_OF_ALL_MAX));
    let found = rules::problems(examined, &levels, &mut left);
    finished(found, &levels, &left)
}

/// The problems of a node below an organization, and of everything below the node.
pub fn of_node(examined: &Examined<'_>, key: &NodeKey) -> Found {
    let (levels, mut left) = (LevelSets::new(examined), Steps::new(RANGES_OF_ALL_MAX));
    let problems = nodes::problems(examined, &levels, Some(key), &mut left);
    finished(Found { problems, ..Found::default() }, &levels, &left)
}

/// The problems of the cluster's access.
pub fn of_cluster(cluster: &Cluster) -> Vec<Problem> {
    let none = matches!(&cluster.node.access, Access::AllowList(entries) if entries.is_empty());
    if none { vec![Problem::new(Code::NoAddresses, Resource::Cluster)] } else { Vec::new() }
}

fn finished(mut found: Found, levels: &LevelSets, left: &Steps) -> Found {
    found
        .problems
        .sort_by(|one, other| (one.code, &one.resource, one.from).cmp(&(other.code, &other.resource, other.from)));
    found.incomplete |= left.is_short() || levels.are_short();
    found
}
