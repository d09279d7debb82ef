//! Accepting connections: a bounded number of them, with `TCP_NODELAY`, even after the process ran out of file descriptors.
//!
//! Invariant: a failing accept never ends the service and never spins. Each connection goes to the core that has the
//! fewest.
//! Not here: opening a connection (`accepted`), what is spoken on it (`http2`), what runs it (`cores`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::accepted::{Accepted, Socket};
use super::cores::Cores;
use super::http2::Protocol;
use crate::api::caller::Connection;
use crate::lifeline::{Failure, Lifeline};

/// The pause after a failed accept, such as without a free file descriptor.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// The next connection.
    async fn accept(&self) -> io::Result<(Socket, Connection)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Small answers are sent without delay.
                stream.set_nodelay(true)?;
                Ok((Socket::Tcp(stream.into_std()?), Connection::Tcp(peer)))
            }
            Self::Unix(listener) => Ok((Socket::Unix(listener.accept().await?.0.into_std()?), Connection::Unix)),
        }
    }
}

/// File descriptors that connections leave to the journal, the database and the listener.
const DESCRIPTORS_RESERVED: u64 = 256;

/// Raises the limit on open files as far as the system allows, and returns the connections that it leaves room for. So
/// clients never take the descriptors that the journal needs.
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

/// Accepts connections. When it is dropped, all connections end.
#[derive(Debug)]
pub(super) struct Acceptor {
    accepting: JoinSet<()>,
    cores: Arc<Cores>,
    permits: Arc<Semaphore>,
    permits_max: u32,
}

impl Acceptor {
    /// Begins to accept from all listeners, at most `connections_max` connections at a time.
    pub(super) fn start(
        listeners: Vec<Listener>,
        connections_max: usize,
        protocol: &Protocol,
        failure: &Arc<Failure>,
    ) -> io::Result<Self> {
        let permits_max = u32::try_from(connections_max.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let permits = Arc::new(Semaphore::new(permits_max as usize));
        let cores = Arc::new(Cores::start(protocol, failure)?);
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let lifeline = Lifeline::new("a listener", failure);
            let accept = accept_from(listener, Arc::clone(&permits), Arc::clone(&cores));
            accepting.spawn(async move {
                let accept = std::pin::pin!(accept);
                // Declared after it, so dropped before it.
                let _lifeline = lifeline;
                accept.await;
            });
        }
        Ok(Self { accepting, cores, permits, permits_max })
    }

    /// Accepts no more. The future waits until every connection has ended; dropping it ends them.
    pub(super) fn stop(mut self) -> impl Future<Output = ()> {
        self.accepting.abort_all();
        async move {
            while self.accepting.join_next().await.is_some() {}
            // Each connection holds one permit.
            drop(self.permits.acquire_many(self.permits_max).await);
            drop(self.cores);
        }
    }
}

/// Accepts for as long as it is polled. Without a permit left, connections wait in the listener's backlog.
async fn accept_from(listener: Listener, permits: Arc<Semaphore>, cores: Arc<Cores>) {
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, connection)) => cores.give(Accepted { socket, connection, permit }),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection: it is tried again");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
            }
        }
    }
}
