//! Changes of the signing key that somebody made up who has the disk and not the key.
//!
//! Invariant: no record of a change makes a checkpoint good that neither the trusted key nor one before it signed.
//! Not here: honest changes of the key (`audit_key`), altered records (`audit_tamper`).

use std::path::Path;

use portcullis::audit::note::SignerKey;
use portcullis::audit::record::{Content, Entry, KeyChangedRecord};
use portcullis::engine::audit::Verification;
use portcullis::engine::{Engine, Options};
use portcullis::policy::rule::ConnectionType;
use portcullis::policy::time::Timestamp;
use portcullis::server::verify_audit;

use crate::audit_engine::{
    DEFAULT, another_unit, check, key, open, open_by, sealed_units, settle, signed, small_units,
};
use crate::audit_tamper::copy;
use crate::clock::{Hand, until};

/// The trusted key, and the one of whoever forges.
const TRUSTED: u8 = 1;
const FORGER: u8 = 2;

fn verify(data_dir: &Path, trusted: u8) -> Verification {
    verify_audit(data_dir, Some(&key(trusted).verifier().to_string()), None, &mut |_, _| true).unwrap()
}

/// Writes what lies beside a log.
fn publish(data_dir: &Path, keys: &[u8]) {
    let lines: Vec<String> = keys.iter().map(|seed| format!("{}\n", key(*seed).verifier())).collect();
    std::fs::write(data_dir.join("audit.pub"), lines.concat()).unwrap();
}

/// Options of a log that `earlier` keys signed.
fn after(earlier: &[u8]) -> Options {
    let mut options = small_units();
    options.audit.earlier_keys = earlier.iter().map(|seed| key(*seed).verifier().clone()).collect();
    options
}

fn text(key: &SignerKey) -> String {
    key.verifier().to_string()
}

/// Has it recorded that another key signs from now on.
fn record_change(engine: &Engine, from: u8, to: u8) {
    let change = KeyChangedRecord {
        previous_key: text(&key(from)).into(),
        key: text(&key(to)).into(),
        signed_size: engine.audit().newest_sequence(),
    };
    let time = Timestamp::from_micros(1_800_000_000_000_000);
    let entry = Entry { time, organization: None, content: Content::KeyChanged(change) };
    engine.audit().queue().push(entry, None, true);
}

/// Some records that are signed.
async fn signed_records(engine: &Engine) {
    for number in 0..20 {
        let ip = format!("198.51.100.{number}");
        check(engine, "ada@example.com", &ip, ConnectionType::Shell, DEFAULT).await.unwrap();
    }
    settle(engine).await;
    signed(engine).await;
}

fn assert_refused(data_dir: &Path) {
    for beside in [&[FORGER][..], &[FORGER, TRUSTED], &[TRUSTED, FORGER], &[TRUSTED]] {
        publish(data_dir, beside);
        let verified = verify(data_dir, TRUSTED);
        assert_ne!(verified.faults, [], "beside the log: {beside:?}");
    }
    std::fs::remove_file(data_dir.join("audit.pub")).unwrap();
    assert_ne!(verify(data_dir, TRUSTED).faults, [], "nothing beside the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_made_up_log_is_not_good_because_its_records_name_the_trusted_key() {
    let directory = tempfile::tempdir().unwrap();
    for (name, changes) in [
        ("back", &[(TRUSTED, FORGER), (FORGER, TRUSTED), (TRUSTED, FORGER)][..]),
        ("there", &[(FORGER, TRUSTED)]),
        ("both", &[(FORGER, TRUSTED), (TRUSTED, FORGER)]),
        ("twice", &[(FORGER, TRUSTED), (FORGER, TRUSTED)]),
    ] {
        let data_dir = directory.path().join(name);
        let engine = open(&data_dir, key(FORGER), small_units());
        for (from, to) in changes {
            record_change(&engine, *from, *to);
            signed_records(&engine).await;
        }
        engine.close();
        assert_refused(&data_dir);
        assert_eq!(verify(&data_dir, TRUSTED).signed_size, 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_genuine_log_does_not_vouch_for_what_a_forger_appended() {
    let directory = tempfile::tempdir().unwrap();
    let genuine = directory.path().join("genuine");
    let engine = open(&genuine, key(TRUSTED), small_units());
    signed_records(&engine).await;
    engine.close();
    publish(&genuine, &[TRUSTED]);
    let whole = verify(&genuine, TRUSTED);
    assert_eq!((&whole.faults[..], whole.signed_size), (&[][..], whole.tree_size));

    for (name, changes) in [
        // The change to the forger's key is recorded by the start.
        ("plain", &[][..]),
        ("back", &[(FORGER, TRUSTED)]),
        ("there and back", &[(FORGER, TRUSTED), (TRUSTED, FORGER)]),
    ] {
        let data_dir = directory.path().join(name);
        copy(&genuine, &data_dir);
        let engine = open(&data_dir, key(FORGER), after(&[TRUSTED]));
        signed_records(&engine).await;
        for (from, to) in changes {
            record_change(&engine, *from, *to);
            signed_records(&engine).await;
        }
        engine.close();
        assert_refused(&data_dir);
        assert_eq!(verify(&data_dir, TRUSTED).signed_size, whole.tree_size, "{name}: more than the key signed");
    }
}

/// The other side: an honest chain, seen by whoever trusts its newest key, with and without the others beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_chain_of_keys_is_good_under_its_newest() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path();
    let mut earlier = Vec::new();
    for seed in [5, 6, 5, 7] {
        let engine = open(data_dir, key(seed), after(&earlier));
        signed_records(&engine).await;
        engine.close();
        earlier.retain(|other| *other != seed);
        earlier.push(seed);
    }
    for beside in [&[5, 6, 7][..], &[7], &[5]] {
        publish(data_dir, beside);
        let verified = verify(data_dir, 7);
        assert_eq!((&verified.faults[..], verified.signed_size), (&[][..], verified.tree_size), "{beside:?}");
    }
    for older in [5, 6] {
        assert_ne!(verify(data_dir, older).faults, [], "key {older} vouches for what came after it");
    }
}

/// The hazard: retention removes the record of the change, and a checkpoint from before it is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_keys_that_retention_removed_is_no_fault() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path();
    let engine = open(data_dir, key(5), small_units());
    another_unit(&engine, data_dir).await;
    signed(&engine).await;
    let last = settle(&engine).await;
    engine.close();
    let engine = open(data_dir, key(6), after(&[5]));
    another_unit(&engine, data_dir).await;
    another_unit(&engine, data_dir).await;
    signed(&engine).await;
    engine.close();
    assert!(sealed_units(data_dir) >= 2);

    let hand = Hand::at_present();
    let hour = std::time::Duration::from_hours(1);
    let mut options = after(&[5]);
    options.audit.retention_age = Some(hour);
    (options.sessions.max_age, options.sessions.idle) = (hour, hour);
    let engine = open_by(data_dir, key(6), options, hand.clock());
    hand.advance(hour + std::time::Duration::from_secs(1));
    until("the change is removed", async || (engine.audit().first_sequence() > last + 1).then_some(())).await;
    signed_records(&engine).await;
    engine.close();
    for beside in [&[5, 6][..], &[6]] {
        publish(data_dir, beside);
        let verified = verify(data_dir, 6);
        assert_eq!(verified.faults, [], "{beside:?}");
    }
}
