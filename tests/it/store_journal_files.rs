//! The journal's files: torn, damaged, missing, foreign. A torn end is left out, anything else is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions, JournalReader, Stream};
use portcullis::store::{JournalError, Log, Redaction, Segments};
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

/// Room for frames to come is no torn end, and hides neither one nor damage.
#[test]
fn room_behind_the_last_frame_changes_nothing_about_it() {
    let directory = TempDir::new().unwrap();
    let options = JournalOptions { room_bytes: 4_000, ..JournalOptions::default() };
    let open = || FileJournal::open(Arc::new(RealDisk), directory.path(), options.clone());
    let mut journal = open().unwrap();
    let path = || segments(directory.path()).pop().unwrap();
    journal.append(&records(&["first"])).unwrap();
    let last = HEADER_BYTES + FRAME_HEADER_BYTES + 4 + "first".len();
    assert_eq!(fs::metadata(path()).unwrap().len(), last as u64, "the first needs no more than it takes");
    journal.append(&records(&["other"])).unwrap();
    let (path, last) = (path(), last + FRAME_HEADER_BYTES + 4 + "other".len());
    let size = fs::metadata(&path).unwrap().len();
    journal.append(&[(0..1_500_u32).map(|number| (number % 255) as u8 + 1).collect()]).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), size, "the last was written into the room");
    drop(journal);
    let whole = fs::read(&path).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let reader = JournalReader::open(Arc::new(RealDisk), directory.path(), &options).unwrap();
    assert_eq!((reader.next_sequence(), reader.torn_bytes()), (4, 0));
    for offset in 0..end {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x01;
        fs::write(&path, bytes).unwrap();
        let error = open().err().unwrap();
        assert!(matches!(error, JournalError::Damaged { .. }), "{offset}: {error}");
    }
    let sectors = end.div_ceil(512);
    for missing in 1..1_u32 << sectors {
        let mut bytes = whole.clone();
        for sector in (0..sectors).filter(|sector| missing & (1 << sector) != 0) {
            bytes[(sector * 512).max(last)..sector * 512 + 512].fill(0);
        }
        fs::write(&path, bytes).unwrap();
        assert_eq!(open().unwrap().next_sequence(), 3, "{missing:b}");
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
    assert!(message.contains("restore the file from a copy"), "{message}");
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

#[test]
fn every_stream_has_a_code_of_its_own() {
    for (stream, code) in [(Stream::Policy, 1), (Stream::Audit, 2), (Stream::Sessions, 3)] {
        let directory = TempDir::new().unwrap();
        let options = |stream| JournalOptions { stream, ..JournalOptions::default() };
        let open = |stream| FileJournal::open(Arc::new(RealDisk), directory.path(), options(stream));
        open(stream).unwrap().append(&records(&["a"])).unwrap();
        assert_eq!(fs::read(&segments(directory.path())[0]).unwrap()[10], code);
        for other in [Stream::Policy, Stream::Audit, Stream::Sessions] {
            assert_eq!(open(other).is_ok(), other == stream);
        }
    }
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

#[test]
fn rolling_decides_where_segments_end() {
    let directory = TempDir::new().unwrap();
    let mut journal = FileJournal::open(Arc::new(RealDisk), directory.path(), JournalOptions::default()).unwrap();
    journal.roll().unwrap();
    assert_eq!(segments(directory.path()).len(), 0);
    for text in ["a", "b", "c"] {
        journal.append(&records(&[text, text])).unwrap();
        journal.roll().unwrap();
        journal.roll().unwrap();
    }
    let names: Vec<_> = segments(directory.path());
    let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    let first = |sequence: u64| format!("journal-{sequence:020}.wal");
    assert_eq!(names, [first(1), first(3), first(5), first(7)]);
}

/// The end of a segment that was rolled away is settled: cut off, it is no torn end.
#[test]
fn what_was_rolled_away_must_be_whole() {
    let directory = TempDir::new().unwrap();
    let mut journal = open(directory.path()).unwrap();
    journal.append(&records(&["a"])).unwrap();
    journal.roll().unwrap();
    drop(journal);
    let path = segments(directory.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { sequence: 1, .. }), "{error}");
}

/// Overwrites the record with this sequence.
fn redact(journal: &mut FileJournal, sequence: u64) -> Result<u64, JournalError> {
    journal.redact(sequence, &mut |found, record| {
        let wanted = found == sequence;
        if wanted {
            record.fill(b'#');
        }
        wanted
    })
}

#[test]
fn redaction_changes_a_record_and_two_checksums_of_one_file() {
    let directory = TempDir::new().unwrap();
    let mut expected = sample(directory.path());
    let before: Vec<_> = segments(directory.path()).into_iter().map(|path| fs::read(path).unwrap()).collect();
    let mut journal = open(directory.path()).unwrap();
    assert_eq!(redact(&mut journal, 4).unwrap(), 1);
    expected[3].1.fill(b'#');
    assert_eq!(read_all(&journal), expected);
    drop(journal);
    assert_eq!(read_all(&open(directory.path()).unwrap()), expected);
    let frame = HEADER_BYTES + FRAME_HEADER_BYTES + 4 + 70;
    let record = frame + FRAME_HEADER_BYTES + 4;
    for (index, (path, before)) in segments(directory.path()).into_iter().zip(before).enumerate() {
        let after = fs::read(path).unwrap();
        assert_eq!(after.len(), before.len());
        let changed: Vec<_> = (0..after.len()).filter(|offset| after[*offset] != before[*offset]).collect();
        assert_eq!(changed.is_empty(), index != 1);
        let allowed = |offset: &usize| (frame + 24..frame + 32).contains(offset) || *offset >= record;
        assert!(changed.iter().all(allowed), "{changed:?}");
    }
}

/// The same for frames that do not fit a buffer, the first, a middle one and the last, several records in each.
#[test]
fn redaction_of_large_frames_keeps_everything_else() {
    let directory = TempDir::new().unwrap();
    let options = JournalOptions::default();
    let mut journal = FileJournal::open(Arc::new(RealDisk), directory.path(), options).unwrap();
    for (number, size) in (0_u8..).zip([70_000, 65_536, 10, 200_000, 65_500, 1, 0, 131_072]) {
        journal.append(&[vec![number; size], b"between".to_vec(), vec![number; size / 2]]).unwrap();
    }
    let mut expected = read_all(&journal);
    for sequence in [1, 2, 12, 13, 24, 7, 4] {
        assert_eq!(redact(&mut journal, sequence).unwrap(), 1);
        expected[usize::try_from(sequence).unwrap() - 1].1.fill(b'#');
        assert_eq!(read_all(&journal), expected);
    }
    let changed = journal.redact(1, &mut |_, record| {
        record.fill(b'-');
        true
    });
    assert_eq!(changed.unwrap(), 24);
    for (_, record) in &mut expected {
        record.fill(b'-');
    }
    drop(journal);
    assert_eq!(read_all(&open(directory.path()).unwrap()), expected);
}

#[test]
fn redaction_without_a_change_replaces_no_file() {
    use std::os::unix::fs::MetadataExt;
    let directory = TempDir::new().unwrap();
    let mut journal = open(directory.path()).unwrap();
    for _ in 0..10 {
        journal.append(&[vec![b'x'; 80]]).unwrap();
    }
    let inodes = || {
        let inode = |path: PathBuf| (path.clone(), fs::metadata(path).unwrap().ino());
        segments(directory.path()).into_iter().map(inode).collect::<Vec<_>>()
    };
    let before = inodes();
    assert_eq!(journal.redact(1, &mut |_, _| false).unwrap(), 0);
    assert_eq!(inodes(), before);
    // A second time there is nothing left to do.
    redact(&mut journal, 3).unwrap();
    let before = inodes();
    let again = journal.redact(3, &mut |_, record| record.iter().all(|byte| *byte == b'?'));
    assert_eq!(again.unwrap(), 0);
    assert_eq!(inodes(), before);
}

/// A torn end may hold what is to be erased: a record that was being appended again.
#[test]
fn redaction_drops_a_torn_end() {
    let directory = TempDir::new().unwrap();
    let expected = sample(directory.path());
    let last = segments(directory.path()).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    for (torn, kept) in [(whole[..whole.len() - 1].to_vec(), 6), ([&whole[..], &whole[64..90]].concat(), 7)] {
        fs::write(&last, torn).unwrap();
        let mut journal = open(directory.path()).unwrap();
        journal.redact(1, &mut |_, _| false).unwrap();
        assert_eq!(read_all(&journal), expected[..kept]);
        let size = if kept == 6 { HEADER_BYTES } else { whole.len() };
        assert_eq!(fs::read(&last).unwrap().len(), size);
        journal.append(&records(&["goes on"])).unwrap();
        drop(journal);
        let read = read_all(&open(directory.path()).unwrap());
        assert_eq!(read[..kept], expected[..kept]);
        assert_eq!(read[kept..], [(kept as u64 + 1, b"goes on".to_vec())]);
        for path in segments(directory.path()).split_off(if kept == 6 { 3 } else { 4 }) {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_damaged_segment_is_not_replaced() {
    let directory = TempDir::new().unwrap();
    sample(directory.path());
    let mut journal = open(directory.path()).unwrap();
    let path = segments(directory.path()).remove(1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER_BYTES + 50] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = redact(&mut journal, 4).unwrap_err();
    assert!(matches!(&error, JournalError::Damaged { path: named, sequence: 3, .. } if *named == path), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(journal.append(&records(&["goes on"])).unwrap(), 8);
}
