//! Erasures that are interrupted twice, or whose record retention removes before they are finished.
//!
//! Invariant: who comes back after the ERASED record is a new person, whom no later start erases.
//! Not here: a single interruption at each step (`erase_crash`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{Actor, RecordType, Subject};
use portcullis::engine::audit::EraseRequest;
use portcullis::engine::clock::Clock;
use portcullis::engine::{Engine, Options};
use portcullis::policy::rule::ConnectionType;
use portcullis::store::codec::audit::{ErasureMark, UnfinishedErasure, decode_erasure_mark, encode_erasure_mark};
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};

use crate::audit_disk::Switches;
use crate::audit_engine::{
    DEFAULT, add_rule_as, another_unit, check, erasure, key, open_with_policy, recorded, settle, signed, small_units,
};
use crate::clock::until;

/// A user who is an actor, too: an erasure of both is unfinished while the policy journal cannot be written.
const PERSON: &str = "ada@example.com";

/// Opens an engine whose policy journal is on a disk with switches.
fn open(data_dir: &Path, policy: &Switches, options: Options) -> Engine {
    for part in ["policy", "audit", "sessions"] {
        std::fs::create_dir_all(data_dir.join(part)).unwrap();
    }
    let disk = Arc::new(policy.clone());
    let journal = FileJournal::open(disk, data_dir.join("policy"), JournalOptions::default()).unwrap();
    open_with_policy(Box::new(journal), Arc::new(RealDisk), data_dir, key(1), options, Clock::system())
}

/// An engine in which the person is a user and an actor.
async fn used(data_dir: &Path, policy: &Switches, options: Options) -> Engine {
    let engine = open(data_dir, policy, options);
    add_rule_as(PERSON, &engine, "one").await;
    come(&engine).await;
    engine
}

/// The person connects. Returns the sequence of the record.
async fn come(engine: &Engine) -> u64 {
    check(engine, PERSON, "192.0.2.1", ConnectionType::Shell, DEFAULT).await.unwrap();
    settle(engine).await
}

fn with_actor() -> EraseRequest {
    EraseRequest { including_actor: true, ..erasure(PERSON, "somebody") }
}

/// The decisions that name the person.
fn named(engine: &Engine) -> Vec<u64> {
    let types = vec![RecordType::Decision];
    let filter = RecordFilter { types, email: Some(PERSON.to_owned()), ..RecordFilter::default() };
    engine.audit().list(&filter, None, 1_000).unwrap().records.into_iter().map(|record| record.sequence).collect()
}

fn mark_of(data_dir: &Path) -> UnfinishedErasure {
    let bytes = std::fs::read(data_dir.join("audit/erasing")).unwrap();
    let ErasureMark::Erasures(mut erasures) = decode_erasure_mark(&bytes).unwrap() else { panic!() };
    erasures.pop().unwrap()
}

/// Starts once more, and asserts that only what came after the erasure names the person.
async fn assert_finishes(data_dir: &Path, later: u64) {
    let engine = open(data_dir, &Switches::default(), small_units());
    let mark = data_dir.join("audit/erasing");
    until("the erasure is finished", async || (!mark.exists()).then_some(())).await;
    assert_eq!(named(&engine), [later]);
    let sessions = engine.sessions().list(None, &|_, _| true, None, usize::MAX);
    let is_person = |subject: &Subject| matches!(subject, Subject::Person(person) if &*person.email == PERSON);
    assert_eq!(sessions.iter().filter(|session| is_person(&session.subject)).count(), 1, "the later one");
    assert_eq!(engine.audit().verify(None, &mut |_, _| true).unwrap().faults, []);
    engine.close();
}

/// The hazard: a mark that names a sequence which the log has not reached, as a crash leaves it, or a restore, or an
/// earlier build. The ERASED record then comes before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_interrupted_starts_do_not_erase_who_came_in_between() {
    for ahead in [u64::MAX, 1_000] {
        let directory = tempfile::tempdir().unwrap();
        let (data_dir, policy) = (directory.path(), Switches::default());
        used(data_dir, &policy, small_units()).await.close();
        let asked_by = Actor { name: "somebody".into() };
        let (name, after_sequence) = (PERSON.to_owned(), ahead);
        let left = UnfinishedErasure {
            organization: None,
            name,
            including_actor: true,
            asked_by,
            after_sequence,
            recorded: None,
        };
        std::fs::write(data_dir.join("audit/erasing"), encode_erasure_mark([&left])).unwrap();

        policy.fails.store(true, Ordering::SeqCst);
        let engine = open(data_dir, &policy, small_units());
        recorded(&engine, RecordType::Erased, 1).await;
        let later = come(&engine).await;
        assert!(later < ahead);
        engine.close();
        let mark = mark_of(data_dir);
        assert!(mark.after_sequence < later, "the mark is behind what is durable: {mark:?}");
        assert_finishes(data_dir, later).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_of_an_erasure_never_lies_ahead_of_what_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, policy) = (directory.path(), Switches::default());
    let mut options = small_units();
    options.audit.async_interval = Duration::from_mins(10);
    let engine = used_without_settling(data_dir, &policy, options).await;
    let durable = engine.audit().newest_sequence();
    for number in 0..50 {
        let ip = format!("192.0.2.{number}");
        check(&engine, "bob@example.com", &ip, ConnectionType::Shell, DEFAULT).await.unwrap();
    }
    assert_eq!(engine.audit().newest_sequence(), durable, "they are only queued");
    policy.fails.store(true, Ordering::SeqCst);
    engine.erase_user(with_actor()).await.unwrap_err();
    let mark = mark_of(data_dir);
    assert_eq!(mark.after_sequence, durable);
    let erased = RecordFilter { types: vec![RecordType::Erased], ..RecordFilter::default() };
    let first = engine.audit().list(&erased, None, 1).unwrap().records[0].sequence;
    assert_eq!(mark.recorded, Some(first), "the record is durable");
    engine.close();
}

/// As [`used`], where records wait in memory.
async fn used_without_settling(data_dir: &Path, policy: &Switches, options: Options) -> Engine {
    used(data_dir, policy, small_units()).await.close();
    open(data_dir, policy, options)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_whose_record_retention_removed_erases_nobody_who_came_later() {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, policy) = (directory.path(), Switches::default());
    let mut options = small_units();
    options.audit.retention_bytes = Some(1);
    (options.sessions.max_age, options.sessions.idle) = (Duration::from_millis(1), Duration::from_millis(1));
    let engine = used(data_dir, &policy, options.clone()).await;
    policy.fails.store(true, Ordering::SeqCst);
    engine.erase_user(with_actor()).await.unwrap_err();
    let recorded = mark_of(data_dir).recorded.expect("it is durable");
    another_unit(&engine, data_dir).await;
    let log = engine.audit();
    until("the record is removed", async || (log.first_sequence() > recorded).then_some(())).await;
    engine.close();
    drop(engine);
    let engine = open(data_dir, &policy, small_units());
    let later = come(&engine).await;
    engine.close();
    assert_eq!(mark_of(data_dir).recorded, Some(recorded));
    assert_finishes(data_dir, later).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_journal_that_hangs_holds_up_no_checkpoint_no_sealing_and_no_other_erasure() {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, policy) = (directory.path(), Switches::default());
    let engine = Arc::new(used(data_dir, &policy, small_units()).await);
    check(&engine, "bob@example.com", "192.0.2.2", ConnectionType::Shell, DEFAULT).await.unwrap();
    policy.hangs.store(true, Ordering::SeqCst);
    let erasing = |request: EraseRequest| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.erase_user(request).await })
    };
    let first = erasing(with_actor());
    recorded(&engine, RecordType::Erased, 1).await;
    // Another of an actor waits for it, which holds up none of a user.
    let second = erasing(EraseRequest { including_actor: true, ..erasure("cleo@example.com", "somebody") });
    signed(&engine).await;
    another_unit(&engine, data_dir).await;
    signed(&engine).await;
    let count = engine.erase_user(erasure("bob@example.com", "somebody")).await.unwrap().openings;
    assert_eq!(count, 1);
    assert!(!first.is_finished() && !second.is_finished());
    policy.hangs.store(false, Ordering::SeqCst);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert!(!data_dir.join("audit/erasing").exists());
    assert_eq!(named(&engine), [0; 0]);
    engine.close();
}

#[test]
fn a_mark_that_does_not_decode_refuses_the_start_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path();
    open(data_dir, &Switches::default(), small_units()).close();
    let mark = data_dir.join("audit/erasing");
    std::fs::write(&mark, b"\xff\xff\xff").unwrap();
    let started = std::panic::catch_unwind(|| open(data_dir, &Switches::default(), small_units()));
    let Err(panic) = started else { panic!("it starts") };
    let told = panic.downcast::<String>().unwrap();
    assert!(told.contains("erasing") && told.contains("does not decode") && told.contains("erase again"), "{told}");
}
