//! `kill -9` in the middle of acknowledged changes, and a sled directory that is lost, cut short or damaged.
//!
//! Invariant: every acknowledged change is there after a restart, in order, with no revision skipped or used twice.
//! Not here: power cuts, which also lose what was written and not synced (`crash_power`).

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::policy::state::PolicyState;
use portcullis::store::Log;
use portcullis::store::codec::decode_change;
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};

use crate::campaign::rounds;
use crate::load::{self, Acknowledged};
use crate::process::Process;

/// Kills in the short form and in the long one.
const KILLS: (u64, u64) = (12, 50);

/// Changes that are acknowledged in a round, at least.
const CHANGES_OF_A_ROUND: usize = 8;

/// Changes that are acknowledged before the files are damaged, or the service is told to end, at least.
const CHANGES_BEFORE_DAMAGE: usize = 24;

/// Reads the journal of a service that is dead: replaying it fails where a revision is skipped or used twice.
fn replay(data_dir: &Path) -> PolicyState {
    let copied = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(data_dir.join("policy")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copied.path().join(path.file_name().unwrap())).unwrap();
    }
    let journal = FileJournal::open(Arc::new(RealDisk), copied.path(), JournalOptions::default()).unwrap();
    let mut state = PolicyState::empty();
    for record in journal.read_from(1).unwrap() {
        let (_, bytes) = record.unwrap();
        state.apply(&decode_change(&bytes).unwrap()).unwrap();
    }
    state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_change_is_lost_by_kills() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 0..rounds(KILLS.0, KILLS.1) {
        let process = Process::start(&data_dir);
        let channel = process.connect().await;
        if round == 0 {
            load::prepare(channel.clone()).await;
        } else {
            load::verify(channel.clone(), &acknowledged).await;
        }
        let before = load::count(&acknowledged);
        let clients = load::start(&channel, &acknowledged);
        tokio::time::sleep(Duration::from_millis(5 + round * 37 % 60)).await;
        load::acknowledged(&acknowledged, before + CHANGES_OF_A_ROUND).await;
        process.kill();
        for client in clients {
            client.await.unwrap();
        }
        replay(&data_dir);
    }
    let process = Process::start(&data_dir);
    load::verify(process.connect().await, &acknowledged).await;
}

/// What is done to the files of a sled directory while the service is down.
type Damage = fn(&Path);

fn delete(sled: &Path) {
    std::fs::remove_dir_all(sled).unwrap();
}

fn empty(sled: &Path) {
    delete(sled);
    std::fs::create_dir(sled).unwrap();
}

fn cut_in_half(sled: &Path) {
    let db = std::fs::OpenOptions::new().write(true).open(sled.join("db")).unwrap();
    db.set_len(db.metadata().unwrap().len() / 2).unwrap();
}

fn cut_short(sled: &Path) {
    let db = std::fs::OpenOptions::new().write(true).open(sled.join("db")).unwrap();
    db.set_len(1_000).unwrap();
}

fn cut_off(sled: &Path) {
    std::fs::File::create(sled.join("db")).unwrap();
}

fn flip_bytes(sled: &Path) {
    let path = sled.join("db");
    let mut bytes = std::fs::read(&path).unwrap();
    // Everywhere, densely enough to hit pages that are in use.
    for at in (0..bytes.len()).step_by(997) {
        bytes[at] ^= 0x55;
    }
    std::fs::write(path, bytes).unwrap();
}

fn forget_config(sled: &Path) {
    std::fs::remove_file(sled.join("conf")).unwrap();
}

fn flip_config(sled: &Path) {
    let path = sled.join("conf");
    let bytes: Vec<u8> = std::fs::read(&path).unwrap().iter().map(|byte| byte ^ 0x55).collect();
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_damaged_sled_directory_is_rebuilt_and_the_log_says_so() {
    let damages: [(&str, Damage); 8] = [
        ("deleted", delete),
        ("empty", empty),
        ("cut in half", cut_in_half),
        ("cut short", cut_short),
        ("cut off", cut_off),
        ("flipped bytes", flip_bytes),
        ("without its configuration", forget_config),
        ("with flipped bytes in its configuration", flip_config),
    ];
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    for (round, (name, damage)) in damages.into_iter().enumerate() {
        let process = Process::start(&data_dir);
        let channel = process.connect().await;
        if round == 0 {
            load::prepare(channel.clone()).await;
        }
        let before = load::count(&acknowledged);
        let clients = load::start(&channel, &acknowledged);
        load::acknowledged(&acknowledged, before + CHANGES_BEFORE_DAMAGE).await;
        process.kill();
        for client in clients {
            client.await.unwrap();
        }
        damage(&data_dir.join("sled"));
        let process = Process::start(&data_dir);
        load::verify(process.connect().await, &acknowledged).await;
        // The second half of the file may have held nothing that counts, and sled may guess its configuration right.
        let perhaps_unharmed = ["cut in half", "without its configuration"].contains(&name);
        let rebuilt = process.log().contains("rebuilt from the policy journal");
        assert!(rebuilt || perhaps_unharmed, "{name}:\n{}", process.log());
        let (status, _) = process.terminate();
        assert!(status.success(), "{name}");
        // What was rebuilt is whole: the next start has nothing to mend.
        let process = Process::start(&data_dir);
        load::verify(process.connect().await, &acknowledged).await;
        assert!(!process.log().contains("rebuilt"), "{name}:\n{}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_loses_nothing_and_ends_with_success() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let process = Process::start(&data_dir);
    let channel = process.connect().await;
    load::prepare(channel.clone()).await;
    let clients = load::start(&channel, &acknowledged);
    load::acknowledged(&acknowledged, CHANGES_BEFORE_DAMAGE).await;
    let (status, log) = tokio::task::spawn_blocking(|| process.terminate()).await.unwrap();
    assert!(status.success(), "{log}");
    for client in clients {
        client.await.unwrap();
    }
    let process = Process::start(&data_dir);
    load::verify(process.connect().await, &acknowledged).await;
    assert!(!process.log().contains("rebuilt"), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_is_in_use_is_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let _first = Process::start(&data_dir);
    let (status, log) = Process::try_start(&data_dir).err().expect("the second process must not serve");
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("in use by another process"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_damaged_in_the_middle_is_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let process = Process::start(&data_dir);
    load::prepare(process.connect().await).await;
    process.kill();
    let path = data_dir.join("policy/journal-00000000000000000001.wal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (status, log) = Process::try_start(&data_dir).err().expect("a damaged journal must not be served");
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("damaged at byte") && log.contains("backup"), "{log}");
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_gone_is_not_taken_for_a_new_one_that_allows_everything() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let process = Process::start(&data_dir);
    load::prepare(process.connect().await).await;
    process.terminate();
    std::fs::remove_dir_all(data_dir.join("policy")).unwrap();
    for _ in 0..2 {
        let (status, log) = Process::try_start(&data_dir).err().expect("a lost journal must not be served");
        assert_eq!(status.code(), Some(1));
        assert!(log.contains("missing, though the directory was in use"), "{log}");
        // Also where nothing else is left that remembers.
        let _ = std::fs::remove_dir_all(data_dir.join("sled"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_ends_before_what_sled_has_seen_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, older) = (directory.path().join("data"), directory.path().join("older"));
    let process = Process::start(&data_dir);
    process.terminate();
    copy_files(&data_dir.join("policy"), &older);
    let process = Process::start(&data_dir);
    load::prepare(process.connect().await).await;
    process.terminate();
    std::fs::remove_dir_all(data_dir.join("policy")).unwrap();
    copy_files(&older, &data_dir.join("policy"));
    let (status, log) = Process::try_start(&data_dir).err().expect("a journal that lost changes must not be served");
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("acknowledged changes are missing"), "{log}");
}
