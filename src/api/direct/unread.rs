//! A request's body that was read ahead.
//!
//! Invariant: whoever reads it gets all of the body, as if nothing had been read before.
//! Not here: what the bytes mean (`wire`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame};
use prost::bytes::{Bytes, BytesMut};

/// A message's flag and length before it (gRPC over HTTP/2).
pub(super) const PREFIX_BYTES: usize = 5;

/// See the module.
pub struct Unread<B: Body> {
    /// What came first, mostly all there is.
    bytes: Bytes,
    /// What came after it, while more is to come.
    others: BytesMut,
    /// What came then, and is no data.
    next: Option<Result<Frame<Bytes>, B::Error>>,
    body: B,
}

impl<B: Body<Data = Bytes> + Unpin> Unread<B> {
    /// One of which nothing has been read.
    pub fn new(body: B) -> Self {
        Self { bytes: Bytes::new(), others: BytesMut::new(), next: None, body }
    }

    /// Reads ahead: to the end, to what is no data, or until there are more than `bytes_max`.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>, bytes_max: usize) -> Poll<()> {
        while self.next.is_none()
            && !self.body.is_end_stream()
            && self.bytes.len() + self.others.len() <= bytes_max
            && let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context))
        {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) if self.bytes.is_empty() => self.bytes = data,
                Ok(Ok(data)) => self.others.extend_from_slice(&data),
                Ok(Err(other)) => self.next = Some(Ok(other)),
                Err(error) => self.next = Some(Err(error)),
            }
        }
        if !self.others.is_empty() {
            self.bytes = [&self.bytes[..], &std::mem::take(&mut self.others)].concat().into();
        }
        Poll::Ready(())
    }

    /// The message, where all that was read is exactly one that is not compressed and has no more than `bytes_max` with
    /// its prefix.
    pub(super) fn message(&self, bytes_max: usize) -> Option<&[u8]> {
        if self.next.is_some() || self.bytes.len() > bytes_max {
            return None;
        }
        let ([flag, length @ ..], message) = self.bytes.split_first_chunk::<PREFIX_BYTES>()?;
        (*flag == 0 && message.len() == u32::from_be_bytes(*length) as usize).then_some(message)
    }
}

impl<B: Body<Data = Bytes, Error: Unpin> + Unpin> Body for Unread<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))));
        }
        if !self.others.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.others.split().freeze()))));
        }
        match self.next.take() {
            Some(next) => Poll::Ready(Some(next)),
            None => Pin::new(&mut self.body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.others.is_empty() && self.next.is_none() && self.body.is_end_stream()
    }
}
