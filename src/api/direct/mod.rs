//! `Check` straight over HTTP/2, without the layers that other calls pass.
//!
//! It takes what every client sends: one whole message, neither compressed nor in pieces of another kind. Whatever is
//! unusual, it hands on unread to the service behind (`decision`), which is gRPC to the letter.
//!
//! Invariant: an answer is, to the last header, byte and trailer, the one that the service behind would give.
//! Not here: deciding (`engine::check`), connections (`server`).

mod wire;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tonic::Status;

use super::admission::{Admission, too_late};
use super::decision::{Asked, question};
use super::{Api, REVISION_HEADER, status, to_i64};

/// The method's path.
const PATH: &str = "/portcullis.v1.DecisionService/Check";

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// A message's flag and length before it (gRPC over HTTP/2).
const PREFIX_BYTES: usize = 5;

/// Room for an answer.
const ANSWER_BYTES: usize = 256;

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
            && request.uri().path_and_query().is_some_and(|path| path == PATH)
            && headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/grpc" || kind == "application/grpc+proto")
            && headers.get("grpc-encoding").is_none_or(|encoding| encoding == "identity")
    }

    /// The answer; the request, as if unread, where it is none for this way.
    pub async fn answer<B>(&self, request: Request<B>) -> Result<Response<AnswerBody>, Request<Unread<B>>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let place = match self.admission.enter() {
            Ok(place) => place,
            Err(status) => return Ok(refusal(&status)),
        };
        let timeout = self.admission.timeout(request.headers());
        let mut answer = pin!(self.read_and_check(request));
        // Most answers are there at once, and need no timer.
        let answer = match poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await {
            Poll::Ready(answer) => answer,
            Poll::Pending => match tokio::time::timeout(timeout, answer).await {
                Ok(answer) => answer,
                Err(_) => return Ok(refusal(&too_late())),
            },
        };
        drop(place);
        Ok(answer?.unwrap_or_else(|status| refusal(&status)))
    }

    async fn read_and_check<B>(
        &self,
        request: Request<B>,
    ) -> Result<Result<Response<AnswerBody>, Status>, Request<Unread<B>>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, body) = request.into_parts();
        let unread = match self.read(body).await {
            Ok((bytes, body)) => match message(&bytes).and_then(wire::read) {
                Some(asked) => return Ok(self.check(asked).await),
                None => Unread { bytes, next: None, body },
            },
            Err(unread) => unread,
        };
        Err(Request::from_parts(head, unread))
    }

    /// All of a body, where it is nothing but bytes.
    async fn read<B>(&self, mut body: B) -> Result<(Bytes, B), Unread<B>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut bytes = Bytes::new();
        while !body.is_end_stream() {
            let Some(frame) = body.frame().await else { break };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) if bytes.is_empty() => bytes = data,
                Ok(Ok(data)) => bytes = [bytes, data].concat().into(),
                Ok(Err(other)) => return Err(Unread { bytes, next: Some(Ok(other)), body }),
                Err(error) => return Err(Unread { bytes, next: Some(Err(error)), body }),
            }
            if bytes.len() > PREFIX_BYTES + self.request_bytes_max {
                return Err(Unread { bytes, next: None, body });
            }
        }
        Ok((bytes, body))
    }

    async fn check(&self, asked: Asked<'_>) -> Result<Response<AnswerBody>, Status> {
        let question = question(asked)?;
        let answer = self.api.engine()?.check(&question).await.map_err(status::check)?;
        let mut bytes = BytesMut::with_capacity(ANSWER_BYTES);
        bytes.put_bytes(0, PREFIX_BYTES);
        wire::write(&mut bytes, &answer, &question.target);
        let length = u32::try_from(bytes.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
        if let Some(mut place) = bytes.get_mut(1..PREFIX_BYTES) {
            place.put_u32(length);
        }
        let mut response = Response::new(AnswerBody::Message(bytes.freeze()));
        response.headers_mut().insert(CONTENT_TYPE, GRPC);
        response.headers_mut().insert(REVISION_HEADER, to_i64(answer.revision).into());
        Ok(response)
    }
}

/// Never logs the message: it repeats what the caller sent, addresses among it.
fn refusal(status: &Status) -> Response<AnswerBody> {
    tracing::debug!(method = PATH, code = ?status.code(), "call refused");
    status.clone().into_http()
}

/// The message, where the bytes are exactly one that is not compressed.
fn message(bytes: &[u8]) -> Option<&[u8]> {
    let ([flag, length @ ..], message) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
    (*flag == 0 && message.len() == u32::from_be_bytes(*length) as usize).then_some(message)
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

/// A request's body as if nothing had been read of it.
pub struct Unread<B: Body> {
    bytes: Bytes,
    next: Option<Result<Frame<Bytes>, B::Error>>,
    body: B,
}

impl<B: Body<Data = Bytes> + Unpin> Unread<B> {
    /// One of which nothing has been read.
    pub fn new(body: B) -> Self {
        Self { bytes: Bytes::new(), next: None, body }
    }
}

impl<B: Body<Data = Bytes, Error: Unpin> + Unpin> Body for Unread<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))));
        }
        match self.next.take() {
            Some(next) => Poll::Ready(Some(next)),
            None => Pin::new(&mut self.body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.next.is_none() && self.body.is_end_stream()
    }
}
