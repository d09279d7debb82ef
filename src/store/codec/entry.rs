//! The policy state as entries, one for each object. A snapshot holds them one after the other, the state store each
//! under its key.
//!
//! Invariant: the entries of a state, in any order, build an equal state again.
//! Not here: building a state from them (`builder`), and when they are written (`engine::follower`).

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;

use super::builder::StateBuilder;
use super::error::CodecError;
use super::object::{from_identity, to_identity, to_named_node, to_node, to_ranges, to_rule, to_test, to_time};
use crate::policy::change::{Change, ChangeIdentity, Delta, Effect};
use crate::policy::group::Group;
use crate::policy::name::{Id, NodeKey};
use crate::policy::organization::{Organization, Pending, ShadowPolicy};
use crate::policy::rule::Rule;
use crate::policy::state::PolicyState;
use crate::proto::storage as stored;
use crate::proto::storage::state_entry::Entry;

/// Names one object of the policy state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKey {
    /// The cluster.
    Cluster,
    /// What is left of a deleted organization.
    Deleted(Id),
    /// An organization's own part.
    Organization(Id),
    /// A rule.
    Rule(Id, Id),
    /// The order of an organization's rules.
    RuleOrder(Id),
    /// A group without its ranges.
    Group(Id, Id),
    /// A group's ranges.
    GroupRanges(Id, Id),
    /// A node.
    Node(Id, NodeKey),
    /// An organization's policy tests.
    Tests(Id),
    /// A change that waits for its confirmation.
    Pending(Id),
    /// A shadow policy.
    ShadowPolicy(Id),
}

impl EntryKey {
    /// The key as it is stored. All keys of one kind and organization are adjacent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = match self {
            Self::Cluster => "cluster".to_owned(),
            Self::Deleted(id) => format!("deleted/{id}"),
            Self::Organization(id) => format!("organization/{id}"),
            Self::Rule(organization, id) => format!("rule/{organization}/{id}"),
            Self::RuleOrder(organization) => format!("rule-order/{organization}"),
            Self::Group(organization, id) => format!("group/{organization}/{id}"),
            Self::GroupRanges(organization, id) => format!("group-ranges/{organization}/{id}"),
            Self::Node(organization, key) => format!("node/{organization}/{key}"),
            Self::Tests(organization) => format!("tests/{organization}"),
            Self::Pending(organization) => format!("pending/{organization}"),
            Self::ShadowPolicy(organization) => format!("candidate/{organization}"),
        };
        text.into_bytes()
    }
}

/// The keys of all objects of a state.
pub fn keys_of(state: &PolicyState) -> impl Iterator<Item = EntryKey> + '_ {
    let organizations = state.organizations.values().flat_map(|organization| keys_in(organization));
    let deleted = state.deleted.keys().cloned().map(EntryKey::Deleted);
    std::iter::once(EntryKey::Cluster).chain(deleted).chain(organizations)
}

fn keys_in(organization: &Organization) -> impl Iterator<Item = EntryKey> + '_ {
    let of = &organization.id;
    let own = [EntryKey::Organization(of.clone()), EntryKey::RuleOrder(of.clone())];
    let rules = organization.rules.iter().map(|rule| EntryKey::Rule(of.clone(), rule.id.clone()));
    let groups = organization.groups.iter().flat_map(|(group, _)| {
        [EntryKey::Group(of.clone(), group.clone()), EntryKey::GroupRanges(of.clone(), group.clone())]
    });
    let nodes = organization.nodes.iter().map(|(key, _)| EntryKey::Node(of.clone(), key.clone()));
    let tests = (!organization.tests.is_empty()).then(|| EntryKey::Tests(of.clone()));
    let pending = organization.pending.as_ref().map(|_| EntryKey::Pending(of.clone()));
    let shadow = organization.shadow.as_ref().map(|_| EntryKey::ShadowPolicy(of.clone()));
    own.into_iter().chain(rules).chain(groups).chain(nodes).chain(tests).chain(pending).chain(shadow)
}

/// The keys of the objects that a change makes, alters or removes. `before` is the organization as it was.
pub fn touched_keys(change: &Change, before: Option<&Organization>) -> Vec<EntryKey> {
    match &change.effect {
        Effect::Cluster { .. } => vec![EntryKey::Cluster],
        Effect::CreateOrganization { id, .. } => {
            vec![EntryKey::Deleted(id.clone()), EntryKey::Organization(id.clone()), EntryKey::RuleOrder(id.clone())]
        }
        Effect::DeleteOrganization { id, .. } => {
            let mut keys = vec![EntryKey::Deleted(id.clone())];
            keys.extend(before.into_iter().flat_map(keys_in));
            keys
        }
        Effect::Organization { id, deltas, .. } => {
            let mut keys = vec![EntryKey::Organization(id.clone())];
            if change.confirm_until.is_some() || before.is_some_and(|before| before.pending.is_some()) {
                keys.push(EntryKey::Pending(id.clone()));
            }
            for delta in deltas {
                touched_by(id, delta, before, &mut keys);
            }
            keys
        }
    }
}

fn touched_by(of: &Id, delta: &Delta, before: Option<&Organization>, keys: &mut Vec<EntryKey>) {
    let rule = |id: &Id| EntryKey::Rule(of.clone(), id.clone());
    match delta {
        Delta::SetOrganization { .. } | Delta::Confirm { .. } => {}
        Delta::SetTests { .. } => keys.push(EntryKey::Tests(of.clone())),
        Delta::SetShadowPolicy { .. } | Delta::RemoveShadowPolicy => keys.push(EntryKey::ShadowPolicy(of.clone())),
        Delta::SetNode { key, .. } => keys.push(EntryKey::Node(of.clone(), key.clone())),
        Delta::RemoveNode { key } => {
            let nodes = before.into_iter().flat_map(|before| before.nodes.iter());
            let removed = nodes.filter(|(node, _)| node.is_within(key));
            keys.extend(removed.map(|(node, _)| EntryKey::Node(of.clone(), node.clone())));
        }
        Delta::SetRule { rule: set } => keys.push(rule(&set.id)),
        Delta::InsertRule { rule: new, .. } => keys.extend([rule(&new.id), EntryKey::RuleOrder(of.clone())]),
        Delta::RemoveRule { id } => keys.extend([rule(id), EntryKey::RuleOrder(of.clone())]),
        Delta::MoveRule { .. } | Delta::OrderRules { .. } => keys.push(EntryKey::RuleOrder(of.clone())),
        Delta::ExpireRules { indexes } => {
            let of_index = |index: &u32| before.and_then(|before| before.rules.get(*index as usize));
            keys.extend(indexes.iter().filter_map(of_index).map(|expired| rule(&expired.id)));
            keys.push(EntryKey::ShadowPolicy(of.clone()));
        }
        Delta::ReplaceRules { rules } => {
            let old = before.into_iter().flat_map(|before| before.rules.iter()).map(|old| rule(&old.id));
            keys.extend(old.chain(rules.iter().map(|new| rule(&new.id))));
            keys.push(EntryKey::RuleOrder(of.clone()));
        }
        Delta::SetGroup { id, .. } | Delta::RemoveGroup { id } | Delta::SetGroupContent { id, .. } => {
            keys.push(EntryKey::Group(of.clone(), id.clone()));
            keys.push(EntryKey::GroupRanges(of.clone(), id.clone()));
        }
    }
}

/// Encodes the objects of one state.
pub struct EntryEncoder<'a> {
    state: &'a PolicyState,
    /// The rules of the last organization, by id: finding each of 100,000 in the list would take quadratic time.
    rules: Option<(&'a Id, HashMap<&'a str, &'a Arc<Rule>>)>,
}

impl<'a> EntryEncoder<'a> {
    /// An encoder for a state.
    pub fn new(state: &'a PolicyState) -> Self {
        Self { state, rules: None }
    }

    /// The bytes of one object; none when the state has no such object.
    pub fn encode(&mut self, key: &EntryKey) -> Option<Vec<u8>> {
        self.entry(key).map(|entry| entry.encode_to_vec())
    }

    fn entry(&mut self, key: &EntryKey) -> Option<stored::StateEntry> {
        let entry = match key {
            EntryKey::Rule(of, id) => rule_entry(of, self.rule(of, id)?),
            _ => to_entry(self.state, key)?,
        };
        Some(stored::StateEntry { entry: Some(entry) })
    }

    fn rule(&mut self, of: &Id, id: &Id) -> Option<&'a Arc<Rule>> {
        if self.rules.as_ref().is_none_or(|(indexed, _)| *indexed != of) {
            let (indexed, organization) = self.state.organizations.get_key_value(of)?;
            let rules = organization.rules.iter().map(|rule| (rule.id.as_str(), rule)).collect();
            self.rules = Some((indexed, rules));
        }
        self.rules.as_ref()?.1.get(id.as_str()).copied()
    }
}

/// One object that is not a rule.
fn to_entry(state: &PolicyState, key: &EntryKey) -> Option<Entry> {
    let organization = |id: &Id| state.organizations.get(id);
    Some(match key {
        EntryKey::Cluster => Entry::Cluster(stored::ClusterEntry {
            revision: state.cluster.revision,
            node: Some(to_node(&state.cluster.node)),
        }),
        EntryKey::Deleted(id) => {
            Entry::Deleted(stored::DeletedEntry { id: id.to_string(), revision: *state.deleted.get(id)? })
        }
        EntryKey::Organization(id) => {
            let organization = organization(id)?;
            Entry::Organization(stored::OrganizationEntry {
                id: id.to_string(),
                revision: organization.revision,
                rules_changed_at: organization.rules_changed_at,
                node: Some(to_node(&organization.node)),
            })
        }
        EntryKey::Rule(..) => return None,
        EntryKey::RuleOrder(of) => {
            let rules = organization(of)?.rules.iter().map(|rule| rule.id.to_string()).collect();
            Entry::RuleOrder(stored::RuleOrderEntry { organization: of.to_string(), rules })
        }
        EntryKey::Group(of, id) => Entry::Group(to_group(of, organization(of)?.groups.get(id.as_str())?)),
        EntryKey::GroupRanges(of, id) => Entry::GroupRanges(stored::GroupRangesEntry {
            organization: of.to_string(),
            id: id.to_string(),
            ranges: Some(to_ranges(organization(of)?.groups.get(id.as_str())?.ranges())),
        }),
        EntryKey::Node(of, key) => Entry::Node(stored::NodeEntry {
            organization: of.to_string(),
            node: Some(to_named_node(key, organization(of)?.nodes.get(key)?)),
        }),
        EntryKey::Tests(of) => {
            let tests = Some(&organization(of)?.tests).filter(|tests| !tests.is_empty())?;
            let tests = tests.iter().map(to_test).collect();
            Entry::Tests(stored::TestsEntry { organization: of.to_string(), tests })
        }
        EntryKey::Pending(of) => Entry::Pending(to_pending(of, organization(of)?.pending.as_deref()?)),
        EntryKey::ShadowPolicy(of) => Entry::Candidate(to_shadow(of, organization(of)?.shadow.as_deref()?)),
    })
}

fn rule_entry(of: &Id, rule: &Rule) -> Entry {
    Entry::Rule(stored::RuleEntry { organization: of.to_string(), rule: Some(to_rule(rule)) })
}

fn to_pending(of: &Id, pending: &Pending) -> stored::PendingEntry {
    let Pending { revision, until, base } = pending;
    let (until, base) = (Some(to_time(*until)), entries_of(base));
    stored::PendingEntry { organization: of.to_string(), revision: *revision, until, base }
}

fn to_shadow(of: &Id, shadow: &ShadowPolicy) -> stored::CandidateEntry {
    let ShadowPolicy { revision, time, organization } = shadow;
    let (time, entries) = (Some(to_time(*time)), entries_of(organization));
    stored::CandidateEntry { organization: of.to_string(), revision: *revision, time, entries }
}

/// Another version of an organization, whole.
fn entries_of(organization: &Arc<Organization>) -> Vec<stored::StateEntry> {
    let mut state = PolicyState::empty();
    state.organizations.insert(organization.id.clone(), Arc::clone(organization));
    let mut encoder = EntryEncoder::new(&state);
    keys_in(organization).filter_map(|key| encoder.entry(&key)).collect()
}

fn to_group(of: &Id, group: &Group) -> stored::GroupEntry {
    stored::GroupEntry {
        organization: of.to_string(),
        id: group.id.to_string(),
        description: group.description.to_string(),
        create_time: Some(to_time(group.create_time)),
        update_time: Some(to_time(group.update_time)),
        changed_at: group.changed_at,
        content_changed_at: group.content_changed_at,
    }
}

/// A whole state, and which change it is the state after.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySnapshot {
    /// The state.
    pub state: PolicyState,
    /// That change; none where an earlier version wrote the snapshot.
    pub last: Option<ChangeIdentity>,
}

/// A whole state as bytes, and the change that it is the state after.
pub fn encode_snapshot(state: &PolicyState, last: Option<&ChangeIdentity>) -> Vec<u8> {
    let (mut bytes, mut encoder) = (Vec::new(), EntryEncoder::new(state));
    let last = last.map(|last| stored::StateEntry { entry: Some(Entry::Change(to_identity(last))) }.encode_to_vec());
    for entry in last.into_iter().chain(keys_of(state).filter_map(|key| encoder.encode(&key))) {
        prost::encoding::encode_varint(entry.len() as u64, &mut bytes);
        bytes.extend_from_slice(&entry);
    }
    bytes
}

/// What the bytes of a snapshot are.
pub fn decode_snapshot(mut bytes: &[u8]) -> Result<PolicySnapshot, CodecError> {
    let (mut builder, mut last) = (StateBuilder::default(), None);
    while !bytes.is_empty() {
        match stored::StateEntry::decode_length_delimited(&mut bytes)? {
            stored::StateEntry { entry: Some(Entry::Change(change)) } => last = Some(from_identity(change)?),
            entry => builder.add(entry)?,
        }
    }
    Ok(PolicySnapshot { state: builder.finish()?, last })
}
