//! Which calls are let in, and for how long: a limit on calls under way and a deadline for each.
//!
//! Invariant: a call that is not let in, or is not done in time, ends in an error, which clients take for a denial.
//! Calls beyond the limit are refused at once rather than kept waiting.
//! Not here: limits on connections and streams (`server`).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::sync::Semaphore;
use tonic::Code;
use tower::{Layer, Service};

use super::status;
use crate::proto::v1::ErrorReason;

/// tonic has a timer of its own for the client's deadline, whose error says CANCELLED and nothing more: ours is ahead of
/// it by more than the timers' resolution.
const TIMER_MARGIN: Duration = Duration::from_millis(3);

/// Limits calls under way and their time.
#[derive(Clone, Debug)]
pub struct AdmissionLayer {
    places: Arc<Semaphore>,
    timeout: Duration,
}

impl AdmissionLayer {
    /// At most `calls_max` at a time, each for at most `timeout`, or less where the client says so.
    pub fn new(calls_max: usize, timeout: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(calls_max.min(Semaphore::MAX_PERMITS))), timeout }
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission { inner, places: Arc::clone(&self.places), timeout: self.timeout }
    }
}

/// See [`AdmissionLayer`].
#[derive(Clone, Debug)]
pub struct Admission<S> {
    inner: S,
    places: Arc<Semaphore>,
    timeout: Duration,
}

impl<S, Q, B> Service<Request<Q>> for Admission<S>
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
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let message = "too many calls are under way: try again in a moment";
            let refusal = status::error(Code::Unavailable, ErrorReason::Overloaded, message);
            return Box::pin(async move { Ok(refusal.into_http()) });
        };
        let wanted = client_timeout(request.headers()).map(|wanted| wanted.saturating_sub(TIMER_MARGIN));
        let timeout = wanted.map_or(self.timeout, |wanted| wanted.min(self.timeout));
        let answer = tokio::time::timeout(timeout, self.inner.call(request));
        Box::pin(async move {
            let answer = answer.await;
            drop(place);
            answer.unwrap_or_else(|_| {
                let message =
                    "the call was not done in time: a change may still be carried out, so read before repeating it";
                Ok(status::error(Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, message).into_http())
            })
        })
    }
}

/// The time that the client allows: up to eight digits and a unit (gRPC over HTTP/2, `grpc-timeout`).
fn client_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
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
