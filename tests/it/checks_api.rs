//! Many Checks in one call: batches and streams.
//!
//! Invariant: answers have the order of the requests, and every one of them is on the record.
//! Not here: what is decided (`decisions`).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{
    Action, AuditType, BatchCheckRequest, CheckRequest, ConnectionType, Decision, ListAuditRecordsRequest,
    ListSessionsRequest, Reason, SessionState,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{Service, assert_error, fields};

const DEFAULT: &str = "organizations/default";

fn request(ip: &str, connection_type: ConnectionType) -> CheckRequest {
    CheckRequest {
        ip: ip.to_owned(),
        connection_type: connection_type.into(),
        endpoint: DEFAULT.to_owned(),
        request_id: format!("of {ip}"),
        ..CheckRequest::default()
    }
}

/// Checks by turns denied, allowed as shells and allowed as previews.
fn mixed(count: u32) -> Vec<CheckRequest> {
    let one = |number: u32| match number % 3 {
        0 => request(&format!("192.0.2.{}", number % 250), ConnectionType::Shell),
        1 => request(&format!("10.0.{}.1", number % 250), ConnectionType::Shell),
        _ => request(&format!("10.1.{}.1", number % 250), ConnectionType::Preview),
    };
    (0..count).map(one).collect()
}

/// The request ids of the decisions on record, newest first, once there are so many.
async fn recorded(service: &Service, count: usize) -> Vec<String> {
    for _ in 0..300 {
        let list = ListAuditRecordsRequest {
            parent: DEFAULT.to_owned(),
            types: vec![AuditType::Decision.into()],
            page_size: 1_000,
            ..ListAuditRecordsRequest::default()
        };
        let records = service.audit().list_audit_records(list).await.unwrap().into_inner().audit_records;
        let ids = records.into_iter().filter_map(|record| match record.content {
            Some(portcullis::proto::v1::audit_record::Content::Decision(decision)) => Some(decision.request_id),
            _ => None,
        });
        let ids: Vec<String> = ids.collect();
        if ids.len() >= count {
            return ids;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{count} decisions do not come on the record");
}

fn check_answers(answers: &[portcullis::proto::v1::CheckResponse]) {
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.error, None);
        let expected = if number % 3 == 0 { Decision::Deny } else { Decision::Allow };
        assert_eq!(answer.decision(), expected, "{number}: {answer:?}");
        assert_eq!((answer.revision, answer.session.is_empty()), (2, expected == Decision::Deny));
    }
}

#[tokio::test]
async fn a_batch_is_answered_in_order_and_all_of_it_is_on_the_record() {
    let service = Service::start().await;
    service.add_rule("shut", Action::Deny, "192.0.2.0/24").await;
    let mut requests = mixed(300);
    requests[7].endpoint = "organizations/nobody".to_owned();
    let answers = service.decisions().batch_check(BatchCheckRequest { requests: requests.clone() }).await.unwrap();
    let mut answers = answers.into_inner().responses;
    assert_eq!((answers.len(), answers[7].reason()), (300, Reason::UnknownEndpoint));
    answers[7] = answers[1].clone();
    check_answers(&answers);
    let ids = recorded(&service, 299).await;
    let expected = requests.iter().enumerate().filter(|(number, _)| *number != 7).map(|(_, of)| &of.request_id);
    assert!(ids.iter().rev().eq(expected), "in the order of the requests");
    let none = service.decisions().batch_check(BatchCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(none.responses.len(), 0);
    service.stop().await;
}

#[tokio::test]
async fn a_batch_that_cannot_be_decided_whole_is_not_decided_at_all() {
    let service = Service::start().await;
    let mut requests = mixed(10);
    requests[3].ip = "x".to_owned();
    requests[9].connection_type = 0;
    let status = service.decisions().batch_check(BatchCheckRequest { requests }).await;
    let status = assert_error(status, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["requests[3].ip", "requests[9].connection_type"]);
    let mut requests = mixed(10);
    requests[5].min_revision = 9;
    let status = service.decisions().batch_check(BatchCheckRequest { requests }).await;
    let status = assert_error(status, Code::Unavailable, "REVISION_NOT_REACHED");
    assert!(status.message().starts_with("requests[5]: "), "it is told which: {status:?}");
    let status = service.decisions().batch_check(BatchCheckRequest { requests: mixed(10_001) }).await;
    assert_error(status, Code::ResourceExhausted, "LIMIT_REACHED");
    let endpoint = format!("{DEFAULT}/projects/{0}/workspaces/{0}/endpoints/{0}", "x".repeat(63));
    let long = mixed(10_000).into_iter().map(|of| CheckRequest { endpoint: endpoint.clone(), ..of }).collect();
    let status = service.decisions().batch_check(BatchCheckRequest { requests: long }).await;
    assert_error(status, Code::ResourceExhausted, "ANSWER_TOO_LARGE");
    // Nothing of all this is on the record, and nobody has a session.
    let list = ListSessionsRequest { parent: DEFAULT.to_owned(), ..ListSessionsRequest::default() };
    assert_eq!(service.audit().list_sessions(list).await.unwrap().into_inner().sessions, []);
    service.check("192.0.2.1", DEFAULT).await;
    assert_eq!(recorded(&service, 1).await, [""]);
    let largest = service.decisions().batch_check(BatchCheckRequest { requests: mixed(10_000) }).await.unwrap();
    assert_eq!(largest.into_inner().responses.len(), 10_000);
    service.stop().await;
}

#[tokio::test]
async fn a_stream_is_answered_in_order_and_goes_on_behind_what_is_malformed() {
    let service = Service::start().await;
    service.add_rule("shut", Action::Deny, "192.0.2.0/24").await;
    let mut requests = mixed(900);
    requests[100].ip = "x".to_owned();
    let mut stream = service.decisions().stream_check(tokio_stream::iter(requests.clone())).await.unwrap().into_inner();
    let mut answers = Vec::new();
    while let Some(answer) = stream.message().await.unwrap() {
        answers.push(answer);
    }
    assert_eq!(answers.len(), 900);
    let error = answers[100].error.clone().unwrap();
    assert_eq!((error.code, error.details.len(), answers[100].decision), (Code::InvalidArgument as i32, 2, 0));
    answers[100] = answers[1].clone();
    check_answers(&answers);
    let ids = recorded(&service, 899).await;
    let expected = requests.iter().enumerate().filter(|(number, _)| *number != 100).map(|(_, of)| &of.request_id);
    assert!(ids.iter().rev().eq(expected), "in the order of the requests");

    // An answer comes as soon as there is one: the stream need not end for it.
    let (sender, coming) = tokio::sync::mpsc::channel(1);
    let coming = tokio_stream::wrappers::ReceiverStream::new(coming);
    let mut stream = service.decisions().stream_check(coming).await.unwrap().into_inner();
    for _ in 0..3 {
        sender.send(request("10.0.0.1", ConnectionType::Shell)).await.unwrap();
        assert_eq!(stream.message().await.unwrap().unwrap().decision(), Decision::Allow);
    }
    // The end of the service ends it with a reason, and one that never pauses too.
    let without_end = tokio_stream::iter((0..).map(|_| request("10.1.0.1", ConnectionType::Preview)));
    let mut busy = service.decisions().stream_check(without_end).await.unwrap().into_inner();
    let busy = tokio::spawn(async move {
        loop {
            if let Err(status) = busy.message().await {
                return status;
            }
        }
    });
    let stopping = tokio::spawn(service.stop());
    assert_error(stream.message().await, Code::Unavailable, "SHUTTING_DOWN");
    assert_error(Err::<(), _>(busy.await.unwrap()), Code::Unavailable, "SHUTTING_DOWN");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_answers_nobody_reads_holds_no_other_check_up() {
    const STREAMED: usize = 1_000;
    let temporary = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(temporary.path().join("data"));
    // Whoever is held up waits as long.
    config.record.audit_deadline = Duration::from_mins(1);
    let service = Service::with_config(config).await;
    let endpoint = Channel::from_shared(format!("http://{}", service.address())).unwrap();
    let (mut streams, mut channels, mut senders) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..8 {
        let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
        // One comes while the one before it waits for the disk, until no window takes more answers.
        senders.push(std::thread::spawn(move || {
            for number in 0..STREAMED {
                sender.send(request(&format!("10.0.{}.1", number % 250), ConnectionType::Shell)).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        }));
        let narrow = endpoint.clone().initial_stream_window_size(65_535);
        let mut client = DecisionServiceClient::new(narrow.connect().await.unwrap());
        let requests = tokio_stream::wrappers::UnboundedReceiverStream::new(requests);
        streams.push(client.stream_check(requests).await.unwrap().into_inner());
    }
    // A connection goes to the thread that has the fewest, so both kinds come to all of them.
    for _ in 0..4 {
        channels.push(endpoint.connect().await.unwrap());
    }
    // Some of them stop for want of room while these go on.
    let checks = async {
        let mut number = 0;
        while number < 500 || senders.iter().any(|sender| !sender.is_finished()) {
            for channel in &channels {
                let asked = request(&format!("10.1.{}.1", number % 250), ConnectionType::Shell);
                DecisionServiceClient::new(channel.clone()).check(asked).await.unwrap();
            }
            number += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(50), checks).await.unwrap();
    // And their answers are still there, all of them.
    for mut stream in streams {
        let mut count = 0;
        while stream.message().await.unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, STREAMED);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_that_a_change_denies_stays_open_though_a_batch_was_under_way() {
    let service = Service::start().await;
    // Until rules have come while batches were under way often enough: a session was opened, and the rule denies it.
    let (mut round, mut opened) = (0_u32, 0);
    while round < 20 || opened < 100 {
        assert!(round < 250, "only {opened} sessions were opened before the rule that denies them");
        let requests = (0..250).map(|host| request(&format!("10.{round}.0.{host}"), ConnectionType::Shell)).collect();
        let mut decisions = service.decisions();
        let batch = tokio::spawn(async move { decisions.batch_check(BatchCheckRequest { requests }).await.unwrap() });
        tokio::time::sleep(Duration::from_micros(200 * u64::from(round % 20))).await;
        service.add_rule(&format!("r{round}"), Action::Deny, &format!("10.{round}.0.0/16")).await;
        let answers = batch.await.unwrap().into_inner().responses;
        opened += answers.iter().filter(|answer| answer.decision() == Decision::Allow).count();
        round += 1;
    }
    for _ in 0..300 {
        let (mut open, mut page_token) = (0, String::new());
        loop {
            let list = ListSessionsRequest {
                parent: DEFAULT.to_owned(),
                state: SessionState::Active.into(),
                page_size: 1_000,
                page_token,
                ..ListSessionsRequest::default()
            };
            let page = service.audit().list_sessions(list).await.unwrap().into_inner();
            open += page.sessions.iter().filter(|session| session.revoke_time.is_none()).count();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        if open == 0 {
            service.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("sessions that every rule denies are open and not revoked");
}
