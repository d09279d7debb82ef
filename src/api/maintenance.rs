//! `MaintenanceService`: backups of the running service (design.md §2.11).
//!
//! Invariant: a client that reads slowly, or goes away, stops nothing but its own backup, and holds a few pieces in memory.
//! One backup is taken at a time.
//! Not here: which moment a backup shows (`engine::backup`), and what is in it (`store::backup`).

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

use super::serve::serve;
use super::{Api, status};
use crate::engine::Engine;
use crate::engine::backup::BackupError;
use crate::locks::IgnorePoison;
use crate::proto::v1::maintenance_service_server::MaintenanceService;
use crate::proto::v1::{self, BackupResponse, ErrorReason};

/// The most pieces that wait for the client.
const PIECES_MAX: usize = 4;

/// How long a client may take no piece. It bounds how long removed and erased files are held for it.
const STALL_MAX: Duration = Duration::from_mins(1);

/// Admits one backup at a time.
#[derive(Debug)]
pub(super) struct Backups {
    permits: Arc<Semaphore>,
}

impl Default for Backups {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(1)) }
    }
}

/// What a client gets.
type Parts = Pin<Box<dyn Stream<Item = Result<BackupResponse, Status>> + Send>>;

/// The parts of a backup, and the error that ended it early.
struct Pieces {
    pieces: mpsc::Receiver<BackupResponse>,
    error: Arc<Mutex<Option<Status>>>,
}

impl Stream for Pieces {
    type Item = Result<BackupResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(piece) => Some(Ok(piece)),
            None => self.error.lock().ignore_poison().take().map(Err),
        })
    }
}

impl Api {
    fn backup(&self, request: v1::BackupRequest) -> Result<Response<Parts>, Status> {
        let v1::BackupRequest {} = request;
        let engine = Arc::clone(self.engine()?);
        let permit = Arc::clone(&self.shared.backups.permits).try_acquire_owned();
        let permit = permit.map_err(|_| status::overloaded("another backup is being taken"))?;
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let error = Arc::new(Mutex::new(None));
        let told = Arc::clone(&error);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let result = send(&engine, &sender, &runtime);
            drop(permit);
            if let Err(status) = result {
                *told.lock().ignore_poison() = Some(status);
            }
            // The stream ends with the sender, after its error is known.
            drop(sender);
        });
        Ok(Response::new(Box::pin(Pieces { pieces, error })))
    }
}

/// Sends a backup, piece by piece.
fn send(engine: &Engine, sender: &mpsc::Sender<BackupResponse>, runtime: &Handle) -> Result<(), Status> {
    let backup = engine.backup().map_err(refusal)?;
    let mut bytes = 0;
    let sent = backup.write(|piece| {
        bytes += piece.len();
        runtime.block_on(sender.send_timeout(BackupResponse { data: piece }, STALL_MAX))
    });
    let summary = backup.summary();
    match sent {
        Ok(Ok(())) => {
            tracing::info!(
                bytes,
                audit_sequence = summary.audit_sequence,
                policy_sequence = summary.policy_sequence,
                "a backup was taken"
            );
            Ok(())
        }
        Ok(Err(mpsc::error::SendTimeoutError::Closed(_))) => {
            tracing::warn!(bytes, "whoever took a backup went away before it was whole");
            Ok(())
        }
        Ok(Err(mpsc::error::SendTimeoutError::Timeout(_))) => {
            tracing::warn!(bytes, "whoever took a backup took nothing for a minute and is cut off");
            let message = "no bytes of the backup were taken for a minute: take it again, faster";
            Err(status::error(Code::Aborted, ErrorReason::ClientTooSlow, message))
        }
        Err(error) => Err(refusal(error.into())),
    }
}

fn refusal(refusal: BackupError) -> Status {
    match refusal {
        BackupError::Audit(refusal) => status::audit(refusal),
        BackupError::Unsupported | BackupError::Files(_) => {
            tracing::error!(error = %refusal, "a backup cannot be taken");
            status::error(Code::Unavailable, ErrorReason::Internal, format!("no backup can be taken: {refusal}"))
        }
    }
}

serve!(MaintenanceService, type BackupStream = Parts {
    at_once backup(v1::BackupRequest) -> Parts;
});
