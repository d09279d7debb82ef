//! `MaintenanceService`: backups of the running service (design.md §2.11).
//!
//! Invariant: a client that reads slowly, or goes away, stops nothing but its own backup, and holds a few pieces in memory.
//! One backup is taken at a time, for no longer than its size allows, and none outlasts an erasure or the service.
//! Not here: which moment a backup shows (`engine::backup`), and what is in it (`store::backup`).

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

use super::serve::serve;
use super::{Api, status};
use crate::engine::Engine;
use crate::engine::audit::AuditError;
use crate::engine::backup::BackupError;
use crate::locks::IgnorePoison;
use crate::proto::v1::maintenance_service_server::MaintenanceService;
use crate::proto::v1::{self, BackupResponse, ErrorReason};

/// The most pieces that wait for the client.
const PIECES_MAX: usize = 4;

/// How long the service waits for a client that takes no piece, and at the least for all pieces together.
const STALL_MAX: Duration = Duration::from_mins(1);

/// How much a client must take a second on the average, after that. It bounds how long removed files are held for it.
const RATE_MIN_BYTES: usize = 1 << 20;

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
        // What still waits for the client is of no use to it after an error.
        let failed = self.error.lock().ignore_poison().take();
        if let Some(error) = failed {
            self.pieces.close();
            return Poll::Ready(Some(Err(error)));
        }
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
        let draining = self.shared.subscribers.draining();
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let result = send(&engine, permit, sender.clone(), draining, &runtime);
            if let Err(status) = result {
                *told.lock().ignore_poison() = Some(status);
            }
            // The stream ends with the sender, after its error is known.
            drop(sender);
        });
        Ok(Response::new(Box::pin(Pieces { pieces, error })))
    }
}

/// Why a backup ends before it is whole.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Gone,
    TooSlow,
    Erased,
    Drained,
}

/// The client of a backup, and what may end it early.
struct Taker {
    sender: mpsc::Sender<BackupResponse>,
    draining: watch::Receiver<bool>,
    /// Changes when an erasure is finished.
    erasures: watch::Receiver<u64>,
    pace: Pace,
}

/// How long a client may be waited for.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    bytes: usize,
}

impl Pace {
    /// How long the next piece may take.
    fn allowance(&self) -> Duration {
        let in_all = STALL_MAX + Duration::from_secs((self.bytes / RATE_MIN_BYTES) as u64);
        in_all.saturating_sub(self.waited).min(STALL_MAX)
    }

    /// A piece of so many bytes was taken.
    fn taken(&mut self, bytes: usize, waited: Duration) {
        self.bytes += bytes;
        self.waited += waited;
    }
}

impl Taker {
    /// Hands over the next piece.
    async fn send(&mut self, piece: Vec<u8>) -> Result<(), Ends> {
        let Self { sender, draining, erasures, pace } = self;
        let (bytes, began) = (piece.len(), Instant::now());
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return Err(Ends::Drained),
            _ = erasures.changed() => return Err(Ends::Erased),
            sent = sender.send_timeout(BackupResponse { data: piece }, pace.allowance()) => match sent {
                Ok(()) => {}
                Err(SendTimeoutError::Closed(_)) => return Err(Ends::Gone),
                Err(SendTimeoutError::Timeout(_)) => return Err(Ends::TooSlow),
            },
        }
        pace.taken(bytes, began.elapsed());
        Ok(())
    }
}

/// Sends a backup, piece by piece.
fn send(
    engine: &Engine,
    permit: OwnedSemaphorePermit,
    sender: mpsc::Sender<BackupResponse>,
    draining: watch::Receiver<bool>,
    runtime: &Handle,
) -> Result<(), Status> {
    // Followed from before the moment that the backup shows: what was erased before then is not in it.
    let erasures = engine.finished_erasures();
    let mut taker = Taker { sender, draining, erasures, pace: Pace::default() };
    let backup = engine.backup().map_err(refusal)?;
    let sent = backup.write(|piece| runtime.block_on(taker.send(piece)));
    let (summary, bytes) = (backup.summary(), taker.pace.bytes);
    // Whoever sees that what was held is released can take the next one.
    drop(permit);
    drop(backup);
    let Err(ends) = sent.map_err(|error| refusal(error.into()))? else {
        tracing::info!(
            bytes,
            audit_sequence = summary.audit_sequence,
            policy_sequence = summary.policy_sequence,
            "a backup was taken"
        );
        return Ok(());
    };
    tracing::warn!(bytes, "a backup is not whole: {}", ends.reason());
    ends.status().map_or(Ok(()), Err)
}

impl Ends {
    fn reason(self) -> &'static str {
        match self {
            Self::Gone => "whoever took it went away",
            Self::TooSlow => "whoever took it took too little and is cut off",
            Self::Erased => "somebody was erased meanwhile",
            Self::Drained => "the service ends",
        }
    }

    /// What the client is told, if it is still there.
    fn status(self) -> Option<Status> {
        match self {
            Self::Gone => None,
            Self::TooSlow => {
                let message = "the backup was taken too slowly: take it again, at 1 MiB a second at least";
                Some(status::error(Code::Aborted, ErrorReason::ClientTooSlow, message))
            }
            Self::Erased => {
                let message =
                    "somebody was erased while the backup was taken, which may still hold them: take it again";
                Some(status::error(Code::Aborted, ErrorReason::BackupOvertaken, message))
            }
            Self::Drained => Some(status::audit(AuditError::ShuttingDown)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_a_piece_a_minute_is_cut_off_soon_and_a_fast_one_never() {
        let piece = 256 * 1024;
        let mut slow = Pace::default();
        let mut pieces = 0;
        while slow.allowance() >= Duration::from_secs(59) {
            slow.taken(piece, Duration::from_secs(59));
            pieces += 1;
        }
        assert!(pieces <= 1, "{pieces} pieces, each of which took a minute");
        let mut fast = Pace::default();
        for _ in 0..1_000_000 {
            fast.taken(piece, Duration::from_millis(250));
            assert!(fast.allowance() >= Duration::from_secs(59));
        }
    }
}
