//! One part of the table, under a lock of its own: sessions, and all ways to find them.
//!
//! Invariant: `slab`, `ids`, `index` and `timers` hold the same sessions; `folds` holds those that a further check may
//! belong to. All are consistent whenever a closure of the caller runs, so a closure may panic.
//! Not here: the lock, and which shard a session belongs to (`table`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use foldhash::fast::RandomState;

use super::erasure::{ErasedUser, Erasure};
use super::index::Index;
use super::lifetime::{Life, Lifetimes, whole};
use super::slab::{Active, Slab};
use super::timers::Timers;
use super::{AdmissionKey, Admitted, Renewed, Session};
use crate::audit::record::{Person, Subject};
use crate::audit::rule_text::RuleText;
use crate::audit::session::{Revocation, SessionEnd, SessionId, SessionRecord};
use crate::engine::clock::Moment;
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;

/// How many sessions there are in all shards.
#[derive(Default)]
pub(super) struct Totals {
    /// Sessions that are active or about to be opened.
    active: AtomicUsize,
    shell: AtomicU64,
    preview: AtomicU64,
}

impl Totals {
    /// Makes room for one more session, unless there are `active_max`.
    pub(super) fn reserve(&self, active_max: usize) -> bool {
        let reserve = |active: usize| (active < active_max).then_some(active + 1);
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_ok()
    }

    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    pub(super) fn of(&self, connection_type: ConnectionType) -> &AtomicU64 {
        match connection_type {
            ConnectionType::Shell => &self.shell,
            ConnectionType::Preview => &self.preview,
        }
    }
}

/// One part of the table.
pub(super) struct Shard {
    /// How many sessions it has numbered.
    pub(super) opened: u64,
    /// The last record of the log that it includes; for the start only.
    pub(super) sequence: u64,
    pub(super) slab: Slab,
    pub(super) index: Index,
    pub(super) lifetimes: Lifetimes,
    ids: HashMap<SessionId, u32, RandomState>,
    /// Previews that are not revoked and whose user is known, by the hash of their key; of two with the same hash the
    /// newer.
    folds: HashMap<u64, u32, RandomState>,
    pub(super) timers: Timers,
    /// What the last revocation named as its rule. One rule may revoke all sessions, which then share this.
    rule_text: Option<Arc<RuleText>>,
    /// Users who are being erased; nearly always none.
    erasures: Vec<Erasure>,
    totals: Arc<Totals>,
}

impl Shard {
    pub(super) fn new(lifetimes: Lifetimes, totals: Arc<Totals>) -> Self {
        Self {
            opened: 0,
            sequence: 0,
            slab: Slab::default(),
            index: Index::default(),
            lifetimes,
            ids: HashMap::default(),
            folds: HashMap::default(),
            timers: Timers::default(),
            rule_text: None,
            erasures: Vec::new(),
            totals,
        }
    }

    /// The slot of the session with this id.
    pub(super) fn slot(&self, id: SessionId) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    /// The slot of the organization's session with this id.
    pub(super) fn slot_in(&self, organization: &Id, id: SessionId) -> Option<u32> {
        let slot = self.slot(id)?;
        self.slab.at(slot).filter(|active| active.session.organization == *organization).map(|_| slot)
    }

    /// Adds a new session, for which `Totals::reserve` has made room.
    pub(super) fn insert(&mut self, session: Session, life: Life, fold: Option<u64>) {
        let Session { organization, record, .. } = &session;
        let (organization, endpoint) = (organization.clone(), Arc::clone(&record.endpoint));
        let (id, connection_type) = (record.id, record.connection_type);
        let deadline = self.lifetimes.deadline(connection_type, &life).0.micros();
        let slot = self.slab.insert(Active { session, life, queued: deadline, position: 0, fold: None }).slot;
        let position = self.index.insert(&organization, &endpoint, connection_type, slot);
        if let Some(active) = self.slab.at_mut(slot) {
            active.position = position;
        }
        self.ids.insert(id, slot);
        self.timers.queue(&mut self.slab, slot, deadline);
        self.totals.of(connection_type).fetch_add(1, Ordering::Relaxed);
        if let Some(fold) = fold {
            self.fold(fold, slot);
        }
    }

    /// Lets further checks find the session, unless they find a newer one.
    fn fold(&mut self, hash: u64, slot: u32) {
        let age =
            |slot: u32| self.slab.at(slot).map(|Active { session, .. }| (session.record.start_time, session.record.id));
        let before = self.folds.get(&hash).copied();
        if before.is_some_and(|before| age(before) > age(slot)) {
            return;
        }
        self.folds.insert(hash, slot);
        if let Some(active) = before.and_then(|before| self.slab.at_mut(before)) {
            active.fold = None;
        }
        if let Some(active) = self.slab.at_mut(slot) {
            active.fold = Some(hash);
        }
    }

    /// Lets no further check find the session.
    pub(super) fn unfold(&mut self, slot: u32) {
        if let Some(hash) = self.slab.at_mut(slot).and_then(|active| active.fold.take()) {
            self.folds.remove(&hash);
        }
    }

    /// The preview that a check with this key belongs to, due or not.
    pub(super) fn folded(&mut self, hash: u64, key: &AdmissionKey<'_>) -> Option<u32> {
        let slot = self.folds.get(&hash).copied()?;
        if !self.erasures.is_empty() && self.erase_at(slot) {
            return None;
        }
        let session = &self.slab.at(slot)?.session;
        let is_user = matches!(&session.subject, Subject::Person(Person { email, address })
            if **email == *key.email && *address == key.address);
        let is_key = is_user && session.organization == *key.organization && *session.record.endpoint == *key.endpoint;
        is_key.then_some(slot)
    }

    /// How the session has ended by `now`, if it has.
    pub(super) fn ended_by(&self, slot: u32, now: Moment) -> Option<SessionEnd> {
        let Active { session, life, .. } = self.slab.at(slot)?;
        self.lifetimes.ended_by(session.record.connection_type, life, now)
    }

    /// Takes a session out as one that has ended.
    pub(super) fn end(&mut self, slot: u32, end: SessionEnd) -> Option<Session> {
        if !self.erasures.is_empty() {
            self.erase_at(slot);
        }
        self.unfold(slot);
        let Active { mut session, position, .. } = self.slab.remove(slot)?;
        let Session { organization, record, .. } = &mut session;
        record.end = Some(end);
        self.ids.remove(&record.id);
        let moved = self.index.remove(organization, &record.endpoint, record.connection_type, position);
        if let Some(active) = moved.and_then(|moved| self.slab.at_mut(moved)) {
            active.position = position;
        }
        self.timers.sweep(&self.slab);
        self.totals.of(record.connection_type).fetch_sub(1, Ordering::Relaxed);
        self.totals.active.fetch_sub(1, Ordering::Relaxed);
        Some(session)
    }

    /// Has a revocation share its text with the one before it, where they are equal.
    pub(super) fn share_text(&mut self, revocation: &mut Revocation) {
        let Some(text) = &mut revocation.rule_text else { return };
        match &self.rule_text {
            Some(last) if last == text => *text = Arc::clone(last),
            _ => self.rule_text = Some(Arc::clone(text)),
        }
    }

    /// Marks a session as revoked.
    pub(super) fn revoke(&mut self, slot: u32, mut revocation: Revocation) -> Option<&Session> {
        if !self.erasures.is_empty() {
            self.erase_at(slot);
        }
        self.unfold(slot);
        self.share_text(&mut revocation);
        let active = self.slab.at_mut(slot)?;
        active.session.record.revocation = Some(Revocation { time: whole(revocation.time), ..revocation });
        Some(&active.session)
    }

    /// Extends the lease of a session. A renewal older than the last one changes nothing, so that renewals may be replayed
    /// more than once.
    pub(super) fn renew(&mut self, slot: u32, now: Moment, lease_expire: Moment) -> Renewed {
        let Some(active) = self.slab.at_mut(slot) else { return Renewed::Lost };
        let (record, life) = (&mut active.session.record, &mut active.life);
        if record.revocation.is_some() {
            return Renewed::Revoked;
        }
        if record.connection_type == ConnectionType::Shell && now.steady >= life.seen {
            (record.last_seen_time, life.seen) = (now.time, now.steady);
            (record.lease_expire_time, life.lease_expire) = (Some(lease_expire.time), Some(lease_expire.steady));
            self.requeue(slot);
        }
        Renewed::Renewed
    }

    /// Counts a further check to a preview.
    pub(super) fn count(&mut self, slot: u32, now: Moment) -> Option<Admitted> {
        let Active { session: Session { subject, record, .. }, life, .. } = self.slab.at_mut(slot)?;
        if now.steady > life.seen {
            (record.last_seen_time, life.seen) = (now.time, now.steady);
        }
        record.request_count = record.request_count.saturating_add(1);
        let Subject::Person(Person { email, .. }) = subject else { return None };
        let (email, endpoint) = (Arc::clone(email), Arc::clone(&record.endpoint));
        Some(Admitted { session: record.id, opened: false, email, endpoint })
    }

    /// Replaces the record of a session, except for its end.
    pub(super) fn replace(&mut self, slot: u32, mut record: SessionRecord) {
        if let Some(revocation) = &mut record.revocation {
            self.share_text(revocation);
        }
        if let Some(active) = self.slab.at_mut(slot) {
            let endpoint = Arc::clone(&active.session.record.endpoint);
            active.life = Life::of(&record);
            active.session.record = SessionRecord { endpoint, end: None, ..record };
            self.requeue(slot);
        }
    }

    /// Replaces the times of a session that is read back.
    pub(super) fn restart(&mut self, slot: u32, record: SessionRecord) {
        if let Some(active) = self.slab.at_mut(slot) {
            active.life = Life::of(&record);
            active.session.record = record;
            self.requeue(slot);
        }
    }

    /// Queues the session again if its deadline is earlier now.
    pub(super) fn requeue(&mut self, slot: u32) {
        let Some(active) = self.slab.at(slot) else { return };
        let deadline = self.lifetimes.deadline(active.session.record.connection_type, &active.life).0.micros();
        if deadline < active.queued {
            self.timers.queue(&mut self.slab, slot, deadline);
        }
    }

    /// Ends at most `count_max` sessions that are due; tells whether there may be more.
    pub(super) fn expire(&mut self, now: Moment, count_max: usize, ended: &mut dyn FnMut(&Session)) -> bool {
        for _ in 0..count_max {
            let Some((slot, active)) = self.timers.pop(&self.slab, now.steady.micros()) else { return false };
            let (deadline, reason) = self.lifetimes.deadline(active.session.record.connection_type, &active.life);
            if deadline > now.steady {
                self.timers.queue(&mut self.slab, slot, deadline.micros());
            } else if let Some(session) = self.end(slot, SessionEnd { time: now.time_at(deadline), reason }) {
                ended(&session);
            }
        }
        true
    }

    /// Ends a session if it was due by `now`; tells whether it was.
    pub(super) fn end_if_due(&mut self, slot: u32, now: Moment, ended: &mut dyn FnMut(&Session)) -> bool {
        let Some(end) = self.ended_by(slot, now) else { return false };
        if let Some(session) = self.end(slot, end) {
            ended(&session);
        }
        true
    }

    /// Erases a user from the sessions that are open now: from each when it is come across, at the latest in
    /// `finish_erasure`. No closure sees the user, and no further check finds such a session.
    pub(super) fn begin_erasure(&mut self, user: &Arc<ErasedUser>) {
        self.erasures.push(Erasure::new(user, self.opened));
    }

    /// Erases the user from the sessions that are left; returns how many.
    pub(super) fn finish_erasure(&mut self, user: &Arc<ErasedUser>) -> usize {
        let Some(at) = self.erasures.iter().position(|erasure| erasure.is_of(user)) else { return 0 };
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
