//! The journal that is only read: a copy to be verified, torn or damaged, on a disk that refuses every change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis::store::disk::{Disk, DiskFile, RealDisk};
use portcullis::store::journal::{JournalOptions, JournalReader, Stream};
use portcullis::store::{JournalError, Log, Segments};
use tempfile::TempDir;

use crate::store_journal::{open, read_all, small_segments};

const HEADER_BYTES: usize = 64;

/// The operating system's files, of which nothing may be changed, nor brought to the disk.
#[derive(Debug)]
struct ReadOnly;

#[derive(Debug)]
struct ReadOnlyFile(Box<dyn DiskFile>);

impl Disk for ReadOnly {
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(directory)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(ReadOnlyFile(RealDisk.open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        panic!("{} is created", path.display())
    }

    fn rename(&self, from: &Path, _: &Path) -> io::Result<()> {
        panic!("{} is renamed", from.display())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        panic!("{} is removed", path.display())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        panic!("{} is synced", directory.display())
    }
}

impl DiskFile for ReadOnlyFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        panic!("a file is written")
    }

    fn sync(&self) -> io::Result<()> {
        panic!("a file is synced")
    }

    fn settle(&self) -> io::Result<()> {
        panic!("a file is settled")
    }
}

/// A journal of four segments, with two records in each but the last, which has one.
fn sample(directory: &Path) -> Vec<(u64, Vec<u8>)> {
    let mut journal = open(directory).unwrap();
    for text in ["one", "two", "three", "four", "five", "six", "seven"] {
        journal.append(&[format!("{text:.<70}").into_bytes()]).unwrap();
    }
    read_all(&journal)
}

fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    files.sort();
    files
}

fn reader(directory: &Path) -> Result<JournalReader, JournalError> {
    JournalReader::open(Arc::new(ReadOnly), directory, &small_segments())
}

fn damaged(directory: &Path) -> (JournalReader, Option<JournalError>) {
    JournalReader::open_damaged(Arc::new(ReadOnly), directory, &small_segments()).unwrap()
}

fn records(reader: &JournalReader) -> Vec<(u64, Vec<u8>)> {
    reader.read_from(reader.first_sequence()).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_reader_reads_what_the_journal_does_and_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let expected = sample(directory.path());
    let mut journal = open(directory.path()).unwrap();
    journal.truncate_before(3).unwrap();
    drop(journal);
    let unfinished = directory.path().join("journal-00000000000000000003.wal.new");
    fs::write(&unfinished, "x").unwrap();
    fs::write(directory.path().join("journal-00000000000000000008.wal"), "").unwrap();
    let before = files(directory.path());
    let reader = reader(directory.path()).unwrap();
    assert_eq!((reader.first_sequence(), reader.next_sequence(), reader.torn_bytes()), (3, 8, 0));
    assert_eq!(records(&reader), expected[2..]);
    let from = reader.read_from(6).unwrap().map(Result::unwrap);
    assert!(from.eq(expected[5..].iter().cloned()));
    for sequence in [2, 9] {
        let error = reader.read_from(sequence).err().unwrap();
        assert!(matches!(error, JournalError::OutOfRange { first: 3, next: 8, .. }), "{error}");
    }
    assert_eq!(files(directory.path()), before);
}

#[test]
fn a_reader_of_an_empty_directory_has_nothing() {
    let directory = TempDir::new().unwrap();
    let options = JournalOptions { first_sequence: 5, ..small_segments() };
    let reader = JournalReader::open(Arc::new(ReadOnly), directory.path(), &options).unwrap();
    assert_eq!((reader.first_sequence(), reader.next_sequence()), (5, 5));
    assert_eq!(reader.read_from(5).unwrap().count(), 0);
    let missing = directory.path().join("missing");
    let error = JournalReader::open_damaged(Arc::new(ReadOnly), missing, &options).err().unwrap();
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
}

#[test]
fn a_reader_tells_how_much_of_the_end_is_torn() {
    let directory = TempDir::new().unwrap();
    let expected = sample(directory.path());
    let (last, whole) = files(directory.path()).pop().unwrap();
    for size in HEADER_BYTES..whole.len() {
        fs::write(&last, &whole[..size]).unwrap();
        let reader = reader(directory.path()).unwrap();
        assert_eq!(reader.torn_bytes(), (size - HEADER_BYTES) as u64);
        assert_eq!(records(&reader), expected[..6]);
        assert_eq!(fs::read(&last).unwrap().len(), size);
    }
}

/// Whichever byte is damaged, the records before it are there, and the fault names the first that is not.
#[test]
fn what_is_before_damage_can_be_read() {
    let directory = TempDir::new().unwrap();
    let expected = sample(directory.path());
    for (index, (path, whole)) in files(directory.path()).into_iter().enumerate() {
        for offset in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[offset] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            let (reader, fault) = damaged(directory.path());
            let Some(JournalError::Damaged { path: named, sequence, .. }) = fault else {
                panic!("{fault:?} at byte {offset}");
            };
            assert_eq!(named, path);
            let in_second = offset >= HEADER_BYTES + 32 + 4 + 70;
            let good = 2 * index + usize::from(in_second);
            assert_eq!(sequence, good as u64 + 1);
            assert_eq!(records(&reader), expected[..good], "byte {offset}");
            assert_eq!(reader.torn_bytes(), 0);
            reader_refuses(directory.path());
        }
        fs::write(&path, whole).unwrap();
    }
    let (reader, fault) = damaged(directory.path());
    assert!(fault.is_none());
    assert_eq!(records(&reader), expected);
}

fn reader_refuses(directory: &Path) {
    let error = reader(directory).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
}

#[test]
fn of_several_faults_the_first_is_told() {
    let directory = TempDir::new().unwrap();
    let expected = sample(directory.path());
    let files = files(directory.path());
    for (index, offset) in [(3, 0), (2, HEADER_BYTES + 50), (1, HEADER_BYTES + 110)] {
        let (path, whole) = &files[index];
        let mut bytes = whole.clone();
        bytes[offset] ^= 1;
        fs::write(path, bytes).unwrap();
        let (reader, fault) = damaged(directory.path());
        let good = 2 * index + usize::from(index == 1);
        assert!(
            matches!(&fault, Some(JournalError::Damaged { sequence, .. }) if *sequence == good as u64 + 1),
            "{fault:?}"
        );
        assert_eq!(records(&reader), expected[..good]);
    }
}

/// The end of a segment is told by the head of the next; where that is damaged, so may be the end.
#[test]
fn a_damaged_head_does_not_make_up_records_before_it() {
    let directory = TempDir::new().unwrap();
    let expected = sample(directory.path());
    let files = files(directory.path());
    let (next, whole) = &files[3];
    let mut bytes = whole.clone();
    bytes[40] ^= 1;
    fs::write(next, bytes).unwrap();
    let (path, whole) = &files[2];
    fs::write(path, &whole[..whole.len() - 1]).unwrap();
    let (reader, fault) = damaged(directory.path());
    assert!(fault.is_some());
    assert_eq!((reader.next_sequence(), reader.torn_bytes()), (6, 0));
    assert_eq!(records(&reader), expected[..5]);
    // The end of a failed append is no fault of its own.
    fs::write(path, [&whole[..], &[1; 500]].concat()).unwrap();
    let (reader, fault) = damaged(directory.path());
    assert!(matches!(&fault, Some(JournalError::Damaged { sequence: 7, path, .. }) if path == next), "{fault:?}");
    assert_eq!(records(&reader), expected[..6]);
}

#[test]
fn what_is_before_a_missing_or_foreign_file_can_be_read() {
    let directory = TempDir::new().unwrap();
    let expected = sample(directory.path());
    let (path, whole) = files(directory.path()).remove(2);
    fs::remove_file(&path).unwrap();
    let (reader, fault) = damaged(directory.path());
    assert!(matches!(fault, Some(JournalError::Missing { expected: 5, found: 7, .. })), "{fault:?}");
    assert_eq!(records(&reader), expected[..4]);
    // Cut short in the middle of the journal, there is no torn end.
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (reader, fault) = damaged(directory.path());
    assert!(matches!(fault, Some(JournalError::Damaged { sequence: 6, .. })), "{fault:?}");
    assert_eq!((records(&reader).len(), reader.torn_bytes()), (5, 0));

    let options = JournalOptions { stream: Stream::Sessions, ..small_segments() };
    let (reader, fault) = JournalReader::open_damaged(Arc::new(ReadOnly), directory.path(), &options).unwrap();
    assert!(matches!(fault, Some(JournalError::Foreign { .. })), "{fault:?}");
    assert_eq!(records(&reader).len(), 0);
}
