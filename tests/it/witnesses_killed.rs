//! What a start does about a part that is older, missing, or another's, where the service was killed.
//!
//! Invariant: every history here ends by `kill -9`: it is the image of a running directory.
//! Not here: histories that end regularly (`witnesses`), and how many records a kill loses (`crash_kill`).

use std::path::Path;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{Content, RecordType};
use portcullis::config::{Config, Durability, OnAuditFailure};
use portcullis::server;

use crate::witnesses::Harm::{CutBack, Others};
use crate::witnesses::Part::{Checkpoints, Sessions, Sled, WholeAuditLog};
use crate::witnesses::{Does, HARMS, Harm, Part, TABLE, start};
use crate::witnesses_files::{count, crashed, open};
use crate::witnesses_history::{Histories, copy};

/// Cells of the table in which a start serves nevertheless: the saved sessions would have noticed, and none were saved yet.
/// What was lost then is said.
const SERVED: [(Part, Harm, &str); 3] = [
    (Checkpoints, CutBack, "signatures"),
    (WholeAuditLog, CutBack, "Checks and ends of sessions; the changes of policy are recorded again"),
    (Sessions, Others, "nothing: they are empty, too"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_all_but_the_saved_sessions_notice_the_same() {
    let histories = Histories::write_killed().await;
    let mut refused = 0;
    for (part, _, cells) in TABLE {
        for (harm, (does, _)) in HARMS.into_iter().zip(cells) {
            let directory = histories.copy_of_the_newest();
            harm.befall(part, &histories, directory.path());
            let lost = SERVED.iter().find(|(served, by, _)| (*served, *by) == (part, harm));
            let log_is_whole = (part, harm) != (WholeAuditLog, CutBack);
            let outcome = start(directory.path(), &format!("{part:?} {harm:?}"), log_is_whole).await;
            match (does, outcome) {
                // Another's database is refused where it has been written already.
                (_, outcome) if (part, harm) == (Sled, Others) => {
                    assert!(outcome.err().is_none_or(|message| message.contains("`sled`")));
                }
                (Does::Refuse(_), Ok(())) if lost.is_some() => {}
                // Match counts that were stored in between notice it.
                (_, Err(message)) if lost.is_some() && message.contains("the match counts in `sled`") => {}
                (Does::Refuse(fragment), Err(message)) if lost.is_none() && message.contains(fragment) => refused += 1,
                (Does::Serve, Ok(())) => {}
                (_, outcome) => panic!("{part:?} {harm:?}: {does:?} expected: {outcome:?}"),
            }
        }
    }
    assert_eq!(refused, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_decided_without_a_record_leaves_a_gap_after_a_crash_and_only_that_does() {
    for (preview, on_failure, gaps) in [
        (Durability::Sync, OnAuditFailure::Deny, 0),
        (Durability::Sync, OnAuditFailure::Allow, 1),
        (Durability::Async, OnAuditFailure::Deny, 1),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut config = Config::for_data_dir(root.path().join("data"));
        (config.record.audit_preview, config.record.on_audit_failure) = (preview, on_failure);
        let image = crashed(&config, "198.51.100.1").await;
        let engine = open(image.path()).unwrap();
        assert_eq!(count(&engine, RecordType::Gap), gaps, "{preview} {on_failure}");
        let filter = RecordFilter { types: vec![RecordType::Gap], ..RecordFilter::default() };
        for record in engine.audit().list(&filter, None, 1).unwrap().records {
            let Content::Gap(gap) = &record.entry.content else { panic!() };
            // What is decided while nothing can be recorded has no bound.
            assert_eq!(gap.count == 0, on_failure == OnAuditFailure::Allow, "{gap:?}");
        }
        engine.close();
        // A regular stop leaves none.
        let engine = open(&config.data_dir).unwrap();
        assert_eq!(count(&engine, RecordType::Gap), 0, "{preview} {on_failure}");
        engine.close();
    }
}

/// A crash in a run that could not leave any adds none to the one that is on record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_recorded_once_where_the_settings_change_between_two_crashes() {
    let root = tempfile::tempdir().unwrap();
    let strict = |directory: &Path| {
        let mut config = Config::for_data_dir(directory);
        config.record.audit_preview = Durability::Sync;
        config
    };
    let mut lenient = strict(&root.path().join("data"));
    lenient.record.on_audit_failure = OnAuditFailure::Allow;
    let image = crashed(&lenient, "198.51.100.1").await;
    let mut directory = image.path().to_owned();
    for crash in 1..=3 {
        let engine = server::open(&strict(&directory)).unwrap();
        assert_eq!(count(&engine, RecordType::Gap), 1, "after crash {crash}");
        let next = root.path().join(format!("crash-{crash}"));
        copy(&directory, &next);
        engine.close();
        directory = next;
    }
    // And one is left by a lenient run after a strict one.
    lenient.data_dir = directory;
    let engine = server::open(&lenient).unwrap();
    assert_eq!(count(&engine, RecordType::Gap), 1, "before its crash");
    let last = root.path().join("last");
    copy(&lenient.data_dir, &last);
    engine.close();
    let engine = server::open(&strict(&last)).unwrap();
    assert_eq!(count(&engine, RecordType::Gap), 2, "after its crash");
    engine.close();
}
