//! Accepting connections: a bounded number of them, without delay on small answers, and without giving up when the
//! process runs out of file descriptors.
//!
//! Invariant: a failing accept never ends the service and never spins.
//! Not here: what is spoken on a connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long to rest when the process has no file descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long a new connection may say nothing: after its first bytes it is asked for signs of life, before it cannot be.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Where connections come from.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What bytes go over.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

impl Stream {
    /// Has small answers leave at once.
    fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }
}

/// A connection that gives its place back when it ends.
pub(super) struct Connection {
    stream: Stream,
    /// Done when a connection on which nothing has come is given up; none once something has.
    silence: Option<Pin<Box<Sleep>>>,
    /// Done when the connection is to be cut off.
    cut_off: Pin<Box<dyn Future<Output = ()> + Send>>,
    _place: OwnedSemaphorePermit,
}

/// File descriptors that connections leave to the journal, the database and the listener.
const DESCRIPTORS_RESERVED: u64 = 256;

/// Connections that the process has file descriptors for, once it may have as many as the system allows it: those of
/// clients must never be what the journal lacks.
pub(super) fn permitted(connections_max: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, wanted).is_ok() { limit.maximum } else { limit.current };
    let Some(current) = current else { return connections_max };
    let permitted = usize::try_from(current.saturating_sub(DESCRIPTORS_RESERVED).max(1)).unwrap_or(usize::MAX);
    if permitted < connections_max {
        tracing::warn!(connections_max, permitted, "fewer connections than configured: raise the limit on open files");
    }
    permitted.min(connections_max)
}

/// The connections of all listeners, at most `connections_max` at a time; more wait in the listeners' backlogs. All of
/// them end when `cut_off` says so or is gone, whatever is under way on them.
pub(super) fn accept(
    listeners: Vec<Listener>,
    connections_max: usize,
    cut_off: &watch::Receiver<bool>,
) -> ReceiverStream<Result<Connection, io::Error>> {
    let (sender, receiver) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    for listener in listeners {
        tokio::spawn(accept_from(listener, Arc::clone(&places), cut_off.clone(), sender.clone()));
    }
    ReceiverStream::new(receiver)
}

async fn accept_from(
    listener: Listener,
    places: Arc<Semaphore>,
    cut_off: watch::Receiver<bool>,
    sender: mpsc::Sender<Result<Connection, io::Error>>,
) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            },
            () = sender.closed() => return,
        };
        if let Err(error) = stream.set_nodelay() {
            tracing::debug!(%error, "a connection was gone before it was served");
            continue;
        }
        let silence = Some(Box::pin(tokio::time::sleep(SILENCE_MAX)));
        let mut cut_off = cut_off.clone();
        let cut_off = Box::pin(async move { drop(cut_off.wait_for(|cut_off| *cut_off).await) });
        if sender.send(Ok(Connection { stream, silence, cut_off, _place: place })).await.is_err() {
            return;
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match &self.stream {
            Stream::Tcp(stream) => stream.connect_info(),
            Stream::Unix(_) => TcpConnectInfo { local_addr: None, remote_addr: None },
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Whoever serves a connection always waits for its next bytes, so this is noticed at once.
        if self.cut_off.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let read = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if read.is_ready() {
            self.silence = None;
        } else if let Some(silence) = &mut self.silence
            && silence.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
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
