//! Lists of records, denials and sessions, the overview, and erasing a user.
//!
//! Invariant: newest first; a token continues after the last item shown, no matter what was recorded meanwhile. Where
//! retention removes what a list was going to show, the list ends with an error.
//! Not here: reading the filters (`filters`).

use prost::Message;
use tonic::{Response, Status};

use super::super::caller::Caller;
use super::super::convert::Faults;
use super::super::convert::audit::{to_firewall_event, to_record, to_session};
use super::super::convert::decision::to_connection_type;
use super::super::paging::PageRequest;
use super::super::{Api, status, to_i64};
use super::filters::{self, Common, Parent};
use super::record_bytes;
use crate::audit::filter::RecordFilter;
use crate::audit::record::{Actor, Record, RecordType};
use crate::audit::session::SessionId;
use crate::engine::audit::{EraseRequest, ListPosition, RecordPage};
use crate::engine::session_calls::{BehindSession, OverviewFigures, SessionCursor, SessionPage};
use crate::policy::decision::Decision;
use crate::proto::v1;

impl Api {
    pub(super) async fn get_overview(&self, request: v1::GetOverviewRequest) -> Result<Response<v1::Overview>, Status> {
        let v1::GetOverviewRequest { parent } = request;
        let mut faults = Faults::default();
        let parent = filters::parent(&mut faults, &parent);
        let parent = faults.result(parent)?;
        self.check_parent(&parent)?;
        let figures = self.read(move |engine| engine.overview(parent.organization())).await?;
        let OverviewFigures { active, denials_last_hour, denials_last_day, denials } = figures;
        let active_sessions = active.into_iter().map(|(connection_type, count)| v1::ActiveSessionCount {
            connection_type: to_connection_type(connection_type).into(),
            count: to_i64(count),
        });
        Ok(Response::new(v1::Overview {
            active_sessions: active_sessions.collect(),
            denials_last_hour: to_i64(denials_last_hour),
            denials_last_day: to_i64(denials_last_day),
            firewall_events: denials.iter().filter_map(to_firewall_event).collect(),
        }))
    }

    pub(super) async fn list_audit_records(
        &self,
        request: v1::ListAuditRecordsRequest,
    ) -> Result<Response<v1::ListAuditRecordsResponse>, Status> {
        let v1::ListAuditRecordsRequest {
            parent: parent_text,
            page_size,
            page_token,
            connection_type,
            decision,
            user_email,
            ip_range,
            endpoint,
            rule,
            start_time,
            end_time,
            types,
        } = request;
        let common = Common { connection_type, user_email, ip_range, endpoint, rule, start_time, end_time };
        let mut faults = Faults::default();
        let parent = filters::parent(&mut faults, &parent_text);
        let filter = filters::records(&mut faults, parent.as_ref(), &common, &types, decision);
        let list = format!("records {parent_text} {decision} {types:?} {}", common.binding(&self.shared.audit_reads));
        let page = self.page_request(&mut faults, list, page_size, &page_token)?;
        let (parent, etags) = (faults.result(parent)?, self.etags()?);
        let (records, next_page_token) =
            self.page(parent, filter, page, |record: &Record| to_record(etags, record), record_bytes).await?;
        Ok(Response::new(v1::ListAuditRecordsResponse { audit_records: records, next_page_token }))
    }

    pub(super) async fn list_firewall_events(
        &self,
        request: v1::ListFirewallEventsRequest,
    ) -> Result<Response<v1::ListFirewallEventsResponse>, Status> {
        let v1::ListFirewallEventsRequest {
            parent: parent_text,
            page_size,
            page_token,
            connection_type,
            user_email,
            ip_range,
            endpoint,
            rule,
            start_time,
            end_time,
        } = request;
        let common = Common { connection_type, user_email, ip_range, endpoint, rule, start_time, end_time };
        let mut faults = Faults::default();
        let parent = filters::parent(&mut faults, &parent_text);
        let mut filter = filters::records(&mut faults, parent.as_ref(), &common, &[], 0);
        (filter.types, filter.decision) = (vec![RecordType::Decision], Some(Decision::Deny));
        let list = format!("denials {parent_text} {}", common.binding(&self.shared.audit_reads));
        let page = self.page_request(&mut faults, list, page_size, &page_token)?;
        let parent = faults.result(parent)?;
        let event = |record: &Record| to_firewall_event(record).unwrap_or_default();
        let (firewall_events, next_page_token) = self.page(parent, filter, page, event, Message::encoded_len).await?;
        Ok(Response::new(v1::ListFirewallEventsResponse { firewall_events, next_page_token }))
    }

    /// A page of records as messages, and the token of the next.
    async fn page<T>(
        &self,
        parent: Parent,
        filter: RecordFilter,
        page: PageRequest,
        message: impl Fn(&Record) -> T,
        bytes: impl Fn(&T) -> usize,
    ) -> Result<(Vec<T>, String), Status> {
        self.check_parent(&parent)?;
        let position = page.cursor.as_deref().and_then(parse_position);
        let count = page.size;
        let RecordPage { records, next_before, first } =
            self.read(move |engine| engine.audit().list_from(&filter, position, count)).await?;
        let messages = records.iter().map(|record| (record.sequence, message(record)));
        let (shown, dropped) = page.take_until(messages, |(_, message)| bytes(message));
        let next = match dropped {
            // This record did not fit: the next page begins with it.
            Some((sequence, _)) => Some(sequence + 1),
            None => next_before,
        };
        let token = next.map(|before| page.token(&format!("{before} {first}"))).unwrap_or_default();
        Ok((shown.into_iter().map(|(_, message)| message).collect(), token))
    }

    pub(super) async fn list_sessions(
        &self,
        request: v1::ListSessionsRequest,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let v1::ListSessionsRequest {
            parent: parent_text,
            page_size,
            page_token,
            state,
            connection_type,
            user_email,
            ip_range,
            endpoint,
            rule,
            start_time,
            end_time,
        } = request;
        let common = Common { connection_type, user_email, ip_range, endpoint, rule, start_time, end_time };
        let mut faults = Faults::default();
        let parent = filters::parent(&mut faults, &parent_text);
        let filter = filters::sessions(&mut faults, parent.as_ref(), &common, state);
        let list = format!("sessions {parent_text} {state} {}", common.binding(&self.shared.audit_reads));
        let page = self.page_request(&mut faults, list, page_size, &page_token)?;
        let parent = faults.result(parent)?;
        self.check_parent(&parent)?;
        let cursor = page.cursor.as_deref().and_then(parse_cursor);
        let count = page.size;
        let SessionPage { sessions, next } =
            self.read(move |engine| engine.list_sessions(&filter, cursor, count)).await?;
        let messages = sessions.iter().map(|(session, behind)| (to_session(session), *behind));
        let (shown, dropped) = page.take_until(messages, |(message, _)| message.encoded_len());
        // Where a session did not fit, the next page begins behind the last one that did.
        let next = if dropped.is_some() { shown.last().map(|(_, behind)| *behind) } else { next };
        let next_page_token = next.map(|next| page.token(&show_cursor(next))).unwrap_or_default();
        let sessions = shown.into_iter().map(|(message, _)| message).collect();
        Ok(Response::new(v1::ListSessionsResponse { sessions, next_page_token }))
    }

    pub(super) async fn erase_user(
        &self,
        caller: Caller,
        request: v1::EraseUserRequest,
    ) -> Result<Response<v1::EraseUserResponse>, Status> {
        let v1::EraseUserRequest { parent, user_email, including_actor } = request;
        let mut faults = Faults::default();
        let parent = filters::parent(&mut faults, &parent);
        if user_email.is_empty() {
            faults.add("user_email", "is required: give the email as it was recorded");
        }
        let parent = faults.result(parent)?;
        self.check_parent(&parent)?;
        let organization = parent.organization().cloned();
        let asked_by = Actor { name: caller.actor() };
        let request = EraseRequest { organization, email: user_email, including_actor, asked_by };
        let erased = self.engine()?.erase_user(request).await.map_err(status::audit)?;
        Ok(Response::new(v1::EraseUserResponse {
            opening_count: Some(to_i64(erased.openings)),
            sequence: to_i64(erased.sequence),
            session_count: Some(to_i64(erased.sessions)),
        }))
    }
}

fn parse_position(text: &str) -> Option<ListPosition> {
    let (before, first) = text.split_once(' ')?;
    Some(ListPosition { before: before.parse().ok()?, first: first.parse().ok()? })
}

fn show_cursor(SessionCursor { as_of, first, behind }: SessionCursor) -> String {
    match behind {
        BehindSession::Active { start_micros, id } => format!("{as_of} {first} a {start_micros} {id}"),
        BehindSession::Ended { before } => format!("{as_of} {first} e {before}"),
    }
}

fn parse_cursor(text: &str) -> Option<SessionCursor> {
    let parts: Vec<&str> = text.split(' ').collect();
    let (as_of, first, behind) = match parts.as_slice() {
        [as_of, first, "a", start, id] => {
            let (start_micros, id) = (start.parse().ok()?, SessionId::parse(id)?);
            (as_of, first, BehindSession::Active { start_micros, id })
        }
        [as_of, first, "e", before] => (as_of, first, BehindSession::Ended { before: before.parse().ok()? }),
        _ => return None,
    };
    Some(SessionCursor { as_of: as_of.parse().ok()?, first: first.parse().ok()?, behind })
}
