//! The real binary under a wall clock that is not true: `libfaketime`, where it is installed.
//!
//! Invariant: a jump that passes changes nothing that is decided or recorded; no year keeps the service from starting.
//! Not here: a clock that the test moves (`clock_follows`, `clock_campaign`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis::proto::v1::audit_service_client::AuditServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{AuditType, CheckRequest, ConnectionType, Decision, ListAuditRecordsRequest};
use tonic::transport::Channel;

use crate::clock::until;
use crate::process::{Process, skipped};

const DEFAULT: &str = "organizations/default";

/// Where Debian and Ubuntu install it.
fn library() -> Option<PathBuf> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let path = |of: &&str| Path::new("/usr/lib").join(of).join("faketime/libfaketimeMT.so.1");
    places.iter().map(path).find(|path| path.exists())
}

/// Starts the service with a wall clock that a file sets. The other clocks are true.
fn start(data_dir: &Path, library: &Path, offset: &Path) -> Process {
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    Process::start_in(data_dir, &environment)
}

async fn check(channel: &Channel) -> Decision {
    let request = CheckRequest {
        ip: "192.0.2.1".to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        ..CheckRequest::default()
    };
    DecisionServiceClient::new(channel.clone()).check(request).await.unwrap().into_inner().decision()
}

/// The time of the newest decision, in seconds since 1970.
async fn newest(channel: &Channel) -> i64 {
    let request = ListAuditRecordsRequest {
        parent: "cluster".to_owned(),
        types: vec![AuditType::Decision.into()],
        page_size: 1,
        ..ListAuditRecordsRequest::default()
    };
    let records = AuditServiceClient::new(channel.clone()).list_audit_records(request).await.unwrap().into_inner();
    records.audit_records[0].time.unwrap().seconds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_wall_clock_moves_no_decision() {
    let Some(library) = library() else {
        return skipped("a_false_wall_clock_moves_no_decision", "libfaketime is not installed");
    };
    let temporary = tempfile::tempdir().unwrap();
    let (data_dir, offset) = (temporary.path().join("data"), temporary.path().join("offset"));
    std::fs::write(&offset, "+0").unwrap();
    let process = start(&data_dir, &library, &offset);
    let channel = process.connect().await;
    assert_eq!(check(&channel).await, Decision::Allow);
    let before = newest(&channel).await;
    for jump in ["+30d", "-30d", "+365d", "+1h", "-1h"] {
        std::fs::write(&offset, jump).unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        check(&channel).await;
        let now = newest(&channel).await;
        assert!((before..before + 60).contains(&now), "{jump}: {before} {now}");
    }
    until("the warning", async || process.log().contains("the wall clock is").then_some(())).await;
    // Over a restart, too.
    std::fs::write(&offset, "+30d").unwrap();
    assert!(process.terminate().0.success());
    let process = start(&data_dir, &library, &offset);
    let channel = process.connect().await;
    check(&channel).await;
    let now = newest(&channel).await;
    assert!((before..before + 120).contains(&now), "{before} {now}");
    assert!(process.terminate().0.success());
}
