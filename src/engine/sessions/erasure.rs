//! Which sessions of a shard an erasure concerns: those of the user that were open when it began.
//!
//! Invariant: a session that was opened later is a new person's, and stays.
//! Not here: what is done to the sessions (`shard`), the order of the erasure among the records of the log (`table`).

use std::sync::Arc;

use super::{SHARDS_IN_ID, Session};
use crate::audit::record::Subject;
use crate::policy::name::Id;

/// A user who is being erased.
pub(super) struct ErasedUser {
    /// Where; none: everywhere.
    pub(super) organization: Option<Id>,
    pub(super) email: Box<str>,
    /// The number of this start, as in the ids of its sessions.
    pub(super) boot: u64,
}

/// An erasure under way in a shard.
pub(super) struct Erasure {
    user: Arc<ErasedUser>,
    /// How many sessions this start had opened in the shard: later ones are a new person's.
    opened: u64,
    /// How many sessions, not revoked yet, it has concerned.
    pub(super) count: usize,
}

impl Erasure {
    /// An erasure that begins when a shard has opened so many sessions.
    pub(super) fn new(user: &Arc<ErasedUser>, opened: u64) -> Self {
        Self { user: Arc::clone(user), opened, count: 0 }
    }

    pub(super) fn is_of(&self, user: &Arc<ErasedUser>) -> bool {
        Arc::ptr_eq(&self.user, user)
    }

    pub(super) fn concerns(&self, session: &Session) -> bool {
        let ErasedUser { organization, email, boot } = &*self.user;
        let id = session.record.id;
        matches!(&session.subject, Subject::Person(person) if *person.email == **email)
            && organization.as_ref().is_none_or(|organization| session.organization == *organization)
            && (id.boot != *boot || id.number / SHARDS_IN_ID <= self.opened)
    }
}
