//! Calls answered within one poll of their connection.
//!
//! A connection gathers calls while it reads. When there is nothing more to read, each call is polled once, and one write
//! sends all answers. Only a call that has to wait becomes a task of its own.
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

    /// Polls all calls once; those that wait become tasks.
    fn poll_all(&self) {
        let mut calls = std::mem::take(&mut *self.lock());
        for mut call in calls.drain(..) {
            // No waker is needed: a call that becomes a task is polled again there, with the waker of the task.
            let mut context = Context::from_waker(Waker::noop());
            match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut context))) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => drop(tokio::spawn(call)),
                Err(_) => tracing::error!("a call ended by a panic"),
            }
        }
        let mut now = self.lock();
        if now.is_empty() {
            // Its memory is reused.
            *now = calls;
        }
    }
}

/// A connection that polls its calls once it has read all available bytes.
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
    /// Each call holds the list that it is in. Without this they would keep each other alive.
    fn drop(&mut self) {
        let calls = std::mem::take(&mut *self.calls.lock());
        drop(calls);
    }
}

impl<C: Future> Future for AnsweredAtOnce<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let ended = self.connection.as_mut().poll(context);
        // An answer wakes the connection, which then writes it.
        self.calls.poll_all();
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
