//! The compiled form of an allowlist: is this address permitted?
//!
//! Invariant: lists with the same content share one compiled form, however many nodes have them.
//! Not here: which node's list applies (`snapshot`).

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::address::{Address, Range};
use super::intervals::IntervalMap;
use super::name::Id;
use super::node::{Access, AccessEntry};
use super::organization::Organization;
use super::ranges::RangeSet;
use super::rule::Source;
use super::table::Table;

/// The members of an allowlist, both families.
#[derive(Debug)]
pub struct Members {
    v4: Table<u32>,
    v6: Table<u128>,
}

impl Members {
    /// Compiles a set.
    pub fn new(set: &RangeSet) -> Self {
        Self { v4: Table::new(IntervalMap::of_set(&set.v4)), v6: Table::new(IntervalMap::of_set(&set.v6)) }
    }

    /// Whether the address is a member.
    #[inline]
    pub fn contains(&self, address: Address) -> bool {
        match address {
            Address::V4(word) => self.v4.label(word) == 1,
            Address::V6(word) => self.v6.label(word) == 1,
        }
    }
}

/// A node's own setting, compiled.
#[derive(Clone, Debug)]
pub enum CompiledAccess {
    /// Look at the parent.
    Inherit,
    /// Everything.
    AllowAll,
    /// These and no others.
    AllowList(Arc<Members>),
}

/// What makes two allowlists the same: their ranges, and their groups at the revision of their content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ListKey {
    ranges: Vec<Range>,
    groups: Vec<(Id, u64)>,
}

/// Compiled allowlists by content, so that equal lists are compiled once. One for each organization; it holds no list
/// alive.
#[derive(Debug, Default)]
pub struct MembersCache {
    lists: HashMap<ListKey, Weak<Members>>,
    /// Number of lists at which dead ones are swept out.
    sweep_at: usize,
}

impl MembersCache {
    /// The compiled form of a setting of the organization.
    pub fn compile(&mut self, organization: &Organization, access: &Access) -> CompiledAccess {
        match access {
            Access::Inherit => CompiledAccess::Inherit,
            Access::AllowAll => CompiledAccess::AllowAll,
            Access::AllowList(entries) => {
                let key = list_key(organization, entries);
                if let Some(members) = self.lists.get(&key).and_then(Weak::upgrade) {
                    return CompiledAccess::AllowList(members);
                }
                let members = Arc::new(Members::new(&organization.access_set(access)));
                self.sweep();
                self.lists.insert(key, Arc::downgrade(&members));
                CompiledAccess::AllowList(members)
            }
        }
    }

    fn sweep(&mut self) {
        const SWEEP_AT_LEAST: usize = 64;
        if self.lists.len() >= self.sweep_at.max(SWEEP_AT_LEAST) {
            self.lists.retain(|_, members| members.strong_count() > 0);
            self.sweep_at = 2 * self.lists.len();
        }
    }
}

fn list_key(organization: &Organization, entries: &[AccessEntry]) -> ListKey {
    let mut key = ListKey { ranges: Vec::new(), groups: Vec::new() };
    for entry in entries {
        match &entry.source {
            Source::Range(range) => key.ranges.push(*range),
            Source::Group(id) => {
                let content = organization.groups.get(id.as_str()).map_or(0, |group| group.content_changed_at);
                key.groups.push((id.clone(), content));
            }
        }
    }
    key.ranges.sort_unstable();
    key.ranges.dedup();
    key.groups.sort_unstable();
    key.groups.dedup();
    key
}
