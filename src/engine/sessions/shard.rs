//! One shard of the active sessions: by id, by what previews fold by, by endpoint, and by when they are due.
//!
//! Invariant: all four ways lead to the same sessions. An entry of the due list may be early, never late.
//! Not here: locks, and which shard it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use super::{AdmissionKey, Scope, Session, SessionOptions};
use crate::audit::record::{Person, Subject};
use crate::audit::session::{EndReason, SessionEnd, SessionId, SessionRecord};
use crate::policy::address::Address;
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;
use crate::policy::time::Timestamp;

/// A session in the table.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub(super) session: Session,
    /// Where it comes from, to judge it by; kept in memory after an erasure, until the session ends.
    pub(super) address: Option<Address>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) sessions: HashMap<SessionId, Active>,
    /// The preview that further checks fold into.
    folds: HashMap<AdmissionKey, SessionId>,
    /// Organization → endpoint → sessions.
    endpoints: HashMap<Id, BTreeMap<Arc<str>, BTreeSet<SessionId>>>,
    /// Sessions of each organization by type: shells, previews.
    counts: HashMap<Id, [u64; 2]>,
    due: BinaryHeap<Reverse<(i64, SessionId)>>,
    /// The last number that was given.
    pub(super) last_number: u64,
    /// The last record of the log that was taken account of when it was restored.
    pub(super) restored: u64,
}

impl Shard {
    /// Takes in a session.
    pub(super) fn insert(&mut self, active: Active, options: &SessionOptions) {
        let Session { organization, subject, record } = &active.session;
        let endpoints = self.endpoints.entry(organization.clone()).or_default();
        endpoints.entry(Arc::clone(&record.endpoint)).or_default().insert(record.id);
        if let Some(count) = self.counts.entry(organization.clone()).or_default().get_mut(index(record.connection_type))
        {
            *count += 1;
        }
        if record.revocation.is_none()
            && let Some(key) = fold_key(organization, subject, record)
        {
            self.folds.insert(key, record.id);
        }
        let (deadline, _) = deadline(record, options);
        self.due.push(Reverse((deadline.micros(), record.id)));
        self.sessions.insert(record.id, active);
    }

    /// Takes out a session.
    pub(super) fn remove(&mut self, id: SessionId) -> Option<Active> {
        let active = self.sessions.remove(&id)?;
        let Session { organization, subject, record } = &active.session;
        if let Some(endpoints) = self.endpoints.get_mut(organization) {
            if let Some(sessions) = endpoints.get_mut(&record.endpoint) {
                sessions.remove(&id);
                if sessions.is_empty() {
                    endpoints.remove(&record.endpoint);
                }
            }
            if endpoints.is_empty() {
                self.endpoints.remove(organization);
            }
        }
        if let Some(counts) = self.counts.get_mut(organization) {
            if let Some(count) = counts.get_mut(index(record.connection_type)) {
                *count = count.saturating_sub(1);
            }
            if *counts == [0, 0] {
                self.counts.remove(organization);
            }
        }
        self.unfold(&fold_key(organization, subject, record), id);
        Some(active)
    }

    /// No more checks fold into a session.
    pub(super) fn unfold(&mut self, key: &Option<AdmissionKey>, id: SessionId) {
        if let Some(key) = key
            && self.folds.get(key) == Some(&id)
        {
            self.folds.remove(key);
        }
    }

    pub(super) fn folded(&self, key: &AdmissionKey) -> Option<SessionId> {
        self.folds.get(key).copied()
    }

    /// Notes that a session is due at another time than before.
    pub(super) fn reschedule(&mut self, id: SessionId, options: &SessionOptions) {
        if let Some(active) = self.sessions.get(&id) {
            let (deadline, _) = deadline(&active.session.record, options);
            self.due.push(Reverse((deadline.micros(), id)));
        }
    }

    /// Ends and takes out a session that is due by `now`; none where it is not.
    pub(super) fn end_if_due(&mut self, id: SessionId, now: Timestamp, options: &SessionOptions) -> Option<Session> {
        let (time, reason) = deadline(&self.sessions.get(&id)?.session.record, options);
        if time > now { None } else { self.end(id, SessionEnd { time, reason }) }
    }

    /// Ends and takes out a session.
    pub(super) fn end(&mut self, id: SessionId, end: SessionEnd) -> Option<Session> {
        let Active { mut session, .. } = self.remove(id)?;
        session.record.end = Some(end);
        Some(session)
    }

    /// Ends every session that is due by `now`.
    pub(super) fn expire(&mut self, now: Timestamp, options: &SessionOptions, ended: &mut dyn FnMut(&Session)) {
        while let Some(Reverse((time, id))) = self.due.peek().copied()
            && time <= now.micros()
        {
            self.due.pop();
            match self.end_if_due(id, now, options) {
                Some(session) => ended(&session),
                // It was renewed, or seen, meanwhile; where it has ended there is nothing to note.
                None => self.reschedule(id, options),
            }
        }
    }

    /// The sessions in a scope.
    pub(super) fn in_scope(&self, scope: &Scope) -> Vec<SessionId> {
        match scope {
            Scope::All => self.sessions.keys().copied().collect(),
            Scope::Organization(id) => {
                self.endpoints.get(id).into_iter().flat_map(|endpoints| endpoints.values().flatten().copied()).collect()
            }
            Scope::Subtree(id, node) => {
                let Some(endpoints) = self.endpoints.get(id) else { return Vec::new() };
                let from =
                    endpoints.range::<str, _>((std::ops::Bound::Included(node.as_str()), std::ops::Bound::Unbounded));
                from.take_while(|(endpoint, _)| endpoint.starts_with(node.as_str()))
                    .filter(|(endpoint, _)| {
                        endpoint.get(node.len()..).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                    })
                    .flat_map(|(_, sessions)| sessions.iter().copied())
                    .collect()
            }
        }
    }

    pub(super) fn count(&self, organization: &Id) -> [u64; 2] {
        self.counts.get(organization).copied().unwrap_or_default()
    }

    pub(super) fn count_all(&self) -> [u64; 2] {
        self.counts.values().fold([0, 0], |[shells, previews], [more, others]| [shells + more, previews + others])
    }
}

/// What further checks of the same session are told by; none where none fold into it.
pub(super) fn fold_key(organization: &Id, subject: &Subject, record: &SessionRecord) -> Option<AdmissionKey> {
    let Subject::Person(Person { email, address: Some(address) }) = subject else { return None };
    (record.connection_type == ConnectionType::Preview).then(|| AdmissionKey {
        organization: organization.clone(),
        endpoint: Arc::clone(&record.endpoint),
        connection_type: record.connection_type,
        email: Arc::clone(email),
        address: *address,
    })
}

/// When a session ends by itself, and why: the earliest of what may end it.
pub(super) fn deadline(record: &SessionRecord, options: &SessionOptions) -> (Timestamp, EndReason) {
    let mut earliest = (after(record.start_time, options.max_age), EndReason::MaxAge);
    if let Some(lease) = record.lease_expire_time.filter(|lease| *lease < earliest.0) {
        earliest = (lease, EndReason::LeaseExpired);
    }
    if record.connection_type == ConnectionType::Preview {
        let idle = after(record.last_seen_time, options.idle);
        if idle < earliest.0 {
            earliest = (idle, EndReason::Idle);
        }
    }
    earliest
}

/// A moment so much later, to the microsecond.
pub(super) fn after(time: Timestamp, duration: std::time::Duration) -> Timestamp {
    let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2);
    Timestamp::from_micros(time.micros().saturating_add(micros))
}

fn index(connection_type: ConnectionType) -> usize {
    match connection_type {
        ConnectionType::Shell => 0,
        ConnectionType::Preview => 1,
    }
}
