//! Policy tests: connections, and what the policy must decide about them.
//!
//! Invariant: a test belongs to one organization, whose name its endpoint begins with.
//! Not here: what a version of the policy decides (`judging`).

use std::sync::Arc;

use super::address::Address;
use super::decision::Decision;
use super::name::Id;
use super::rule::ConnectionType;
use super::time::Timestamp;

/// A connection and what must be decided about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTest {
    /// Its id, unique among the organization's tests.
    pub id: Id,
    /// Where the connection comes from.
    pub address: Address,
    /// How the person connects.
    pub connection_type: ConnectionType,
    /// The full name of what the person connects to.
    pub endpoint: Arc<str>,
    /// What must be decided.
    pub expected: Decision,
    /// Free text.
    pub description: Arc<str>,
    /// The moment from which on the test need not hold; none means that it holds always.
    pub end_time: Option<Timestamp>,
}

impl PolicyTest {
    /// Whether the test asks for nothing any more.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.end_time.is_some_and(|end| end <= now)
    }
}
