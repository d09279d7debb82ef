//! Times as they are typed and written, in RFC 3339.
//!
//! Invariant: a time that was typed without its date or its offset is refused, never guessed.
//! Not here: durations by themselves (`config`).

use std::time::Duration;

use prost_types::Timestamp;

use portcullis_policy::time::parse_duration;

/// Parses a time in RFC 3339.
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| "write it in RFC 3339, such as `2030-01-31T18:00:00Z`".to_owned())?;
    Ok(timestamp(time))
}

/// Parses a time in RFC 3339, or how long it is ago by the clock of this machine.
pub(super) fn parse_moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = parse_time(text) {
        return Ok(time);
    }
    let ago = days(text).or_else(|| parse_duration(text).ok());
    let time = ago.and_then(|ago| jiff::Timestamp::now().checked_sub(ago).ok());
    time.map(timestamp).ok_or_else(|| {
        "write it in RFC 3339, such as `2030-01-31T18:00:00Z`, or how long it is ago, such as `30m`, `2h` or `7d`"
            .to_owned()
    })
}

/// A time in RFC 3339, with 0, 3, 6 or 9 digits of a second; an invalid one as its numbers.
pub(super) fn rfc3339(time: &Timestamp) -> String {
    let precision = match time.nanos {
        0 => 0,
        n if n % 1_000_000 == 0 => 3,
        n if n % 1_000 == 0 => 6,
        _ => 9,
    };
    match jiff::Timestamp::new(time.seconds, time.nanos) {
        Ok(timestamp) => format!("{timestamp:.precision$}"),
        Err(_) => format!("{}.{:09}", time.seconds, time.nanos),
    }
}

/// A time to the second, by the clock on the wall of this machine.
pub(super) fn local(time: &Timestamp) -> String {
    match jiff::Timestamp::from_second(time.seconds) {
        Ok(timestamp) => {
            timestamp.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => rfc3339(time),
    }
}

fn days(text: &str) -> Option<Duration> {
    let days: u64 = text.strip_suffix('d')?.parse().ok()?;
    days.checked_mul(24 * 60 * 60).map(Duration::from_secs)
}

fn timestamp(time: jiff::Timestamp) -> Timestamp {
    Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_is_a_time_or_so_long_ago() {
        let at = parse_moment("2026-01-31T18:00:00.5+01:00").unwrap();
        assert_eq!((at.seconds, at.nanos), (1_769_878_800, 500_000_000));
        let now = jiff::Timestamp::now().as_second();
        for (text, seconds) in [("30m", 1_800), ("2h", 7_200), ("7d", 604_800)] {
            let ago = now - parse_moment(text).unwrap().seconds;
            assert!((seconds - 5..=seconds + 5).contains(&ago), "{text} is {ago} s ago");
        }
        for wrong in ["", "yesterday", "2026-01-31", "18:00", "2", "-2h", "d", "99999999999999999999d", "9999999999d"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }
}
