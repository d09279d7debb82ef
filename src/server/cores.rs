//! The threads that Checks are answered on: one for each core, with a runtime of its own.
//!
//! A connection stays on its thread, so that a Check never moves between cores.
//! Long calls run elsewhere (`forward`).
//!
//! Invariant: when this is dropped, every connection ends.
//! Not here: what is done with a connection (`http2`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::accepted::Accepted;
use super::http2::Protocol;
use crate::lifeline::{Failure, spawn};

/// See the module.
#[derive(Debug)]
pub(super) struct Cores {
    cores: Box<[Core]>,
}

#[derive(Debug)]
struct Core {
    /// None once it is told to end.
    accepted: Option<UnboundedSender<(Accepted, Load)>>,
    thread: Option<JoinHandle<()>>,
    /// Its connections.
    load: Arc<AtomicUsize>,
}

/// A connection's part of a core's load.
#[derive(Debug)]
struct Load(Arc<AtomicUsize>);

impl Load {
    fn new(of: &Arc<AtomicUsize>) -> Self {
        of.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(of))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Core {
    /// Starts a thread that runs `work` until that ends.
    fn start<F: Future<Output = ()>>(
        number: usize,
        failure: &Arc<Failure>,
        work: impl FnOnce(UnboundedReceiver<(Accepted, Load)>) -> F + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, accepted) = unbounded_channel();
        let (started, starting) = std::sync::mpsc::sync_channel(1);
        // Built on its thread: a runtime must not be dropped within another.
        let mut begun = Some((started, work, accepted));
        let mut kept = None;
        let run = move || {
            let Some((started, work, accepted)) = begun.take() else { return };
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    drop(started);
                    // Kept beyond this call: dropping it waits for work that blocks.
                    kept.insert(runtime).block_on(work(accepted));
                }
                Err(error) => drop(started.send(error)),
            }
        };
        let thread = spawn(&format!("check-{number}"), failure, run)?;
        if let Ok(error) = starting.recv() {
            return Err(error);
        }
        Ok(Self { accepted: Some(sender), thread: Some(thread), load: Arc::default() })
    }
}

impl Cores {
    /// Starts the threads, one for each core that the process may use.
    pub(super) fn start(protocol: &Protocol, failure: &Arc<Failure>) -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let start = |number| {
            let protocol = protocol.clone();
            Core::start(number, failure, |accepted| serve(accepted, protocol))
        };
        Ok(Self { cores: (0..count).map(start).collect::<io::Result<_>>()? })
    }

    /// Gives a connection to the core that has the fewest.
    pub(super) fn give(&self, accepted: Accepted) {
        if let Some(core) = self.cores.iter().min_by_key(|core| core.load.load(Ordering::Relaxed))
            && let Some(sender) = &core.accepted
        {
            drop(sender.send((accepted, Load::new(&core.load))));
        }
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        for core in &mut self.cores {
            core.accepted = None;
        }
        for core in &mut self.cores {
            if core.thread.take().is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("a thread that answers checks ended by a panic");
            }
        }
    }
}

/// What one thread does, until its channel is closed. Connections that are there then end with the runtime.
async fn serve(mut accepted: UnboundedReceiver<(Accepted, Load)>, protocol: Protocol) {
    while let Some((accepted, load)) = accepted.recv().await {
        let protocol = protocol.clone();
        tokio::spawn(async move {
            protocol.serve(accepted).await;
            drop(load);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_panics_or_ends_early_fails_the_service() {
        for (panics, expected) in [
            (true, "the thread `check-3` panicked"),
            (false, "the thread `check-3` ended while the service was running"),
        ] {
            let failure = Arc::new(Failure::none());
            let work = move |_accepted| async move { assert!(!panics, "as in a test") };
            let core = Core::start(3, &failure, work).unwrap();
            let mut reason = failure.follow();
            let reason = reason.wait_for(Option::is_some).await.unwrap().clone();
            assert_eq!(reason.as_deref(), Some(expected));
            drop(Cores { cores: [core].into() });
        }
    }
}
