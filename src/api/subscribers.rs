//! Subscribers, whose streams last until the client goes away: their number, and their end when the service drains.
//!
//! Invariant: no more streams than configured; each is told when the service drains. No stream of theirs ends with OK.
//! Not here: what is streamed (`audit::watch`, `shadow`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tonic::{Code, Status};

use super::status;
use crate::proto::v1::ErrorReason;

/// The limit on subscribers.
#[derive(Debug)]
pub(super) struct Subscribers {
    permits: Arc<Semaphore>,
    max: usize,
    draining: watch::Receiver<bool>,
}

impl Subscribers {
    /// At most `max` at a time, until `draining` says so.
    pub(super) fn new(max: usize, draining: watch::Receiver<bool>) -> Self {
        Self { permits: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))), max, draining }
    }

    /// Admits one more, for as long as the permit is held.
    pub(super) fn subscribe(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            let message = format!("there are {} subscribers already: try again later", self.max);
            status::error(Code::ResourceExhausted, ErrorReason::LimitReached, message)
        })
    }

    /// Becomes true when the service drains.
    pub(super) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.clone()
    }
}

/// A stream that has no end: what feeds it says why it cannot go on. Where that ends without a word, as by a panic, the
/// stream ends with an error too, because a caller takes OK for "this is all".
pub struct Endless<T> {
    messages: mpsc::Receiver<Result<T, Status>>,
    failed: bool,
}

impl<T> Endless<T> {
    /// The messages that come through a channel.
    pub(super) fn new(messages: mpsc::Receiver<Result<T, Status>>) -> Self {
        Self { messages, failed: false }
    }
}

impl<T> Stream for Endless<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.messages.poll_recv(context));
        let next = match next {
            None if !self.failed => Some(Err(status::no_end())),
            next => next,
        };
        self.failed |= matches!(next, Some(Err(_)));
        Poll::Ready(next)
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_feed_that_dies_without_a_word_ends_its_stream_with_an_error() {
        let (sender, messages) = mpsc::channel(2);
        let mut stream = Endless::new(messages);
        sender.send(Ok(1)).await.unwrap();
        drop(sender);
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Internal);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn the_error_of_a_feed_is_the_last_of_its_stream() {
        let (sender, messages) = mpsc::channel::<Result<u8, Status>>(2);
        let mut stream = Endless::new(messages);
        sender.send(Err(status::starting())).await.unwrap();
        drop(sender);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        assert!(stream.next().await.is_none());
    }
}
