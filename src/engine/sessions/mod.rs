//! The active sessions: which connections are open, in memory (design.md §2.7).
//!
//! * `table`: opening, ending, renewing, erasing, looking up. `scan`: revoking and listing.
//! * `recovery`: restoring the sessions after a restart.
//! * `shard`: one part of the table with its own lock. It consists of `slab`, `index` and `timers`; `erasure` tells whom
//!   it is erasing.
//!
//! The table calls a closure for each event of a session, while its shard is locked. A log that the closure writes has
//! the order of the state: no session ends before it was opened, and a change misses none that it would revoke. The
//! closures must be quick and must not call the table.
//!
//! Invariant: an active session is in the table exactly once, in the shard that its id names. Closures are called in the
//! order in which things happened to it. Times are whole microseconds, as the log keeps them.
//! Not here: the log, the clock, the policy; sessions that have ended.

mod erasure;
mod index;
mod lifetime;
mod recovery;
mod scan;
mod shard;
mod slab;
mod table;
mod timers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

pub use recovery::ShardState;
pub use table::{Admission, SessionTable};

use crate::audit::record::Subject;
use crate::audit::session::{SessionId, SessionRecord};
use crate::policy::address::Address;
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;

/// Parts of the table, each with a lock of its own. Connections are spread over them, so that threads seldom wait for
/// each other. A session's id names its part, so this number must never change.
pub const SHARDS: usize = 64;

/// The number of shards as ids use it.
const SHARDS_IN_ID: u64 = SHARDS as u64;

/// The options of all sessions.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// A preview ends when no check came for this long.
    pub idle: Duration,
    /// A session ends when it is this old.
    pub max_age: Duration,
    /// The most sessions that may be active.
    pub active_max: usize,
    /// A secret of the installation, the same at every start. It spreads users over shards: ids outlast an erasure and
    /// tell the shard, which must not tell anything about the user.
    pub key: [u64; 2],
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { idle: Duration::from_mins(30), max_age: Duration::from_hours(24), active_max: 1_000_000, key: [0; 2] }
    }
}

/// A session, and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The organization of the endpoint.
    pub organization: Id,
    /// Who has it.
    pub subject: Subject,
    /// Everything else.
    pub record: SessionRecord,
}

/// The connection that a check asks for.
#[derive(Clone, Copy)]
pub struct AdmissionKey<'a> {
    /// The organization of the endpoint.
    pub organization: &'a Id,
    /// The full name of the node.
    pub endpoint: &'a str,
    /// What is to be opened.
    pub connection_type: ConnectionType,
    /// The user; empty where the check named none.
    pub email: &'a str,
    /// Where the user comes from.
    pub address: Address,
}

/// The session that an allowed check belongs to.
#[derive(Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Which.
    pub session: SessionId,
    /// Whether this check opened it.
    pub opened: bool,
    /// The user, as the session has it.
    pub email: Arc<str>,
    /// The full name of the node, as the session has it.
    pub endpoint: Arc<str>,
}

impl fmt::Debug for Admitted {
    /// Without personal data, which must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, opened, .. } = self;
        f.debug_struct("Admitted").field("session", session).field("opened", opened).finish_non_exhaustive()
    }
}

/// No session can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{active_max} sessions are active, which is the limit: end some, or raise it")]
pub struct TooManySessions {
    /// The limit.
    pub active_max: usize,
}

/// What became of a session that was to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It continues.
    Renewed,
    /// It was revoked before: the connection is to be cut.
    Revoked,
    /// It is unknown or has ended: the connection is to be cut.
    Lost,
}

/// Which sessions a change may affect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those of one organization.
    Organization(Id),
    /// Those of one organization to a node and all below it: its full name.
    Subtree(Id, String),
}

/// A session as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct JudgedSession<'a> {
    /// The organization of the endpoint.
    pub organization: &'a Id,
    /// The full name of the node.
    pub endpoint: &'a str,
    /// What was opened.
    pub connection_type: ConnectionType,
    /// Where the user came from; none after an erasure. The judge says whether such a session continues.
    pub address: Option<Address>,
}
