//! What is said about files that are damaged, lost or moved: which file, what is true of it, and what to do.
//!
//! Invariant: no advice destroys what is left, and every path is one that somebody who looks finds.
//! Not here: that the faults are found (`audit_tamper`, `witnesses_files`).

use std::path::{Path, PathBuf};

use portcullis::engine::audit::AuditOpenError;
use portcullis::proto::v1::maintenance_service_client::MaintenanceServiceClient;
use portcullis::proto::v1::{Action, BackupRequest};

use crate::audit_engine::{key, open, sealed_files, small_units};
use crate::audit_tamper::{make_log, verify};
use crate::harness::Service;

/// The only file of a directory with this ending, or the first of them.
fn file(directory: &Path, suffix: &str) -> PathBuf {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    files.sort();
    files.remove(0)
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// The hazard: the advice, taken, deletes the policy of a service that runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_meets_a_damaged_journal_names_the_file_itself_and_no_way_to_cut_it_off() {
    let service = Service::start().await;
    for number in 0..4 {
        service.add_rule(&format!("bad-{number}"), Action::Deny, "203.0.113.0/24").await;
    }
    let journal = file(&service.data_dir().join("policy"), ".wal");
    flip(&journal, 80);
    let mut client = MaintenanceServiceClient::new(service.channel.clone());
    let refused = match client.backup(BackupRequest {}).await {
        Err(status) => status,
        Ok(parts) => parts.into_inner().message().await.unwrap_err(),
    };
    let message = refused.message();
    assert!(message.contains(&format!("journal file `{}` is damaged", journal.display())), "{message}");
    assert!(message.contains("stop the service if it runs, and restore the file"), "{message}");
    assert!(message.contains("with `portcullis restore`") && !message.contains("truncate"), "{message}");
    drop(service);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_tile_is_not_told_as_a_log_that_was_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    make_log(directory.path(), 1).await;
    let audit = directory.path().join("audit");
    let unit = file(&audit, ".seg");
    flip(&unit, 100);
    let faults = verify(directory.path(), None).faults;
    assert!(faults.iter().any(|(_, message)| message.contains(unit.to_str().unwrap())), "{faults:?}");
    assert!(faults.iter().all(|(_, message)| !message.contains("cut off")), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_files_are_named_with_their_paths() {
    let directory = tempfile::tempdir().unwrap();
    make_log(directory.path(), 1).await;
    let audit = directory.path().join("audit");
    let openings = file(&audit, ".pii");
    std::fs::remove_file(&openings).unwrap();
    let files = sealed_files(&audit);
    let message = files.bytes(files.list().unwrap()[0]).unwrap_err().to_string();
    assert!(message.starts_with(&format!("sealed file `{}` is missing: restore it", openings.display())), "{message}");
    let message = AuditOpenError::Missing { expected: 1, found: 65_537 }.to_string();
    assert!(message.contains("records 1 to 65536 ") && message.contains("`00000000000000000001.seg`"), "{message}");

    // A server whose directory is moved away while it verifies.
    let served = tempfile::tempdir().unwrap();
    let data_dir = served.path().join("data");
    for part in ["audit", "sessions"] {
        std::fs::create_dir_all(data_dir.join(part)).unwrap();
    }
    let engine = open(&data_dir, key(1), small_units());
    std::fs::rename(&data_dir, served.path().join("aside")).unwrap();
    let faults = engine.audit().verify(None, &mut |_, _| true).unwrap().faults;
    let path = data_dir.join("audit");
    assert!(faults[0].1.contains(path.to_str().unwrap()), "{faults:?}");
    std::fs::rename(served.path().join("aside"), &data_dir).unwrap();
    engine.close();
}
