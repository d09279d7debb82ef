//! The stored form of a change: one record of the policy journal.
//!
//! An erased actor is as many zero bytes as the name had, so that the record keeps its length.
//!
//! Invariant: decoding what was encoded gives an equal change; an erased actor is none.
//! Not here: the journal's own framing (`store::journal`).

use prost::Message;

use super::error::CodecError;
use super::field;
use super::object::{
    from_named_node, from_node, from_ranges, from_rule, from_test, from_time, id, node_key, required, to_named_node,
    to_node, to_ranges, to_rule, to_test, to_time,
};
use crate::policy::change::{Change, Delta, Effect, GroupContent};
use crate::policy::name::Id;
use crate::proto::storage as stored;
use crate::proto::storage::delta::Delta as StoredDelta;
use crate::proto::storage::policy_change::Effect as StoredEffect;

/// The field of the actor in `PolicyChange`.
const ACTOR_FIELD: u32 = 2;

/// The bytes of a change.
pub fn encode_change(change: &Change) -> Vec<u8> {
    let Change { time, actor, comment, confirm_until, overridden_tests, effect } = change;
    let effect = match effect {
        Effect::Cluster { revision, node } => {
            StoredEffect::SetCluster(stored::SetCluster { revision: *revision, node: Some(to_node(node)) })
        }
        Effect::CreateOrganization { id, revision, node } => {
            let node = Some(to_node(node));
            let create = stored::CreateOrganization { id: id.to_string(), revision: *revision, node };
            StoredEffect::CreateOrganization(create)
        }
        Effect::DeleteOrganization { id, revision } => {
            StoredEffect::DeleteOrganization(stored::DeleteOrganization { id: id.to_string(), revision: *revision })
        }
        Effect::Organization { id, revision, deltas } => {
            let deltas = deltas.iter().map(to_delta).collect();
            let change = stored::ChangeOrganization { id: id.to_string(), revision: *revision, deltas };
            StoredEffect::ChangeOrganization(change)
        }
    };
    let change = stored::PolicyChange {
        time: Some(to_time(*time)),
        actor: actor.to_string(),
        comment: comment.to_string(),
        effect: Some(effect),
        confirm_until: confirm_until.map(to_time),
        overridden_tests: overridden_tests.iter().map(ToString::to_string).collect(),
    };
    change.encode_to_vec()
}

/// The change that the bytes are.
pub fn decode_change(bytes: &[u8]) -> Result<Change, CodecError> {
    let stored::PolicyChange { time, actor, comment, effect, confirm_until, overridden_tests } =
        stored::PolicyChange::decode(bytes)?;
    let effect = match required(effect, "effect")? {
        StoredEffect::SetCluster(stored::SetCluster { revision, node }) => {
            Effect::Cluster { revision, node: from_node(node)? }
        }
        StoredEffect::CreateOrganization(stored::CreateOrganization { id: organization, revision, node }) => {
            Effect::CreateOrganization { id: id(&organization)?, revision, node: from_node(node)? }
        }
        StoredEffect::DeleteOrganization(stored::DeleteOrganization { id: organization, revision }) => {
            Effect::DeleteOrganization { id: id(&organization)?, revision }
        }
        StoredEffect::ChangeOrganization(stored::ChangeOrganization { id: organization, revision, deltas }) => {
            let deltas = deltas.into_iter().map(from_delta).collect::<Result<_, _>>()?;
            Effect::Organization { id: id(&organization)?, revision, deltas }
        }
    };
    Ok(Change {
        time: from_time(time)?,
        actor: from_actor(&actor).into(),
        comment: comment.into(),
        confirm_until: confirm_until.map(|time| from_time(Some(time))).transpose()?,
        overridden_tests: overridden_tests.iter().map(|test| id(test)).collect::<Result<_, _>>()?,
        effect,
    })
}

/// Overwrites the actor of a change where it is `actor` and the change is of that organization (none: of any, or the
/// cluster). True if anything was changed.
///
/// # Errors
///
/// The actor matches and the change cannot be decoded, so its organization is unknown. Nothing is overwritten.
pub fn erase_actor(bytes: &mut [u8], organization: Option<&Id>, actor: &str) -> Result<bool, CodecError> {
    let is_wanted = |found: &mut [u8]| !actor.is_empty() && *found == *actor.as_bytes();
    if !field::find_mut(bytes, ACTOR_FIELD).is_some_and(is_wanted) {
        return Ok(false);
    }
    if organization.is_some() && decode_change(bytes)?.effect.organization() != organization {
        return Ok(false);
    }
    let found = field::find_mut(bytes, ACTOR_FIELD);
    Ok(found.map(|found| found.fill(0)).is_some())
}

/// The actor as it is stored: none where it is erased.
fn from_actor(stored: &str) -> &str {
    if stored.bytes().all(|byte| byte == 0) { "" } else { stored }
}

/// The index of a rule is bounded by the limit on rules, far below 2³².
fn to_index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn to_delta(delta: &Delta) -> stored::Delta {
    let delta = match delta {
        Delta::SetOrganization { node } => StoredDelta::SetOrganization(to_node(node)),
        Delta::SetNode { key, node } => StoredDelta::SetNode(to_named_node(key, node)),
        Delta::RemoveNode { key } => StoredDelta::RemoveNode(key.to_string()),
        Delta::InsertRule { index, rule } => {
            StoredDelta::InsertRule(stored::InsertRule { at: to_index(*index), rule: Some(to_rule(rule)) })
        }
        Delta::SetRule { rule } => StoredDelta::SetRule(to_rule(rule)),
        Delta::RemoveRule { id } => StoredDelta::RemoveRule(id.to_string()),
        Delta::MoveRule { id, index } => {
            StoredDelta::MoveRule(stored::MoveRule { id: id.to_string(), at: to_index(*index) })
        }
        Delta::OrderRules { order } => StoredDelta::OrderRules(stored::OrderRules { order: order.clone() }),
        Delta::ExpireRules { indexes } => StoredDelta::ExpireRules(stored::ExpireRules { indexes: indexes.clone() }),
        Delta::ReplaceRules { rules } => {
            StoredDelta::ReplaceRules(stored::ReplaceRules { rules: rules.iter().map(to_rule).collect() })
        }
        Delta::SetGroup { id, description } => {
            StoredDelta::SetGroup(stored::SetGroup { id: id.to_string(), description: description.to_string() })
        }
        Delta::SetGroupContent { id, content: GroupContent::Whole(ranges) } => {
            let ranges = Some(to_ranges(ranges));
            StoredDelta::ReplaceRanges(stored::ReplaceRanges { id: id.to_string(), ranges })
        }
        Delta::SetGroupContent { id, content: GroupContent::Patch { added, removed } } => {
            StoredDelta::PatchRanges(stored::PatchRanges {
                id: id.to_string(),
                added: Some(to_ranges(added)),
                removed: Some(to_ranges(removed)),
            })
        }
        Delta::RemoveGroup { id } => StoredDelta::RemoveGroup(id.to_string()),
        Delta::SetTests { tests } => {
            StoredDelta::SetTests(stored::SetTests { tests: tests.iter().map(to_test).collect() })
        }
        Delta::Confirm { revision } => StoredDelta::Confirm(*revision),
        Delta::SetShadowPolicy { deltas } => {
            StoredDelta::SetCandidate(stored::SetCandidate { deltas: deltas.iter().map(to_delta).collect() })
        }
        Delta::RemoveShadowPolicy => StoredDelta::RemoveCandidate(true),
    };
    stored::Delta { delta: Some(delta) }
}

fn from_delta(delta: stored::Delta) -> Result<Delta, CodecError> {
    let stored::Delta { delta } = delta;
    Ok(match required(delta, "delta")? {
        StoredDelta::SetOrganization(node) => Delta::SetOrganization { node: from_node(Some(node))? },
        StoredDelta::SetNode(named) => {
            let (key, node) = from_named_node(Some(named))?;
            Delta::SetNode { key, node }
        }
        StoredDelta::RemoveNode(key) => Delta::RemoveNode { key: node_key(&key)? },
        StoredDelta::InsertRule(stored::InsertRule { at, rule }) => {
            Delta::InsertRule { index: at as usize, rule: from_rule(rule)? }
        }
        StoredDelta::SetRule(rule) => Delta::SetRule { rule: from_rule(Some(rule))? },
        StoredDelta::RemoveRule(rule) => Delta::RemoveRule { id: id(&rule)? },
        StoredDelta::MoveRule(stored::MoveRule { id: rule, at }) => {
            Delta::MoveRule { id: id(&rule)?, index: at as usize }
        }
        StoredDelta::OrderRules(stored::OrderRules { order }) => Delta::OrderRules { order },
        StoredDelta::ExpireRules(stored::ExpireRules { indexes }) => Delta::ExpireRules { indexes },
        StoredDelta::ReplaceRules(stored::ReplaceRules { rules }) => {
            let rules = rules.into_iter().map(|rule| from_rule(Some(rule))).collect::<Result<_, _>>()?;
            Delta::ReplaceRules { rules }
        }
        StoredDelta::SetGroup(stored::SetGroup { id: group, description }) => {
            Delta::SetGroup { id: id(&group)?, description: description.into() }
        }
        StoredDelta::ReplaceRanges(stored::ReplaceRanges { id: group, ranges }) => {
            Delta::SetGroupContent { id: id(&group)?, content: GroupContent::Whole(from_ranges(ranges)?) }
        }
        StoredDelta::PatchRanges(stored::PatchRanges { id: group, added, removed }) => {
            let content = GroupContent::Patch { added: from_ranges(added)?, removed: from_ranges(removed)? };
            Delta::SetGroupContent { id: id(&group)?, content }
        }
        StoredDelta::RemoveGroup(group) => Delta::RemoveGroup { id: id(&group)? },
        StoredDelta::SetTests(stored::SetTests { tests }) => {
            Delta::SetTests { tests: tests.into_iter().map(from_test).collect::<Result<_, _>>()? }
        }
        StoredDelta::Confirm(revision) => Delta::Confirm { revision },
        StoredDelta::SetCandidate(stored::SetCandidate { deltas }) => {
            Delta::SetShadowPolicy { deltas: deltas.into_iter().map(from_delta).collect::<Result<_, _>>()? }
        }
        StoredDelta::RemoveCandidate(_) => Delta::RemoveShadowPolicy,
    })
}
