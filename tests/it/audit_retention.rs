//! Retention: old records go by whole units, on the record, and what is kept can still be proven.
//!
//! Invariant: nothing goes that is younger than the longest session; disk space comes back.
//! Not here: erasing persons (`audit_tamper`).

use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::merkle::{leaf_hash, verify_inclusion};
use portcullis::audit::record::{Content, RecordType};
use portcullis::engine::audit::AuditError;
use portcullis::engine::{Engine, Options};
use portcullis::policy::rule::ConnectionType;
use portcullis::server::verify_audit;

use crate::audit_engine::{
    DEFAULT, another_unit, check, key, open, open_by, recorded, sealed_files, settle, signed, small_units,
};
use crate::clock::{Hand, until};

const HOUR: Duration = Duration::from_hours(1);

/// Everything sealed that is older than an hour goes, at once; no more is sealed meanwhile.
pub(crate) fn short_memory() -> Options {
    let mut options = small_units();
    options.audit.retention_age = Some(HOUR);
    options.audit.unit_age_max = 24 * HOUR;
    options.sessions.max_age = HOUR;
    options.sessions.idle = HOUR;
    options
}

async fn fill(engine: &Engine, records: usize) -> u64 {
    for number in 0..records {
        let email = format!("user-{}@example.com", number % 7);
        check(engine, &email, "198.51.100.1", ConnectionType::Preview, DEFAULT).await.unwrap();
    }
    settle(engine).await
}

/// What is written there; the room for frames to come is not.
fn bytes(directory: &std::path::Path) -> usize {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.map(|file| file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_units_go_on_record_and_what_is_kept_still_verifies_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, audit) = (directory.path(), directory.path().join("audit"));
    let engine = open(data_dir, key(1), small_units());
    for _ in 0..4 {
        another_unit(&engine, data_dir).await;
    }
    engine.close();
    let before = (sealed_files(&audit).list().unwrap().len(), bytes(&audit));
    assert!(before.0 >= 3, "{before:?}");

    let hand = Hand::at_present();
    let engine = open_by(data_dir, key(1), short_memory(), hand.clock());
    let log = engine.audit();
    // Whoever reads while units are removed is told what became of the records.
    let mut rounds = 0;
    until("a unit is removed", async || {
        if rounds == 1 {
            assert_eq!(log.first_sequence(), 1, "nothing is too old yet");
            hand.advance(HOUR + Duration::from_secs(1));
        }
        rounds += 1;
        for _ in 0..200 {
            for from in [1, 300, 700, 1_100] {
                let read = log.read(from, 10);
                assert!(matches!(read, Ok(_) | Err(AuditError::Removed { .. })), "{read:?}");
            }
            log.list(&RecordFilter { email: Some("user-3@example.com".to_owned()), ..Default::default() }, None, 500)
                .unwrap();
        }
        (log.first_sequence() > 1).then_some(())
    })
    .await;
    let first = log.first_sequence();
    assert!(first > 1 && (first - 1).is_multiple_of(256), "{first}");
    let filter = RecordFilter { types: vec![RecordType::Pruned], ..RecordFilter::default() };
    let pruned = log.list(&filter, None, 10).unwrap().records;
    let Content::Pruned(pruned) = &pruned[0].entry.content else { panic!() };
    assert_eq!(pruned.to_sequence, first - 1);
    assert_eq!(log.read(1, 10).unwrap_err(), AuditError::Removed { first });
    assert_eq!(log.read(first, 1).unwrap()[0].sequence, first);
    assert!(matches!(log.inclusion_proof(1, 0), Err(AuditError::Removed { .. })));
    fill(&engine, 300).await;
    let (head, kept) = (signed(&engine).await, log.first_sequence());
    for sequence in [kept, kept + 3, head.size] {
        let proof = log.inclusion_proof(sequence, head.size).unwrap();
        assert_eq!((proof.leaf_index, proof.tree_size), (sequence - 1, head.size));
        verify_inclusion(leaf_hash(&[&proof.leaf]), proof.leaf_index, head, &proof.hashes).unwrap();
    }
    engine.close();
    assert!(bytes(&audit) < before.1, "space comes back: {} of {}", bytes(&audit), before.1);

    let verify = || {
        let verifier = key(1).verifier().to_string();
        verify_audit(data_dir, Some(&verifier), None, &mut |_, _| true).unwrap()
    };
    assert_eq!(verify().faults, []);
    // Over a restart the organization's count goes on, and so does everything else.
    let engine = open_by(data_dir, key(1), small_units(), hand.clock());
    let organization = Some(portcullis::policy::name::Id::parse("default").unwrap());
    let filter = RecordFilter { organization, ..RecordFilter::default() };
    let before = engine.audit().list(&filter, None, 1).unwrap().records[0].organization_sequence;
    assert!(before >= 2_700, "all that it ever recorded count, those that are gone too: {before}");
    fill(&engine, 1).await;
    let newest = engine.audit().list(&filter, None, 2).unwrap().records;
    assert_eq!((newest[0].organization_sequence, newest[1].organization_sequence), (before + 1, before));
    // What is open now began in the past, and is sealed with its next tile.
    hand.advance(Duration::from_secs(1));
    another_unit(&engine, data_dir).await;
    engine.close();
    assert_eq!(verify().faults, []);

    // Units that are gone without a record of it are a fault.
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&audit).unwrap() {
        let path = entry.unwrap().path();
        std::fs::create_dir_all(copy.path().join("audit")).unwrap();
        std::fs::copy(&path, copy.path().join("audit").join(path.file_name().unwrap())).unwrap();
    }
    let units = sealed_files(&copy.path().join("audit")).list().unwrap();
    sealed_files(&copy.path().join("audit")).remove(units[0]).unwrap();
    // The journal keeps a unit until it is told that the unit is sealed, which the end may have come before.
    let journal = copy.path().join("audit").join(format!("journal-{:020}.wal", units[0]));
    if journal.exists() {
        std::fs::remove_file(journal).unwrap();
    }
    let verifier = key(1).verifier().to_string();
    let faults = verify_audit(copy.path(), Some(&verifier), None, &mut |_, _| true).unwrap().faults;
    assert!(faults.iter().any(|(sequence, _)| *sequence == units[0]), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_new_rule_revokes_just_a_thousand_of_a_hundred_thousand_sessions() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = small_units();
    options.audit.unit_age_max = Duration::from_hours(24);
    let engine = open(directory.path(), key(1), options);
    let mut inside = std::collections::BTreeSet::new();
    for number in 0..100_000_u32 {
        let concerned = number.is_multiple_of(100);
        let third = number / 100 % 250;
        let ip = if concerned {
            format!("198.51.{third}.{}", number / 25_000)
        } else {
            format!("10.{}.{}.7", number / 250 % 250, number % 250)
        };
        let endpoint = format!("{DEFAULT}/projects/p{}", number % 20);
        let answer = check(&engine, "ada@example.com", &ip, ConnectionType::Shell, &endpoint).await.unwrap();
        if concerned {
            inside.insert(answer.session.unwrap());
        }
    }
    assert_eq!((engine.sessions().len(), inside.len()), (100_000, 1_000));
    let other = check(&engine, "ada@example.com", "203.0.113.1", ConnectionType::Shell, DEFAULT).await.unwrap();
    let change =
        crate::audit_engine::add_rule(&engine, "new", portcullis::policy::rule::Action::Deny, "198.51.0.0/16").await;
    let filter = RecordFilter { types: vec![RecordType::SessionRevoked], ..RecordFilter::default() };
    recorded(&engine, RecordType::SessionRevoked, 1_000).await;
    // The keeper comes to the next change when it has judged every session by the first: none too many is missed.
    crate::audit_engine::add_rule(&engine, "next", portcullis::policy::rule::Action::Deny, "203.0.113.1").await;
    recorded(&engine, RecordType::SessionRevoked, 1_001).await;
    let (mut revoked, mut before) = (Vec::new(), None);
    loop {
        // A page ends early on a busy machine.
        let page = engine.audit().list(&filter, before, 2_000).unwrap();
        revoked.extend(page.records);
        before = page.next_before;
        if before.is_none() {
            break;
        }
    }
    let mut found = std::collections::BTreeSet::new();
    for record in &revoked {
        let Content::SessionRevoked(session) = &record.entry.content else { panic!() };
        if Some(session.id) == other.session {
            continue;
        }
        let revocation = session.revocation.as_ref().unwrap();
        assert_eq!((revocation.revision, revocation.rule.as_ref().unwrap().as_str()), (change.revision, "new"));
        found.insert(session.id);
    }
    assert_eq!((revoked.len(), found), (1_001, inside), "all of them, each once, and no other");
    assert_eq!(engine.sessions().len(), 100_001, "revoked ones stay until the PEP ends them");
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_that_the_policy_denies_goes_on_whatever_checks_and_changes_meet() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = small_units();
    options.audit.unit_age_max = Duration::from_hours(24);
    let engine = std::sync::Arc::new(open(directory.path(), key(1), options));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let checks: Vec<_> = (0..4)
        .map(|task| {
            let (engine, stop) = (std::sync::Arc::clone(&engine), std::sync::Arc::clone(&stop));
            tokio::spawn(async move {
                let mut number = 0_u32;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let ip = format!("10.{task}.{}.{}", number / 200 % 200, number % 200);
                    check(&engine, "ada@example.com", &ip, ConnectionType::Shell, DEFAULT).await.unwrap();
                    number += 1;
                    if number.is_multiple_of(16) {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    let id = portcullis::policy::name::Id::parse("closed").unwrap();
    let mut rounds = 0;
    while rounds < 40 || engine.sessions().len() <= 100 {
        rounds += 1;
        assert!(rounds < 4_000, "too few sessions to show anything");
        crate::audit_engine::add_rule(&engine, "closed", portcullis::policy::rule::Action::Deny, "10.0.0.0/8").await;
        tokio::time::sleep(Duration::from_millis(3)).await;
        let delete = portcullis::policy::plan::Mutation::DeleteRule { id: id.clone(), etag: None };
        crate::audit_engine::change(&engine, delete).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    crate::audit_engine::add_rule(&engine, "closed", portcullis::policy::rule::Action::Deny, "10.0.0.0/8").await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for check in checks {
        check.await.unwrap();
    }
    until("every session is revoked", async || {
        let going_on = engine.sessions().list(None, &|session, _| session.revocation.is_none(), None, 10);
        going_on.is_empty().then_some(())
    })
    .await;
    engine.close();
}
