//! The objects that a change altered, as many as there is room for.
//!
//! Invariant: every object that is added is there: whole, as a digest, or counted by its collection and what was done to it.
//! Not here: which objects a change altered, and in which order (`policy_change`).

use std::collections::BTreeMap;
use std::fmt::Display;

use sha2::{Digest, Sha256};

use crate::record::{DigestRecord, Object, ObjectChange};
use portcullis_policy::address::Range;
use portcullis_policy::node::{AccessEntry, Node};
use portcullis_policy::rule::Source;

/// The most bytes, as estimated, that may be recorded.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Of all objects together.
    objects: usize,
    /// Of one object that is recorded whole.
    object: usize,
    /// Whether ranges and names are in text, which is larger.
    is_text: bool,
}

impl Room {
    /// A record's: it has at most 32 KiB.
    pub const RECORD: Self = Self { objects: 24 * 1024, object: 16 * 1024, is_text: false };
    /// An answer's: it has at most 4 MiB, 1 MiB of which is for these.
    pub const ANSWER: Self = Self { objects: 1016 * 1024, object: 512 * 1024, is_text: true };
}

/// Bytes that an item costs besides what it holds.
const ITEM_BYTES: usize = 64;

/// Ranges that a digest names.
const FIRST_RANGES_MAX: usize = 100;

/// The name of the digests that count the objects which are not even digested. A collection follows it.
const OTHERS: &str = "others";

/// Whether a digest of this key stands for objects that are only counted. Records of older versions have no collection.
pub fn is_count_key(key: &str) -> bool {
    key.strip_prefix(OTHERS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a change stands for objects that are only counted.
pub fn is_count(change: &ObjectChange) -> bool {
    let is_count = |object: &Object| matches!(object, Object::Digest(digest) if is_count_key(&digest.key));
    change.before.iter().chain(&change.after).any(is_count)
}

/// Items so far, and what they weigh.
pub(super) struct Items {
    room: Room,
    /// Bytes of the owner's name, which stands before every name in text.
    owner: usize,
    changes: Vec<ObjectChange>,
    bytes: usize,
    /// Objects that are only counted.
    left_out: BTreeMap<(Collection, Done), LeftOut>,
}

/// Objects of one kind. Those come first that must not be cut first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Collection {
    Tests,
    Nodes,
    Groups,
    Rules,
}

/// What was done to an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Done {
    Deleted,
    Updated,
    Created,
}

/// How many objects are left out, and their names.
#[derive(Default)]
struct LeftOut {
    count: u64,
    names: Sha256,
}

impl Collection {
    fn name(self) -> &'static str {
        match self {
            Self::Tests => "policyTests",
            Self::Nodes => "nodes",
            Self::Groups => "addressGroups",
            Self::Rules => "rules",
        }
    }
}

impl Done {
    pub(super) fn of<T, U>(before: Option<T>, after: Option<U>) -> Self {
        match (before, after) {
            (_, None) => Self::Deleted,
            (None, Some(_)) => Self::Created,
            (Some(_), Some(_)) => Self::Updated,
        }
    }
}

impl Items {
    /// None yet. `owner` is how many bytes the id of the organization has.
    pub(super) fn new(room: Room, owner: Option<usize>) -> Self {
        let owner = owner.filter(|_| room.is_text).map_or(0, |id| "organizations/".len() + id + 1);
        Self { room, owner, changes: Vec::new(), bytes: 0, left_out: BTreeMap::new() }
    }

    /// Adds an object: what must not be overlooked is to be added first.
    pub(super) fn add(&mut self, of: Collection, key: &str, before: Option<Object>, after: Option<Object>) {
        let weigh = |object: &Object| weight(object, self.room.is_text.then_some(self.owner));
        let full = before.iter().chain(&after).map(weigh).sum::<usize>();
        let room = self.room.objects.saturating_sub(self.bytes);
        if full <= room.min(self.room.object) {
            self.bytes += full;
            self.changes.push(ObjectChange { before, after });
            return;
        }
        let digests = |objects: Option<&Object>, ranges| objects.map(|object| digest(key, object, ranges));
        for ranges in [FIRST_RANGES_MAX, 0] {
            let (before, after) = (digests(before.as_ref(), ranges), digests(after.as_ref(), ranges));
            let bytes = before.iter().chain(&after).map(weigh).sum::<usize>();
            if bytes <= room {
                self.bytes += bytes;
                self.changes.push(ObjectChange { before, after });
                return;
            }
        }
        self.leave_out(of, Done::of(before, after), &key);
    }

    /// Whether another object would only be counted.
    pub(super) fn is_full(&self) -> bool {
        self.bytes + 2 * (ITEM_BYTES + self.owner) > self.room.objects
    }

    pub(super) fn leave_out(&mut self, of: Collection, done: Done, key: &impl Display) {
        let LeftOut { count, names } = self.left_out.entry((of, done)).or_default();
        *count += 1;
        line(names, key);
    }

    pub(super) fn finish(mut self) -> Vec<ObjectChange> {
        for ((of, done), LeftOut { count: item_count, names }) in self.left_out {
            let key = format!("{OTHERS}/{}", of.name()).into();
            let sha256 = names.finalize().into();
            let others = Object::Digest(DigestRecord { key, item_count, sha256, first_ranges: Vec::new() });
            let before = (done != Done::Created).then(|| others.clone());
            self.changes.push(ObjectChange { before, after: (done != Done::Deleted).then_some(others) });
        }
        self.changes
    }
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

/// The bytes that an object takes, about. In text, every name in it has the name of its owner before it.
fn weight(object: &Object, owner_in_text: Option<usize>) -> usize {
    let is_text = owner_in_text.is_some();
    let range = |range: &Range| match (range, is_text) {
        (Range::Any, false) => 2,
        (Range::V4(_), false) | (Range::Any, true) => 5,
        (Range::V6(_), false) => 17,
        (Range::V4(_), true) => 20,
        (Range::V6(_), true) => 45,
    };
    // The name of a group or of a rule, or of what has the longest.
    let name = |id: usize| id + owner_in_text.map_or(0, |owner| owner + "addressGroups/".len() + 4);
    let source = |source: &Source| match source {
        Source::Group(group) => name(group.as_str().len()),
        Source::Range(of) => range(of),
    };
    let node = |node: &Node| {
        let entry =
            |entry: &AccessEntry| entry.description.len() + 80 + if is_text { source(&entry.source) } else { 0 };
        node.display_name.len() + node.access.entries().iter().map(entry).sum::<usize>()
    };
    let own_name = match object {
        _ if !is_text => 0,
        Object::Rule { rule, .. } => name(rule.id.as_str().len()),
        Object::Group(group) => name(group.id.as_str().len()),
        Object::Test(test) => name(test.id.as_str().len()),
        Object::OwnNode(_) | Object::Node { .. } | Object::RuleOrder(_) | Object::Digest(_) => name(0),
    };
    ITEM_BYTES
        + own_name
        + match object {
            Object::Rule { rule, .. } if is_text => 64 + rule.description.len() + source(&rule.source),
            Object::Rule { rule, .. } => 160 + rule.description.len(),
            Object::Group(group) => {
                80 + group.description.len() + group.ranges.iter().map(|of| range(&of)).sum::<usize>()
            }
            Object::OwnNode(own) => node(own),
            Object::Node { key, node: below } => key.to_string().len() + node(below),
            Object::Test(test) => 60 + test.endpoint.len() + test.description.len(),
            Object::RuleOrder(rules) => rules.iter().map(|rule| name(rule.as_str().len()) + 2).sum(),
            Object::Digest(digest) => 40 + digest.key.len() + digest.first_ranges.iter().map(range).sum::<usize>(),
        }
}
