//! What happens often, counted and told in one line of the log.
//!
//! Invariant: a line has a bounded length, whatever was counted.
//! Not here: what is counted, and how often it is told (`engine::audit::denials`, `api::refusals`).

use std::cmp::Reverse;
use std::time::Duration;

/// The kinds that a line names. The rest is summed up.
const KINDS_MAX: usize = 12;

/// How often a line is told at most.
pub(crate) const INTERVAL: Duration = Duration::from_mins(1);

/// `refused 1,240 times in the last minute: …`, the most frequent kinds first; none where there is nothing to tell.
pub(crate) fn line<K: AsRef<str> + Ord>(
    what: &str,
    period: Duration,
    counts: impl IntoIterator<Item = (K, u64)>,
) -> Option<String> {
    let mut counts: Vec<(K, u64)> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
    counts.sort_by(|(a, a_count), (b, b_count)| (Reverse(a_count), a).cmp(&(Reverse(b_count), b)));
    let sum = |counts: &[(K, u64)]| counts.iter().map(|(_, count)| count).sum::<u64>();
    let total = sum(&counts);
    if total == 0 {
        return None;
    }
    let named = counts.iter().take(KINDS_MAX).map(|(kind, count)| format!("{} {}", kind.as_ref(), grouped(*count)));
    let mut kinds: Vec<String> = named.collect();
    let rest = sum(counts.get(KINDS_MAX..).unwrap_or_default());
    if rest > 0 {
        kinds.push(format!("others {}", grouped(rest)));
    }
    let times = if total == 1 { "once".to_owned() } else { format!("{} times", grouped(total)) };
    let seconds = period.as_secs_f64().ceil();
    let period = if seconds <= 61.0 && period >= INTERVAL { "minute".to_owned() } else { format!("{seconds} s") };
    Some(format!("{what} {times} in the last {period}: {}", kinds.join(", ")))
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_most_frequent_first_and_sums_up_the_rest() {
        let counts = [("b", 40), ("a", 1_200), ("c", 0)];
        let told = line("denied", INTERVAL, counts);
        assert_eq!(told.as_deref(), Some("denied 1,240 times in the last minute: a 1,200, b 40"));
        assert_eq!(line("denied", INTERVAL, [("a", 0)]), None);
        let told = line("denied", Duration::from_millis(2_100), [("a", 1)]);
        assert_eq!(told.as_deref(), Some("denied once in the last 3 s: a 1"));
        let many = (0..20).map(|kind| (format!("k{kind:02}"), 1_000_000));
        let told = line("denied", Duration::from_secs(75), many).unwrap();
        assert!(told.starts_with("denied 20,000,000 times in the last 75 s: k00 1,000,000, k01"), "{told}");
        assert!(told.ends_with("k11 1,000,000, others 8,000,000"), "{told}");
    }
}
