//! What a record of the audit log says (design.md §2.8, §3.5).
//!
//! Invariant: a record's content leaves out two things: whom it names, which is stored apart so that it can be erased, and
//! its sequence, which the log assigns.
//! Not here: its bytes (`store::codec`), its hash (`commitment`), who writes it (`engine::audit`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use super::log_record::{
    ClockChangeCause, ClockChangedRecord, ErasedRecord, ErasedUnit, GapRecord, KeyChangedRecord, PrunedRecord,
    RestoredRecord,
};
use super::rule_text::RuleText;
use super::session::{SessionId, SessionRecord};
use portcullis_policy::address::{Address, Range};
use portcullis_policy::decision::{Level, Reason};
use portcullis_policy::name::{Id, NodeKey};
use portcullis_policy::node::Node;
use portcullis_policy::policy_test::PolicyTest;
use portcullis_policy::ranges::RangeList;
use portcullis_policy::rule::{ConnectionType, Rule};
use portcullis_policy::time::Timestamp;

/// A record that is in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its sequence in the log, from 1 on and without gaps.
    pub sequence: u64,
    /// Its sequence among the records of its organization, from 1 on and without gaps; 0 where it belongs to none.
    pub organization_sequence: u64,
    /// Whom it names.
    pub subject: Subject,
    /// What happened.
    pub entry: Entry,
}

/// What happened, before the log has given it a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When, to the microsecond.
    pub time: Timestamp,
    /// The organization that it belongs to; none where it belongs to the whole installation.
    pub organization: Option<Id>,
    /// What.
    pub content: Content,
}

/// Whom a record names.
#[derive(Clone, PartialEq, Eq)]
pub enum Subject {
    /// Nobody.
    Nobody,
    /// The user that it is about.
    Person(Person),
    /// Who did what it says.
    Actor(Actor),
    /// Somebody whose data was erased.
    Erased,
}

/// A user who wanted to connect.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Person {
    /// The email; empty where none was given.
    pub email: Arc<str>,
    /// Where they came from.
    pub address: Address,
}

/// Who made a change or asked for an erasure: a name as authenticated, or the address that the call came from. Erasing a
/// user leaves their name as an actor, unless that is asked for too (design.md §2.8).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Actor {
    /// The name.
    pub name: Arc<str>,
}

/// Whom an opening is about.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A user.
    Person(Person),
    /// Who acted.
    Actor(Actor),
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A check. Its subject is the user.
    Decision(DecisionRecord),
    /// A session ended. Its subject is the user.
    SessionEnded(SessionRecord),
    /// A session was revoked. Its subject is the user.
    SessionRevoked(SessionRecord),
    /// The policy was changed. Its subject is the actor.
    PolicyChanged(PolicyChangeRecord),
    /// Decisions are missing.
    Gap(GapRecord),
    /// Records were removed.
    Pruned(PrunedRecord),
    /// Personal data was erased. Its subject is the actor; nobody where actors erased themselves.
    Erased(ErasedRecord),
    /// The clock was corrected.
    ClockChanged(ClockChangedRecord),
    /// Another key signs.
    KeyChanged(KeyChangedRecord),
    /// A backup was restored.
    Restored(RestoredRecord),
}

/// The kinds of records, with the numbers that they have in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordType {
    /// A check.
    Decision = 1,
    /// The end of a session.
    SessionEnded = 2,
    /// The revocation of a session.
    SessionRevoked = 3,
    /// A change of policy.
    PolicyChanged = 4,
    /// Missing decisions.
    Gap = 5,
    /// Removed records.
    Pruned = 6,
    /// Erased personal data.
    Erased = 7,
    /// A correction of the clock.
    ClockChanged = 8,
    /// A new key.
    KeyChanged = 9,
    /// A restored backup.
    Restored = 10,
}

/// Names one decision: the number of the server's start ([`Lineage::boot`](crate::lineage::Lineage::boot)), and a counter.
/// Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DecisionId {
    /// The start of the server.
    pub boot: u64,
    /// The number within that start, from 1 on.
    pub number: u64,
}

/// A check and its decision.
#[derive(Clone, Debug, PartialEq)]
pub struct DecisionRecord {
    /// Names it.
    pub id: DecisionId,
    /// Why.
    pub reason: Reason,
    /// What was to be opened.
    pub connection_type: ConnectionType,
    /// The full name of the node that the check was for.
    pub endpoint: Arc<str>,
    /// The rule that matched first, where it decided.
    pub rule: Option<Id>,
    /// What that rule was, where it denied; none in records that older versions wrote.
    pub rule_text: Option<Arc<RuleText>>,
    /// Whose own access refused, as a level of the endpoint's name.
    pub level: Option<Level>,
    /// The session that the connection belongs to.
    pub session: Option<SessionId>,
    /// Whether this check opened that session.
    pub session_opened: bool,
    /// The organization's revision; 0 where it is unknown.
    pub revision: u64,
    /// The cluster's revision.
    pub cluster_revision: u64,
    /// The caller's own identifier.
    pub request_id: Box<str>,
    /// The lease that was asked for, in whole milliseconds.
    pub lease: Option<Duration>,
}

/// A change of policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyChangeRecord {
    /// The record of the policy journal.
    pub policy_sequence: u64,
    /// The revision that it led to.
    pub revision: u64,
    /// The caller's comment.
    pub comment: Arc<str>,
    /// What was altered.
    pub changes: Vec<ObjectChange>,
    /// When it is undone unless it is confirmed.
    pub confirm_until: Option<Timestamp>,
    /// The policy tests that it breaks on purpose.
    pub overridden_tests: Vec<Id>,
}

/// An object before and after a change.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectChange {
    /// Before; none where it was created.
    pub before: Option<Object>,
    /// After; none where it was deleted.
    pub after: Option<Object>,
}

/// An object of the policy.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A rule.
    Rule {
        /// The rule.
        rule: Arc<Rule>,
        /// Its position, from 1 on.
        position: u32,
    },
    /// A group.
    Group(GroupRecord),
    /// The organization's own node, or the cluster's.
    OwnNode(Arc<Node>),
    /// A node below an organization.
    Node {
        /// Which.
        key: NodeKey,
        /// The node.
        node: Arc<Node>,
    },
    /// The order of an organization's rules.
    RuleOrder(Vec<Id>),
    /// A policy test.
    Test(Arc<PolicyTest>),
    /// What is left of an object that is too large to be recorded.
    Digest(DigestRecord),
}

/// A group, and what of it changed.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRecord {
    /// Its id.
    pub id: Id,
    /// Free text.
    pub description: Arc<str>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// The revision that last changed it.
    pub changed_at: u64,
    /// Before: the ranges that went. After: those that came.
    pub ranges: RangeList,
    /// How many it has.
    pub range_count: u64,
}

/// What is left of an object that is too large to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct DigestRecord {
    /// Its name below the organization, such as `rules/office` or `projects/web`; empty for the organization itself, and
    /// for the cluster.
    pub key: Arc<str>,
    /// How many ranges, entries or rules it has.
    pub item_count: u64,
    /// SHA-256 of what is left out: each item as text, followed by a line feed.
    pub sha256: [u8; 32],
    /// The first ranges of what is left out.
    pub first_ranges: Vec<Range>,
}

impl Identity {
    /// The email of a user, or the name of who acted.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Person(Person { email, address: _ }) => email,
            Self::Actor(Actor { name }) => name,
        }
    }

    /// Where a user came from; none of who acted.
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::Person(Person { email: _, address }) => Some(*address),
            Self::Actor(_) => None,
        }
    }
}

impl From<Identity> for Subject {
    fn from(identity: Identity) -> Self {
        match identity {
            Identity::Person(person) => Self::Person(person),
            Identity::Actor(actor) => Self::Actor(actor),
        }
    }
}

impl Content {
    /// What kind it is.
    pub fn record_type(&self) -> RecordType {
        match self {
            Self::Decision(_) => RecordType::Decision,
            Self::SessionEnded(_) => RecordType::SessionEnded,
            Self::SessionRevoked(_) => RecordType::SessionRevoked,
            Self::PolicyChanged(_) => RecordType::PolicyChanged,
            Self::Gap(_) => RecordType::Gap,
            Self::Pruned(_) => RecordType::Pruned,
            Self::Erased(_) => RecordType::Erased,
            Self::ClockChanged(_) => RecordType::ClockChanged,
            Self::KeyChanged(_) => RecordType::KeyChanged,
            Self::Restored(_) => RecordType::Restored,
        }
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.boot, self.number)
    }
}

impl fmt::Debug for Person {
    /// Without personal data, which must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Person")
    }
}

impl fmt::Debug for Actor {
    /// Without the name, which must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Actor")
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Person(_) => "Person",
            Self::Actor(_) => "Actor",
        })
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Person(_) => "Person",
            Self::Actor(_) => "Actor",
            Self::Erased => "Erased",
        })
    }
}
