//! Sends many ranges to a server in messages of bounded size.
//!
//! Invariant: no message comes near the 4 MiB that proxies and servers commonly accept; the parts together are exactly
//! the ranges, in their order.
//! Not here: which requests carry them (`groups`).

use super::progress::Progress;

/// The most bytes of ranges in one message of a stream: small, so that the progress bar is accurate.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// The most bytes of a request in one message, as servers take it by default.
pub(super) const REQUEST_BYTES_MAX: usize = 16 << 20;

/// The bytes of a range in a message beside its text.
const BYTES_BESIDE_TEXT: usize = 3;

/// Ranges in parts of a bounded size.
struct Parts {
    ranges: std::iter::Peekable<std::vec::IntoIter<String>>,
    bytes_max: usize,
}

impl Parts {
    fn of(ranges: Vec<String>, bytes_max: usize) -> Self {
        Self { ranges: ranges.into_iter().peekable(), bytes_max }
    }
}

impl Iterator for Parts {
    type Item = Vec<String>;

    fn next(&mut self) -> Option<Vec<String>> {
        let mut part = vec![self.ranges.next()?];
        let mut bytes = part.iter().map(|range| range.len() + BYTES_BESIDE_TEXT).sum::<usize>();
        let bytes_max = self.bytes_max;
        while let Some(range) = self.ranges.next_if(|range| bytes + range.len() + BYTES_BESIDE_TEXT <= bytes_max) {
            bytes += range.len() + BYTES_BESIDE_TEXT;
            part.push(range);
        }
        Some(part)
    }
}

/// Shows how many of these ranges were sent.
pub(super) fn progress(ranges: &[String]) -> Progress {
    Progress::new("sending {bar:40} {human_pos}/{human_len} ranges", u64::try_from(ranges.len()).unwrap_or(u64::MAX))
}

/// The messages of one change: `first`, which has no ranges, then `message` of each part.
pub(super) fn messages<M: Send + 'static>(
    first: M,
    ranges: Vec<String>,
    progress: Progress,
    message: impl Fn(Vec<String>) -> M + Send + 'static,
) -> impl Iterator<Item = M> + Send + 'static {
    let parts = Parts::of(ranges, MESSAGE_BYTES_MAX).map(move |ranges| {
        progress.advance(ranges.len());
        message(ranges)
    });
    std::iter::once(first).chain(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_all_ranges_in_order_and_are_bounded() {
        let ranges: Vec<String> = (0..1_000_u32).map(|n| std::net::Ipv4Addr::from(n).to_string()).collect();
        for bytes_max in [1, 10, 11, 100, 1 << 20] {
            let parts: Vec<_> = Parts::of(ranges.clone(), bytes_max).collect();
            assert!(parts.iter().all(|part| {
                let bytes: usize = part.iter().map(|range| range.len() + BYTES_BESIDE_TEXT).sum();
                part.len() == 1 || (part.len() > 1 && bytes <= bytes_max)
            }));
            assert_eq!(parts.concat(), ranges);
        }
        assert_eq!(Parts::of(Vec::new(), 100).count(), 0);
    }
}
