//! The end of the service while the disk takes no record: it writes them yet if it can, and says how many it lost.
//!
//! Invariant: the service ends without an error only if everything that it answered is durable.
//! Not here: a directory that is gone, threads that hang (`ending`); starts on a full disk (`disk_full`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portcullis::config::Config;
use portcullis::engine::clock::Clock;
use portcullis::proto::v1::{AuditType, ConnectionType, ListAuditRecordsRequest};
use tokio::time::Instant;

use crate::audit_api::check_of;
use crate::audit_disk::Switches;
use crate::audit_engine::DEFAULT;
use crate::audit_load::verify_offline;
use crate::harness::Service;

/// Decisions of previews whose records wait in memory.
const WAITING: usize = 5;

/// From the signal to the end, without calls under way.
const END_MAX: Duration = Duration::from_secs(10);

/// A service on a disk with switches, with records in memory that the disk does not take.
async fn full(data_dir: &Path) -> (Service, Switches) {
    let switches = Switches::default();
    let mut config = Config::for_data_dir(data_dir);
    config.record.audit_async_interval = Duration::from_secs(1);
    let service = Service::with_disk(config, Clock::system(), Arc::new(switches.clone())).await;
    switches.fails.store(true, Ordering::SeqCst);
    for number in 0..WAITING {
        let email = format!("user-{number}@example.com");
        let request = check_of(&email, "192.0.2.1", ConnectionType::Preview, DEFAULT);
        service.decisions().check(request).await.unwrap();
    }
    (service, switches)
}

/// How many decisions, and how many gaps, are on record after another start.
async fn records(data_dir: &Path) -> (usize, usize) {
    let service = Service::with_config(Config::for_data_dir(data_dir)).await;
    let count = async |parent: &str, record_type: AuditType| {
        let request = ListAuditRecordsRequest {
            parent: parent.to_owned(),
            types: vec![record_type.into()],
            ..ListAuditRecordsRequest::default()
        };
        service.audit().list_audit_records(request).await.unwrap().into_inner().audit_records.len()
    };
    let counts = (count(DEFAULT, AuditType::Decision).await, count("cluster", AuditType::Gap).await);
    service.stop().await;
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_cannot_record_what_it_answered_ends_with_an_error_that_says_how_much() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let (service, _switches) = full(&data_dir).await;
    let told = Instant::now();
    let error = format!("{:#}", service.end().await.unwrap_err());
    assert!(error.contains(&format!("{WAITING} decisions could not be recorded")), "{error}");
    assert!(told.elapsed() < END_MAX, "{:?}", told.elapsed());
    assert_eq!(records(&data_dir).await, (0, 1), "the next start knows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_works_again_while_the_service_ends_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let (service, switches) = full(&data_dir).await;
    let heal = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        switches.fails.store(false, Ordering::SeqCst);
    };
    let (ended, ()) = tokio::join!(service.end(), heal);
    ended.unwrap();
    assert_eq!(verify_offline(&data_dir).faults, []);
    assert_eq!(records(&data_dir).await, (WAITING, 0));
}
