//! Backups that are taken while somebody is being erased.
//!
//! Invariant: what a backup restores to lacks whoever was erased before it began. An erasure that was under way, and is on
//! record in it, is finished by the first start.
//! Not here: backups while units are sealed and removed (`backup_engine`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::RecordType;
use portcullis::engine::clock::Clock;
use portcullis::engine::{Engine, Options};
use portcullis::policy::rule::ConnectionType;
use portcullis::server::verify_audit;
use portcullis::store::backup::{BackupError, BackupFiles, DirectoryFiles, Staged};
use portcullis::store::disk::{Disk, DiskFile, RealDisk};
use portcullis::store::journal::{FileJournal, JournalOptions};

use crate::audit_engine::{DEFAULT, check, erasure, key, open, open_on, settle, small_units, stores};
use crate::audit_tamper::{assert_nowhere, copy as copy_files};
use crate::backup_engine::copy;
use crate::campaign::rounds;
use crate::clock::until;

/// Who is erased before.
const BEFORE: &str = "carol.of.before@example.com";
const PERSON: &str = "ada.who.is.erased@example.com";
const OTHER: &str = "bob.who.stays@example.com";

/// How long an operation waits for a backup: one that holds what a backup needs goes on then.
const STOP: Duration = Duration::from_millis(250);

/// How long an erasure gets that must not end: without what holds it, it ends within milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);

/// A real disk that stops once, before an operation on names.
#[derive(Debug)]
struct Stopping {
    steps: AtomicUsize,
    /// The operation before which it stops.
    stop: AtomicUsize,
    stopped: Sender<()>,
    go: Mutex<Receiver<()>>,
}

impl Stopping {
    fn step(&self) {
        if self.steps.fetch_add(1, Ordering::SeqCst) == self.stop.load(Ordering::SeqCst) {
            let _ = self.stopped.send(());
            let _ = self.go.lock().unwrap().recv_timeout(STOP);
        }
    }
}

impl Disk for Stopping {
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(directory)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.step();
        RealDisk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step();
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step();
        RealDisk.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.step();
        RealDisk.sync_directory(directory)
    }
}

/// Units stay open, and nothing is signed by itself: so every operation is the erasure's.
fn quiet() -> Options {
    let mut options = small_units();
    options.audit.unit_age_max = Duration::from_hours(1);
    options.audit.checkpoint_interval = Duration::from_hours(1);
    options
}

async fn records_of(engine: &Engine, email: &str) -> usize {
    settle(engine).await;
    let filter = RecordFilter { email: Some(email.to_owned()), ..RecordFilter::default() };
    let (mut found, mut before) = (0, None);
    loop {
        let page = engine.audit().list(&filter, before, 1_000).unwrap();
        found += page.records.len();
        match page.next_before {
            Some(next) => before = Some(next),
            None => return found,
        }
    }
}

fn erasures(engine: &Engine) -> usize {
    let filter = RecordFilter { types: vec![RecordType::Erased], ..RecordFilter::default() };
    engine.audit().list(&filter, None, 100).unwrap().records.len()
}

/// Everybody in a sealed unit and in the tail, and one of them erased.
async fn prepare(data_dir: &Path) {
    std::fs::create_dir_all(data_dir.join("policy")).unwrap();
    std::fs::write(data_dir.join("LINEAGE"), "000000000000002a\n").unwrap();
    let engine = open(data_dir, key(1), small_units());
    crate::audit_engine::another_unit(&engine, data_dir).await;
    engine.close();
    drop(engine);
    let engine = open(data_dir, key(1), small_units());
    for number in 0..2 {
        for email in [BEFORE, PERSON, OTHER] {
            for connection_type in [ConnectionType::Shell, ConnectionType::Preview] {
                check(&engine, email, &format!("192.0.2.{number}"), connection_type, DEFAULT).await.unwrap();
            }
        }
        if number == 0 {
            crate::audit_engine::another_unit(&engine, data_dir).await;
        }
    }
    engine.erase_user(erasure(BEFORE, "somebody")).await.unwrap();
    engine.close();
}

/// Takes a backup before an operation of an erasure, and asserts what it restores to. False if the erasure has fewer.
async fn backed_up_before(template: &Path, operation: usize, recorded: &mut usize) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, restored) = (directory.path().join("data"), directory.path().join("restored"));
    copy_files(template, &data_dir);
    let ((stopped, at_stop), (go, may_go)) = (channel(), channel());
    let disk = Arc::new(Stopping {
        steps: AtomicUsize::new(0),
        stop: AtomicUsize::new(usize::MAX),
        stopped,
        go: Mutex::new(may_go),
    });
    let engine = Arc::new(open_on(Arc::clone(&disk) as Arc<dyn Disk>, &data_dir, key(1), quiet()));
    let before = [records_of(&engine, PERSON).await, records_of(&engine, OTHER).await];
    assert!(before.iter().all(|count| *count > 2), "{before:?}");
    disk.stop.store(disk.steps.load(Ordering::SeqCst) + operation, Ordering::SeqCst);
    let erasing = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.erase_user(erasure(PERSON, "somebody")).await }
    });
    until("a stop, or the end", async || (at_stop.try_recv().is_ok() || erasing.is_finished()).then_some(())).await;
    let (backed_up, to) = (Arc::clone(&engine), restored.clone());
    let is_stopped = !erasing.is_finished();
    tokio::task::spawn_blocking(move || copy(&backed_up, &to)).await.unwrap();
    let _ = go.send(());
    erasing.await.unwrap().unwrap();
    engine.close();
    assert_nowhere(&data_dir, PERSON);

    let trusted = key(1).verifier().to_string();
    let verified = verify_audit(&restored, Some(&trusted), None, &mut |_, _| true).unwrap();
    assert_eq!(verified.faults, [], "before operation {operation}");
    let mark = restored.join("audit/erasing");
    let was_marked = mark.exists();
    let engine = open(&restored, key(1), quiet());
    until("the erasure is finished", async || (!mark.exists()).then_some(())).await;
    let case = format!("before operation {operation}, marked: {was_marked}");
    assert_eq!(records_of(&engine, BEFORE).await, 0, "{case}");
    assert_eq!(records_of(&engine, OTHER).await, before[1], "{case}");
    let is_erased = erasures(&engine) > 1;
    assert!(is_erased || !was_marked, "{case}");
    assert_eq!(records_of(&engine, PERSON).await, if is_erased { 0 } else { before[0] }, "{case}");
    engine.close();
    assert_nowhere(&restored, BEFORE);
    if is_erased {
        assert_nowhere(&restored, PERSON);
        *recorded += usize::from(was_marked);
    }
    is_stopped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_backup_before_any_step_of_an_erasure_restores_nobody_who_is_erased() {
    let directory = tempfile::tempdir().unwrap();
    let template = directory.path().join("template");
    prepare(&template).await;
    let (mut operation, mut recorded) = (0, 0);
    while backed_up_before(&template, operation, &mut recorded).await {
        operation += rounds(3, 1);
        assert!(operation < 1_000, "the erasure does not end");
    }
    assert!(recorded > 1, "{recorded} backups held an erasure under way, of {operation} operations");
}

/// The files of a directory, whose stage waits after they are noted.
#[derive(Debug)]
struct Waiting {
    files: DirectoryFiles,
    noted: Sender<()>,
    go: Mutex<Receiver<()>>,
}

impl BackupFiles for Waiting {
    fn stage(&self, time_micros: i64) -> Result<Arc<Staged>, BackupError> {
        let staged = self.files.stage(time_micros)?;
        self.noted.send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        Ok(staged)
    }
}

/// The hazard: files that were noted before an erasure, and its mark looked for after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_erasure_begins_while_the_files_of_a_backup_are_noted() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir: PathBuf = directory.path().join("data");
    std::fs::create_dir_all(data_dir.join("policy")).unwrap();
    std::fs::write(data_dir.join("LINEAGE"), "000000000000002a\n").unwrap();
    drop(open(&data_dir, key(1), quiet()));
    let ((noted, at_stop), (go, may_go)) = (channel(), channel());
    let policy = FileJournal::open(Arc::new(RealDisk), data_dir.join("policy"), JournalOptions::default()).unwrap();
    let mut stores = stores(Box::new(policy), Arc::new(RealDisk), &data_dir, key(1));
    let files = DirectoryFiles::open(&data_dir).unwrap();
    stores.backup = Some(Box::new(Waiting { files, noted, go: Mutex::new(may_go) }));
    let engine = Arc::new(Engine::open(stores, quiet(), Clock::system()).unwrap());
    check(&engine, PERSON, "192.0.2.1", ConnectionType::Shell, DEFAULT).await.unwrap();
    settle(&engine).await;
    let backing_up = tokio::task::spawn_blocking({
        let engine = Arc::clone(&engine);
        move || engine.backup().map(drop)
    });
    until("the files are noted", async || at_stop.try_recv().ok()).await;
    let mut erasing = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.erase_user(erasure(PERSON, "somebody")).await }
    });
    let ended = tokio::time::timeout(PATIENCE, &mut erasing).await;
    assert!(ended.is_err(), "it ends before the files are noted");
    assert!(!data_dir.join("audit/erasing").exists(), "the mark changes while the files are noted");
    go.send(()).unwrap();
    backing_up.await.unwrap().unwrap();
    erasing.await.unwrap().unwrap();
    engine.close();
}
