//! Whether the service can make changes durable and record decisions.
//!
//! Invariant: writable only while both journals are.
//! Not here: what the health service reports (`server::health`).

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// See the module.
#[derive(Debug)]
pub(crate) struct Condition {
    policy: AtomicBool,
    audit: AtomicBool,
    writable: watch::Sender<bool>,
}

impl Condition {
    pub(crate) fn new() -> Self {
        Self { policy: AtomicBool::new(true), audit: AtomicBool::new(true), writable: watch::Sender::new(true) }
    }

    /// Follows whether both are writable.
    pub(crate) fn writable(&self) -> watch::Receiver<bool> {
        self.writable.subscribe()
    }

    pub(crate) fn set_policy(&self, writable: bool) {
        self.policy.store(writable, Ordering::Release);
        self.tell();
    }

    pub(crate) fn set_audit(&self, writable: bool) {
        self.audit.store(writable, Ordering::Release);
        self.tell();
    }

    fn tell(&self) {
        // Read while the channel is locked, so that the last of two concurrent updates has the current values.
        self.writable.send_if_modified(|before| {
            let now = self.policy.load(Ordering::Acquire) && self.audit.load(Ordering::Acquire);
            std::mem::replace(before, now) != now
        });
    }
}
