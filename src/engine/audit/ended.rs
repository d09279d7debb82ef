//! Ended sessions, looked up in the log: the record of a session's end holds the whole session.
//!
//! Invariant: a session is found here once the record of its end is durable.
//! Not here: active sessions (`engine::sessions`).

use super::error::AuditError;
use super::log::AuditLog;
use super::reader::{ListPosition, Wanted};
use super::view::Search;
use crate::audit::filter::{RecordFilter, SessionFilter};
use crate::audit::record::{Content, Record, RecordType};
use crate::audit::session::SessionId;
use crate::audit::terms::{TermQuery, ended_session_term};
use crate::engine::sessions::Session;
use crate::policy::name::Id;
use crate::store::sealed::IndexSet;

/// A page of ended sessions, newest end first.
pub(in crate::engine) struct EndedPage {
    /// The sessions, each with the sequence of the record of its end.
    pub(in crate::engine) sessions: Vec<(u64, Session)>,
    /// The next page has what was recorded below this; none where there is nothing more.
    pub(in crate::engine) next_before: Option<u64>,
}

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

    /// At most `count_max` ended sessions that were recorded below the position.
    pub(in crate::engine) fn list_ended(
        &self,
        filter: &SessionFilter,
        position: ListPosition,
        count_max: usize,
    ) -> Result<EndedPage, AuditError> {
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
        // A session's end is recorded after its start.
        let wanted = Wanted { filter: &records, passes: &passes, since: filter.start_time };
        let page = self.search(&wanted, Some(position), count_max)?;
        let ended = |record: Record| Some((record.sequence, ended_session(record)?));
        let sessions = page.records.into_iter().filter_map(ended).collect();
        Ok(EndedPage { sessions, next_before: page.next_before })
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
