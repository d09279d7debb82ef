//! The journal's files: torn, damaged, missing, foreign. A torn end is left out, anything else is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions, Stream};
use portcullis::store::{Journal, JournalError};
use tempfile::TempDir;

use crate::store_journal::{crc32c, open, read_all, records};

const HEADER_BYTES: usize = 64;
const FRAME_HEADER_BYTES: usize = 32;

/// A journal of four segments, with two records in each but the last, which has one.
fn sample(directory: &Path) -> Vec<(u64, Vec<u8>)> {
    let mut journal = open(directory).unwrap();
    for text in ["one", "two", "three", "four", "five", "six", "seven"] {
        journal.append(&[format!("{text:.<70}").into_bytes()]).unwrap();
    }
    read_all(&journal)
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_journal_is_the_same_after_reopening_and_goes_on() {
    let directory = TempDir::new().unwrap();
    let mut expected = Vec::new();
    for round in 0..5_usize {
        let mut journal = open(directory.path()).unwrap();
        assert_eq!(read_all(&journal), expected);
        for number in 0..round {
            let record = vec![b'x'; 50 * number];
            let sequence = journal.append(std::slice::from_ref(&record)).unwrap();
            expected.push((sequence, record));
        }
    }
    let mut journal = open(directory.path()).unwrap();
    journal.truncate_before(7).unwrap();
    let first = journal.first_sequence();
    drop(journal);
    let journal = open(directory.path()).unwrap();
    assert_eq!(journal.first_sequence(), first);
    assert_eq!(read_all(&journal), expected[usize::try_from(first).unwrap() - 1..]);
}

#[test]
fn a_journal_without_files_begins_where_it_is_told() {
    let directory = TempDir::new().unwrap();
    let options = JournalOptions { first_sequence: 41, ..JournalOptions::default() };
    let mut journal = FileJournal::open(Arc::new(RealDisk), directory.path(), options).unwrap();
    assert_eq!(journal.first_sequence(), 41);
    assert_eq!(journal.append(&records(&["a"])).unwrap(), 41);
    drop(journal);
    assert_eq!(open(directory.path()).unwrap().next_sequence(), 42);
}

/// A crash while the last frame is written leaves any part of it.
#[test]
fn a_tail_torn_at_any_byte_is_left_out_and_the_journal_goes_on() {
    let directory = TempDir::new().unwrap();
    let expected = sample(directory.path());
    let last = segments(directory.path()).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    for size in HEADER_BYTES..whole.len() {
        fs::write(&last, &whole[..size]).unwrap();
        let journal = open(directory.path()).unwrap();
        assert_eq!(read_all(&journal), expected[..6], "{size} bytes");
    }
    // Space that was allotted and never written reads as zeros.
    for size in HEADER_BYTES..HEADER_BYTES + FRAME_HEADER_BYTES {
        let mut zeros = whole[..HEADER_BYTES].to_vec();
        zeros.resize(size, 0);
        fs::write(&last, &zeros).unwrap();
        assert_eq!(read_all(&open(directory.path()).unwrap()), expected[..6]);
    }
    let mut journal = open(directory.path()).unwrap();
    assert_eq!(journal.append(&records(&["new"])).unwrap(), 7);
    drop(journal);
    let read = read_all(&open(directory.path()).unwrap());
    assert_eq!(read[..6], expected[..6]);
    assert_eq!(read[6..], [(7, b"new".to_vec())]);
}

/// Sectors of the last write that did not arrive read as zeros, in any combination.
#[test]
fn a_last_frame_with_missing_sectors_is_left_out() {
    let directory = TempDir::new().unwrap();
    let mut journal = open(directory.path()).unwrap();
    journal.append(&records(&["before"])).unwrap();
    let record: Vec<u8> = (0..3000_u32).map(|number| (number % 255) as u8 + 1).collect();
    journal.append(&[vec![1; 200]]).unwrap();
    journal.append(&[record]).unwrap();
    drop(journal);
    let path = segments(directory.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let sectors = whole.len().div_ceil(512);
    for missing in 1..1_u32 << sectors {
        let mut bytes = whole.clone();
        for sector in (0..sectors).filter(|sector| missing & (1 << sector) != 0) {
            let start = (sector * 512).max(HEADER_BYTES);
            let end = (sector * 512 + 512).min(bytes.len());
            bytes[start..end].fill(0);
        }
        fs::write(&path, bytes).unwrap();
        assert_eq!(open(directory.path()).unwrap().next_sequence(), 3, "{missing:b}");
    }
}

/// Bit rot in what was acknowledged, the last frame included, must never pass for a crash.
#[test]
fn a_byte_changed_anywhere_is_refused() {
    let directory = TempDir::new().unwrap();
    sample(directory.path());
    for path in segments(directory.path()) {
        let whole = fs::read(&path).unwrap();
        for offset in 0..whole.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[offset] ^= change;
                fs::write(&path, bytes).unwrap();
                let error = open(directory.path()).err().unwrap();
                assert!(!error.is_transient(), "{error}");
                assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
            }
        }
        fs::write(&path, whole).unwrap();
    }
    open(directory.path()).unwrap();
}

#[test]
fn a_message_about_damage_says_where_it_is_and_what_to_do() {
    let directory = TempDir::new().unwrap();
    sample(directory.path());
    let path = segments(directory.path()).remove(1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER_BYTES + 50] ^= 1;
    fs::write(&path, bytes).unwrap();
    let message = open(directory.path()).unwrap_err().to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(message.contains("at byte 64 (sequence 3)"), "{message}");
    assert!(message.contains("restore the file from a backup"), "{message}");
}

/// A file cut short in the middle of the journal is no torn tail.
#[test]
fn a_segment_that_is_not_the_last_must_be_whole() {
    let directory = TempDir::new().unwrap();
    sample(directory.path());
    let path = segments(directory.path()).remove(1);
    let whole = fs::read(&path).unwrap();
    for size in 0..whole.len() {
        fs::write(&path, &whole[..size]).unwrap();
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
    }
}

/// More bytes than one unfinished write leaves cannot come from a crash.
#[test]
fn a_bad_frame_with_good_ones_behind_it_is_damage_even_when_it_looks_torn() {
    let directory = TempDir::new().unwrap();
    let options = JournalOptions::default();
    let mut journal = FileJournal::open(Arc::new(RealDisk), directory.path(), options).unwrap();
    for _ in 0..10 {
        journal.append(&[vec![3; 1000]]).unwrap();
    }
    drop(journal);
    let path = segments(directory.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    for sector in 1..whole.len() / 512 - 3 {
        let mut bytes = whole.clone();
        bytes[sector * 512..sector * 512 + 512].fill(0);
        fs::write(&path, bytes).unwrap();
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "sector {sector}: {error}");
    }
}

/// The same where what was lost is exactly the sector that the frame's header is in.
#[test]
fn a_lost_header_with_good_frames_behind_it_is_damage() {
    let directory = TempDir::new().unwrap();
    let options = JournalOptions::default();
    let mut journal = FileJournal::open(Arc::new(RealDisk), directory.path(), options).unwrap();
    let overhead = FRAME_HEADER_BYTES + 4;
    journal.append(&[vec![3; 512 - HEADER_BYTES - overhead]]).unwrap();
    for _ in 0..300 {
        journal.append(&[vec![3; 512 - overhead]]).unwrap();
    }
    drop(journal);
    let path = segments(directory.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    for (lost, refused) in [(1..2, true), (1..299, true), (1..300, true), (300..301, false)] {
        let mut bytes = whole.clone();
        bytes[lost.start * 512..lost.end * 512].fill(0);
        fs::write(&path, bytes).unwrap();
        assert_eq!(open(directory.path()).is_err(), refused, "sectors {lost:?}");
    }
}

#[test]
fn damage_after_the_start_ends_reading_with_an_error() {
    let directory = TempDir::new().unwrap();
    let expected = sample(directory.path());
    let journal = open(directory.path()).unwrap();
    let path = segments(directory.path()).remove(1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER_BYTES + 50] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut records = journal.read_from(1).unwrap();
    let before: Vec<_> = records.by_ref().take(2).map(Result::unwrap).collect();
    assert_eq!(before, expected[..2]);
    let error = records.next().unwrap().unwrap_err();
    assert!(matches!(error, JournalError::Damaged { sequence: 3, .. }), "{error}");
    assert!(records.next().is_none());
}

/// Somebody who may write a description must not be able to make a torn tail look like damage.
#[test]
fn a_frame_spelled_out_in_a_record_is_not_taken_for_one() {
    let elsewhere = TempDir::new().unwrap();
    sample(elsewhere.path());
    let forged = fs::read(segments(elsewhere.path()).pop().unwrap()).unwrap();
    let directory = TempDir::new().unwrap();
    let options = JournalOptions::default();
    let mut journal = FileJournal::open(Arc::new(RealDisk), directory.path(), options).unwrap();
    journal.append(&records(&["before"])).unwrap();
    journal.append(&[forged[HEADER_BYTES..].to_vec()]).unwrap();
    drop(journal);
    let path = segments(directory.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let second = HEADER_BYTES + FRAME_HEADER_BYTES + 4 + "before".len();
    bytes.truncate(bytes.len() - 1);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(open(directory.path()).unwrap().next_sequence(), 2);
    // The header missing, the forged frame still there: its sector is not empty, so this is refused as damage, but for
    // the header and not for a frame that follows.
    bytes[second..second + FRAME_HEADER_BYTES].fill(0);
    fs::write(&path, &bytes).unwrap();
    let message = open(directory.path()).unwrap_err().to_string();
    assert!(!message.contains("follow"), "{message}");
}

#[test]
fn a_missing_segment_is_refused() {
    for index in 1..3 {
        let directory = TempDir::new().unwrap();
        sample(directory.path());
        fs::remove_file(&segments(directory.path())[index]).unwrap();
        let error = open(directory.path()).unwrap_err();
        let (first, last) = (2 * index + 1, 2 * index + 2);
        let expected = format!("records {first} to {last} are missing");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[test]
fn a_segment_under_another_name_is_refused() {
    let directory = TempDir::new().unwrap();
    sample(directory.path());
    let paths = segments(directory.path());
    let renamed = directory.path().join("journal-00000000000000000009.wal");
    fs::rename(paths.last().unwrap(), renamed).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, JournalError::Foreign { .. }), "{error}");
}

#[test]
fn a_newer_format_and_another_stream_are_refused() {
    let directory = TempDir::new().unwrap();
    sample(directory.path());
    let path = segments(directory.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let crc = crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let message = open(directory.path()).unwrap_err().to_string();
    assert!(message.contains("format version 2"), "{message}");
    assert!(message.contains("use a newer portcullis"), "{message}");

    let directory = TempDir::new().unwrap();
    sample(directory.path());
    let options = JournalOptions { stream: Stream::Audit, ..JournalOptions::default() };
    let error = FileJournal::open(Arc::new(RealDisk), directory.path(), options).unwrap_err();
    assert!(matches!(error, JournalError::Foreign { .. }), "{error}");
}

/// On a disk that does not keep order, creating a segment may be cut off with the name there and the header not.
#[test]
fn a_last_segment_without_a_header_is_written_again() {
    for contents in [Vec::new(), vec![0; 10], b"PCJOURN".to_vec(), vec![0; HEADER_BYTES]] {
        let directory = TempDir::new().unwrap();
        let expected = sample(directory.path());
        let path = directory.path().join("journal-00000000000000000008.wal");
        fs::write(&path, contents).unwrap();
        fs::write(directory.path().join("journal-00000000000000000008.wal.new"), "x").unwrap();
        let mut journal = open(directory.path()).unwrap();
        assert_eq!(read_all(&journal), expected);
        assert_eq!(journal.append(&records(&["eight"])).unwrap(), 8);
        drop(journal);
        let journal = open(directory.path()).unwrap();
        assert_eq!(journal.next_sequence(), 9);
        assert_eq!(segments(directory.path()).len(), 5);
    }
}

#[test]
fn other_files_in_the_directory_are_left_alone() {
    let directory = TempDir::new().unwrap();
    let names = ["snapshot-1.zst", "journal-1.wal", "journal-x.wal", "notes"];
    for name in names {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    sample(directory.path());
    open(directory.path()).unwrap();
    assert!(names.iter().all(|name| directory.path().join(name).exists()));
}
