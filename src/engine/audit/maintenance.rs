//! The maintenance thread: erases, seals, prunes and signs, in small steps by turns.
//!
//! The `eraser`, the `sealer` and the `pruner` each own what they need. This file owns their order and their intervals,
//! the interval of checkpoints, and saving the sessions.
//!
//! Invariant: at every moment the files hold the old or the new state, and work that a crash interrupted is resumed.
//! Nothing here delays a record, and no task holds up the others for longer than one of its steps takes.
//! Not here: the steps of erasing, sealing and removing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::denials::DenialLog;
use super::eraser::{Eraser, Progress};
use super::erasing::Erasing;
use super::error::AuditError;
use super::ports::{ActorFiles, SessionFiles};
use super::pruner::Pruner;
use super::sealer::Sealer;
use super::shared::Shared;
use crate::engine::clock::Clock;

/// How often it looks for work without being woken. No interval below is kept more exactly.
const TICK: Duration = Duration::from_millis(100);

/// How often the active sessions are saved.
const SESSIONS_INTERVAL: Duration = Duration::from_mins(1);

/// How long steps of erasures are taken before something else gets its turn. One step rewrites a file at most.
const ERASE_SLICE: Duration = Duration::from_millis(100);

/// The pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What the thread owns.
pub(crate) struct Maintenance {
    shared: Arc<Shared>,
    sessions: Box<dyn SessionFiles>,
    eraser: Eraser,
    sealer: Sealer,
    pruner: Pruner,
    retries: Retries,
    /// The last record that the saved sessions include, of those that this run has saved.
    saved: u64,
}

/// The kinds of work that rest after a failure, each for itself.
#[derive(Default)]
struct Retries {
    sealing: Retry,
    openings: Retry,
    rest: Retry,
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
        let eraser = Eraser::new(Arc::clone(&shared), clock.clone(), actors, erasing);
        let sealer = Sealer::new(Arc::clone(&shared), clock.clone());
        let pruner = Pruner::new(Arc::clone(&shared), clock, sessions.max_age());
        Self { shared, sessions, eraser, sealer, pruner, retries: Retries::default(), saved: 0 }
    }

    /// Works until the log has ended, then signs its last checkpoint.
    pub(crate) fn run(&mut self) {
        let mut checkpoint = Timer::new(self.shared.options.checkpoint_interval);
        let mut sessions = Timer::new(SESSIONS_INTERVAL);
        let mut retention = Timer::new(self.shared.options.retention_interval);
        let mut denials = DenialLog::new();
        let mut pause = Duration::ZERO;
        loop {
            // Read this first, so that the round below sees everything that was written before the end.
            let ended = self.shared.is_written();
            self.eraser.take(self.shared.inbox.wait(pause));
            let asked_for = self.shared.inbox.take_sign();
            if checkpoint.is_due() || asked_for || ended {
                self.shared.sign();
            }
            pause = if self.erase() { Duration::ZERO } else { TICK };
            match self.seal() {
                Some(true) => pause = Duration::ZERO,
                Some(false) if retention.is_due() => self.prune_if_due(),
                Some(false) | None => {}
            }
            if sessions.is_due() {
                self.save_sessions();
            }
            denials.tell(&self.shared.denials, ended);
            if ended {
                self.eraser.tell_unfinished();
                self.save_sessions();
                return;
            }
        }
    }

    /// Takes steps of erasures for a while, unless the service ends: the next start finishes them. True if there are more
    /// to take now.
    fn erase(&mut self) -> bool {
        let since = Instant::now();
        let Self { shared, sessions, eraser, retries, .. } = self;
        while !shared.is_closing() {
            if eraser.is_asked() {
                // Somebody who asks is answered, and not made to wait for a pause.
                retries.openings.rest = None;
            }
            let (mut of_openings, mut of_rest) = (Progress::Idle, Progress::Idle);
            retries.openings.attempt("openings cannot be erased yet, which is tried again", || {
                of_openings = eraser.step_openings(&mut **sessions)?;
                Ok(())
            });
            if of_openings == Progress::Idle {
                retries.rest.attempt("an erasure is recorded but not finished, which is tried again", || {
                    of_rest = eraser.step_rest(&mut **sessions)?;
                    Ok(())
                });
            }
            if of_openings != Progress::Going && of_rest != Progress::Going {
                return false;
            }
            if since.elapsed() >= ERASE_SLICE {
                return true;
            }
        }
        false
    }

    /// Seals a unit that has ended. True if there may be more; none if it failed or has to wait.
    fn seal(&mut self) -> Option<bool> {
        if !self.eraser.may_seal() {
            return None;
        }
        let mut has_sealed = false;
        let sealer = &self.sealer;
        let done = self.retries.sealing.attempt("sealing the audit log failed and is tried again", || {
            has_sealed = sealer.seal_ended()?;
            Ok(())
        });
        done.then_some(has_sealed)
    }

    /// Removes what retention no longer keeps. Not the end of a session that was saved as an active one: the next start
    /// would take it for that.
    fn prune_if_due(&mut self) {
        let Some(to_sequence) = self.pruner.due_to() else { return };
        if self.saved < to_sequence {
            self.save_sessions();
        }
        if self.saved >= to_sequence {
            self.pruner.prune_to(to_sequence);
        }
    }

    fn save_sessions(&mut self) {
        match self.sessions.save() {
            Ok(sequence) => self.saved = sequence,
            Err(error) => tracing::warn!(%error, "cannot save the active sessions: the next start takes longer"),
        }
    }
}
