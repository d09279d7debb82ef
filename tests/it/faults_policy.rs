//! Policies as the campaign over faults compares them: as the naive evaluator has them, with the marks of expired rules.
//!
//! Invariant: nothing is left out that decides, and no mark.
//! Not here: which policies were acknowledged (`faults_model`).

use std::time::Duration;

use portcullis::engine::Engine;
use portcullis::policy::node;
use portcullis::policy::organization::Organization;
use portcullis::policy::rule::{self, ConnectionType};
use portcullis::policy::time::Timestamp;

use crate::faults_actions::Edit;
use crate::naive;

/// When a rule expires that is marked as expired: before every moment.
const MARKED: i64 = i64::MIN;

/// The policy in force.
pub(crate) fn policy_of(engine: &Engine) -> naive::Policy {
    let cluster = engine.directory().cluster();
    let organizations = engine.directory().organizations_after(None, usize::MAX);
    let organizations = organizations.iter().map(|published| {
        let organization = &published.view.organization;
        (organization.id.to_string(), naive_of(organization))
    });
    naive::Policy {
        cluster: access(&cluster.cluster.node.access),
        cluster_revision: revision(cluster.cluster.revision),
        organizations: organizations.collect(),
    }
}

/// Whether rules of it may be marked as expired at some time, or are.
pub(crate) fn has_expiring(organization: &naive::Organization) -> bool {
    organization.rules.iter().any(|rule| rule.expire_time_ms.is_some())
}

/// An organization with every rule marked whose time has passed, and without its revision.
pub(crate) fn all_marked(organization: &naive::Organization, now: Duration) -> naive::Organization {
    let (mut marked, now) = (organization.clone(), i64::try_from(now.as_millis()).unwrap());
    marked.revision = 0;
    for rule in &mut marked.rules {
        rule.expire_time_ms = rule.expire_time_ms.map(|time| if time <= now { MARKED } else { time });
    }
    marked
}

/// Whether each rule that is marked as expired is so afterwards, but for the one that is named.
pub(crate) fn keeps_marks(before: &naive::Organization, after: &naive::Organization, named: Option<&str>) -> bool {
    let marked = before.rules.iter().filter(|rule| rule.expire_time_ms == Some(MARKED) && named != Some(&rule.id));
    let is_live = |id: &str| after.rules.iter().any(|rule| rule.id == id && rule.expire_time_ms != Some(MARKED));
    marked.into_iter().all(|rule| !is_live(&rule.id))
}

/// What an edit changes that it does not name, if anything.
pub(crate) fn changes_beside(
    before: &naive::Organization,
    after: &naive::Organization,
    edit: &Edit,
    now: Duration,
) -> Option<&'static str> {
    let (rule, group, node) = edit.named();
    if !keeps_marks(before, after, rule) {
        return Some("a mark");
    }
    let (mut before, mut after) = (all_marked(before, now), all_marked(after, now));
    for of in [&mut before, &mut after] {
        of.rules.retain(|of| rule != Some(&of.id));
        of.groups.retain(|id, _| group != Some(id));
        // What is below a node that is deleted goes with it.
        of.nodes.retain(|name, _| node.is_none_or(|node| node.is_empty() || !name.contains(node)));
    }
    let is_organization = node == Some("");
    // The first project of an organization makes it require projects.
    let is_created = matches!(edit, Edit::CreateNode { .. });
    let same = [
        ("rules", before.rules == after.rules),
        ("groups", before.groups == after.groups),
        ("nodes", is_organization || before.nodes == after.nodes),
        ("its access", is_organization || before.access == after.access),
        ("require_projects", is_organization || is_created || before.require_projects == after.require_projects),
    ];
    same.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
}

fn revision(revision: u64) -> i64 {
    i64::try_from(revision).unwrap()
}

pub(crate) fn naive_of(organization: &Organization) -> naive::Organization {
    let name = format!("organizations/{}", organization.id);
    let ranges = |group: &portcullis::policy::group::Group| {
        let mut ranges: Vec<String> = group.ranges().iter().map(|range| range.to_string()).collect();
        ranges.sort();
        ranges
    };
    naive::Organization {
        revision: revision(organization.revision),
        require_projects: organization.node.require_projects,
        access: access(&organization.node.access),
        rules: organization.rules.iter().map(|rule| rule_of(rule)).collect(),
        groups: organization.groups.iter().map(|(id, group)| (id.to_string(), ranges(group))).collect(),
        nodes: organization.nodes.iter().map(|(key, node)| (format!("{name}/{key}"), access(&node.access))).collect(),
    }
}

fn rule_of(rule: &rule::Rule) -> naive::Rule {
    naive::Rule {
        id: rule.id.to_string(),
        action: match rule.action {
            rule::Action::Allow => naive::Action::Allow,
            rule::Action::Deny => naive::Action::Deny,
        },
        source: source(&rule.source),
        connection_types: rule
            .connection_types
            .iter()
            .map(|connection_type| match connection_type {
                ConnectionType::Shell => naive::ConnectionType::Shell,
                ConnectionType::Preview => naive::ConnectionType::Preview,
            })
            .collect(),
        disabled: rule.disabled,
        expire_time_ms: if rule.expired { Some(MARKED) } else { rule.expire_time.map(Timestamp::millis) },
    }
}

fn source(source: &rule::Source) -> naive::Source {
    match source {
        rule::Source::Range(range) => naive::Source::Range(range.to_string()),
        rule::Source::Group(id) => naive::Source::Group(id.to_string()),
    }
}

pub(crate) fn access(access: &node::Access) -> naive::Access {
    match access {
        node::Access::Inherit => naive::Access::Inherit,
        node::Access::AllowAll => naive::Access::AllowAll,
        node::Access::AllowList(entries) => {
            naive::Access::AllowList(entries.iter().map(|entry| source(&entry.source)).collect())
        }
    }
}
