//! Scans of many sessions: judging them after a change of policy, and listing them.
//!
//! Invariant: a session is judged by a policy that was loaded after its shard was locked, and a Check loads the policy
//! under the same lock. So a change that is published before `revoke` is called misses no session. One that was
//! registered before the lock is judged; a later one was decided by the new policy.
//! Not here: what denies a session, and which sessions a change may affect (`keeper`, `advance`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::slab::Active;
use super::table::SessionTable;
use super::{JudgedSession, SHARDS, Scope, Session};
use crate::audit::record::Subject;
use crate::audit::session::{Revocation, SessionId, SessionRecord};
use crate::policy::address::Address;
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;
use crate::policy::time::Timestamp;

/// Newest first: the later start, then the larger id.
type Rank = (Timestamp, SessionId);

/// A session in the list, until newer ones displace it.
struct Listed {
    rank: Rank,
    session: Session,
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Listed {}

impl PartialOrd for Listed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Listed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

fn judged(session: &Session) -> JudgedSession<'_> {
    let address = match &session.subject {
        Subject::Person(person) => Some(person.address),
        Subject::Nobody | Subject::Actor(_) | Subject::Erased => None,
    };
    JudgedSession {
        organization: &session.organization,
        endpoint: &session.record.endpoint,
        connection_type: session.record.connection_type,
        address,
    }
}

/// What is judged of a session, apart from the table.
struct Copied {
    id: SessionId,
    organization: Id,
    endpoint: Arc<str>,
    connection_type: ConnectionType,
    address: Option<Address>,
}

impl Copied {
    fn of(session: &Session) -> Self {
        let JudgedSession { organization, connection_type, address, .. } = judged(session);
        let (id, endpoint) = (session.record.id, Arc::clone(&session.record.endpoint));
        Self { id, organization: organization.clone(), endpoint, connection_type, address }
    }

    fn judged(&self) -> JudgedSession<'_> {
        let Self { organization, endpoint, connection_type, address, .. } = self;
        JudgedSession { organization, endpoint, connection_type: *connection_type, address: *address }
    }
}

impl SessionTable {
    /// Judges every active session in the scope that is not revoked yet, shard after shard, and marks those for which the
    /// judge returns a revocation. For each shard, `before_shard` is called without a lock, so that the caller can wait
    /// for room in its queue. Then the shard is locked, and `judge` makes a judge, which must load the policy only then.
    /// `revoked` is called for each session that was marked.
    ///
    /// Sessions of an organization come together, and in it those of an endpoint, so that a judge can reuse what it looked
    /// up. A session that has ended by itself is judged too until `expire` finds it: call that before.
    pub fn revoke<J>(
        &self,
        scope: &Scope,
        mut before_shard: impl FnMut(),
        mut judge: impl FnMut(usize) -> J,
        mut revoked: impl FnMut(&Session),
    ) where
        J: FnMut(&JudgedSession<'_>) -> Option<Revocation>,
    {
        for (number, of_ids) in (0..SHARDS).zip(0_u64..) {
            before_shard();
            let mut shard = self.lock(of_ids);
            let mut slots = shard.index.slots(scope).peekable();
            if slots.peek().is_none() {
                continue;
            }
            let mut judge = judge(number);
            let judged = slots.filter_map(|slot| {
                let session = &shard.slab.at(slot)?.session;
                Some(&session.record).filter(|record| record.revocation.is_none())?;
                Some((slot, judge(&judged(session))?))
            });
            let judged: Vec<(u32, Revocation)> = judged.collect();
            for (slot, revocation) in judged {
                if let Some(session) = shard.revoke(slot, revocation) {
                    revoked(session);
                }
            }
        }
    }

    /// How many active sessions in the scope, not revoked yet, the judge accepts; and the first of them, at most
    /// `listed_max`. The judge is called without a lock, so it may take its time.
    pub fn find(
        &self,
        scope: &Scope,
        mut judge: impl FnMut(&JudgedSession<'_>) -> bool,
        listed_max: usize,
    ) -> (u64, Vec<Session>) {
        let (mut count, mut listed) = (0, Vec::new());
        for (_, number) in (0..SHARDS).zip(0_u64..) {
            let mut accepted = Vec::new();
            for copied in self.copied(number, scope) {
                if judge(&copied.judged()) {
                    count += 1;
                    if listed.len() + accepted.len() < listed_max {
                        accepted.push(copied.id);
                    }
                }
            }
            if !accepted.is_empty() {
                // One that has ended meanwhile is counted and not listed.
                let shard = self.lock(number);
                let sessions = accepted.into_iter().filter_map(|id| shard.slab.at(shard.slot(id)?));
                listed.extend(sessions.map(|active| active.session.clone()));
            }
        }
        (count, listed)
    }

    /// What is to be judged of the sessions of one shard that are not revoked yet.
    fn copied(&self, number: u64, scope: &Scope) -> Vec<Copied> {
        let shard = self.lock(number);
        let active = shard.index.slots(scope).filter_map(|slot| shard.slab.at(slot));
        let active = active.filter(|active| active.session.record.revocation.is_none());
        active.map(|active| Copied::of(&active.session)).collect()
    }

    /// At most `count_max` of the sessions that match, in one organization or all: the newest start first, and of
    /// equal ones the larger id. With `before`, the start and id of the last one seen, those that come after it.
    /// `matches` is called while the session's shard is locked.
    pub fn list(
        &self,
        organization: Option<&Id>,
        matches: &dyn Fn(&SessionRecord, &Subject) -> bool,
        before: Option<(Timestamp, SessionId)>,
        count_max: usize,
    ) -> Vec<Session> {
        let mut newest: BinaryHeap<Reverse<Listed>> = BinaryHeap::new();
        let mut consider = |Active { session, .. }: &Active| {
            let rank = (session.record.start_time, session.record.id);
            if before.is_some_and(|before| rank >= before) {
                return;
            }
            let is_full = newest.len() >= count_max;
            if is_full && newest.peek().is_none_or(|Reverse(oldest)| oldest.rank >= rank) {
                return;
            }
            if matches(&session.record, &session.subject) {
                if is_full {
                    newest.pop();
                }
                newest.push(Reverse(Listed { rank, session: session.clone() }));
            }
        };
        let scope = organization.cloned().map(Scope::Organization);
        for shard in self.shards() {
            match &scope {
                Some(scope) => {
                    shard.index.slots(scope).filter_map(|slot| shard.slab.at(slot)).for_each(&mut consider);
                }
                None => shard.slab.iter().for_each(&mut consider),
            }
        }
        // Ascending by `Reverse` is the newest first.
        newest.into_sorted_vec().into_iter().map(|Reverse(listed)| listed.session).collect()
    }
}
