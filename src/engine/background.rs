//! Threads with a lower priority than those that answer Checks.
//!
//! At equal priority a Check would wait for the audit writer on its core. With a third of the weight the writer is
//! preempted instead. That suffices: a single Check costs the writer less than a fifth of what it costs the threads that
//! serve. On streams the two cost about the same, and backpressure slows the Checks where the writer falls behind. Where
//! the disk's scheduler follows niceness (BFQ), the writer's writes also have less weight beside other programs.
//!
//! Invariant: these threads yield to Checks, and still run on the busiest machine.
//! Not here: which threads these are (`start`).

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::lifeline::{self, Supervisor};

/// Steps of niceness. Each takes a fifth of the weight.
#[cfg(target_os = "linux")]
const STEPS: i32 = 5;

/// Starts a thread with a lower priority. It holds a lifeline.
pub(super) fn spawn<S: Supervisor + 'static>(
    name: &str,
    supervisor: &Arc<S>,
    mut run: impl FnMut() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    lifeline::spawn(name, supervisor, move || {
        lower_priority();
        run();
    })
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    use rustix::process::{getpriority_process, setpriority_process};

    // On Linux this is the thread's, not the process'.
    let lowered = getpriority_process(None).and_then(|nice| setpriority_process(None, nice + STEPS));
    if let Err(error) = lowered {
        tracing::debug!(%error, "cannot lower the priority of a background thread");
    }
}

/// Elsewhere only whole processes have a priority.
#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
