//! Witnesses of single losses, and the small files of a data directory.
//!
//! Invariant: what is done to the files here is what was seen to be served in silence, or what no crash does.
//! Not here: parts that are exchanged as a whole (`witnesses`), what a kill leaves (`witnesses_killed`), and another's
//! policy (`witnesses_policy`).

use std::path::Path;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::RecordType;
use portcullis::config::Config;
use portcullis::engine::Engine;
use portcullis::proto::v1::Action;
use portcullis::server;
use portcullis::store::directory::DataDirectory;
use tempfile::TempDir;

use crate::audit_watch::signed_size;
use crate::harness::Service;
use crate::process::Process;
use crate::witnesses_history::{CHANGES, Histories, copy, remove};

pub(crate) fn open(directory: &Path) -> Result<Engine, String> {
    server::open(&Config::for_data_dir(directory)).map_err(|error| format!("{error:#}"))
}

pub(crate) fn refusal(directory: &Path) -> String {
    open(directory).err().expect("the start must be refused")
}

pub(crate) fn count(engine: &Engine, record_type: RecordType) -> u64 {
    let filter = RecordFilter { types: vec![record_type], ..RecordFilter::default() };
    engine.audit().count(&filter).unwrap()
}

/// What is on the disk while the service runs: what `kill -9` leaves.
pub(crate) async fn crashed(config: &Config, deny: &str) -> TempDir {
    let service = Service::with_config(config.clone()).await;
    service.check("192.0.2.1", "organizations/default").await;
    service.add_rule("", Action::Deny, deny).await;
    signed_size(&service.channel, 4).await;
    let image = tempfile::tempdir().unwrap();
    copy(service.data_dir(), image.path());
    service.stop().await;
    image
}

/// Zeroes the last frame of the policy journal.
fn zero_last_frame(directory: &Path) {
    let files = std::fs::read_dir(directory.join("policy")).unwrap();
    let path = files.map(|file| file.unwrap().path()).max().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.windows(4).rposition(|window| window == b"PCF\xa7").unwrap();
    bytes[last..].fill(0);
    std::fs::write(&path, bytes).unwrap();
}

/// The frame looks torn, and only the audit log knows that it was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_deny_that_only_the_audit_log_knows_of_is_not_dropped() {
    let root = tempfile::tempdir().unwrap();
    let config = Config::for_data_dir(root.path().join("data"));
    Service::with_config(config.clone()).await.stop().await;
    let before = root.path().join("before");
    copy(&config.data_dir, &before);
    let image = crashed(&config, "198.51.100.1").await;
    remove(&image.path().join("sled"));
    copy(&before.join("sled"), &image.path().join("sled"));
    zero_last_frame(image.path());
    let (status, log) = Process::try_start(image.path()).err().expect("the start must be refused");
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("the policy journal ends at record 2, but the audit log has seen record 3"), "{log}");
    assert!(log.contains("restore the newest files in `policy`"), "{log}");
    // The database is a witness again where it does not lag.
    let image = crashed(&config, "198.51.100.2").await;
    copy(&config.data_dir.join("sled"), &image.path().join("sled"));
    zero_last_frame(image.path());
    let message = refusal(image.path());
    assert!(
        message.contains("the audit log has seen record 4, and the database in `sled` has seen record 4"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_faults_are_told_at_once() {
    let histories = Histories::write().await;
    let directory = histories.copy_of_the_newest();
    remove(&directory.path().join("policy"));
    remove(&directory.path().join("audit"));
    let (status, log) = Process::try_start(directory.path()).err().expect("the start must be refused");
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("(1) the policy journal in"), "{log}");
    assert!(log.contains("(2) the audit log in"), "{log}");
    // The way out without a backup is named where a policy is left, and `portcullis restore` always.
    let (policy, audit) = log.split_once("(2) ").unwrap();
    assert!(policy.contains("with `portcullis restore`") && !policy.contains("Without a backup"), "{log}");
    assert!(audit.contains("with `portcullis restore`") && audit.contains("Without a backup"), "{log}");
    let directory = histories.copy_of_the_newest();
    for part in ["policy", "audit"] {
        let kept = std::fs::read(directory.path().join("audit/checkpoints")).unwrap();
        remove(&directory.path().join(part));
        copy(&histories.earlier.join(part), &directory.path().join(part));
        std::fs::write(directory.path().join("audit/checkpoints"), kept).unwrap();
    }
    let message = refusal(directory.path());
    assert!(message.contains("(1) the audit log ends at record"), "{message}");
    assert!(message.contains("(2) the policy journal ends at record 3, but the database in `sled`"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_that_hold_none_are_refused_and_a_torn_last_one_is_what_a_crash_leaves() {
    let histories = Histories::write().await;
    let whole = std::fs::read(histories.newest.join("audit/checkpoints")).unwrap();
    let torn = &whole[..whole.len() - 20];
    for (content, fragment) in [
        (&b""[..], "holds no checkpoint"),
        (&whole[..30], "holds no checkpoint"),
        (b"\xff\x00\xff", "holds no checkpoint"),
        (torn, "checkpoints are missing"),
    ] {
        let directory = histories.copy_of_the_newest();
        std::fs::write(directory.path().join("audit/checkpoints"), content).unwrap();
        let message = refusal(directory.path());
        assert!(message.contains(fragment), "{}: {message}", content.len());
    }
    // A crash in the middle of writing one: the sessions were saved before.
    let image = crashed(&Config::for_data_dir(tempfile::tempdir().unwrap().path()), "198.51.100.1").await;
    let path = image.path().join("audit/checkpoints");
    let mut half = std::fs::read(&path).unwrap();
    half.extend(b"\nportcullis-00000000/audit\n9\n");
    std::fs::write(&path, half).unwrap();
    open(image.path()).unwrap().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_file_that_is_missing_or_senseless_is_refused_or_made_again() {
    let histories = Histories::write().await;
    let harmed = |name: &str, content: Option<&str>| {
        let directory = histories.copy_of_the_newest();
        let path = directory.path().join(name);
        match content {
            Some(content) => std::fs::write(path, content).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        directory
    };
    let message = refusal(harmed("FORMAT", None).path());
    assert!(message.contains("FORMAT` is missing, though the directory was in use"), "{message}");
    for senseless in ["", "0123456789abcdef", "0123456789ABCDEF\n", "+123456789abcdef\n", "123\n", "ü\n"] {
        let message = refusal(harmed("LINEAGE", Some(senseless)).path());
        assert!(message.contains("does not hold a lineage"), "{senseless:?}: {message}");
    }
    for senseless in ["", "senseless\n", "ü"] {
        let message = refusal(harmed("audit.pub", Some(senseless)).path());
        assert!(message.contains("audit.pub"), "{senseless:?}: {message}");
        assert!(message.contains("restore it from a backup, or remove it"), "{senseless:?}: {message}");
    }
    for (name, senseless) in [("BEGUN", "senseless"), ("LOCK", "senseless"), ("ballast", "senseless")] {
        let engine = open(harmed(name, Some(senseless)).path()).unwrap_or_else(|message| panic!("{name}: {message}"));
        assert_eq!(count(&engine, RecordType::PolicyChanged), CHANGES, "{name}");
        engine.close();
    }
    let message = refusal(harmed("FORMAT", Some("senseless")).path());
    assert!(message.contains("FORMAT"), "{message}");
    let message = refusal(harmed("audit/erasing", Some("senseless")).path());
    assert!(message.contains("the mark of an erasure"), "{message}");
    let lineage = open(histories.copy_of_the_newest().path()).unwrap().lineage();
    for (name, is_kept) in [("LINEAGE", false), ("BEGUN", true), ("LOCK", true), ("audit.pub", true)] {
        let directory = harmed(name, None);
        let engine = open(directory.path()).unwrap_or_else(|message| panic!("{name}: {message}"));
        assert_eq!(engine.lineage() == lineage, is_kept, "{name}");
        assert_eq!(count(&engine, RecordType::PolicyChanged), CHANGES, "{name}");
        engine.close();
        assert!(directory.path().join(name).exists(), "{name} is made again");
    }
}

/// Without the mark of a first start, the saved sessions still know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_noticed_without_the_mark_too() {
    let histories = Histories::write().await;
    for (lost, fragment) in [
        ("audit", "the audit log ends at record 0, but the saved sessions include"),
        ("audit/checkpoints", "checkpoints are missing"),
        ("policy", "the policy journal ends at record 0, but the audit log has seen record 4"),
    ] {
        let directory = histories.copy_of_the_newest();
        for name in [lost, "BEGUN"] {
            remove(&directory.path().join(name));
        }
        let message = refusal(directory.path());
        assert!(message.contains(fragment), "{lost}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_makes_sessions_and_sled_again_says_so() {
    let histories = Histories::write().await;
    let directory = histories.copy_of_the_newest();
    for name in ["sessions", "sled"] {
        remove(&directory.path().join(name));
    }
    let process = Process::start(directory.path());
    let log = process.log();
    assert!(log.contains("there are no saved sessions: they are made again from the audit log"), "{log}");
    assert!(log.contains("the state store was rebuilt from the policy journal"), "{log}");
    assert!(process.terminate().0.success());
}

/// A first start is interrupted after each of its writes, latest first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_of_a_first_start_may_be_its_last() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::with_config(Config::for_data_dir(root.path().join("data"))).await;
    signed_size(&service.channel, 2).await;
    let (image, mut written) = (root.path().join("image"), Vec::new());
    copy(service.data_dir(), &image);
    service.stop().await;
    // The directories are made at once, before anything is in them.
    let parts = ["policy", "sled", "audit", "sessions"];
    for latest in [
        "nothing",
        "clock",
        "BEGUN",
        "checkpoints",
        "audit",
        "sled",
        "policy",
        "LINEAGE",
        "audit.pub",
        "audit.key",
        "FORMAT",
    ] {
        match latest {
            "checkpoints" => remove(&image.join("audit/checkpoints")),
            "FORMAT" => [latest].iter().chain(&parts).for_each(|name| remove(&image.join(name))),
            name => remove(&image.join(name)),
        }
        written.push(latest);
        let directory = tempfile::tempdir().unwrap();
        copy(&image, directory.path());
        let engine = open(directory.path()).unwrap_or_else(|message| panic!("without {written:?}: {message}"));
        assert_eq!(count(&engine, RecordType::PolicyChanged), 2, "without {written:?}");
        drop(engine);
        open(directory.path()).unwrap().close();
    }
}

/// A directory that a version without signed marks left: there may be no checkpoint yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_of_an_earlier_version_asks_for_no_checkpoint() {
    let histories = Histories::write().await;
    let directory = histories.copy_of_the_newest();
    for name in ["audit/checkpoints", "sessions"] {
        remove(&directory.path().join(name));
    }
    assert!(refusal(directory.path()).contains("the checkpoints of the audit log"));
    std::fs::write(directory.path().join("BEGUN"), "").unwrap();
    open(directory.path()).unwrap().close();
    assert_eq!(std::fs::read_to_string(directory.path().join("BEGUN")).unwrap(), "signed\n");
}

/// The section "Without a backup" of `docs/operate.md`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_accepted_by_moving_the_witnesses_away_and_is_another_history_then() {
    let histories = Histories::write().await;
    let lineage = open(histories.copy_of_the_newest().path()).unwrap().lineage();
    for (lost, older) in [("policy", true), ("audit", false), ("audit/checkpoints", false)] {
        let directory = histories.copy_of_the_newest();
        remove(&directory.path().join(lost));
        if older {
            copy(&histories.earlier.join(lost), &directory.path().join(lost));
        }
        refusal(directory.path());
        for witness in ["audit", "sessions", "sled", "BEGUN", "LINEAGE", "audit.key", "audit.pub"] {
            remove(&directory.path().join(witness));
        }
        let engine = open(directory.path()).unwrap_or_else(|message| panic!("{lost}: {message}"));
        assert_ne!(engine.lineage(), lineage, "{lost}");
        let kept = if older { CHANGES - 1 } else { CHANGES };
        assert_eq!(
            count(&engine, RecordType::PolicyChanged),
            kept,
            "{lost}: the new log has the changes that are kept"
        );
        engine.close();
    }
}

/// The section "Without a backup", where no policy is left either: it begins with one that allows everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_tells_what_it_makes_anew_in_a_directory_that_was_in_use() {
    const NO_POLICY: &str = "has no policy any more: the service begins with one that allows everybody";
    const NOT_BEGUN: &str = "the file `BEGUN` was missing and is made again";
    let histories = Histories::write().await;
    let fresh = tempfile::tempdir().unwrap();
    let (emptied, unmarked) = (histories.copy_of_the_newest(), histories.copy_of_the_newest());
    for witness in ["policy", "audit", "sessions", "sled", "BEGUN", "LINEAGE", "audit.key", "audit.pub"] {
        remove(&emptied.path().join(witness));
    }
    remove(&unmarked.path().join("BEGUN"));
    for (directory, told) in [(&fresh, [false, false]), (&emptied, [true, false]), (&unmarked, [false, true])] {
        let (status, log) = Process::start(directory.path()).terminate();
        assert!(status.success(), "{log}");
        assert_eq!([log.contains(NO_POLICY), log.contains(NOT_BEGUN)], told, "{log}");
    }
}

#[test]
fn a_directory_whose_lock_file_is_removed_stays_locked() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("data");
    let first = DataDirectory::open(&path).unwrap();
    let refused = |fragment: &str| {
        let message = DataDirectory::open(&path).unwrap_err().to_string();
        assert!(message.contains(fragment), "{message}");
    };
    refused(&format!("in use by another process ({})", std::process::id()));
    std::fs::remove_file(path.join("LOCK")).unwrap();
    refused("in use by another process: stop it");
    assert!(!path.join("LOCK").exists(), "the one that is refused leaves nothing");
    drop(first);
    DataDirectory::open(&path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_is_kept_out_without_the_lock_file() {
    let root = tempfile::tempdir().unwrap();
    let data_dir = root.path().join("data");
    let _first = Process::start(&data_dir);
    std::fs::remove_file(data_dir.join("LOCK")).unwrap();
    let (status, log) = Process::try_start(&data_dir).err().expect("the second process must not serve");
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("in use by another process"), "{log}");
}
