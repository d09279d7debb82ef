//! The table: operations on one session, or on those that are named or due.
//!
//! Invariant: no method but `erase` holds two locks, and each says whether it calls closures under a lock.
//! Not here: scans of many sessions (`scan`), the start (`recovery`).

use std::hash::Hasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::erasure::ErasedUser;
use super::index::Counts;
use super::lifetime::{Life, Lifetimes, after, whole_moment};
use super::shard::{Shard, Totals};
use super::{AdmissionKey, Admitted, Renewed, SHARDS, SHARDS_IN_ID, Session, SessionOptions, TooManySessions};
use crate::audit::record::{Person, Subject};
use crate::audit::session::{EndReason, SessionEnd, SessionId, SessionRecord};
use crate::engine::clock::Moment;
use crate::locks::IgnorePoison;
use crate::policy::address::Address;
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;

/// Sessions that are ended while a shard stays locked: some tens of microseconds for a check that waits.
const EXPIRE_BATCH: usize = 256;

/// All active sessions.
pub struct SessionTable {
    /// The number of this start, which its ids contain.
    pub(super) boot: u64,
    key: [u64; 2],
    active_max: usize,
    pub(super) totals: Arc<Totals>,
    shards: Box<[Mutex<Shard>]>,
}

/// A check about to be registered. Its shard is locked.
pub struct Admission<'a> {
    table: &'a SessionTable,
    shard: &'a mut Shard,
    hash: u64,
    key: &'a AdmissionKey<'a>,
    ended: &'a mut dyn FnMut(&Session),
}

impl SessionTable {
    /// A table without sessions. Its ids contain `boot`, which must never have been used before.
    pub fn new(boot: u64, options: &SessionOptions) -> Self {
        let totals = Arc::new(Totals::default());
        let lifetimes = Lifetimes::new(options);
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(lifetimes, Arc::clone(&totals)))).collect();
        Self { boot, key: options.key, active_max: options.active_max, totals, shards }
    }

    /// Locks the shard that a session's number or a key's hash names.
    #[expect(clippy::indexing_slicing, reason = "a remainder of a division by the number of shards")]
    pub(super) fn lock(&self, number: u64) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[usize::try_from(number % SHARDS_IN_ID).unwrap_or(0)];
        // A shard in which a closure panicked is consistent.
        shard.lock().ignore_poison()
    }

    /// Locks the shards one after the other.
    pub(super) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        (0..SHARDS_IN_ID).map(|number| self.lock(number))
    }

    /// The hash that spreads connections over shards, and by which a check finds its preview.
    pub(super) fn hash(&self, organization: &Id, email: &str, address: Address, endpoint: &str) -> u64 {
        #[expect(deprecated, reason = "nothing else in the standard library is a keyed hash that stays what it is")]
        let mut hasher = std::hash::SipHasher::new_with_keys(self.key[0], self.key[1]);
        // One call of the hasher instead of many: the same hash, and faster. No text holds the byte 255.
        let mut buffer = HashBuffer::default();
        for text in [organization.as_str(), email, endpoint] {
            buffer.write(&mut hasher, text.as_bytes());
            buffer.write(&mut hasher, &[255]);
        }
        match address {
            Address::V4(word) => buffer.write(&mut hasher, &word.to_le_bytes()),
            Address::V6(word) => buffer.write(&mut hasher, &word.to_le_bytes()),
        }
        buffer.end(&mut hasher);
        hasher.finish()
    }

    /// Calls `register` while the shard of the connection is locked: it decides, calls [`Admission::allow`] if the
    /// connection is allowed, and writes its record. Before that, under the same lock, `ended` is called for a session
    /// that has ended and that the new one replaces.
    pub fn admit<T>(
        &self,
        key: &AdmissionKey<'_>,
        mut ended: impl FnMut(&Session),
        register: impl FnOnce(Admission<'_>) -> T,
    ) -> T {
        let hash = self.hash(key.organization, key.email, key.address, key.endpoint);
        let mut shard = self.lock(hash);
        register(Admission { table: self, shard: &mut shard, hash, key, ended: &mut ended })
    }

    /// Ends a session because the PEP closed the connection, or because its answer was never sent: as `Revoked` if it was
    /// revoked, else as `reason`. A session that was due by `now` ends at its deadline, for that reason. None where the
    /// organization has no such active session. `ended` is called while the shard is locked.
    pub fn end(
        &self,
        id: SessionId,
        organization: &Id,
        now: impl Into<Moment>,
        reason: EndReason,
        mut ended: impl FnMut(&Session),
    ) -> Option<Session> {
        let now = whole_moment(now.into());
        let mut shard = self.lock(id.number);
        let slot = shard.slot_in(organization, id)?;
        let end = shard.ended_by(slot, now).or_else(|| {
            let active = shard.slab.at(slot)?;
            let record = &active.session.record;
            let reason = if record.revocation.is_some() { EndReason::Revoked } else { reason };
            // Another may have read the clock later, and been here first.
            let time = if now.steady < active.life.seen { record.last_seen_time } else { now.time };
            Some(SessionEnd { time, reason })
        })?;
        let session = shard.end(slot, end)?;
        ended(&session);
        Some(session)
    }

    /// Renews the leases of sessions from `now` on; tells what became of each, in their order. Previews have no lease and
    /// are left as they are. A session that was due by `now` is lost, and `ended` is called for it while its shard is
    /// locked.
    pub fn renew(
        &self,
        ids: &[(Id, SessionId)],
        lease: Duration,
        now: impl Into<Moment>,
        mut ended: impl FnMut(&Session),
    ) -> Vec<Renewed> {
        let now = whole_moment(now.into());
        let lease_expire = now.after(lease);
        let mut by_shard: Vec<(usize, &(Id, SessionId))> = ids.iter().enumerate().collect();
        by_shard.sort_by_key(|(_, (_, id))| id.number % SHARDS_IN_ID);
        let mut renewed = vec![Renewed::Lost; ids.len()];
        for of_shard in by_shard.chunk_by(|(_, (_, a)), (_, (_, b))| a.number % SHARDS_IN_ID == b.number % SHARDS_IN_ID)
        {
            let Some((_, (_, first))) = of_shard.first() else { continue };
            let mut shard = self.lock(first.number);
            for (at, (organization, id)) in of_shard {
                let Some(slot) = shard.slot_in(organization, *id) else { continue };
                if shard.end_if_due(slot, now, &mut ended) {
                    continue;
                }
                if let Some(renewed) = renewed.get_mut(*at) {
                    *renewed = shard.renew(slot, now, lease_expire);
                }
            }
        }
        renewed
    }

    /// Ends every session that is due by `now`: its lease has run out, or it is idle or too old. Its end has the time of
    /// the earliest of these. `ended` is called while the session's shard is locked; the lock is released every few
    /// hundred sessions.
    pub fn expire(&self, now: impl Into<Moment>, mut ended: impl FnMut(&Session)) {
        let now = whole_moment(now.into());
        for number in 0..SHARDS_IN_ID {
            while self.lock(number).expire(now, EXPIRE_BATCH, &mut ended) {}
        }
    }

    /// Erases a user from their sessions, in one organization or all; returns how many of them are not revoked yet. They
    /// stay active, and no further check belongs to them. `record` queues the record of the erasure. It is called while all shards are locked, so
    /// exactly the sessions whose opening was queued before that record are erased. What is queued about them afterwards
    /// has no user.
    pub fn erase(&self, organization: Option<&Id>, email: &str, record: impl FnOnce()) -> usize {
        let of = ErasedUser { organization: organization.cloned(), email: email.into(), boot: self.boot };
        let user = Arc::new(of);
        {
            // Always in the same order, and nobody else holds two.
            let mut shards: Vec<_> = self.shards().collect();
            for shard in &mut shards {
                shard.begin_erasure(&user);
            }
            record();
        }
        // Until here and below each shard erases what it comes across.
        self.shards().map(|mut shard| shard.finish_erasure(&user)).sum()
    }

    /// The organization's session with this id, if it is active.
    pub fn get(&self, organization: &Id, id: SessionId) -> Option<Session> {
        let shard = self.lock(id.number);
        let slot = shard.slot_in(organization, id)?;
        shard.slab.at(slot).map(|active| active.session.clone())
    }

    /// How many shell and how many preview sessions are active, in one organization or in all.
    pub fn counts(&self, organization: Option<&Id>) -> (u64, u64) {
        let Some(organization) = organization else {
            let total = |connection_type| self.totals.of(connection_type).load(Ordering::Relaxed);
            return (total(ConnectionType::Shell), total(ConnectionType::Preview));
        };
        self.shards()
            .map(|shard| shard.index.counts(organization))
            .fold((0, 0), |sums, Counts { shell, preview }| (sums.0 + shell, sums.1 + preview))
    }

    /// How many sessions are active.
    pub fn len(&self) -> usize {
        self.totals.active()
    }

    /// Whether no session is active.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes that are gathered before they are hashed.
struct HashBuffer {
    bytes: [u8; Self::BYTES],
    length: usize,
}

impl HashBuffer {
    /// Enough for nearly every connection.
    const BYTES: usize = 256;

    fn write(&mut self, hasher: &mut impl Hasher, bytes: &[u8]) {
        if self.length + bytes.len() > Self::BYTES {
            self.end(hasher);
        }
        match self.bytes.get_mut(self.length..self.length + bytes.len()) {
            Some(free) => {
                free.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            None => hasher.write(bytes),
        }
    }

    fn end(&mut self, hasher: &mut impl Hasher) {
        hasher.write(self.bytes.get(..self.length).unwrap_or_default());
        self.length = 0;
    }
}

impl Default for HashBuffer {
    fn default() -> Self {
        Self { bytes: [0; Self::BYTES], length: 0 }
    }
}

impl Admission<'_> {
    /// Registers the connection as allowed: it opens a session or, as a preview, joins an active one. Such a session keeps
    /// the rule and the revision that opened it. `lease` is for shells: previews have none.
    ///
    /// # Errors
    /// [`TooManySessions`] where a session would have to be opened and the limit is reached.
    pub fn allow(
        self,
        now: impl Into<Moment>,
        rule: Option<Id>,
        revision: u64,
        lease: Option<Duration>,
    ) -> Result<Admitted, TooManySessions> {
        let Self { table, shard, hash, key, ended } = self;
        let now = whole_moment(now.into());
        let is_preview = key.connection_type == ConnectionType::Preview;
        if let Some(slot) = is_preview.then(|| shard.folded(hash, key)).flatten()
            && !shard.end_if_due(slot, now, ended)
            && let Some(admitted) = shard.count(slot, now)
        {
            return Ok(admitted);
        }
        if !table.totals.reserve(table.active_max) {
            return Err(TooManySessions { active_max: table.active_max });
        }
        shard.opened += 1;
        let id = SessionId { boot: table.boot, number: shard.opened * SHARDS_IN_ID + hash % SHARDS_IN_ID };
        let endpoint = shard.index.shared_name(key.organization, key.endpoint);
        let endpoint = endpoint.unwrap_or_else(|| key.endpoint.into());
        let email: Arc<str> = key.email.into();
        let lease = lease.filter(|_| !is_preview);
        let lease_expire = lease.map(|lease| after(now.steady, lease));
        let life = Life { start: now.steady, seen: now.steady, lease_expire };
        let record = SessionRecord {
            id,
            connection_type: key.connection_type,
            endpoint: Arc::clone(&endpoint),
            start_time: now.time,
            last_seen_time: now.time,
            request_count: 1,
            rule,
            revision,
            lease_expire_time: lease.map(|lease| after(now.time, lease)),
            revocation: None,
            end: None,
        };
        let subject = Subject::Person(Person { email: Arc::clone(&email), address: key.address });
        let session = Session { organization: key.organization.clone(), subject, record };
        shard.insert(session, life, is_preview.then_some(hash));
        Ok(Admitted { session: id, opened: true, email, endpoint })
    }
}

#[cfg(test)]
mod tests {
    use super::super::timers::DEAD_ENTRIES_MIN;
    use super::*;
    use crate::policy::time::Timestamp;

    #[test]
    fn sessions_that_come_and_go_leave_no_timers_behind() {
        let table = SessionTable::new(1, &SessionOptions::default());
        let organization = Id::parse("acme").expect("an id");
        let key = AdmissionKey {
            organization: &organization,
            endpoint: "organizations/acme/environments/dev/endpoints/web",
            connection_type: ConnectionType::Shell,
            email: "ann@example.com",
            address: Address::V4(1),
        };
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        for seconds in 0..20_000 {
            let admit = |admission: Admission<'_>| admission.allow(at(seconds), None, 1, None);
            let session = table.admit(&key, |_| (), admit).expect("there is room").session;
            table.end(session, &organization, at(seconds), EndReason::Closed, |_| ()).expect("it was open");
        }
        assert!(table.shards().all(|shard| shard.timers.len() <= DEAD_ENTRIES_MIN));
    }
}
