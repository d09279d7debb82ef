//! What a start makes of ages and deadlines while its clock has not settled: retention, sessions, changes that nobody
//! confirmed.
//!
//! Invariant: what a wall clock shows in the minute after a boot ends and removes nothing that is not over. What was over is
//! ended once the clock has settled, as if it had been right from the first.
//! Not here: marks of expired rules (`clock_settles`), corrections of a clock that had settled (`clock_corrected`).

use std::path::Path;
use std::time::Duration;

use portcullis::audit::session::SessionId;
use portcullis::config::Config;
use portcullis::engine::{Engine, Options};
use portcullis::policy::name::Id;
use portcullis::proto::v1::{Action, AuditType, ChangeOptions, CreateRuleRequest, Decision};

use crate::audit_engine::{another_unit, key, open_by, settle, small_units};
use crate::audit_tamper::copy as copy_files;
use crate::clock::{Hand, until};
use crate::clock_corrected::{correct, goes, keeps_a_month, looks_of_retention, shell};
use crate::clock_expiry::{add, decision, newest};
use crate::clock_follows::{A_LOOK, corrections, jump, open_shell, pass, records};
use crate::harness::{Service, rule};

const DEFAULT: &str = "organizations/default";
const DAY: i64 = 86_400;
const HOUR: Duration = Duration::from_hours(1);

fn boot(directory: &Path, options: Options, hand: &Hand, ahead: i64) -> Engine {
    hand.boot();
    hand.jump(ahead);
    open_by(directory, key(1), options, hand.clock())
}

/// Lets the clock settle, or a correction follow.
async fn a_minute(hand: &Hand) {
    tokio::time::sleep(A_LOOK).await;
    for _ in 0..2 {
        pass(hand, 31).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_a_year_ahead_at_a_boot_for_13_seconds_removes_no_record() {
    for restarts in 0..2 {
        let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
        let engine = open_by(directory.path(), key(1), keeps_a_month(), hand.clock());
        another_unit(&engine, directory.path()).await;
        let newest = engine.audit().newest_sequence();
        engine.close();
        let mut engine = boot(directory.path(), keeps_a_month(), &hand, 365 * DAY);
        hand.advance(Duration::from_secs(13));
        another_unit(&engine, directory.path()).await;
        looks_of_retention().await;
        assert_eq!(engine.audit().first_sequence(), 1, "the clock has not settled");
        correct(&engine, &hand, -365 * DAY).await;
        for _ in 0..restarts {
            settle(&engine).await;
            engine.close();
            engine = boot(directory.path(), keeps_a_month(), &hand, 0);
        }
        another_unit(&engine, directory.path()).await;
        looks_of_retention().await;
        assert_eq!(engine.audit().first_sequence(), 1, "they are minutes old");
        // In the end they do go.
        hand.advance(Duration::from_hours(24 * 30));
        another_unit(&engine, directory.path()).await;
        goes(&engine, newest / 2).await;
        engine.close();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_that_a_machine_was_off_counts_once_the_clock_has_settled() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let engine = open_by(directory.path(), key(1), keeps_a_month(), hand.clock());
    another_unit(&engine, directory.path()).await;
    let newest = engine.audit().newest_sequence();
    engine.close();
    let engine = boot(directory.path(), keeps_a_month(), &hand, 20 * DAY);
    another_unit(&engine, directory.path()).await;
    a_minute(&hand).await;
    settle(&engine).await;
    engine.close();
    // Over another start, too.
    let engine = boot(directory.path(), keeps_a_month(), &hand, 11 * DAY);
    another_unit(&engine, directory.path()).await;
    looks_of_retention().await;
    assert_eq!(engine.audit().first_sequence(), 1, "20 days have surely passed");
    a_minute(&hand).await;
    goes(&engine, newest / 2).await;
    engine.close();
}

/// The hazard: no record tells of renewals, so the time until them seems not to have passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_renewed_before_a_boot_ends_when_its_lease_does() {
    for is_killed in [false, true] {
        let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
        let engine = open_by(directory.path(), key(1), small_units(), hand.clock());
        let session = shell(&engine, Duration::from_mins(30)).await;
        settle(&engine).await;
        hand.advance(Duration::from_secs(1_000));
        let renewed = [(Id::parse("default").unwrap(), Some(session))];
        engine.renew_sessions(&renewed, Duration::from_secs(80)).await.unwrap();
        hand.advance(Duration::from_mins(1));
        let image = tempfile::tempdir().unwrap();
        if is_killed {
            copy_files(directory.path(), image.path());
        }
        engine.close();
        let left = if is_killed { image.path() } else { directory.path() };
        let engine = boot(left, small_units(), &hand, 0);
        assert!(is_active(&engine, session), "{is_killed}");
        a_minute(&hand).await;
        until("the session ends", async || (!is_active(&engine, session)).then_some(())).await;
        engine.close();
    }
}

/// The hazard: a session that was due long ago makes what was recorded a moment before its end seem as old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_session_that_was_due_long_ago_makes_no_record_old() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let engine = open_by(directory.path(), key(1), keeps_a_month(), hand.clock());
    let session = shell(&engine, Duration::from_mins(10)).await;
    another_unit(&engine, directory.path()).await;
    let old = settle(&engine).await;
    engine.close();
    let engine = boot(directory.path(), keeps_a_month(), &hand, 40 * DAY);
    another_unit(&engine, directory.path()).await;
    a_minute(&hand).await;
    until("the session ends", async || (!is_active(&engine, session)).then_some(())).await;
    settle(&engine).await;
    goes(&engine, old / 2).await;
    looks_of_retention().await;
    let first = engine.audit().first_sequence();
    assert!(first <= old + 1, "{first}: the records since {old} are a minute old");
    engine.close();
}

fn is_active(engine: &Engine, session: SessionId) -> bool {
    engine.sessions().get(&Id::parse("default").unwrap(), session).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_ahead_at_a_boot_ends_no_session_over_restarts_either() {
    for restarts in 0..3 {
        let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
        let engine = open_by(directory.path(), key(1), small_units(), hand.clock());
        let session = shell(&engine, Duration::from_mins(10)).await;
        settle(&engine).await;
        engine.close();
        let mut engine = boot(directory.path(), small_units(), &hand, 365 * DAY);
        hand.advance(Duration::from_secs(13));
        tokio::time::sleep(A_LOOK).await;
        assert!(is_active(&engine, session), "{restarts}");
        let opened = shell(&engine, Duration::from_mins(10)).await;
        settle(&engine).await;
        if restarts == 1 {
            engine.close();
            engine = boot(directory.path(), small_units(), &hand, 0);
        }
        correct(&engine, &hand, -365 * DAY).await;
        if restarts == 2 {
            engine.close();
            engine = boot(directory.path(), small_units(), &hand, 0);
        }
        // 103 seconds of ten minutes have passed, and 90 of the other's.
        hand.advance(Duration::from_secs(400));
        tokio::time::sleep(A_LOOK).await;
        assert!(is_active(&engine, session) && is_active(&engine, opened), "{restarts}");
        hand.advance(Duration::from_secs(101));
        let ends = async || (!is_active(&engine, session)).then_some(());
        until(&format!("{restarts}: the lease runs out"), ends).await;
        assert!(is_active(&engine, opened), "{restarts}");
        hand.advance(Duration::from_secs(13));
        until(&format!("{restarts}: the other's"), async || (!is_active(&engine, opened)).then_some(())).await;
        engine.close();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_were_over_at_a_boot_end_once_the_clock_has_settled() {
    for restarts in [false, true] {
        let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
        let engine = open_by(directory.path(), key(1), small_units(), hand.clock());
        let [short, long] = [600, 3 * 3_600].map(Duration::from_secs);
        let (short, long) = (shell(&engine, short).await, shell(&engine, long).await);
        settle(&engine).await;
        engine.close();
        let mut engine = boot(directory.path(), small_units(), &hand, 2 * 3_600);
        let opened = shell(&engine, Duration::from_mins(50)).await;
        tokio::time::sleep(A_LOOK).await;
        assert!(is_active(&engine, short), "its PEP may be about to renew it");
        a_minute(&hand).await;
        until("it ends", async || (!is_active(&engine, short)).then_some(())).await;
        assert!(is_active(&engine, long) && is_active(&engine, opened));
        if restarts {
            settle(&engine).await;
            engine.close();
            engine = open_by(directory.path(), key(1), small_units(), hand.clock());
        }
        assert!(is_active(&engine, long) && is_active(&engine, opened) && !is_active(&engine, short));
        hand.advance(Duration::from_secs(2_930));
        tokio::time::sleep(A_LOOK).await;
        assert!(is_active(&engine, opened), "{restarts}: of 50 minutes 8 seconds are left");
        hand.advance(Duration::from_secs(9));
        until(&format!("{restarts}: the lease runs out"), async || (!is_active(&engine, opened)).then_some(())).await;
        assert!(is_active(&engine, long), "{restarts}: ten minutes of three hours are left");
        hand.advance(Duration::from_mins(10));
        until(&format!("{restarts}: the lease runs out"), async || (!is_active(&engine, long)).then_some(())).await;
        engine.close();
    }
}

async fn add_unconfirmed(service: &Service, id: &str, within: Duration) {
    let options = ChangeOptions { confirm_within: Some(within.try_into().unwrap()), ..ChangeOptions::default() };
    let request = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule(Action::Deny, "198.51.100.0/24")),
        rule_id: id.to_owned(),
        options: Some(options),
        ..CreateRuleRequest::default()
    };
    service.firewall().create_rule(request).await.unwrap();
}

#[tokio::test]
async fn a_change_waits_for_its_confirmation_as_long_as_it_should() {
    for ahead in [365 * DAY, 2 * 3_600] {
        let temporary = tempfile::tempdir().unwrap();
        let config = Config::for_data_dir(temporary.path());
        let hand = Hand::new();
        let service = Service::with_clock(config.clone(), hand.clock()).await;
        add_unconfirmed(&service, "tried", HOUR).await;
        let waiting = newest(&service).await.revision;
        service.stop().await;
        hand.boot();
        hand.jump(ahead);
        let service = Service::with_clock(config.clone(), hand.clock()).await;
        hand.advance(Duration::from_secs(13));
        tokio::time::sleep(A_LOOK).await;
        assert_eq!(newest(&service).await.revision, waiting, "{ahead}: it still waits");
        if ahead == 365 * DAY {
            jump(&hand, -ahead).await;
            a_minute(&hand).await;
            until("the correction", async || corrections(&service).await.pop()).await;
            service.stop().await;
            let service = Service::with_clock(config, hand.clock()).await;
            hand.advance(HOUR.saturating_sub(Duration::from_secs(80)));
            tokio::time::sleep(A_LOOK).await;
            assert_eq!(newest(&service).await.revision, waiting, "{ahead}: it still waits");
            hand.advance(Duration::from_secs(10));
            until("it is undone", async || (newest(&service).await.revision > waiting).then_some(())).await;
            service.stop().await;
        } else {
            a_minute(&hand).await;
            until("it is undone", async || (newest(&service).await.revision > waiting).then_some(())).await;
            service.stop().await;
        }
    }
}

#[tokio::test]
async fn a_rule_that_seems_expired_at_a_boot_revokes_no_session() {
    for passes in [true, false] {
        let temporary = tempfile::tempdir().unwrap();
        let config = Config::for_data_dir(temporary.path());
        let hand = Hand::new();
        let service = Service::with_clock(config.clone(), hand.clock()).await;
        let until_then = i64::try_from((hand.now() + HOUR).as_secs()).unwrap();
        let expire_time = Some(prost_types::Timestamp { seconds: until_then, nanos: 0 });
        add(&service, "hour", portcullis::proto::v1::Rule { expire_time, ..rule(Action::Allow, "203.0.113.0/24") })
            .await;
        add(&service, "rest", rule(Action::Deny, "0.0.0.0/0")).await;
        open_shell(&service, 8 * 3_600).await;
        service.stop().await;
        hand.boot();
        hand.jump(2 * 3_600);
        let service = Service::with_clock(config, hand.clock()).await;
        assert_eq!(decision(&service, "203.0.113.7").await, Decision::Deny, "it is decided by decision time");
        tokio::time::sleep(A_LOOK).await;
        let revoked = async || records(&service, &[AuditType::SessionRevoked]).await.len();
        assert_eq!(revoked().await, 0, "a minute is waited for");
        if passes {
            jump(&hand, -2 * 3_600).await;
        }
        a_minute(&hand).await;
        if passes {
            until("the correction", async || corrections(&service).await.pop()).await;
            tokio::time::sleep(A_LOOK).await;
            assert_eq!(revoked().await, 0, "the rule has not expired");
            assert_eq!(decision(&service, "203.0.113.7").await, Decision::Allow);
        } else {
            until("it is revoked", async || (revoked().await == 1).then_some(())).await;
        }
        service.stop().await;
    }
}
