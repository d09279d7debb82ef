//! The composition root: which adapters stand behind which ports, and how the service starts, serves and ends.
//!
//! Invariant: it says it is serving only while it decides by the recovered policy and can make changes durable. When it
//! ends, everything acknowledged is durable.
//! Not here: what it serves (`api`), its end (`ending`), and how a process is told to end (`cli::signals`).

mod accepted;
mod at_once;
mod audit_key;
mod connections;
mod cores;
mod ending;
mod forward;
mod health;
mod http2;
mod open;
mod preface;
mod presence;
mod reports;
mod restore;
mod services;
mod unix;
mod verify;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::clock::Clock;
use crate::lifeline::{Failure, Lifeline};
use crate::store::disk::Disk;
use crate::store::presence::Presence;

pub use open::{open, open_on};
pub use restore::{ReceivedBackup, Restored, WholeBackup, rehearse, restore};
pub use verify::verify_audit;

use connections::{Acceptor, Listener};
use ending::{END_TIMEOUT, Ending, EndsWith};
use forward::Forward;
use health::Health;
use http2::{Phase, Protocol};
use services::Services;

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
    run_on(config, listener, shutdown, clock, open::real_disk()).await
}

/// The same with the files of the data directory on the given disk.
pub async fn run_on(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
    clock: Clock,
    disk: Arc<dyn Disk>,
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
    let failure = Arc::new(Failure::none());
    let acceptor = Acceptor::start(listeners, connections::permitted(config.connections_max), &protocol, &failure)
        .context("starting the threads that answer checks")?;
    // Dropped before what it is about.
    let ends_with = EndsWith(Arc::clone(&failure));

    let mut shutdown = std::pin::pin!(shutdown);
    let Some((engine, presence)) = open_data(&config, clock, disk, &failure, shutdown.as_mut()).await? else {
        return Ok(());
    };
    api.start(Arc::clone(&engine));
    health.follow(&engine, &failure).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(watched("the watch on the data directory", &failure, presence::watch(presence, Arc::clone(&engine))));
    log_start(&config, address);
    tasks.spawn(watched("the reports in the log", &failure, reports::run(api.clone(), address)));

    let ending = Ending::wait(shutdown, &failure, &engine, config.drain_timeout).await;
    drop(ends_with);
    health.stop().await;
    tracing::info!("draining");
    drain.send_replace(true);
    ending.end_connections(acceptor.stop(), &phase).await;
    tasks.shutdown().await;
    api.refusals().tell();
    ending.close(&engine).await
}

/// Opens the data directory. None where the service is told to stop meanwhile: nothing is acknowledged yet.
async fn open_data(
    config: &Config,
    clock: Clock,
    disk: Arc<dyn Disk>,
    failure: &Failure,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<Option<(Arc<Engine>, Presence)>> {
    let opened = config.clone();
    let mut opening = tokio::task::spawn_blocking(move || open::open_with(&opened, &disk, clock));
    tokio::select! {
        opened = &mut opening => {
            let (engine, presence) = opened.context("opening the data directory")??;
            Ok(Some((Arc::new(engine), presence)))
        }
        reason = ending::failed(failure.follow()) => bail!("the service cannot start because {reason}"),
        () = shutdown => {
            tracing::info!("told to stop before serving");
            let ending = Ending::told(Duration::ZERO);
            match tokio::time::timeout(END_TIMEOUT, opening).await {
                Ok(opened) => {
                    let (engine, _) = opened.context("opening the data directory")??;
                    ending.close(&Arc::new(engine)).await?;
                    Ok(None)
                }
                Err(_) => bail!(
                    "the service did not end in time, because the data directory is still being opened: its disk does not \
                     answer, or there is much to read; the next start takes this for a crash"
                ),
            }
        }
    }
}

/// A task that holds a lifeline.
fn watched<T: Future<Output = ()>>(
    whose: &'static str,
    failure: &Arc<Failure>,
    task: T,
) -> impl Future<Output = ()> + use<T> {
    let lifeline = Lifeline::new(whose, failure);
    async move {
        let task = std::pin::pin!(task);
        // Declared after it, so dropped before it.
        let _lifeline = lifeline;
        task.await;
    }
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
}
