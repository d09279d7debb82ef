//! The clock that is kept across restarts, where it cannot be written, removed or understood.
//!
//! Invariant: no start goes on from before a correction, or from one that is not on the record.
//! Not here: restarts where all goes well (`clock_follows`).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::config::Config;
use portcullis::engine::Engine;
use portcullis::engine::clock::{Clock, Kept};

use crate::audit_engine::small_units;
use crate::clock::{Hand, until};
use crate::clock_follows::{A_LOOK, corrections, jump, newest_decision, pass};
use crate::faults_disk::{Store, Surroundings};
use crate::harness::Service;
use crate::store_disk::Trouble;

const DAY: i64 = 86_400;

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

#[tokio::test]
async fn a_kept_clock_of_before_a_correction_is_ignored() {
    let temporary = tempfile::tempdir().unwrap();
    let config = Config::for_data_dir(temporary.path());
    let hand = Hand::new();
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    pass(&hand, 31).await;
    let kept = temporary.path().join("clock");
    let before = std::fs::read(&kept).unwrap();
    jump(&hand, -30 * DAY).await;
    pass(&hand, 31).await;
    pass(&hand, 31).await;
    until("the correction", async || corrections(&service).await.pop()).await;
    let time = newest_decision(&service).await;
    service.stop().await;
    // As where it can neither be removed nor written.
    std::fs::write(&kept, before).unwrap();
    let service = Service::with_clock(config, hand.clock()).await;
    assert_eq!(newest_decision(&service).await, time);
    service.stop().await;
}

#[tokio::test]
async fn a_clock_is_kept_again_once_files_can_be_opened_again() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let kept = || std::fs::read_to_string(service.data_dir().join("clock")).ok();
    pass(&hand, 31).await;
    let first = until("the clock is kept", async || kept()).await;
    hand.hide_boot(true);
    pass(&hand, 62).await;
    assert_eq!(kept(), Some(first.clone()));
    hand.hide_boot(false);
    pass(&hand, 31).await;
    until("it is kept again", async || (kept() != Some(first.clone())).then_some(())).await;
    service.stop().await;
}

/// A clock, and what is kept of it.
fn kept_clock(hand: &Hand) -> (Clock, Arc<Mutex<Option<String>>>) {
    let kept = Arc::new(Mutex::new(None));
    let (written, forgotten) = (Arc::clone(&kept), Arc::clone(&kept));
    let write = move |text: &str| {
        *written.lock().unwrap() = Some(text.to_owned());
        Ok(())
    };
    let forget = move || {
        *forgotten.lock().unwrap() = None;
        Ok(())
    };
    (hand.clock().kept(Kept { last: None, write: Box::new(write), forget: Box::new(forget) }), kept)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_correction_is_kept_that_is_not_on_the_record() {
    let (hand, mut surroundings) = (Hand::new(), Surroundings::default());
    let (clock, kept) = kept_clock(&hand);
    let engine = Engine::open(surroundings.stores().unwrap(), small_units(), clock).unwrap();
    jump(&hand, 30 * DAY).await;
    pass(&hand, 31).await;
    assert!(kept.lock().unwrap().is_some());
    // The disk fails with the record of the correction.
    surroundings.trouble(Store::Audit, Trouble::Full);
    hand.advance(Duration::from_secs(31));
    until("the correction", async || kept.lock().unwrap().is_none().then_some(())).await;
    tokio::time::sleep(A_LOOK).await;
    tokio::task::spawn_blocking(move || engine.close()).await.unwrap();
    assert_eq!(*kept.lock().unwrap(), None);
}

#[test]
fn only_a_difference_that_has_lasted_is_followed() {
    let hand = Hand::new();
    let clock = hand.clock();
    for (by, then) in [(30 * DAY, -30 * DAY), (30 * DAY, -60 * DAY), (-30 * DAY, 30 * DAY), (60, 20 * DAY)] {
        hand.jump(by);
        assert_eq!(clock.follow(), None);
        hand.advance(Duration::from_secs(61));
        assert!(clock.follow().is_some(), "it has lasted");
        // Something takes long, and the jump has passed, or there is another one.
        hand.jump(then);
        let before = clock.now();
        assert_eq!(clock.correct(), None, "{by} {then}");
        assert_eq!(clock.now(), before, "{by} {then}");
        hand.jump(-by - then);
        assert_eq!(clock.follow(), None);
    }
}
