//! The thread `signals`: it hears signals, watches the runtime of the server, and ends a process that hangs.
//!
//! It has a runtime of its own, so that it works whatever the threads of the server wait for.
//!
//! Invariant: the process ends within `drain_timeout` and ten seconds after a signal, and some ten seconds after the runtime
//! of the server stopped, whatever hangs, the log included. Then, and where this thread itself ends, the status is 1.
//! Not here: the orderly end (`server`).

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::bail;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long all may take after a signal and `drain_timeout`. The server gives up what hangs half a second earlier.
const END_TIMEOUT: Duration = Duration::from_millis(9_500);

/// How long the log gets for its last line.
const LAST_LINE_PAUSE: Duration = Duration::from_millis(300);

/// How often the runtime of the server is asked, and how long it may take to answer.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Unanswered probes in a row by which the runtime has stopped.
const PROBES_MAX: u32 = 10;

/// How the thread is heard.
pub(super) struct Signals {
    told: Option<oneshot::Receiver<()>>,
    lost: Lost,
}

/// Whether the thread has ended before a signal came.
#[derive(Clone, Default)]
pub(super) struct Lost(Arc<AtomicBool>);

impl Signals {
    /// Starts the thread. The handlers are installed before this returns, so that a signal during the start is not lost.
    ///
    /// # Errors
    ///
    /// Where the operating system gives no thread, or no file descriptor for it.
    pub(super) fn start(drain: Duration, server: Handle) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handlers = {
            let _entered = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        let (tell, told) = oneshot::channel();
        let watch = watch(handlers, server, tell, drain);
        thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watch))?;
        Ok(Self { told: Some(told), lost: Lost::default() })
    }

    /// Completes when SIGTERM or SIGINT arrives, and when the thread ends: without it no signal would end the service.
    pub(super) fn told(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let (told, lost) = (self.told.take(), self.lost.clone());
        async move {
            if let Some(told) = told
                && told.await.is_err()
            {
                lost.0.store(true, Ordering::Release);
                tracing::error!("the thread `signals` ended, and the service with it");
            }
        }
    }

    /// # Errors
    ///
    /// Where the service was not told to end by a signal, but by the end of the thread.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.lost.0.load(Ordering::Acquire) {
            bail!("the service ended because the thread `signals` did: the log says why; start it again");
        }
        Ok(())
    }
}

/// What the thread does.
async fn watch(
    (mut terminate, mut interrupt): (Signal, Signal),
    server: Handle,
    tell: oneshot::Sender<()>,
    drain: Duration,
) {
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        () = stopped(&server, PROBE_INTERVAL) => {
            end_now("the threads of the server answer nothing any more: the process is ended now")
        }
    };
    tracing::info!(signal = name, "told to stop");
    // Nobody waits for it where the server has ended already.
    let _ = tell.send(());
    sleep(drain + END_TIMEOUT).await;
    end_now("the process did not end in time, because its threads hang: it is ended now");
}

/// Returns when a runtime has left too many probes in a row unanswered. Its own threads end without a word where they
/// panic outside of a task: no connection is accepted then, and no timer fires.
async fn stopped(server: &Handle, interval: Duration) {
    let mut unanswered = 0;
    while unanswered < PROBES_MAX {
        let next = Instant::now() + interval;
        let (answer, answered) = oneshot::channel();
        server.spawn(async move {
            // Its timers are to work, too.
            sleep(Duration::from_millis(1)).await;
            // Too late.
            let _ = answer.send(());
        });
        let is_answered = matches!(timeout(interval, answered).await, Ok(Ok(())));
        unanswered = if is_answered { 0 } else { unanswered + 1 };
        sleep_until(next).await;
    }
}

/// Ends the process, and says why where the log takes it.
fn end_now(why: &str) -> ! {
    // Begun before the line: whatever hangs may hold the log.
    if thread::Builder::new().name("last-resort".to_owned()).spawn(end).is_err() {
        exit(1);
    }
    tracing::error!("{why}");
    end()
}

fn end() -> ! {
    thread::sleep(LAST_LINE_PAUSE);
    exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as it takes to call a runtime stopped, many times over.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_runtime_that_nobody_runs_has_stopped_and_one_that_runs_has_not() {
        let interval = Duration::from_millis(100);
        let idle = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        timeout(PATIENCE, stopped(idle.handle(), Duration::from_millis(1)))
            .await
            .expect("it is taken for a running one");
        idle.shutdown_background();
        let running = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let watched = timeout(2 * PROBES_MAX * interval, stopped(running.handle(), interval)).await;
        assert!(watched.is_err(), "it is taken for a stopped one");
        // After the end nobody answers.
        let handle = running.handle().clone();
        running.shutdown_background();
        timeout(PATIENCE, stopped(&handle, Duration::from_millis(1))).await.expect("it has ended");
    }

    #[tokio::test]
    async fn the_end_of_the_thread_is_an_error_and_a_signal_is_none() {
        for is_lost in [false, true] {
            let (tell, told) = oneshot::channel();
            let mut signals = Signals { told: Some(told), lost: Lost::default() };
            let ends = signals.told();
            if is_lost {
                drop(tell);
            } else {
                tell.send(()).unwrap();
            }
            ends.await;
            assert_eq!(signals.check().is_err(), is_lost);
        }
    }
}
