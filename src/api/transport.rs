//! Errors of the transport in the form of all others (design.md §3.7).
//!
//! tonic itself refuses calls that never reach a service: unknown methods, messages too large or undecodable, unknown
//! compression. Such a status has no details; this layer gives it the code and the `ErrorInfo` of the contract.
//!
//! Invariant: every error has an `ErrorInfo`; an error of a service passes unchanged.
//! Not here: overload and deadlines (`admission`).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::{Frame, SizeHint};
use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::refusals::method_name;
use super::{Refusals, status};
use crate::proto::v1::ErrorReason;

/// The status in the form of the contract. One that has details is unchanged.
pub(super) fn explained(bare: Status) -> Status {
    if !bare.details().is_empty() {
        return bare;
    }
    let message = bare.message();
    let (code, reason, message) = match bare.code() {
        // tonic names both directions by one code, and tells them apart in words only.
        Code::OutOfRange if message.contains("encoded message") && !message.contains("decoded message") => (
            Code::ResourceExhausted,
            ErrorReason::AnswerTooLarge,
            "the answer is too large: ask for less at a time".to_owned(),
        ),
        Code::OutOfRange | Code::ResourceExhausted => {
            let message = format!("the request message is too large: send less at a time ({message})");
            (Code::ResourceExhausted, ErrorReason::MessageTooLarge, message)
        }
        Code::Internal | Code::InvalidArgument => {
            let message =
                format!("the request message cannot be decoded: check the client's protocol files ({message})");
            (Code::InvalidArgument, ErrorReason::MalformedMessage, message)
        }
        Code::Unimplemented if message.is_empty() => {
            let message = "the method does not exist in this version: list the methods by reflection".to_owned();
            (Code::Unimplemented, ErrorReason::MethodNotFound, message)
        }
        Code::Unimplemented => {
            let message = format!("the encoding is not supported: send the message uncompressed ({message})");
            (Code::Unimplemented, ErrorReason::UnsupportedEncoding, message)
        }
        Code::Cancelled => (Code::Cancelled, ErrorReason::Cancelled, "the call was cancelled".to_owned()),
        Code::DeadlineExceeded => (Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, message.to_owned()),
        Code::Unavailable => (Code::Unavailable, ErrorReason::Overloaded, message.to_owned()),
        Code::NotFound => (Code::NotFound, ErrorReason::NotFound, message.to_owned()),
        code => (code, ErrorReason::Internal, message.to_owned()),
    };
    let mut explained = status::error(code, reason, message);
    // The transport's other metadata, such as the encodings that it reads.
    *explained.metadata_mut() = bare.metadata().clone();
    explained
}

/// The error of a call that failed before it had an answer.
pub fn no_answer() -> Status {
    let message = "the call ended without an answer: read what has become of it before you repeat it";
    status::error(Code::Internal, ErrorReason::Internal, message)
}

/// Puts transport errors into the form of the contract.
#[derive(Clone, Debug)]
pub struct ExplainLayer {
    refusals: Arc<Refusals>,
}

impl ExplainLayer {
    /// Counts refused calls there.
    pub fn new(refusals: &Arc<Refusals>) -> Self {
        Self { refusals: Arc::clone(refusals) }
    }
}

impl<S> Layer<S> for ExplainLayer {
    type Service = Explain<S>;

    fn layer(&self, inner: S) -> Explain<S> {
        Explain { inner, refusals: Arc::clone(&self.refusals) }
    }
}

/// See [`ExplainLayer`].
#[derive(Clone, Debug)]
pub struct Explain<S> {
    inner: S,
    refusals: Arc<Refusals>,
}

impl<S, Q, B> Service<Request<Q>> for Explain<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Default + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let refusals = Arc::clone(&self.refusals);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // Only an answer that consists of an error has its status in the headers.
            let status = Status::from_header_map(answer.headers());
            let Some(status) = status.filter(|status| status.code() != Code::Ok) else { return Ok(answer) };
            // Never log the message, nor the path: they repeat what the caller sent, addresses included.
            if !status.details().is_empty() {
                tracing::debug!(method = method_name(&path), code = ?status.code(), "call refused");
                refusals.note(&path, &status);
                return Ok(answer);
            }
            let status = explained(status);
            tracing::debug!(method = method_name(&path), code = ?status.code(), "call refused by the transport");
            refusals.note(&path, &status);
            Ok(status.into_http())
        })
    }
}

/// Distinguishes a stream of requests that was broken off from a complete one. tonic ends a stream that the client
/// cancels, or whose deadline passes at the client, as if it were complete.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnbrokenLayer;

impl<S> Layer<S> for UnbrokenLayer {
    type Service = Unbroken<S>;

    fn layer(&self, inner: S) -> Unbroken<S> {
        Unbroken { inner }
    }
}

/// See [`UnbrokenLayer`].
#[derive(Clone, Debug)]
pub struct Unbroken<S> {
    inner: S,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Unbroken<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.inner.call(request.map(|body| Body::new(UnbrokenBody { body })))
    }
}

fn broken_off() -> Status {
    status::error(
        Code::Aborted,
        ErrorReason::Cancelled,
        "the stream was broken off, so nothing was changed: send it again",
    )
}

/// A body that ends with an error if it was broken off.
struct UnbrokenBody {
    body: Body,
}

impl http_body::Body for UnbrokenBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let broken = match &frame {
            Some(Ok(_)) => false,
            Some(Err(error)) => error.code() == Code::Cancelled,
            None => !self.body.is_end_stream(),
        };
        // tonic takes `Cancelled` for the end of a stream, so another code is used.
        Poll::Ready(if broken { Some(Err(broken_off())) } else { frame })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
