//! Durations as people type them: `250ms`, `30s`, `5m`, `24h`.
//!
//! Invariant: a duration is positive.
//! Not here: which flags take one.

use std::time::Duration;

/// Parses a positive duration: a whole number and `ms`, `s`, `m` or `h`.
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
