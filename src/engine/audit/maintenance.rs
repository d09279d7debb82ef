//! The maintenance thread: erases, seals, prunes and signs, one task after the other.
//!
//! The `eraser`, the `sealer` and the `pruner` each own what they need. This file owns their order and their intervals,
//! the interval of checkpoints, and saving the sessions.
//!
//! Invariant: at every moment the files hold the old or the new state, and work that a crash interrupted is resumed.
//! Nothing here delays a record.
//! Not here: the steps of erasing, sealing and removing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::denials::DenialLog;
use super::eraser::{Eraser, Erasing};
use super::error::AuditError;
use super::inbox::EraseTask;
use super::ports::{ActorFiles, SessionFiles};
use super::pruner::Pruner;
use super::sealer::Sealer;
use super::shared::Shared;
use crate::engine::clock::Clock;

/// How often it looks for work without being woken. No interval below is kept more exactly.
const TICK: Duration = Duration::from_millis(100);

/// How often the active sessions are saved.
const SESSIONS_INTERVAL: Duration = Duration::from_mins(1);

/// The pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What the thread owns.
pub(crate) struct Maintenance {
    shared: Arc<Shared>,
    sessions: Box<dyn SessionFiles>,
    eraser: Eraser,
    sealer: Sealer,
    pruner: Pruner,
}

/// When something is due again.
struct Timer {
    interval: Duration,
    since: Instant,
}

/// Work that rests for a while after it failed.
#[derive(Default)]
struct Retry {
    rest: Option<Timer>,
}

impl Retry {
    /// Does the work unless it rests. True if it did not fail.
    fn attempt(&mut self, failed: &'static str, work: impl FnOnce() -> Result<(), AuditError>) -> bool {
        if self.rest.as_mut().is_some_and(|rest| !rest.is_due()) {
            return false;
        }
        self.rest = work().err().map(|error| {
            tracing::warn!(%error, "{failed}");
            Timer::new(RETRY_PAUSE)
        });
        self.rest.is_none()
    }
}

impl Drop for Maintenance {
    /// Also after a panic: nobody looks into the inbox any more.
    fn drop(&mut self) {
        self.shared.inbox.close();
    }
}

impl Timer {
    fn new(interval: Duration) -> Self {
        Self { interval, since: Instant::now() }
    }

    fn is_due(&mut self) -> bool {
        let due = self.since.elapsed() >= self.interval;
        if due {
            self.since = Instant::now();
        }
        due
    }
}

impl Maintenance {
    pub(crate) fn new(
        shared: Arc<Shared>,
        clock: Clock,
        sessions: Box<dyn SessionFiles>,
        actors: Box<dyn ActorFiles>,
        erasing: Erasing,
    ) -> Self {
        let eraser = Eraser::new(Arc::clone(&shared), actors, erasing);
        let sealer = Sealer::new(Arc::clone(&shared), clock.clone());
        let pruner = Pruner::new(Arc::clone(&shared), clock, sessions.max_age());
        Self { shared, sessions, eraser, sealer, pruner }
    }

    /// Works until the log has ended, then signs its last checkpoint.
    pub(crate) fn run(mut self) {
        let mut checkpoint = Timer::new(self.shared.options.checkpoint_interval);
        let mut sessions = Timer::new(SESSIONS_INTERVAL);
        let mut retention = Timer::new(self.shared.options.retention_interval);
        let mut denials = DenialLog::new();
        let (mut sealing, mut erasing) = (Retry::default(), Retry::default());
        loop {
            // Read this first, so that the round below sees everything that was written before the end.
            let ended = self.shared.is_written();
            for EraseTask { request, reply } in self.shared.inbox.wait(TICK) {
                drop(reply.send(self.eraser.erase(request, &mut *self.sessions)));
            }
            if checkpoint.is_due() || ended {
                self.shared.sign();
            }
            if sealing.attempt("sealing the audit log failed and is tried again", || self.erase_and_seal())
                && retention.is_due()
            {
                self.pruner.prune_if_due();
            }
            erasing.attempt("an erasure is recorded but not finished, which is tried again", || {
                self.eraser.resume_rest(&mut *self.sessions)
            });
            if sessions.is_due() {
                self.save_sessions();
            }
            denials.tell(&self.shared.denials, ended);
            if ended {
                self.save_sessions();
                return;
            }
        }
    }

    /// Erases openings that are left over first, so that nothing to be erased is sealed.
    fn erase_and_seal(&mut self) -> Result<(), AuditError> {
        self.eraser.resume_openings(&mut *self.sessions)?;
        self.sealer.seal_ended()
    }

    fn save_sessions(&mut self) {
        if let Err(error) = self.sessions.save() {
            tracing::warn!(%error, "cannot save the active sessions: the next start takes longer");
        }
    }
}
