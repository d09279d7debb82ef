//! One mutation while it is planned, and the checks that all mutations share.
//!
//! Invariant: violations are collected and refused all at once.
//! Not here: what each kind of mutation changes (`rules`, `groups`, `nodes`, `tests`, `document`, `shadow`).

use super::error::{PlanError, VIOLATIONS_MAX, Violation, refuse};
use super::etag::Etags;
use crate::limits::Limits;
use crate::name::Name;
use crate::node::{Node, NodePatch};
use crate::organization::{Cluster, Organization};
use crate::rule::Source;
use crate::time::Timestamp;

pub(super) const INHERIT_REFUSED: &str = "cannot be ACCESS_MODE_INHERIT, which is for workspaces and endpoints only: \
                                          use ACCESS_MODE_ALLOW_ALL or ACCESS_MODE_ALLOW_LIST";
pub(super) const REQUIRE_PROJECTS_REFUSED: &str = "is a setting of organizations only: leave it out";

/// Plans changes. Holds what planning needs besides the state of the organization.
#[derive(Clone, Copy, Debug)]
pub struct Planner<'a> {
    /// The time of the change.
    pub now: Timestamp,
    /// The limits of a policy's size.
    pub limits: &'a Limits,
    /// The cluster, which no deletion below it can permit more than.
    pub cluster: &'a Cluster,
    /// The etags that are current.
    pub etags: Etags,
}

/// One mutation while it is planned.
pub(super) struct Task<'a> {
    pub(super) planner: Planner<'a>,
    pub(super) organization: &'a Organization,
    /// The organization's revision after the change.
    pub(super) revision: u64,
    pub(super) violations: Vec<Violation>,
}

impl Planner<'_> {
    /// Refuses more entries than the node of a name may have.
    pub(super) fn check_entry_limit(&self, patch: &NodePatch, name: impl FnOnce() -> String) -> Result<(), PlanError> {
        let entries = patch.access.as_ref().map_or(0, |access| access.entries().len());
        check_limit("entries", name, entries, self.limits.entries_per_node_max)
    }

    /// The node with the patch's values, changed at `revision`; none when nothing changes.
    pub(super) fn changed_node(&self, old: &Node, patch: &NodePatch, revision: u64) -> Option<Node> {
        let mut node = patch.applied_to(old);
        if node == *old {
            return None;
        }
        (node.update_time, node.changed_at) = (self.now, revision);
        Some(node)
    }
}

impl Task<'_> {
    /// Refuses more of something than the organization may have.
    pub(super) fn check_own_limit(&self, what: &str, would_be: usize, max: usize) -> Result<(), PlanError> {
        check_limit(what, || Name::organization(&self.organization.id).to_string(), would_be, max)
    }

    /// Adds a violation when a source names a group that does not exist.
    pub(super) fn check_group(&mut self, field: &str, source: Option<&Source>) {
        if let Some(Source::Group(id)) = source
            && self.organization.groups.get(id.as_str()).is_none()
        {
            let name = Name::group(&self.organization.id, id).to_string();
            self.violation(field, format!("`{name}` does not exist: create the group first"));
        }
    }

    /// Adds a violation, unless there are so many that nobody would read it.
    pub(super) fn violation(&mut self, field: &str, description: impl Into<String>) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation::new(field, description));
        }
    }

    /// Refuses the mutation when there is a violation.
    pub(super) fn refuse(&mut self) -> Result<(), PlanError> {
        refuse(std::mem::take(&mut self.violations))
    }
}

/// Refuses more of something than an object may have. `of` is its name.
pub(super) fn check_limit(
    what: &str,
    of: impl FnOnce() -> String,
    would_be: usize,
    max: usize,
) -> Result<(), PlanError> {
    if would_be <= max {
        return Ok(());
    }
    Err(PlanError::LimitReached { what: format!("{what} of `{}`", of()), max, would_be })
}
