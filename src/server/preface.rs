//! The connection preface: HTTP/2 begins with 24 bytes that are always the same (RFC 9113 §3.4).
//!
//! A deadline bounds the wait for it; afterwards HTTP/2's keep-alive finds clients that have gone.
//!
//! Invariant: the reader gets every byte from the first on.
//! Not here: how long to wait (`accepted`), where connections come from (`connections`).

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The transport of a connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection whose first bytes have come.
#[derive(Debug)]
pub(super) struct Prefaced {
    stream: Stream,
    first: [u8; PREFACE.len()],
    /// How many of them have come, and how many of these were read.
    come: usize,
    given: usize,
}

impl Prefaced {
    /// Waits for the preface, or for bytes that are none, which hyper refuses.
    pub(super) async fn wait(stream: Stream) -> io::Result<Self> {
        let mut prefaced = Self { stream, first: [0; PREFACE.len()], come: 0, given: 0 };
        while PREFACE.starts_with(prefaced.rest())
            && let Some(room @ [_, ..]) = prefaced.first.get_mut(prefaced.come..)
        {
            let come = prefaced.stream.read(room).await?;
            if come == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            prefaced.come += come;
        }
        Ok(prefaced)
    }

    /// The bytes that have come and were not read.
    fn rest(&self) -> &[u8] {
        self.first.get(self.given..self.come).unwrap_or_default()
    }
}

impl AsyncRead for Prefaced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.given == self.come {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let rest = self.rest();
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..count).unwrap_or_default());
        self.given += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefaced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_preface_may_come_in_pieces_and_is_read_with_all_that_follows_it() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let sent = [PREFACE, &b"and more"[..]].concat();
        let sending = sent.clone();
        tokio::spawn(async move {
            for byte in sending {
                client.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut prefaced = Prefaced::wait(Stream::Unix(server)).await.unwrap();
        let mut read = Vec::new();
        prefaced.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, sent);
    }

    #[tokio::test]
    async fn what_is_no_preface_is_not_waited_for_any_longer() {
        for first in ["GET", "PRI * HTTP/1", "PRJ"] {
            let (mut client, server) = UnixStream::pair().unwrap();
            client.write_all(first.as_bytes()).await.unwrap();
            let mut prefaced = Prefaced::wait(Stream::Unix(server)).await.unwrap();
            drop(client);
            let mut read = String::new();
            prefaced.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, first);
        }
    }
}
