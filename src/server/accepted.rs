//! An accepted connection, which goes from its listener to the core that serves it.
//!
//! Invariant: a connection holds its permit until it ends, so that there are never more than are permitted.
//! Not here: accepting (`connections`), what is spoken on it (`http2`).

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;

use super::preface::{Prefaced, Stream};
use crate::api::caller::{Caller, Connection};

/// How long the preface of a new connection may take. After it, HTTP/2's keep-alive finds connections that are gone.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) socket: Socket,
    pub(super) connection: Connection,
    /// Counts it among the connections.
    pub(super) permit: OwnedSemaphorePermit,
}

/// A socket that belongs to no runtime yet.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// The caller of the connection.
    pub(super) fn caller(&self) -> Caller {
        Caller::connected(self.connection)
    }

    /// Opens it on the current runtime. `None` if its preface does not come in time.
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
