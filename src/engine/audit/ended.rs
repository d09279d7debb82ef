//! Ended sessions, which are found in the log: the record of a session's end holds all of it.
//!
//! Invariant: a session is found ended once its end is durable.
//! Not here: active sessions (`engine::sessions`).

use super::{AuditError, AuditLog};
use crate::audit::filter::{RecordFilter, SessionFilter};
use crate::audit::record::{Content, Record, RecordType};
use crate::audit::session::SessionId;
use crate::audit::terms::{TermQuery, ended_session_term};
use crate::engine::connections::ended_session;
use crate::engine::sessions::Session;
use crate::policy::name::Id;

impl AuditLog {
    /// An ended session by its id.
    pub(in crate::engine) fn ended_session(
        &self,
        organization: &Id,
        id: SessionId,
    ) -> Result<Option<Session>, AuditError> {
        let is_it = |record: &Record| {
            matches!(&record.entry.content, Content::SessionEnded(session) if session.id == id)
                && record.entry.organization.as_ref() == Some(organization)
        };
        let query = TermQuery::Exact(ended_session_term(id));
        let page = self.search(&RecordFilter::default(), &[query], &is_it, None, 1, None)?;
        Ok(page.records.into_iter().next().and_then(ended_session))
    }

    /// Ended sessions that were recorded below `before`, newest end first, and where the next page goes on.
    pub(in crate::engine) fn list_ended(
        &self,
        filter: &SessionFilter,
        before: u64,
        count_max: usize,
    ) -> Result<(Vec<Session>, Option<u64>), AuditError> {
        // What the two kinds of filters have in common; the rest is judged record by record.
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
        let page = self.search(&records, &[], &passes, Some(before), count_max, Some(super::reader::SEARCH_MAX))?;
        Ok((page.records.into_iter().filter_map(ended_session).collect(), page.next_before))
    }
}
