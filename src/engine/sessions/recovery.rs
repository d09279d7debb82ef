//! Restoring the sessions after a restart: from snapshots of the shards, and the log since.
//!
//! Invariant: a snapshot, with the records and renewals after it, gives exactly the sessions that were active. Replaying
//! records that a snapshot includes already, or renewals in their order, changes nothing.
//! Not here: where snapshots and the log are kept; erasures, which the caller repeats ([`SessionTable::erase`]).

use std::sync::Arc;

use super::lifetime::{Life, after, whole};
use super::shard::Shard;
use super::slab::Active;
use super::table::SessionTable;
use super::{SHARDS, SHARDS_IN_ID, Session};
use crate::audit::record::{
    ClockChangeCause, ClockChangedRecord, Content, DecisionRecord, Entry, Person, Record, Subject,
};
use crate::audit::session::{SessionId, SessionRecord};
use crate::engine::clock::Moment;
use crate::policy::decision::Decision;
use crate::policy::rule::ConnectionType;
use crate::policy::time::Timestamp;

/// The sessions of one shard at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardState {
    /// Which shard.
    pub shard: usize,
    /// The last record of the log that these sessions include.
    pub sequence: u64,
    /// Its sessions, in no order.
    pub sessions: Vec<Session>,
}

impl SessionTable {
    /// The sessions of a shard, which is a number below [`SHARDS`], with their times as decision time is counted `now`.
    /// `sequence` is called while it is locked, and returns the last sequence of the log. The snapshot includes no later
    /// record.
    pub fn snapshot_shard(&self, shard: usize, now: impl Into<Moment>, sequence: impl FnOnce() -> u64) -> ShardState {
        let (now, locked) = (now.into(), self.lock(shard as u64));
        let sessions = locked.slab.iter().map(|Active { session, life, .. }| {
            let mut session = session.clone();
            let apart = session.record.start_time.micros().saturating_sub(now.time_at(life.start).micros());
            // A check that read the clock before a correction may have come after it.
            if apart.saturating_abs() >= APART_MICROS {
                count_as(&mut session.record, life, now);
            }
            session
        });
        let sessions = sessions.collect();
        ShardState { shard: shard % SHARDS, sequence: sequence(), sessions }
    }

    /// Takes in the sessions of snapshots. For a new table.
    pub fn restore(&self, shards: Vec<ShardState>) {
        for state in shards {
            let sequence = state.sequence;
            for session in state.sessions {
                let mut shard = self.lock(session.record.id.number);
                self.open(&mut shard, session);
            }
            self.lock(state.shard as u64).sequence = sequence;
        }
    }

    /// Counts the times of all sessions as decision time is counted since a correction, so that what is stored of them gives
    /// the same deadlines at the next start.
    pub fn follow_correction(&self, now: impl Into<Moment>) {
        let now = now.into();
        for mut shard in self.shards() {
            for (_, active) in shard.slab.iter_mut() {
                count_as(&mut active.session.record, &active.life, now);
            }
        }
    }

    /// Repeats what a correction of the clock did, or the leap of a start, unless a snapshot includes it already. As long as
    /// the leap of a start is not confirmed, sessions are as old as if no time had passed.
    pub fn replay_correction(&self, sequence: u64, change: &ClockChangedRecord) {
        let by = change.by();
        for mut shard in self.shards() {
            if sequence <= shard.sequence {
                continue;
            }
            shard.sequence = sequence;
            for slot in shard.slab.iter_mut().map(|(slot, _)| slot).collect::<Vec<_>>() {
                let Some(active) = shard.slab.at(slot) else { continue };
                let mut record = active.session.record.clone();
                shift(&mut record, by);
                shard.restart(slot, record);
            }
        }
    }

    /// The time by which `starts` leapt ahead, newest first, has passed: sessions of before are so much older. Once for each
    /// sequence.
    pub fn confirm(&self, sequence: u64, starts: &[ClockChangedRecord]) {
        for mut shard in self.shards() {
            if sequence <= shard.sequence {
                continue;
            }
            shard.sequence = sequence;
            let mut slots = Vec::new();
            for (slot, active) in shard.slab.iter_mut() {
                for start in starts {
                    count_passed(&mut active.session.record, &mut active.life, start);
                }
                slots.push(slot);
            }
            for slot in slots {
                shard.requeue(slot);
            }
        }
    }

    /// Applies a record of the log, unless the snapshot includes it already. Records must come in their order. Not what
    /// confirms the leaps of starts ([`SessionTable::confirm`]).
    pub fn replay(&self, record: &Record) {
        let Record { sequence, subject, entry, .. } = record;
        if let Content::ClockChanged(change) = &entry.content {
            if change.cause != ClockChangeCause::Confirmation {
                self.replay_correction(*sequence, change);
            }
            return;
        }
        let Entry { time, organization: Some(organization), content } = entry else { return };
        let id = match content {
            Content::Decision(decision) => decision.session,
            Content::SessionEnded(session) | Content::SessionRevoked(session) => Some(session.id),
            Content::PolicyChanged(_)
            | Content::Gap(_)
            | Content::Pruned(_)
            | Content::Erased(_)
            | Content::ClockChanged(_)
            | Content::KeyChanged(_)
            | Content::Restored(_) => None,
        };
        let Some(id) = id else { return };
        let mut shard = self.lock(id.number);
        if *sequence <= shard.sequence {
            return;
        }
        shard.sequence = *sequence;
        let slot = shard.slot(id);
        match (content, slot) {
            (Content::Decision(decision), None) => {
                if let Some(record) = opened(id, decision, whole(*time)) {
                    let session = Session { organization: organization.clone(), subject: subject.clone(), record };
                    self.open(&mut shard, session);
                }
            }
            (Content::Decision(decision), Some(slot)) if !decision.session_opened => {
                shard.count(slot, whole(*time).into());
            }
            (Content::SessionEnded(session), Some(slot)) => {
                if let Some(end) = session.end {
                    shard.end(slot, end);
                }
            }
            (Content::SessionRevoked(session), Some(slot)) => {
                let mut session = session.clone();
                if let Some(active) = shard.slab.at(slot) {
                    // A session starts once: another start is counted otherwise, because of a correction meanwhile.
                    let (known, start) = (active.session.record.start_time, session.start_time);
                    shift(&mut session, known.micros().saturating_sub(start.micros()));
                }
                shard.unfold(slot);
                shard.replace(slot, session);
            }
            // The record of its opening is missing, perhaps in a gap. This record holds the whole session too, and its
            // PEP may be about to end it.
            (Content::SessionRevoked(record), None) => {
                let (subject, record) = (subject.clone(), record.clone());
                self.open(&mut shard, Session { organization: organization.clone(), subject, record });
            }
            _ => {}
        }
    }

    /// Repeats what [`Self::renew`] did at `time` to the sessions that it renewed. Renewals must come in their order. Among
    /// the records each may come at any point where the session is open.
    pub fn replay_renewal(&self, ids: &[SessionId], time: Timestamp, lease_expire: Timestamp) {
        for id in ids {
            let mut shard = self.lock(id.number);
            if let Some(slot) = shard.slot(*id) {
                shard.renew(slot, whole(time).into(), whole(lease_expire).into());
            }
        }
    }

    /// Adds a session under its id, unless it is known or has ended.
    fn open(&self, shard: &mut Shard, mut session: Session) {
        if let Some(revocation) = &mut session.record.revocation {
            shard.share_text(revocation);
        }
        let record = &session.record;
        if record.end.is_some() || shard.slot(record.id).is_some() {
            return;
        }
        if record.id.boot == self.boot {
            shard.opened = shard.opened.max(record.id.number / SHARDS_IN_ID);
        }
        // The limit does not apply: these connections were allowed before.
        self.totals.reserve(usize::MAX);
        let (fold, life) = (self.fold_of(&session), Life::of(&session.record));
        shard.insert(session, life, fold);
    }

    /// The hash under which further checks find the session; none where they must not.
    fn fold_of(&self, session: &Session) -> Option<u64> {
        let Session { organization, subject, record } = session;
        let is_open = record.connection_type == ConnectionType::Preview && record.revocation.is_none();
        let (Subject::Person(Person { email, address }), true) = (subject, is_open) else { return None };
        Some(self.hash(organization, email, *address, &record.endpoint))
    }
}

/// Times of a session that differ by so many microseconds are counted differently: no correction is smaller, and slewing
/// makes no such difference at once.
const APART_MICROS: i64 = 5_000_000;

/// Counts the times of a session as decision time is counted now.
fn count_as(record: &mut SessionRecord, life: &Life, now: Moment) {
    record.start_time = now.time_at(life.start);
    record.last_seen_time = now.time_at(life.seen);
    record.lease_expire_time = life.lease_expire.map(|expire| now.time_at(expire));
}

/// Takes back that the leap of a start made those times of a session later which are from before it.
fn count_passed(record: &mut SessionRecord, life: &mut Life, leap: &ClockChangedRecord) {
    let by = leap.by();
    let earlier = |time: &mut Timestamp| *time = Timestamp::from_micros(time.micros().saturating_sub(by));
    if record.last_seen_time <= leap.to_time {
        earlier(&mut record.last_seen_time);
        earlier(&mut life.seen);
        record.lease_expire_time.iter_mut().chain(&mut life.lease_expire).for_each(earlier);
    }
    if record.start_time <= leap.to_time {
        earlier(&mut record.start_time);
        earlier(&mut life.start);
    }
}

/// Makes the times of a session later.
fn shift(record: &mut SessionRecord, micros: i64) {
    let later = |time: Timestamp| Timestamp::from_micros(time.micros().saturating_add(micros));
    record.start_time = later(record.start_time);
    record.last_seen_time = later(record.last_seen_time);
    record.lease_expire_time = record.lease_expire_time.map(later);
}

/// The session that a check opened; none where it opened none.
fn opened(id: SessionId, decision: &DecisionRecord, time: Timestamp) -> Option<SessionRecord> {
    let is_opening = decision.session_opened && decision.reason.decision() == Decision::Allow;
    let lease = decision.lease.filter(|_| decision.connection_type == ConnectionType::Shell);
    is_opening.then(|| SessionRecord {
        id,
        connection_type: decision.connection_type,
        endpoint: Arc::clone(&decision.endpoint),
        start_time: time,
        last_seen_time: time,
        request_count: 1,
        rule: decision.rule.clone(),
        revision: decision.revision,
        lease_expire_time: lease.map(|lease| after(time, lease)),
        revocation: None,
        end: None,
    })
}
