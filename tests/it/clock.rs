//! A clock that a test moves, for what the passing of time does: expiry, confirmation, leases, retention.
//!
//! Invariant: it stands still until it is moved, so nothing expires because a machine is busy.
//! Not here: timeouts and how often the service looks, which are the runtime's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis::engine::clock::{Clock, Source};

/// How long a test waits for what a thread of the service does, before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a test looks meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// Shows the time that it was set to.
#[derive(Clone)]
pub(crate) struct Hand(Arc<AtomicI64>);

impl Source for Hand {
    fn nanos(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap()
}

impl Hand {
    /// At a moment of the year 2027 that is second 1,800,000,000.
    pub(crate) fn new() -> Self {
        Self::at(Duration::from_hours(500_000))
    }

    /// At a time since 1970.
    pub(crate) fn at(time: Duration) -> Self {
        Self(Arc::new(AtomicI64::new(nanos(time))))
    }

    /// At the present moment of the operating system, for data that was written by its clock.
    #[expect(clippy::disallowed_methods, reason = "goes on from where another clock was")]
    pub(crate) fn at_present() -> Self {
        Self::at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
    }

    pub(crate) fn set(&self, time: Duration) {
        self.0.store(nanos(time), Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(nanos(by), Ordering::SeqCst);
    }

    /// Since 1970.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos().unsigned_abs())
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock::new(Arc::new(self.clone()))
    }
}

/// Waits until a look finds `what`, and returns it. Fails where that takes too long.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = tokio::time::Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "it never came: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
