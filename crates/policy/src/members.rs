//! Compiled allowlists: whether an address is permitted.
//!
//! Invariant: allowlists with the same content share one compiled form, however many nodes have them.
//! Not here: which node's allowlist applies (`snapshot`).

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::address::{Address, Range};
use super::intervals::IntervalMap;
use super::name::Id;
use super::node::{Access, AccessEntry};
use super::organization::Organization;
use super::ranges::{RangeList, RangeSet};
use super::rule::Source;
use super::table::Table;

/// A compiled set of addresses.
#[derive(Debug)]
pub struct Members {
    v4: Table<u32>,
    v6: Table<u128>,
}

impl Members {
    /// Compiles a set of addresses.
    pub fn new(set: &RangeSet) -> Self {
        Self { v4: Table::new(IntervalMap::of_set(&set.v4)), v6: Table::new(IntervalMap::of_set(&set.v6)) }
    }

    /// Whether the address is in the set.
    #[inline]
    pub fn contains(&self, address: Address) -> bool {
        match address {
            Address::V4(word) => self.v4.label(word) == 1,
            Address::V6(word) => self.v6.label(word) == 1,
        }
    }
}

/// A compiled allowlist. Its own ranges and its small groups are one set. Each large group is a set that all allowlists
/// with that group share.
#[derive(Debug)]
pub(crate) struct List {
    own: Members,
    groups: Box<[Arc<Members>]>,
}

impl List {
    /// An allowlist without large groups.
    pub(crate) fn of_set(set: &RangeSet) -> Self {
        Self { own: Members::new(set), groups: Box::default() }
    }

    /// Whether the address is permitted.
    #[inline]
    pub(crate) fn contains(&self, address: Address) -> bool {
        self.own.contains(address) || self.groups.iter().any(|group| group.contains(address))
    }
}

/// Groups with at least this many ranges are compiled by themselves. It is cheaper to copy a smaller group into each
/// allowlist than to look it up separately.
const OWN_TABLE_FROM: usize = 1_024;

/// A node's compiled access setting.
#[derive(Clone, Debug)]
pub(crate) enum CompiledAccess {
    /// The parent's effective access applies.
    Inherit,
    /// Every address is permitted.
    AllowAll,
    /// The addresses of the allowlist are permitted, and no others.
    AllowList(Arc<List>),
}

/// The content of an allowlist: its ranges, and its groups with the revision that last changed their ranges.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ListKey {
    ranges: Vec<Range>,
    groups: Vec<(Id, u64)>,
}

/// A cache of compiled allowlists and large groups by content, so that equal ones are compiled once. An organization
/// needs one of its own. It holds weak references: snapshots keep what they use.
#[derive(Debug, Default)]
pub struct MembersCache {
    lists: HashMap<ListKey, Weak<List>>,
    groups: HashMap<(Id, u64), Weak<Members>>,
    /// The number of allowlists at which unused ones are removed.
    sweep_at: usize,
}

impl MembersCache {
    /// The compiled form of an access setting of the organization.
    pub(crate) fn compile(&mut self, organization: &Organization, access: &Access) -> CompiledAccess {
        let entries = match access {
            Access::Inherit => return CompiledAccess::Inherit,
            Access::AllowAll => return CompiledAccess::AllowAll,
            Access::AllowList(entries) => entries,
        };
        let key = list_key(organization, entries);
        if let Some(list) = self.lists.get(&key).and_then(Weak::upgrade) {
            return CompiledAccess::AllowList(list);
        }
        self.sweep();
        let mut own = key.ranges.iter().copied().collect::<RangeList>().to_set();
        let mut groups = Vec::new();
        for (id, content) in &key.groups {
            let Some(group) = organization.groups.get(id.as_str()) else { continue };
            if group.ranges().len() < OWN_TABLE_FROM {
                own = own.union(group.set());
            } else {
                groups.push(self.group((id.clone(), *content), group.set()));
            }
        }
        let list = Arc::new(List { own: Members::new(&own), groups: groups.into() });
        self.lists.insert(key, Arc::downgrade(&list));
        CompiledAccess::AllowList(list)
    }

    fn group(&mut self, key: (Id, u64), set: &RangeSet) -> Arc<Members> {
        if let Some(members) = self.groups.get(&key).and_then(Weak::upgrade) {
            return members;
        }
        let members = Arc::new(Members::new(set));
        self.groups.insert(key, Arc::downgrade(&members));
        members
    }

    fn sweep(&mut self) {
        const SWEEP_AT_LEAST: usize = 64;
        if self.lists.len() >= self.sweep_at.max(SWEEP_AT_LEAST) {
            self.lists.retain(|_, list| list.strong_count() > 0);
            self.groups.retain(|_, members| members.strong_count() > 0);
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
