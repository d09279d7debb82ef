//! `AuditService` (design.md §3.5): the log, the sessions and the figures over them.
//!
//! Invariant: only durable records are shown. Reading never delays a Check: files are read on threads that may block.
//! Not here: what the log holds and how it is searched (`engine::audit`).

mod filters;
mod lists;
mod proofs;
mod verify;
mod watch;

use std::hash::RandomState;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::serve::serve;
use super::{Api, status};
use crate::engine::Engine;
use crate::engine::audit::AuditError;
use crate::proto::v1::audit_service_server::AuditService;
use crate::proto::v1::{self, AuditRecord};

/// The most searches and verifications under way: each takes a thread that may block.
const READS_MAX: usize = 64;

/// What the reading calls of this service share.
#[derive(Debug)]
pub(super) struct AuditReads {
    permits: Arc<Semaphore>,
    /// Keys the personal part of page tokens, for as long as the process lives.
    token_key: RandomState,
}

impl Default for AuditReads {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(READS_MAX)), token_key: RandomState::new() }
    }
}

impl Api {
    /// Reads on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> Result<T, AuditError> + Send + 'static,
    ) -> Result<T, Status> {
        let engine = Arc::clone(self.engine()?);
        let permits = Arc::clone(&self.shared.audit_reads.permits);
        let permit = permits.acquire_owned().await.map_err(|error| status::internal(&error))?;
        let reading = tokio::task::spawn_blocking(move || {
            let result = read(&engine);
            drop(permit);
            result
        });
        reading.await.map_err(|error| status::internal(&error))?.map_err(status::audit)
    }

    fn get_checkpoint(&self, request: v1::GetCheckpointRequest) -> Result<Response<v1::Checkpoint>, Status> {
        let v1::GetCheckpointRequest {} = request;
        // It lies in memory, so that it is answered while the disk is not.
        let engine = self.engine()?;
        let lineage = engine.lineage().to_string();
        let note = engine.audit().checkpoint().map_err(status::audit)?;
        Ok(Response::new(v1::Checkpoint { note, lineage }))
    }
}

serve!(AuditService, type WatchEventsStream = watch::Events, type VerifyAuditStream = verify::Steps {
    waits get_overview(v1::GetOverviewRequest) -> v1::Overview;
    waits list_sessions(v1::ListSessionsRequest) -> v1::ListSessionsResponse;
    waits list_firewall_events(v1::ListFirewallEventsRequest) -> v1::ListFirewallEventsResponse;
    waits list_audit_records(v1::ListAuditRecordsRequest) -> v1::ListAuditRecordsResponse;
    at_once watch_events(v1::WatchEventsRequest) -> watch::Events;
    at_once get_checkpoint(v1::GetCheckpointRequest) -> v1::Checkpoint;
    waits get_inclusion_proof(v1::GetInclusionProofRequest) -> v1::InclusionProof;
    waits get_consistency_proof(v1::GetConsistencyProofRequest) -> v1::ConsistencyProof;
    at_once verify_audit(v1::VerifyAuditRequest) -> verify::Steps;
    changes erase_user(v1::EraseUserRequest) -> v1::EraseUserResponse;
});

/// The bytes that a record takes in an answer.
fn record_bytes(record: &AuditRecord) -> usize {
    prost::Message::encoded_len(record)
}
