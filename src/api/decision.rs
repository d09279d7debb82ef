//! DecisionService (design.md §3.2): which call goes where, and single Checks.
//!
//! Invariant: an error is the absence of a decision; nothing malformed is answered by a decision.
//! Not here: deciding (`engine::check`), many Checks (`batch`, `streams`), the calls about sessions (`sessions`).

use tonic::{Request, Response, Status, Streaming};

use super::convert::Faults;
use super::convert::decision::{node_name, to_decision, to_reason};
use super::{Api, at_revision, sessions, status, to_i64, transport};
use crate::engine::question::{Answer, Question};
use crate::policy::name::{Name, NodePath};
use crate::policy::plan::Violation;
use crate::policy::rule::ConnectionType;
use crate::proto::v1::decision_service_server::DecisionService;
use crate::proto::v1::{
    BatchCheckRequest, BatchCheckResponse, CheckRequest, CheckResponse, EndSessionRequest, RenewSessionsRequest,
    RenewSessionsResponse, Session,
};

const REQUEST_ID_CHARACTERS_MAX: usize = 128;
const USER_EMAIL_CHARACTERS_MAX: usize = 320;

#[tonic::async_trait]
impl DecisionService for Api {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let request = request.into_inner();
        let question = question(Asked::from(&request))?;
        let answer = self.engine()?.check(&question).await.map_err(status::check)?;
        Ok(at_revision(to_response(&answer, &question.target), answer.revision))
    }

    async fn batch_check(&self, request: Request<BatchCheckRequest>) -> Result<Response<BatchCheckResponse>, Status> {
        self.check_batch(&request.into_inner()).await
    }

    type StreamCheckStream = tokio_stream::Pending<Result<CheckResponse, Status>>;

    /// Never called: `streams` answers these calls before they come here.
    async fn stream_check(
        &self,
        _: Request<Streaming<CheckRequest>>,
    ) -> Result<Response<Self::StreamCheckStream>, Status> {
        Err(transport::no_answer())
    }

    async fn end_session(&self, request: Request<EndSessionRequest>) -> Result<Response<Session>, Status> {
        self.end_session(request.into_inner()).await
    }

    async fn renew_sessions(
        &self,
        request: Request<RenewSessionsRequest>,
    ) -> Result<Response<RenewSessionsResponse>, Status> {
        self.renew_sessions(request.into_inner()).await
    }
}

/// The fields of a request, borrowed from its message or its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked<'a> {
    pub(super) ip: &'a str,
    pub(super) connection_type: i32,
    pub(super) endpoint: &'a str,
    pub(super) user_email: &'a str,
    pub(super) min_revision: i64,
    pub(super) min_cluster_revision: i64,
    pub(super) session_lease: Option<prost_types::Duration>,
    pub(super) request_id: &'a str,
}

impl<'a> From<&'a CheckRequest> for Asked<'a> {
    fn from(request: &'a CheckRequest) -> Self {
        let CheckRequest {
            ip,
            connection_type,
            endpoint,
            user_email,
            min_revision,
            min_cluster_revision,
            session_lease,
            request_id,
        } = request;
        Self {
            ip,
            connection_type: *connection_type,
            endpoint,
            user_email,
            min_revision: *min_revision,
            min_cluster_revision: *min_cluster_revision,
            session_lease: *session_lease,
            request_id,
        }
    }
}

/// Parses a Check.
pub(super) fn question(asked: Asked<'_>) -> Result<Question<'_>, Status> {
    read_question(asked).map_err(status::invalid)
}

/// Parses a Check, or returns its faults.
pub(super) fn read_question(asked: Asked<'_>) -> Result<Question<'_>, Vec<Violation>> {
    let Asked {
        ip,
        connection_type,
        endpoint,
        user_email,
        min_revision,
        min_cluster_revision,
        session_lease,
        request_id,
    } = asked;
    let mut faults = Faults::default();
    let address = faults.address("ip", ip);
    let connection_type = faults.connection_type("connection_type", connection_type);
    let target = match NodePath::parse(endpoint) {
        Ok(target) => Some(target),
        Err(error) => {
            faults.add("endpoint", error.to_string());
            None
        }
    };
    check_length(&mut faults, "user_email", user_email, USER_EMAIL_CHARACTERS_MAX);
    check_length(&mut faults, "request_id", request_id, REQUEST_ID_CHARACTERS_MAX);
    let min_revision = faults.unsigned("min_revision", min_revision);
    let min_cluster_revision = faults.unsigned("min_cluster_revision", min_cluster_revision);
    let session_lease = session_lease.and_then(|lease| {
        if connection_type == Some(ConnectionType::Preview) {
            faults.add("session_lease", "is for shells only: a preview session ends when it is idle, leave it unset");
        }
        sessions::lease(&mut faults, &lease)
    });
    match (address, connection_type, target, faults.into_violations()) {
        (Some(address), Some(connection_type), Some(target), violations) if violations.is_empty() => Ok(Question {
            address,
            connection_type,
            target,
            user_email,
            session_lease,
            request_id,
            min_revision,
            min_cluster_revision,
        }),
        (_, _, _, violations) => Err(violations),
    }
}

/// Counts characters only where there could be too many of them.
fn check_length(faults: &mut Faults, field: &str, text: &str, characters_max: usize) {
    if text.len() > characters_max {
        let _ = faults.text(field, text, characters_max);
    }
}

pub(super) fn to_response(answer: &Answer, target: &NodePath<'_>) -> CheckResponse {
    let Answer { reason, rule, level, session, revision, cluster_revision, decision_id, sequence } = answer;
    let organization = target.organization;
    let rule = rule.as_ref().map(|rule| Name::rule(organization, rule).to_string());
    CheckResponse {
        decision: to_decision(reason.decision()).into(),
        reason: to_reason(*reason).into(),
        message: reason.message().to_owned(),
        rule: rule.unwrap_or_default(),
        node: level.map(|level| node_name(level, target).to_owned()).unwrap_or_default(),
        session: session.map(|session| Name::session(organization, session).to_string()).unwrap_or_default(),
        revision: to_i64(*revision),
        cluster_revision: to_i64(*cluster_revision),
        decision_id: decision_id.to_string(),
        error: None,
        sequence: to_i64(*sequence),
    }
}
