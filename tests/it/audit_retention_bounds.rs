//! Retention does what its settings say: after it has worked, what is kept is no older and no larger than they allow.
//!
//! Guards against: records that stay because their unit is not full, for logs of any size and of any pace.
//! Not here: that what is kept can be proven (`audit_retention`).

use std::path::Path;
use std::time::Duration;

use portcullis::engine::audit::AuditOptions;
use portcullis::engine::{Engine, Options};
use portcullis::policy::rule::ConnectionType;
use portcullis::server::verify_audit;

use crate::audit_engine::{DEFAULT, check, key, open_by, settle, signed, small_units};
use crate::clock::{Hand, until};

const HOUR: Duration = Duration::from_hours(1);
const WEEK: Duration = Duration::from_hours(168);

/// Leaves of a tile of the tree.
const TILE: u64 = 256;

/// Units end as they do by default, but for what a test sets.
fn options(change: impl FnOnce(&mut AuditOptions)) -> Options {
    let mut options = small_units();
    options.audit.unit_age_max = AuditOptions::default().unit_age_max;
    change(&mut options.audit);
    options
}

fn by_age(age: Duration) -> Options {
    options(|audit| audit.retention_age = Some(age))
}

fn by_bytes(bytes: u64) -> Options {
    options(|audit| audit.retention_bytes = Some(bytes))
}

/// Denied by nobody: each user has one preview session, which ends when the clock moves.
async fn fill(engine: &Engine, records: u64) -> u64 {
    for number in 0..records {
        let email = format!("user-{}@example.com", number % 7);
        check(engine, &email, "198.51.100.1", ConnectionType::Preview, DEFAULT).await.unwrap();
    }
    settle(engine).await
}

/// Waits until of the records up to one no more than `kept` are left; there may be fewer.
async fn shrinks(engine: &Engine, old: u64, kept: u64) {
    let log = engine.audit();
    let left = || (old + 1).saturating_sub(log.first_sequence());
    until(&format!("of {old} old records {kept} at most are left, not {}", left()), async || {
        (left() <= kept).then_some(())
    })
    .await;
}

/// What the sealed files hold.
fn bytes(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory.join("audit")).unwrap().map(|entry| entry.unwrap().path());
    let of_records = files.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        [".seg", ".pii"].iter().any(|end| name.ends_with(end))
    });
    // One may be removed meanwhile.
    of_records.map(|path| std::fs::metadata(path).map_or(0, |file| file.len())).sum()
}

/// The hazard: 27 days old records under a retention of 7 days, because the only unit was never full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_rests_keeps_less_than_a_tile_of_what_is_too_old() {
    for records in [255, 256, 300, 1_000, 5_000] {
        let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
        let engine = open_by(directory.path(), key(1), by_age(WEEK), hand.clock());
        let old = fill(&engine, records).await;
        hand.advance(WEEK.saturating_sub(HOUR));
        let now = fill(&engine, 1).await;
        assert_eq!(engine.audit().first_sequence(), 1, "nothing is too old yet, {now} records");
        hand.advance(20 * 24 * HOUR);
        shrinks(&engine, old, TILE - 1).await;
        signed(&engine).await;
        engine.close();
        let verifier = key(1).verifier().to_string();
        assert_eq!(verify_audit(directory.path(), Some(&verifier), None, &mut |_, _| true).unwrap().faults, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_steady_log_never_keeps_what_is_older_than_the_age_and_a_tile() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let engine = open_by(directory.path(), key(1), by_age(WEEK), hand.clock());
    // Two weeks, with 20 records an hour and more: a tile fills in 13 hours at most, a 256th of a week is 39 minutes.
    let tile_time = 13 * HOUR;
    for hour in 0..14 * 24 {
        fill(&engine, 20).await;
        hand.advance(HOUR);
        if hour % 24 != 0 {
            continue;
        }
        let log = engine.audit();
        until("the oldest record is a week and a tile old at most", async || {
            let oldest = log.read(log.first_sequence(), 1).ok()?.first()?.entry.time;
            let age = hand.now().saturating_sub(Duration::from_micros(oldest.micros().unsigned_abs()));
            (age <= WEEK + tile_time + 2 * HOUR).then_some(())
        })
        .await;
    }
    assert!(engine.audit().first_sequence() > 3_000, "it did remove some: {}", engine.audit().first_sequence());
    engine.close();
}

/// The hazard: `--audit-retention-bytes 1` removed nothing, because nothing was sealed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_a_byte_keeps_the_last_day_and_less_than_a_tile() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let engine = open_by(directory.path(), key(1), by_bytes(1), hand.clock());
    let old = fill(&engine, 3_000).await;
    hand.advance(23 * HOUR);
    let young = fill(&engine, 1_000).await;
    assert_eq!(engine.audit().first_sequence(), 1, "nothing that a session may need is removed");
    hand.advance(2 * HOUR);
    shrinks(&engine, old, TILE - 1).await;
    // The sessions are a day old at most, the second thousand is not.
    assert!(engine.audit().first_sequence() <= old + 1);
    hand.advance(24 * HOUR);
    shrinks(&engine, young, TILE - 1).await;
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_takes_no_more_than_its_size_and_a_tile() {
    const MAX: u64 = 60_000;
    const TILE_BYTES: u64 = 4 * 1024;
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let engine = open_by(directory.path(), key(1), by_bytes(MAX), hand.clock());
    for _ in 0..12 {
        fill(&engine, 1_000).await;
        hand.advance(25 * HOUR);
    }
    let kept = async || {
        let first = engine.audit().first_sequence();
        (first > 1 && bytes(directory.path()) <= MAX + TILE_BYTES).then_some(first)
    };
    let first = until("the files take what they may", kept).await;
    assert!(settle(&engine).await - first > 3 * TILE, "and no more than has to is removed, from {first} on");
    engine.close();
}

/// A unit that has ended and is not sealed yet looks open to the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_goes_on_where_it_was_over_restarts_and_when_it_is_set_later() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    // Without retention the first unit goes on, beyond its tile.
    let engine = open_by(directory.path(), key(1), options(|_| {}), hand.clock());
    fill(&engine, 400).await;
    engine.close();
    let mut old = 0;
    for _ in 0..4 {
        let engine = open_by(directory.path(), key(1), by_age(WEEK), hand.clock());
        old = fill(&engine, 128).await;
        engine.close();
    }
    let verifier = key(1).verifier().to_string();
    assert_eq!(verify_audit(directory.path(), Some(&verifier), None, &mut |_, _| true).unwrap().faults, []);
    hand.advance(2 * WEEK);
    let engine = open_by(directory.path(), key(1), by_age(WEEK), hand.clock());
    // Its clock settles.
    hand.advance(Duration::from_secs(61));
    shrinks(&engine, old, TILE - 1).await;
    engine.close();
    assert_eq!(verify_audit(directory.path(), Some(&verifier), None, &mut |_, _| true).unwrap().faults, []);
}
