//! When a unit ends: how many records and bytes it may have, and over which time.
//!
//! Units are removed whole. So retention is as exact as units are small: where it is set, a unit holds no more than one of
//! [`PARTS`] parts of what is kept, or one tile where that is more.
//!
//! Invariant: a unit ends at the end of a tile, because the tree is kept by whole tiles once records are removed.
//! Not here: ending it (`encoder`), and removing units (`pruner`).

use super::options::AuditOptions;
use super::units::micros;
use crate::audit::merkle::TILE_LEAVES;

/// The most records of a unit; their indexes have 16 bits.
pub(super) const UNIT_RECORDS_MAX: usize = 65_536;

/// Bytes of records after which a unit ends with the next tile, for its records are in memory until it is sealed. Usual
/// records never reach it: only a flood of denials by rules with long descriptions does.
const UNIT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Into how many parts retention divides what it keeps. More parts are more files: two for each.
const PARTS: u64 = 256;

/// What a unit may have before it ends with its tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnitLimits {
    /// A multiple of a tile's.
    pub(super) records: usize,
    bytes: usize,
    /// Between its first record and its last, in microseconds.
    span: i64,
}

impl Default for UnitLimits {
    fn default() -> Self {
        Self { records: UNIT_RECORDS_MAX, bytes: UNIT_BYTES_MAX, span: i64::MAX }
    }
}

impl UnitLimits {
    /// Those of a log that keeps so many records.
    pub(super) fn of(options: &AuditOptions, kept: u64) -> Self {
        let mut limits = Self::default();
        if options.retention_age.is_none() && options.retention_bytes.is_none() {
            return limits;
        }
        let tiles = usize::try_from(kept / PARTS).unwrap_or(usize::MAX) / TILE_LEAVES;
        limits.records = tiles.saturating_mul(TILE_LEAVES).clamp(TILE_LEAVES, UNIT_RECORDS_MAX);
        if let Some(age) = options.retention_age {
            limits.span = micros(age) / PARTS.cast_signed();
        }
        if let Some(bytes) = options.retention_bytes {
            limits.bytes = limits.bytes.min(usize::try_from(bytes / PARTS).unwrap_or(usize::MAX));
        }
        limits
    }

    /// Whether a unit with so much has reached one of them.
    pub(super) fn are_reached(&self, records: usize, bytes: usize, span: i64) -> bool {
        records >= self.records || bytes >= self.bytes || span >= self.span
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn units_are_as_large_as_they_can_be_where_nothing_is_removed() {
        assert_eq!(UnitLimits::of(&AuditOptions::default(), 10_000_000), UnitLimits::default());
    }

    #[test]
    fn a_unit_is_a_part_of_what_retention_keeps_and_a_tile_at_least() {
        let by_age = AuditOptions { retention_age: Some(256 * DAY), ..AuditOptions::default() };
        let by_bytes = AuditOptions { retention_bytes: Some(1), ..AuditOptions::default() };
        for (kept, records) in
            [(0, 256), (1, 256), (131_071, 256), (131_072, 512), (1_000_000, 3_840), (u64::MAX, UNIT_RECORDS_MAX)]
        {
            let limits = [&by_age, &by_bytes].map(|options| UnitLimits::of(options, kept));
            assert_eq!(limits.map(|limits| limits.records), [records; 2], "{kept}");
            assert!(limits.iter().all(|limits| limits.are_reached(records, 0, 0)));
        }
        let limits = UnitLimits::of(&by_age, 10_000_000);
        assert!(limits.are_reached(1, 0, micros(DAY)) && !limits.are_reached(1, 0, micros(DAY) - 1));
        assert!(UnitLimits::of(&by_bytes, 10_000_000).are_reached(1, 1, 0), "the limit is a byte");
    }
}
