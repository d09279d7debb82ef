//! `kill -9` and SIGTERM at random moments of an erasure, with the real binary.
//!
//! Invariant: once the mark is gone the person is nowhere: in no file, whatever its coding, in no list and no session.
//! Nobody else is touched, the log verifies, and the process ends within its bound.
//! Not here: each single step (`erase_crash`).

use std::path::Path;
use std::time::Duration;

use portcullis::proto::v1::audit_service_client::AuditServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{
    AuditType, BatchCheckRequest, ConnectionType, EraseUserRequest, ListAuditRecordsRequest, ListSessionsRequest,
};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::audit_api::check_of;
use crate::audit_engine::sealed_units;
use crate::audit_load::verify_offline;
use crate::audit_tamper::assert_nowhere;
use crate::campaign::rounds;
use crate::clock::until;
use crate::process::Process;

const DEFAULT: &str = "organizations/default";
const PERSON: &str = "ada.who.is.erased@example.com";
const OTHER: &str = "bob.who.stays@example.com";

/// Kills and SIGTERMs in the short form and in the long one.
const KILLS: (u64, u64) = (10, 200);
const SIGTERMS: (u64, u64) = (6, 100);

/// Enough for a sealed unit.
const RECORDS: usize = 66_000;

/// Until SIGTERM has ended the process: calls under way may take a second, and closing ten.
const END_MAX: Duration = Duration::from_secs(12);

/// A data directory in which the person is in a sealed unit, in the journal, in sessions and in their snapshot.
async fn prepare(data_dir: &Path) {
    let process = Process::start(data_dir);
    let mut decisions = DecisionServiceClient::new(process.connect().await);
    for first in (0..RECORDS).step_by(6_000) {
        let request = |number: usize| {
            let email = match number % 400 {
                0 => PERSON.to_owned(),
                1 => OTHER.to_owned(),
                number => format!("user-{}@example.com", number % 90),
            };
            check_of(&email, &format!("192.0.2.{}", number % 9), ConnectionType::Preview, DEFAULT)
        };
        let requests = (first..first + 6_000).map(request).collect();
        decisions.batch_check(BatchCheckRequest { requests }).await.unwrap();
    }
    until("a unit is sealed", async || (sealed_units(data_dir) > 0).then_some(())).await;
    for number in 0..20 {
        for email in [PERSON, OTHER] {
            let connection_type = if number % 2 == 0 { ConnectionType::Shell } else { ConnectionType::Preview };
            let check = check_of(email, &format!("198.51.100.{number}"), connection_type, DEFAULT);
            decisions.check(check).await.unwrap();
        }
    }
    let (status, log) = tokio::task::spawn_blocking(|| process.terminate()).await.unwrap();
    assert!(status.success(), "{log}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

/// How many records, and how many active sessions, name a user.
async fn counts(channel: &Channel, email: &str) -> (usize, usize) {
    let mut audit = AuditServiceClient::new(channel.clone());
    let (mut records, mut token) = (0, String::new());
    loop {
        let request = ListAuditRecordsRequest {
            parent: DEFAULT.to_owned(),
            user_email: email.to_owned(),
            page_size: 1_000,
            page_token: token,
            ..ListAuditRecordsRequest::default()
        };
        let page = audit.list_audit_records(request).await.unwrap().into_inner();
        records += page.audit_records.len();
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let request = ListSessionsRequest {
        parent: DEFAULT.to_owned(),
        user_email: email.to_owned(),
        page_size: 1_000,
        ..ListSessionsRequest::default()
    };
    (records, audit.list_sessions(request).await.unwrap().into_inner().sessions.len())
}

/// How many erasures are on record.
async fn erasures(channel: &Channel) -> usize {
    let types = vec![AuditType::Erased.into()];
    let request = ListAuditRecordsRequest { parent: DEFAULT.to_owned(), types, ..Default::default() };
    AuditServiceClient::new(channel.clone()).list_audit_records(request).await.unwrap().into_inner().audit_records.len()
}

async fn erase(channel: Channel) -> Result<(), tonic::Status> {
    let (parent, user_email) = (DEFAULT.to_owned(), PERSON.to_owned());
    let request = EraseUserRequest { parent, user_email, including_actor: false };
    AuditServiceClient::new(channel).erase_user(request).await.map(drop)
}

/// Checks of another user until the service is gone.
async fn load(channel: Channel) {
    let mut decisions = DecisionServiceClient::new(channel);
    while decisions.check(check_of(OTHER, "203.0.113.7", ConnectionType::Shell, DEFAULT)).await.is_ok() {}
}

/// Ends the process in the regular way; how long that took.
async fn terminate(process: Process) -> Duration {
    let begun = Instant::now();
    let ending = tokio::task::spawn_blocking(|| process.terminate());
    let (status, log) = tokio::time::timeout(END_MAX, ending).await.expect("the process does not end").unwrap();
    assert!(status.success(), "{log}");
    begun.elapsed()
}

/// How an erasure is interrupted.
#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    Sigterm,
}

/// What a campaign has seen.
#[derive(Debug, Default)]
struct Figures {
    finished_before: usize,
    left_over: usize,
    not_begun: usize,
    longest_end: Duration,
}

async fn interrupt(template: &Path, end: End, pause: Duration, figures: &mut Figures) {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    copy(template, &data_dir);
    let mark = data_dir.join("audit/erasing");
    // The call is aborted, and the erasure is left to the end of the service.
    let process = Process::start_with(&data_dir, &["--drain-timeout", "5ms"]);
    let channel = process.connect().await;
    let before = counts(&channel, OTHER).await;
    let others = [tokio::spawn(load(channel.clone())), tokio::spawn(load(process.connect().await))];
    let erasing = tokio::spawn(erase(channel));
    tokio::time::sleep(pause).await;
    match end {
        End::Kill => process.kill(),
        End::Sigterm => figures.longest_end = figures.longest_end.max(terminate(process).await),
    }
    let answered = erasing.await.unwrap().is_ok();
    for other in others {
        other.await.unwrap();
    }
    assert!(verify_offline(&data_dir).faults.is_empty(), "{:?}", verify_offline(&data_dir).faults);
    figures.finished_before += usize::from(answered);
    figures.left_over += usize::from(mark.exists());
    assert!(!answered || !mark.exists(), "an erasure is answered and not finished");

    let process = Process::start_with(&data_dir, &["--drain-timeout", "1s"]);
    let channel = process.connect().await;
    until("the erasure is finished", async || (!mark.exists()).then_some(())).await;
    if erasures(&channel).await == 0 {
        assert!(!answered);
        figures.not_begun += 1;
        assert!(counts(&channel, PERSON).await.0 > 40, "it is erased without a record");
        erase(channel.clone()).await.unwrap();
    }
    assert_eq!(counts(&channel, PERSON).await, (0, 0), "{end:?} after {pause:?}");
    let after = counts(&channel, OTHER).await;
    assert!(after.0 >= before.0 && after.1 >= before.1, "another user is touched: {before:?}, {after:?}");
    figures.longest_end = figures.longest_end.max(terminate(process).await);
    assert_nowhere(&data_dir, PERSON);
    assert!(verify_offline(&data_dir).faults.is_empty(), "{:?}", verify_offline(&data_dir).faults);
}

#[expect(clippy::print_stdout, reason = "the figures that the test is there to show")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_erased_is_nowhere_after_kills_and_sigterms_at_random_moments() {
    let directory = tempfile::tempdir().unwrap();
    let template = directory.path().join("template");
    prepare(&template).await;
    for (end, count) in [(End::Kill, rounds(KILLS.0, KILLS.1)), (End::Sigterm, rounds(SIGTERMS.0, SIGTERMS.1))] {
        let mut figures = Figures::default();
        for round in 0..count {
            // Spread over the time that an erasure takes, densely at its beginning.
            let pause = Duration::from_micros(round * 7_919 % 97 * (round * 31 % 89) * 40);
            interrupt(&template, end, pause, &mut figures).await;
        }
        println!("{count} times {end:?}: {figures:?}");
    }
}
