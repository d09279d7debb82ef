//! The table of active sessions: shards behind locks.
//!
//! Invariant: a session that is admitted was decided under the lock of its shard. Whoever publishes a policy and then
//! looks through all shards sees every session that an older policy let in.
//! Not here: what a shard holds (`shard`), the start (`replay`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::shard::{Active, Shard, after, fold_key};
use super::{
    AdmissionKey, Admitted, JudgedSession, Renewed, Scope, Session, SessionOptions, ShardSessions, TooManySessions,
};
use crate::audit::record::{Person, Subject};
use crate::audit::session::{EndReason, Revocation, SessionEnd, SessionId, SessionRecord};
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;
use crate::policy::time::Timestamp;

/// Shards: many more than cores, so that Checks seldom meet in one.
pub(super) const SHARDS: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct SessionTable {
    boot: u64,
    options: SessionOptions,
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    pub(super) active: AtomicUsize,
}

/// A check that is being decided, with its shard locked.
pub struct Admission<'a> {
    table: &'a SessionTable,
    shard: &'a mut Shard,
    number: usize,
    key: &'a AdmissionKey,
    ended: &'a mut dyn FnMut(&Session),
}

impl SessionTable {
    /// An empty table. `boot` must be drawn at random for each start.
    pub fn new(boot: u64, options: SessionOptions) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { boot, options, shards, hasher: RandomState::new(), active: AtomicUsize::new(0) }
    }

    /// How long sessions last, and how many there may be.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Number of active sessions.
    pub fn len(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether no session is active.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Locks a shard. There always is one: numbers are taken modulo their count.
    fn lock(&self, number: usize) -> Option<MutexGuard<'_, Shard>> {
        Some(self.shards.get(number % SHARDS)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn shard_of(&self, id: SessionId) -> Option<MutexGuard<'_, Shard>> {
        self.lock(usize::try_from(id.number % SHARDS as u64).unwrap_or_default())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (usize, MutexGuard<'_, Shard>)> {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner)).enumerate()
    }

    /// Runs `register` with the shard of a check locked: it is to decide, open the session where it is allowed, and queue
    /// the record. `ended` is told of a session that the check finds to be over.
    pub fn admit<T>(
        &self,
        key: &AdmissionKey,
        mut ended: impl FnMut(&Session),
        register: impl FnOnce(&mut Admission<'_>) -> T,
    ) -> T {
        let number = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        let mut spare = Shard::default();
        let mut locked = self.lock(number);
        let shard = locked.as_deref_mut().unwrap_or(&mut spare);
        register(&mut Admission { table: self, shard, number, key, ended: &mut ended })
    }

    /// Ends a session of an organization, for `reason` or, where it was revoked or had been due, for that. None where it is
    /// not active.
    pub fn end(
        &self,
        id: SessionId,
        organization: &Id,
        now: Timestamp,
        reason: EndReason,
        mut ended: impl FnMut(&Session),
    ) -> Option<Session> {
        let mut shard = self.shard_of(id)?;
        let active = shard.sessions.get(&id)?;
        if active.session.organization != *organization {
            return None;
        }
        let reason = if active.session.record.revocation.is_some() { EndReason::Revoked } else { reason };
        let session = match shard.end_if_due(id, now, &self.options) {
            Some(session) => session,
            None => shard.end(id, SessionEnd { time: now, reason })?,
        };
        self.active.fetch_sub(1, Ordering::Relaxed);
        ended(&session);
        Some(session)
    }

    /// Extends leases to `now` and `lease`; what became of each session, in order.
    pub fn renew(
        &self,
        sessions: &[(Id, SessionId)],
        lease: Duration,
        now: Timestamp,
        mut ended: impl FnMut(&Session),
    ) -> Vec<Renewed> {
        sessions.iter().map(|(organization, id)| self.renew_one(organization, *id, lease, now, &mut ended)).collect()
    }

    fn renew_one(
        &self,
        organization: &Id,
        id: SessionId,
        lease: Duration,
        now: Timestamp,
        ended: &mut dyn FnMut(&Session),
    ) -> Renewed {
        let Some(mut shard) = self.shard_of(id) else { return Renewed::Lost };
        if shard.sessions.get(&id).is_none_or(|active| active.session.organization != *organization) {
            return Renewed::Lost;
        }
        if let Some(session) = shard.end_if_due(id, now, &self.options) {
            self.active.fetch_sub(1, Ordering::Relaxed);
            ended(&session);
            return Renewed::Lost;
        }
        let Some(active) = shard.sessions.get_mut(&id) else { return Renewed::Lost };
        let record = &mut active.session.record;
        if record.revocation.is_some() {
            return Renewed::Revoked;
        }
        if record.connection_type == ConnectionType::Shell {
            renew_record(record, now, after(now, lease));
            shard.reschedule(id, &self.options);
        }
        Renewed::Renewed
    }

    /// Ends every session that is due by `now`.
    pub fn expire(&self, now: Timestamp, mut ended: impl FnMut(&Session)) {
        for (_, mut shard) in self.all() {
            shard.expire(now, &self.options, &mut |session| {
                self.active.fetch_sub(1, Ordering::Relaxed);
                ended(session);
            });
        }
    }

    /// Judges the sessions in a scope that are not revoked yet, shard after shard. `room` is called before each shard,
    /// outside of locks; `judge` under the lock, to load the policy that judges; `revoked` is told of each that is.
    pub fn revoke<J: FnMut(&JudgedSession<'_>) -> Option<Revocation>>(
        &self,
        scope: &Scope,
        mut room: impl FnMut(),
        mut judge: impl FnMut(usize) -> J,
        mut revoked: impl FnMut(&Session),
    ) {
        for number in 0..SHARDS {
            room();
            let Some(mut shard) = self.lock(number) else { continue };
            let mut judge = judge(number);
            for id in shard.in_scope(scope) {
                let Some(active) = shard.sessions.get_mut(&id) else { continue };
                let Session { organization, subject, record } = &mut active.session;
                if record.revocation.is_some() {
                    continue;
                }
                let judged = JudgedSession {
                    address: active.address,
                    connection_type: record.connection_type,
                    endpoint: &record.endpoint,
                };
                let Some(revocation) = judge(&judged) else { continue };
                record.revocation = Some(revocation);
                let key = fold_key(organization, subject, record);
                revoked(&active.session);
                shard.unfold(&key, id);
            }
        }
    }

    /// Forgets who the active sessions of a user are of. They stay active; how many they are.
    pub fn erase(&self, organization: Option<&Id>, email: &str) -> usize {
        let mut erased = 0;
        for (_, mut shard) in self.all() {
            let is_his = |session: &Session| {
                organization.is_none_or(|organization| session.organization == *organization)
                    && matches!(&session.subject, Subject::Person(person) if *person.email == *email)
            };
            let ids: Vec<SessionId> =
                shard.sessions.iter().filter(|(_, active)| is_his(&active.session)).map(|(id, _)| *id).collect();
            for id in ids {
                let Some(active) = shard.sessions.get_mut(&id) else { continue };
                let Session { organization, subject, record } = &mut active.session;
                let key = fold_key(organization, subject, record);
                *subject = Subject::Erased;
                shard.unfold(&key, id);
                erased += 1;
            }
        }
        erased
    }

    /// An active session of an organization.
    pub fn get(&self, organization: &Id, id: SessionId) -> Option<Session> {
        let shard = self.shard_of(id)?;
        shard
            .sessions
            .get(&id)
            .map(|active| active.session.clone())
            .filter(|session| session.organization == *organization)
    }

    /// Numbers of active sessions: shells, previews.
    pub fn counts(&self, organization: Option<&Id>) -> (u64, u64) {
        let count = |shard: &Shard| organization.map_or_else(|| shard.count_all(), |id| shard.count(id));
        self.all().fold((0, 0), |(shells, previews), (_, shard)| {
            let [more, others] = count(&shard);
            (shells + more, previews + others)
        })
    }

    /// The active sessions that match, newest start first (then the larger id), at most `count_max`; those behind `before`
    /// where that is given.
    pub fn list(
        &self,
        organization: Option<&Id>,
        matches: &dyn Fn(&SessionRecord, &Subject) -> bool,
        before: Option<(Timestamp, SessionId)>,
        count_max: usize,
    ) -> Vec<Session> {
        // The oldest of those found is on top, and makes room for newer ones.
        let mut found: BinaryHeap<Reverse<(i64, SessionId)>> = BinaryHeap::new();
        let before = before.map(|(time, id)| (time.micros(), id));
        let scope = organization.map_or(Scope::All, |id| Scope::Organization(id.clone()));
        let mut sessions = std::collections::HashMap::new();
        for (_, shard) in self.all() {
            for id in shard.in_scope(&scope) {
                let Some(active) = shard.sessions.get(&id) else { continue };
                let Session { record, subject, .. } = &active.session;
                let place = (record.start_time.micros(), id);
                let full = found.len() >= count_max;
                let too_old = full && found.peek().is_none_or(|Reverse(oldest)| place < *oldest);
                if too_old || before.is_some_and(|before| place >= before) || !matches(record, subject) {
                    continue;
                }
                found.push(Reverse(place));
                sessions.insert(id, active.session.clone());
                if found.len() > count_max
                    && let Some(Reverse((_, dropped))) = found.pop()
                {
                    sessions.remove(&dropped);
                }
            }
        }
        let order = found.into_sorted_vec();
        order.into_iter().filter_map(|Reverse((_, id))| sessions.remove(&id)).collect()
    }

    /// The numbers of the shards.
    pub fn shards(&self) -> impl Iterator<Item = usize> + use<> {
        0..SHARDS
    }

    /// A shard as it is at one moment; `sequence` is asked, under the lock, for the last record of the log.
    pub fn snapshot_shard(&self, number: usize, sequence: impl FnOnce() -> u64) -> ShardSessions {
        let shard = u32::try_from(number).unwrap_or_default();
        let Some(locked) = self.lock(number) else { return ShardSessions { shard, sequence: 0, sessions: Vec::new() } };
        let sequence = sequence();
        let sessions = locked.sessions.values().map(|active| active.session.clone()).collect();
        ShardSessions { shard, sequence, sessions }
    }
}

impl Admission<'_> {
    /// Lets the check in: opens a session, or folds it into the preview that is open. To be called once at most.
    pub fn allow(
        &mut self,
        now: Timestamp,
        rule: Option<Id>,
        revision: u64,
        lease: Option<Duration>,
    ) -> Result<Admitted, TooManySessions> {
        if let Some(id) = self.shard.folded(self.key) {
            match self.shard.end_if_due(id, now, &self.table.options) {
                Some(session) => {
                    self.table.active.fetch_sub(1, Ordering::Relaxed);
                    (self.ended)(&session);
                }
                None => {
                    if let Some(active) = self.shard.sessions.get_mut(&id) {
                        fold_record(&mut active.session.record, now);
                        return Ok(Admitted { session: id, opened: false });
                    }
                }
            }
        }
        let SessionOptions { active_max, .. } = self.table.options;
        if self.table.active.fetch_add(1, Ordering::Relaxed) >= active_max {
            self.table.active.fetch_sub(1, Ordering::Relaxed);
            return Err(TooManySessions { active_max });
        }
        self.shard.last_number += 1;
        let id =
            SessionId { boot: self.table.boot, number: self.shard.last_number * SHARDS as u64 + self.number as u64 };
        let AdmissionKey { organization, endpoint, connection_type, email, address } = self.key.clone();
        let now = Timestamp::from_micros(now.micros());
        let record = SessionRecord {
            id,
            connection_type,
            endpoint,
            start_time: now,
            last_seen_time: now,
            request_count: 1,
            rule,
            revision,
            lease_expire_time: lease.map(|lease| after(now, lease)),
            revocation: None,
            end: None,
        };
        let subject = Subject::Person(Person { email, address: Some(address) });
        let active = Active { session: Session { organization, subject, record }, address: Some(address) };
        self.shard.insert(active, &self.table.options);
        Ok(Admitted { session: id, opened: true })
    }
}

/// Another check of an open preview.
pub(super) fn fold_record(record: &mut SessionRecord, now: Timestamp) {
    record.request_count += 1;
    record.last_seen_time = record.last_seen_time.max(Timestamp::from_micros(now.micros()));
}

/// A renewal of a lease.
pub(super) fn renew_record(record: &mut SessionRecord, now: Timestamp, lease_expire_time: Timestamp) {
    record.last_seen_time = record.last_seen_time.max(Timestamp::from_micros(now.micros()));
    record.lease_expire_time = Some(lease_expire_time);
}
