//! Backups while the files of the audit log come and go: units are sealed, erased from and removed all the time.
//!
//! Invariant: every copy verifies, and holds what was durable before it began.
//! Not here: backups through the API and restores of them (`backup`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis::engine::Engine;
use portcullis::engine::backup::verify_policy;
use portcullis::policy::change::Change;
use portcullis::policy::rule::{Action, ConnectionType};
use portcullis::policy::time::Timestamp;
use portcullis::server::verify_audit;
use portcullis::store::Log;
use portcullis::store::backup::{BackupError, Members, Summary, Unpacker};
use portcullis::store::codec::{decode_change, encode_change};
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};
use portcullis::store::snapshots::MemorySnapshots;

use crate::audit_engine::{DEFAULT, add_rule, check, erasure, key, open, settle, small_units};
use crate::campaign::rounds;
use crate::clock::until;

/// Backups in the short form and in the long one.
const BACKUPS: (u64, u64) = (8, 500);

/// Between two erasures, and between bursts of Checks: a disk that is always behind shows less.
const PAUSE: Duration = Duration::from_millis(10);

/// Writes members into a directory.
struct Files {
    directory: PathBuf,
    file: Option<std::fs::File>,
}

impl Members for Files {
    fn begin(&mut self, name: &str) -> Result<(), BackupError> {
        let path = self.directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        self.file = Some(std::fs::File::create_new(path).unwrap());
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.file.as_mut().unwrap().write_all(bytes).unwrap();
        Ok(())
    }

    fn end(&mut self) -> Result<(), BackupError> {
        self.file = None;
        Ok(())
    }
}

/// Takes a backup into a directory.
pub(crate) fn copy(engine: &Engine, to: &Path) -> Summary {
    let backup = engine.backup().unwrap();
    let mut unpacker = Unpacker::new(Files { directory: to.to_owned(), file: None });
    let sent = backup.write(|piece| unpacker.push(&piece));
    sent.unwrap().unwrap();
    let (summary, _, _) = unpacker.finish().unwrap();
    assert_eq!(summary, backup.summary());
    summary
}

/// The hazard: a file that is replaced or removed between two others of the same copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_fits_while_units_are_sealed_erased_from_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    std::fs::create_dir_all(data_dir.join("policy")).unwrap();
    std::fs::write(data_dir.join("LINEAGE"), "000000000000002a\n").unwrap();
    let mut options = small_units();
    options.sessions.max_age = Duration::from_millis(1);
    options.audit.retention_bytes = Some(100_000);
    // A busy machine is no failure here.
    options.audit.deadline = Duration::from_mins(1);
    let engine = Arc::new(open(&data_dir, key(1), options));
    let stop = Arc::new(AtomicBool::new(false));
    let checking = {
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::Acquire) {
                let email = format!("user-{}@example.com", number % 20);
                let ip = format!("10.0.{}.{}", number / 250 % 250, number % 250);
                drop(check(&engine, &email, &ip, ConnectionType::Shell, DEFAULT).await);
                number += 1;
                if number % 10 == 0 {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        })
    };
    let erasing = {
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::Acquire) {
                engine.erase_user(erasure(&format!("user-{}@example.com", number % 20), "somebody")).await.unwrap();
                number += 1;
                tokio::time::sleep(PAUSE).await;
            }
            number
        })
    };
    let removed = || engine.audit().first_sequence() > 1;
    until("a removal", async || removed().then_some(())).await;
    let trusted = key(1).verifier().to_string();
    for round in 0..rounds(BACKUPS.0, BACKUPS.1) {
        let copied = directory.path().join("copy");
        let before = settle(&engine).await;
        let (engine, to) = (Arc::clone(&engine), copied.clone());
        let summary = tokio::task::spawn_blocking(move || copy(&engine, &to)).await.unwrap();
        assert!(summary.audit_sequence >= before && summary.lineage == 42, "round {round}: {summary:?}");
        let verified = verify_audit(&copied, Some(&trusted), None, &mut |_, _| true).unwrap();
        assert_eq!(verified.faults, [], "round {round}");
        assert_eq!(verified.tree_size, summary.audit_sequence, "round {round}");
        assert!(verified.signed_size >= before, "round {round}: records before it are not signed");
        std::fs::remove_dir_all(copied).unwrap();
    }
    stop.store(true, Ordering::Release);
    checking.await.unwrap();
    assert!(erasing.await.unwrap() > 0);
    engine.close();
}

/// The hazard: a policy beside the log that is not the one whose changes are on record, though its newest change is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_the_policy_is_compared_with_its_record() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let engine = open(&data_dir, key(1), small_units());
    for id in ["one", "two", "three"] {
        add_rule(&engine, id, Action::Deny, "203.0.113.0/24").await;
    }
    settle(&engine).await;
    engine.close();
    let verified = verify_audit(&data_dir, Some(&key(1).verifier().to_string()), None, &mut |_, _| true).unwrap();
    let journal = FileJournal::open(Arc::new(RealDisk), data_dir.join("policy"), JournalOptions::default()).unwrap();
    let changes: Vec<_> =
        journal.read_from(1).unwrap().map(|record| decode_change(&record.unwrap().1).unwrap()).collect();
    let verify = |changes: &[Change], name: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir(&path).unwrap();
        let mut journal = FileJournal::open(Arc::new(RealDisk), path, JournalOptions::default()).unwrap();
        journal.append(&changes.iter().map(encode_change).collect::<Vec<_>>()).unwrap();
        verify_policy(&mut journal, &MemorySnapshots::new(), &verified).map_err(|error| error.to_string())
    };
    assert_eq!(verify(&changes, "same"), Ok(()));
    for at in 0..changes.len() {
        let mut altered = changes.clone();
        altered[at].time = Timestamp::from_micros(altered[at].time.micros() + 1);
        let refused = verify(&altered, &format!("altered-{at}"));
        let expected = format!("record {} of the policy journal is not the change", at + 1);
        // The very first changes may have no record of their own.
        let is_recorded = verified.policy_changes.contains_key(&(at as u64 + 1));
        assert!(refused.as_ref().is_err_and(|error| error.contains(&expected)) || !is_recorded, "{refused:?}");
    }
    assert!(verified.policy_changes.len() >= 3);
}
