//! The sessions at a start: a snapshot, and what the log and the journal of renewals say since.
//!
//! Invariant: what is replayed leaves the same sessions active as when it happened.
//! Not here: reading the snapshot, the log and the journal (`engine::start`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::shard::{Active, after};
use super::table::{fold_record, renew_record};
use super::{Session, SessionTable, ShardSessions};
use crate::audit::record::{Content, DecisionRecord, Person, Record, Subject};
use crate::audit::session::{Revocation, SessionId, SessionRecord};
use crate::policy::time::Timestamp;

impl SessionTable {
    /// Fills an empty table with what was saved.
    pub fn restore(&self, shards: Vec<ShardSessions>) {
        for ShardSessions { shard: number, sequence, sessions } in shards {
            for session in sessions {
                let address = address_of(&session.subject);
                let id = session.record.id;
                if let Some(mut shard) = self.shard_of(id) {
                    shard.insert(Active { session, address }, self.options());
                    self.active.fetch_add(1, Ordering::Relaxed);
                }
            }
            if let Some(mut shard) = self.shard_of(SessionId { boot: 0, number: u64::from(number) }) {
                shard.restored = sequence;
            }
        }
    }

    /// Takes account of a record that is newer than what was saved.
    pub fn replay(&self, record: &Record) {
        match &record.entry.content {
            Content::Decision(decision) => self.replay_decision(record, decision),
            Content::SessionEnded(session) => {
                if let Some(mut shard) = self.shard_of(session.id)
                    && record.sequence > shard.restored
                    && shard.remove(session.id).is_some()
                {
                    self.active.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Content::SessionRevoked(session) => self.replay_revocation(record.sequence, session),
            Content::PolicyChanged(_) | Content::Gap(_) | Content::Pruned(_) | Content::Erased(_) => {}
        }
    }

    fn replay_decision(&self, record: &Record, decision: &DecisionRecord) {
        let (Some(id), Some(organization)) = (decision.session, &record.entry.organization) else { return };
        let Some(mut shard) = self.shard_of(id) else { return };
        if record.sequence <= shard.restored {
            return;
        }
        let now = record.entry.time;
        if !decision.session_opened {
            if let Some(active) = shard.sessions.get_mut(&id) {
                fold_record(&mut active.session.record, now);
            }
            return;
        }
        let session = SessionRecord {
            id,
            connection_type: decision.connection_type,
            endpoint: Arc::clone(&decision.endpoint),
            start_time: now,
            last_seen_time: now,
            request_count: 1,
            rule: decision.rule.clone(),
            revision: decision.revision,
            lease_expire_time: decision.lease.map(|lease| after(now, lease)),
            revocation: None,
            end: None,
        };
        let subject = record.subject.clone();
        let address = address_of(&subject);
        let session = Session { organization: organization.clone(), subject, record: session };
        shard.insert(Active { session, address }, self.options());
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    fn replay_revocation(&self, sequence: u64, session: &SessionRecord) {
        let Some(mut shard) = self.shard_of(session.id) else { return };
        if sequence <= shard.restored {
            return;
        }
        let Some(active) = shard.sessions.get_mut(&session.id) else { return };
        let Session { organization, subject, record } = &mut active.session;
        record.revocation.clone_from(&session.revocation as &Option<Revocation>);
        let key = super::shard::fold_key(organization, subject, record);
        shard.unfold(&key, session.id);
    }

    /// Takes account of a renewal.
    pub fn replay_renewal(&self, sessions: &[SessionId], time: Timestamp, lease_expire_time: Timestamp) {
        for id in sessions {
            let Some(mut shard) = self.shard_of(*id) else { continue };
            let Some(active) = shard.sessions.get_mut(id) else { continue };
            renew_record(&mut active.session.record, time, lease_expire_time);
            shard.reschedule(*id, self.options());
        }
    }
}

fn address_of(subject: &Subject) -> Option<crate::policy::address::Address> {
    match subject {
        Subject::Person(Person { address, .. }) => *address,
        Subject::Nobody | Subject::Erased => None,
    }
}
