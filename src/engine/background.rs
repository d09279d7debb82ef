//! Threads with a lower priority than those that answer Checks.
//!
//! At equal priority a Check that meets the audit writer on its core would wait for it. With a third of the weight the
//! writer is preempted instead. That is still enough for it: the record of a single Check costs it less than a fifth of
//! what the Check costs the others. On streams it is about as much, and where the writer falls behind, Checks wait for
//! it. Where the disk's scheduler follows niceness (BFQ), its writes also have less weight beside other programs.
//!
//! Invariant: these threads yield to Checks, and still run on the busiest machine.
//! Not here: which threads these are (those who start them).

use std::thread::{Builder, JoinHandle};

/// Steps of niceness. Each takes a fifth of the weight.
#[cfg(target_os = "linux")]
const STEPS: i32 = 5;

/// Starts a thread with a lower priority.
pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let give_way_and_run = move || {
        give_way();
        run();
    };
    Builder::new().name(name.to_owned()).spawn(give_way_and_run)
}

#[cfg(target_os = "linux")]
fn give_way() {
    use rustix::process::{getpriority_process, setpriority_process};

    // On Linux this is the thread's, not the process'.
    let lowered = getpriority_process(None).and_then(|nice| setpriority_process(None, nice + STEPS));
    if let Err(error) = lowered {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

/// Elsewhere only whole processes have a priority.
#[cfg(not(target_os = "linux"))]
fn give_way() {}
