//! Health (`grpc.health.v1`), overall and per service.
//!
//! Invariant: not serving while the service starts, drains, cannot make changes durable, or has lost a thread.
//! Not here: how the journal is made writable again (`engine`).

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::api::methods::Service;
use crate::engine::Engine;
use crate::lifeline::{Failure, Lifeline};
use crate::locks::IgnorePoison;

/// Names whose health is told: the empty one of the whole service, and each of its parts.
fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once("").chain(Service::ALL.iter().map(|service| service.name()))
}

/// The gRPC service that tells health.
pub(super) type HealthServed = HealthServer<HealthService>;

/// Tells the health of the service.
pub(super) struct Health {
    reporter: HealthReporter,
    following: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Health {
    /// Not serving yet.
    pub(super) async fn new() -> (Self, HealthServed) {
        let reporter = HealthReporter::new();
        // tonic-health says SERVING for the whole service until told otherwise.
        report(&reporter, ServingStatus::NotServing).await;
        let service = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
        (Self { reporter, following: std::sync::Mutex::default() }, service)
    }

    /// Serving from now on, whenever changes can be made durable.
    pub(super) async fn follow(&self, engine: &Engine, failure: &Arc<Failure>) {
        let mut writable = engine.writable();
        report(&self.reporter, status_of(&mut writable)).await;
        let reporter = self.reporter.clone();
        let lifeline = Lifeline::new("the task that tells health", failure);
        let task = tokio::spawn(async move {
            let _lifeline = lifeline;
            while writable.changed().await.is_ok() {
                report(&reporter, status_of(&mut writable)).await;
            }
            // The writer has ended, so nothing can be changed any more.
            report(&reporter, ServingStatus::NotServing).await;
        });
        *self.following.lock().ignore_poison() = Some(task);
    }

    /// Not serving any more. Watchers are told, and their streams end, so that they do not delay the drain.
    pub(super) async fn stop(&self) {
        if let Some(task) = self.following.lock().ignore_poison().take() {
            task.abort();
        }
        report(&self.reporter, ServingStatus::NotServing).await;
        let mut reporter = self.reporter.clone();
        for name in names() {
            reporter.clear_service_status(name).await;
        }
        // For clients that ask again on a connection that is still draining.
        report(&self.reporter, ServingStatus::NotServing).await;
    }
}

fn status_of(writable: &mut watch::Receiver<bool>) -> ServingStatus {
    if *writable.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for name in names() {
        reporter.set_service_status(name, status).await;
    }
}
