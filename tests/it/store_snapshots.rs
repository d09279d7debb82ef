//! Snapshots: written whole, damaged ones passed over.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis::store::disk::RealDisk;
use portcullis::store::snapshots::{FileSnapshots, MemorySnapshots};
use portcullis::store::{SnapshotError, Snapshots};
use tempfile::TempDir;

use crate::store_disk::{Fault, SimulatedDisk, Survival};

fn open(directory: &Path) -> FileSnapshots {
    FileSnapshots::new(Arc::new(RealDisk), directory)
}

fn paths(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Content that does not compress to nothing, and differs from number to number.
fn content(number: u64) -> Vec<u8> {
    (0..2000).flat_map(|place| (place * number).to_le_bytes()).collect()
}

fn over_all_adapters(check: impl Fn(&dyn Snapshots)) {
    let directory = TempDir::new().unwrap();
    check(&MemorySnapshots::new());
    check(&open(directory.path()));
    let disk = Arc::new(SimulatedDisk::default());
    check(&FileSnapshots::new(disk, "/s"));
}

#[test]
fn the_newest_snapshot_comes_back() {
    over_all_adapters(|snapshots| {
        assert_eq!(snapshots.newest_valid().unwrap(), None);
        for sequence in [0, 1, 2, 10, 1_000_000] {
            snapshots.write(sequence, &content(sequence)).unwrap();
            let newest = snapshots.newest_valid().unwrap();
            assert_eq!(newest, Some((sequence, content(sequence))));
        }
        snapshots.write(u64::MAX, &[]).unwrap();
        assert_eq!(snapshots.newest_valid().unwrap(), Some((u64::MAX, Vec::new())));
    });
}

#[test]
fn the_same_sequence_may_be_written_again() {
    over_all_adapters(|snapshots| {
        snapshots.write(7, b"same").unwrap();
        snapshots.write(7, b"same").unwrap();
        assert_eq!(snapshots.newest_valid().unwrap(), Some((7, b"same".to_vec())));
    });
}

#[test]
fn the_newest_two_are_kept() {
    let directory = TempDir::new().unwrap();
    let snapshots = open(directory.path());
    fs::write(directory.path().join("journal-00000000000000000001.wal"), "x").unwrap();
    for sequence in 1..=5 {
        snapshots.write(sequence, &content(sequence)).unwrap();
    }
    let names: Vec<String> =
        paths(directory.path()).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[1].starts_with("snapshot-00000000000000000004-"));
    assert!(names[2].starts_with("snapshot-00000000000000000005-"));
}

#[test]
fn a_snapshot_damaged_at_any_byte_is_passed_over() {
    let directory = TempDir::new().unwrap();
    let snapshots = open(directory.path());
    snapshots.write(1, b"older").unwrap();
    snapshots.write(2, &content(2)[..300]).unwrap();
    let written = snapshots.newest_valid().unwrap();
    let path = paths(directory.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let older = Some((1, b"older".to_vec()));
    for offset in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        let newest = snapshots.newest_valid().unwrap();
        // zstd has a bit that means nothing: with that changed the content is still what was written.
        assert!(newest == older || offset >= 44 && newest == written, "byte {offset}");
        fs::write(&path, &whole[..offset]).unwrap();
        assert_eq!(snapshots.newest_valid().unwrap(), older, "cut at {offset}");
    }
    fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    assert_eq!(snapshots.newest_valid().unwrap(), older);
    fs::remove_file(&paths(directory.path())[0]).unwrap();
    assert_eq!(snapshots.newest_valid().unwrap(), None);
}

#[test]
fn a_snapshot_under_the_name_of_another_is_passed_over() {
    let directory = TempDir::new().unwrap();
    let snapshots = open(directory.path());
    snapshots.write(1, b"older").unwrap();
    let path = paths(directory.path()).pop().unwrap();
    let path = path.to_str().unwrap();
    fs::copy(path, path.replace("0001-", "0009-")).unwrap();
    snapshots.write(8, b"newer").unwrap();
    let newer = paths(directory.path()).remove(1);
    let (start, _) = newer.to_str().unwrap().rsplit_once('-').unwrap();
    fs::rename(&newer, format!("{start}-00000000.zst")).unwrap();
    assert_eq!(snapshots.newest_valid().unwrap(), Some((1, b"older".to_vec())));
}

#[test]
fn a_newer_format_is_refused() {
    let directory = TempDir::new().unwrap();
    let snapshots = open(directory.path());
    snapshots.write(1, b"older").unwrap();
    let path = paths(directory.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[16] = 2;
    let crc = crate::store_journal::crc32c(&bytes[..40]);
    bytes[40..44].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let error = snapshots.newest_valid().unwrap_err();
    assert!(matches!(error, SnapshotError::NewerFormat { version: 2, .. }), "{error}");
}

#[test]
fn any_zstd_reads_a_snapshot() {
    let directory = TempDir::new().unwrap();
    open(directory.path()).write(3, &content(3)).unwrap();
    let file = fs::read(&paths(directory.path())[0]).unwrap();
    assert_eq!(zstd::decode_all(&file[..]).unwrap(), content(3));
}

#[test]
fn a_write_that_fails_or_is_cut_off_leaves_a_whole_one() {
    for operation in 0..12 {
        for fault in [Fault::Error, Fault::HalfWritten, Fault::Done, Fault::PowerCut] {
            for survival in Survival::ALL {
                let disk = SimulatedDisk::default();
                let snapshots = FileSnapshots::new(Arc::new(disk.clone()), "/s");
                snapshots.write(1, &content(1)).unwrap();
                snapshots.write(2, &content(2)).unwrap();
                disk.fail_at(disk.operations() + operation, fault);
                let written = snapshots.write(3, &content(3));
                disk.power_cycle(survival);
                let newest = snapshots.newest_valid().unwrap().unwrap();
                let expected = if written.is_ok() { 3..=3 } else { 2..=3 };
                assert!(expected.contains(&newest.0), "{operation} {fault:?} {survival:?}");
                assert_eq!(newest.1, content(newest.0));
                snapshots.write(4, &content(4)).unwrap();
                assert_eq!(snapshots.newest_valid().unwrap(), Some((4, content(4))));
            }
        }
    }
}
