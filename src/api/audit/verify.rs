//! Verifying the log over the API: progress, then the result.
//!
//! Invariant: a client that goes away stops the verification; one that reads slowly does not delay it.
//! Not here: what is verified (`engine::audit`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::super::{Api, status, to_i64};
use crate::engine::audit::Verification;
use crate::proto::v1;
use v1::verify_audit_response::Step;

/// The most steps buffered for the client.
const STEPS_MAX: usize = 4;

/// The shortest time between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

pub(super) type Steps = ReceiverStream<Result<v1::VerifyAuditResponse, Status>>;

impl Api {
    pub(super) fn verify_audit(&self, request: v1::VerifyAuditRequest) -> Result<Response<Steps>, Status> {
        let v1::VerifyAuditRequest { note } = request;
        let audit = self.engine()?.audit();
        let permit = Arc::clone(&self.shared.audit_reads.permits).try_acquire_owned();
        let permit = permit.map_err(|_| status::overloaded("too many searches and verifications are under way"))?;
        let (sender, steps) = mpsc::channel(STEPS_MAX);
        tokio::task::spawn_blocking(move || {
            let mut told = tokio::time::Instant::now();
            let mut progress = |verified: u64, total: u64| {
                if told.elapsed() >= PROGRESS_INTERVAL {
                    told = tokio::time::Instant::now();
                    let progress =
                        v1::VerifyAuditProgress { verified_count: to_i64(verified), total_count: to_i64(total) };
                    // Without room the client is behind: it gets the next report.
                    drop(sender.try_send(Ok(response(Step::Progress(progress)))));
                }
                !sender.is_closed()
            };
            let note = (!note.is_empty()).then_some(note.as_str());
            let result = audit.verify(note, &mut progress);
            let step = result.map(|result| response(Step::Result(to_result(result)))).map_err(status::audit);
            drop(permit);
            drop(sender.blocking_send(step));
        });
        Ok(Response::new(ReceiverStream::new(steps)))
    }
}

fn response(step: Step) -> v1::VerifyAuditResponse {
    v1::VerifyAuditResponse { step: Some(step) }
}

fn to_result(result: Verification) -> v1::VerifyAuditResult {
    let Verification { tree_size, root, signed_size: _, policy_sequence: _, policy_changes: _, faults } = result;
    let fault = |(sequence, message)| v1::AuditFault { sequence: to_i64(sequence), message };
    v1::VerifyAuditResult {
        intact: faults.is_empty(),
        tree_size: to_i64(tree_size),
        root_hash: root.as_bytes().to_vec(),
        faults: faults.into_iter().map(fault).collect(),
    }
}
