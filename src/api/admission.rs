//! Admission of calls: a limit on calls under way and a deadline for each.
//!
//! Invariant: a call that is refused, or is not done in time, ends with an error, which clients treat as a denial. Calls
//! beyond the limit are refused, never queued.
//! Not here: limits on connections and streams (`server`).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, Response};
use tokio::time::Instant;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::status;
use crate::proto::v1::ErrorReason;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// See the module.
#[derive(Clone, Debug)]
pub struct Admission {
    under_way: Arc<AtomicUsize>,
    calls_max: usize,
    timeout: Duration,
}

/// Counts a call as under way until it is dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// Admits at most `calls_max` calls at a time, each for at most `timeout`, or less if the client says so.
    pub fn new(calls_max: usize, timeout: Duration) -> Self {
        Self { under_way: Arc::default(), calls_max, timeout }
    }

    /// Counts a call as under way, unless there are too many.
    pub(super) fn enter(&self) -> Result<Permit, Status> {
        // Dropping the permit uncounts a call that is one too many.
        let permit = Permit(Arc::clone(&self.under_way));
        if self.under_way.fetch_add(1, Ordering::Relaxed) < self.calls_max { Ok(permit) } else { Err(overloaded()) }
    }

    /// Admits a call without counting it. For a call that never waits: no other can begin on its thread meanwhile.
    pub(super) fn pass(&self) -> Result<(), Status> {
        if self.under_way.load(Ordering::Relaxed) < self.calls_max { Ok(()) } else { Err(overloaded()) }
    }

    /// How long a call may take from now on. A call that `direct` handed on has the `Instant` of its start in its
    /// extensions.
    pub(super) fn timeout<B>(&self, request: &Request<B>) -> Duration {
        let timeout = client_timeout(request.headers()).map_or(self.timeout, |wanted| wanted.min(self.timeout));
        let elapsed = request.extensions().get().map(Instant::elapsed).unwrap_or_default();
        timeout.saturating_sub(elapsed)
    }
}

fn overloaded() -> Status {
    let message = "too many calls are under way: try again in a moment";
    status::error(Code::Unavailable, ErrorReason::Overloaded, message)
}

/// The error of a call that took too long.
pub(super) fn too_late() -> Status {
    let message = "the call was not done in time: a change may still be carried out, so read before repeating it";
    status::error(Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, message)
}

impl<S> Layer<S> for Admission {
    type Service = Admitting<S>;

    fn layer(&self, inner: S) -> Admitting<S> {
        Admitting { inner, admission: self.clone() }
    }
}

/// A service behind an [`Admission`].
#[derive(Clone, Debug)]
pub struct Admitting<S> {
    inner: S,
    admission: Admission,
}

impl<S, Q, B> Service<Request<Q>> for Admitting<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: Default + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let admission = self.admission.clone();
        let timeout = admission.timeout(&request);
        // A future does nothing before it is polled, and it is polled only with a permit.
        let answer = self.inner.call(request);
        Box::pin(async move {
            let _permit = match admission.enter() {
                Ok(permit) => permit,
                Err(refusal) => return Ok(refusal.into_http()),
            };
            tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| Ok(too_late().into_http()))
        })
    }
}

/// The time that the client allows: up to eight digits and a unit (gRPC over HTTP/2, `grpc-timeout`).
fn client_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}
