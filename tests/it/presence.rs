//! Files of journals that are removed or replaced while they are in use.
//!
//! Invariant: within a second nothing is acknowledged any more that only such a file holds; what a journal does to its own
//! files is no loss.
//! Not here: directories (`ending`).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use portcullis::proto::v1::RenewSessionsRequest;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::store::directory::DataDirectory;
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};
use portcullis::store::presence::Presence;
use portcullis::store::{Log, Redaction, Segments};
use tonic::Code;

use crate::ending::{BOUND, check, create_rule, until_health};
use crate::harness::assert_error;
use crate::process::Process;

fn remove_journal(directory: &Path) {
    let mut removed = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            fs::remove_file(path).unwrap();
            removed += 1;
        }
    }
    assert!(removed > 0, "there is a journal in {}", directory.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn journal_files_that_are_removed_turn_health_and_nothing_is_acknowledged() {
    let temporary = tempfile::tempdir().unwrap();
    let deny = "changes and Checks are refused until";
    let allow = "changes are refused, and Checks are decided without a record until";
    for (on_failure, journal, told) in
        [("deny", "audit", deny), ("deny", "policy", deny), ("deny", "sessions", deny), ("allow", "audit", allow)]
    {
        let data_dir = temporary.path().join(format!("{on_failure}-{journal}"));
        // Another process wrote the policy journal's last file.
        let first = Process::start(&data_dir);
        create_rule(&first.connect().await).await.unwrap();
        assert!(first.terminate().0.success());
        let service = Process::start_with(&data_dir, &["--on-audit-failure", on_failure, "--drain-timeout", "1s"]);
        let channel = service.connect().await;
        let names = vec![check(&channel).await.unwrap().session];
        let session_lease = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let request = RenewSessionsRequest { names, session_lease };
        DecisionServiceClient::new(channel.clone()).renew_sessions(request).await.unwrap();

        remove_journal(&data_dir.join(journal));
        until_health(&channel, 2).await;
        let refusal = assert_error(create_rule(&channel).await, Code::Unavailable, "AUDIT_NOT_WRITABLE");
        assert!(refusal.message().contains("a file in it was removed or replaced"), "{refusal:?}");
        match on_failure {
            "allow" => drop(check(&channel).await.unwrap()),
            _ => drop(assert_error(check(&channel).await, Code::Unavailable, "AUDIT_NOT_WRITABLE")),
        }
        let (status, log) = service.terminate_within(BOUND + Duration::from_secs(1)).await;
        assert_eq!(status.code(), Some(1), "{log}");
        let line = log.lines().find(|line| line.contains("removed or replaced while in use:")).unwrap_or(&log);
        assert!(line.contains(told) && line.contains(&format!("/{journal}/journal-")), "{log}");
    }
}

#[test]
fn what_a_journal_does_to_its_own_files_is_no_loss() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDirectory::open(root.path().join("data")).unwrap();
    let mut presence = Presence::of(&directory).unwrap();
    let files = presence.of_journal();
    let open = || {
        let options = JournalOptions { segment_bytes_max: 400, ..JournalOptions::default() };
        FileJournal::open(Arc::new(RealDisk), directory.policy(), options).unwrap()
    };
    // A last segment without records is replaced by the next process.
    let mut journal = open();
    journal.append(&[vec![7; 100]]).unwrap();
    journal.roll().unwrap();
    drop(journal);
    let mut journal = open().watched_by(files).unwrap();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut looks = 0;
            while !ended.load(Ordering::SeqCst) {
                assert_eq!(presence.missing(), None);
                looks += 1;
            }
            looks
        });
        for round in 0..60_u8 {
            for _ in 0..4 {
                journal.append(&[vec![round; 100]]).unwrap();
            }
            journal
                .redact(1, &mut |_, record| {
                    record[0] == round && {
                        record[0] = 255;
                        true
                    }
                })
                .unwrap();
            journal.roll().unwrap();
            if round % 3 == 2 {
                journal.truncate_before(journal.next_sequence() - 6).unwrap();
            }
        }
        ended.store(true, Ordering::SeqCst);
        assert!(looking.join().unwrap() > 60);
    });
    assert_eq!(presence.missing(), None);
    let mut segments: Vec<_> = fs::read_dir(directory.policy()).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    assert!(segments.len() > 1);
    for path in [&segments[0], &segments[segments.len() - 1]] {
        let aside = root.path().join("aside");
        fs::rename(path, &aside).unwrap();
        assert_eq!(presence.missing().as_ref(), Some(path));
        fs::copy(&aside, path).unwrap();
        assert_eq!(presence.missing().as_ref(), Some(path), "a copy is another file");
        fs::rename(&aside, path).unwrap();
        assert_eq!(presence.missing(), None);
    }
}
