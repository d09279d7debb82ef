//! Forwarding calls to another thread than their connection's.
//!
//! Invariant: a call whose client has gone ends; one that panics is answered by an error.
//! Not here: which calls these are (`api::methods`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use crate::api::direct::Unread;
use crate::api::transport::{Explain, no_answer};

/// Parts of an answer that are made ahead.
const AHEAD_MAX: usize = 2;

/// The services that tonic serves, and where they run.
#[derive(Clone)]
pub(super) struct Forward {
    pub(super) routes: Explain<Routes>,
    pub(super) runtime: Handle,
}

/// The body of an answer that is made elsewhere.
#[derive(Debug)]
pub(super) struct ForwardedBody {
    /// `None` if the answer has no body, or its end was sent.
    frames: Option<Frames>,
    _call: Call,
}

/// Aborts a call whose client has gone.
#[derive(Debug)]
struct Call(AbortHandle);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Frames = mpsc::Receiver<Result<Frame<Bytes>, Status>>;

impl Forward {
    /// Answers a request on this thread.
    pub(super) async fn call_here(&self, request: Request<Unread<Incoming>>) -> Response<Body> {
        let Ok(response) = self.routes.clone().call(request.map(Body::new)).await;
        response
    }

    /// Has a request answered on the other runtime.
    pub(super) fn call(&self, request: Request<Unread<Incoming>>) -> impl Future<Output = Response<ForwardedBody>> {
        let (reply, answer) = oneshot::channel();
        let answered = self.routes.clone().call(request.map(Body::new));
        let call = self.runtime.spawn(async move {
            let Ok(response) = answered.await;
            send(response, reply).await;
        });
        let call = Call(call.abort_handle());
        async move {
            if let Ok(response) = answer.await {
                return response.map(|frames| ForwardedBody { frames, _call: call });
            }
            tracing::error!("a call ended without an answer");
            no_answer().into_http::<()>().map(|()| ForwardedBody { frames: None, _call: call })
        }
    }
}

/// Sends an answer over, its body piece by piece.
async fn send(response: Response<Body>, reply: oneshot::Sender<Response<Option<Frames>>>) {
    let (head, mut body) = response.into_parts();
    if body.is_end_stream() {
        drop(reply.send(Response::from_parts(head, None)));
        return;
    }
    let (sender, frames) = mpsc::channel(AHEAD_MAX);
    if reply.send(Response::from_parts(head, Some(frames))).is_err() {
        return;
    }
    while let Some(frame) = body.frame().await {
        if sender.send(frame).await.is_err() {
            return;
        }
    }
}

impl http_body::Body for ForwardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(None) };
        let frame = ready!(frames.poll_recv(context));
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            self.frames = None;
        }
        // Without trailers the answer was broken off.
        Poll::Ready(Some(frame.unwrap_or_else(|| Err(no_answer()))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_none()
    }
}
