//! When a session ends by itself.
//!
//! Invariant: this depends on the session's record and the options alone. A session's end does not depend on when it is
//! noticed.
//! Not here: when sessions are looked at (`timers`, `shard`).

use std::time::Duration;

use super::SessionOptions;
use crate::audit::session::{EndReason, SessionEnd, SessionRecord};
use crate::policy::rule::ConnectionType;
use crate::policy::time::Timestamp;

/// How long sessions last.
#[derive(Clone, Copy)]
pub(super) struct Lifetimes {
    idle: Duration,
    max_age: Duration,
}

impl Lifetimes {
    pub(super) fn new(options: &SessionOptions) -> Self {
        Self { idle: options.idle, max_age: options.max_age }
    }

    /// How the session ends unless something happens before: by the earliest of its deadlines. Of equal deadlines the
    /// age is the last to count.
    pub(super) fn end_of(self, record: &SessionRecord) -> SessionEnd {
        let aged = SessionEnd { time: after(record.start_time, self.max_age), reason: EndReason::MaxAge };
        let unheard = match record.connection_type {
            ConnectionType::Shell => {
                record.lease_expire_time.map(|time| SessionEnd { time, reason: EndReason::LeaseExpired })
            }
            ConnectionType::Preview => {
                Some(SessionEnd { time: after(record.last_seen_time, self.idle), reason: EndReason::Idle })
            }
        };
        unheard.filter(|unheard| unheard.time <= aged.time).unwrap_or(aged)
    }

    /// How the session has ended by `now`, if it has.
    pub(super) fn ended_by(self, record: &SessionRecord, now: Timestamp) -> Option<SessionEnd> {
        Some(self.end_of(record)).filter(|end| end.time <= now)
    }
}

/// The moment that much later, limited to the years of a timestamp.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(time.micros().saturating_add(micros))
}

/// The moment in whole microseconds, rounded down.
pub(super) fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.micros())
}
