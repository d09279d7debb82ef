//! The key that signs the audit log: what a start does where it is gone or another one's, and a log of several keys.
//!
//! Invariant: no start signs on silently with another key, and what a lost key vouched for stays verifiable.
//! Not here: signatures (`audit_checkpoint`), altered logs (`audit_tamper`).

use std::fs;
use std::path::{Path, PathBuf};

use portcullis::audit::checkpoint::Checkpoint;
use portcullis::audit::merkle::{Hash, TreeHead};
use portcullis::audit::note::SignerKey;
use portcullis::engine::audit::Verification;
use portcullis::proto::v1::AuditType;
use portcullis::proto::v1::audit_record::Content;
use portcullis::server::verify_audit;
use serde_json::Value;

use crate::backup::{offline, path, printed, records};
use crate::harness::{Service, command_line};
use crate::process::Process;
use portcullis::config::Config;

const DEFAULT: &str = "organizations/default";

/// A data directory with a signed log, and a copy of its key.
async fn signed() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let service = Service::with_config(Config::for_data_dir(&data_dir)).await;
    for number in 0..10 {
        service.check(&format!("192.0.2.{number}"), DEFAULT).await;
    }
    service.stop().await;
    let kept = directory.path().join("kept.key");
    fs::copy(data_dir.join("audit.key"), &kept).unwrap();
    (directory, data_dir, kept)
}

fn new_key(data_dir: &Path) -> Config {
    let mut config = Config::for_data_dir(data_dir);
    config.record.audit_key_new = true;
    config
}

fn public(data_dir: &Path) -> Vec<String> {
    fs::read_to_string(data_dir.join("audit.pub")).unwrap().lines().map(str::to_owned).collect()
}

fn verify(data_dir: &Path, key: Option<&str>) -> Verification {
    verify_audit(data_dir, key, None, &mut |_, _| true).unwrap()
}

/// How a start is refused; it changes nothing.
fn refusal(data_dir: &Path) -> String {
    let before = public_or_none(data_dir);
    let Err((status, log)) = Process::try_start(data_dir) else { panic!("it serves") };
    assert!(!status.success(), "{log}");
    assert_eq!(public_or_none(data_dir), before, "a refused start wrote the public key");
    log
}

fn public_or_none(data_dir: &Path) -> Option<String> {
    fs::read_to_string(data_dir.join("audit.pub")).ok()
}

/// Another log's key in its file.
fn strange_key() -> String {
    format!("{}\n", crate::audit_engine::key(7).to_secret_text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_log_whose_key_is_gone_is_not_signed_on_by_a_new_one() {
    let (_directory, data_dir, kept) = signed().await;
    fs::remove_file(data_dir.join("audit.key")).unwrap();
    let log = refusal(&data_dir);
    assert!(log.contains("is missing") && log.contains("--audit-key-new"), "{log}");
    assert!(!data_dir.join("audit.key").exists(), "a key was made");
    // Also where the public key went with it.
    let public = public(&data_dir);
    fs::remove_file(data_dir.join("audit.pub")).unwrap();
    let log = refusal(&data_dir);
    assert!(log.contains("is missing"), "{log}");
    // With the key back, the public key is written again.
    fs::copy(&kept, data_dir.join("audit.key")).unwrap();
    Process::start(&data_dir).terminate();
    assert_eq!(self::public(&data_dir), public);
    assert_eq!(verify(&data_dir, None).faults, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_logs_key_is_refused() {
    let (_directory, data_dir, kept) = signed().await;
    fs::write(data_dir.join("audit.key"), strange_key()).unwrap();
    let log = refusal(&data_dir);
    assert!(log.contains("but the key in") && log.contains("--audit-key-new"), "{log}");
    // Whoever puts both keys there is found by the checkpoints.
    let strange = crate::audit_engine::key(7).verifier().to_string();
    fs::write(data_dir.join("audit.pub"), format!("{strange}\n")).unwrap();
    let log = refusal(&data_dir);
    assert!(log.contains("the newest checkpoint of the audit log is signed neither"), "{log}");
    fs::remove_file(data_dir.join("audit.pub")).unwrap();
    let log = refusal(&data_dir);
    assert!(log.contains("the newest checkpoint of the audit log is signed neither"), "{log}");
    fs::copy(&kept, data_dir.join("audit.key")).unwrap();
    drop(Process::start(&data_dir));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_is_on_the_record_and_the_log_of_both_verifies() {
    let (_directory, data_dir, _) = signed().await;
    let [old] = &public(&data_dir)[..] else { panic!("one key") };
    let signed_size = verify(&data_dir, None).signed_size;
    fs::remove_file(data_dir.join("audit.key")).unwrap();
    let service = Service::with_config(new_key(&data_dir)).await;
    let changed = records(&service, &[AuditType::KeyChanged]).await;
    let Some(Content::KeyChange(change)) = &changed[0].content else { panic!("{changed:?}") };
    let keys = public(&data_dir);
    assert_eq!(keys.len(), 2);
    assert_eq!((&change.previous_key, &change.key), (&keys[0], &keys[1]));
    assert_eq!((&keys[0], u64::try_from(change.signed_size).unwrap()), (old, signed_size));
    assert!(keys[1].starts_with(old.split('+').next().unwrap()), "the log keeps its name");
    service.check("192.0.2.99", DEFAULT).await;
    let output = command_line(&service, &["audit", "verify"], "").await;
    assert!(output.status.success(), "{}", printed(&output));
    service.stop().await;

    // The flag was for one start. Without it the new key is the one that is wanted.
    let service = Service::with_config(Config::for_data_dir(&data_dir)).await;
    assert_eq!(records(&service, &[AuditType::KeyChanged]).await.len(), 1);
    let note = command_line(&service, &["audit", "checkpoint"], "").await;
    assert!(note.status.success());
    service.stop().await;
    let note = String::from_utf8(note.stdout).unwrap();

    // Both keys, or the new one alone, vouch for all of it.
    let both = keys.join("\n");
    for key in [None, Some(both.as_str()), Some(keys[1].as_str())] {
        let verified = verify(&data_dir, key);
        assert_eq!(verified.faults, [], "{key:?}");
        assert_eq!(verified.signed_size, verified.tree_size);
    }
    assert_eq!(verify_audit(&data_dir, None, Some(&note), &mut |_, _| true).unwrap().faults, []);
    // Whoever trusts the old key alone is told from where on another one signs.
    let verified = verify(&data_dir, Some(old));
    let [(sequence, fault)] = &verified.faults[..] else { panic!("{:?}", verified.faults) };
    assert_eq!(*sequence, u64::try_from(changed[0].sequence).unwrap());
    assert!(fault.contains("another key signs") && fault.contains(&keys[1]), "{fault}");
    assert_eq!(verified.signed_size, signed_size, "the rest is not vouched for");
    let args = ["audit", "verify", "--data-dir", path(&data_dir), "--public-key", old];
    let output = offline(&args).await;
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(result["faults"][0]["message"].as_str().unwrap().contains("give the new key"), "{result}");

    // Without the public keys beside the log, the record still tells the old one.
    fs::remove_file(data_dir.join("audit.pub")).unwrap();
    assert_eq!(verify(&data_dir, Some(&keys[1])).faults, []);
    drop(Process::start(&data_dir));
    assert_eq!(public(&data_dir), keys);
}

/// A checkpoint that a log never had.
fn forged(key: &SignerKey, size: u64) -> String {
    let head = TreeHead { size, root: Hash::new([9; 32]) };
    Checkpoint::new(key.verifier().name(), head).unwrap().sign(key).unwrap().to_string()
}

/// The hazard: the only copy of what a lost key vouched for is thrown away because the list of keys is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_key_signed_stays_without_the_list_of_keys() {
    let (directory, data_dir, old) = signed().await;
    let old: SignerKey = fs::read_to_string(old).unwrap().trim_end().parse().unwrap();
    let checkpoints = || fs::read_to_string(data_dir.join("audit/checkpoints")).unwrap();
    let last = |text: &str| text.trim_end().rsplit_once("\n\n").unwrap().1.to_owned();
    let mut signatures = Vec::new();
    let (mut kept, mut note) = (Vec::new(), String::new());
    for change in 0..3 {
        if change > 0 {
            fs::remove_file(data_dir.join("audit.key")).unwrap();
            Service::with_config(new_key(&data_dir)).await.stop().await;
        }
        signatures.push(last(&checkpoints()));
        kept.push(public(&data_dir).pop().unwrap());
        if change == 0 {
            // What somebody has kept from before the changes.
            let service = Service::with_config(Config::for_data_dir(&data_dir)).await;
            note = String::from_utf8(command_line(&service, &["audit", "checkpoint"], "").await.stdout).unwrap();
            service.stop().await;
        }
    }
    assert_eq!(public(&data_dir), kept);
    fs::remove_file(data_dir.join("audit.pub")).unwrap();
    let file = directory.path().join("kept.note");
    fs::write(&file, &note).unwrap();
    let verify_with = |key: Option<&str>, note: &str| verify_audit(&data_dir, key, Some(note), &mut |_, _| true);
    assert_eq!(verify_with(Some(&kept[2]), &note).unwrap().faults, [], "before the start");
    // What the old key signed is compared, also where only the records tell that key.
    for (size, fragment) in [(2, "are not those that were signed at 2"), (10_000, "it was cut off")] {
        let faults = verify_with(Some(&kept[2]), &forged(&old, size)).unwrap().faults;
        assert!(faults.iter().any(|(_, fault)| fault.contains(fragment)), "{size}: {faults:?}");
    }

    let service = Service::with_config(Config::for_data_dir(&data_dir)).await;
    service.check("192.0.2.99", DEFAULT).await;
    let output = command_line(&service, &["audit", "verify", "--checkpoint", path(&file)], "").await;
    assert!(output.status.success(), "{}", printed(&output));
    service.stop().await;
    for signature in &signatures {
        assert!(checkpoints().contains(signature), "what {signature} vouched for is gone");
    }
    assert_eq!(public(&data_dir), kept, "the records tell the keys");
    for key in [None, Some(kept[2].as_str())] {
        assert_eq!(verify_with(key, &note).unwrap().faults, [], "{key:?}");
        let refused = verify_with(key, &forged(&crate::audit_engine::key(7), 1)).unwrap_err();
        assert!(refused.to_string().contains("not signed by any known key"), "{key:?}: {refused}");
    }
}

/// The hazard: advice that leads back to where it was given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_lost_both_keys_is_told_how_to_go_on() {
    let (_directory, data_dir, _) = signed().await;
    let [old] = &public(&data_dir)[..] else { panic!("one key") };
    for name in ["audit.key", "audit.pub"] {
        fs::remove_file(data_dir.join(name)).unwrap();
    }
    let with_flag = || {
        let refused = portcullis::server::open(&new_key(&data_dir)).err().map(|error| format!("{error:#}"));
        refused.expect("the old key is not known")
    };
    for log in [refusal(&data_dir), with_flag()] {
        for advice in ["public key", "audit.pub", "--audit-key-new", "Without a backup"] {
            assert!(log.contains(advice), "{advice}: {log}");
        }
        assert!(!log.contains("the key in"), "there is none: {log}");
    }
    assert!(!data_dir.join("audit.key").exists() && !data_dir.join("audit.pub").exists());
    // A key that did not sign is no help, and is told to be none.
    fs::write(data_dir.join("audit.pub"), format!("{}\n", crate::audit_engine::key(7).verifier())).unwrap();
    let log = with_flag();
    assert!(log.contains("audit.pub") && log.contains("public key"), "{log}");
    fs::write(data_dir.join("audit.pub"), format!("{old}\n")).unwrap();
    let service = Service::with_config(new_key(&data_dir)).await;
    let changed = records(&service, &[AuditType::KeyChanged]).await;
    let Some(Content::KeyChange(change)) = &changed[0].content else { panic!("{changed:?}") };
    assert_eq!(&change.previous_key, old);
    service.stop().await;
    assert_eq!(verify(&data_dir, None).faults, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_may_be_changed_more_than_once_and_the_flag_does_nothing_without_need() {
    let (directory, data_dir, kept) = signed().await;
    let service = Service::with_config(new_key(&data_dir)).await;
    assert_eq!(records(&service, &[AuditType::KeyChanged]).await, [], "the key is there");
    service.stop().await;
    assert_eq!(public(&data_dir).len(), 1);
    for count in 1..=3 {
        // A key that somebody made elsewhere does as well.
        let inside = data_dir.join("audit.key");
        match count {
            2 => fs::write(&inside, strange_key()).unwrap(),
            3 => drop(fs::copy(&kept, &inside).unwrap()),
            _ => fs::remove_file(&inside).unwrap(),
        }
        let service = Service::with_config(new_key(&data_dir)).await;
        assert_eq!(records(&service, &[AuditType::KeyChanged]).await.len(), count);
        service.check("192.0.2.1", DEFAULT).await;
        service.stop().await;
        let verified = verify(&data_dir, None);
        assert_eq!(verified.faults, [], "after {count} changes: {:?}", public(&data_dir));
    }
    drop(directory);
}

/// The hazard: a key that never signed takes over because a crash, or somebody else, left it in the list of those that sign.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_never_signed_does_not_take_over_because_it_is_listed() {
    let (_directory, data_dir, _) = signed().await;
    fs::write(data_dir.join("audit.key"), strange_key()).unwrap();
    let mut keys = public(&data_dir);
    keys.push(crate::audit_engine::key(7).verifier().to_string());
    fs::write(data_dir.join("audit.pub"), keys.join("\n") + "\n").unwrap();
    let log = refusal(&data_dir);
    assert!(log.contains(&keys[0]) && log.contains("--audit-key-new"), "{log}");
    assert_eq!(verify(&data_dir, Some(&keys[0])).faults, [], "something was signed");
    // So it is told again, at worst.
    let service = Service::with_config(new_key(&data_dir)).await;
    assert_eq!(records(&service, &[AuditType::KeyChanged]).await.len(), 1);
    service.stop().await;
    assert_eq!(verify(&data_dir, None).faults, []);
}

/// The hazard: a crash between the new key's first checkpoint and the list of keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_signed_the_newest_checkpoint_goes_on_and_is_listed() {
    let (_directory, data_dir, _) = signed().await;
    let before = public(&data_dir);
    fs::remove_file(data_dir.join("audit.key")).unwrap();
    Service::with_config(new_key(&data_dir)).await.stop().await;
    let after = public(&data_dir);
    fs::write(data_dir.join("audit.pub"), before.join("\n") + "\n").unwrap();
    Process::start(&data_dir).terminate();
    assert_eq!(public(&data_dir), after);
    assert_eq!(verify(&data_dir, None).faults, []);
}

/// The hazard: a start that is refused for another reason has replaced a key that was only mislaid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_start_with_a_new_key_leaves_everything_as_it_was() {
    let (directory, data_dir, _) = signed().await;
    fs::remove_file(data_dir.join("audit.key")).unwrap();
    let public = public(&data_dir);
    let wal = |of: &Path, store: &str| {
        let files = fs::read_dir(of.join(store)).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).max().unwrap()
    };
    for case in ["the audit log is cut off", "the policy is gone"] {
        let copied = directory.path().join(case);
        crate::audit_tamper::copy(&data_dir, &copied);
        if case == "the policy is gone" {
            fs::remove_file(wal(&copied, "policy")).unwrap();
        } else {
            let mut bytes = fs::read(wal(&copied, "audit")).unwrap();
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() - 300);
            fs::write(wal(&copied, "audit"), bytes).unwrap();
        }
        let checkpoints = fs::read(copied.join("audit/checkpoints")).unwrap();
        assert!(portcullis::server::open(&new_key(&copied)).is_err(), "{case}: it opens");
        assert!(!copied.join("audit.key").exists(), "{case}: a key was made");
        assert_eq!(self::public(&copied), public, "{case}");
        assert_eq!(fs::read(copied.join("audit/checkpoints")).unwrap(), checkpoints, "{case}");
    }
}

/// The hazard: a crash while the last checkpoint was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_last_checkpoint_is_not_taken_for_another_keys() {
    let (_directory, data_dir, _) = signed().await;
    let file = data_dir.join("audit/checkpoints");
    let text = fs::read_to_string(&file).unwrap();
    let note = text.trim_end().lines().rev().take(5).collect::<Vec<_>>();
    let note = note.into_iter().rev().collect::<Vec<_>>().join("\n");
    // The line of the signature is whole, and of what it signs a part did not reach the disk.
    let torn: String =
        note.char_indices().map(|(at, letter)| if (20..60).contains(&at) { '\0' } else { letter }).collect();
    fs::write(&file, format!("{text}\n{torn}\n")).unwrap();
    Process::start(&data_dir).terminate();
}
