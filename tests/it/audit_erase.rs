//! Erasures that meet a disk that fails or does not answer, a change of the policy, or a shutdown.
//!
//! Invariant: an erasure that waits holds up no shutdown, and one that cannot be finished holds up nothing but itself.
//! Not here: what an erasure removes (`audit_tamper`, `audit_actor`).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{Actor, RecordType, Subject};
use portcullis::engine::Engine;
use portcullis::engine::audit::{AuditError, EraseRequest, Erased, OnAuditFailure};
use portcullis::engine::clock::Clock;
use portcullis::policy::name::Id;
use portcullis::policy::rule::ConnectionType;
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};

use crate::audit_disk::{Switches, ask, open};
use crate::audit_engine::{
    DEFAULT, add_rule_as, another_unit, check, erasure, key, open_on, open_with_policy, recorded, sealed_units, settle,
    small_units,
};
use crate::audit_tamper::assert_nowhere;
use crate::clock::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_journal_that_cannot_be_written_holds_up_only_the_erasure_of_actors() {
    const ADMIN: &str = "admin@example.com";
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path();
    for part in ["policy", "audit", "sessions"] {
        std::fs::create_dir_all(data_dir.join(part)).unwrap();
    }
    let switches = Switches::default();
    let disk = Arc::new(switches.clone());
    let policy = Box::new(FileJournal::open(disk, data_dir.join("policy"), JournalOptions::default()).unwrap());
    let engine = open_with_policy(policy, Arc::new(RealDisk), data_dir, key(1), small_units(), Clock::system());
    add_rule_as(ADMIN, &engine, "one").await;
    ask(&engine, ConnectionType::Shell).await.unwrap();
    switches.fails.store(true, Ordering::SeqCst);
    let with_actor = || EraseRequest { including_actor: true, ..erasure(ADMIN, "somebody") };
    let refused = engine.erase_user(with_actor()).await;
    assert!(matches!(refused, Err(AuditError::NotWritable(_))), "{refused:?}");
    let mark = data_dir.join("audit/erasing");
    assert!(mark.exists());
    another_unit(&engine, data_dir).await;
    let erased = engine.erase_user(erasure("ada@example.com", "somebody")).await.unwrap();
    assert_eq!(erased.openings, 1, "a user is erased meanwhile");
    let refused = engine.erase_user(with_actor()).await;
    assert!(matches!(refused, Err(AuditError::NotWritable(_))), "{refused:?}");
    assert!(mark.exists(), "the actor is left over");
    switches.fails.store(false, Ordering::SeqCst);
    until("the erasure is finished", async || (!mark.exists()).then_some(())).await;
    let revisions = engine.revisions(&Id::parse("default").unwrap(), None, 10).await.unwrap();
    assert!(revisions.iter().all(|revision| revision.actor.is_empty()));
    assert_eq!(engine.audit().verify(None, &mut |_, _| true).unwrap().faults, []);
    engine.close();
    assert_nowhere(data_dir, ADMIN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_actor_does_while_the_erasure_is_recorded_keeps_the_name_everywhere() {
    const ADMIN: &str = "admin@example.com";
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path();
    std::fs::create_dir_all(data_dir.join("audit")).unwrap();
    std::fs::create_dir_all(data_dir.join("sessions")).unwrap();
    let switches = Switches { extension: Some("wal"), ..Switches::default() };
    let engine = Arc::new(open_on(Arc::new(switches.clone()), data_dir, key(1), small_units()));
    add_rule_as(ADMIN, &engine, "one").await;
    let before = settle(&engine).await;
    switches.hangs.store(true, Ordering::SeqCst);
    let erasing = tokio::spawn({
        let engine = Arc::clone(&engine);
        let request = EraseRequest { including_actor: true, ..erasure(ADMIN, "somebody") };
        async move { engine.erase_user(request).await }
    });
    let queued = async || (engine.audit().queue().last_sequence() > before).then_some(());
    until("the record of the erasure is queued", queued).await;
    add_rule_as(ADMIN, &engine, "two").await;
    switches.hangs.store(false, Ordering::SeqCst);
    erasing.await.unwrap().unwrap();
    settle(&engine).await;
    let filter = RecordFilter { types: vec![RecordType::PolicyChanged], ..RecordFilter::default() };
    let logged = engine.audit().list(&filter, None, 2).unwrap().records;
    let logged: Vec<_> = logged.into_iter().map(|record| record.subject).collect();
    assert_eq!(logged, [Subject::Actor(Actor { name: ADMIN.into() }), Subject::Erased]);
    let revisions = engine.revisions(&Id::parse("default").unwrap(), None, 2).await.unwrap();
    let revised: Vec<_> = revisions.iter().map(|revision| &*revision.actor).collect();
    assert_eq!(revised, [ADMIN, ""]);
    engine.close();
}

/// Closes an engine on a thread of its own, and fails if that takes too long.
pub(crate) async fn assert_closes(engine: &Arc<Engine>) {
    let (engine, (done, closed)) = (Arc::clone(engine), tokio::sync::oneshot::channel());
    std::thread::spawn(move || {
        engine.close();
        done.send(()).unwrap();
    });
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("the engine does not close").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_waits_for_the_disk_holds_no_shutdown_up() {
    let directory = tempfile::tempdir().unwrap();
    let switches = Switches::default();
    let engine = Arc::new(open(directory.path(), &switches, OnAuditFailure::Deny));
    ask(&engine, ConnectionType::Shell).await.unwrap();
    switches.hangs.store(true, Ordering::SeqCst);
    let erasing = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.erase_user(erasure("ada@example.com", "somebody")).await }
    });
    // Meanwhile the erasure begins to write its mark, and the audit writer has nothing to do.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let heal = {
        let hangs = Arc::clone(&switches.hangs);
        async move {
            // Long enough for the audit writer to end before the mark is written.
            tokio::time::sleep(Duration::from_millis(300)).await;
            hangs.store(false, Ordering::SeqCst);
        }
    };
    tokio::join!(assert_closes(&engine), heal);
    assert_eq!(erasing.await.unwrap(), Err(AuditError::ShuttingDown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_asked_for_just_before_the_shutdown_never_holds_it_up() {
    for pause in 0..8 {
        let directory = tempfile::tempdir().unwrap();
        let engine = Arc::new(open(directory.path(), &Switches::default(), OnAuditFailure::Deny));
        ask(&engine, ConnectionType::Shell).await.unwrap();
        let erasing = tokio::spawn({
            let engine = Arc::clone(&engine);
            async move { engine.erase_user(erasure("ada@example.com", "somebody")).await }
        });
        tokio::time::sleep(Duration::from_millis(pause)).await;
        assert_closes(&engine).await;
        let erased = tokio::time::timeout(Duration::from_secs(10), erasing).await.expect("it is answered").unwrap();
        assert!(!matches!(erased, Ok(Erased { openings: 0, .. })), "{erased:?}");
        drop(engine);
        // What was begun is finished by the next start.
        let engine = open(directory.path(), &Switches::default(), OnAuditFailure::Deny);
        assert_eq!(engine.audit().verify(None, &mut |_, _| true).unwrap().faults, []);
        engine.close();
    }
}

/// An engine with so many sealed units in which the person is, on a disk where new files can be made slow.
async fn with_units(data_dir: &Path, count: usize) -> (Arc<Engine>, Switches) {
    for part in ["audit", "sessions"] {
        std::fs::create_dir_all(data_dir.join(part)).unwrap();
    }
    let switches = Switches { extension: Some("new"), ..Switches::default() };
    let engine = Arc::new(open_on(Arc::new(switches.clone()), data_dir, key(1), small_units()));
    for _ in 0..count {
        another_unit(&engine, data_dir).await;
    }
    (engine, switches)
}

/// One of the users of [`another_unit`].
const PERSON: &str = "user-3@example.com";

fn erase_person(engine: &Arc<Engine>) -> tokio::task::JoinHandle<Result<Erased, AuditError>> {
    let engine = Arc::clone(engine);
    tokio::spawn(async move { engine.erase_user(erasure(PERSON, "somebody")).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_of_many_units_holds_up_neither_checkpoints_nor_sealing() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, switches) = with_units(directory.path(), 6).await;
    switches.slow.store(120, Ordering::SeqCst);
    let before = sealed_units(directory.path());
    let erasing = erase_person(&engine);
    let (mut signed, mut number) = (BTreeSet::new(), 0);
    while !erasing.is_finished() {
        for _ in 0..16 {
            number += 1;
            let email = format!("other-{}@example.com", number % 9);
            check(&engine, &email, "198.51.100.1", ConnectionType::Preview, DEFAULT).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
        signed.extend(engine.audit().checkpoint());
    }
    let sealed = sealed_units(directory.path());
    erasing.await.unwrap().unwrap();
    assert!(signed.len() >= 6, "{} checkpoints while six units were rewritten", signed.len());
    assert!(sealed > before, "no unit was sealed meanwhile");
    engine.close();
    assert_nowhere(directory.path(), PERSON);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_in_the_midst_of_an_erasure_ends_in_time_and_the_next_start_finishes_it() {
    for gives_up in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path();
        let (engine, switches) = with_units(data_dir, 6).await;
        switches.slow.store(200, Ordering::SeqCst);
        let erasing = erase_person(&engine);
        recorded(&engine, RecordType::Erased, 1).await;
        if gives_up {
            erasing.abort();
        }
        assert_closes(&engine).await;
        match erasing.await {
            Ok(answer) => assert_eq!(answer, Err(AuditError::ShuttingDown)),
            Err(error) => assert!(error.is_cancelled() && gives_up),
        }
        drop(engine);
        let mark = data_dir.join("audit/erasing");
        assert!(mark.exists(), "not everything is erased yet");

        // A start that finds the mark, on a disk without room, ends as soon.
        let engine = Arc::new(open_on(Arc::new(switches.clone()), data_dir, key(1), small_units()));
        switches.fails.store(true, Ordering::SeqCst);
        assert_closes(&engine).await;
        drop(engine);
        assert!(mark.exists(), "not everything is erased yet");

        switches.fails.store(false, Ordering::SeqCst);
        switches.slow.store(0, Ordering::SeqCst);
        let engine = Arc::new(open_on(Arc::new(switches.clone()), data_dir, key(1), small_units()));
        until("the erasure is finished", async || (!mark.exists()).then_some(())).await;
        assert_closes(&engine).await;
        let late = engine.erase_user(erasure(PERSON, "somebody")).await;
        assert!(late.is_err(), "nobody carries it out");
        assert_nowhere(data_dir, PERSON);
    }
}
