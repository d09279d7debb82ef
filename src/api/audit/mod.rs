//! `AuditService` (design.md §3.5): the log, the sessions and the figures over them.
//!
//! Invariant: only what is durable is shown. Reading never keeps a Check waiting: files are read on threads for that.
//! Not here: what the log holds and how it is searched (`engine::audit`).

mod filters;
mod lists;
mod proofs;
mod verify;
mod watch;

use std::hash::RandomState;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch as tokio_watch};
use tonic::{Code, Request, Response, Status};

use super::{Api, status};
use crate::audit::record::Actor;
use crate::engine::Engine;
use crate::engine::audit::AuditError;
use crate::proto::v1::audit_service_server::AuditService;
use crate::proto::v1::{self, AuditRecord, ErrorReason};

/// Searches and the like at a time: each takes a thread that may wait for the disk.
const READS_MAX: usize = 64;

/// What the calls of this service share.
#[derive(Debug)]
pub(super) struct AuditCalls {
    reads: Arc<Semaphore>,
    subscribers: Arc<Semaphore>,
    subscribers_max: usize,
    /// Keys the personal part of page tokens, for as long as the process lives.
    token_key: RandomState,
    /// The service is to end.
    draining: tokio_watch::Receiver<bool>,
}

impl AuditCalls {
    /// A place for one more subscriber.
    pub(super) fn subscribe(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.subscribers).try_acquire_owned().map_err(|_| {
            let message = format!("there are {} subscribers already: try again later", self.subscribers_max);
            status::error(Code::ResourceExhausted, ErrorReason::LimitReached, message)
        })
    }

    /// Says when the service is to end.
    pub(super) fn draining(&self) -> tokio_watch::Receiver<bool> {
        self.draining.clone()
    }

    pub(super) fn new(subscribers_max: usize, draining: tokio_watch::Receiver<bool>) -> Self {
        Self {
            reads: Arc::new(Semaphore::new(READS_MAX)),
            subscribers: Arc::new(Semaphore::new(subscribers_max.min(Semaphore::MAX_PERMITS))),
            subscribers_max,
            token_key: RandomState::new(),
            draining,
        }
    }
}

impl Api {
    /// Reads on a thread that may wait.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> Result<T, AuditError> + Send + 'static,
    ) -> Result<T, Status> {
        let engine = Arc::clone(self.engine()?);
        let place = Arc::clone(&self.audit.reads).acquire_owned().await.map_err(|error| status::internal(&error))?;
        let reading = tokio::task::spawn_blocking(move || {
            let result = read(&engine);
            drop(place);
            result
        });
        reading.await.map_err(|error| status::internal(&error))?.map_err(status::audit)
    }
}

#[tonic::async_trait]
impl AuditService for Api {
    async fn get_overview(&self, request: Request<v1::GetOverviewRequest>) -> Result<Response<v1::Overview>, Status> {
        self.overview(request.into_inner()).await
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        self.list_sessions(request.into_inner()).await
    }

    async fn list_firewall_events(
        &self,
        request: Request<v1::ListFirewallEventsRequest>,
    ) -> Result<Response<v1::ListFirewallEventsResponse>, Status> {
        self.list_firewall_events(request.into_inner()).await
    }

    async fn list_audit_records(
        &self,
        request: Request<v1::ListAuditRecordsRequest>,
    ) -> Result<Response<v1::ListAuditRecordsResponse>, Status> {
        self.list_audit_records(request.into_inner()).await
    }

    type WatchEventsStream = watch::Events;

    async fn watch_events(&self, request: Request<v1::WatchEventsRequest>) -> Result<Response<watch::Events>, Status> {
        self.watch_events(request.into_inner())
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::Checkpoint>, Status> {
        let v1::GetCheckpointRequest {} = request.into_inner();
        let note = self.read(|engine| engine.audit().checkpoint()).await?;
        Ok(Response::new(v1::Checkpoint { note }))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::InclusionProof>, Status> {
        self.inclusion_proof(request.into_inner()).await
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::ConsistencyProof>, Status> {
        self.consistency_proof(request.into_inner()).await
    }

    type VerifyAuditStream = verify::Steps;

    async fn verify_audit(&self, request: Request<v1::VerifyAuditRequest>) -> Result<Response<verify::Steps>, Status> {
        self.verify_audit(request.into_inner())
    }

    async fn erase_user(
        &self,
        request: Request<v1::EraseUserRequest>,
    ) -> Result<Response<v1::EraseUserResponse>, Status> {
        let asked_by = Actor { name: super::mutation::actor(&request) };
        self.erase_user(request.into_inner(), asked_by).await
    }
}

/// Room that a record takes in an answer.
fn record_bytes(record: &AuditRecord) -> usize {
    prost::Message::encoded_len(record)
}
