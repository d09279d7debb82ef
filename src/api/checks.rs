//! Many Checks in one call: a batch, or a stream.
//!
//! Invariant: answers have the order of the requests. A batch with a malformed request decides nothing; a stream answers
//! it with an error and goes on. What was not answered keeps no session open.
//! Not here: single Checks (`decision`), deciding (`engine::check`).

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::decision::{question, read_question, to_response};
use super::{ANSWER_BYTES_MAX, Api, status, transport};
use crate::engine::Engine;
use crate::engine::audit::AuditError;
use crate::engine::check::{Begun, Question};
use crate::policy::name::NodePath;
use crate::policy::plan::{PlanError, Violation};
use crate::proto::v1::{BatchCheckRequest, BatchCheckResponse, CheckRequest, CheckResponse};

/// Requests of a batch.
const BATCH_MAX: usize = 10_000;

/// Malformed requests after which a batch is not read further: nobody reads ten thousand violations.
const VIOLATIONS_MAX: usize = 1_000;

/// Checks of a stream that are decided and not answered yet: as many as may share one write of the disk.
const AHEAD_MAX: usize = 256;

/// Bytes of an answer besides the names that the request tells.
const ANSWER_BYTES: usize = 300;

pub(super) type Answers = ReceiverStream<Result<CheckResponse, Status>>;

impl Api {
    pub(super) async fn check_batch(
        &self,
        request: &BatchCheckRequest,
    ) -> Result<Response<BatchCheckResponse>, Status> {
        let BatchCheckRequest { requests } = request;
        if requests.len() > BATCH_MAX {
            let (what, max, would_be) = ("requests of a batch", BATCH_MAX, requests.len());
            return Err(status::plan(PlanError::LimitReached { what, max, would_be }));
        }
        let questions = read_batch(requests)?;
        // Before anything is decided: an answer that does not fit could not be taken back.
        let bytes: usize = questions.iter().map(answer_bytes).sum();
        if bytes > ANSWER_BYTES_MAX {
            return Err(status::answer_too_large("send fewer requests in one batch"));
        }
        let answers = self.engine()?.check_batch(&questions).await;
        let answers = answers.map_err(|(_, error)| status::check(error))?;
        let responses = answers.iter().zip(&questions).map(|(answer, of)| to_response(answer, &of.target)).collect();
        Ok(Response::new(BatchCheckResponse { responses }))
    }

    pub(super) fn check_stream(&self, requests: Streaming<CheckRequest>) -> Result<Response<Answers>, Status> {
        let engine = Arc::clone(self.engine()?);
        let (sender, answers) = mpsc::channel(AHEAD_MAX);
        let draining = self.audit.draining();
        tokio::spawn(serve(engine, requests, sender, draining));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

fn read_batch(requests: &[CheckRequest]) -> Result<Vec<Question<'_>>, Status> {
    let (mut questions, mut violations) = (Vec::with_capacity(requests.len()), Vec::new());
    for (index, request) in requests.iter().enumerate() {
        match read_question(request.into()) {
            Ok(question) => questions.push(question),
            Err(found) => violations.extend(found.into_iter().map(|violation| {
                Violation::new(format!("requests[{index}].{}", violation.field), violation.description)
            })),
        }
        if violations.len() >= VIOLATIONS_MAX {
            break;
        }
    }
    if violations.is_empty() { Ok(questions) } else { Err(status::invalid(violations)) }
}

/// What an answer takes at most: it names the node, or rule and session.
fn answer_bytes(question: &Question<'_>) -> usize {
    let NodePath { text, organization, .. } = question.target;
    ANSWER_BYTES + text.len().max(2 * organization.len())
}

/// An answer on its way.
enum Pending<'a> {
    Decided(Begun<'a>, String),
    Refused(Status),
}

/// Serves a stream until it ends, the client goes away, or the service ends.
async fn serve(
    engine: Arc<Engine>,
    requests: Streaming<CheckRequest>,
    sender: mpsc::Sender<Result<CheckResponse, Status>>,
    mut draining: watch::Receiver<bool>,
) {
    let ended = async { drop(draining.wait_for(|draining| *draining).await) };
    let end = tokio::select! {
        end = answer_all(&engine, requests, &sender) => end,
        () = ended => Some(status::audit(AuditError::ShuttingDown)),
        () = sender.closed() => None,
    };
    if let Some(status) = end {
        drop(sender.send(Err(status)).await);
    }
}

/// Answers what comes; returns why it cannot go on, where it did not come to its end.
async fn answer_all(
    engine: &Engine,
    mut requests: Streaming<CheckRequest>,
    sender: &mpsc::Sender<Result<CheckResponse, Status>>,
) -> Option<Status> {
    let mut pending: VecDeque<Pending<'_>> = VecDeque::new();
    let mut more = true;
    while more || !pending.is_empty() {
        tokio::select! {
            // What is decided leaves first; what comes meanwhile is decided while the disk is waited for.
            biased;
            () = wait(pending.front_mut()), if !pending.is_empty() => {
                let response = pending.pop_front().map(respond)?;
                sender.send(Ok(response)).await.ok()?;
            }
            message = requests.message(), if more && pending.len() < AHEAD_MAX => match message {
                Ok(Some(request)) => pending.push_back(begin(engine, request).await),
                Ok(None) => more = false,
                Err(status) => return Some(transport::explained(status)),
            },
        }
    }
    None
}

async fn begin(engine: &Engine, request: CheckRequest) -> Pending<'_> {
    let begun = match question((&request).into()) {
        Ok(question) => engine.begin(&question).await.map_err(status::check),
        Err(status) => Err(status),
    };
    match begun {
        Ok(begun) => Pending::Decided(begun, request.endpoint),
        Err(status) => Pending::Refused(status),
    }
}

/// Waits until an answer may leave, or it is known that it may not.
async fn wait(pending: Option<&mut Pending<'_>>) {
    let Some(pending) = pending else { return };
    let waited = match pending {
        Pending::Decided(begun, _) => begun.wait().await,
        Pending::Refused(_) => Ok(()),
    };
    if let Err(error) = waited {
        *pending = Pending::Refused(status::check(error));
    }
}

fn respond(pending: Pending<'_>) -> CheckResponse {
    match pending {
        Pending::Decided(begun, endpoint) => {
            let answer = begun.answer();
            NodePath::parse(&endpoint).map_or_else(|_| CheckResponse::default(), |target| to_response(&answer, &target))
        }
        Pending::Refused(status) => CheckResponse { error: Some(to_error(&status)), ..CheckResponse::default() },
    }
}

/// A status as a message.
fn to_error(status: &Status) -> tonic_types::Status {
    let with_details = tonic_types::Status::decode(status.details()).ok().filter(|_| !status.details().is_empty());
    with_details.unwrap_or_else(|| tonic_types::Status {
        code: i32::from(status.code()),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}
