//! Subscribers, whose streams last until the client goes away: their number, and their end when the service drains.
//!
//! Invariant: no more streams than configured; each is told when the service drains.
//! Not here: what is streamed (`audit::watch`, `shadow`).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Code, Status};

use super::status;
use crate::proto::v1::ErrorReason;

/// The limit on subscribers.
#[derive(Debug)]
pub(super) struct Subscribers {
    permits: Arc<Semaphore>,
    max: usize,
    draining: watch::Receiver<bool>,
}

impl Subscribers {
    /// At most `max` at a time, until `draining` says so.
    pub(super) fn new(max: usize, draining: watch::Receiver<bool>) -> Self {
        Self { permits: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))), max, draining }
    }

    /// Admits one more, for as long as the permit is held.
    pub(super) fn subscribe(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            let message = format!("there are {} subscribers already: try again later", self.max);
            status::error(Code::ResourceExhausted, ErrorReason::LimitReached, message)
        })
    }

    /// Becomes true when the service drains.
    pub(super) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.clone()
    }
}
