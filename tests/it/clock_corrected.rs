//! What is measured in ages, over corrections of the clock: retention, the overview, renewed leases.
//!
//! Guards against: records that go because the clock was set forwards, or stay because it was set back; leases that a
//! correction and a kill move.
//! Not here: when the clock is corrected (`clock_follows`), retention by a clock that runs evenly (`audit_retention_bounds`).

use std::path::Path;
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{ClockChangeCause, Content, RecordType};
use portcullis::audit::session::SessionId;
use portcullis::engine::sessions::Renewed;
use portcullis::engine::{Engine, Options};
use portcullis::policy::name::{Id, NodePath};
use portcullis::policy::rule::{Action, ConnectionType};

use crate::audit_engine::{DEFAULT, add_rule, another_unit, check, key, open_by, settle, small_units};
use crate::clock::{Hand, until};
use crate::clock_follows::A_LOOK;

const DAY: i64 = 86_400;
const MONTH: Duration = Duration::from_hours(24 * 30);

pub(crate) fn keeps_a_month() -> Options {
    let mut options = small_units();
    options.audit.retention_age = Some(MONTH);
    options
}

fn keeps_a_byte() -> Options {
    let mut options = small_units();
    options.audit.retention_bytes = Some(1);
    options
}

/// The wall clock is set, and followed.
pub(crate) async fn correct(engine: &Engine, hand: &Hand, seconds: i64) {
    let filter = RecordFilter { types: vec![RecordType::ClockChanged], ..RecordFilter::default() };
    let is_correction = |content: &Content| match content {
        Content::ClockChanged(change) => change.cause == ClockChangeCause::Correction,
        _ => false,
    };
    let corrections = || {
        let records = engine.audit().list(&filter, None, 100).unwrap().records;
        records.iter().filter(|record| is_correction(&record.entry.content)).count()
    };
    let before = corrections();
    hand.jump(seconds);
    for _ in 0..3 {
        tokio::time::sleep(A_LOOK).await;
        hand.advance(Duration::from_secs(30));
    }
    until("the correction", async || (corrections() > before).then_some(())).await;
}

/// Long enough for retention to be looked at several times.
pub(crate) async fn looks_of_retention() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

pub(crate) async fn goes(engine: &Engine, sequence: u64) {
    let log = engine.audit();
    until(&format!("record {sequence} goes"), async || (log.first_sequence() > sequence).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_correction_forwards_removes_no_young_record_over_restarts_either() {
    for options in [keeps_a_month, keeps_a_byte] {
        let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
        let mut engine = open_by(directory.path(), key(1), options(), hand.clock());
        another_unit(&engine, directory.path()).await;
        let newest = engine.audit().newest_sequence();
        correct(&engine, &hand, 365 * DAY).await;
        for _ in 0..2 {
            hand.advance(Duration::from_hours(1));
            another_unit(&engine, directory.path()).await;
            looks_of_retention().await;
            assert_eq!(engine.audit().first_sequence(), 1, "they are hours old");
            engine.close();
            engine = open_by(directory.path(), key(1), options(), hand.clock());
        }
        // In the end they do go.
        hand.advance(MONTH);
        another_unit(&engine, directory.path()).await;
        goes(&engine, newest / 2).await;
        engine.close();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_a_year_ahead_for_14_seconds_removes_no_record_and_a_month_does() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let engine = open_by(directory.path(), key(1), keeps_a_month(), hand.clock());
    another_unit(&engine, directory.path()).await;
    let newest = settle(&engine).await;
    hand.jump(365 * DAY);
    for _ in 0..2 {
        hand.advance(Duration::from_secs(7));
        // What is recorded meanwhile has the time of the records before.
        another_unit(&engine, directory.path()).await;
        looks_of_retention().await;
        assert_eq!(engine.audit().first_sequence(), 1, "they are seconds old");
    }
    hand.jump(-365 * DAY);
    hand.advance(MONTH + Duration::from_secs(1));
    goes(&engine, newest / 2).await;
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_correction_back_keeps_no_record_longer() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let engine = open_by(directory.path(), key(1), keeps_a_month(), hand.clock());
    another_unit(&engine, directory.path()).await;
    let newest = settle(&engine).await;
    correct(&engine, &hand, -365 * DAY).await;
    another_unit(&engine, directory.path()).await;
    hand.advance(MONTH.saturating_sub(Duration::from_hours(1)));
    another_unit(&engine, directory.path()).await;
    looks_of_retention().await;
    assert_eq!(engine.audit().first_sequence(), 1, "nothing is too old yet");
    hand.advance(Duration::from_hours(2));
    goes(&engine, newest).await;
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_hour_of_an_overview_has_nothing_of_a_time_that_was_taken_back() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let engine = open_by(directory.path(), key(1), small_units(), hand.clock());
    add_rule(&engine, "all", Action::Deny, "198.51.100.0/24").await;
    let deny = async || {
        check(&engine, "ann@example.com", "198.51.100.1", ConnectionType::Shell, DEFAULT).await.unwrap();
        settle(&engine).await;
        let figures = engine.overview(None).unwrap();
        (figures.denials_last_hour, figures.denials_last_day)
    };
    assert_eq!(deny().await, (1, 1));
    assert_eq!(deny().await, (2, 2));
    correct(&engine, &hand, -2 * DAY).await;
    assert_eq!(deny().await, (1, 1), "the others are of the day after tomorrow");
    hand.advance(Duration::from_hours(2));
    assert_eq!(deny().await, (1, 2));
    engine.close();
}

pub(crate) async fn shell(engine: &Engine, lease: Duration) -> SessionId {
    let question = portcullis::engine::question::Question {
        address: "203.0.113.7".parse().unwrap(),
        connection_type: ConnectionType::Shell,
        target: NodePath::parse(DEFAULT).unwrap(),
        user_email: "ann@example.com",
        session_lease: Some(lease),
        request_id: "",
        min_revision: 0,
        min_cluster_revision: 0,
    };
    engine.check(&question).await.unwrap().session.unwrap()
}

/// The files as a kill leaves them.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let path = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&path).unwrap();
            copy(&entry.path(), &path);
        } else {
            std::fs::copy(entry.path(), path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_lease_runs_its_time_over_a_correction_and_a_kill() {
    let organization = Id::parse("default").unwrap();
    for by in [30 * DAY, -30 * DAY] {
        let (directory, killed, hand) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Hand::new());
        let engine = open_by(directory.path(), key(1), small_units(), hand.clock());
        let session = shell(&engine, Duration::from_mins(5)).await;
        hand.advance(Duration::from_secs(10));
        let renewed = engine.renew_sessions(&[(organization.clone(), Some(session))], Duration::from_secs(2_000)).await;
        assert_eq!(renewed.unwrap(), [Renewed::Renewed]);
        // 90 seconds.
        correct(&engine, &hand, by).await;
        settle(&engine).await;
        copy(directory.path(), killed.path());
        engine.close();

        let engine = open_by(killed.path(), key(1), small_units(), hand.clock());
        let is_active = || engine.sessions().get(&organization, session).is_some();
        hand.advance(Duration::from_secs(2_000 - 92));
        tokio::time::sleep(A_LOOK).await;
        assert!(is_active(), "{by}: 2 seconds are left");
        hand.advance(Duration::from_secs(3));
        until(&format!("{by}: the lease runs out"), async || (!is_active()).then_some(())).await;
        engine.close();
    }
}
