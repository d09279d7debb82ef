//! The composition root: which adapters stand behind which ports, and how the service starts, serves and ends.
//!
//! Invariant: it says it is serving only while it decides by the recovered policy and can make changes durable. When it
//! ends, everything acknowledged is durable.
//! Not here: what it serves (`api`), and how a process is told to end (`cli::serve`).

mod accepted;
mod at_once;
mod audit_key;
mod connections;
mod cores;
mod forward;
mod health;
mod http2;
mod open;
mod preface;
mod restore;
mod services;
mod unix;
mod verify;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::Api;
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::clock::Clock;

pub use open::{open, open_on};
pub use restore::{ReceivedBackup, Restored, WholeBackup, restore};
pub use verify::verify_audit;

use connections::{Acceptor, Listener};
use forward::Forward;
use health::Health;
use http2::{Phase, Protocol};
use services::Services;

/// How long connections that are closed early may take to end.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until `shutdown`, then drains and returns. Returns early only where the service cannot start.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    run_at(config, listener, shutdown, Clock::system()).await
}

/// The same with another clock for decisions and changes than the operating system's. Timeouts are not affected.
pub async fn run_at(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
    clock: Clock,
) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the listener has no address")?;
    let (drain, draining) = watch::channel(false);
    let api = Api::new(config.limits, config.record.subscribers_max, draining.clone());
    let (health, health_service) = Health::new().await;
    let mut listeners = vec![Listener::Tcp(listener)];
    let unix = config.listen_unix.as_deref().map(unix::bind).transpose()?;
    // Kept until the end, when its file is removed.
    let _socket_file = unix.map(|(listener, file)| {
        listeners.push(Listener::Unix(listener));
        file
    });
    let Services { direct, routes } = Services::new(&config, &api, health_service)?;
    // Connections also end where this future is dropped, and the sender with it.
    let (phase, followed) = watch::channel(Phase::Serving);
    let forward = Forward { routes, runtime: tokio::runtime::Handle::current() };
    let protocol = Protocol { direct, forward, phase: followed };
    let acceptor = Acceptor::start(listeners, connections::permitted(config.connections_max), &protocol)
        .context("starting the threads that answer checks")?;

    let opened = config.clone();
    let mut shutdown = std::pin::pin!(shutdown);
    let opening = tokio::task::spawn_blocking(move || open::open_at(&opened, clock));
    let engine = tokio::select! {
        engine = opening => engine,
        // Nothing is acknowledged yet, so nothing has to be waited for.
        () = &mut shutdown => {
            tracing::info!("told to stop before serving");
            return Ok(());
        }
    };
    let engine = match engine.context("opening the data directory")? {
        Ok(engine) => Arc::new(engine),
        Err(error) => return Err(error),
    };
    api.start(Arc::clone(&engine));
    health.follow(&engine).await;
    log_start(&config, address);

    shutdown.await;
    health.stop().await;
    tracing::info!("draining");
    drain.send_replace(true);
    end_connections(acceptor.stop(), &phase, config.drain_timeout).await;
    close(engine).await;
    Ok(())
}

/// What serves from now on, where, and what it holds itself to.
fn log_start(config: &Config, address: SocketAddr) {
    tracing::info!(
        version = env!("PORTCULLIS_VERSION"),
        %address,
        unix_socket = config.listen_unix.as_ref().map(|path| path.display().to_string()),
        data_dir = %config.data_dir.display(),
        audit_shell = %config.record.audit_shell,
        audit_preview = %config.record.audit_preview,
        on_audit_failure = %config.record.on_audit_failure,
        "serving gRPC"
    );
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %address,
            "there is neither TLS nor authentication (`--insecure`): everybody who reaches this address can read and \
             change every policy"
        );
    }
}

/// Returns when every connection has ended. Calls that take longer than `timeout` are aborted.
async fn end_connections(
    ended: impl Future<Output = ()> + Send + 'static,
    phase: &watch::Sender<Phase>,
    timeout: Duration,
) {
    phase.send_replace(Phase::Draining);
    let mut ended = Box::pin(ended);
    if tokio::time::timeout(timeout, ended.as_mut()).await.is_err() {
        tracing::warn!(?timeout, "some calls did not end in time and are aborted");
        phase.send_replace(Phase::CutOff);
        drop(tokio::time::timeout(CUT_OFF_TIMEOUT, ended.as_mut()).await);
    }
    // Dropping it ends the threads that answer Checks: nothing may be decided while the engine closes.
    if let Err(error) = tokio::task::spawn_blocking(move || drop(ended)).await {
        tracing::error!(%error, "the threads that answer checks did not end cleanly");
    }
}

/// Waits until everything acknowledged is durable.
async fn close(engine: Arc<Engine>) {
    if let Err(error) = tokio::task::spawn_blocking(move || engine.close()).await {
        tracing::error!(%error, "the engine did not close");
    }
    tracing::info!("stopped");
}
