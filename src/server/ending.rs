//! The end of the service: why it comes, the drain, closing the engine, and the bound on all of it.
//!
//! Invariant: after a signal the service ends within `drain_timeout` and [`END_TIMEOUT`], after the end of a thread within
//! [`FAILED_DRAIN_TIMEOUT`] and [`FAILED_END_TIMEOUT`], whatever hangs. What hangs is named, and is an error.
//! Not here: signals, and the bound on the process (`cli::signals`).

use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::http2::Phase;
use crate::engine::Engine;
use crate::lifeline::Failure;

/// How long all may take after the drain when the service is told to end.
pub(super) const END_TIMEOUT: Duration = Duration::from_secs(9);

/// How long calls may take to get their refusal after a thread has ended.
const FAILED_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long all may take after that.
const FAILED_END_TIMEOUT: Duration = Duration::from_secs(5);

/// How long connections that are closed early may take to end.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the threads that answer Checks may take to end.
const CORES_TIMEOUT: Duration = Duration::from_secs(1);

/// The end of the service.
pub(super) struct Ending {
    /// How long calls under way may take.
    drain: Duration,
    /// When all is over.
    deadline: Instant,
}

/// Says, when it is dropped, that threads and tasks may end.
pub(super) struct EndsWith(pub(super) Arc<Failure>);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.begin_end();
    }
}

impl Ending {
    /// Waits until the service is told to end, or cannot go on. Then the engine refuses everything.
    pub(super) async fn wait(
        shutdown: impl Future<Output = ()>,
        failure: &Failure,
        engine: &Engine,
        drain: Duration,
    ) -> Self {
        tokio::select! {
            () = shutdown => return Self::told(drain),
            reason = failed(failure.follow()) => engine.fail(&reason),
            _ = failed(engine.failure()) => {}
        }
        let drain = drain.min(FAILED_DRAIN_TIMEOUT);
        Self { drain, deadline: Instant::now() + drain + FAILED_END_TIMEOUT }
    }

    /// The service is told to end now.
    pub(super) fn told(drain: Duration) -> Self {
        Self { drain, deadline: Instant::now() + drain + END_TIMEOUT }
    }

    /// Returns when every connection has ended. Calls that take too long are aborted.
    pub(super) async fn end_connections(
        &self,
        ended: impl Future<Output = ()> + Send + 'static,
        phase: &watch::Sender<Phase>,
    ) {
        phase.send_replace(Phase::Draining);
        let mut ended = Box::pin(ended);
        if timeout(self.drain, ended.as_mut()).await.is_err() {
            tracing::warn!(timeout = ?self.drain, "some calls did not end in time and are aborted");
            phase.send_replace(Phase::CutOff);
            drop(timeout(CUT_OFF_TIMEOUT, ended.as_mut()).await);
        }
        // Dropping it ends the threads that answer Checks: nothing may be decided while the engine closes.
        match timeout(CORES_TIMEOUT, apart("connections-end", move || drop(ended))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("the threads that answer checks did not end cleanly: {error}"),
            Err(_) => tracing::error!("a thread that answers checks does not end: it is left behind"),
        }
    }

    /// Waits until everything acknowledged is durable.
    ///
    /// # Errors
    ///
    /// Where that takes too long or is not possible, the data directory is gone, or a thread has ended before.
    pub(super) async fn close(&self, engine: &Arc<Engine>) -> anyhow::Result<()> {
        let closing = Arc::clone(engine);
        let closed = timeout_at(self.deadline, apart("engine-end", move || closing.close())).await;
        let failure = engine.failure().borrow().clone();
        match closed {
            Ok(closed) => closed.context("the engine did not close")?,
            Err(_) => bail!(
                "the service did not end in time{}, because the thread `{}` does not end: it is given up; changes and \
                 decisions whose answer waits for the disk are durable, the newest others may be lost, and the next start \
                 repairs what was under way",
                failure.map(|reason| format!(" after {reason}")).unwrap_or_default(),
                engine.awaited()
            ),
        }
        if let Some(reason) = failure {
            bail!("the service ended because {reason}: the log says where and why; start it again");
        }
        if engine.is_directory_gone() {
            bail!(
                "the data directory or a file in it was removed or replaced while in use: what was recorded since then is lost"
            );
        }
        let unrecorded = engine.unrecorded();
        if unrecorded > 0 {
            bail!(
                "{unrecorded} decisions could not be recorded: the audit log cannot be written, the lines above say why; \
                 make its disk writable, or room on it, before the next start, which records that decisions are missing"
            );
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Does work that may block, on a thread of its own: the runtime's may all wait for a disk.
async fn apart(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let (done, ended) = oneshot::channel();
    let runtime = Handle::current();
    let work = move || {
        let _entered = runtime.enter();
        work();
        // Nobody waits any more where it took too long.
        let _ = done.send(());
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).context("no thread for it")?;
    ended.await.map_err(|_| anyhow!("it panicked"))
}

/// Waits for a reason.
pub(super) async fn failed(mut followed: watch::Receiver<Option<Arc<str>>>) -> Arc<str> {
    let reason = followed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    match reason {
        Some(reason) => reason,
        // Nobody is left who could fail.
        None => std::future::pending().await,
    }
}
