//! The clocks of the machine, as a port.
//!
//! Invariant: nothing else reads a clock for what the policy decides.
//! Not here: what time decisions are made at (`clock`); timeouts and intervals, which are the runtime's.

use std::time::{SystemTime, UNIX_EPOCH};

/// Where the time comes from; tests bring their own.
pub trait Source: Send + Sync {
    /// The wall clock, in microseconds since 1970. It may jump at any moment, and show any time.
    fn wall(&self) -> i64;

    /// A clock that runs evenly, in microseconds since some moment before the process started.
    fn steady(&self) -> i64;

    /// Names the span of time in which `steady` counts from the same moment, across processes; none where it is not known.
    fn boot(&self) -> Option<String>;
}

/// The operating system's clocks.
#[derive(Debug, Default)]
pub struct SystemSource;

impl Source for SystemSource {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else has to use")]
    fn wall(&self) -> i64 {
        let micros = |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => micros(since),
            Err(error) => micros(error.duration()).saturating_neg(),
        }
    }

    /// `CLOCK_BOOTTIME`: it counts the time in which the machine is suspended too, as leases must.
    #[cfg(target_os = "linux")]
    fn steady(&self) -> i64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000)
    }

    #[cfg(not(target_os = "linux"))]
    fn steady(&self) -> i64 {
        static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
        i64::try_from(START.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn boot(&self) -> Option<String> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned()).filter(|id| !id.is_empty())
    }
}
