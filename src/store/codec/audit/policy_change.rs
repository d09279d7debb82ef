//! A change of policy as a record stores it: the objects before and after it.
//!
//! Invariant: what was encoded decodes to the same.
//! Not here: what a change alters (`audit::policy_change`).

use std::sync::Arc;

use super::super::error::{CodecError, Decoded};
use super::super::object::{
    from_named_node, from_node, from_ranges, from_rule, from_test, from_time, id, required, to_named_node, to_node,
    to_ranges, to_rule, to_test, to_time,
};
use crate::audit::record::{DigestRecord, GroupRecord, Object, ObjectChange, PolicyChangeRecord};
use crate::policy::ranges::RangeList;
use crate::proto::storage as stored;
use stored::audit_object::Object as StoredObject;

pub(super) fn to_change(change: &PolicyChangeRecord) -> stored::AuditPolicyChange {
    let PolicyChangeRecord { policy_sequence, revision, comment, changes, confirm_until, overridden_tests } = change;
    let change = |ObjectChange { before, after }: &ObjectChange| stored::AuditObjectChange {
        before: before.as_ref().map(to_object),
        after: after.as_ref().map(to_object),
    };
    stored::AuditPolicyChange {
        policy_sequence: *policy_sequence,
        revision: *revision,
        comment: comment.to_string(),
        changes: changes.iter().map(change).collect(),
        confirm_until: confirm_until.map(to_time),
        overridden_tests: overridden_tests.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn from_change(change: stored::AuditPolicyChange) -> Decoded<PolicyChangeRecord> {
    let stored::AuditPolicyChange { policy_sequence, revision, comment, changes, confirm_until, overridden_tests } =
        change;
    let change = |stored::AuditObjectChange { before, after }| {
        let (before, after) = (before.map(from_object).transpose()?, after.map(from_object).transpose()?);
        Ok(ObjectChange { before, after })
    };
    let changes = changes.into_iter().map(change).collect::<Decoded<_>>()?;
    Ok(PolicyChangeRecord {
        policy_sequence,
        revision,
        comment: comment.into(),
        changes,
        confirm_until: confirm_until.map(|time| from_time(Some(time))).transpose()?,
        overridden_tests: overridden_tests.iter().map(|test| id(test)).collect::<Decoded<_>>()?,
    })
}

fn to_object(object: &Object) -> stored::AuditObject {
    let object = match object {
        Object::Rule { rule, position } => {
            StoredObject::Rule(stored::AuditRule { rule: Some(to_rule(rule)), position: *position })
        }
        Object::Group(group) => StoredObject::Group(to_group(group)),
        Object::OwnNode(node) => StoredObject::OwnNode(to_node(node)),
        Object::Node { key, node } => StoredObject::Node(to_named_node(key, node)),
        Object::RuleOrder(rules) => {
            StoredObject::RuleOrder(stored::AuditRuleOrder { rules: rules.iter().map(ToString::to_string).collect() })
        }
        Object::Test(test) => StoredObject::PolicyTest(to_test(test)),
        Object::Digest(DigestRecord { key, item_count, sha256, first_ranges }) => {
            let first_ranges: RangeList = first_ranges.iter().copied().collect();
            StoredObject::Digest(stored::AuditDigest {
                key: key.to_string(),
                item_count: *item_count,
                sha256: sha256.to_vec(),
                first_ranges: Some(to_ranges(&first_ranges)),
            })
        }
    };
    stored::AuditObject { object: Some(object) }
}

fn from_object(object: stored::AuditObject) -> Decoded<Object> {
    let stored::AuditObject { object } = object;
    Ok(match required(object, "object")? {
        StoredObject::Rule(stored::AuditRule { rule, position }) => {
            Object::Rule { rule: Arc::new(from_rule(rule)?), position }
        }
        StoredObject::Group(group) => Object::Group(from_group(group)?),
        StoredObject::OwnNode(node) => Object::OwnNode(Arc::new(from_node(Some(node))?)),
        StoredObject::Node(named) => {
            let (key, node) = from_named_node(Some(named))?;
            Object::Node { key, node: Arc::new(node) }
        }
        StoredObject::RuleOrder(stored::AuditRuleOrder { rules }) => {
            Object::RuleOrder(rules.iter().map(|rule| id(rule)).collect::<Decoded<_>>()?)
        }
        StoredObject::PolicyTest(test) => Object::Test(Arc::new(from_test(test)?)),
        StoredObject::Digest(stored::AuditDigest { key, item_count, sha256, first_ranges }) => {
            let sha256 = <[u8; 32]>::try_from(&*sha256).map_err(|_| CodecError::Invalid("digest"))?;
            let first_ranges = from_ranges(first_ranges)?.iter().collect();
            Object::Digest(DigestRecord { key: key.into(), item_count, sha256, first_ranges })
        }
    })
}

fn to_group(group: &GroupRecord) -> stored::AuditGroup {
    let GroupRecord { id, description, create_time, update_time, changed_at, ranges, range_count } = group;
    let entry = stored::GroupEntry {
        organization: String::new(),
        id: id.to_string(),
        description: description.to_string(),
        create_time: Some(to_time(*create_time)),
        update_time: Some(to_time(*update_time)),
        changed_at: *changed_at,
        content_changed_at: 0,
    };
    stored::AuditGroup { group: Some(entry), ranges: Some(to_ranges(ranges)), range_count: *range_count }
}

fn from_group(group: stored::AuditGroup) -> Decoded<GroupRecord> {
    let stored::AuditGroup { group, ranges, range_count } = group;
    let stored::GroupEntry {
        organization: _,
        id: group_id,
        description,
        create_time,
        update_time,
        changed_at,
        content_changed_at: _,
    } = required(group, "group")?;
    Ok(GroupRecord {
        id: id(&group_id)?,
        description: description.into(),
        create_time: from_time(create_time)?,
        update_time: from_time(update_time)?,
        changed_at,
        ranges: from_ranges(ranges)?,
        range_count,
    })
}
