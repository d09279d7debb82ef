//! `StreamCheck`: Checks one after the other on one stream (design.md §3.2).
//!
//! tonic serves the stream. Its messages are read and written in place as those of single Checks are (`direct::wire`); only
//! an unusual request is decoded into the generated message.
//!
//! Invariant: answers and their records have the order of the requests. A malformed request is answered with an error, and
//! the stream goes on; bytes that do not decode end it. A Check that was not answered leaves no session open.
//! Not here: batches (`batch`), deciding (`engine::check`).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes};
use tokio::sync::watch;
use tokio::task::coop::{poll_proceed, unconstrained};
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Status, Streaming};
use tower::Service;

use super::decision::{Asked, question};
use super::direct::wire;
use super::methods::STREAM_CHECK;
use super::{ANSWER_BYTES_MAX, Api, Refusals, status, transport};
use crate::engine::Engine;
use crate::engine::audit::AuditError;
use crate::engine::check::Room;
use crate::engine::outcome::{Outcome, Unsent, Waiting};
use crate::engine::question::{CheckError, Question};
use crate::proto::v1::{CheckRequest, CheckResponse};

/// Checks that may be decided and not answered yet. They can share one sync.
const AHEAD_MAX: usize = 256;

/// A future of the stream's own.
type Held<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves `StreamCheck`; every other call is for the service behind.
#[derive(Clone)]
pub struct StreamChecks<S> {
    inner: S,
    api: Api,
    request_bytes_max: usize,
}

impl<S> StreamChecks<S> {
    /// Before `inner`.
    pub fn before(inner: S, api: Api, request_bytes_max: usize) -> Self {
        Self { inner, api, request_bytes_max }
    }
}

impl<S: NamedService> NamedService for StreamChecks<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for StreamChecks<S>
where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = Held<Result<Response<Body>, Infallible>>,
        >,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != STREAM_CHECK {
            return self.inner.call(request);
        }
        let mut grpc =
            Grpc::new(Plain).apply_max_message_size_config(Some(self.request_bytes_max), Some(ANSWER_BYTES_MAX));
        let api = self.api.clone();
        Box::pin(async move { Ok(grpc.streaming(Opening(api), request).await) })
    }
}

/// Messages as their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining())))
    }
}

/// Opens a stream.
struct Opening(Api);

impl StreamingService<Bytes> for Opening {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<tonic::Response<Answers>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let Self(api) = self;
        std::future::ready(api.engine().map(|engine| {
            let draining = api.shared.subscribers.draining();
            let mut watched = draining.clone();
            // Unconstrained: it must be polled even when the task has used up its budget.
            let ended = unconstrained(async move { drop(watched.wait_for(|draining| *draining).await) });
            tonic::Response::new(Answers {
                engine: Arc::clone(engine),
                refusals: Arc::clone(&api.refusals),
                requests: Some(request.into_inner()),
                delayed: None,
                pending: VecDeque::new(),
                ended: Some(Box::pin(ended)),
                draining,
            })
        }))
    }
}

/// The answers of a stream.
struct Answers {
    engine: Arc<Engine>,
    refusals: Arc<Refusals>,
    /// None once all have come.
    requests: Option<Streaming<Bytes>>,
    /// A Check that waits for room for its record. The next is decided after it.
    delayed: Option<Held<Pending>>,
    pending: VecDeque<Pending>,
    /// Ends when the service drains; none once the stream has ended.
    ended: Option<Held<()>>,
    /// Changes when the service drains.
    draining: watch::Receiver<bool>,
}

/// An answer that was not sent yet.
enum Pending {
    /// An answer that opened no session, or that is sent next.
    Ready(Bytes),
    /// An answer that waits only for those before it.
    Unsent(Unsent<Arc<Engine>>, Bytes),
    /// An answer that waits for the sync of its record.
    Waiting(Held<Result<Bytes, Status>>),
    /// A Check that is refused.
    Refused(Status),
}

impl Stream for Answers {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Checked at each answer, because a stream with enough requests never pauses.
        if self.draining.has_changed().unwrap_or(true) {
            return self.poll_ended(context);
        }
        // Cooperative yielding: without this a stream with enough requests would keep the thread from other tasks.
        let Poll::Ready(turn) = poll_proceed(context) else { return self.poll_ended(context) };
        let answer = match self.poll_answer(context) {
            Poll::Ready(answer) => answer,
            Poll::Pending => return self.poll_ended(context),
        };
        turn.made_progress();
        Poll::Ready(match answer {
            Some(Err(status)) => Some(Err(self.end(status))),
            answer => answer,
        })
    }
}

impl Answers {
    /// Called wherever no answer is ready, so that draining ends every kind of wait.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let Some(ended) = &mut self.ended else { return Poll::Ready(None) };
        ready!(ended.as_mut().poll(context));
        Poll::Ready(Some(Err(self.end(status::audit(AuditError::ShuttingDown)))))
    }

    /// Drops the open answers now: the client may take its time to read the status.
    fn end(&mut self, status: Status) -> Status {
        (self.requests, self.delayed, self.ended) = (None, None, None);
        self.pending.clear();
        status
    }

    /// The next answer. While the first one waits for its sync, further Checks are decided.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            if let Some(first) = self.pending.front_mut() {
                if let Poll::Ready(answer) = first.poll(context) {
                    let answer = answer.unwrap_or_else(|status| {
                        self.refusals.note(STREAM_CHECK, &status);
                        refusal(&status)
                    });
                    if let Some(Pending::Unsent(unsent, _)) = self.pending.pop_front() {
                        unsent.leave();
                    }
                    return Poll::Ready(Some(Ok(answer)));
                }
                if self.pending.len() == AHEAD_MAX {
                    return Poll::Pending;
                }
            }
            match ready!(self.poll_decided(context)) {
                Some(Ok(Pending::Ready(answer))) if self.pending.is_empty() => return Poll::Ready(Some(Ok(answer))),
                Some(Ok(pending)) => self.pending.push_back(pending),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None if self.pending.is_empty() => return Poll::Ready(None),
                None => return Poll::Pending,
            }
        }
    }

    /// The next Check, decided; none once all have come.
    fn poll_decided(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Pending, Status>>> {
        if self.delayed.is_none() {
            let Some(requests) = &mut self.requests else { return Poll::Ready(None) };
            let Some(message) = ready!(Pin::new(requests).poll_next(context)) else {
                self.requests = None;
                return Poll::Ready(None);
            };
            let behind = !self.pending.is_empty();
            match message.and_then(|message| Ok((decide(&self.engine, &message, behind)?, message))) {
                Ok((Some(decided), _)) => return Poll::Ready(Some(Ok(decided))),
                Ok((None, message)) => self.delayed = Some(Box::pin(decide_later(Arc::clone(&self.engine), message))),
                Err(status) => return Poll::Ready(Some(Err(transport::explained(status)))),
            }
        }
        let Some(delayed) = &mut self.delayed else { return Poll::Ready(None) };
        let decided = ready!(delayed.as_mut().poll(context));
        self.delayed = None;
        Poll::Ready(Some(Ok(decided)))
    }
}

impl Pending {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        match self {
            Self::Ready(answer) | Self::Unsent(_, answer) => Poll::Ready(Ok(std::mem::take(answer))),
            Self::Waiting(answer) => answer.as_mut().poll(context),
            Self::Refused(status) => Poll::Ready(Err(status.clone())),
        }
    }

    /// Decides; `behind` says that other answers are sent before this one.
    fn of(room: Result<Room, CheckError>, question: &Question<'_>, engine: &Arc<Engine>, behind: bool) -> Self {
        let written = |answer| wire::written(0, answer, &question.target).freeze();
        match room.and_then(|room| engine.admit(room, question)) {
            Ok(Outcome::Waiting(waiting)) => {
                let answer = written(waiting.answer());
                Self::Waiting(Box::pin(wait(waiting.holding(Arc::clone(engine)), answer, Instant::now())))
            }
            Ok(Outcome::Ready(unsent)) => {
                let answer = written(unsent.answer());
                if behind {
                    return Self::Unsent(unsent.holding(Arc::clone(engine)), answer);
                }
                unsent.leave();
                Self::Ready(answer)
            }
            Err(error) => Self::Refused(status::check(error)),
        }
    }
}

/// Decides the request in a message, if the queue has room for the record; none where it is full. An error where the
/// message does not decode.
fn decide(engine: &Arc<Engine>, message: &[u8], behind: bool) -> Result<Option<Pending>, Status> {
    let mut decoded = CheckRequest::default();
    Ok(match question(read(message, &mut decoded)?) {
        Ok(question) => engine.room_now().map(|room| Pending::of(room, &question, engine, behind)),
        Err(status) => Some(Pending::Refused(status)),
    })
}

/// Waits for room for the record, then decides the request in a message.
async fn decide_later(engine: Arc<Engine>, message: Bytes) -> Pending {
    let mut decoded = CheckRequest::default();
    match read(&message, &mut decoded).and_then(question) {
        Ok(question) => Pending::of(engine.room().await, &question, &engine, true),
        Err(status) => Pending::Refused(status),
    }
}

/// A stream whose client does not read is not polled when woken, so it waits apart from the groups.
async fn wait(waiting: Waiting<Arc<Engine>>, answer: Bytes, since: Instant) -> Result<Bytes, Status> {
    let unsent = waiting.durable_apart(since).await.map_err(status::check)?;
    unsent.leave();
    Ok(answer)
}

/// The request that a message is. One that cannot be read in place is decoded into `decoded`.
fn read<'a>(message: &'a [u8], decoded: &'a mut CheckRequest) -> Result<Asked<'a>, Status> {
    if let Some(asked) = wire::read(message) {
        return Ok(asked);
    }
    *decoded = CheckRequest::decode(message).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Asked::from(&*decoded))
}

/// An answer that is an error.
fn refusal(status: &Status) -> Bytes {
    CheckResponse { error: Some(to_error(status)), ..CheckResponse::default() }.encode_to_vec().into()
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
