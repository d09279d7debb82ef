//! What jumps of the wall clock do, through the API: nothing where they pass, a correction on the record where they last.
//!
//! Invariant: leases, retention and expiry never follow a wall clock that was wrong for a moment.
//! Not here: rules that are marked as expired (`clock_expiry`), random jumps (`clock_campaign`).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::proto::v1::audit_record::Content;
use portcullis::proto::v1::{
    Action, AuditRecord, AuditType, CheckRequest, ClockChangeCause, ConnectionType, CreateRuleRequest, Decision,
    ListAuditRecordsRequest, ListSessionsRequest, Rule, SessionState,
};
use prost_types::Timestamp;

use crate::clock::{Hand, until};
use crate::harness::{Service, rule};

const DEFAULT: &str = "organizations/default";
const DAY: i64 = 86_400;

/// Longer than the service waits before it looks at the clocks.
pub(crate) const A_LOOK: Duration = Duration::from_millis(450);

/// Lets seconds pass in pieces, with a look of the service at each.
pub(crate) async fn pass(hand: &Hand, seconds: u64) {
    for _ in 0..seconds.div_ceil(31) {
        hand.advance(Duration::from_secs(seconds.min(31)));
        tokio::time::sleep(A_LOOK).await;
    }
}

/// The wall clock jumps, and the service looks at it.
pub(crate) async fn jump(hand: &Hand, seconds: i64) {
    hand.jump(seconds);
    tokio::time::sleep(A_LOOK).await;
}

fn at(time: Duration) -> Timestamp {
    Timestamp { seconds: i64::try_from(time.as_secs()).unwrap(), nanos: 0 }
}

async fn deny_until(service: &Service, id: &str, range: &str, time: Duration) {
    let request = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(Rule { expire_time: Some(at(time)), ..rule(Action::Deny, range) }),
        rule_id: id.to_owned(),
        ..CreateRuleRequest::default()
    };
    service.firewall().create_rule(request).await.unwrap();
}

pub(crate) async fn records(service: &Service, types: &[AuditType]) -> Vec<AuditRecord> {
    let request = ListAuditRecordsRequest {
        parent: "cluster".to_owned(),
        types: types.iter().map(|of| i32::from(*of)).collect(),
        ..ListAuditRecordsRequest::default()
    };
    service.audit().list_audit_records(request).await.unwrap().into_inner().audit_records
}

/// The time of the newest decision, in seconds since 1970.
pub(crate) async fn newest_decision(service: &Service) -> i64 {
    // Of an unknown organization: it opens no session.
    service.check("203.0.113.9", "organizations/nobody").await;
    records(service, &[AuditType::Decision]).await[0].time.unwrap().seconds
}

/// The corrections on the record: the times before and after, in seconds.
pub(crate) async fn corrections(service: &Service) -> Vec<(i64, i64)> {
    let changed = records(service, &[AuditType::ClockChanged]).await;
    let times = |record: AuditRecord| match record.content {
        Some(Content::ClockChange(change)) if change.cause() == ClockChangeCause::Correction => {
            Some((change.from_time.unwrap().seconds, change.to_time.unwrap().seconds))
        }
        Some(Content::ClockChange(_)) => None,
        other => panic!("{other:?}"),
    };
    changed.into_iter().filter_map(times).collect()
}

pub(crate) async fn open_shell(service: &Service, lease: u64) -> String {
    let request = CheckRequest {
        ip: "203.0.113.7".to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        session_lease: Some(Duration::from_secs(lease).try_into().unwrap()),
        ..CheckRequest::default()
    };
    service.decisions().check(request).await.unwrap().into_inner().session
}

async fn active(service: &Service) -> Vec<String> {
    let request = ListSessionsRequest {
        parent: DEFAULT.to_owned(),
        state: SessionState::Active.into(),
        ..ListSessionsRequest::default()
    };
    let sessions = service.audit().list_sessions(request).await.unwrap().into_inner().sessions;
    sessions.into_iter().map(|session| session.name).collect()
}

#[tokio::test]
async fn a_clock_that_is_thirty_days_ahead_for_a_moment_changes_nothing() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    deny_until(&service, "hour", "192.0.2.0/24", hand.now() + Duration::from_hours(1)).await;
    let leased = open_shell(&service, 90).await;
    let start = newest_decision(&service).await;
    hand.jump(30 * DAY);
    pass(&hand, 31).await;
    assert_eq!(newest_decision(&service).await, start + 31, "the record has the time that has passed");
    assert_eq!(service.check("192.0.2.1", DEFAULT).await.decision(), Decision::Deny, "the hour is not over");
    // Another rule of one hour, made while the clock is wrong, lasts an hour too.
    let hour = Duration::from_secs(u64::try_from(start).unwrap() + 31 + 3_600);
    deny_until(&service, "second", "198.51.100.0/24", hour).await;
    hand.jump(-30 * DAY);
    pass(&hand, 31).await;
    assert_eq!(newest_decision(&service).await, start + 62, "time does not stand still");
    assert_eq!(active(&service).await, [leased], "62 of 90 seconds");
    pass(&hand, 31).await;
    until("the lease runs out", async || active(&service).await.is_empty().then_some(())).await;
    assert_eq!(corrections(&service).await, []);
    hand.advance(Duration::from_secs(3_600 - 94));
    for denied in ["192.0.2.1", "198.51.100.1"] {
        assert_eq!(service.check(denied, DEFAULT).await.decision(), Decision::Deny, "{denied}");
    }
    hand.advance(Duration::from_secs(63));
    for denied in ["192.0.2.1", "198.51.100.1"] {
        assert_eq!(service.check(denied, DEFAULT).await.decision(), Decision::Allow, "{denied}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_difference_that_lasts_is_followed_on_the_record_in_both_directions() {
    for by in [30 * DAY, -30 * DAY, 365 * DAY, 11, -3_600] {
        let hand = Hand::new();
        let service = Service::start_at(&hand).await;
        let leased = open_shell(&service, 3_000).await;
        let start = newest_decision(&service).await;
        jump(&hand, by).await;
        pass(&hand, 31).await;
        assert_eq!(newest_decision(&service).await, start + 31, "{by}");
        pass(&hand, 31).await;
        let found = until("the correction", async || corrections(&service).await.pop()).await;
        assert_eq!(found, (start + 62, start + 62 + by), "{by}");
        assert_eq!(newest_decision(&service).await, start + 62 + by, "{by}");
        // A lease runs by the time that passes, whatever the clock shows.
        assert_eq!(active(&service).await, std::slice::from_ref(&leased), "{by}");
        hand.advance(Duration::from_secs(2_900));
        tokio::time::sleep(A_LOOK).await;
        assert_eq!(active(&service).await, [leased], "{by}");
        hand.advance(Duration::from_secs(39));
        until("the lease runs out", async || active(&service).await.is_empty().then_some(())).await;
        assert_eq!(corrections(&service).await.len(), 1, "{by}");
        // Time filters find what they name, although times went back.
        let request = ListAuditRecordsRequest {
            parent: "cluster".to_owned(),
            start_time: Some(Timestamp { seconds: start + 62 + by, nanos: 0 }),
            end_time: Some(Timestamp { seconds: start + 63 + by, nanos: 0 }),
            types: vec![AuditType::Decision.into()],
            ..ListAuditRecordsRequest::default()
        };
        let listed = service.audit().list_audit_records(request).await.unwrap().into_inner().audit_records;
        assert_eq!(listed.len(), 1, "{by}: {listed:?}");
        service.stop().await;
    }
}

#[tokio::test]
async fn a_small_difference_is_made_up_for_without_a_step() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let start = newest_decision(&service).await;
    hand.jump(10);
    tokio::time::sleep(A_LOOK).await;
    assert_eq!(newest_decision(&service).await, start);
    hand.advance(Duration::from_secs(100));
    assert_eq!(newest_decision(&service).await, start + 105);
    hand.advance(Duration::from_secs(100));
    assert_eq!(newest_decision(&service).await, start + 210);
    hand.advance(Duration::from_secs(100));
    assert_eq!(newest_decision(&service).await, start + 310);
    assert_eq!(corrections(&service).await, []);
    service.stop().await;
}

#[tokio::test]
async fn a_wall_clock_a_year_ahead_for_14_seconds_ends_no_session() {
    let temporary = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(temporary.path());
    config.record.audit_retention_age = Some(Duration::from_hours(24 * 30));
    let hand = Hand::new();
    let service = Service::with_clock(config, hand.clock()).await;
    for number in 0..600 {
        service.check(&format!("203.0.113.{}", number % 250), DEFAULT).await;
    }
    hand.jump(365 * DAY);
    hand.advance(Duration::from_secs(14));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let overview = service
        .audit()
        .get_overview(portcullis::proto::v1::GetOverviewRequest { parent: DEFAULT.to_owned() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(overview.active_sessions.iter().map(|active| active.count).sum::<i64>(), 600);
    service.stop().await;
}

#[tokio::test]
async fn a_jump_while_the_service_is_stopped_is_a_jump_like_any_other() {
    let temporary = tempfile::tempdir().unwrap();
    let config = Config::for_data_dir(temporary.path());
    let hand = Hand::new();
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    deny_until(&service, "hour", "192.0.2.0/24", hand.now() + Duration::from_hours(1)).await;
    let leased = open_shell(&service, 300).await;
    let start = newest_decision(&service).await;
    service.stop().await;
    for by in [30 * DAY, -30 * DAY, -365 * DAY, 365 * DAY] {
        hand.jump(by);
        hand.advance(Duration::from_secs(10));
        let service = Service::with_clock(config.clone(), hand.clock()).await;
        assert_eq!(service.check("192.0.2.1", DEFAULT).await.decision(), Decision::Deny, "{by}");
        assert_eq!(active(&service).await, std::slice::from_ref(&leased), "{by}");
        service.stop().await;
    }
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    assert_eq!(newest_decision(&service).await, start + 40);
    service.stop().await;
    // After a boot nothing is known of the time between: the wall clock counts, but not from before the newest record.
    hand.boot();
    hand.jump(-30 * DAY);
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    assert_eq!(newest_decision(&service).await, start + 40);
    tokio::time::sleep(A_LOOK).await;
    pass(&hand, 31).await;
    pass(&hand, 31).await;
    let found = until("the correction", async || corrections(&service).await.pop()).await;
    assert_eq!(found.1 - found.0, -30 * DAY);
    service.stop().await;
}

#[tokio::test]
async fn no_wall_clock_keeps_the_service_from_starting_or_makes_an_answer_invalid() {
    let of_year = |year: i64| (year - 1970) * 31_556_952_000_000;
    for year in [1901, 1969, 1970, 2038, 2262, 9998, 9999, 12_000, -5_000] {
        let temporary = tempfile::tempdir().unwrap();
        let config = Config::for_data_dir(temporary.path());
        let hand = Hand::at_micros(of_year(year));
        for restart in 0..2 {
            let service = Service::with_clock(config.clone(), hand.clock()).await;
            let leased = open_shell(&service, 60).await;
            assert!(active(&service).await.contains(&leased), "{year} {restart}");
            for record in records(&service, &[]).await {
                let time = record.time.unwrap();
                assert!((-62_135_596_800..=253_402_300_799).contains(&time.seconds), "{year}: {time:?}");
            }
            hand.advance(Duration::from_secs(61));
            until("the lease runs out", async || (!active(&service).await.contains(&leased)).then_some(())).await;
            service.stop().await;
            hand.boot();
        }
        // A year that is none is no reason to refuse what comes after.
        let hand = Hand::new();
        let service = Service::with_clock(config, hand.clock()).await;
        assert_eq!(service.check("203.0.113.1", DEFAULT).await.decision(), Decision::Allow, "{year}");
        service.stop().await;
    }
}
