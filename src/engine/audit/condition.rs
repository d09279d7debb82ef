//! Whether the service can make changes durable and record decisions, and why it cannot.
//!
//! Invariant: writable only while nothing stands in the way. A failed thread stands in the way for ever.
//! Not here: what the health service reports (`server::health`).

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

use super::error::AuditError;
use crate::lifeline::{Failure, Supervisor};

/// What can stand in the way. Each is a bit of its own, so that a Check looks at all of them by one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Obstacle {
    /// The policy journal cannot be written. Checks are recorded all the same.
    PolicyFailed = 1,
    /// The last write of the audit log failed.
    AuditFailed = 2,
    /// A write of the audit log takes longer than the deadline.
    AuditStuck = 4,
    /// The data directory, or a journal in it, was removed or replaced.
    DirectoryGone = 8,
    /// A thread has ended.
    ThreadEnded = 16,
    /// The audit log takes no more records.
    Closed = 32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Condition {
    obstacles: AtomicU8,
    writable: watch::Sender<bool>,
    failure: Failure,
}

impl Condition {
    pub(crate) fn new() -> Self {
        Self { obstacles: AtomicU8::new(0), writable: watch::Sender::new(true), failure: Failure::none() }
    }

    /// Follows whether changes can be made durable and decisions recorded.
    pub(crate) fn writable(&self) -> watch::Receiver<bool> {
        self.writable.subscribe()
    }

    /// Why the service cannot go on, if it cannot.
    pub(crate) fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Notes whether something stands in the way. True if that is new.
    pub(crate) fn set(&self, obstacle: Obstacle, stands: bool) -> bool {
        let bit = obstacle as u8;
        let before = if stands {
            self.obstacles.fetch_or(bit, Ordering::AcqRel)
        } else {
            self.obstacles.fetch_and(!bit, Ordering::AcqRel)
        };
        // Read while the channel is locked, so that the last of two concurrent updates has the current value.
        self.writable.send_if_modified(|before| {
            let now = self.obstacles.load(Ordering::Acquire) == 0;
            std::mem::replace(before, now) != now
        });
        (before & bit != 0) != stands
    }

    /// Whether something stands in the way.
    pub(crate) fn has(&self, obstacle: Obstacle) -> bool {
        self.obstacles.load(Ordering::Acquire) & obstacle as u8 != 0
    }

    /// An error where a record pushed now would not be written soon.
    pub(super) fn check_recordable(&self) -> Result<(), AuditError> {
        let obstacles = self.obstacles.load(Ordering::Acquire) & !(Obstacle::PolicyFailed as u8);
        if obstacles == 0 { Ok(()) } else { Err(self.refusal(obstacles)) }
    }

    /// Why a record is refused. By the obstacles that were found: meanwhile they may have gone.
    #[cold]
    fn refusal(&self, obstacles: u8) -> AuditError {
        let stands = |obstacle| obstacles & obstacle as u8 != 0;
        if stands(Obstacle::ThreadEnded) {
            return AuditError::Failed(self.failure.reason().unwrap_or_default());
        }
        for (obstacle, reason) in [
            (
                Obstacle::DirectoryGone,
                "the data directory or a file in it was removed or replaced, which the log of the service names: put it back",
            ),
            (Obstacle::AuditStuck, "the disk does not answer"),
            (Obstacle::AuditFailed, "the last write failed"),
        ] {
            if stands(obstacle) {
                return AuditError::not_writable(reason);
            }
        }
        AuditError::ShuttingDown
    }
}

impl Supervisor for Condition {
    fn is_ending(&self) -> bool {
        self.failure.is_ending()
    }

    fn fail(&self, reason: &str) {
        // First: whoever is told the reason finds every call refused.
        self.set(Obstacle::ThreadEnded, true);
        self.failure.fail(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_obstacle_that_goes_meanwhile_is_the_reason_all_the_same() {
        let condition = Condition::new();
        let text = |obstacle| condition.refusal(obstacle as u8).to_string();
        assert!(text(Obstacle::DirectoryGone).contains("removed or replaced"));
        assert!(text(Obstacle::AuditStuck).contains("does not answer"));
        assert!(text(Obstacle::AuditFailed).contains("the last write failed"));
        assert_eq!(condition.refusal(Obstacle::Closed as u8), AuditError::ShuttingDown);
    }

    #[test]
    fn it_is_writable_while_nothing_stands_in_the_way() {
        let condition = Condition::new();
        let writable = condition.writable();
        assert!(condition.set(Obstacle::PolicyFailed, true));
        assert_eq!(condition.check_recordable(), Ok(()), "Checks go on");
        assert!(!*writable.borrow());
        assert!(condition.set(Obstacle::AuditStuck, true));
        assert!(!condition.set(Obstacle::AuditStuck, true), "known");
        assert!(condition.set(Obstacle::PolicyFailed, false));
        assert!(!*writable.borrow());
        assert!(condition.check_recordable().is_err());
        assert!(condition.set(Obstacle::AuditStuck, false));
        assert!(*writable.borrow());
        assert_eq!(condition.check_recordable(), Ok(()));
        condition.fail("the thread `worker` panicked");
        assert!(!*writable.borrow());
        assert_eq!(condition.check_recordable(), Err(AuditError::Failed("the thread `worker` panicked".into())));
    }
}
