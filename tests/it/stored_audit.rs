//! An audit log and sessions that version 1 wrote are read and verified for ever.
//!
//! Invariant: golden files are added, never altered.
//! Not here: damaged files (`audit_tamper`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{Actor, Content, RecordType, Subject};
use portcullis::policy::rule::{Action, ConnectionType};
use portcullis::server::verify_audit;

use crate::audit_engine::{DEFAULT, add_rule, check, erasure, key, open, sealed_units, settle, signed, small_units};
use crate::clock::until;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/audit-v1")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_the_sessions_of_version_1_read_as_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    copy(&golden(), directory.path());
    let verifier = key(1).verifier().to_string();
    let outcome = verify_audit(directory.path(), Some(&verifier), None, &mut |_, _| true).unwrap();
    assert_eq!(outcome.faults, []);
    let mut options = small_units();
    // What was open when it was written has long reached any usual age.
    options.sessions.max_age = Duration::from_hours(24 * 36_500);
    options.sessions.idle = Duration::from_hours(24 * 36_500);
    let engine = open(directory.path(), key(1), options);
    let log = engine.audit();
    let of_type = |record_type| {
        let filter = RecordFilter { types: vec![record_type], ..RecordFilter::default() };
        log.list(&filter, None, 1_000).unwrap().records
    };
    let decisions = of_type(RecordType::Decision);
    assert_eq!(decisions.len(), 903);
    let erased = decisions.iter().filter(|record| record.subject == Subject::Erased).count();
    assert_eq!(erased, 90);
    let Content::Decision(newest) = &decisions[0].entry.content else { panic!() };
    assert_eq!((newest.connection_type, &*newest.endpoint), (ConnectionType::Shell, DEFAULT));
    let Subject::Person(person) = &decisions[0].subject else { panic!() };
    assert_eq!((&*person.email, person.address), ("kept@example.com", "2001:db8::7".parse().unwrap()));
    for (record_type, count) in [(RecordType::SessionRevoked, 1), (RecordType::Erased, 1), (RecordType::Gap, 0)] {
        assert_eq!(of_type(record_type).len(), count, "{record_type:?}");
    }
    let who = of_type(RecordType::Erased)[0].subject.clone();
    assert_eq!(who, Subject::Actor(Actor { name: "somebody".into() }), "an opening without an address is an actor's");
    let filter = RecordFilter { email: Some("user-3@example.com".to_owned()), ..RecordFilter::default() };
    assert_eq!(log.count(&filter).unwrap(), 90);
    assert_eq!(engine.sessions().len(), 12, "ten previews, one of nobody, and two shells, one of them revoked");
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the golden files of the current version; run by hand when the format gets a new one"]
async fn write_the_golden_audit_log() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), key(1), small_units());
    for number in 0..900 {
        let email = format!("user-{}@example.com", number % 10);
        check(&engine, &email, "192.0.2.1", ConnectionType::Preview, DEFAULT).await.unwrap();
        if number == 500 {
            // So that a unit ends with its second tile and is sealed.
            signed(&engine).await;
        }
    }
    let sealed = async || (sealed_units(directory.path()) > 0).then_some(());
    until("a sealed unit", sealed).await;
    check(&engine, "revoked@example.com", "203.0.113.1", ConnectionType::Shell, DEFAULT).await.unwrap();
    add_rule(&engine, "bad", Action::Deny, "203.0.113.0/24").await;
    check(&engine, "revoked@example.com", "203.0.113.1", ConnectionType::Shell, DEFAULT).await.unwrap();
    settle(&engine).await;
    engine.erase_user(erasure("user-5@example.com", "somebody")).await.unwrap();
    check(&engine, "kept@example.com", "2001:db8::7", ConnectionType::Shell, DEFAULT).await.unwrap();
    signed(&engine).await;
    engine.close();
    for part in ["audit", "sessions"] {
        copy(&directory.path().join(part), &golden().join(part));
    }
}
