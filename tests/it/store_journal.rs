//! The journal: one suite over all adapters, and what the tests of its files share.

use std::path::Path;
use std::sync::Arc;

use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FRAME_BYTES_MAX, FileJournal, JournalOptions, MemoryJournal};
use portcullis::store::{Journal, JournalError};
use tempfile::TempDir;

use crate::store_disk::SimulatedDisk;

/// Small enough that a handful of records makes several segments.
pub(crate) fn small_segments() -> JournalOptions {
    JournalOptions { segment_bytes_max: 300, ..JournalOptions::default() }
}

pub(crate) fn records(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(crate) fn read_all(journal: &dyn Journal) -> Vec<(u64, Vec<u8>)> {
    journal.read_from(journal.first_sequence()).unwrap().map(Result::unwrap).collect()
}

pub(crate) fn open(directory: &Path) -> Result<FileJournal, JournalError> {
    FileJournal::open(Arc::new(RealDisk), directory, small_segments())
}

/// Runs a check over every adapter.
fn over_all_adapters(check: impl Fn(&mut dyn Journal)) {
    let directory = TempDir::new().unwrap();
    check(&mut MemoryJournal::new());
    check(&mut open(directory.path()).unwrap());
    let disk = Arc::new(SimulatedDisk::default());
    check(&mut FileJournal::open(disk, "/j", JournalOptions::default()).unwrap());
}

#[test]
fn an_empty_journal_begins_with_one() {
    over_all_adapters(|journal| {
        assert_eq!(journal.first_sequence(), 1);
        assert_eq!(journal.next_sequence(), 1);
        assert_eq!(journal.read_from(1).unwrap().count(), 0);
        assert_eq!(journal.append(&[]).unwrap(), 1);
        assert_eq!(journal.next_sequence(), 1);
    });
}

#[test]
fn records_come_back_in_order_with_dense_sequences() {
    over_all_adapters(|journal| {
        assert_eq!(journal.append(&records(&["a", "", "ccc"])).unwrap(), 1);
        assert_eq!(journal.append(&records(&["d"])).unwrap(), 4);
        assert_eq!(journal.append(&[vec![7; 1000]]).unwrap(), 5);
        assert_eq!(journal.append(&records(&["f", "g"])).unwrap(), 6);
        let mut expected = records(&["a", "", "ccc", "d"]);
        expected.push(vec![7; 1000]);
        expected.extend(records(&["f", "g"]));
        for first in 1..=8_usize {
            let read: Vec<_> = journal.read_from(first as u64).unwrap().map(Result::unwrap).collect();
            let wanted: Vec<_> = (1..).zip(expected.clone()).skip(first - 1).collect();
            assert_eq!(read, wanted, "from {first}");
        }
    });
}

#[test]
fn positions_outside_are_refused() {
    over_all_adapters(|journal| {
        journal.append(&records(&["a"])).unwrap();
        for sequence in [0, 3, u64::MAX] {
            let error = journal.read_from(sequence).err().unwrap();
            assert!(!error.is_transient());
            assert!(matches!(error, JournalError::OutOfRange { first: 1, next: 2, .. }));
        }
    });
}

#[test]
fn too_much_at_once_is_refused_and_changes_nothing() {
    over_all_adapters(|journal| {
        let record = vec![0; FRAME_BYTES_MAX as usize];
        let error = journal.append(&[record]).unwrap_err();
        assert!(matches!(error, JournalError::TooLarge { .. }), "{error}");
        assert_eq!(journal.append(&records(&["a"])).unwrap(), 1);
    });
}

#[test]
fn truncation_keeps_everything_from_the_position_on() {
    over_all_adapters(|journal| {
        for number in 1..=50_u64 {
            journal.append(&[number.to_le_bytes().to_vec()]).unwrap();
        }
        for sequence in [0, 1, 2, 17, 50, 51, 60] {
            journal.truncate_before(sequence).unwrap();
            let kept = read_all(journal);
            let first = journal.first_sequence();
            assert!(first <= sequence.max(1), "{first} {sequence}");
            assert_eq!(journal.next_sequence(), 51);
            assert!(kept.iter().map(|(sequence, _)| *sequence).eq(first..51));
            assert!(kept.iter().all(|(sequence, bytes)| sequence.to_le_bytes() == **bytes));
        }
        assert_eq!(journal.append(&records(&["next"])).unwrap(), 51);
    });
}

#[test]
fn recovering_what_has_not_failed_changes_nothing() {
    over_all_adapters(|journal| {
        journal.append(&records(&["a"])).unwrap();
        journal.recover().unwrap();
        assert_eq!(journal.append(&records(&["b"])).unwrap(), 2);
        assert_eq!(read_all(journal), [(1, b"a".to_vec()), (2, b"b".to_vec())]);
    });
}

#[test]
fn a_journal_goes_on_after_rolling() {
    over_all_adapters(|journal| {
        journal.roll().unwrap();
        assert_eq!(journal.append(&records(&["a"])).unwrap(), 1);
        journal.roll().unwrap();
        journal.roll().unwrap();
        assert_eq!(journal.next_sequence(), 2);
        assert_eq!(journal.append(&records(&["b", "c"])).unwrap(), 2);
        assert_eq!(journal.append(&records(&["d"])).unwrap(), 4);
        journal.roll().unwrap();
        let expected: Vec<_> = (1..).zip(records(&["a", "b", "c", "d"])).collect();
        assert_eq!(read_all(journal), expected);
        // What was rolled away can be given up.
        journal.truncate_before(2).unwrap();
        assert_eq!(journal.first_sequence(), 2);
    });
}

#[test]
fn redaction_changes_what_it_is_told_to_and_nothing_else() {
    over_all_adapters(|journal| {
        for number in 1..=20_u8 {
            journal.append(&[vec![number; 40], Vec::new(), vec![number; 3]]).unwrap();
        }
        let mut expected = read_all(journal);
        for (from, every) in [(1, 7), (30, 3), (60, 1), (61, 1), (0, 5), (200, 1)] {
            let mut seen = Vec::new();
            let changed = journal.redact(from, &mut |sequence, record| {
                seen.push((sequence, record.to_vec()));
                let wanted = sequence % every == 0 && !record.is_empty();
                if wanted {
                    record.fill(b'#');
                }
                wanted
            });
            assert!(seen.iter().eq(expected.iter().filter(|(sequence, _)| *sequence >= from)), "from {from}");
            let mut wanted = 0;
            for (sequence, record) in &mut expected {
                if *sequence >= from && sequence.is_multiple_of(every) && !record.is_empty() {
                    record.fill(b'#');
                    wanted += 1;
                }
            }
            assert_eq!(changed.unwrap(), wanted);
            assert_eq!(read_all(journal), expected);
            let next = expected.len() as u64 + 1;
            assert_eq!(journal.append(&records(&["next"])).unwrap(), next);
            expected.push((next, b"next".to_vec()));
        }
    });
}

#[test]
fn redaction_in_parts_does_the_same_between_appends() {
    over_all_adapters(|journal| {
        for number in 1..=9_u8 {
            journal.append(&[vec![number; 40], vec![b'?'; 3]]).unwrap();
            if number % 3 == 0 {
                journal.roll().unwrap();
            }
        }
        let mut expected = read_all(journal);
        let (mut part, mut parts) = (0, 0);
        loop {
            let mut edit = |sequence, record: &mut [u8]| {
                let wanted = sequence <= 18 && sequence % 2 == 0 && record != b"###";
                if wanted {
                    record.fill(b'#');
                }
                wanted
            };
            let next = journal.redact_part(part, &mut edit).unwrap();
            parts += 1;
            assert!(parts < 100 && next.is_none_or(|next| next > part), "{part}, {next:?}");
            let sequence = journal.append(&records(&["between"])).unwrap();
            expected.push((sequence, b"between".to_vec()));
            match next {
                Some(next) => part = next,
                None => break,
            }
        }
        for (sequence, record) in &mut expected {
            if *sequence <= 18 && *sequence % 2 == 0 {
                record.fill(b'#');
            }
        }
        assert_eq!(read_all(journal), expected);
    });
}

#[test]
fn redaction_passes_over_what_is_no_longer_kept() {
    over_all_adapters(|journal| {
        assert_eq!(journal.redact(1, &mut |_, _| true).unwrap(), 0);
        journal.append(&records(&["a"])).unwrap();
        journal.roll().unwrap();
        journal.append(&records(&["b"])).unwrap();
        journal.truncate_before(2).unwrap();
        let mut seen = Vec::new();
        let changed = journal.redact(1, &mut |sequence, _| {
            seen.push(sequence);
            false
        });
        assert_eq!(changed.unwrap(), 0);
        assert_eq!(seen, [2]);
    });
}

/// CRC-32C bit by bit: an implementation of its own, so that the stored checksum is held to the standard.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            crc = (crc >> 1) ^ carry;
        }
    }
    !crc
}
