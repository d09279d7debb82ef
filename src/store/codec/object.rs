//! The stored form of rules, nodes, ranges and times.
//!
//! Invariant: every conversion destructures its whole message, so that a new field breaks the build until somebody
//! decides about it.
//! Not here: what is done to objects (`change`) and where they are (`entry`).

use std::sync::Arc;

use super::error::{CodecError, Decoded};
use crate::policy::address::{Address, Block, Range};
use crate::policy::change::ChangeIdentity;
use crate::policy::decision::Decision;
use crate::policy::gates::Gates;
use crate::policy::name::{Id, NodeKey, NodePath};
use crate::policy::node::{Access, AccessEntry, Node};
use crate::policy::policy_test::PolicyTest;
use crate::policy::ranges::RangeList;
use crate::policy::rule::{Action, ConnectionType, Rule, Source};
use crate::policy::time::Timestamp;
use crate::policy::word::Word;
use crate::proto::same_variants;
use crate::proto::storage::{self as stored, rule};

pub(super) fn required<T>(value: Option<T>, what: &'static str) -> Decoded<T> {
    value.ok_or(CodecError::Invalid(what))
}

pub(super) fn id(text: &str) -> Decoded<Id> {
    Id::parse(text).map_err(|_| CodecError::Invalid("id"))
}

pub(super) fn node_key(text: &str) -> Decoded<NodeKey> {
    let name = format!("organizations/o/{text}");
    let path = NodePath::parse(&name).map_err(|_| CodecError::Invalid("node name"))?;
    required(NodeKey::of(&path), "node name")
}

pub(super) fn to_time(time: Timestamp) -> stored::Time {
    stored::Time { seconds: time.seconds(), nanos: time.nanos() }
}

pub(super) fn from_time(time: Option<stored::Time>) -> Decoded<Timestamp> {
    let stored::Time { seconds, nanos } = required(time, "time")?;
    required(Timestamp::new(seconds, nanos), "time")
}

pub(super) fn to_identity(identity: &ChangeIdentity) -> stored::ChangeIdentity {
    let ChangeIdentity { time, organization, revision } = identity;
    let organization = organization.as_ref().map(ToString::to_string).unwrap_or_default();
    stored::ChangeIdentity { time: Some(to_time(*time)), organization, revision: *revision }
}

pub(super) fn from_identity(identity: stored::ChangeIdentity) -> Decoded<ChangeIdentity> {
    let stored::ChangeIdentity { time, organization, revision } = identity;
    let organization = if organization.is_empty() { None } else { Some(id(&organization)?) };
    Ok(ChangeIdentity { time: from_time(time)?, organization, revision })
}

/// An address as bytes in network order: none, 4 or 16.
pub(super) fn address_bytes(address: Option<Address>) -> Vec<u8> {
    match address {
        None => Vec::new(),
        Some(Address::V4(word)) => word.to_be_bytes().to_vec(),
        Some(Address::V6(word)) => word.to_be_bytes().to_vec(),
    }
}

pub(super) fn address_from(bytes: &[u8]) -> Decoded<Option<Address>> {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => Ok(Some(Address::V4(u32::from_be_bytes(v4)))),
        (_, Ok(v6)) => Ok(Some(Address::V6(u128::from_be_bytes(v6)))),
        _ if bytes.is_empty() => Ok(None),
        _ => Err(CodecError::Invalid("address")),
    }
}

pub(super) fn to_ranges(ranges: &RangeList) -> stored::Ranges {
    let mut packed = stored::Ranges::default();
    for range in ranges.iter() {
        pack(range, &mut packed);
    }
    packed
}

fn pack(range: Range, packed: &mut stored::Ranges) {
    match range {
        Range::Any => packed.any = true,
        Range::V4(block) => {
            packed.v4.extend_from_slice(&block.first().to_be_bytes());
            packed.v4.push(block.prefix_length());
        }
        Range::V6(block) => {
            packed.v6.extend_from_slice(&block.first().to_be_bytes());
            packed.v6.push(block.prefix_length());
        }
    }
}

pub(super) fn from_ranges(ranges: Option<stored::Ranges>) -> Decoded<RangeList> {
    Ok(unpack(&required(ranges, "ranges")?)?.into_iter().collect())
}

fn unpack(packed: &stored::Ranges) -> Decoded<Vec<Range>> {
    let stored::Ranges { any, v4, v6 } = packed;
    let (v4, v4_rest) = v4.as_chunks::<5>();
    let (v6, v6_rest) = v6.as_chunks::<17>();
    if !v4_rest.is_empty() || !v6_rest.is_empty() {
        return Err(CodecError::Invalid("packed ranges"));
    }
    let mut ranges = Vec::with_capacity(usize::from(*any) + v4.len() + v6.len());
    ranges.extend(any.then_some(Range::Any));
    for [a, b, c, d, length] in v4 {
        ranges.push(Range::V4(block(u32::from_be_bytes([*a, *b, *c, *d]), *length)?));
    }
    for [address @ .., length] in v6 {
        ranges.push(Range::V6(block(u128::from_be_bytes(*address), *length)?));
    }
    Ok(ranges)
}

fn block<W: Word>(first: W, length: u8) -> Decoded<Block<W>> {
    required(Block::new(first, length), "range")
}

pub(super) fn to_source(source: &Source) -> stored::Source {
    let source = match source {
        Source::Range(range) => {
            let mut packed = stored::Ranges::default();
            pack(*range, &mut packed);
            stored::source::Source::Range(packed)
        }
        Source::Group(id) => stored::source::Source::Group(id.to_string()),
    };
    stored::Source { source: Some(source) }
}

pub(super) fn from_source(source: Option<stored::Source>) -> Decoded<Source> {
    let stored::Source { source } = required(source, "source")?;
    match required(source, "source")? {
        stored::source::Source::Group(group) => Ok(Source::Group(id(&group)?)),
        stored::source::Source::Range(packed) => match unpack(&packed)?.as_slice() {
            [range] => Ok(Source::Range(*range)),
            _ => Err(CodecError::Invalid("range")),
        },
    }
}

same_variants!(to_action, from_action: Action => rule::Action { Allow Deny });

pub(super) fn to_rule(rule: &Rule) -> stored::Rule {
    let Rule {
        id,
        action,
        source,
        connection_types,
        description,
        disabled,
        expire_time,
        expired,
        create_time,
        update_time,
        changed_at,
    } = rule;
    let named = |connection_type| connection_types.iter().any(|named| named == connection_type);
    stored::Rule {
        id: id.to_string(),
        action: to_action(*action).into(),
        source: Some(to_source(source)),
        shell: named(ConnectionType::Shell),
        preview: named(ConnectionType::Preview),
        description: description.to_string(),
        disabled: *disabled,
        expire_time: expire_time.map(to_time),
        create_time: Some(to_time(*create_time)),
        update_time: Some(to_time(*update_time)),
        changed_at: *changed_at,
        expired: *expired,
    }
}

pub(super) fn from_rule(rule: Option<stored::Rule>) -> Decoded<Rule> {
    let rule = required(rule, "rule")?;
    let action = required(from_action(rule.action()), "action")?;
    let stored::Rule {
        id: rule_id,
        action: _,
        source,
        shell,
        preview,
        description,
        disabled,
        expire_time,
        create_time,
        update_time,
        changed_at,
        expired,
    } = rule;
    let types = [shell.then_some(ConnectionType::Shell), preview.then_some(ConnectionType::Preview)];
    Ok(Rule {
        id: id(&rule_id)?,
        action,
        source: from_source(source)?,
        connection_types: types.into_iter().flatten().collect(),
        description: description.into(),
        disabled,
        expire_time: expire_time.map(|time| from_time(Some(time))).transpose()?,
        expired,
        create_time: from_time(create_time)?,
        update_time: from_time(update_time)?,
        changed_at,
    })
}

pub(super) fn to_node(node: &Node) -> stored::Node {
    let Node { display_name, require_projects, access, gates, create_time, update_time, changed_at } = node;
    stored::Node {
        display_name: display_name.to_string(),
        require_projects: *require_projects,
        access: Some(to_access(access)),
        create_time: Some(to_time(*create_time)),
        update_time: Some(to_time(*update_time)),
        changed_at: *changed_at,
        gates: Some(&**gates).filter(|gates| !gates.is_empty()).map(to_gates),
    }
}

pub(super) fn from_node(node: Option<stored::Node>) -> Decoded<Node> {
    let stored::Node { display_name, require_projects, access, create_time, update_time, changed_at, gates } =
        required(node, "node")?;
    Ok(Node {
        display_name: display_name.into(),
        require_projects,
        access: from_access(access)?,
        gates: Arc::new(gates.map(from_gates).transpose()?.unwrap_or_default()),
        create_time: from_time(create_time)?,
        update_time: from_time(update_time)?,
        changed_at,
    })
}

fn to_gates(gates: &Gates) -> stored::Gates {
    let Gates { guard, max_revocations, refuse_open_to_internet } = gates;
    stored::Gates {
        guard: guard.iter().map(|address| address_bytes(Some(*address))).collect(),
        max_revocations: *max_revocations,
        refuse_open_to_internet: *refuse_open_to_internet,
    }
}

fn from_gates(gates: stored::Gates) -> Decoded<Gates> {
    let stored::Gates { guard, max_revocations, refuse_open_to_internet } = gates;
    let guard = guard.iter().map(|bytes| required(address_from(bytes)?, "address")).collect::<Decoded<_>>()?;
    Ok(Gates { guard, max_revocations, refuse_open_to_internet })
}

pub(super) fn to_test(test: &PolicyTest) -> stored::PolicyTest {
    let PolicyTest { id, address, connection_type, endpoint, expected, description, end_time } = test;
    stored::PolicyTest {
        id: id.to_string(),
        address: address_bytes(Some(*address)),
        preview: *connection_type == ConnectionType::Preview,
        endpoint: endpoint.to_string(),
        deny: *expected == Decision::Deny,
        description: description.to_string(),
        end_time: end_time.map(to_time),
    }
}

pub(super) fn from_test(test: stored::PolicyTest) -> Decoded<PolicyTest> {
    let stored::PolicyTest { id: test_id, address, preview, endpoint, deny, description, end_time } = test;
    Ok(PolicyTest {
        id: id(&test_id)?,
        address: required(address_from(&address)?, "address")?,
        connection_type: if preview { ConnectionType::Preview } else { ConnectionType::Shell },
        endpoint: endpoint.into(),
        expected: if deny { Decision::Deny } else { Decision::Allow },
        description: description.into(),
        end_time: end_time.map(|time| from_time(Some(time))).transpose()?,
    })
}

fn to_access(access: &Access) -> stored::Access {
    let mode = match access {
        Access::Inherit => stored::access::Mode::Inherit,
        Access::AllowAll => stored::access::Mode::AllowAll,
        Access::AllowList(_) => stored::access::Mode::AllowList,
    };
    let entry = |AccessEntry { source, description }: &AccessEntry| stored::AccessEntry {
        source: Some(to_source(source)),
        description: description.to_string(),
    };
    stored::Access { mode: mode.into(), entries: access.entries().iter().map(entry).collect() }
}

fn from_access(access: Option<stored::Access>) -> Decoded<Access> {
    let access = required(access, "access")?;
    let mode = access.mode();
    let stored::Access { mode: _, entries } = access;
    match mode {
        stored::access::Mode::AllowList => {
            let entry = |stored::AccessEntry { source, description }| {
                Ok(AccessEntry { source: from_source(source)?, description: description.into() })
            };
            Ok(Access::AllowList(entries.into_iter().map(entry).collect::<Decoded<_>>()?))
        }
        stored::access::Mode::Inherit if entries.is_empty() => Ok(Access::Inherit),
        stored::access::Mode::AllowAll if entries.is_empty() => Ok(Access::AllowAll),
        _ => Err(CodecError::Invalid("access mode")),
    }
}

pub(super) fn to_named_node(key: &NodeKey, node: &Node) -> stored::NamedNode {
    stored::NamedNode { key: key.to_string(), node: Some(to_node(node)) }
}

pub(super) fn from_named_node(named: Option<stored::NamedNode>) -> Decoded<(NodeKey, Node)> {
    let stored::NamedNode { key, node } = required(named, "node")?;
    Ok((node_key(&key)?, from_node(node)?))
}
