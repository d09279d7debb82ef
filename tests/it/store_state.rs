//! State stores: one suite over all adapters, and what sled may find at the start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use portcullis::store::state::{MemoryState, Reopened, SledState};
use portcullis::store::{Batch, Keyspace, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX, StateError, StateStore};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

fn over_all_adapters(check: impl Fn(&dyn StateStore)) {
    let directory = TempDir::new().unwrap();
    check(&MemoryState::new());
    let (store, reopened) = SledState::open(directory.path().join("sled")).unwrap();
    assert_eq!(reopened, Reopened::Fresh);
    check(&store);
}

fn put(store: &dyn StateStore, keyspace: Keyspace, key: &str, value: &str) {
    let mut batch = Batch::new();
    batch.put(keyspace, key, value);
    store.apply(&batch).unwrap();
}

/// All entries of a keyspace, read in pages of the size given.
fn entries(store: &dyn StateStore, keyspace: Keyspace, page_entries: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let mut from = Vec::new();
    loop {
        let page = store.scan(keyspace, &from, page_entries).unwrap();
        assert!(page.entries.len() <= page_entries.max(1));
        all.extend(page.entries);
        let Some(next) = page.next else { return all };
        from = next;
    }
}

#[test]
fn what_is_put_comes_back_and_what_is_deleted_does_not() {
    over_all_adapters(|store| {
        assert_eq!(store.get(Keyspace::Policy, b"k").unwrap(), None);
        put(store, Keyspace::Policy, "k", "1");
        put(store, Keyspace::Policy, "", "empty key");
        put(store, Keyspace::Meta, "k", "");
        assert_eq!(store.get(Keyspace::Policy, b"k").unwrap(), Some(b"1".to_vec()));
        assert_eq!(store.get(Keyspace::Policy, b"").unwrap(), Some(b"empty key".to_vec()));
        assert_eq!(store.get(Keyspace::Meta, b"k").unwrap(), Some(Vec::new()));
        assert_eq!(store.get(Keyspace::Counters, b"k").unwrap(), None);
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch.delete(Keyspace::Policy, "k");
        batch.delete(Keyspace::Policy, "never there");
        store.apply(&batch).unwrap();
        assert_eq!(store.get(Keyspace::Policy, b"k").unwrap(), None);
        assert_eq!(store.get(Keyspace::Meta, b"k").unwrap(), Some(Vec::new()));
        store.flush().unwrap();
    });
}

#[test]
fn later_changes_of_a_batch_win() {
    over_all_adapters(|store| {
        let mut batch = Batch::new();
        batch.put(Keyspace::Meta, "a", "1");
        batch.put(Keyspace::Meta, "b", "1");
        batch.delete(Keyspace::Meta, "a");
        batch.put(Keyspace::Meta, "b", "2");
        store.apply(&batch).unwrap();
        assert_eq!(entries(store, Keyspace::Meta, 10), [(b"b".to_vec(), b"2".to_vec())]);
    });
}

#[test]
fn what_is_too_large_is_refused_with_its_whole_batch() {
    over_all_adapters(|store| {
        let value = vec![7; STATE_VALUE_BYTES_MAX];
        let key = vec![7; STATE_KEY_BYTES_MAX];
        let mut batch = Batch::new();
        batch.put(Keyspace::Meta, key.clone(), value.clone());
        store.apply(&batch).unwrap();
        assert_eq!(store.get(Keyspace::Meta, &key).unwrap(), Some(value));
        for (key_bytes, value_bytes) in [(1, STATE_VALUE_BYTES_MAX + 1), (STATE_KEY_BYTES_MAX + 1, 1)] {
            let mut batch = Batch::new();
            batch.put(Keyspace::Meta, "small", "1");
            batch.put(Keyspace::Meta, vec![1; key_bytes], vec![1; value_bytes]);
            let error = store.apply(&batch).unwrap_err();
            assert!(matches!(error, StateError::TooLarge { .. }) && !error.is_transient());
            assert_eq!(store.get(Keyspace::Meta, b"small").unwrap(), None);
        }
    });
}

#[test]
fn a_scan_is_in_order_and_stays_in_its_tree() {
    over_all_adapters(|store| {
        for keyspace in Keyspace::ALL {
            for key in ["b", "a", "\u{7f}", "", "ab"] {
                put(store, keyspace, key, key);
            }
        }
        let keys = ["", "a", "ab", "b", "\u{7f}"].map(|key| key.as_bytes().to_vec());
        for keyspace in Keyspace::ALL {
            for page_entries in [0, 1, 2, 5, 100] {
                let read = entries(store, keyspace, page_entries);
                assert!(read.iter().map(|(key, _)| key).eq(&keys), "{page_entries}");
            }
            let page = store.scan(keyspace, b"aa", 2).unwrap();
            assert!(page.entries.iter().map(|(key, _)| key).eq(&keys[2..4]));
            assert_eq!(page.next.as_ref(), Some(&keys[4]));
        }
    });
}

#[test]
fn a_page_ends_before_it_takes_much_memory() {
    over_all_adapters(|store| {
        for key in 0..100_u8 {
            let mut batch = Batch::new();
            batch.put(Keyspace::Policy, [key], vec![key; STATE_VALUE_BYTES_MAX]);
            store.apply(&batch).unwrap();
        }
        let page = store.scan(Keyspace::Policy, &[], 1000).unwrap();
        assert!(page.entries.len() < 60 && page.next.is_some());
        assert_eq!(entries(store, Keyspace::Policy, 1000).len(), 100);
    });
}

#[test]
fn clearing_leaves_nothing() {
    over_all_adapters(|store| {
        for keyspace in Keyspace::ALL {
            let mut batch = Batch::new();
            for key in 0..2500_u32 {
                batch.put(keyspace, key.to_be_bytes(), "v");
            }
            store.apply(&batch).unwrap();
        }
        store.clear().unwrap();
        for keyspace in Keyspace::ALL {
            assert!(entries(store, keyspace, 10).is_empty());
        }
        put(store, Keyspace::Policy, "k", "v");
        assert_eq!(entries(store, Keyspace::Policy, 10).len(), 1);
    });
}

#[test]
fn any_changes_are_those_of_an_ordered_map() {
    let keyspace = prop::sample::select(Keyspace::ALL.to_vec());
    let key = prop::collection::vec(any::<u8>(), 0..4);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    let batches = prop::collection::vec(prop::collection::vec((keyspace, key, value), 0..12), 0..12);
    over_all_adapters(|store| {
        let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
        let result = runner.run(&batches, |batches| {
            store.clear().unwrap();
            let mut model = BTreeMap::new();
            for changes in batches {
                let mut batch = Batch::new();
                for (keyspace, key, value) in changes {
                    if let Some(value) = value {
                        batch.put(keyspace, key.clone(), value.clone());
                        model.insert((keyspace, key), value);
                    } else {
                        batch.delete(keyspace, key.clone());
                        model.remove(&(keyspace, key));
                    }
                }
                store.apply(&batch).unwrap();
            }
            for keyspace in Keyspace::ALL {
                let expected = model
                    .iter()
                    .filter(|((of, _), _)| *of == keyspace)
                    .map(|((_, key), value)| (key.clone(), value.clone()));
                prop_assert!(entries(store, keyspace, 3).into_iter().eq(expected));
            }
            Ok(())
        });
        result.unwrap();
    });
}

/// A closed sled directory with a few hundred entries, and the contents of its files.
fn sample(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (store, _) = SledState::open(path).unwrap();
    for batch_number in 0..20_u8 {
        let mut batch = Batch::new();
        for key in 0..20_u8 {
            batch.put(Keyspace::Policy, [batch_number, key], vec![key; 100]);
        }
        store.apply(&batch).unwrap();
    }
    store.flush().unwrap();
    drop(store);
    let mut files = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let file = entry.unwrap().path();
        if file.is_file() {
            files.push((file.clone(), fs::read(file).unwrap()));
        }
    }
    files.sort();
    files
}

fn write_all(path: &Path, files: &[(PathBuf, Vec<u8>)]) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else if path.exists() {
        fs::remove_file(path).unwrap();
    }
    fs::create_dir_all(path.join("blobs")).unwrap();
    for (file, bytes) in files {
        fs::write(file, bytes).unwrap();
    }
}

/// Opens whatever is there, uses it, and sees that it can be used again after a restart.
fn check_usable(path: &Path) -> Reopened {
    let (store, reopened) = SledState::open_or_move_aside(path).unwrap();
    let mut batch = Batch::new();
    batch.put(Keyspace::Meta, "mark", "1");
    let used = store.scan(Keyspace::Policy, &[], 1000).and_then(|_| store.apply(&batch)).and_then(|()| store.flush());
    let Err(error) = used else { return reopened };
    assert!(matches!(error, StateError::Damaged { .. }), "{error}");
    assert!(store.get(Keyspace::Meta, b"mark").is_err(), "a damaged store still answers");
    drop(store);
    let (store, reopened) = SledState::open_or_move_aside(path).unwrap();
    assert!(matches!(reopened, Reopened::MovedAside(_)), "{reopened:?}");
    store.apply(&batch).unwrap();
    reopened
}

#[test]
fn a_store_comes_back_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("sled");
    sample(&path);
    let (store, reopened) = SledState::open(&path).unwrap();
    assert_eq!(reopened, Reopened::Existing);
    assert_eq!(entries(&store, Keyspace::Policy, 50).len(), 400);
    let error = SledState::open_or_move_aside(&path).unwrap_err();
    assert!(matches!(error, StateError::InUse { .. }), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn missing_files_make_a_fresh_store_or_one_moved_aside() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("sled");
    let files = sample(&path);
    fs::remove_dir_all(&path).unwrap();
    assert_eq!(check_usable(&path), Reopened::Fresh);
    for missing in 0..files.len() {
        let mut rest = files.clone();
        rest.remove(missing);
        write_all(&path, &rest);
        check_usable(&path);
    }
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "a file").unwrap();
    assert!(matches!(check_usable(&path), Reopened::MovedAside(_)));
}

/// A process that died, or hung, while sled opened.
#[test]
fn a_store_whose_opening_never_ended_is_moved_aside_unopened() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("sled");
    sample(&path);
    fs::write(directory.path().join("sled-suspect"), "").unwrap();
    let error = SledState::open(&path).unwrap_err();
    assert!(matches!(error, StateError::Damaged { .. }) && !error.is_transient(), "{error}");
    let aside = directory.path().join("sled-damaged-1");
    assert_eq!(check_usable(&path), Reopened::MovedAside(aside.clone()));
    assert!(aside.join("db").exists());
    assert_eq!(check_usable(&path), Reopened::Existing);
}

#[test]
fn only_the_newest_damaged_store_is_kept() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("sled");
    for number in 1..=3 {
        sample(&path);
        fs::write(directory.path().join("sled-suspect"), "").unwrap();
        let aside = directory.path().join(format!("sled-damaged-{number}"));
        assert_eq!(check_usable(&path), Reopened::MovedAside(aside));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        fs::remove_dir_all(&path).unwrap();
    }
}

/// A page that turns out to be bad only when it is read, long after the start.
#[test]
fn damage_found_in_use_stops_the_store_until_it_is_made_again() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("sled");
    let files = sample(&path);
    let (store, _) = SledState::open(&path).unwrap();
    for (file, bytes) in &files {
        fs::write(file, vec![0x5a; bytes.len()]).unwrap();
    }
    let error = store.scan(Keyspace::Policy, &[], 1000).unwrap_err();
    assert!(matches!(error, StateError::Damaged { .. }), "{error}");
    assert!(store.get(Keyspace::Meta, b"mark").is_err(), "a damaged store still answers");
    assert!(store.apply(&Batch::new()).is_err());
    assert!(store.flush().is_err());
    drop(store);
    let reopened = check_usable(&path);
    assert!(matches!(reopened, Reopened::MovedAside(_)), "{reopened:?}");
}

#[test]
fn files_cut_short_never_panic() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("sled");
    let files = sample(&path);
    for (index, (_, bytes)) in files.iter().enumerate() {
        for part in 0..12 {
            let mut damaged = files.clone();
            damaged[index].1.truncate(bytes.len() * part / 12);
            write_all(&path, &damaged);
            check_usable(&path);
        }
    }
}

#[test]
fn changed_bytes_and_noise_never_panic() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("sled");
    let files = sample(&path);
    // xorshift: the same damage in every run.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random).unwrap() % limit
    };
    for round in 0..120 {
        let mut damaged = files.clone();
        let file = round % files.len();
        let bytes = &mut damaged[file].1;
        // Most of the data file was never written; what is hit should matter.
        let used = bytes.len().min(60_000);
        for _ in 0..=next(8) {
            let offset = next(used);
            bytes[offset] = u8::try_from(next(256)).unwrap();
        }
        if round % 5 == 0 {
            for byte in bytes.iter_mut() {
                *byte = u8::try_from(next(256)).unwrap();
            }
        }
        write_all(&path, &damaged);
        check_usable(&path);
    }
}
