//! Whether the service can do what it is for: make changes durable and put decisions on the record.
//!
//! Invariant: writable only where both journals are.
//! Not here: what health says of it (`server`).

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

    /// Follows both.
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
        // Read while the channel is locked, so that of two who tell the last one tells what holds.
        self.writable.send_if_modified(|before| {
            let now = self.policy.load(Ordering::Acquire) && self.audit.load(Ordering::Acquire);
            std::mem::replace(before, now) != now
        });
    }
}
