//! A clock that a test moves, for what the passing of time does: expiry, confirmation, leases, retention.
//!
//! Invariant: it stands still until it is moved, so nothing expires because a machine is busy.
//! Not here: timeouts and how often the service looks, which are the runtime's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis::engine::clock::{Clock, Source};

/// How long a test waits for what a thread of the service does, before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a test looks meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// Two clocks that the test moves: the wall clock, and the one that runs evenly.
#[derive(Clone)]
pub(crate) struct Hand(Arc<Hands>);

struct Hands {
    /// Microseconds since 1970.
    wall: AtomicI64,
    /// Microseconds since the machine was booted.
    steady: AtomicI64,
    /// The number of boots; another hand is another machine.
    boots: AtomicU64,
    machine: u64,
    /// Nobody can tell which boot this is.
    boot_is_hidden: AtomicBool,
    /// How often the wall clock was read.
    readings: AtomicU64,
}

impl Source for Hand {
    fn wall(&self) -> i64 {
        self.0.readings.fetch_add(1, Ordering::SeqCst);
        self.0.wall.load(Ordering::SeqCst)
    }

    fn steady(&self) -> i64 {
        self.0.steady.load(Ordering::SeqCst)
    }

    fn boot(&self) -> Option<String> {
        let is_known = !self.0.boot_is_hidden.load(Ordering::SeqCst);
        is_known.then(|| format!("machine-{}-boot-{}", self.0.machine, self.0.boots.load(Ordering::SeqCst)))
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap()
}

impl Hand {
    /// At a moment of the year 2027 that is second 1,800,000,000.
    pub(crate) fn new() -> Self {
        Self::at(Duration::from_hours(500_000))
    }

    /// At a time since 1970.
    pub(crate) fn at(time: Duration) -> Self {
        Self::at_micros(micros(time))
    }

    /// At a time in microseconds since 1970, or before.
    pub(crate) fn at_micros(wall: i64) -> Self {
        static MACHINES: AtomicU64 = AtomicU64::new(0);
        let machine = MACHINES.fetch_add(1, Ordering::SeqCst);
        let (wall, steady) = (AtomicI64::new(wall), AtomicI64::new(1_000_000_000));
        let (boots, readings, boot_is_hidden) = (AtomicU64::new(1), AtomicU64::new(0), AtomicBool::new(false));
        Self(Arc::new(Hands { wall, steady, boots, machine, boot_is_hidden, readings }))
    }

    /// At the present moment of the operating system, for data that was written by its clock.
    #[expect(clippy::disallowed_methods, reason = "goes on from where another clock was")]
    pub(crate) fn at_present() -> Self {
        Self::at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
    }

    /// Lets time pass until the wall clock shows this.
    pub(crate) fn set(&self, time: Duration) {
        let by = micros(time) - self.wall();
        assert!(by >= 0, "time passes in one direction: `jump` moves the wall clock alone");
        self.advance(Duration::from_micros(by.unsigned_abs()));
    }

    /// Lets time pass: both clocks show it.
    pub(crate) fn advance(&self, by: Duration) {
        self.0.wall.fetch_add(micros(by), Ordering::SeqCst);
        self.0.steady.fetch_add(micros(by), Ordering::SeqCst);
    }

    /// Sets the wall clock forwards or back, by so many seconds. No time passes.
    pub(crate) fn jump(&self, seconds: i64) {
        self.0.wall.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// The machine is booted: the even clock begins again.
    pub(crate) fn boot(&self) {
        self.0.boots.fetch_add(1, Ordering::SeqCst);
        self.0.steady.store(1_000_000, Ordering::SeqCst);
    }

    /// Whether nobody can tell which boot this is, as where no file can be opened.
    pub(crate) fn hide_boot(&self, hide: bool) {
        self.0.boot_is_hidden.store(hide, Ordering::SeqCst);
    }

    /// How often the service has looked at the wall clock.
    pub(crate) fn readings(&self) -> u64 {
        self.0.readings.load(Ordering::SeqCst)
    }

    /// What the wall clock shows, since 1970.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_micros(self.wall().unsigned_abs())
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
