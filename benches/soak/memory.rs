//! Whether the memory of the service stays as it is.
//!
//! Invariant: the last quarter of the time is held against the second one, medians against medians, with a bound that is
//! stated beforehand. The first quarter, in which it warms up, counts for nothing.
//! Not here: what makes memory grow.

use std::time::Duration;

pub(crate) const MIB: f64 = (1 << 20) as f64;

/// What may be gained from the second quarter to the last: a part of it, and so much for what an allocator does.
const GROWTH: f64 = 0.05;
const SLACK: f64 = 8.0 * MIB;

/// Bytes that stay in memory for every record: the nodes of the tree above it (docs/decisions/0011, `audit::merkle`).
const BYTES_A_RECORD: f64 = 0.25;

/// The newest records are in memory with their index until their unit is full; so much at the most. Over many units the
/// medians do not see it, over few they might.
const UNIT_RECORDS: f64 = 65_536.0;
const UNIT_BYTES: f64 = 24.0 * MIB;
const FEW_UNITS: f64 = 4.0;

/// The service at a moment.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) resident: u64,
    pub(crate) sessions: i64,
    /// Records of the log so far.
    pub(crate) records: u64,
}

/// What the samples say.
pub(crate) struct Verdict {
    pub(crate) is_flat: bool,
    pub(crate) text: String,
}

pub(crate) fn judge(samples: &[Sample]) -> Verdict {
    let quarter = |number: usize| {
        let length = samples.len() / 4;
        samples.get(number * length..(number + 1) * length).unwrap_or_default()
    };
    let (second, last) = (quarter(1), quarter(3));
    let resident = |sample: &Sample| sample.resident as f64;
    let records = |sample: &Sample| sample.records as f64;
    let (from, to) = (median(second, &resident), median(last, &resident));
    // Two quarters lie between the two.
    let written = median(last, &records) - median(second, &records);
    let few = if written / 2.0 < FEW_UNITS * UNIT_RECORDS { UNIT_BYTES } else { 0.0 };
    let kept = BYTES_A_RECORD * written;
    let bound = from * GROWTH + SLACK + kept + few;
    let is_flat = to - from <= bound;
    let settled = samples.get(samples.len() / 4..).unwrap_or_default();
    let sessions = |sample: &Sample| sample.sessions as f64;
    let text = format!(
        "resident {:.1} MiB in the second quarter, {:.1} MiB in the last: {:+.1} MiB, at most {:+.1} (5 % + 8 MiB, {:.1} \
         MiB for the tree of the log, {:.0} MiB for the unit being filled); slope {:+.1} MiB/h; sessions {:.0}, then {:.0}",
        from / MIB,
        to / MIB,
        (to - from) / MIB,
        bound / MIB,
        kept / MIB,
        few / MIB,
        slope(settled) * 3_600.0 / MIB,
        median(second, &sessions),
        median(last, &sessions),
    );
    Verdict { is_flat, text }
}

fn median(samples: &[Sample], of: &dyn Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Bytes a second, by least squares.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (|sample: &Sample| sample.at.as_secs_f64(), |sample: &Sample| sample.resident as f64);
    let (mean_x, mean_y) = (mean(&x), mean(&y));
    let together: f64 = samples.iter().map(|sample| (x(sample) - mean_x) * (y(sample) - mean_y)).sum();
    let spread: f64 = samples.iter().map(|sample| (x(sample) - mean_x).powi(2)).sum();
    if spread > 0.0 { together / spread } else { 0.0 }
}
