//! When a session ends by itself.
//!
//! Invariant: this depends on the steady times of the session and the options alone, so a correction of the clock neither
//! ends a session nor prolongs it. A session's end does not depend on when it is noticed.
//! Not here: when sessions are looked at (`timers`, `shard`).

use std::time::Duration;

use super::SessionOptions;
use crate::audit::session::{EndReason, SessionEnd, SessionRecord};
use crate::engine::clock::Moment;
use crate::policy::rule::ConnectionType;
use crate::policy::time::Timestamp;

/// How long sessions last.
#[derive(Clone, Copy)]
pub(super) struct Lifetimes {
    idle: Duration,
    max_age: Duration,
}

/// What happened to a session and will happen, by the steady clock. Its record has the decision times.
#[derive(Clone, Copy)]
pub(super) struct Life {
    pub(super) start: Timestamp,
    pub(super) seen: Timestamp,
    pub(super) lease_expire: Option<Timestamp>,
}

impl Life {
    /// That of a session which is read back: the clocks agree at a start.
    pub(super) fn of(record: &SessionRecord) -> Self {
        Self { start: record.start_time, seen: record.last_seen_time, lease_expire: record.lease_expire_time }
    }
}

impl Lifetimes {
    pub(super) fn new(options: &SessionOptions) -> Self {
        Self { idle: options.idle, max_age: options.max_age }
    }

    /// When, by the steady clock, and how the session ends unless something happens before: by the earliest of its
    /// deadlines. Of equal deadlines the age is the last to count.
    pub(super) fn deadline(self, connection_type: ConnectionType, life: &Life) -> (Timestamp, EndReason) {
        let aged = (after(life.start, self.max_age), EndReason::MaxAge);
        let unheard = match connection_type {
            ConnectionType::Shell => life.lease_expire.map(|time| (time, EndReason::LeaseExpired)),
            ConnectionType::Preview => Some((after(life.seen, self.idle), EndReason::Idle)),
        };
        unheard.filter(|unheard| unheard.0 <= aged.0).unwrap_or(aged)
    }

    /// How the session has ended by `now`, if it has.
    pub(super) fn ended_by(self, connection_type: ConnectionType, life: &Life, now: Moment) -> Option<SessionEnd> {
        let (deadline, reason) = self.deadline(connection_type, life);
        (deadline <= now.steady).then(|| SessionEnd { time: now.time_at(deadline), reason })
    }
}

/// The moment that much later, limited to the years of a timestamp.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(time.micros().saturating_add(micros))
}

/// The time in whole microseconds, rounded down.
pub(super) fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.micros())
}

/// The moment in whole microseconds, rounded down.
pub(super) fn whole_moment(moment: Moment) -> Moment {
    Moment { time: whole(moment.time), steady: whole(moment.steady) }
}
