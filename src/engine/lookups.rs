//! Who may look for an ended session in the log.
//!
//! A portal that comes late closes many sessions that have ended meanwhile. Looking for one that is nowhere reads every
//! unit; a few hundred at a time would take all processors and leave Checks none.
//!
//! Invariant: one reads at a time, and no more wait than [`WAITING_MAX`]; places are held until the reading has ended,
//! also where nobody waits for it any more.
//! Not here: the reading (`audit`).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::audit::AuditError;

/// Those who wait or read: few beside the calls that may be under way, whose places they hold.
pub(super) const WAITING_MAX: usize = 256;

/// The places.
pub(super) struct Lookups {
    waiting: Arc<Semaphore>,
    reading: Arc<Semaphore>,
}

/// A place, given back when it is dropped.
pub(super) struct Place {
    _waiting: OwnedSemaphorePermit,
    _reading: OwnedSemaphorePermit,
}

impl Lookups {
    pub(super) fn new() -> Self {
        Self { waiting: Arc::new(Semaphore::new(WAITING_MAX)), reading: Arc::new(Semaphore::new(1)) }
    }

    /// Waits for the turn; refused where too many do.
    pub(super) async fn place(&self) -> Result<Place, AuditError> {
        let waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| AuditError::Busy)?;
        let reading = Arc::clone(&self.reading).acquire_owned().await.map_err(|_| AuditError::ShuttingDown)?;
        Ok(Place { _waiting: waiting, _reading: reading })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Whether a place is given without waiting.
    async fn is_given(lookups: &Lookups) -> bool {
        tokio::time::timeout(Duration::ZERO, lookups.place()).await.is_ok()
    }

    #[tokio::test]
    async fn one_reads_at_a_time_and_too_many_are_refused() {
        let lookups = Arc::new(Lookups::new());
        let reading = lookups.place().await.ok();
        assert!(reading.is_some());
        assert!(!is_given(&lookups).await, "two read");
        let mut waiting = Vec::new();
        for _ in 1..WAITING_MAX {
            let lookups = Arc::clone(&lookups);
            waiting.push(tokio::spawn(async move { lookups.place().await.map(drop) }));
            tokio::task::yield_now().await;
        }
        assert!(matches!(lookups.place().await, Err(AuditError::Busy)));
        drop(reading);
        for one in waiting {
            assert!(one.await.is_ok_and(|place| place.is_ok()), "each has its turn");
        }
        assert!(is_given(&lookups).await);
    }
}
