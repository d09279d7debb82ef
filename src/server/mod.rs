//! The composition root: which adapters stand behind which ports, and how the service starts, serves and ends.
//!
//! Invariant: it says it is serving only while it decides from the recovered policy and can make changes durable; when it
//! ends, everything acknowledged is on the disk.
//! Not here: what it serves (`api`), and how a process is told to end (`cli::serve`).

mod audit_key;
mod connections;
mod health;
mod open;
mod unix;
mod verify;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::LayerExt;
use tonic::transport::Server;

use crate::api::admission::AdmissionLayer;
use crate::api::transport::{ExplainLayer, UnbrokenLayer};
use crate::api::{ANSWER_BYTES_MAX, Api};
use crate::config::Config;
use crate::engine::Engine;
use crate::proto::DESCRIPTOR;
use crate::proto::v1::analysis_service_server::{self, AnalysisServiceServer};
use crate::proto::v1::audit_service_server::{self, AuditServiceServer};
use crate::proto::v1::decision_service_server::{self, DecisionServiceServer};
use crate::proto::v1::firewall_service_server::{self, FirewallServiceServer};
use crate::proto::v1::hierarchy_service_server::{self, HierarchyServiceServer};

pub use open::open;
pub use verify::verify_audit;

use connections::Listener;
use health::Health;

/// Streams of one connection at a time. More wait on the client's side.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// Streams that a client may reset before its connection is closed: a flood of resets costs only the sender.
const LOCAL_RESETS_MAX: usize = 1_024;

/// Reset streams that may wait to be noticed.
const PENDING_RESETS_MAX: usize = 20;

/// Calls of administration at a time. They have places of their own, so that none of them ever keeps a Check out, and
/// few, because each may hold a message of many megabytes.
const ADMINISTRATION_CALLS_MAX: usize = 256;

/// How often an idle connection is asked whether it still lives, and how long it has to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_mins(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long connections that are cut off may take to end.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until `shutdown`, then drains and returns. Returns early only where the service cannot start.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the listener has no address")?;
    let (drain, draining) = watch::channel(false);
    let api = Api::new(config.limits, config.record.subscribers_max, draining.clone());
    let (health, health_service) = Health::new().await;
    // Connections also end where this future is dropped, and the sender with it.
    let (cut_off, cutting_off) = watch::channel(false);
    let mut listeners = vec![Listener::Tcp(listener)];
    let unix = config.listen_unix.as_deref().map(unix::bind).transpose()?;
    // Kept until the end: then its file goes.
    let _socket_file = unix.map(|(listener, file)| {
        listeners.push(Listener::Unix(listener));
        file
    });
    let serving = serve(&config, &api, health_service, listeners, draining, &cutting_off)?;
    let mut server = tokio::spawn(serving);

    let opened = config.clone();
    let mut shutdown = std::pin::pin!(shutdown);
    let opening = tokio::task::spawn_blocking(move || open::open(&opened));
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
        Err(error) => {
            server.abort();
            return Err(error);
        }
    };
    api.start(Arc::clone(&engine));
    health.follow(&engine).await;
    tracing::info!(%address, data_dir = %config.data_dir.display(), "serving gRPC");

    let stopped = tokio::select! {
        () = &mut shutdown => None,
        result = &mut server => Some(result),
    };
    health.stop().await;
    if stopped.is_none() {
        tracing::info!("draining");
        drain.send_replace(true);
        if tokio::time::timeout(config.drain_timeout, &mut server).await.is_err() {
            tracing::warn!(timeout = ?config.drain_timeout, "some calls did not end in time and are cut off");
            cut_off.send_replace(true);
            if tokio::time::timeout(CUT_OFF_TIMEOUT, &mut server).await.is_err() {
                server.abort();
            }
        }
    }
    close(engine).await;
    match stopped {
        Some(result) => result.context("the server's task failed")?.context("the server ended by itself"),
        None => Ok(()),
    }
}

/// Waits until everything acknowledged is on the disk.
async fn close(engine: Arc<Engine>) {
    if let Err(error) = tokio::task::spawn_blocking(move || engine.close()).await {
        tracing::error!(%error, "the engine did not close");
    }
    tracing::info!("stopped");
}

/// Reflection of what is served; the descriptors have more, for versions to come.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(tonic_health::pb::health_server::SERVICE_NAME)
        .with_service_name(analysis_service_server::SERVICE_NAME)
        .with_service_name(audit_service_server::SERVICE_NAME)
        .with_service_name(decision_service_server::SERVICE_NAME)
        .with_service_name(firewall_service_server::SERVICE_NAME)
        .with_service_name(hierarchy_service_server::SERVICE_NAME)
}

/// The server as a future: all services behind the layers that every call passes.
fn serve(
    config: &Config,
    api: &Api,
    health: health::Service,
    listeners: Vec<Listener>,
    mut draining: watch::Receiver<bool>,
    cutting_off: &watch::Receiver<bool>,
) -> anyhow::Result<impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static> {
    let reflection_v1 = reflection()
        .with_service_name(tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME)
        .build_v1()
        .context("the descriptors for reflection")?;
    let reflection_v1alpha = reflection()
        .with_service_name(tonic_reflection::pb::v1alpha::server_reflection_server::SERVICE_NAME)
        .build_v1alpha()
        .context("the descriptors for reflection")?;
    // Health and reflection are not limited: a busy service is still a living one.
    let for_checks = AdmissionLayer::new(config.requests_in_flight_max, config.request_timeout);
    let for_changes =
        AdmissionLayer::new(config.requests_in_flight_max.min(ADMINISTRATION_CALLS_MAX), config.request_timeout);
    macro_rules! limited {
        ($layer:expr, $server:ident) => {
            $layer.named_layer(
                $server::new(api.clone())
                    .max_decoding_message_size(config.request_bytes_max)
                    .max_encoding_message_size(ANSWER_BYTES_MAX),
            )
        };
    }
    let connections = connections::accept(listeners, connections::permitted(config.connections_max), cutting_off);
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(ExplainLayer)
        .add_service(health)
        .add_service(reflection_v1)
        .add_service(reflection_v1alpha)
        .add_service(limited!(for_checks, DecisionServiceServer))
        .add_service(limited!((for_changes.clone(), UnbrokenLayer), FirewallServiceServer))
        .add_service(limited!(for_changes.clone(), HierarchyServiceServer))
        .add_service(limited!(for_changes.clone(), AuditServiceServer))
        .add_service(limited!(for_changes, AnalysisServiceServer));
    Ok(server.serve_with_incoming_shutdown(connections, async move {
        // The sender lives as long as the service.
        let _ = draining.wait_for(|draining| *draining).await;
    }))
}
