//! The active sessions (design.md §2.7).
//!
//! Sessions lie in shards, by user, address and endpoint; a session's number tells its shard. Whatever happens to a
//! session happens under its shard's lock, and is told to the caller under it, so that the order of the audit log is the
//! order of the state. Lock order: shard, then the audit queue.
//!
//! Invariant: a session is active until it ends, once; revocation is final. Nothing here waits.
//! Not here: clocks, the audit queue, files.

mod replay;
mod shard;
mod table;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::audit::session::SessionId;
use crate::policy::address::Address;
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;

pub use crate::store::codec::audit::{ShardSessions, StoredSession as Session};
pub use table::{Admission, SessionTable};

/// How long sessions last, and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// A preview session ends when no check came for this long.
    pub idle: Duration,
    /// Every session ends after this long.
    pub max_age: Duration,
    /// How many may be active.
    pub active_max: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { idle: Duration::from_mins(30), max_age: Duration::from_hours(24), active_max: 1_000_000 }
    }
}

/// Who wants to connect to what: what previews are folded by, and what picks the shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AdmissionKey {
    /// The organization.
    pub organization: Id,
    /// The full name of the node.
    pub endpoint: Arc<str>,
    /// How they connect.
    pub connection_type: ConnectionType,
    /// Who.
    pub email: Arc<str>,
    /// From where.
    pub address: Address,
}

/// A check was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its session.
    pub session: SessionId,
    /// Whether it opened that session.
    pub opened: bool,
}

/// There is no room for another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the server has {active_max} active sessions, which is its limit: end some, or raise `limits.active_sessions`")]
pub struct TooManySessions {
    /// The limit.
    pub active_max: usize,
}

/// What became of a session that was to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It goes on.
    Renewed,
    /// It is revoked and was not renewed.
    Revoked,
    /// It is unknown, or has ended.
    Lost,
}

/// Where sessions are judged again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    All,
    /// In an organization.
    Organization(Id),
    /// At a node of an organization, by its full name, and below it.
    Subtree(Id, String),
}

/// An active session as far as the policy judges it.
#[derive(Clone, Copy, Debug)]
pub struct JudgedSession<'a> {
    /// Where it comes from; none where that was erased and is not even in memory any more.
    pub address: Option<Address>,
    /// How it is connected.
    pub connection_type: ConnectionType,
    /// The full name of its node.
    pub endpoint: &'a str,
}
