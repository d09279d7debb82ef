//! What a change of policy altered, as the audit log holds it: every object before and after.
//!
//! Invariant: what must not be overlooked comes first, and is the last to be only counted: tests, nodes and groups that are
//! deleted, those that are altered, deleted rules, other rules.
//! Not here: how much there is room for (`items`), making changes (`policy::plan`, `policy::organization`), the record's
//! bytes (`store::codec`).

mod items;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use items::{Collection, Done, Items};
pub use items::{Room, is_count, is_count_key};

use super::record::{GroupRecord, Object, ObjectChange};
use portcullis_policy::change::{Change, Delta, Effect, GroupContent};
use portcullis_policy::group::Group;
use portcullis_policy::name::{Id, NodeKey};
use portcullis_policy::node::Node;
use portcullis_policy::organization::{Cluster, Organization};
use portcullis_policy::policy_test::PolicyTest;
use portcullis_policy::ranges::RangeList;
use portcullis_policy::rule::Rule;
use portcullis_policy::state::Outcome;

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
    let mut items = Items::new(room, before.map(|before| before.id.as_str().len()));
    match (&change.effect, outcome) {
        (Effect::Cluster { .. }, Outcome::Cluster(after)) => {
            // The empty state's cluster was never seen by anybody.
            let before = cluster_before.filter(|before| before.revision > 0);
            items.add(
                Collection::Nodes,
                "",
                before.map(|cluster| own_node(&cluster.node)),
                Some(own_node(&after.node)),
            );
        }
        (Effect::CreateOrganization { .. }, Outcome::Organization(after)) => {
            items.add(Collection::Nodes, "", None, Some(own_node(&after.node)));
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

fn deleted(before: &Organization, items: &mut Items) {
    items.add(Collection::Nodes, "", Some(own_node(&before.node)), None);
    for test in before.tests.iter() {
        let object = Object::Test(Arc::new(test.clone()));
        items.add(Collection::Tests, &format!("policyTests/{}", test.id), Some(object), None);
    }
    for (key, node) in before.nodes.iter() {
        node_item(key, Some(node), None, items);
    }
    for (_, group) in before.groups.iter() {
        let object = group_object(group, group.ranges());
        items.add(Collection::Groups, &format!("addressGroups/{}", group.id), Some(object), None);
    }
    for (index, rule) in before.rules.iter().enumerate() {
        rule_item(Some((index, rule)), None, items);
    }
}

/// Adds what must not be overlooked first: there may be no room for all.
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
            Delta::ExpireRules { indexes } => {
                rules.extend(indexes.iter().filter_map(|index| Some(before.rules.get(*index as usize)?.id.clone())));
            }
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
        items.add(Collection::Nodes, "", Some(own_node(&before.node)), Some(own_node(&after.node)));
    }
    for are_deleted in [true, false] {
        if tests {
            test_items(are_deleted, before, after, items);
        }
        for key in nodes.iter().filter(|key| after.nodes.get(key).is_none() == are_deleted) {
            node_item(key, before.nodes.get(key), after.nodes.get(key), items);
        }
        for id in groups.iter().filter(|id| after.groups.get(id.as_str()).is_none() == are_deleted) {
            group_item(id, deltas, before, after, items);
        }
    }
    if order {
        order_item(before, after, items);
    }
    rule_items(&rules, before, after, items);
}

fn node_item(key: &NodeKey, before: Option<&Arc<Node>>, after: Option<&Arc<Node>>, items: &mut Items) {
    if before.is_none() && after.is_none() {
        return;
    }
    if items.is_full() {
        return items.leave_out(Collection::Nodes, Done::of(before, after), key);
    }
    let object = |node: &Arc<Node>| Object::Node { key: key.clone(), node: Arc::clone(node) };
    items.add(Collection::Nodes, &key.to_string(), before.map(object), after.map(object));
}

fn rule_items(ids: &BTreeSet<Id>, before: &Organization, after: &Organization, items: &mut Items) {
    // Indexed once: a replacement of all rules must not take quadratic time.
    let indexes = |organization: &Organization| -> HashMap<Id, usize> {
        let indexes = organization.rules.iter().enumerate();
        indexes.filter(|(_, rule)| ids.contains(&rule.id)).map(|(index, rule)| (rule.id.clone(), index)).collect()
    };
    let (old, new) = (indexes(before), indexes(after));
    let at = |indexes: &HashMap<Id, usize>, organization: &Organization, id: &Id| {
        let index = *indexes.get(id)?;
        organization.rules.get(index).map(|rule| (index, Arc::clone(rule)))
    };
    for are_deleted in [true, false] {
        for id in ids.iter().filter(|id| new.contains_key(*id) != are_deleted) {
            let (old, new) = (at(&old, before, id), at(&new, after, id));
            if old.as_ref().map(|(_, rule)| rule) != new.as_ref().map(|(_, rule)| rule) {
                let [old, new] = [&old, &new].map(|of| of.as_ref().map(|(index, rule)| (*index, rule)));
                rule_item(old, new, items);
            }
        }
    }
}

fn rule_item(before: Option<(usize, &Arc<Rule>)>, after: Option<(usize, &Arc<Rule>)>, items: &mut Items) {
    let Some(id) = before.or(after).map(|(_, rule)| rule.id.clone()) else { return };
    let key = format!("rules/{id}");
    if items.is_full() {
        return items.leave_out(Collection::Rules, Done::of(before, after), &key);
    }
    let object = |(index, rule): (usize, &Arc<Rule>)| Object::Rule {
        rule: Arc::clone(rule),
        position: u32::try_from(index + 1).unwrap_or(u32::MAX),
    };
    items.add(Collection::Rules, &key, before.map(object), after.map(object));
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
        items.add(Collection::Rules, "rules", Some(Object::RuleOrder(old)), Some(Object::RuleOrder(new)));
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
    items.add(Collection::Groups, &format!("addressGroups/{id}"), old, new);
}

fn test_items(are_deleted: bool, before: &Organization, after: &Organization, items: &mut Items) {
    let find = |organization: &Organization, id: &Id| organization.tests.iter().find(|test| test.id == *id).cloned();
    let ids: BTreeSet<&Id> = before.tests.iter().chain(after.tests.iter()).map(|test| &test.id).collect();
    for id in ids {
        let (old, new) = (find(before, id), find(after, id));
        if old != new && new.is_none() == are_deleted {
            let object = |test: Option<PolicyTest>| test.map(|test| Object::Test(Arc::new(test)));
            items.add(Collection::Tests, &format!("policyTests/{id}"), object(old), object(new));
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
