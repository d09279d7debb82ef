//! A session as a record: a connection that was allowed, from its start to its end (design.md §2.7).
//!
//! Invariant: a session ends once; revocation is noted once and stays.
//! Not here: which sessions are active, and when they end (`engine::sessions`).

use std::fmt;
use std::sync::Arc;

use super::rule_text::RuleText;
use portcullis_policy::decision::{Level, Reason};
use portcullis_policy::name::Id;
use portcullis_policy::rule::ConnectionType;
use portcullis_policy::time::Timestamp;

/// Names a session within the installation: the number of the server's start
/// ([`Lineage::boot`](crate::lineage::Lineage::boot)), and a number. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The start of the server that opened it.
    pub boot: u64,
    /// The number within that start, from 1 on.
    pub number: u64,
}

/// A session, without whom it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRecord {
    /// Names it.
    pub id: SessionId,
    /// What was opened.
    pub connection_type: ConnectionType,
    /// The full name of the node.
    pub endpoint: Arc<str>,
    /// When it was opened.
    pub start_time: Timestamp,
    /// When it was last heard of.
    pub last_seen_time: Timestamp,
    /// How many allowed checks it stands for.
    pub request_count: u64,
    /// The rule that allowed it; none where no rule matched.
    pub rule: Option<Id>,
    /// The organization's revision that allowed it.
    pub revision: u64,
    /// When its lease runs out; none where it has no lease.
    pub lease_expire_time: Option<Timestamp>,
    /// Its revocation.
    pub revocation: Option<Revocation>,
    /// Its end.
    pub end: Option<SessionEnd>,
}

/// A change made the session one that would be denied, or that nothing shows to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// When.
    pub time: Timestamp,
    /// Why.
    pub reason: RevokeReason,
    /// The rule that now denies.
    pub rule: Option<Id>,
    /// What that rule was; none in records that older versions wrote.
    pub rule_text: Option<Arc<RuleText>>,
    /// Whose access now refuses, as a level of the endpoint's name.
    pub level: Option<Level>,
    /// The revision that did it: the cluster's where the cluster refuses, else the organization's; 0 where that is gone.
    pub revision: u64,
}

/// Why an active session is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeReason {
    /// A Check of it would be denied now, for this reason.
    Denied(Reason),
    /// Its user and address were erased, so nothing shows that it would be allowed.
    AddressErased,
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// When.
    pub time: Timestamp,
    /// Why.
    pub reason: EndReason,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The PEP ended it.
    Closed,
    /// Its lease ran out.
    LeaseExpired,
    /// A preview for which no check came for the idle time.
    Idle,
    /// It reached the maximum age.
    MaxAge,
    /// The PEP ended it after it was revoked.
    Revoked,
    /// Its answer never left the server.
    Abandoned,
}

impl SessionId {
    /// The id that the text is; none where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (boot, number) = text.split_once('-')?;
        let id = Self { boot: u64::from_str_radix(boot, 16).ok()?, number: u64::from_str_radix(number, 16).ok()? };
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.boot, self.number)
    }
}
