//! What a change of policy altered, as the audit log holds it: every object before and after.
//!
//! Invariant: one item for each object that was altered, and a bounded record: what is too large becomes counts and a
//! digest, and what is too much is counted.
//! Not here: making changes (`policy::plan`, `policy::organization`), the record's bytes (`store::codec`).

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::record::{DigestRecord, GroupRecord, Object, ObjectChange};
use portcullis_policy::address::Range;
use portcullis_policy::change::{Change, Delta, Effect, GroupContent};
use portcullis_policy::group::Group;
use portcullis_policy::name::{Id, NodeKey};
use portcullis_policy::node::{AccessEntry, Node};
use portcullis_policy::organization::{Cluster, Organization};
use portcullis_policy::policy_test::PolicyTest;
use portcullis_policy::ranges::RangeList;
use portcullis_policy::rule::{Rule, Source};
use portcullis_policy::state::Outcome;

/// The most bytes, as estimated, that may be recorded.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Of all objects together.
    objects: usize,
    /// Of one object that is recorded whole.
    object: usize,
}

impl Room {
    /// A record's: it has at most 32 KiB.
    pub const RECORD: Self = Self { objects: 24 * 1024, object: 16 * 1024 };
    /// An answer's: it has at most 4 MiB.
    pub const ANSWER: Self = Self { objects: 1024 * 1024, object: 512 * 1024 };
}

/// Bytes that an item costs besides what it holds.
const ITEM_BYTES: usize = 64;

/// Ranges that a digest names.
const FIRST_RANGES_MAX: usize = 100;

/// The name of the digest that counts the objects which are not even digested.
const OTHERS: &str = "others";

/// What `change` altered between the organization `before` (or the cluster) and `outcome`, as a record holds it.
pub fn changes(
    change: &Change,
    before: Option<&Organization>,
    cluster_before: Option<&Cluster>,
    outcome: &Outcome,
) -> Vec<ObjectChange> {
    changes_within(Room::RECORD, change, before, cluster_before, outcome)
}

/// As [`changes`], within other bounds.
pub fn changes_within(
    room: Room,
    change: &Change,
    before: Option<&Organization>,
    cluster_before: Option<&Cluster>,
    outcome: &Outcome,
) -> Vec<ObjectChange> {
    let mut items = Items { room, changes: Vec::new(), bytes: 0, left_out: 0, left_out_names: Sha256::default() };
    match (&change.effect, outcome) {
        (Effect::Cluster { .. }, Outcome::Cluster(after)) => {
            // The empty state's cluster was never seen by anybody.
            let before = cluster_before.filter(|before| before.revision > 0);
            items.add("", before.map(|cluster| own_node(&cluster.node)), Some(own_node(&after.node)));
        }
        (Effect::CreateOrganization { .. }, Outcome::Organization(after)) => {
            items.add("", None, Some(own_node(&after.node)));
        }
        (Effect::DeleteOrganization { .. }, _) => {
            if let Some(before) = before {
                deleted(before, &mut items);
            }
        }
        (Effect::Organization { deltas, .. }, Outcome::Organization(after)) => {
            if let Some(before) = before {
                altered(deltas, before, after, &mut items);
            }
        }
        _ => {}
    }
    items.finish()
}

/// Items so far, and what they weigh.
struct Items {
    room: Room,
    changes: Vec<ObjectChange>,
    bytes: usize,
    /// Objects that are only counted, and their names.
    left_out: u64,
    left_out_names: Sha256,
}

impl Items {
    fn add(&mut self, key: &str, before: Option<Object>, after: Option<Object>) {
        let full = before.iter().chain(&after).map(weight).sum::<usize>();
        let room = self.room.objects.saturating_sub(self.bytes);
        if full <= room.min(self.room.object) {
            self.bytes += full;
            self.changes.push(ObjectChange { before, after });
            return;
        }
        let digests = |objects: Option<Object>, ranges| objects.map(|object| digest(key, &object, ranges));
        for ranges in [FIRST_RANGES_MAX, 0] {
            let (before, after) = (digests(before.clone(), ranges), digests(after.clone(), ranges));
            let bytes = before.iter().chain(&after).map(weight).sum::<usize>();
            if bytes <= room {
                self.bytes += bytes;
                self.changes.push(ObjectChange { before, after });
                return;
            }
        }
        self.left_out += 1;
        line(&mut self.left_out_names, key);
    }

    /// Whether another object would only be counted.
    fn is_full(&self) -> bool {
        self.bytes + 2 * ITEM_BYTES > self.room.objects
    }

    fn leave_out(&mut self, key: &impl Display) {
        self.left_out += 1;
        line(&mut self.left_out_names, key);
    }

    fn finish(mut self) -> Vec<ObjectChange> {
        if self.left_out > 0 {
            let sha256 = self.left_out_names.finalize().into();
            let others =
                DigestRecord { key: OTHERS.into(), item_count: self.left_out, sha256, first_ranges: Vec::new() };
            self.changes.push(ObjectChange { before: None, after: Some(Object::Digest(others)) });
        }
        self.changes
    }
}

fn deleted(before: &Organization, items: &mut Items) {
    items.add("", Some(own_node(&before.node)), None);
    for (key, node) in before.nodes.iter() {
        node_item(key, Some(node), None, items);
    }
    for (index, rule) in before.rules.iter().enumerate() {
        rule_item(Some((index, rule)), None, items);
    }
    for (_, group) in before.groups.iter() {
        items.add(&format!("addressGroups/{}", group.id), Some(group_object(group, group.ranges())), None);
    }
    for test in before.tests.iter() {
        items.add(&format!("policyTests/{}", test.id), Some(Object::Test(Arc::new(test.clone()))), None);
    }
}

fn altered(deltas: &[Delta], before: &Organization, after: &Organization, items: &mut Items) {
    let (mut rules, mut nodes, mut groups) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut own, mut order, mut tests) = (false, false, false);
    for delta in deltas {
        match delta {
            Delta::SetOrganization { .. } => own = true,
            Delta::SetTests { .. } => tests = true,
            Delta::Confirm { .. } | Delta::SetShadowPolicy { .. } | Delta::RemoveShadowPolicy => {}
            Delta::SetNode { key, .. } => drop(nodes.insert(key.clone())),
            Delta::RemoveNode { key } => {
                nodes.extend(before.nodes.iter().map(|(below, _)| below).filter(|below| below.is_within(key)).cloned());
            }
            Delta::InsertRule { rule, .. } | Delta::SetRule { rule } => drop(rules.insert(rule.id.clone())),
            Delta::RemoveRule { id } => drop(rules.insert(id.clone())),
            Delta::MoveRule { .. } | Delta::OrderRules { .. } => order = true,
            Delta::ReplaceRules { .. } => {
                rules.extend(before.rules.iter().chain(after.rules.iter()).map(|rule| rule.id.clone()));
                order = true;
            }
            Delta::SetGroup { id, .. } | Delta::SetGroupContent { id, .. } | Delta::RemoveGroup { id } => {
                groups.insert(id.clone());
            }
        }
    }
    if own {
        items.add("", Some(own_node(&before.node)), Some(own_node(&after.node)));
    }
    for key in &nodes {
        node_item(key, before.nodes.get(key), after.nodes.get(key), items);
    }
    rule_items(&rules, before, after, items);
    if order {
        order_item(before, after, items);
    }
    for id in &groups {
        group_item(id, deltas, before, after, items);
    }
    if tests {
        test_items(before, after, items);
    }
}

fn node_item(key: &NodeKey, before: Option<&Arc<Node>>, after: Option<&Arc<Node>>, items: &mut Items) {
    if items.is_full() {
        return items.leave_out(key);
    }
    let object = |node: &Arc<Node>| Object::Node { key: key.clone(), node: Arc::clone(node) };
    items.add(&key.to_string(), before.map(object), after.map(object));
}

fn rule_items(ids: &BTreeSet<Id>, before: &Organization, after: &Organization, items: &mut Items) {
    // Indexed once: a replacement of all rules must not take quadratic time.
    let indexes = |organization: &Organization| -> std::collections::HashMap<Id, usize> {
        let indexes = organization.rules.iter().enumerate();
        indexes.filter(|(_, rule)| ids.contains(&rule.id)).map(|(index, rule)| (rule.id.clone(), index)).collect()
    };
    let (old, new) = (indexes(before), indexes(after));
    for id in ids {
        let at = |indexes: &std::collections::HashMap<Id, usize>, organization: &Organization| {
            let index = *indexes.get(id)?;
            organization.rules.get(index).map(|rule| (index, Arc::clone(rule)))
        };
        let (old, new) = (at(&old, before), at(&new, after));
        if old.as_ref().map(|(_, rule)| rule) != new.as_ref().map(|(_, rule)| rule) {
            rule_item(old.as_ref().map(|(at, rule)| (*at, rule)), new.as_ref().map(|(at, rule)| (*at, rule)), items);
        }
    }
}

fn rule_item(before: Option<(usize, &Arc<Rule>)>, after: Option<(usize, &Arc<Rule>)>, items: &mut Items) {
    let Some(id) = before.or(after).map(|(_, rule)| rule.id.clone()) else { return };
    let key = format!("rules/{id}");
    if items.is_full() {
        return items.leave_out(&key);
    }
    let object = |(index, rule): (usize, &Arc<Rule>)| Object::Rule {
        rule: Arc::clone(rule),
        position: u32::try_from(index + 1).unwrap_or(u32::MAX),
    };
    items.add(&key, before.map(object), after.map(object));
}

/// The order of the rules, if those that are in both versions are ordered differently.
fn order_item(before: &Organization, after: &Organization, items: &mut Items) {
    let ids =
        |organization: &Organization| -> Vec<Id> { organization.rules.iter().map(|rule| rule.id.clone()).collect() };
    let (old, new) = (ids(before), ids(after));
    let (in_old, in_new): (BTreeSet<&Id>, BTreeSet<&Id>) = (old.iter().collect(), new.iter().collect());
    let kept_old = old.iter().filter(|id| in_new.contains(id));
    let kept_new = new.iter().filter(|id| in_old.contains(id));
    if !kept_old.eq(kept_new) {
        items.add("rules", Some(Object::RuleOrder(old)), Some(Object::RuleOrder(new)));
    }
}

fn group_item(id: &Id, deltas: &[Delta], before: &Organization, after: &Organization, items: &mut Items) {
    let (old, new) = (before.groups.get(id.as_str()), after.groups.get(id.as_str()));
    let (gone, come) = match (old, new) {
        (Some(old), Some(new)) if old.content_changed_at != new.content_changed_at => {
            ranges_between(id, deltas, old, new)
        }
        (Some(_), Some(_)) | (None, None) => (RangeList::default(), RangeList::default()),
        (Some(old), None) => ((**old.ranges()).clone(), RangeList::default()),
        (None, Some(new)) => (RangeList::default(), (**new.ranges()).clone()),
    };
    let (old, new) = (old.map(|group| group_object(group, &gone)), new.map(|group| group_object(group, &come)));
    items.add(&format!("addressGroups/{id}"), old, new);
}

fn test_items(before: &Organization, after: &Organization, items: &mut Items) {
    let find = |organization: &Organization, id: &Id| organization.tests.iter().find(|test| test.id == *id).cloned();
    let ids: BTreeSet<&Id> = before.tests.iter().chain(after.tests.iter()).map(|test| &test.id).collect();
    for id in ids {
        let (old, new) = (find(before, id), find(after, id));
        if old != new {
            let object = |test: Option<PolicyTest>| test.map(|test| Object::Test(Arc::new(test)));
            items.add(&format!("policyTests/{id}"), object(old), object(new));
        }
    }
}

/// The ranges that were removed from a group, and those that were added.
fn ranges_between(id: &Id, deltas: &[Delta], old: &Group, new: &Group) -> (RangeList, RangeList) {
    let mut patches = deltas.iter().filter_map(|delta| match delta {
        Delta::SetGroupContent { id: of, content } if of == id => Some(content),
        _ => None,
    });
    // A single patch names them, without comparing all ranges.
    if let (Some(GroupContent::Patch { added, removed }), None) = (patches.next(), patches.next()) {
        return (removed.clone(), added.clone());
    }
    (old.ranges().without(new.ranges()), new.ranges().without(old.ranges()))
}

fn own_node(node: &Arc<Node>) -> Object {
    Object::OwnNode(Arc::clone(node))
}

fn group_object(group: &Group, ranges: &RangeList) -> Object {
    Object::Group(GroupRecord {
        id: group.id.clone(),
        description: Arc::clone(&group.description),
        create_time: group.create_time,
        update_time: group.update_time,
        changed_at: group.changed_at,
        ranges: ranges.clone(),
        range_count: group.ranges().len() as u64,
    })
}

/// The digest of an object that is too large to be recorded.
fn digest(key: &str, object: &Object, ranges_max: usize) -> Object {
    let mut hash = Sha256::new();
    let mut first_ranges = Vec::new();
    let item_count = match object {
        Object::Group(group) => {
            group.ranges.iter().for_each(|range| line(&mut hash, &range));
            first_ranges = group.ranges.iter().take(ranges_max).collect();
            group.range_count
        }
        Object::OwnNode(node) | Object::Node { node, .. } => {
            for AccessEntry { source, .. } in node.access.entries() {
                match source {
                    Source::Range(range) => {
                        line(&mut hash, range);
                        first_ranges.push(*range);
                    }
                    Source::Group(group) => line(&mut hash, group),
                }
            }
            first_ranges.truncate(ranges_max);
            node.access.entries().len() as u64
        }
        Object::RuleOrder(rules) => {
            for rule in rules {
                line(&mut hash, rule);
            }
            rules.len() as u64
        }
        Object::Rule { rule, .. } => {
            line(&mut hash, &rule.id);
            1
        }
        Object::Test(test) => {
            line(&mut hash, &test.id);
            1
        }
        Object::Digest(digest) => return Object::Digest(digest.clone()),
    };
    let sha256 = hash.finalize().into();
    Object::Digest(DigestRecord { key: key.into(), item_count, sha256, first_ranges })
}

fn line(hash: &mut Sha256, item: &(impl Display + ?Sized)) {
    hash.update(item.to_string());
    hash.update("\n");
}

/// The bytes that an object takes, about.
fn weight(object: &Object) -> usize {
    let range = |range: &Range| match range {
        Range::Any => 2,
        Range::V4(_) => 5,
        Range::V6(_) => 17,
    };
    let node = |node: &Node| {
        let entry = |entry: &AccessEntry| entry.description.len() + 80;
        node.display_name.len() + node.access.entries().iter().map(entry).sum::<usize>()
    };
    ITEM_BYTES
        + match object {
            Object::Rule { rule, .. } => 160 + rule.description.len(),
            Object::Group(group) => {
                80 + group.description.len() + group.ranges.iter().map(|r| range(&r)).sum::<usize>()
            }
            Object::OwnNode(own) => node(own),
            Object::Node { key, node: below } => key.to_string().len() + node(below),
            Object::Test(test) => 60 + test.endpoint.len() + test.description.len(),
            Object::RuleOrder(rules) => rules.iter().map(|rule| rule.as_str().len() + 2).sum(),
            Object::Digest(digest) => 40 + digest.key.len() + digest.first_ranges.iter().map(range).sum::<usize>(),
        }
}
