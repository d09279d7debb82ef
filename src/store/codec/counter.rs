//! The stored form of match counts and of the state store's high-water mark.
//!
//! Invariant: a damaged mark does not decode.
//! Not here: when they are written (`engine::mirror`).

use crate::policy::name::Id;
use crate::policy::rule::{Rule, RuleMatches};
use crate::policy::time::Timestamp;

/// Names the counter of one creation of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterKey {
    text: String,
}

impl CounterKey {
    /// The key of a rule's counter.
    pub fn new(organization: &Id, rule: &Rule) -> Self {
        let time = rule.create_time;
        Self { text: format!("{organization}/{}/{}.{:09}", rule.id, time.seconds(), time.nanos()) }
    }
}

/// Key and value of a counter: count, last match, start, and the last record of the audit log that is counted, 8 bytes
/// each, times in milliseconds since 1970.
pub fn encode_counter(organization: &Id, rule: &Rule, matches: &RuleMatches, through: u64) -> (Vec<u8>, Vec<u8>) {
    let last = matches.last.map_or(i64::MIN, Timestamp::millis);
    let mut value = Vec::with_capacity(32);
    value.extend_from_slice(&matches.count.to_be_bytes());
    value.extend_from_slice(&last.to_be_bytes());
    value.extend_from_slice(&matches.start.millis().to_be_bytes());
    value.extend_from_slice(&through.to_be_bytes());
    (CounterKey::new(organization, rule).text.into_bytes(), value)
}

/// The counter that key and value are, and the last record that is counted; none when they are none. Earlier versions did
/// not write that record: then it is 0.
pub fn decode_counter(key: &[u8], value: &[u8]) -> Option<(CounterKey, RuleMatches, u64)> {
    let text = std::str::from_utf8(key).ok()?.to_owned();
    let (count, last, start, through) = match value.as_chunks::<8>() {
        ([count, last, start], []) => (count, last, start, 0),
        ([count, last, start, through], []) => (count, last, start, u64::from_be_bytes(*through)),
        _ => return None,
    };
    let last = i64::from_be_bytes(*last);
    let matches = RuleMatches {
        count: u64::from_be_bytes(*count),
        last: (last != i64::MIN).then(|| Timestamp::from_millis(last)),
        start: Timestamp::from_millis(i64::from_be_bytes(*start)),
    };
    Some((CounterKey { text }, matches, through))
}

/// The bytes of a high-water mark, checksum included.
pub fn encode_mark(sequence: u64) -> Vec<u8> {
    let bytes = sequence.to_be_bytes();
    [bytes.as_slice(), &crc32c::crc32c(&bytes).to_be_bytes()].concat()
}

/// The sequence of a mark; none when the bytes are damaged.
pub fn decode_mark(bytes: &[u8]) -> Option<u64> {
    let (sequence, checksum) = bytes.split_first_chunk::<8>()?;
    (checksum == crc32c::crc32c(sequence).to_be_bytes()).then(|| u64::from_be_bytes(*sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_earlier_versions_are_read() {
        let start = Timestamp::from_millis(1_700_000_000_000);
        let value = [7_u64.to_be_bytes(), i64::MIN.to_be_bytes(), start.millis().to_be_bytes()].concat();
        let (_, matches, through) = decode_counter(b"acme/office/1.000000000", &value).unwrap();
        assert_eq!((matches, through), (RuleMatches { count: 7, start, last: None }, 0));
        let now = [value.as_slice(), &9_u64.to_be_bytes()].concat();
        assert_eq!(decode_counter(b"acme/office/1.000000000", &now).unwrap().2, 9);
        assert_eq!(decode_counter(b"acme/office/1.000000000", &now[..31]), None);
    }
}
