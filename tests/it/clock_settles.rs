//! A start on another boot of the machine, with a wall clock that may be wrong. Through the API.
//!
//! Invariant: what cannot be undone waits until the wall clock has stayed for a minute.
//! Not here: corrections of the clock (`clock_follows`).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::proto::v1::{AuditType, Decision};

use crate::clock::{Hand, until};
use crate::clock_expiry::{add, decision, expiring, marked, newest};
use crate::clock_follows::{A_LOOK, corrections, jump, pass, records};
use crate::harness::Service;

const DEFAULT: &str = "organizations/default";
const DAY: i64 = 86_400;
const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_wall_clock_that_is_ahead_at_a_boot_for_13_seconds_marks_and_removes_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(temporary.path());
    config.record.audit_retention_age = Some(Duration::from_hours(24 * 30));
    let hand = Hand::new();
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    add(&service, "hour", expiring("192.0.2.0/24", hand.now() + HOUR)).await;
    let made = newest(&service).await.revision;
    for number in 0..600 {
        service.check(&format!("203.0.113.{}", number % 250), DEFAULT).await;
    }
    service.stop().await;
    hand.boot();
    hand.jump(365 * DAY);
    let service = Service::with_clock(config, hand.clock()).await;
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Allow, "it is decided by decision time");
    hand.advance(Duration::from_secs(13));
    // Retention looks once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    jump(&hand, -365 * DAY).await;
    pass(&hand, 31).await;
    pass(&hand, 31).await;
    let found = until("the correction", async || corrections(&service).await.pop()).await;
    assert_eq!(found.1 - found.0, -365 * DAY);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(newest(&service).await.revision, made, "nothing was marked");
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Deny);
    assert_eq!(records(&service, &[AuditType::Pruned]).await, []);
    // It expires in its time.
    hand.advance(HOUR);
    marked(&service, made + 1).await;
    service.stop().await;
}

#[tokio::test]
async fn what_expired_while_the_machine_was_off_is_marked_once_the_clock_has_settled() {
    let temporary = tempfile::tempdir().unwrap();
    let config = Config::for_data_dir(temporary.path());
    let hand = Hand::new();
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    add(&service, "hour", expiring("192.0.2.0/24", hand.now() + HOUR)).await;
    let made = newest(&service).await.revision;
    service.stop().await;
    hand.boot();
    hand.jump(2 * 3_600);
    let service = Service::with_clock(config, hand.clock()).await;
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Allow, "never late");
    tokio::time::sleep(A_LOOK).await;
    pass(&hand, 31).await;
    assert_eq!(newest(&service).await.revision, made, "not before");
    pass(&hand, 31).await;
    marked(&service, made + 1).await;
    service.stop().await;
}

#[tokio::test]
async fn no_clock_of_before_a_correction_is_kept_where_none_can_be_written() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let kept = service.data_dir().join("clock");
    pass(&hand, 31).await;
    until("the clock is kept", async || kept.exists().then_some(())).await;
    // Where a new text is written first.
    std::fs::create_dir(kept.with_extension("new")).unwrap();
    jump(&hand, 30 * DAY).await;
    pass(&hand, 31).await;
    pass(&hand, 31).await;
    until("the correction", async || corrections(&service).await.pop()).await;
    assert!(!kept.exists());
    service.stop().await;
}
