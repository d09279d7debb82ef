//! One connection: HTTP/2, and which requests on it go where.
//!
//! Invariant: a call runs in the lane that the table of methods names, so that administration never delays a Check.
//! Not here: what a call means (`api`), which lane a method has (`api::methods`).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tonic::Status;

use super::accepted::Accepted;
use super::at_once::{AnsweredAtOnce, Gathered};
use super::forward::{Forward, ForwardedBody};
use crate::api::caller::Caller;
use crate::api::direct::{AnswerBody, DirectCheck, Progress, Unread};
use crate::api::methods::Lane;

/// Streams of one connection at a time. More wait on the client's side.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// Streams that a client may reset before its connection is closed: a flood of resets costs only the sender.
const LOCAL_RESETS_MAX: usize = 1_024;

/// Reset streams that may wait to be noticed.
const PENDING_RESETS_MAX: usize = 20;

/// HTTP/2 keep-alive: the interval of pings on an idle connection, and the time to answer one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_mins(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The phases of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// Calls under way are finished.
    Draining,
    /// Connections are closed.
    CutOff,
}

/// How every connection is served.
#[derive(Clone)]
pub(super) struct Protocol {
    pub(super) direct: DirectCheck,
    pub(super) forward: Forward,
    /// A dropped sender means that the service has ended.
    pub(super) phase: watch::Receiver<Phase>,
}

impl Protocol {
    /// Serves a connection until it ends.
    pub(super) async fn serve(mut self, accepted: Accepted) {
        let caller = accepted.caller();
        let opened = tokio::select! {
            opened = accepted.open() => opened,
            // Nothing has been asked on it.
            _ = self.phase.wait_for(|phase| *phase != Phase::Serving) => return,
        };
        let (stream, _permit) = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "a connection was gone before it was served"),
        };
        let Self { direct, forward, mut phase } = self;
        // One `Arc` for each connection: cores would contend for the count of a shared one.
        let calls = Arc::new(Calls { direct, forward, caller });
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            Answering::Asked(Some((Arc::clone(&calls), request)))
        });
        let gathered = Gathered::default();
        let connection = Builder::new(gathered.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
            .max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
            .keep_alive_interval(Some(KEEPALIVE_INTERVAL))
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            // gRPC answers need no `date`.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = AnsweredAtOnce::new(connection, gathered);
        let mut awaited = Phase::Draining;
        loop {
            tokio::select! {
                // Polled first, so that a connection that is always busy ends, too.
                biased;
                reached = reached(&mut phase, awaited) => match reached {
                    Phase::Draining => {
                        connection.connection().graceful_shutdown();
                        awaited = Phase::CutOff;
                    }
                    _ => return,
                },
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended");
                    }
                    return;
                }
            }
        }
    }
}

/// Waits until a phase is reached, and returns the phase that was, which may be a later one.
async fn reached(phase: &mut watch::Receiver<Phase>, awaited: Phase) -> Phase {
    phase.wait_for(|phase| *phase >= awaited).await.map_or(Phase::CutOff, |phase| *phase)
}

/// The calls of one connection.
struct Calls {
    direct: DirectCheck,
    forward: Forward,
    /// Their caller. A request gets a copy only when it leaves the direct way, because a copy costs three allocations.
    caller: Caller,
}

/// A call until it is answered.
#[expect(clippy::large_enum_variant, reason = "a box would cost each Check an allocation")]
enum Answering {
    /// Nothing has been done yet.
    Asked(Option<(Arc<Calls>, Request<Incoming>)>),
    Waiting(Pin<Box<dyn Future<Output = Response<ServedBody>> + Send>>),
}

impl Calls {
    fn begin(&self, request: Request<Incoming>) -> Progress<Incoming> {
        if DirectCheck::takes(&request) {
            self.direct.begin(request)
        } else {
            Progress::Unread(request.map(Unread::new))
        }
    }

    async fn answer_later(self: Arc<Self>, request: Request<Unread<Incoming>>) -> Response<ServedBody> {
        let mut request = if DirectCheck::takes(&request) {
            match self.direct.answer(request).await {
                Ok(response) => return response.map(ServedBody::Direct),
                Err(unread) => unread,
            }
        } else {
            request
        };
        self.caller.attach(request.extensions_mut());
        match Lane::of(request.uri().path()) {
            Lane::Connection => self.forward.call_here(request).await.map(ServedBody::Here),
            Lane::Administration => self.forward.call(request).await.map(ServedBody::Forwarded),
        }
    }
}

impl Future for Answering {
    type Output = Result<Response<ServedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Self::Asked(asked) = &mut *self {
            let Some((calls, request)) = asked.take() else { return Poll::Pending };
            match calls.begin(request) {
                Progress::Answered(response) => return Poll::Ready(Ok(response.map(ServedBody::Direct))),
                Progress::Waiting(check) => {
                    let answering = async move { calls.direct.answer_durable(check).await.map(ServedBody::Direct) };
                    *self = Self::Waiting(Box::pin(answering));
                    // It becomes a task (`at_once`), which polls it first: timer and waker are registered only there.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // Boxed, so that a Check does not carry the space of this rare state.
                Progress::Unread(request) => *self = Self::Waiting(Box::pin(calls.answer_later(request))),
            }
        }
        match &mut *self {
            Self::Asked(_) => Poll::Pending,
            Self::Waiting(answering) => answering.as_mut().poll(context).map(Ok),
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
enum ServedBody {
    Direct(AnswerBody),
    Here(tonic::body::Body),
    Forwarded(ForwardedBody),
}

impl Body for ServedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Direct(body) => Pin::new(body).poll_frame(context),
            Self::Here(body) => Pin::new(body).poll_frame(context),
            Self::Forwarded(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Direct(body) => body.is_end_stream(),
            Self::Here(body) => body.is_end_stream(),
            Self::Forwarded(body) => body.is_end_stream(),
        }
    }
}
