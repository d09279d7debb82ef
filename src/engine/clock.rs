//! The time of decisions and changes.
//!
//! Invariant: `now` is never before the time of the newest durable record, so a system clock that is set back revives
//! no expired rule (design.md §2.2). Policy reads the system clock nowhere else.
//! Not here: timeouts and intervals, which are the runtime's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::policy::time::Timestamp;

/// Where the time comes from; tests bring their own.
pub trait Source: Send + Sync {
    /// Nanoseconds since 1970.
    fn nanos(&self) -> i64;
}

/// The operating system's clock.
#[derive(Debug, Default)]
pub struct SystemSource;

impl Source for SystemSource {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else has to use")]
    fn nanos(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
    }
}

/// The clock of a server.
#[derive(Clone)]
pub struct Clock {
    source: Arc<dyn Source>,
    /// Time of the newest durable record, in nanoseconds since 1970.
    floor: Arc<AtomicI64>,
}

impl Clock {
    /// A clock that has seen no record yet.
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self { source, floor: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// The operating system's clock.
    pub fn system() -> Self {
        Self::new(Arc::new(SystemSource))
    }

    /// The present moment, to the microsecond.
    pub fn now(&self) -> Timestamp {
        let nanos = self.source.nanos().max(self.floor.load(Ordering::Acquire));
        from_nanos(nanos)
    }

    /// Notes that a record of this time is durable.
    pub fn advance_to(&self, time: Timestamp) {
        let nanos = time.seconds().saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos()));
        self.floor.fetch_max(nanos, Ordering::AcqRel);
    }
}

/// To the microsecond, rounded down, which is what is recorded.
fn from_nanos(nanos: i64) -> Timestamp {
    Timestamp::from_micros(nanos.div_euclid(1_000))
}
