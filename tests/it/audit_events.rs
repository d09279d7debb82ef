//! What a PEP can rely on beside the stream of events: a message every few seconds, and an order between the answer of its
//! Check and the events.
//!
//! Guards against: a quiet stream that looks dead because others are busy, and a session that stays open because the event
//! of its revocation came before the answer that opened it.
//! Not here: that the stream has every record once (`audit_watch`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis::api::Api;
use portcullis::policy::limits::Limits;
use portcullis::proto::v1::audit_record::Content;
use portcullis::proto::v1::audit_service_server::AuditService;
use portcullis::proto::v1::{
    Action, AuditType, BatchCheckRequest, CheckResponse, ConnectionType, DeleteRuleRequest, ListAuditRecordsRequest,
    WatchEventsRequest, WatchEventsResponse,
};
use tokio_stream::StreamExt;

use crate::audit_api::check_of;
use crate::audit_engine::{check, key, open, small_units};
use crate::clock::{PATIENCE, until};
use crate::harness::Service;

const DEFAULT: &str = "organizations/default";

/// The hazard: each record of somebody else began the pause before a checkpoint anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_subscriber_beside_a_busy_neighbour_hears_from_the_service() {
    const INTERVAL: Duration = Duration::from_secs(1);
    let directory = tempfile::tempdir().unwrap();
    let mut options = small_units();
    options.audit.heartbeat_interval = INTERVAL;
    let engine = Arc::new(open(directory.path(), key(1), options));
    let (_drain, draining) = tokio::sync::watch::channel(false);
    let api = Api::new(Limits::default(), 1, draining);
    api.start(Arc::clone(&engine));
    let request = WatchEventsRequest {
        parent: "cluster".to_owned(),
        types: vec![portcullis::proto::v1::AuditType::SessionRevoked.into()],
        after_sequence: Some(0),
        ..WatchEventsRequest::default()
    };
    let mut events = api.watch_events(tonic::Request::new(request)).await.unwrap().into_inner();

    // A record comes in every pause, as from a portal at work.
    let stop = Arc::new(AtomicBool::new(false));
    let neighbour = tokio::spawn({
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                check(
                    &engine,
                    "ada@example.com",
                    "192.0.2.1",
                    portcullis::policy::rule::ConnectionType::Preview,
                    DEFAULT,
                )
                .await
                .unwrap();
                tokio::time::sleep(INTERVAL / 100).await;
            }
        }
    });
    let mut through = Vec::new();
    while through.len() < 4 {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("a checkpoint never comes");
        let WatchEventsResponse { record, through_sequence, .. } = event.unwrap().unwrap();
        assert_eq!(record, None, "nothing of the neighbour's is for this subscriber");
        through.push(through_sequence);
    }
    stop.store(true, Ordering::Relaxed);
    neighbour.await.unwrap();
    assert!(through.is_sorted() && through.first() < through.last(), "they go on with the log: {through:?}");
    drop(events);
    drop(api);
}

/// A PEP that follows the contract at `WatchEvents`: it keeps the names of revoked sessions that it does not know, for as
/// long as a Check of its own may be under way.
#[derive(Default)]
struct Pep {
    open: HashSet<String>,
    /// Revoked sessions for which no answer has come, with the sequence of the revocation.
    revoked: HashMap<String, i64>,
    /// Revocations that came before the answer.
    early: usize,
}

impl Pep {
    fn answered(&mut self, answer: &CheckResponse) {
        if answer.session.is_empty() {
            return;
        }
        match self.revoked.remove(&answer.session) {
            Some(sequence) => {
                assert!(sequence > answer.sequence, "revoked at {sequence}, opened at {}", answer.sequence);
                self.early += 1;
            }
            None => assert!(self.open.insert(answer.session.clone())),
        }
    }

    fn heard(&mut self, event: &WatchEventsResponse) {
        let Some(record) = &event.record else { return };
        let Some(Content::Session(session)) = &record.content else { panic!("{record:?}") };
        if !self.open.remove(&session.name) {
            self.revoked.insert(session.name.clone(), record.sequence);
        }
    }
}

/// Checks and revocations meet, and the PEP hears of them in either order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_revoked_session_stays_open_at_a_pep_whichever_comes_first() {
    let service = Service::start().await;
    let request = WatchEventsRequest {
        parent: "cluster".to_owned(),
        types: vec![AuditType::SessionRevoked.into()],
        after_sequence: Some(0),
        ..WatchEventsRequest::default()
    };
    let mut events = service.audit().watch_events(request).await.unwrap().into_inner();
    let mut peps = [Pep::default(), Pep::default()];
    let (mut answers, mut revocations) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let requests = (0..8).map(|number| {
            let ip = format!("198.51.100.{}", number + 1);
            check_of(&format!("user-{round}@example.com"), &ip, ConnectionType::Shell, DEFAULT)
        });
        let mut decisions = service.decisions();
        let asking = decisions.batch_check(BatchCheckRequest { requests: requests.collect() });
        let closing = service.add_rule("closed", Action::Deny, "198.51.100.0/24");
        let (answered, _) = tokio::join!(asking, closing);
        answers.extend(answered.unwrap().into_inner().responses);
        let allowed = answers.iter().filter(|answer| !answer.session.is_empty()).count();
        while revocations.len() < allowed {
            let event = tokio::time::timeout(PATIENCE, events.message()).await.expect("a revocation never comes");
            revocations.extend(event.unwrap().filter(|event| event.record.is_some()));
        }
        let name = format!("{DEFAULT}/rules/closed");
        service.firewall().delete_rule(DeleteRuleRequest { name, ..Default::default() }).await.unwrap();
    }
    let allowed = revocations.len();
    assert!(allowed > 0, "nothing was let in: nothing is shown");
    let [answers_first, events_first] = &mut peps;
    for answer in &answers {
        answers_first.answered(answer);
    }
    for event in &revocations {
        answers_first.heard(event);
        events_first.heard(event);
    }
    for answer in &answers {
        events_first.answered(answer);
    }
    assert_eq!((answers_first.early, events_first.early), (0, allowed));
    for pep in peps {
        assert_eq!((pep.open.len(), pep.revoked.len()), (0, 0), "revoked, and nothing else is remembered");
    }
    service.stop().await;
}

/// Every way to ask names the record, in the order of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_names_its_record() {
    let service = Service::start().await;
    service.add_rule("bad", Action::Deny, "203.0.113.0/24").await;
    let request = |number: usize| {
        // Denied ones, new sessions of both types, and previews that fold.
        let ip = if number.is_multiple_of(3) { "203.0.113.9" } else { "192.0.2.1" };
        let connection_type = if number.is_multiple_of(2) { ConnectionType::Shell } else { ConnectionType::Preview };
        check_of("ada@example.com", ip, connection_type, DEFAULT)
    };
    let mut answers = Vec::new();
    for number in 0..12 {
        answers.push(service.decisions().check(request(number)).await.unwrap().into_inner());
    }
    let requests = (0..12).map(request).collect();
    let batch = service.decisions().batch_check(BatchCheckRequest { requests }).await.unwrap().into_inner();
    answers.extend(batch.responses);
    let asked: Vec<_> = (0..12).map(request).collect();
    let mut stream = service.decisions().stream_check(tokio_stream::iter(asked)).await.unwrap().into_inner();
    while let Some(answer) = stream.message().await.unwrap() {
        answers.push(answer);
    }
    assert_eq!(answers.len(), 36);
    assert!(answers.is_sorted_by_key(|answer| answer.sequence) && answers.iter().all(|answer| answer.sequence > 0));
    let records = until("every record is durable", async || {
        let list = ListAuditRecordsRequest {
            parent: DEFAULT.to_owned(),
            types: vec![AuditType::Decision.into()],
            ..ListAuditRecordsRequest::default()
        };
        let records = service.audit().list_audit_records(list).await.unwrap().into_inner().audit_records;
        (records.len() == 36).then_some(records)
    })
    .await;
    for (record, answer) in records.iter().rev().zip(&answers) {
        let Some(Content::Decision(decision)) = &record.content else { panic!("{record:?}") };
        assert_eq!((record.sequence, &decision.decision_id), (answer.sequence, &answer.decision_id));
    }
    service.stop().await;
}
