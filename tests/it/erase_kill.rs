//! `kill -9` and SIGTERM at random moments of an erasure, with the real binary.
//!
//! Invariant: once the mark is gone the person is nowhere: in no file, whatever its coding, in no list and no session.
//! Nobody else is touched, the log verifies, and the process ends within its bound.
//! Not here: each single step (`erase_crash`).

use std::path::Path;
use std::time::Duration;

use portcullis::policy::rule::ConnectionType as Connection;
use portcullis::proto::v1::audit_service_client::AuditServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{
    AuditType, ConnectionType, EraseUserRequest, ListAuditRecordsRequest, ListSessionsRequest,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::audit_api::check_of;
use crate::audit_engine::{another_unit, check, open, settle, small_units};
use crate::audit_load::verify_offline;
use crate::audit_tamper::{assert_nowhere, copy};
use crate::campaign::{any_seed, rounds};
use crate::clock::until;
use crate::process::Process;

const DEFAULT: &str = "organizations/default";
const PERSON: &str = "ada.who.is.erased@example.com";
const OTHER: &str = "bob.who.stays@example.com";

/// Kills and SIGTERMs in the short form and in the long one.
const KILLS: (u64, u64) = (10, 200);
const SIGTERMS: (u64, u64) = (6, 100);

/// Sealed units of a data directory.
const UNITS: (usize, usize) = (2, 15);

/// Until SIGTERM has ended the process: calls under way may take a second, and closing ten.
const END_MAX: Duration = Duration::from_secs(12);

/// A data directory in which the person is in sealed units, in the journal, in sessions and in their snapshot. An engine
/// in this process makes the records, because it seals small units.
async fn prepare(data_dir: &Path) {
    let process = Process::start(data_dir);
    let (status, log) = tokio::task::spawn_blocking(|| process.terminate()).await.unwrap();
    assert!(status.success(), "{log}");
    let key = std::fs::read_to_string(data_dir.join("audit.key")).unwrap().trim_end().parse().unwrap();
    let engine = open(data_dir, key, small_units());
    for _ in 0..rounds(UNITS.0, UNITS.1) {
        for number in 0..300 {
            let email = match number % 20 {
                0 => PERSON,
                1 => OTHER,
                _ => "user@example.com",
            };
            let ip = format!("192.0.2.{}", number % 7);
            check(&engine, email, &ip, Connection::Preview, DEFAULT).await.unwrap();
        }
        another_unit(&engine, data_dir).await;
    }
    for number in 0..20 {
        for email in [PERSON, OTHER] {
            let connection_type = match number % 2 {
                0 => Connection::Shell,
                _ => Connection::Preview,
            };
            check(&engine, email, &format!("198.51.100.{number}"), connection_type, DEFAULT).await.unwrap();
        }
    }
    settle(&engine).await;
    engine.close();
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

/// Ends the process in the regular way; how long that took, and its log.
async fn terminate(process: Process) -> (Duration, String) {
    let begun = Instant::now();
    let ending = tokio::task::spawn_blocking(|| process.terminate());
    let (status, log) = tokio::time::timeout(END_MAX, ending).await.expect("the process does not end").unwrap();
    assert!(status.success(), "{log}");
    (begun.elapsed(), log)
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

/// Two clients of another user.
async fn loads(process: &Process) -> [JoinHandle<()>; 2] {
    [tokio::spawn(load(process.connect().await)), tokio::spawn(load(process.connect().await))]
}

/// How long an erasure takes that nothing interrupts.
async fn uninterrupted(template: &Path) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    copy(template, &data_dir);
    let process = Process::start(&data_dir);
    let (channel, others) = (process.connect().await, loads(&process).await);
    let begun = Instant::now();
    erase(channel).await.unwrap();
    let elapsed = begun.elapsed();
    process.kill();
    for other in others {
        other.await.unwrap();
    }
    elapsed
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
    let others = loads(&process).await;
    let erasing = tokio::spawn(erase(channel));
    tokio::time::sleep(pause).await;
    match end {
        End::Kill => process.kill(),
        End::Sigterm => {
            let (took, log) = terminate(process).await;
            figures.longest_end = figures.longest_end.max(took);
            assert_eq!(log.contains("erasures are unfinished: the next start goes on"), mark.exists(), "{log}");
        }
    }
    let answered = erasing.await.unwrap().is_ok();
    for other in others {
        other.await.unwrap();
    }
    assert!(verify_offline(&data_dir).faults.is_empty(), "{:?}", verify_offline(&data_dir).faults);
    figures.finished_before += usize::from(answered);
    let is_left_over = mark.exists();
    figures.left_over += usize::from(is_left_over);
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
    let (took, log) = terminate(process).await;
    figures.longest_end = figures.longest_end.max(took);
    assert_eq!(log.contains("erasures that were unfinished go on"), is_left_over, "{log}");
    assert!(!is_left_over || log.contains("an erasure is finished"), "{log}");
    assert_nowhere(&data_dir, PERSON);
    assert!(verify_offline(&data_dir).faults.is_empty(), "{:?}", verify_offline(&data_dir).faults);
}

#[expect(clippy::print_stdout, reason = "the figures that the test is there to show")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_erased_is_nowhere_after_kills_and_sigterms_at_random_moments() {
    let directory = tempfile::tempdir().unwrap();
    let template = directory.path().join("template");
    prepare(&template).await;
    let span = uninterrupted(&template).await.mul_f64(1.25);
    println!("moments in {span:?}");
    for (end, count) in [(End::Kill, rounds(KILLS.0, KILLS.1)), (End::Sigterm, rounds(SIGTERMS.0, SIGTERMS.1))] {
        let mut figures = Figures::default();
        for _ in 0..count {
            let moment = f64::from(u16::try_from(any_seed() % 10_000).unwrap()) / 10_000.0;
            interrupt(&template, end, span.mul_f64(moment), &mut figures).await;
        }
        println!("{count} times {end:?}: {figures:?}");
    }
}
