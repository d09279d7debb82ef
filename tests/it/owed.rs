//! Changes of policy whose audit record is not durable: how many there can be, and what a start takes for a loss.
//!
//! Invariant: a start repairs what a crash leaves, and refuses more than that.
//! Not here: parts that are exchanged after a regular stop (`witnesses`), crashes under load (`crash_*`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portcullis::config::Config;
use portcullis::engine::audit::AuditOptions;
use portcullis::engine::change::{ChangeRequest, ChangeTarget};
use portcullis::engine::clock::Clock;
use portcullis::engine::{Engine, Options};
use portcullis::policy::name::Id;
use portcullis::policy::plan::Mutation;
use portcullis::policy::rule::{RulePatch, Source};
use portcullis::proto::v1::Action;
use portcullis::server;
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};

use crate::audit_disk::Switches;
use crate::audit_engine::{key, open_on, open_with_policy};
use crate::harness::Service;
use crate::witnesses_history::{copy, remove};

/// How many a crash can leave.
const OWED_MAX: usize = 256;

fn new_rule(id: &str) -> ChangeRequest {
    let source = Some(Source::Range("203.0.113.0/24".parse().unwrap()));
    let action = Some(portcullis::policy::rule::Action::Deny);
    let patch = RulePatch { action, source, ..RulePatch::default() };
    let mutation = Mutation::CreateRule { id: Some(Id::parse(id).unwrap()), position: None, patch };
    ChangeRequest::new(ChangeTarget::Organization { id: Id::parse("default").unwrap(), mutation })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_changes_are_made_than_a_crash_may_leave_without_a_record() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["audit", "sessions"] {
        std::fs::create_dir_all(directory.path().join(name)).unwrap();
    }
    let switches = Switches::default();
    // Long enough for all of them, were they not held up.
    let audit = AuditOptions { deadline: Duration::from_secs(8), ..AuditOptions::default() };
    let options = Options { audit, ..Options::default() };
    let engine = Arc::new(open_on(Arc::new(switches.clone()), directory.path(), key(1), options));
    switches.hangs.store(true, Ordering::SeqCst);
    let changes: Vec<_> = (0..OWED_MAX + 100)
        .map(|number| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { engine.change(new_rule(&format!("rule-{number}"))).await.map(drop) })
        })
        .collect();
    let (mut made, mut refused) = (0, 0);
    for change in changes {
        match change.await.unwrap() {
            Ok(()) => made += 1,
            Err(error) => {
                assert!(error.to_string().contains("disk"), "{error}");
                refused += 1;
            }
        }
    }
    assert!((1..=OWED_MAX).contains(&made), "{made} were made, {refused} refused");
    switches.hangs.store(false, Ordering::SeqCst);
    let mut writable = engine.writable();
    tokio::time::timeout(Duration::from_secs(20), writable.wait_for(|now| *now)).await.unwrap().unwrap();
    engine.change(new_rule("after")).await.unwrap();
    engine.close();
}

/// What the journal failed to write may be in it all the same, without a record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_the_policy_journal_fails_is_not_taken_for_a_regular_one() {
    for fails in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        for name in ["audit", "sessions", "policy"] {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let switches = Switches::default();
        let path = directory.path().join("policy");
        let journal = FileJournal::open(Arc::new(switches.clone()), path, JournalOptions::default()).unwrap();
        let (disk, clock) = (Arc::new(RealDisk), Clock::system());
        let engine: Engine =
            open_with_policy(Box::new(journal), disk, directory.path(), key(1), Options::default(), clock);
        switches.fails.store(fails, Ordering::SeqCst);
        assert_eq!(engine.change(new_rule("deny")).await.is_err(), fails);
        engine.close();
        assert_eq!(directory.path().join("audit/running").exists(), fails);
    }
}

fn refusal(directory: &Path) -> Option<String> {
    match server::open(&Config::for_data_dir(directory)) {
        Ok(engine) => {
            engine.close();
            None
        }
        Err(error) => Some(format!("{error:#}")),
    }
}

/// The older log was copied from a running service, so that it looks as after a crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_audit_log_that_lacks_more_than_a_crash_can_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let service = Service::with_config(Config::for_data_dir(root.path().join("data"))).await;
    let (earlier, data) = (root.path().join("earlier"), service.data_dir().to_owned());
    copy(&data.join("audit"), &earlier);
    for number in 0..OWED_MAX {
        service.add_rule(&format!("rule-{number}"), Action::Deny, "203.0.113.0/24").await;
    }
    let with_earlier_log = |name: &str| {
        let image = root.path().join(name);
        copy(&data, &image);
        // What else may have seen more of it.
        for part in ["audit", "sessions", "sled"] {
            remove(&image.join(part));
        }
        copy(&earlier, &image.join("audit"));
        image
    };
    let most = with_earlier_log("most");
    service.add_rule("one-more", Action::Deny, "203.0.113.0/24").await;
    let more = with_earlier_log("more");
    service.stop().await;
    assert_eq!(refusal(&most), None, "as after a crash");
    let message = refusal(&more).expect("the start must be refused");
    let fragment =
        "no record of the last 257 changes of policy, after record 2 of its journal, and a crash leaves at most 256";
    assert!(message.contains(fragment), "{message}");
    assert!(message.contains("restore the newest files in `audit`"), "{message}");
    // The same log without the mark is one that was stopped in order.
    std::fs::remove_file(more.join("audit/running")).unwrap();
    let message = refusal(&more).expect("the start must be refused");
    assert!(message.contains("a regular stop leaves none without its record"), "{message}");
}
