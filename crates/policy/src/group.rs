//! An address group: a named set of ranges of one organization (design.md §2.6).
//!
//! Invariant: `set` is the set of addresses that `ranges` covers. It is computed once when the ranges change, and
//! shared by all versions of the policy.
//! Not here: which rules and nodes use a group (`organization`).

use std::sync::Arc;

use super::name::Id;
use super::ranges::{RangeList, RangeSet};
use super::time::Timestamp;

/// An address group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id, unique among the organization's groups.
    pub id: Id,
    /// Free text.
    pub description: Arc<str>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When its settable fields or its ranges were last changed.
    pub update_time: Timestamp,
    /// The organization's revision that last changed its description or its ranges: what its etag holds.
    pub changed_at: u64,
    /// The organization's revision that last changed the ranges. Page tokens are bound to it, and compiled allowlists
    /// are shared by it.
    pub content_changed_at: u64,
    ranges: Arc<RangeList>,
    set: Arc<RangeSet>,
}

impl Group {
    /// A new group.
    pub fn new(id: Id, description: Arc<str>, ranges: RangeList, now: Timestamp, revision: u64) -> Self {
        Self {
            id,
            description,
            create_time: now,
            update_time: now,
            changed_at: revision,
            content_changed_at: revision,
            set: Arc::new(ranges.to_set()),
            ranges: Arc::new(ranges),
        }
    }

    /// The group with the update time, and the revision of its ranges, that were stored with it.
    #[must_use]
    pub fn with_history(self, update_time: Timestamp, content_changed_at: u64) -> Self {
        Self { update_time, content_changed_at, ..self }
    }

    /// The ranges.
    pub fn ranges(&self) -> &Arc<RangeList> {
        &self.ranges
    }

    /// The addresses that the ranges cover.
    pub fn set(&self) -> &Arc<RangeSet> {
        &self.set
    }

    /// The group with another description.
    #[must_use]
    pub(crate) fn with_description(&self, description: Arc<str>, now: Timestamp, revision: u64) -> Self {
        Self { description, update_time: now, changed_at: revision, ..self.clone() }
    }

    /// The group with other ranges.
    #[must_use]
    pub fn with_ranges(&self, ranges: RangeList, now: Timestamp, revision: u64) -> Self {
        Self {
            update_time: now,
            changed_at: revision,
            content_changed_at: revision,
            set: Arc::new(ranges.to_set()),
            ranges: Arc::new(ranges),
            ..self.clone()
        }
    }
}
