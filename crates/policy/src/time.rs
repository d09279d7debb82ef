//! A moment, which the policy is given as a value, and durations as people write them.
//!
//! Invariant: timestamps compare as the moments do. The nanoseconds are less than one second.
//! Not here: any clock.

use std::time::Duration;

/// A moment in UTC: seconds since 1970 and nanoseconds of that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// 0001-01-01T00:00:00Z, the earliest moment of `google.protobuf.Timestamp`, in seconds since 1970.
    pub const SECONDS_MIN: i64 = -62_135_596_800;
    /// The last second of the year 9999, the latest of `google.protobuf.Timestamp`, in seconds since 1970.
    pub const SECONDS_MAX: i64 = 253_402_300_799;

    /// The moment; none outside the years 1 to 9999, or when `nanos` is a second or more.
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        let valid = (Self::SECONDS_MIN..=Self::SECONDS_MAX).contains(&seconds) && nanos < 1_000_000_000;
        valid.then_some(Self { seconds, nanos })
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after that second.
    pub fn nanos(self) -> u32 {
        self.nanos
    }

    /// Milliseconds since 1970, rounded down.
    pub fn millis(self) -> i64 {
        self.seconds * 1_000 + i64::from(self.nanos / 1_000_000)
    }

    /// The moment so many milliseconds after 1970, clamped to the years 1 to 9999.
    pub fn from_millis(millis: i64) -> Self {
        let seconds = millis.div_euclid(1_000).clamp(Self::SECONDS_MIN, Self::SECONDS_MAX);
        let nanos = u32::try_from(millis.rem_euclid(1_000)).unwrap_or(0) * 1_000_000;
        Self { seconds, nanos }
    }

    /// Whole microseconds since 1970, rounded down.
    pub fn micros(self) -> i64 {
        self.seconds * 1_000_000 + i64::from(self.nanos / 1_000)
    }

    /// The moment so many microseconds after 1970.
    #[inline]
    pub fn from_micros(micros: i64) -> Self {
        let seconds = micros.div_euclid(1_000_000).clamp(Self::SECONDS_MIN, Self::SECONDS_MAX);
        let nanos = u32::try_from(micros.rem_euclid(1_000_000)).unwrap_or(0) * 1_000;
        Self { seconds, nanos }
    }

    /// This moment plus a duration, to the microsecond; at most the last moment of the year 9999.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.micros().saturating_add(micros))
    }

    /// This moment minus a duration, to the microsecond; at least the first moment of the year 1.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.micros().saturating_sub(micros))
    }
}

/// Parses a positive duration: a whole number and `ms`, `s`, `m` or `h`, such as `30s`.
///
/// # Errors
///
/// What is wrong and what to write, as the end of a sentence that begins with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(unit_at);
    let milliseconds_per_unit = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let milliseconds = count.parse().ok().zip(milliseconds_per_unit).and_then(|(n, per): (u64, _)| n.checked_mul(per));
    match milliseconds {
        Some(milliseconds) if milliseconds > 0 => Ok(Duration::from_millis(milliseconds)),
        _ => {
            Err("is not a positive duration: write a whole number and `ms`, `s`, `m` or `h`, such as `30s`".to_owned())
        }
    }
}
