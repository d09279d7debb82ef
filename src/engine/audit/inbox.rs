//! The inbox of the maintenance thread.
//!
//! Invariant: no task and no wake-up is lost: the thread's next wait returns because of it. Once the inbox is closed,
//! every task is dropped, and with it the sender of its reply.
//! Not here: what is done about them (`maintenance`).

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::AuditError;
use super::orders::{EraseRequest, Erased};
use crate::locks::IgnorePoison;

/// Asks to erase a user.
pub(super) struct EraseTask {
    pub(super) request: EraseRequest,
    pub(super) reply: oneshot::Sender<Result<Erased, AuditError>>,
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
    sign: bool,
    closed: bool,
}

impl MaintenanceInbox {
    /// Wakes the thread.
    pub(super) fn wake(&self) {
        self.waiting.lock().ignore_poison().woken = true;
        self.wake.notify_one();
    }

    /// Asks for a checkpoint now.
    pub(super) fn sign(&self) {
        self.waiting.lock().ignore_poison().sign = true;
        self.wake();
    }

    /// Whether a checkpoint was asked for since the last call.
    pub(super) fn take_sign(&self) -> bool {
        std::mem::take(&mut self.waiting.lock().ignore_poison().sign)
    }

    pub(super) fn send(&self, task: EraseTask) {
        let mut waiting = self.waiting.lock().ignore_poison();
        if !waiting.closed {
            waiting.tasks.push(task);
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// Drops the tasks that wait, and all that come later: the thread has ended.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock().ignore_poison();
        waiting.closed = true;
        waiting.tasks.clear();
    }

    /// Waits for tasks, a wake-up or the timeout. Returns the tasks.
    pub(super) fn wait(&self, timeout: Duration) -> Vec<EraseTask> {
        let waiting = self.waiting.lock().ignore_poison();
        let idle = |waiting: &mut Pending| waiting.tasks.is_empty() && !waiting.woken;
        let waited = self.wake.wait_timeout_while(waiting, timeout, idle);
        let mut waiting = waited.ignore_poison().0;
        waiting.woken = false;
        std::mem::take(&mut waiting.tasks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::Actor;

    #[test]
    fn no_task_waits_in_a_closed_inbox() {
        let inbox = MaintenanceInbox::default();
        let send = || {
            let asked_by = Actor { name: "somebody".into() };
            let (organization, email) = (None, "ada@example.com".to_owned());
            let (reply, answer) = oneshot::channel();
            let request = EraseRequest { organization, email, including_actor: false, asked_by };
            inbox.send(EraseTask { request, reply });
            answer
        };
        let before = send();
        inbox.close();
        assert!(before.blocking_recv().is_err());
        assert!(send().blocking_recv().is_err());
    }
}
