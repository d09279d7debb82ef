//! Planning changes of address groups.
//!
//! Invariant: a group that a rule or an allowlist names is never removed. Adding a range that is there and removing one
//! that is not there changes nothing (design.md §2.6).
//! Not here: parsing of ranges (`address`).

use std::sync::Arc;

use super::error::PlanError;
use super::etag::check_etag;
use super::task::{Task, check_limit};
use crate::change::{Delta, GroupContent};
use crate::group::Group;
use crate::name::{Id, Name};
use crate::ranges::RangeList;
use crate::rule::Source;

impl Task<'_> {
    pub(super) fn create_group(
        mut self,
        id: Id,
        description: Arc<str>,
        ranges: RangeList,
    ) -> Result<Vec<Delta>, PlanError> {
        if self.organization.groups.get(id.as_str()).is_some() {
            return Err(PlanError::AlreadyExists(self.group_name(&id)));
        }
        self.refuse()?;
        let limits = self.planner.limits;
        self.check_own_limit("address groups", self.organization.groups.len() + 1, limits.groups_per_organization_max)?;
        self.check_range_limits(&id, 0, ranges.len())?;
        let mut deltas = vec![Delta::SetGroup { id: id.clone(), description }];
        if !ranges.is_empty() {
            deltas.push(Delta::SetGroupContent { id, content: GroupContent::Whole(ranges) });
        }
        Ok(deltas)
    }

    pub(super) fn update_group(
        mut self,
        id: Id,
        etag: Option<&str>,
        description: Option<Arc<str>>,
    ) -> Result<Vec<Delta>, PlanError> {
        let group = self.guarded_group(&id, etag)?;
        self.refuse()?;
        let changed = description.filter(|description| *description != group.description);
        Ok(changed.map(|description| Delta::SetGroup { id, description }).into_iter().collect())
    }

    pub(super) fn delete_group(mut self, id: Id, etag: Option<&str>) -> Result<Vec<Delta>, PlanError> {
        self.guarded_group(&id, etag)?;
        self.refuse()?;
        if let Some(user) = self.used_by(&id) {
            return Err(PlanError::GroupInUse { group: self.group_name(&id), user });
        }
        Ok(vec![Delta::RemoveGroup { id }])
    }

    pub(super) fn add_ranges(mut self, id: Id, ranges: &RangeList) -> Result<Vec<Delta>, PlanError> {
        let group = self.guarded_group(&id, None)?;
        self.refuse()?;
        let added = ranges.without(group.ranges());
        self.patch(id, &group, added, RangeList::default())
    }

    pub(super) fn remove_ranges(mut self, id: Id, ranges: &RangeList) -> Result<Vec<Delta>, PlanError> {
        let group = self.guarded_group(&id, None)?;
        self.refuse()?;
        let removed = ranges.without(&ranges.without(group.ranges()));
        self.patch(id, &group, RangeList::default(), removed)
    }

    pub(super) fn patch_ranges(
        mut self,
        id: Id,
        etag: Option<&str>,
        added: &RangeList,
        removed: &RangeList,
    ) -> Result<Vec<Delta>, PlanError> {
        let group = self.guarded_group(&id, etag)?;
        self.refuse()?;
        let added = added.without(group.ranges());
        let removed = removed.without(&removed.without(group.ranges()));
        self.patch(id, &group, added, removed)
    }

    pub(super) fn replace_ranges(
        mut self,
        id: Id,
        etag: Option<&str>,
        ranges: RangeList,
    ) -> Result<Vec<Delta>, PlanError> {
        let group = self.guarded_group(&id, etag)?;
        self.refuse()?;
        let (added, removed) = (ranges.without(group.ranges()), group.ranges().without(&ranges));
        if added.len() + removed.len() < ranges.len() {
            return self.patch(id, &group, added, removed);
        }
        if ranges == **group.ranges() {
            return Ok(Vec::new());
        }
        self.check_range_limits(&id, group.ranges().len(), ranges.len())?;
        Ok(vec![Delta::SetGroupContent { id, content: GroupContent::Whole(ranges) }])
    }

    fn patch(&self, id: Id, group: &Group, added: RangeList, removed: RangeList) -> Result<Vec<Delta>, PlanError> {
        if added.is_empty() && removed.is_empty() {
            return Ok(Vec::new());
        }
        let old = group.ranges().len();
        if added.len() > removed.len() {
            self.check_range_limits(&id, old, old + added.len() - removed.len())?;
        }
        Ok(vec![Delta::SetGroupContent { id, content: GroupContent::Patch { added, removed } }])
    }

    /// Refuses a group that grows from `old` to `new` ranges when that exceeds a limit.
    fn check_range_limits(&self, id: &Id, old: usize, new: usize) -> Result<(), PlanError> {
        let limits = self.planner.limits;
        check_limit("ranges", || self.group_name(id), new, limits.ranges_per_group_max)?;
        let all: usize = self.organization.groups.values().map(|group| group.ranges().len()).sum();
        self.check_own_limit(
            "ranges of all address groups",
            (all + new).saturating_sub(old),
            limits.ranges_per_organization_max,
        )
    }

    /// The name of the first rule or node that uses the group.
    fn used_by(&self, id: &Id) -> Option<String> {
        let organization = self.organization;
        let names = |source: &Source| matches!(source, Source::Group(named) if named == id);
        let listed = |entries: &[crate::node::AccessEntry]| entries.iter().any(|entry| names(&entry.source));
        let name = Name::organization(&organization.id).to_string();
        if let Some(rule) = organization.rules.iter().find(|rule| names(&rule.source)) {
            return Some(format!("{name}/rules/{}", rule.id));
        }
        if listed(organization.node.access.entries()) {
            return Some(name);
        }
        let node = organization.nodes.iter().find(|(_, node)| listed(node.access.entries()));
        node.map(|(key, _)| format!("{name}/{key}"))
    }

    fn guarded_group(&self, id: &Id, etag: Option<&str>) -> Result<Arc<Group>, PlanError> {
        let name = self.group_name(id);
        let Some(group) = self.organization.groups.get(id.as_str()) else { return Err(PlanError::NotFound(name)) };
        check_etag(&name, etag, &self.planner.etags.group(group.changed_at))?;
        Ok(Arc::clone(group))
    }

    fn group_name(&self, id: &Id) -> String {
        Name::group(&self.organization.id, id).to_string()
    }
}
