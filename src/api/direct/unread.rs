//! A request's body that was read ahead.
//!
//! Invariant: a reader gets the whole body, as if nothing had been read before.
//! Not here: what the bytes mean (`wire`).

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame};
use prost::bytes::Bytes;

/// A message's flag and length before it (gRPC over HTTP/2).
pub(super) const PREFIX_BYTES: usize = 5;

/// See the module.
pub struct Unread<B: Body> {
    /// The data that came first.
    bytes: Bytes,
    /// The frame after it that is not data, or the error.
    next: Option<Result<Frame<Bytes>, B::Error>>,
    body: B,
}

impl<B: Body<Data = Bytes> + Unpin> Unread<B> {
    /// A body of which nothing has been read.
    pub fn new(body: B) -> Self {
        Self { bytes: Bytes::new(), next: None, body }
    }

    /// Reads ahead, to the end or until the body cannot be a single message that is at most `message_bytes_max` long and
    /// that `reads` accepts.
    pub(super) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        message_bytes_max: usize,
        reads: impl Fn(&[u8]) -> bool,
    ) -> Poll<()> {
        while self.next.is_none() && !self.body.is_end_stream() && self.may_become_one(message_bytes_max) {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                // The service behind refuses such a message before the body's end, so do not wait for the end.
                let is_certain = self.framed().is_some_and(|message| !reads(message));
                return if is_certain { Poll::Ready(()) } else { Poll::Pending };
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => break,
                Some(Ok(Ok(data))) if self.bytes.is_empty() => self.bytes = data,
                Some(Ok(Ok(data))) => self.bytes = [&self.bytes[..], &data].concat().into(),
                Some(Ok(Err(other))) => self.next = Some(Ok(other)),
                Some(Err(error)) => self.next = Some(Err(error)),
            }
        }
        Poll::Ready(())
    }

    /// The message, if the body is exactly one uncompressed message of at most `message_bytes_max`.
    pub(super) fn message(&self, message_bytes_max: usize) -> Option<&[u8]> {
        self.framed().filter(|message| self.next.is_none() && message.len() <= message_bytes_max)
    }

    fn framed(&self) -> Option<&[u8]> {
        let ([flag, length @ ..], message) = self.bytes.split_first_chunk::<PREFIX_BYTES>()?;
        (*flag == 0 && message.len() == u32::from_be_bytes(*length) as usize).then_some(message)
    }

    /// Whether the body may still become such a message. One that cannot is not buffered any further.
    fn may_become_one(&self, message_bytes_max: usize) -> bool {
        let Some(([flag, length @ ..], message)) = self.bytes.split_first_chunk::<PREFIX_BYTES>() else { return true };
        let length = u32::from_be_bytes(*length) as usize;
        *flag == 0 && length <= message_bytes_max && message.len() <= length
    }
}

impl<B: Body<Data = Bytes, Error: Unpin> + Unpin> Body for Unread<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
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
