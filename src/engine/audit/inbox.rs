//! The inbox of the maintenance thread.
//!
//! Invariant: no task and no wake-up is lost: the thread's next wait returns because of it.
//! Not here: what is done about them (`maintenance`).

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::AuditError;
use super::orders::EraseRequest;
use crate::locks::IgnorePoison;

/// Asks to erase a user.
pub(super) struct EraseTask {
    pub(super) request: EraseRequest,
    /// Answers the number of openings and the sequence of the record.
    pub(super) reply: oneshot::Sender<Result<(u64, u64), AuditError>>,
}

/// See the module.
#[derive(Default)]
pub(super) struct MaintenanceInbox {
    waiting: Mutex<Pending>,
    wake: Condvar,
}

#[derive(Default)]
struct Pending {
    tasks: Vec<EraseTask>,
    woken: bool,
}

impl MaintenanceInbox {
    /// Wakes the thread.
    pub(super) fn wake(&self) {
        self.waiting.lock().ignore_poison().woken = true;
        self.wake.notify_one();
    }

    pub(super) fn send(&self, task: EraseTask) {
        self.waiting.lock().ignore_poison().tasks.push(task);
        self.wake.notify_one();
    }

    /// Waits for tasks, a wake-up or the timeout. Returns the tasks.
    pub(super) fn wait(&self, timeout: Duration) -> Vec<EraseTask> {
        let waiting = self.waiting.lock().ignore_poison();
        let idle = |waiting: &mut Pending| waiting.tasks.is_empty() && !waiting.woken;
        let waited = self.wake.wait_timeout_while(waiting, timeout, idle);
        let mut waiting = waited.ignore_poison().0;
        std::mem::take(&mut *waiting).tasks
    }
}
