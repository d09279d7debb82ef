//! From rounds to a table.
//!
//! Invariant: a ratio is of two rounds that followed one another; its median and its spread over the rounds are shown.
//! Not here: measuring.

use std::time::Duration;

/// What one server did in one round.
pub(crate) struct Round {
    pub(crate) throughput: f64,
    /// Microseconds at p50, p90, p99, p99.9; zeros where single calls were not timed.
    pub(crate) latency: [f64; 4],
    /// Microseconds of processor time in the server for each Check.
    pub(crate) processor: f64,
}

impl Round {
    pub(crate) fn new(mut times: Vec<u32>, elapsed: Duration, processor: Duration) -> Self {
        times.sort_unstable();
        let latency = [500, 900, 990, 999].map(|per_mille| f64::from(at(&times, per_mille)));
        Self { latency, ..Self::counted(times.len(), elapsed, processor) }
    }

    pub(crate) fn counted(count: usize, elapsed: Duration, processor: Duration) -> Self {
        let count = count as f64;
        let (throughput, processor) = (count / elapsed.as_secs_f64(), processor.as_secs_f64() * 1e6 / count);
        Self { throughput, latency: [0.0; 4], processor }
    }
}

/// What so many thousandths of sorted values are not greater than; all of them, the greatest.
pub(crate) fn at<T: Copy + Default>(sorted: &[T], per_mille: usize) -> T {
    sorted.get(sorted.len() * per_mille / 1_000).or(sorted.last()).copied().unwrap_or_default()
}

/// A goal of design.md §6 for a ratio.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    None,
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The median of ratios, the least and the greatest, and whether the median meets the goal.
pub(crate) fn ratio(of: &[Round], to: &[Round], value: impl Fn(&Round) -> f64, goal: Goal) -> String {
    let mut ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| value(of) / value(to)).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |place: usize| ratios.get(place).copied().unwrap_or_default();
    let median = at(ratios.len() / 2);
    let (sign, bound, met) = match goal {
        Goal::AtLeast(bound) => ("≥", bound, median >= bound),
        Goal::AtMost(bound) => ("≤", bound, median <= bound),
        Goal::None => ("", 0.0, true),
    };
    let judged = match goal {
        Goal::None => String::new(),
        _ => format!(", goal {sign} {bound}: {}", if met { "met" } else { "**missed**" }),
    };
    format!("{median:.2} ({:.2}–{:.2}){judged}", at(0), at(ratios.len().saturating_sub(1)))
}

pub(crate) fn value_of(rounds: &[Round], value: impl Fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(value).collect())
}
