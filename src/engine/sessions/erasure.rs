//! Erasing a user from one shard: which sessions are concerned, and what happens to them until all were looked at.
//!
//! Invariant: from `begin_erasure` on, no session of the user that was open then is given to a closure with the user, and
//! none is found by a further check.
//! Not here: the order of the erasure among the records of the log (`table`).

use std::sync::Arc;

use super::shard::Shard;
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
}

impl Erasure {
    fn concerns(&self, session: &Session) -> bool {
        let ErasedUser { organization, email, boot } = &*self.user;
        let id = session.record.id;
        matches!(&session.subject, Subject::Person(person) if *person.email == **email)
            && organization.as_ref().is_none_or(|organization| session.organization == *organization)
            && (id.boot != *boot || id.number / SHARDS_IN_ID <= self.opened)
    }
}

impl Shard {
    /// Erases a user from the sessions that are open now: from each when it is come across, at the latest in
    /// `finish_erasure`.
    pub(super) fn begin_erasure(&mut self, user: &Arc<ErasedUser>) {
        self.erasures.push(Erasure { user: Arc::clone(user), opened: self.opened });
    }

    /// Erases the user from the sessions that are left; returns how many.
    pub(super) fn finish_erasure(&mut self, user: &Arc<ErasedUser>) -> usize {
        let Some(at) = self.erasures.iter().position(|erasure| Arc::ptr_eq(&erasure.user, user)) else { return 0 };
        let erasure = self.erasures.swap_remove(at);
        let mut slots = Vec::new();
        for (slot, active) in self.slab.iter_mut() {
            if erasure.concerns(&active.session) {
                active.session.subject = Subject::Erased;
                slots.push(slot);
            }
        }
        for slot in &slots {
            self.unfold(*slot);
        }
        slots.len()
    }

    /// Erases the user of a session that is come across; tells whether it did.
    pub(super) fn erase_at(&mut self, slot: u32) -> bool {
        let Some(active) = self.slab.at_mut(slot) else { return false };
        if !self.erasures.iter().any(|erasure| erasure.concerns(&active.session)) {
            return false;
        }
        active.session.subject = Subject::Erased;
        self.unfold(slot);
        true
    }
}
