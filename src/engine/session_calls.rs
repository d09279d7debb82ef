//! Calls about sessions: end, renew and list them, count them for an overview, erase a user.
//!
//! Invariant: what is answered as done is recorded durably: in the audit log, or in the journal of renewals.
//! Not here: opening sessions (`check`), revoking them (`keeper`), the table of active ones (`sessions`).

use std::time::Duration;

use super::Engine;
use super::audit::{AuditError, EraseRequest, Erased, ListPosition};
use super::sessions::{Renewed, Session};
use crate::audit::filter::{RecordFilter, SessionFilter, SessionState};
use crate::audit::record::{Record, RecordType};
use crate::audit::session::{EndReason, SessionId};
use crate::policy::decision::Decision;
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;
use crate::policy::time::Timestamp;
use crate::store::codec::audit::Renewal;

/// The most recent denials of an overview.
const OVERVIEW_DENIALS: usize = 10;

const HOUR_MICROS: i64 = 3_600_000_000;

/// Denials that are recorded while an overview is made count too.
const MARGIN_MICROS: i64 = 1_000_000;

/// A page of sessions.
#[derive(Clone, Debug)]
pub struct SessionPage {
    /// The sessions, each with where a list goes on behind it.
    pub sessions: Vec<(Session, SessionCursor)>,
    /// Where the next page goes on. None where there is nothing more.
    pub next: Option<SessionCursor>,
}

/// Where a list of sessions goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCursor {
    /// The newest record when the first page was made. Sessions whose end was recorded later are not listed as ended.
    pub as_of: u64,
    /// The oldest record then. Where it has been removed meanwhile, the list is not shown as if it were whole.
    pub first: u64,
    /// The last one that was shown.
    pub behind: BehindSession,
}

/// A place in a list of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BehindSession {
    /// Active sessions that started before this, or then with a smaller id.
    Active {
        /// The last one's start, in microseconds since 1970.
        start_micros: i64,
        /// The last one.
        id: SessionId,
    },
    /// Ended sessions that were recorded below this sequence.
    Ended {
        /// The sequence.
        before: u64,
    },
}

/// The figures of an overview.
#[derive(Clone, Debug)]
pub struct OverviewFigures {
    /// Active sessions by type.
    pub active: Vec<(ConnectionType, u64)>,
    /// Denials of the last hour.
    pub denials_last_hour: u64,
    /// Denials of the last 24 hours.
    pub denials_last_day: u64,
    /// The most recent denials, newest first, at most 10.
    pub denials: Vec<Record>,
}

impl Engine {
    /// Ends a session because its connection is closed. One that had ended before is answered as it ended; none where no
    /// such session is known.
    pub async fn end_session(&self, organization: &Id, id: SessionId) -> Result<Option<Session>, AuditError> {
        self.audit.queue().check_writable()?;
        if let Some((session, sequence)) = self.end_by(organization, id, EndReason::Closed) {
            self.audit.durable(sequence).await?;
            return Ok(Some(session));
        }
        // It may have ended a moment ago, with its record still in the queue.
        self.audit.durable(self.audit.queue().last_sequence()).await?;
        let permit = self.lookups.acquire().await?;
        let (audit, organization) = (self.audit(), organization.clone());
        let found = tokio::task::spawn_blocking(move || {
            let found = audit.ended_session(&organization, id);
            drop(permit);
            found
        });
        found.await.unwrap_or(Err(AuditError::ShuttingDown))
    }

    /// Ends a session and queues the record of its end, whose sequence it returns.
    pub(super) fn end_by(&self, organization: &Id, id: SessionId, reason: EndReason) -> Option<(Session, u64)> {
        let mut sequence = 0;
        let ended = |session: &Session| {
            self.record_end(session);
            sequence = self.audit.queue().last_sequence();
        };
        let session = self.sessions.end(id, organization, self.clock.moment(), reason, ended)?;
        Some((session, sequence))
    }

    pub(super) fn record_end(&self, session: &Session) {
        self.audit.record_end(session, self.clock.now());
    }

    /// Extends leases, counted from now. Answers what became of each session, in the order given; an id that cannot be
    /// read is none.
    pub async fn renew_sessions(
        &self,
        sessions: &[(Id, Option<SessionId>)],
        lease: Duration,
    ) -> Result<Vec<Renewed>, AuditError> {
        self.audit.queue().check_writable()?;
        let known: Vec<(Id, SessionId)> =
            sessions.iter().filter_map(|(organization, id)| Some((organization.clone(), (*id)?))).collect();
        let renew = || {
            let now = self.clock.moment();
            let renewed = self.sessions.renew(&known, lease, now, |session: &Session| self.record_end(session));
            (now, renewed, self.audit.queue().last_sequence())
        };
        let (now, renewed, as_of) = self.audit.uncorrected(renew);
        let kept = known.iter().zip(&renewed).filter(|(_, renewed)| **renewed == Renewed::Renewed);
        let ids: Vec<SessionId> = kept.map(|((_, id), _)| *id).collect();
        if !ids.is_empty() {
            // Its time is counted as the last correction says, so a start must not know the renewal without that.
            let correction = self.audit.last_correction();
            if correction > self.audit.newest_sequence() {
                self.audit.durable(correction).await?;
            }
            let lease_expire_time = now.after(lease).time;
            self.renewals.write(Renewal { time: now.time, lease_expire_time, as_of, sessions: ids }).await?;
        }
        let mut renewed = renewed.into_iter();
        let of = |id: &Option<SessionId>| id.and_then(|_| renewed.next()).unwrap_or(Renewed::Lost);
        Ok(sessions.iter().map(|(_, id)| id).map(of).collect())
    }

    /// Sessions: the active ones first, newest start first; then the ended ones, newest end first. Reads files: call it
    /// on a thread that may block.
    pub fn list_sessions(
        &self,
        filter: &SessionFilter,
        cursor: Option<SessionCursor>,
        count_max: usize,
    ) -> Result<SessionPage, AuditError> {
        let (first, as_of) = match cursor {
            None => (self.audit.first_sequence(), self.audit.newest_sequence()),
            Some(SessionCursor { first, as_of, .. }) => (first, as_of),
        };
        let behind = cursor.map(|cursor| cursor.behind);
        let next = |behind| SessionCursor { as_of, first, behind };
        let mut sessions = Vec::new();
        if filter.state != Some(SessionState::Ended) && !matches!(behind, Some(BehindSession::Ended { .. })) {
            let before = match behind {
                Some(BehindSession::Active { start_micros, id }) => Some((Timestamp::from_micros(start_micros), id)),
                _ => None,
            };
            let active = self.sessions.list(
                filter.organization.as_ref(),
                &|record, subject| filter.matches(record, subject),
                before,
                count_max,
            );
            sessions.extend(active.into_iter().map(|session| {
                let (start_micros, id) = (session.record.start_time.micros(), session.record.id);
                (session, next(BehindSession::Active { start_micros, id }))
            }));
            if let Some((_, last)) = sessions.last().filter(|_| sessions.len() >= count_max) {
                return Ok(SessionPage { next: Some(*last), sessions });
            }
        }
        if filter.state == Some(SessionState::Active) {
            return Ok(SessionPage { sessions, next: None });
        }
        let before = match behind {
            Some(BehindSession::Ended { before }) => before,
            _ => as_of + 1,
        };
        let next_ended = |before: u64| next(BehindSession::Ended { before });
        let ended = self.audit.list_ended(filter, ListPosition { before, first }, count_max - sessions.len())?;
        sessions.extend(ended.sessions.into_iter().map(|(sequence, session)| (session, next_ended(sequence))));
        Ok(SessionPage { sessions, next: ended.next_before.map(next_ended) })
    }

    /// The figures of an organization, or of all. Reads files: call it on a thread that may block.
    pub fn overview(&self, organization: Option<&Id>) -> Result<OverviewFigures, AuditError> {
        let (shell, preview) = self.sessions.counts(organization);
        let now = self.clock.now().micros();
        let denials = |start_time, end_time| RecordFilter {
            organization: organization.cloned(),
            types: vec![RecordType::Decision],
            decision: Some(Decision::Deny),
            start_time,
            end_time,
            ..RecordFilter::default()
        };
        // Records from before a correction of the clock may have later times.
        let end = Timestamp::from_micros(now + MARGIN_MICROS);
        let since = |micros: i64| denials(Some(Timestamp::from_micros(now - micros)), Some(end));
        Ok(OverviewFigures {
            active: vec![(ConnectionType::Shell, shell), (ConnectionType::Preview, preview)],
            denials_last_hour: self.audit.count(&since(HOUR_MICROS))?,
            denials_last_day: self.audit.count(&since(24 * HOUR_MICROS))?,
            denials: self.audit.list(&denials(None, None), None, OVERVIEW_DENIALS)?.records,
        })
    }

    /// Erases a user.
    pub async fn erase_user(&self, request: EraseRequest) -> Result<Erased, AuditError> {
        self.audit.erase(request).await
    }
}
