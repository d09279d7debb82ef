//! A start on another boot of the machine, with a wall clock that may be wrong. Through the API.
//!
//! Invariant: what cannot be undone waits until the wall clock has stayed for a minute.
//! Not here: corrections of the clock (`clock_follows`), ages, sessions and unconfirmed changes (`clock_unsettled`).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::proto::v1::Decision;

use crate::clock::{Hand, until};
use crate::clock_expiry::{add, decision, expiring, marked, newest};
use crate::clock_follows::{A_LOOK, corrections, jump, pass};
use crate::harness::Service;

const DAY: i64 = 86_400;
const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_wall_clock_that_is_ahead_at_a_boot_for_13_seconds_marks_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let config = Config::for_data_dir(temporary.path());
    let hand = Hand::new();
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    add(&service, "hour", expiring("192.0.2.0/24", hand.now() + HOUR)).await;
    let made = newest(&service).await.revision;
    service.stop().await;
    hand.boot();
    hand.jump(365 * DAY);
    let service = Service::with_clock(config, hand.clock()).await;
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Allow, "it is decided by decision time");
    hand.advance(Duration::from_secs(13));
    tokio::time::sleep(A_LOOK).await;
    jump(&hand, -365 * DAY).await;
    pass(&hand, 31).await;
    pass(&hand, 31).await;
    let found = until("the correction", async || corrections(&service).await.pop()).await;
    assert_eq!(found.1 - found.0, -365 * DAY);
    assert_eq!(newest(&service).await.revision, made, "nothing was marked");
    assert_eq!(decision(&service, "192.0.2.1").await, Decision::Deny);
    // It expires in its time.
    hand.advance(HOUR);
    marked(&service, made + 1).await;
    service.stop().await;
}

#[tokio::test]
async fn a_restart_before_the_clock_has_settled_settles_nothing() {
    for next in ["the same boot", "another boot", "the same boot, and the file is lost"] {
        let temporary = tempfile::tempdir().unwrap();
        let config = Config::for_data_dir(temporary.path());
        let hand = Hand::new();
        let service = Service::with_clock(config.clone(), hand.clock()).await;
        add(&service, "hour", expiring("192.0.2.0/24", hand.now() + HOUR)).await;
        let made = newest(&service).await.revision;
        service.stop().await;
        hand.boot();
        hand.jump(365 * DAY);
        let service = Service::with_clock(config.clone(), hand.clock()).await;
        assert_eq!(decision(&service, "203.0.113.1").await, Decision::Allow);
        service.stop().await;
        match next {
            "another boot" => hand.boot(),
            "the same boot" => {}
            _ => std::fs::remove_file(temporary.path().join("clock")).unwrap(),
        }
        hand.jump(-365 * DAY);
        let service = Service::with_clock(config, hand.clock()).await;
        assert_eq!(newest(&service).await.revision, made, "{next}: nothing is marked at the start");
        for _ in 0..3 {
            pass(&hand, 31).await;
        }
        until("the correction", async || corrections(&service).await.pop()).await;
        assert_eq!(newest(&service).await.revision, made, "{next}: nothing is marked");
        assert_eq!(decision(&service, "192.0.2.1").await, Decision::Deny, "{next}");
        hand.advance(HOUR);
        marked(&service, made + 1).await;
        service.stop().await;
    }
}

#[tokio::test]
async fn what_expires_by_a_settled_clock_is_marked_within_a_second() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    for number in 1..=3 {
        add(&service, &format!("r{number}"), expiring(&format!("192.0.2.{number}"), hand.now() + HOUR)).await;
        let made = newest(&service).await.revision;
        hand.advance(HOUR);
        // Time passes with the looks of the service at its clock, of which there are five in a second.
        for _ in 0..5 {
            let before = hand.readings();
            until("a look", async || (hand.readings() > before).then_some(())).await;
            hand.advance(Duration::from_millis(200));
        }
        let before = hand.readings();
        until("the end of the last one", async || (hand.readings() > before).then_some(())).await;
        assert_eq!(newest(&service).await.revision, made + 1, "{number}");
    }
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
