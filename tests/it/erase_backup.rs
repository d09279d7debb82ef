//! Backups that are taken while users are erased one after the other.
//!
//! Invariant: whom a backup holds though the erasure is on its record, its mark names, so that the first start of a restore
//! erases them.
//! Not here: backups while the files come and go (`backup_engine`).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use portcullis::policy::rule::ConnectionType;
use portcullis::store::codec::audit::{ErasureMark, decode_erasure_mark};

use crate::audit_engine::{DEFAULT, check, erasure, key, open, settle, small_units};
use crate::backup_engine::copy;
use crate::campaign::rounds;

/// Users in the short form and in the long one.
const USERS: (usize, usize) = (60, 1_000);

fn email_of(number: usize) -> String {
    format!("<{number}>@example.com")
}

/// The users that the bytes name.
fn users_in(bytes: &[u8], found: &mut HashSet<usize>) {
    let text = String::from_utf8_lossy(bytes);
    let numbers = text.match_indices(">@example.com").filter_map(|(end, _)| {
        let (_, number) = text.get(..end)?.rsplit_once('<')?;
        number.parse::<usize>().ok()
    });
    found.extend(numbers);
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// What a backup says of erased users.
struct Copied {
    audit_sequence: u64,
    marked: HashSet<usize>,
    /// Named by the log or by the saved sessions.
    held: HashSet<usize>,
}

fn examine(copied: &Path, audit_sequence: u64) -> Copied {
    let mark = copied.join("audit/erasing");
    let mut marked = HashSet::new();
    if mark.exists() {
        let ErasureMark::Erasures(erasures) = decode_erasure_mark(&std::fs::read(&mark).unwrap()).unwrap() else {
            panic!()
        };
        for erasure in &erasures {
            users_in(erasure.name.as_bytes(), &mut marked);
        }
    }
    let mut held = HashSet::new();
    for path in files(&copied.join("audit")).into_iter().chain(files(&copied.join("sessions"))) {
        let is_packed = path.extension().is_some_and(|extension| extension == "zst");
        if is_packed {
            users_in(&zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap(), &mut held);
        } else if path != mark {
            users_in(&std::fs::read(&path).unwrap(), &mut held);
        }
    }
    Copied { audit_sequence, marked, held }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_erased_before_a_backup_is_not_in_it_or_in_its_mark() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    std::fs::create_dir_all(data_dir.join("policy")).unwrap();
    std::fs::write(data_dir.join("LINEAGE"), "000000000000002a\n").unwrap();
    let engine = Arc::new(open(&data_dir, key(1), small_units()));
    let users = rounds(USERS.0, USERS.1);
    for number in 0..users {
        check(&engine, &email_of(number), "192.0.2.1", ConnectionType::Shell, DEFAULT).await.unwrap();
    }
    settle(&engine).await;
    let erased: Arc<Mutex<Vec<(usize, u64)>>> = Arc::default();
    let erasing = {
        let (engine, erased) = (Arc::clone(&engine), Arc::clone(&erased));
        tokio::spawn(async move {
            for number in 0..users {
                let sequence = engine.erase_user(erasure(&email_of(number), "somebody")).await.unwrap().sequence;
                erased.lock().unwrap().push((number, sequence));
            }
        })
    };
    let mut copies = Vec::new();
    while !erasing.is_finished() {
        let (engine, to) = (Arc::clone(&engine), directory.path().join("copy"));
        let examining = tokio::task::spawn_blocking(move || {
            let summary = copy(&engine, &to);
            let found = examine(&to, summary.audit_sequence);
            std::fs::remove_dir_all(to).unwrap();
            found
        });
        copies.push(examining.await.unwrap());
    }
    erasing.await.unwrap();
    let erased = erased.lock().unwrap();
    let mut unfinished = 0;
    for Copied { audit_sequence, marked, held } in &copies {
        let on_record = erased.iter().filter(|(_, sequence)| sequence <= audit_sequence);
        for (number, sequence) in on_record.filter(|(number, _)| held.contains(number)) {
            unfinished += 1;
            assert!(marked.contains(number), "user {number}, erased at {sequence}, in a backup of {audit_sequence}");
        }
    }
    assert!(unfinished > 0, "{} backups met no erasure that was unfinished", copies.len());
    engine.close();
}
