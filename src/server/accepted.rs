//! An accepted connection, until the core that it was given to opens it.
//!
//! Invariant: one that does not send its preface in time is given up.
//! Not here: accepting (`connections`), choosing the core (`cores`), what is spoken (`http2`).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;

use super::preface::{Prefaced, Stream};

/// How long the preface of a new connection may take. After it, HTTP/2's keep-alive finds connections that are gone.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection. Its permit is given back when it ends.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) socket: Socket,
    /// Where it comes from; none for a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// A socket that belongs to no runtime yet.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// Opens it on the current runtime. None where its preface does not come in time.
    pub(super) async fn open(self) -> io::Result<Option<(Prefaced, OwnedSemaphorePermit)>> {
        let socket = match self.socket {
            Socket::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Socket::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        };
        match tokio::time::timeout(PREFACE_TIMEOUT, Prefaced::wait(socket)).await {
            Ok(prefaced) => prefaced.map(|stream| Some((stream, self.permit))),
            Err(_) => Ok(None),
        }
    }
}
