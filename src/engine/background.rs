//! Threads that make way for Checks.
//!
//! A Check that meets the audit writer on its core would wait for it to finish. With a third of the weight the writer
//! is interrupted instead, and has enough: the record of a single Check costs it less than a fifth of what the Check
//! costs others, on streams about as much, and where it falls behind, Checks wait for it. Where the disk's scheduler
//! goes by niceness (BFQ), their writes have less weight too, beside those of other programs.
//!
//! Invariant: they give way, and are still served on the busiest machine.
//! Not here: which threads these are (those who start them).

use std::thread::{Builder, JoinHandle};

/// Steps of niceness, of which each is a fifth less weight.
#[cfg(target_os = "linux")]
const STEPS: i32 = 5;

/// Starts a thread that gives way to the others.
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

/// Elsewhere only whole processes have one.
#[cfg(not(target_os = "linux"))]
fn give_way() {}
