//! `Check` straight over HTTP/2, without the layers that other calls pass.
//!
//! It takes what every client sends: one whole message, neither compressed nor in pieces of another kind. Whatever is
//! unusual, it hands on unread to the service behind (`decision`), which is gRPC to the letter.
//!
//! Invariant: an answer is, to the last header, byte and trailer, the one that the service behind would give.
//! Not here: deciding (`engine::check`), connections (`server`).

mod unread;
pub(super) mod wire;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame};
use prost::bytes::{BufMut, Bytes};
use tokio::time::Instant;
use tonic::Status;

use super::admission::{Admission, too_late};
use super::decision::{Asked, question};
use super::methods::CHECK;
use super::{Api, REVISION_HEADER, status, to_i64};
use crate::engine::check::{Answer, Question};

use unread::PREFIX_BYTES;
pub use unread::Unread;

const REVISION: HeaderName = HeaderName::from_static(REVISION_HEADER);
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Bytes of a message that has nothing wrong with it, at most, and some more. Longer ones are refused behind this way.
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

impl DirectCheck {
    /// Lets in what `admission` does, which it shares with the service behind.
    pub fn new(api: Api, admission: Admission, request_bytes_max: usize) -> Self {
        Self { api, admission, request_bytes_max }
    }

    /// Whether a request is a Check that looks like all others.
    pub fn takes<B>(request: &Request<B>) -> bool {
        let headers = request.headers();
        request.method() == Method::POST
            && request.uri().path_and_query().is_some_and(|path| path == CHECK)
            && headers
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind == "application/grpc" || kind == "application/grpc+proto")
            && headers.get("grpc-encoding").is_none_or(|encoding| encoding == "identity")
    }

    /// The answer, where nothing has to be waited for; else the request, as if unread.
    #[expect(clippy::result_large_err, reason = "a request on its way, which a box would cost an allocation each")]
    pub fn answer_at_once<B>(&self, request: Request<B>) -> Result<Response<AnswerBody>, Request<Unread<B>>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut request = request.map(Unread::new);
        let mut context = Context::from_waker(Waker::noop());
        if request.body_mut().poll_fill(&mut context, self.bytes_max(), reads).is_pending() {
            return Err(request);
        }
        let Some(asked) = request.body().message(self.bytes_max()).and_then(wire::read) else { return Err(request) };
        let answered = self.admission.pass().and_then(|()| {
            let question = question(asked)?;
            let answer = self.api.engine()?.check_at_once(&question);
            answer
                .map(|answer| answer.map_err(status::check).and_then(|answer| response(&answer, &question)))
                .transpose()
        });
        match answered {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(request),
            Err(status) => Ok(refusal(&status)),
        }
    }

    /// The answer; the request, as if unread, where it is none for this way.
    pub async fn answer<B>(&self, mut request: Request<Unread<B>>) -> Result<Response<AnswerBody>, Request<Unread<B>>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let _place = match self.admission.enter() {
            Ok(place) => place,
            Err(status) => return Ok(refusal(&status)),
        };
        let started = Instant::now();
        let timeout = self.admission.timeout(&request);
        let checking = async {
            let body = request.body_mut();
            poll_fn(|context| body.poll_fill(context, self.bytes_max(), reads)).await;
            Some(self.check(body.message(self.bytes_max()).and_then(wire::read)?).await)
        };
        match tokio::time::timeout(timeout, checking).await {
            Ok(Some(answered)) => Ok(answered.unwrap_or_else(|status| refusal(&status))),
            Ok(None) => {
                request.extensions_mut().insert(started);
                Err(request)
            }
            Err(_) => Ok(refusal(&too_late())),
        }
    }

    async fn check(&self, asked: Asked<'_>) -> Result<Response<AnswerBody>, Status> {
        let question = question(asked)?;
        let answer = self.api.engine()?.check(&question).await.map_err(status::check)?;
        response(&answer, &question)
    }

    /// The longest message of this way.
    fn bytes_max(&self) -> usize {
        self.request_bytes_max.min(MESSAGE_BYTES_MAX)
    }
}

fn reads(message: &[u8]) -> bool {
    wire::read(message).is_some()
}

fn response(answer: &Answer, question: &Question<'_>) -> Result<Response<AnswerBody>, Status> {
    let mut bytes = wire::written(PREFIX_BYTES, answer, &question.target);
    let length = u32::try_from(bytes.len() - PREFIX_BYTES).map_err(|error| status::internal(&error))?;
    if let Some(mut place) = bytes.get_mut(1..PREFIX_BYTES) {
        place.put_u32(length);
    }
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(REVISION, revision_value(answer.revision));
    let mut response = Response::new(AnswerBody::Message(bytes.freeze()));
    *response.headers_mut() = headers;
    Ok(response)
}

/// The header's value, made anew only where it is another than the last one on this thread.
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

/// An answer's message and trailers; nothing where it is an error, whose status is among the headers.
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
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}
