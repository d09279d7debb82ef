//! A moment, which the policy is given as a value, and durations as people write them.
//!
//! Invariant: timestamps compare as the moments do. The nanoseconds are less than one second.
//! Not here: any clock.

use std::fmt;
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

    /// The first moment.
    pub const MIN: Self = Self { seconds: Self::SECONDS_MIN, nanos: 0 };

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

impl fmt::Display for Timestamp {
    /// As RFC 3339 in UTC, with as many groups of three digits after the second as it takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, second) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        let (year, month, day) = civil(day);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match self.nanos {
            0 => {}
            nanos if nanos % 1_000_000 == 0 => write!(f, ".{:03}", nanos / 1_000_000)?,
            nanos if nanos % 1_000 == 0 => write!(f, ".{:06}", nanos / 1_000)?,
            nanos => write!(f, ".{nanos:09}")?,
        }
        f.write_str("Z")
    }
}

/// Year, month and day of a day since 1970, in the Gregorian calendar.
fn civil(day: i64) -> (i64, i64, i64) {
    // Counted from 1 March of the year 0, so that a leap day is the last of its year.
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + era * 400, if month < 10 { month + 3 } else { month - 9 });
    (if month <= 2 { year + 1 } else { year }, month, day)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339_says() {
        let of = |seconds, nanos| Timestamp::new(seconds, nanos).map(|time| time.to_string()).unwrap_or_default();
        assert_eq!(of(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(of(1_798_135_200, 0), "2026-12-24T18:00:00Z");
        assert_eq!(of(951_782_399, 500_000_000), "2000-02-28T23:59:59.500Z");
        assert_eq!(of(951_782_400, 1_000), "2000-02-29T00:00:00.000001Z");
        assert_eq!(of(-1, 999_999_999), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(of(Timestamp::SECONDS_MIN, 0), "0001-01-01T00:00:00Z");
        assert_eq!(of(Timestamp::SECONDS_MAX, 0), "9999-12-31T23:59:59Z");
        // A day after the other, every one once.
        let mut last = (1, 1, 0);
        for day in -719_162..2_932_897 {
            let (year, month, of_month) = civil(day);
            let next = if of_month == 1 {
                (last.0 == year && last.1 + 1 == month)
                    || (last.0 + 1 == year && last.1 == 12 && month == 1)
                    || day == -719_162
            } else {
                (year, month, of_month) == (last.0, last.1, last.2 + 1)
            };
            assert!(next && of_month <= 31, "{year}-{month}-{of_month} after {last:?}");
            last = (year, month, of_month);
        }
    }
}
