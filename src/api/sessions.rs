//! The calls about sessions (design.md §3.2): end and renew.
//!
//! Invariant: a malformed name is a fault; a well-formed name of no session is unknown.
//! Not here: lists of sessions (`audit`).

use std::time::Duration;

use tonic::{Code, Response, Status};

use super::convert::Faults;
use super::convert::audit::to_session;
use super::{Api, status};
use crate::audit::session::SessionId;
use crate::engine::sessions::Renewed;
use crate::policy::name::{Id, NameError, parse_below_organization};
use crate::proto::v1::{self, ErrorReason};

const SESSION_FORM: &str = "organizations/{organization}/sessions/{session}";

/// Sessions that one call may renew.
const RENEWALS_MAX: usize = 10_000;

/// No lease is longer than the longest session.
const LEASE_MAX: Duration = Duration::from_hours(24);

impl Api {
    pub(super) async fn end_session(&self, request: v1::EndSessionRequest) -> Result<Response<v1::Session>, Status> {
        let v1::EndSessionRequest { name } = request;
        let (organization, id) = session(&name).map_err(|error| status::invalid_field("name", error.to_string()))?;
        let id = id.ok_or_else(|| status::not_found(&name))?;
        let ended = self.engine()?.end_session(&organization, id).await.map_err(status::audit)?;
        ended.map(|session| Response::new(to_session(&session))).ok_or_else(|| status::not_found(&name))
    }

    pub(super) async fn renew_sessions(
        &self,
        request: v1::RenewSessionsRequest,
    ) -> Result<Response<v1::RenewSessionsResponse>, Status> {
        let v1::RenewSessionsRequest { names, session_lease } = request;
        if names.len() > RENEWALS_MAX {
            let message =
                format!("{} sessions cannot be renewed in one call: name at most {RENEWALS_MAX}", names.len());
            return Err(status::error(Code::ResourceExhausted, ErrorReason::LimitReached, message));
        }
        let mut faults = Faults::default();
        let mut sessions = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            match session(name) {
                Ok(session) => sessions.push(session),
                Err(error) => faults.add(format!("names[{index}]"), error.to_string()),
            }
        }
        let lease = if let Some(given) = &session_lease {
            lease(&mut faults, given)
        } else {
            faults.add("session_lease", "is required: say how long the sessions go on without another renewal");
            None
        };
        let lease = faults.result(lease)?;
        let renewed = self.engine()?.renew_sessions(&sessions, lease).await.map_err(status::audit)?;
        let mut response = v1::RenewSessionsResponse::default();
        for (name, renewed) in names.into_iter().zip(renewed) {
            match renewed {
                Renewed::Renewed => response.sessions.push(name),
                Renewed::Revoked => response.revoked.push(name),
                Renewed::Lost => response.lost.push(name),
            }
        }
        Ok(Response::new(response))
    }
}

/// A lease that was given.
pub(super) fn lease(faults: &mut Faults, lease: &prost_types::Duration) -> Option<Duration> {
    let is_canonical = (0..1_000_000_000).contains(&lease.nanos);
    let parsed = Duration::try_from(*lease).ok().filter(|_| is_canonical);
    match parsed.map(|lease| Duration::from_millis(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX))) {
        Some(lease) if !lease.is_zero() && lease <= LEASE_MAX => Some(lease),
        _ => {
            faults.add("session_lease", "is not a duration from a millisecond to 24 hours: give one");
            None
        }
    }
}

/// Splits a session's name. The id is `None` if it is well formed and no session can have it.
fn session(name: &str) -> Result<(Id, Option<SessionId>), NameError> {
    let (organization, id) = parse_below_organization(name, "sessions", SESSION_FORM)?;
    Ok((organization, SessionId::parse(id.as_str())))
}
