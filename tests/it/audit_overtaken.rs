//! Lists, counts and exports that retention overtakes: they end with an error, never as if they were whole.
//!
//! Guards against: a copy of the log that lacks records and does not say so.
//! Not here: what retention removes, and when (`audit_retention_bounds`).

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis::audit::filter::{RecordFilter, SessionFilter};
use portcullis::audit::record::RecordType;
use portcullis::config::Config;
use portcullis::engine::audit::{AuditError, ListPosition};
use portcullis::engine::{Engine, Options};
use portcullis::policy::rule::ConnectionType;
use portcullis::policy::time::Timestamp;
use portcullis::proto::v1::{
    self, Action, BatchCheckRequest, ListAuditRecordsRequest, ListFirewallEventsRequest, ListSessionsRequest,
    WatchEventsRequest,
};
use tonic::Code;

use crate::audit_api::check_of;
use crate::audit_engine::{DEFAULT, check, key, open_by, settle, small_units};
use crate::clock::{Hand, until};
use crate::harness::{Service, assert_error};

const DAY: Duration = Duration::from_hours(24);

fn keeping_a_week() -> Options {
    let mut options = small_units();
    options.audit.retention_age = Some(7 * DAY);
    options
}

async fn fill(engine: &Engine, records: u64) -> u64 {
    for number in 0..records {
        let email = format!("user-{}@example.com", number % 7);
        check(engine, &email, "198.51.100.1", ConnectionType::Preview, DEFAULT).await.unwrap();
    }
    settle(engine).await
}

async fn overtake(engine: &Engine, hand: &Hand) -> u64 {
    hand.advance(8 * DAY);
    until("retention removes the old records", async || {
        let first = engine.audit().first_sequence();
        (first > 1_000).then_some(first)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_shows_what_is_kept_and_then_says_that_there_was_more() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let engine = open_by(directory.path(), key(1), keeping_a_week(), hand.clock());
    fill(&engine, 1_500).await;
    hand.advance(4 * DAY);
    let newest = fill(&engine, 300).await;
    let (log, all) = (engine.audit(), RecordFilter::default());
    let mut page = log.list_from(&all, None, 50).unwrap();
    assert_eq!((page.records[0].sequence, page.first), (newest, 1));
    hand.advance(4 * DAY);
    let kept = until("the first half goes", async || Some(log.first_sequence()).filter(|first| *first > 1_000)).await;
    let (mut shown, end) = (page.records.len() as u64, newest + 1);
    let error = loop {
        let Some(before) = page.next_before else { panic!("a short list ends as if it were whole") };
        match log.list_from(&all, Some(ListPosition { before, first: page.first }), 50) {
            Ok(next) => {
                shown += next.records.len() as u64;
                page = next;
            }
            Err(error) => break error,
        }
    };
    let first = log.first_sequence();
    assert_eq!(error, AuditError::Overtaken { first });
    assert!(first >= kept && (end - first..=end - kept).contains(&shown), "{shown} of {first} to {end}");
    // What is asked for by time does not reach back to what has gone.
    let since = RecordFilter {
        start_time: Some(Timestamp::from_micros(micros(hand.now().saturating_sub(5 * DAY)))),
        ..all.clone()
    };
    let mut position = Some(ListPosition { before: end, first: 1 });
    let mut found = 0;
    while let Some(at) = position {
        let page = log.list_from(&since, Some(at), 100).unwrap();
        found += page.records.len();
        position = page.next_before.map(|before| ListPosition { before, first: 1 });
    }
    assert!(found >= 300, "{found}");
    // A list that is begun now is whole.
    let page = log.list_from(&all, None, 10_000).unwrap();
    assert_eq!((page.next_before.is_none(), page.first), (true, first));
    assert_eq!(log.count(&all).unwrap(), log.newest_sequence() + 1 - log.first_sequence());
    engine.close();
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_sessions_that_have_gone_are_missed_in_their_list() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let mut options = keeping_a_week();
    options.sessions.idle = Duration::from_mins(1);
    let engine = open_by(directory.path(), key(1), options, hand.clock());
    // Each user has one session, which ends before the next begins: another minute, another user.
    for number in 0..1_200 {
        let email = format!("user-{number}@example.com");
        check(&engine, &email, "198.51.100.1", ConnectionType::Preview, DEFAULT).await.unwrap();
    }
    hand.advance(Duration::from_mins(5));
    crate::audit_engine::recorded(&engine, RecordType::SessionEnded, 1_200).await;
    let filter = SessionFilter::default();
    let page = engine.list_sessions(&filter, None, 100).unwrap();
    assert_eq!(page.sessions.len(), 100);
    overtake(&engine, &hand).await;
    let mut next = page.next;
    let error = loop {
        match engine.list_sessions(&filter, Some(next.expect("a short list ends as if it were whole")), 100) {
            Ok(page) => next = page.next,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AuditError::Overtaken { .. }), "{error:?}");
    engine.close();
}

/// A service that keeps a week, with denied Checks of long ago and a clock of the test's.
async fn service_with(records: usize, hand: &Hand, directory: &std::path::Path) -> Service {
    let mut config = Config::for_data_dir(directory.join("data"));
    config.record.audit_retention_age = Some(7 * DAY);
    let service = Service::with_clock(config, hand.clock()).await;
    service.add_rule("bad", Action::Deny, "203.0.113.0/24").await;
    let request = |_| check_of("ada@example.com", "203.0.113.9", v1::ConnectionType::Preview, DEFAULT);
    let requests: Vec<_> = (0..records).map(request).collect();
    for requests in requests.chunks(1_000) {
        service.decisions().batch_check(BatchCheckRequest { requests: requests.to_vec() }).await.unwrap();
    }
    // A shell waits until it is on the disk, and all before it.
    service.check("203.0.113.9", DEFAULT).await;
    service
}

async fn removed(service: &Service) {
    until("retention removes the old records", async || {
        let request = WatchEventsRequest {
            parent: "cluster".to_owned(),
            after_sequence: Some(2_000),
            ..WatchEventsRequest::default()
        };
        service.audit().watch_events(request).await.err().filter(|status| status.code() == Code::OutOfRange).map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_tokens_that_retention_has_overtaken_are_out_of_range() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let service = service_with(3_000, &hand, directory.path()).await;
    let (parent, page_size) = ("cluster".to_owned(), 900);
    let records = ListAuditRecordsRequest { parent: parent.clone(), page_size, ..Default::default() };
    let events = ListFirewallEventsRequest { parent: parent.clone(), page_size, ..Default::default() };
    let sessions = ListSessionsRequest { parent, page_size, ..Default::default() };
    let first = service.audit().list_audit_records(records.clone()).await.unwrap().into_inner();
    assert_eq!(first.audit_records.len(), 900);
    let page_token = first.next_page_token;
    let records = ListAuditRecordsRequest { page_token, ..records };
    let page_token = service.audit().list_firewall_events(events.clone()).await.unwrap().into_inner().next_page_token;
    let events = ListFirewallEventsRequest { page_token, ..events };
    assert!(service.audit().list_sessions(sessions).await.unwrap().into_inner().next_page_token.is_empty());
    hand.advance(8 * DAY);
    removed(&service).await;
    for _ in 0..2 {
        assert_error(service.audit().list_audit_records(records.clone()).await, Code::OutOfRange, "POSITION_REMOVED");
        assert_error(service.audit().list_firewall_events(events.clone()).await, Code::OutOfRange, "POSITION_REMOVED");
    }
    service.stop().await;
}

/// The hazard: an export of 140,000 records with 998 rows, and exit status 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_retention_overtakes_fails_and_says_how_far_it_came() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let service = service_with(3_000, &hand, directory.path()).await;
    let mut export = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["audit", "export", "--format", "jsonl", "--server", &service.address().to_string()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It cannot go on before its first page is read, which is larger than a pipe.
    let mut out = export.stdout.take().unwrap();
    let (mut out, mut text) = tokio::task::spawn_blocking(move || {
        let mut begun = [0];
        out.read_exact(&mut begun).unwrap();
        (out, begun.to_vec())
    })
    .await
    .unwrap();
    hand.advance(8 * DAY);
    removed(&service).await;
    let (text, output) = tokio::task::spawn_blocking(move || {
        out.read_to_end(&mut text).unwrap();
        (text, export.wait_with_output().unwrap())
    })
    .await
    .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    let rows = String::from_utf8(text).unwrap().lines().count();
    assert_eq!(rows, 1_000, "{message}");
    assert!(message.contains("incomplete") && message.contains("1000 records"), "{message}");
    assert!(message.contains("removed") && message.trim_end().ends_with("run the command again"), "{message}");
    service.stop().await;
}
