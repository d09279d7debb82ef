//! The sealer: one thread for what is done to the log beside writing it: checkpoints, sealing, removing, erasing.
//!
//! Invariant: whatever it does to files leaves the old or the new state whole at every moment, and is taken up again
//! after a crash. Nothing that it does delays a record.
//! Not here: the steps of removing (`pruning`) and erasing (`erasing`).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::erasing::{EraseRequest, Erasing};
use super::queue::Command;
use super::tail::TailUnit;
use super::units::UnitInfo;
use super::{AuditError, Shared};
use crate::audit::merkle::TILE_LEAVES;
use crate::engine::clock::Clock;
use crate::policy::name::Id;
use crate::store::codec::audit::encode_unit_summary;
use crate::store::sealed::{self, SealedUnit, Unit};

/// How often it looks by itself.
const TICK: Duration = Duration::from_millis(100);

/// How often a checkpoint is signed while there is news.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// How often the active sessions are saved.
const SESSIONS_INTERVAL: Duration = Duration::from_mins(1);

/// How often it looks for what is too old.
const RETENTION_INTERVAL: Duration = Duration::from_secs(10);

/// How long it rests after something failed.
const REST: Duration = Duration::from_secs(1);

/// What the sealer is asked to do.
pub(crate) enum Task {
    /// Erases a user.
    Erase {
        request: EraseRequest,
        /// Answers the number of openings and the sequence of the record.
        reply: oneshot::Sender<Result<(u64, u64), AuditError>>,
    },
}

/// How the sealer is reached.
#[derive(Default)]
pub(super) struct SealerInbox {
    tasks: Mutex<(VecDeque<Task>, bool)>,
    wake: Condvar,
}

impl SealerInbox {
    pub(super) fn wake(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.wake.notify_one();
    }

    pub(super) fn send(&self, task: Task) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).0.push_back(task);
        self.wake();
    }

    /// The tasks, once there are some, somebody woke the sealer, or a tick has passed.
    fn wait(&self) -> VecDeque<Task> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |(tasks, woken): &mut (VecDeque<Task>, bool)| tasks.is_empty() && !*woken;
        let waited = self.wake.wait_timeout_while(tasks, TICK, idle);
        let mut tasks = waited.unwrap_or_else(PoisonError::into_inner).0;
        tasks.1 = false;
        std::mem::take(&mut tasks.0)
    }
}

/// What the sealer asks of the sessions.
pub(crate) trait SessionFiles: Send {
    /// Saves the active sessions. A session of an erased user is saved without the user.
    fn save(&mut self) -> Result<(), AuditError>;

    /// Forgets a user, in memory.
    fn erase(&mut self, organization: Option<&Id>, email: &str);

    /// The longest time that a session is open.
    fn max_age(&self) -> Duration;
}

/// What the sealer asks of the policy.
pub(crate) trait ActorFiles: Send {
    /// Erases an actor from what was changed in an organization, or everywhere. Durable when this returns.
    fn erase(&mut self, organization: Option<&Id>, name: &str) -> Result<(), AuditError>;
}

/// What the thread owns.
pub(crate) struct Sealer {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) sessions: Box<dyn SessionFiles>,
    pub(super) actors: Box<dyn ActorFiles>,
    pub(super) erasing: Erasing,
}

/// When something is due again.
struct Timer {
    interval: Duration,
    since: Instant,
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

impl Sealer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        clock: Clock,
        sessions: Box<dyn SessionFiles>,
        actors: Box<dyn ActorFiles>,
        erasing: Erasing,
    ) -> Self {
        Self { shared, clock, sessions, actors, erasing }
    }

    /// Works until the log has ended, then signs what it came to.
    pub(crate) fn run(mut self) {
        let mut checkpoint = Timer::new(CHECKPOINT_INTERVAL);
        let mut sessions = Timer::new(SESSIONS_INTERVAL);
        let mut retention = Timer::new(RETENTION_INTERVAL);
        let mut rest: Option<Timer> = None;
        loop {
            // Read first: what was written before the end is then seen below.
            let ended = self.shared.is_written();
            for task in self.shared.inbox.wait() {
                self.execute(task);
            }
            if checkpoint.is_due() || ended {
                self.sign();
            }
            let resting = rest.as_mut().is_some_and(|rest| !rest.is_due());
            if !resting {
                rest = self.work().err().map(|error| {
                    tracing::warn!(%error, "sealing the audit log failed and is tried again");
                    Timer::new(REST)
                });
                if retention.is_due() && rest.is_none() {
                    self.prune_if_due();
                }
                if sessions.is_due() {
                    self.save_sessions();
                }
            }
            if ended {
                self.save_sessions();
                return;
            }
        }
    }

    fn execute(&mut self, task: Task) {
        match task {
            Task::Erase { request, reply } => drop(reply.send(self.erase(request))),
        }
    }

    fn save_sessions(&mut self) {
        if let Err(error) = self.sessions.save() {
            tracing::warn!(%error, "the active sessions are not saved; a start would take longer");
        }
    }

    /// Signs a checkpoint where there are new records.
    pub(super) fn sign(&self) {
        let head = self.shared.tree().head();
        let mut checkpoints = self.shared.checkpoints();
        if checkpoints.newest().is_some_and(|(newest, _)| newest.size == head.size) {
            return;
        }
        let result = checkpoints.add(&*self.shared.units.disk, head, false);
        log_checkpoint(&checkpoints);
        if let Err(error) = result {
            tracing::warn!(%error, "the checkpoint is not written beside the log");
        }
    }

    /// Seals units that have ended, and ends one that has been open for too long; finishes erasures.
    fn work(&mut self) -> Result<(), AuditError> {
        self.resume_erasing()?;
        for unit in self.shared.tail.units() {
            if unit.read().ended {
                self.seal(&unit)?;
            }
        }
        let too_old = self.clock.now().micros() - micros(self.shared.options.unit_age_max);
        if let Some(unit) = self.shared.tail.oldest() {
            let content = unit.read();
            if content.tiles.first().is_some_and(|tile| tile.min_time < too_old) && content.len() >= TILE_LEAVES {
                self.shared.queue.command(Command::EndUnit);
            }
        }
        Ok(())
    }

    fn seal(&self, unit: &Arc<TailUnit>) -> Result<(), AuditError> {
        let _layout = self.shared.layout();
        let units = &self.shared.units;
        let first_sequence = unit.first_sequence;
        {
            let content = unit.read();
            let bodies = content.bodies();
            let openings: Vec<_> = content.openings.iter().map(super::recovery::to_stored_opening).collect();
            let attachment = encode_unit_summary(&content.summary());
            let sealed = Unit {
                first_sequence,
                bodies: &bodies,
                tiles: &content.tiles,
                postings: &content.index.sorted(),
                openings: &openings,
                attachment: &attachment,
            };
            sealed::write_unit(&*units.disk, units.directory(), &sealed)
        }
        .map_err(|error| AuditError::NotWritable(error.to_string()))?;
        let sealed = SealedUnit::open(&*units.disk, units.directory(), first_sequence)
            .map_err(|error| super::units::unreadable(&error))?;
        let bytes = sealed::unit_bytes(&*units.disk, units.directory(), first_sequence);
        let info = UnitInfo::of(&sealed, bytes.map_err(|error| super::units::unreadable(&error))?);
        units.push_open(sealed, info);
        self.shared.tail.remove(first_sequence);
        self.shared.queue.command(Command::Truncate(info.next_sequence()));
        self.sign_end(info.next_sequence() - 1);
        tracing::debug!(first_sequence, records = info.count, bytes = info.bytes, "a unit of the audit log is sealed");
        Ok(())
    }

    /// Signs the size at which a unit ends, so that this much can be proven even when what follows is removed.
    fn sign_end(&self, size: u64) {
        let tree = self.shared.tree().clone();
        let result = tree.root_at(size, &*self.shared).map_err(|error| std::io::Error::other(error.to_string()));
        let head = result.map(|root| crate::audit::merkle::TreeHead { size, root });
        let written = head.and_then(|head| self.shared.checkpoints().add(&*self.shared.units.disk, head, true));
        if let Err(error) = written {
            tracing::warn!(%error, "the checkpoint of a sealed unit is not written");
        }
    }
}

/// The checkpoint in the log stream, which is kept elsewhere: what was logged cannot be cut off any more.
fn log_checkpoint(checkpoints: &super::Checkpoints) {
    if let Some((head, note)) = checkpoints.newest() {
        let signature = note.lines().last().unwrap_or_default();
        tracing::info!(size = head.size, root = %head.root, signature, "audit checkpoint");
    }
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2)
}
