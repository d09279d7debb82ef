//! Following the log: exactly once, in order, from any place, however often the stream breaks and however slow the reader.
//!
//! Invariant: proven by arithmetic on sequences: what a subscriber has seen is every number from the first to the last.
//! Not here: what records hold (`audit_api`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use portcullis::proto::v1::audit_service_client::AuditServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{
    Action, AuditType, ConnectionType, EraseUserRequest, GetCheckpointRequest, RenewSessionsRequest, WatchEventsRequest,
};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;

use crate::audit_api::check_of;
use crate::clock::{Hand, PATIENCE, until};
use crate::harness::{Service, assert_error};
use crate::process::Process;

const DEFAULT: &str = "organizations/default";
const RECONNECTS: usize = 500;
const SUBSCRIBERS: usize = 100;
const SLOW: usize = 10;

/// What slow readers may cost in all, on top of what the load itself does.
const MEMORY_MAX: u64 = 128 * 1024 * 1024;

fn from_the_first() -> WatchEventsRequest {
    WatchEventsRequest { parent: "cluster".to_owned(), after_sequence: Some(0), ..WatchEventsRequest::default() }
}

/// Checks without end, until told; allowed and denied, of many users.
fn load(channel: &Channel, stop: &Arc<AtomicBool>, workers: usize) -> Vec<JoinHandle<u64>> {
    let worker = |number: usize| {
        let (mut decisions, stop) = (DecisionServiceClient::new(channel.clone()), Arc::clone(stop));
        tokio::spawn(async move {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                let email = format!("user-{}@example.com", asked % 50);
                let request =
                    check_of(&email, &format!("192.0.{number}.{}", asked % 250), ConnectionType::Preview, DEFAULT);
                decisions.check(request).await.unwrap();
                asked += 1;
            }
            asked
        })
    };
    (0..workers).map(worker).collect()
}

/// Waits until so many records of the log are signed, and says how many are.
pub(crate) async fn signed_size(channel: &Channel, at_least: u64) -> u64 {
    let mut audit = AuditServiceClient::new(channel.clone());
    until("a checkpoint that covers the records", async || {
        let answer = audit.get_checkpoint(GetCheckpointRequest {}).await.ok()?;
        let size = answer.into_inner().note.lines().nth(1).unwrap().parse().unwrap();
        (size >= at_least).then_some(size)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_reconnects_under_load_see_every_record_once() {
    let service = Service::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let workers = load(&service.channel, &stop, 4);
    let (mut seen, mut through) = (Vec::new(), 0);
    for reconnect in 0..RECONNECTS {
        let request = WatchEventsRequest { after_sequence: Some(through), ..from_the_first() };
        let mut events = service.audit().watch_events(request).await.unwrap().into_inner();
        // A different number of events each time; the rest of what is on its way is thrown away with the stream.
        for _ in 0..(reconnect * 7_919) % 43 {
            let event = events.message().await.unwrap().expect("the stream must not end");
            assert!(event.through_sequence >= through, "never falls");
            through = event.through_sequence;
            seen.extend(event.record.map(|record| record.sequence));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for worker in workers {
        asked += worker.await.unwrap();
    }
    let last = i64::try_from(signed_size(&service.channel, asked).await).unwrap();
    let request = WatchEventsRequest { after_sequence: Some(through), ..from_the_first() };
    let mut events = service.audit().watch_events(request).await.unwrap().into_inner();
    while through < last {
        let event = events.message().await.unwrap().expect("the stream must not end");
        through = event.through_sequence;
        seen.extend(event.record.map(|record| record.sequence));
    }
    assert_eq!(i64::try_from(seen.len()).unwrap(), last, "{RECONNECTS} reconnects over {last} records");
    assert!(seen.iter().zip(1..).all(|(seen, expected)| *seen == expected), "no gap, no double, in order");
    service.stop().await;
}

/// The hazard: a subscriber that holds what the log's writer waits for. Two looks at the newest record with the writer in
/// between were one; they cannot be written any more (`engine::audit::Newest`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribing_never_holds_the_log_up() {
    let service = Service::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let workers = load(&service.channel, &stop, 4);
    let address = format!("http://{}", service.address());
    let subscribers = (0..8).map(|_| {
        // A connection of its own: what it does not read must not stand in the way of the others.
        let address = address.clone();
        tokio::spawn(async move {
            let mut audit = AuditServiceClient::connect(address).await.unwrap();
            let mut open = Vec::new();
            for _ in 0..120 {
                let request = WatchEventsRequest { after_sequence: Some(0), ..from_the_first() };
                open.push(audit.watch_events(request).await.unwrap());
            }
        })
    });
    let all = async {
        for subscriber in subscribers.collect::<Vec<_>>() {
            subscriber.await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_mins(1), all).await.expect("the log stands still");
    service.stop().await;
}

/// Follows the log from the first record until told the last; every `pause_every` events it sleeps.
fn subscriber(channel: &Channel, last: &Arc<AtomicU64>, pause_every: Option<u64>) -> JoinHandle<u64> {
    let (mut audit, last) = (AuditServiceClient::new(channel.clone()), Arc::clone(last));
    tokio::spawn(async move {
        let mut events = audit.watch_events(from_the_first()).await.unwrap().into_inner();
        let (mut next, mut received) = (1_i64, 0_u64);
        loop {
            let event = events.message().await.unwrap().expect("the stream must not end");
            if let Some(record) = event.record {
                assert_eq!(record.sequence, next, "no gap, no double");
                next += 1;
                received += 1;
            }
            let last = last.load(Ordering::Relaxed);
            if last > 0 && u64::try_from(next).unwrap() > last {
                return received;
            }
            if pause_every.is_some_and(|every| received.is_multiple_of(every)) {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_subscribers_ten_of_them_slow_see_every_record_once_in_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(&directory.path().join("data"));
    let last = Arc::new(AtomicU64::new(0));
    let mut subscribers = Vec::new();
    for number in 0..SUBSCRIBERS {
        // A connection for each: the flow control of one must not speak for another.
        let channel = process.connect().await;
        subscribers.push(subscriber(&channel, &last, (number < SLOW).then_some(50)));
    }
    let channel = process.connect().await;
    let before = process.resident_bytes();
    let stop = Arc::new(AtomicBool::new(false));
    let workers = load(&channel, &stop, 4);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let grown = process.resident_bytes().saturating_sub(before);
    stop.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for worker in workers {
        asked += worker.await.unwrap();
    }
    let records = signed_size(&channel, asked).await;
    last.store(records, Ordering::Relaxed);
    // Wakes those who had seen everything before they were told what the last is.
    let mut decisions = DecisionServiceClient::new(channel.clone());
    decisions.check(check_of("", "192.0.2.1", ConnectionType::Shell, DEFAULT)).await.unwrap();
    for subscriber in subscribers {
        assert!(subscriber.await.unwrap() >= records);
    }
    assert!(grown < MEMORY_MAX, "{grown} bytes for {records} records and {SUBSCRIBERS} subscribers");
    process.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_revokes_just_the_sessions_that_it_denies_and_subscribers_see_it() {
    let service = Service::start().await;
    let mut decisions = service.decisions();
    let mut names = Vec::new();
    for number in 0..40 {
        let request = check_of(
            "ada@example.com",
            &format!("192.0.2.{number}"),
            ConnectionType::Shell,
            &format!("{DEFAULT}/projects/web"),
        );
        names.push(decisions.check(request).await.unwrap().into_inner().session);
    }
    let preview = check_of("ada@example.com", "192.0.2.1", ConnectionType::Preview, DEFAULT);
    let folded = decisions.check(preview.clone()).await.unwrap().into_inner().session;
    let request = WatchEventsRequest {
        parent: DEFAULT.to_owned(),
        types: vec![AuditType::SessionRevoked.into()],
        ..WatchEventsRequest::default()
    };
    let mut events = service.audit().watch_events(request).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().unwrap().record.is_none(), "tells where it begins");
    let rule = service.add_rule("half", Action::Deny, "192.0.2.0/28").await;
    let mut revoked = Vec::new();
    while revoked.len() < 17 {
        let event = events.message().await.unwrap().unwrap();
        let Some(record) = event.record else { continue };
        let Some(portcullis::proto::v1::audit_record::Content::Session(session)) = record.content else { panic!() };
        assert_eq!((&session.revoke_rule, session.revoke_revision), (&rule.name, rule.revision));
        assert_eq!(session.revoke_reason(), portcullis::proto::v1::Reason::DenyRule);
        revoked.push(session.name);
    }
    revoked.sort();
    let mut expected = names[..16].to_vec();
    expected.push(folded.clone());
    expected.sort();
    assert_eq!(revoked, expected);
    // Final: the rule goes, and neither a renewal nor a further check brings a session back.
    let request = portcullis::proto::v1::DeleteRuleRequest { name: rule.name.clone(), ..Default::default() };
    service.firewall().delete_rule(request).await.unwrap();
    let request = RenewSessionsRequest {
        names: names[14..18].to_vec(),
        session_lease: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
    };
    let renewed = decisions.renew_sessions(request).await.unwrap().into_inner();
    assert_eq!((renewed.revoked, renewed.sessions), (names[14..16].to_vec(), names[16..18].to_vec()));
    assert_ne!(decisions.check(preview).await.unwrap().into_inner().session, folded, "a new session");
    service.stop().await;
}

#[tokio::test]
async fn a_rule_that_expires_revokes_what_it_had_allowed() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    service.add_rule("closed", Action::Deny, "any").await;
    let expire_time = Some(prost_types::Timestamp { seconds: 1_800_000_700, nanos: 0 });
    let rule = portcullis::proto::v1::Rule { expire_time, ..crate::harness::rule(Action::Allow, "192.0.2.0/24") };
    let request = portcullis::proto::v1::CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule),
        rule_id: "visit".to_owned(),
        position: Some(1),
        ..Default::default()
    };
    service.firewall().create_rule(request).await.unwrap();
    let request = WatchEventsRequest { types: vec![AuditType::SessionRevoked.into()], ..from_the_first() };
    let mut events = service.audit().watch_events(request).await.unwrap().into_inner();
    let session = service.check("192.0.2.1", DEFAULT).await.session;
    assert!(!session.is_empty());
    hand.set(Duration::from_secs(1_800_000_700));
    let revoked = async {
        loop {
            // An event without a record only tells how far the log is.
            if let Some(record) = events.message().await.unwrap().unwrap().record {
                return record;
            }
        }
    };
    let record = tokio::time::timeout(PATIENCE, revoked).await.expect("nothing is revoked");
    let Some(portcullis::proto::v1::audit_record::Content::Session(revoked)) = record.content else { panic!() };
    assert_eq!((revoked.name, revoked.revoke_rule), (session, format!("{DEFAULT}/rules/closed")));
    service.stop().await;
}

#[tokio::test]
async fn a_stream_says_why_it_ends_and_what_cannot_be_followed_is_refused() {
    let service = Service::start().await;
    let beyond = WatchEventsRequest { after_sequence: Some(1_000_000), ..from_the_first() };
    assert_error(service.audit().watch_events(beyond).await.map(drop), Code::OutOfRange, "POSITION_NOT_REACHED");
    let unknown = WatchEventsRequest { parent: "organizations/nobody".to_owned(), ..from_the_first() };
    assert_error(service.audit().watch_events(unknown).await.map(drop), Code::NotFound, "NOT_FOUND");
    let erase = EraseUserRequest {
        parent: "organizations/nobody".to_owned(),
        user_email: "x".to_owned(),
        ..Default::default()
    };
    assert_error(service.audit().erase_user(erase).await, Code::NotFound, "NOT_FOUND");
    let mut events = service.audit().watch_events(from_the_first()).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    assert_eq!(first.record.unwrap().sequence, 1);
    let ended = tokio::spawn(async move {
        loop {
            match events.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended as if it were complete"),
                Err(status) => return status,
            }
        }
    });
    service.stop().await;
    assert_error::<()>(Err(ended.await.unwrap()), Code::Unavailable, "SHUTTING_DOWN");
}
