//! Policies and snapshots of them that are another history's, or that do not say whose they are.
//!
//! Invariant: what is served is the policy that the audit log has the changes of, and what its journal leads to.
//! Not here: damaged snapshots (`store_snapshots`), and the other parts of a data directory (`witnesses`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis::engine::{Engine, Options};
use portcullis::policy::change::ChangeIdentity;
use portcullis::policy::state::PolicyState;
use portcullis::policy::time::Timestamp;
use portcullis::store::codec::{decode_change, encode_change, encode_snapshot};
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{JournalOptions, JournalReader, MemoryJournal};
use portcullis::store::snapshots::FileSnapshots;
use portcullis::store::{Log, Snapshots};

use crate::audit_engine::{another_unit, key, small_units, stores};
use crate::audit_retention::short_memory;
use crate::clock::{Hand, until};
use crate::witnesses::start;
use crate::witnesses_files::open;
use crate::witnesses_history::{CHANGES, Histories, go_on};

/// The policy that a journal leads to, and its last change.
fn end_of_journal(directory: &Path) -> (PolicyState, ChangeIdentity) {
    let (mut state, mut last) = (PolicyState::empty(), None);
    let disk = Arc::new(RealDisk);
    let journal = JournalReader::open(disk, directory.join("policy"), &JournalOptions::default()).unwrap();
    for record in journal.read_from(1).unwrap() {
        let change = decode_change(&record.unwrap().1).unwrap();
        state.apply(&change).unwrap();
        last = Some(change.identity());
    }
    (state, last.unwrap())
}

/// Writes a snapshot beside the newest changes.
fn write_snapshot(directory: &Path, bytes: &[u8]) {
    let snapshots = FileSnapshots::new(Arc::new(RealDisk), directory.join("policy"));
    snapshots.write(CHANGES, bytes).unwrap();
}

/// As many changes as the newest state has, with the same revisions.
async fn similar(root: &Path) {
    go_on(root, &["203.0.113.1", "203.0.113.2"]).await;
}

/// Of a state that the journal does not lead to, though it ends at one of its records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_snapshot_of_another_history_is_refused() {
    let (histories, root) = (Histories::write().await, tempfile::tempdir().unwrap());
    similar(root.path()).await;
    for (origin, fits) in [(&*histories.newest, true), (&histories.others, false), (root.path(), false)] {
        let directory = histories.copy_of_the_newest();
        let (state, last) = end_of_journal(origin);
        write_snapshot(directory.path(), &encode_snapshot(&state, Some(&last)));
        match (open(directory.path()), fits) {
            (Ok(engine), true) => engine.close(),
            (Err(message), false) => assert!(message.contains("does not go with the journal"), "{message}"),
            (outcome, _) => panic!("{fits}: {:?}", outcome.err()),
        }
    }
}

/// Earlier versions did not write whose a snapshot is: the journal is asked instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_snapshot_that_does_not_say_its_change_is_not_used() {
    let (histories, root) = (Histories::write().await, tempfile::tempdir().unwrap());
    similar(root.path()).await;
    for origin in [&histories.newest, root.path()] {
        let directory = histories.copy_of_the_newest();
        write_snapshot(directory.path(), &encode_snapshot(&end_of_journal(origin).0, None));
        start(directory.path(), &format!("{origin:?}"), true).await.unwrap();
    }
    // What it has seen counts all the same.
    let directory = histories.copy_of_the_newest();
    let snapshots = FileSnapshots::new(Arc::new(RealDisk), directory.path().join("policy"));
    snapshots.write(CHANGES + 1, &encode_snapshot(&end_of_journal(&histories.newest).0, None)).unwrap();
    let message = open(directory.path()).err().expect("refused");
    assert!(message.contains("a snapshot in `policy` has seen record 5"), "{message}");
}

/// A journal with the first changes, made at a time.
fn first_changes(time: Timestamp) -> MemoryJournal {
    let mut journal = MemoryJournal::new();
    journal.append(&PolicyState::first_changes(time).unwrap().each_ref().map(encode_change)).unwrap();
    journal
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_of_another_history_is_refused_where_retention_removed_the_records_of_the_right_one() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::at_present());
    let data_dir = directory.path();
    for part in ["audit", "sessions", "policy"] {
        std::fs::create_dir(data_dir.join(part)).unwrap();
    }
    let begun = hand.clock().now();
    let open = |policy: Timestamp, options: Options| {
        Engine::open(
            stores(Box::new(first_changes(policy)), Arc::new(RealDisk), data_dir, key(1)),
            options,
            hand.clock(),
        )
    };
    let engine = open(begun, small_units()).unwrap();
    another_unit(&engine, data_dir).await;
    engine.close();
    let engine = open(begun, short_memory()).unwrap();
    hand.advance(Duration::from_secs(3_601));
    until("the records of the changes are removed", async || (engine.audit().first_sequence() > 2).then_some(())).await;
    engine.close();
    open(begun, small_units()).unwrap().close();
    let other = Timestamp::from_micros(begun.micros() + 1);
    let message = open(other, small_units()).err().expect("another policy").to_string();
    assert!(message.contains("record 2 of the policy journal is not the change that the audit log has"), "{message}");
}
