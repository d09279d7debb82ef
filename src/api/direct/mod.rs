//! `Check` straight over HTTP/2, without the layers that other calls pass.
//!
//! It takes what every client sends: one whole, uncompressed message. Anything unusual is handed on unread to the service
//! behind (`decision`), where tonic implements gRPC in full.
//!
//! A Check is read once: [`DirectCheck::begin`] decides it. Then it is answered, or a [`WaitingCheck`] holds its encoded
//! answer until the record is durable.
//!
//! Invariant: headers, bytes and trailers of an answer are exactly those that the service behind would send.
//! Not here: deciding (`engine::check`), connections (`server`).

mod unread;
pub(super) mod wire;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame};
use prost::bytes::{BufMut, Bytes};
use tokio::time::Instant;
use tonic::Status;

use super::admission::{Admission, Permit, too_late};
use super::decision::{Asked, question};
use super::methods::CHECK;
use super::{Api, REVISION_HEADER, status, to_i64};
use crate::engine::Engine;
use crate::engine::outcome::{Outcome, Waiting};
use crate::engine::question::{Answer, Question};

use unread::PREFIX_BYTES;
pub use unread::Unread;

const REVISION: HeaderName = HeaderName::from_static(REVISION_HEADER);
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The most bytes of a message that is answered here. A valid one is shorter; longer ones are refused by the service
/// behind.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// Headers of an answer.
const HEADERS: usize = 2;

thread_local! {
    static LAST_REVISION: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static("0"))) };
}

/// Answers Checks.
#[derive(Clone)]
pub struct DirectCheck {
    api: Api,
    admission: Admission,
    request_bytes_max: usize,
}

/// How far a Check has come.
pub enum Progress<B: Body> {
    /// It is answered.
    Answered(Response<AnswerBody>),
    /// It is decided, and its record is not durable yet.
    Waiting(WaitingCheck),
    /// It is not decided: the request, as if unread.
    Unread(Request<Unread<B>>),
}

/// A Check whose answer is sent once its record is durable. If this is dropped before, its session is abandoned.
pub struct WaitingCheck {
    waiting: Waiting<Arc<Engine>>,
    /// The answer's message.
    message: Bytes,
    /// The end of the call's time.
    limit: Instant,
    /// Counts the call as under way.
    permit: Option<Permit>,
}

impl DirectCheck {
    /// Shares `admission` with the service behind.
    pub fn new(api: Api, admission: Admission, request_bytes_max: usize) -> Self {
        Self { api, admission, request_bytes_max }
    }

    /// Whether the headers are those of a usual Check.
    pub fn takes<B>(request: &Request<B>) -> bool {
        let headers = request.headers();
        request.method() == Method::POST
            && request.uri().path_and_query().is_some_and(|path| path == CHECK)
            && headers
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind == "application/grpc" || kind == "application/grpc+proto")
            && headers.get(GRPC_ENCODING).is_none_or(|encoding| encoding == "identity")
    }

    /// Decides a Check if its message has come and the queue has room for its record. Never waits.
    pub fn begin<B>(&self, request: Request<B>) -> Progress<B>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut request = request.map(Unread::new);
        let mut context = Context::from_waker(Waker::noop());
        if request.body_mut().poll_fill(&mut context, self.bytes_max(), reads).is_pending() {
            return Progress::Unread(request);
        }
        let Some(asked) = request.body().message(self.bytes_max()).and_then(wire::read) else {
            return Progress::Unread(request);
        };
        match self.decide(asked, &request) {
            Ok(Some(progress)) => progress,
            Ok(None) => Progress::Unread(request),
            Err(status) => Progress::Answered(self.refused(&status)),
        }
    }

    /// None where the queue is full.
    fn decide<B: Body>(&self, asked: Asked<'_>, request: &Request<Unread<B>>) -> Result<Option<Progress<B>>, Status> {
        self.admission.pass()?;
        let question = question(asked)?;
        let engine = self.api.engine()?;
        let Some(room) = engine.room_now() else { return Ok(None) };
        // Taken before the decision, which cannot be undone. A call that waits for its sync counts as under way.
        let permit = if engine.is_sync(question.connection_type) { Some(self.admission.enter()?) } else { None };
        let outcome = room.and_then(|room| engine.admit(room, &question)).map_err(status::check)?;
        Ok(Some(match outcome {
            Outcome::Ready(unsent) => {
                let response = response(encoded(unsent.answer(), &question)?, unsent.answer().revision);
                unsent.leave();
                Progress::Answered(response)
            }
            Outcome::Waiting(waiting) => Progress::Waiting(WaitingCheck {
                message: encoded(waiting.answer(), &question)?,
                waiting: waiting.holding(Arc::clone(engine)),
                limit: Instant::now() + self.admission.timeout(request),
                permit,
            }),
        }))
    }

    /// Answers a Check whose message had not come yet, or for whose record there was no room. Returns the request, as if
    /// unread, where it must be handed on.
    pub async fn answer<B>(&self, mut request: Request<Unread<B>>) -> Result<Response<AnswerBody>, Request<Unread<B>>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let _place = match self.admission.enter() {
            Ok(permit) => permit,
            Err(status) => return Ok(self.refused(&status)),
        };
        let started = Instant::now();
        let timeout = self.admission.timeout(&request);
        let checking = async {
            let body = request.body_mut();
            poll_fn(|context| body.poll_fill(context, self.bytes_max(), reads)).await;
            Some(self.check(body.message(self.bytes_max()).and_then(wire::read)?).await)
        };
        match tokio::time::timeout(timeout, checking).await {
            Ok(Some(answered)) => Ok(answered.unwrap_or_else(|status| self.refused(&status))),
            Ok(None) => {
                request.extensions_mut().insert(started);
                Err(request)
            }
            Err(_) => Ok(self.refused(&too_late())),
        }
    }

    /// Waits for the sync of a Check's record, and answers. Must be polled when woken (`engine::audit`).
    pub async fn answer_durable(&self, check: WaitingCheck) -> Response<AnswerBody> {
        let WaitingCheck { waiting, message, limit, permit: _permit } = check;
        match waiting.durable_until(limit).await {
            Some(Ok(unsent)) => response(message, unsent.leave().revision),
            Some(Err(error)) => self.refused(&status::check(error)),
            None => self.refused(&too_late()),
        }
    }

    /// The answer to a Check that is refused.
    fn refused(&self, status: &Status) -> Response<AnswerBody> {
        self.api.refusals.note(CHECK, status);
        refusal(status)
    }

    async fn check(&self, asked: Asked<'_>) -> Result<Response<AnswerBody>, Status> {
        let question = question(asked)?;
        let answer = self.api.engine()?.check(&question).await.map_err(status::check)?;
        Ok(response(encoded(&answer, &question)?, answer.revision))
    }

    /// The longest message that is answered here.
    fn bytes_max(&self) -> usize {
        self.request_bytes_max.min(MESSAGE_BYTES_MAX)
    }
}

fn reads(message: &[u8]) -> bool {
    wire::read(message).is_some()
}

/// The message of an answer, with gRPC's prefix.
fn encoded(answer: &Answer, question: &Question<'_>) -> Result<Bytes, Status> {
    let mut bytes = wire::written(PREFIX_BYTES, answer, &question.target);
    let length = u32::try_from(bytes.len() - PREFIX_BYTES).map_err(|error| status::internal(&error))?;
    if let Some(mut prefix) = bytes.get_mut(1..PREFIX_BYTES) {
        prefix.put_u32(length);
    }
    Ok(bytes.freeze())
}

fn response(message: Bytes, revision: u64) -> Response<AnswerBody> {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(REVISION, revision_value(revision));
    let mut response = Response::new(AnswerBody::Message(message));
    *response.headers_mut() = headers;
    response
}

/// The header's value. Each thread reuses its last one while the revision stays the same.
fn revision_value(revision: u64) -> HeaderValue {
    LAST_REVISION.with_borrow_mut(|(last, value)| {
        if *last != revision {
            (*last, *value) = (revision, to_i64(revision).into());
        }
        value.clone()
    })
}

/// Never logs the message: it repeats what the caller sent, addresses among it.
fn refusal(status: &Status) -> Response<AnswerBody> {
    tracing::debug!(method = CHECK, code = ?status.code(), "call refused");
    status.clone().into_http()
}

/// An answer's message and trailers. An error has neither: its status is among the headers.
#[derive(Debug, Default)]
pub enum AnswerBody {
    /// The message comes next.
    Message(Bytes),
    /// The trailers do.
    Trailers,
    /// All has come.
    #[default]
    End,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, rest) = match std::mem::take(&mut *self) {
            Self::Message(bytes) => (Some(Frame::data(bytes)), Self::Trailers),
            Self::Trailers => (Some(Frame::trailers(done())), Self::End),
            Self::End => (None, Self::End),
        };
        *self = rest;
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::End)
    }
}

fn done() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}
