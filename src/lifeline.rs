//! Lifelines: what a thread or task holds whose end would leave the service half alive.
//!
//! Invariant: such a thread never ends unnoticed while the service lives, whether it panics or returns. The first failure is
//! kept; later ones follow from it.
//! Not here: what is done about a failure (`engine::audit::condition`, `server`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use tokio::sync::watch;

/// Whoever is told that a thread has ended.
pub(crate) trait Supervisor: Send + Sync {
    /// Whether threads may end now.
    fn is_ending(&self) -> bool;

    /// Notes why the service cannot go on.
    fn fail(&self, reason: &str);
}

/// Tells the supervisor when it is dropped too early, or by a panic.
pub(crate) struct Lifeline {
    /// Whose it is, such as "the thread `worker`".
    whose: String,
    supervisor: Arc<dyn Supervisor>,
}

/// Why the service cannot go on.
#[derive(Debug)]
pub(crate) struct Failure {
    ending: AtomicBool,
    reason: watch::Sender<Option<Arc<str>>>,
}

impl Lifeline {
    /// The lifeline of a thread or a task.
    pub(crate) fn new<S: Supervisor + 'static>(whose: impl Into<String>, supervisor: &Arc<S>) -> Self {
        Self { whose: whose.into(), supervisor: Arc::<S>::clone(supervisor) }
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        note_end(&self.whose, &*self.supervisor);
    }
}

fn note_end(whose: &str, supervisor: &dyn Supervisor) {
    if std::thread::panicking() {
        supervisor.fail(&format!("{whose} panicked"));
    } else if !supervisor.is_ending() {
        supervisor.fail(&format!("{whose} ended while the service was running"));
    }
}

/// Starts a thread that holds a lifeline.
///
/// What `run` has captured is dropped after the supervisor was told: closing it may wait for a disk. An `FnMut` cannot move
/// it into its own frame, where a panic would drop it before.
pub(crate) fn spawn<S: Supervisor + 'static>(
    name: &str,
    supervisor: &Arc<S>,
    run: impl FnMut() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (whose, supervisor) = (format!("the thread `{name}`"), Arc::clone(supervisor));
    Builder::new().name(name.to_owned()).spawn(move || {
        let mut run = run;
        // Declared after it, so dropped before it.
        let _lifeline = Lifeline::new(whose, &supervisor);
        run();
    })
}

impl Failure {
    /// Nothing has failed.
    pub(crate) fn none() -> Self {
        Self { ending: AtomicBool::new(false), reason: watch::Sender::new(None) }
    }

    /// From now on threads may end.
    pub(crate) fn begin_end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// The first reason; none where nothing has failed.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.reason.borrow().clone()
    }

    /// Follows the reason.
    pub(crate) fn follow(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.reason.subscribe()
    }
}

impl Supervisor for Failure {
    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    fn fail(&self, reason: &str) {
        let is_first = self.reason.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_with(|| reason.into());
            is_first
        });
        // Nothing is logged while the channel is locked.
        if is_first {
            tracing::error!(reason, "the service cannot go on: it refuses all calls and ends");
        } else {
            tracing::error!(reason, "more has failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    /// Its drop waits for a while until the failure is known.
    struct SlowToClose(Arc<Failure>, Arc<AtomicBool>);

    impl Drop for SlowToClose {
        fn drop(&mut self) {
            let dropped = Instant::now();
            while self.0.reason().is_none() && dropped.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.1.store(self.0.reason().is_some(), Ordering::Release);
        }
    }

    #[test]
    fn a_failure_is_known_before_what_the_thread_owns_is_closed() {
        for panics in [true, false] {
            let (failure, was_known) = (Arc::new(Failure::none()), Arc::new(AtomicBool::new(false)));
            let owned = SlowToClose(Arc::clone(&failure), Arc::clone(&was_known));
            run(&failure, move || {
                let _owned = &owned;
                assert!(!panics, "as in a test");
            });
            assert!(was_known.load(Ordering::Acquire), "panics: {panics}");
        }
    }

    fn run(failure: &Arc<Failure>, work: impl FnMut() + Send + 'static) {
        drop(spawn("worker", failure, work).unwrap().join());
    }

    #[test]
    fn a_thread_that_panics_or_ends_early_is_noticed_and_one_that_ends_in_time_is_not() {
        let failure = Arc::new(Failure::none());
        run(&failure, || panic!("as in a test"));
        assert_eq!(failure.reason().as_deref(), Some("the thread `worker` panicked"));

        let failure = Arc::new(Failure::none());
        let mut followed = failure.follow();
        run(&failure, || {});
        assert_eq!(failure.reason().as_deref(), Some("the thread `worker` ended while the service was running"));
        assert!(followed.has_changed().unwrap());
        followed.mark_unchanged();
        run(&failure, || panic!("as in a test"));
        assert!(!followed.has_changed().unwrap(), "the first reason stays");

        let failure = Arc::new(Failure::none());
        failure.begin_end();
        run(&failure, || {});
        assert_eq!(failure.reason(), None);
        run(&failure, || panic!("as in a test"));
        assert!(failure.reason().is_some(), "a panic while the service ends is a failure");
    }
}
