//! Ended sessions, looked up in the log: the record of a session's end holds the whole session.
//!
//! Invariant: a session is found here once the record of its end is durable.
//! Not here: active sessions (`engine::sessions`).

use super::error::AuditError;
use super::log::AuditLog;
use super::view::Search;
use crate::audit::filter::{RecordFilter, SessionFilter};
use crate::audit::record::{Content, Record, RecordType};
use crate::audit::session::SessionId;
use crate::audit::terms::{TermQuery, ended_session_term};
use crate::engine::sessions::Session;
use crate::policy::name::Id;
use crate::store::sealed::IndexSet;

impl AuditLog {
    /// An ended session by its id. Most callers ask for one that has just ended, so the newest units are searched first.
    /// An unknown id makes it read all units, so callers limit how many searches run.
    pub(in crate::engine) fn ended_session(
        &self,
        organization: &Id,
        id: SessionId,
    ) -> Result<Option<Session>, AuditError> {
        let is_it = |record: &Record| {
            matches!(&record.entry.content, Content::SessionEnded(session) if session.id == id)
                && record.entry.organization.as_ref() == Some(organization)
        };
        let (shared, newest) = (&self.shared, self.shared.newest());
        let query = [TermQuery::Exact(ended_session_term(id))];
        for view in shared.views().into_iter().rev() {
            let found = shared.candidates(&view, &RecordFilter::default(), &query, Search::Exact)?;
            for index in found.iter().flat_map(IndexSet::iter) {
                let sequence = view.first_sequence() + u64::from(index);
                let record = if sequence <= newest { shared.record(&view, sequence)? } else { None };
                if let Some(record) = record.filter(&is_it) {
                    return Ok(ended_session(record));
                }
            }
        }
        Ok(None)
    }

    /// Ended sessions that were recorded below `before`, newest end first, each with the sequence of its record; and where
    /// the next page goes on.
    pub(in crate::engine) fn list_ended(
        &self,
        filter: &SessionFilter,
        before: u64,
        count_max: usize,
    ) -> Result<(Vec<(u64, Session)>, Option<u64>), AuditError> {
        // The conditions that an index can answer; the others are checked record by record.
        let records = RecordFilter {
            organization: filter.organization.clone(),
            types: vec![RecordType::SessionEnded],
            connection_type: filter.connection_type,
            email: filter.email.clone(),
            range: filter.range,
            endpoint: filter.endpoint.clone(),
            rule: filter.rule.clone(),
            ..RecordFilter::default()
        };
        let passes = |record: &Record| match &record.entry.content {
            Content::SessionEnded(session) => filter.matches(session, &record.subject),
            _ => false,
        };
        let page = self.search(&records, &passes, Some(before), count_max)?;
        let ended = |record: Record| Some((record.sequence, ended_session(record)?));
        Ok((page.records.into_iter().filter_map(ended).collect(), page.next_before))
    }
}

/// The session in a record of its end.
fn ended_session(record: Record) -> Option<Session> {
    match record.entry.content {
        Content::SessionEnded(session) => {
            Some(Session { organization: record.entry.organization?, subject: record.subject, record: session })
        }
        _ => None,
    }
}
