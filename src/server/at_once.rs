//! Calls answered within the turn of their connection.
//!
//! What a connection has read is answered before it writes again: calls are gathered while it reads, tried when it has
//! nothing more to read, and all their answers leave in one write. Only a call that has to wait for something becomes a
//! task of its own.
//!
//! Invariant: a call that panics ends alone; its connection goes on.
//! Not here: what the calls are (`http2`).

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use hyper::rt::Executor;

use crate::locks::IgnorePoison;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a connection puts its calls.
#[derive(Clone, Default)]
pub(super) struct Gathered(Arc<Mutex<Vec<Call>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Gathered {
    fn execute(&self, call: F) {
        self.lock().push(Box::pin(call));
    }
}

impl Gathered {
    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.lock().ignore_poison()
    }

    /// Tries all calls once.
    fn try_all(&self) {
        let mut calls = std::mem::take(&mut *self.lock());
        for mut call in calls.drain(..) {
            // As a task it is polled again at once, with a waker that counts.
            let mut context = Context::from_waker(Waker::noop());
            match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut context))) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => drop(tokio::spawn(call)),
                Err(_) => tracing::error!("a call ended by a panic"),
            }
        }
        let mut now = self.lock();
        if now.is_empty() {
            // The room serves again.
            *now = calls;
        }
    }
}

/// A connection that answers its calls when it has read all there is.
pub(super) struct AnsweredAtOnce<C> {
    connection: Pin<Box<C>>,
    calls: Gathered,
}

impl<C> AnsweredAtOnce<C> {
    pub(super) fn new(connection: C, calls: Gathered) -> Self {
        Self { connection: Box::pin(connection), calls }
    }

    pub(super) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C> Drop for AnsweredAtOnce<C> {
    /// Calls know where they were put, and would keep it and one another.
    fn drop(&mut self) {
        let calls = std::mem::take(&mut *self.calls.lock());
        drop(calls);
    }
}

impl<C: Future> Future for AnsweredAtOnce<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let ended = self.connection.as_mut().poll(context);
        // An answer wakes the connection, which then writes.
        self.calls.try_all();
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_panics_ends_alone_and_one_that_waits_becomes_a_task() {
        let calls = Gathered::default();
        let (answered, answer) = tokio::sync::oneshot::channel();
        let (wake, woken) = tokio::sync::oneshot::channel::<()>();
        calls.execute(async { panic!("as in a test") });
        calls.execute(async move {
            woken.await.unwrap();
            answered.send(7).unwrap();
        });
        let connection = AnsweredAtOnce::new(std::future::ready("connection"), calls.clone());
        assert_eq!(connection.await, "connection");
        assert!(calls.lock().is_empty());
        wake.send(()).unwrap();
        assert_eq!(answer.await.unwrap(), 7);
    }
}
