//! Limits on searches of the log for ended sessions.
//!
//! A PEP that was away closes many sessions that have ended meanwhile. A search for an unknown session reads every unit;
//! a few hundred such searches together would take all cores from the Checks.
//!
//! Invariant: one search runs at a time, and at most [`WAITING_MAX`] wait or run. A permit is held until the search has
//! ended, even when its caller has cancelled.
//! Not here: the search (`audit`).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::audit::AuditError;

/// Searches that wait or run. Each is a call under way, so this stays well below the limit on calls.
pub(super) const WAITING_MAX: usize = 256;

/// The limits.
pub(super) struct Lookups {
    waiting: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// Permission to search, given back when it is dropped.
pub(super) struct Permit {
    _waiting: OwnedSemaphorePermit,
    _running: OwnedSemaphorePermit,
}

impl Lookups {
    pub(super) fn new() -> Self {
        Self { waiting: Arc::new(Semaphore::new(WAITING_MAX)), running: Arc::new(Semaphore::new(1)) }
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// [`AuditError::Busy`] where too many wait already.
    pub(super) async fn acquire(&self) -> Result<Permit, AuditError> {
        let waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| AuditError::Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| AuditError::ShuttingDown)?;
        Ok(Permit { _waiting: waiting, _running: running })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Whether a permit is given without waiting.
    async fn is_given(lookups: &Lookups) -> bool {
        tokio::time::timeout(Duration::ZERO, lookups.acquire()).await.is_ok()
    }

    #[tokio::test]
    async fn one_search_runs_at_a_time_and_too_many_are_refused() {
        let lookups = Arc::new(Lookups::new());
        let running = lookups.acquire().await.ok();
        assert!(running.is_some());
        assert!(!is_given(&lookups).await, "two run");
        let mut waiting = Vec::new();
        for _ in 1..WAITING_MAX {
            let lookups = Arc::clone(&lookups);
            waiting.push(tokio::spawn(async move { lookups.acquire().await.map(drop) }));
            tokio::task::yield_now().await;
        }
        assert!(matches!(lookups.acquire().await, Err(AuditError::Busy)));
        drop(running);
        for one in waiting {
            assert!(one.await.is_ok_and(|permit| permit.is_ok()), "each has its turn");
        }
        assert!(is_given(&lookups).await);
    }
}
