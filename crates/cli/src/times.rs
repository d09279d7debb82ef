//! Times as they are typed and written, in RFC 3339.
//!
//! Invariant: a time that was typed without its date or its offset is refused, never guessed. A refusal shows the right
//! spelling.
//! Not here: the durations of a server's settings (`config`).

use std::time::Duration;

use prost_types::Timestamp;

use portcullis_policy::time::parse_duration;

/// Parses a time in RFC 3339.
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse::<jiff::Timestamp>().map(timestamp).map_err(|_| rfc3339_of(text))
}

/// Parses a time in RFC 3339, or how long it is ago by the clock of this machine.
pub(super) fn parse_moment(text: &str) -> Result<Timestamp, String> {
    relative(text, text, jiff::Timestamp::checked_sub)
        .unwrap_or_else(|| parse_time(text).map_err(|advice| format!("{advice}, or how long it is ago, such as `2h`")))
}

/// Parses a time in RFC 3339, how long it is ago (`2h`), or how long it is until then (`+2h`).
pub(super) fn parse_moment_or_later(text: &str) -> Result<Timestamp, String> {
    if let Some(later) = text.strip_prefix('+').and_then(|span| relative(text, span, jiff::Timestamp::checked_add)) {
        return later;
    }
    parse_moment(text).map_err(|advice| format!("{advice}, or how long it is until then, such as `+2h`"))
}

/// Parses a time to come: in RFC 3339, or how long it is until then (`2h`, `+2h`) by the clock of this machine.
fn parse_later(text: &str) -> Result<Timestamp, String> {
    let span = text.strip_prefix('+').unwrap_or(text);
    let Some(time) = relative(text, span, jiff::Timestamp::checked_add) else {
        return parse_time(text)
            .map_err(|advice| format!("{advice}, or how long it is until then, such as `+2h` or `7d`"));
    };
    // A second is as exact as anybody means it.
    time.map(|time| Timestamp { nanos: 0, ..time })
}

/// When something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    At(Timestamp),
    Never,
}

impl Expiry {
    /// The moment; absent for never.
    pub(super) fn time(self) -> Option<Timestamp> {
        if let Self::At(time) = self { Some(time) } else { None }
    }
}

/// Parses a time to come, `never` or `none`.
pub(super) fn parse_expiry(text: &str) -> Result<Expiry, String> {
    match text {
        "never" | "none" => Ok(Expiry::Never),
        _ => parse_later(text).map(Expiry::At).map_err(|advice| format!("{advice}, or `never`")),
    }
}

/// Parses a positive duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let (count, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    if let Some(span) = days(text).filter(|span| !span.is_zero()).or_else(|| parse_duration(text).ok()) {
        return Ok(span);
    }
    let is_number = count.parse().is_ok_and(|count: u64| count > 0);
    Err(match unit.trim() {
        "" if is_number => format!("has no unit: write `{count}s`, `{count}m`, `{count}h` or `{count}d`"),
        "ms" | "s" | "m" | "h" | "d" if count.chars().all(|digit| digit == '0') && !count.is_empty() => {
            "is no time at all: write 1 or more".to_owned()
        }
        unit if is_number && !matches!(unit, "ms" | "s" | "m" | "h" | "d") => {
            let near = nearest_unit(unit).map(|unit| format!("write `{count}{unit}`; ")).unwrap_or_default();
            format!("has an unknown unit: {near}the units are `ms`, `s`, `m`, `h` and `d`")
        }
        _ => "is not a duration: write a whole number and `ms`, `s`, `m`, `h` or `d`, such as `30s` or `7d`".to_owned(),
    })
}

/// The unit whose name a text begins with.
fn nearest_unit(text: &str) -> Option<&'static str> {
    const NAMES: [(&str, &str); 7] =
        [("ms", "ms"), ("milli", "ms"), ("sec", "s"), ("min", "m"), ("h", "h"), ("d", "d"), ("s", "s")];
    let text = text.to_lowercase();
    NAMES.iter().find(|(name, _)| text.starts_with(name)).map(|(_, unit)| *unit)
}

/// The moment that is a span away from now; absent where the text is none. One that is nearly a span is an error.
fn relative(
    text: &str,
    span: &str,
    away: impl FnOnce(jiff::Timestamp, Duration) -> Result<jiff::Timestamp, jiff::Error>,
) -> Option<Result<Timestamp, String>> {
    let is_span = span.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(['-', ':', 'T']);
    is_span.then(|| {
        let moment = away(jiff::Timestamp::now(), parse_span(span)?);
        moment.map(timestamp).map_err(|_| "is not between the years 1 and 9999".to_owned())
    })
}

/// How to write a time in RFC 3339: the one that was meant, where that can be told.
fn rfc3339_of(text: &str) -> String {
    const EXAMPLE: &str = "write it in RFC 3339, such as `2030-01-31T18:00:00Z`";
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, ""));
    let Ok(date) = date.parse::<jiff::civil::Date>() else { return EXAMPLE.to_owned() };
    if time.is_empty() {
        return format!("write the time of day and the offset from UTC too: `{date}T00:00:00Z`");
    }
    match time.trim().parse::<jiff::civil::Time>() {
        Ok(time) => format!("write the offset from UTC too: `{date}T{time}Z`"),
        Err(_) => EXAMPLE.to_owned(),
    }
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
        assert!(parse_moment("+2h").is_err());
    }

    #[test]
    fn later_moment_is_so_long_from_now() {
        let now = jiff::Timestamp::now().as_second();
        for (time, seconds) in [
            (parse_later("2h"), 7_200),
            (parse_later("+2h"), 7_200),
            (parse_later("7d"), 604_800),
            (parse_moment_or_later("+2h"), 7_200),
            (parse_moment_or_later("2h"), -7_200),
        ] {
            let until = time.unwrap().seconds - now;
            assert!((seconds - 5..=seconds + 5).contains(&until), "{seconds}: {until} s");
        }
        assert_eq!((parse_expiry("never"), parse_expiry("none")), (Ok(Expiry::Never), Ok(Expiry::Never)));
    }

    /// The hazard: a person is told that something is wrong, and not how to write it.
    #[test]
    fn refusal_shows_the_right_spelling() {
        for (refused, says) in [
            (parse_span("10").unwrap_err(), "`10s`, `10m`, `10h` or `10d`"),
            (parse_span("10seconds").unwrap_err(), "write `10s`"),
            (parse_span("3 days").unwrap_err(), "write `3d`"),
            (parse_span("5x").unwrap_err(), "`ms`, `s`, `m`, `h` and `d`"),
            (parse_span("0s").unwrap_err(), "write 1 or more"),
            (parse_span("soon").unwrap_err(), "such as `30s` or `7d`"),
            (parse_moment("10").unwrap_err(), "`10s`, `10m`, `10h` or `10d`"),
            (parse_time("2026-11-30").unwrap_err(), "`2026-11-30T00:00:00Z`"),
            (parse_time("2026-11-30 18:00").unwrap_err(), "`2026-11-30T18:00:00Z`"),
            (parse_later("2026-11-30T18:00:00").unwrap_err(), "`2026-11-30T18:00:00Z`"),
            (parse_later("tomorrow").unwrap_err(), "`+2h`"),
        ] {
            assert!(refused.contains(says), "{says} in {refused}");
        }
        assert_eq!(parse_span("7d"), Ok(Duration::from_hours(7 * 24)));
    }
}
