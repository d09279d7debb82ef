//! A Check on the direct way while it waits for the disk: it is decided once, and nothing of it is lost or left behind.
//!
//! Guards against: a session that stays open though its answer never left; a call that waits and is not counted among those
//! under way; a client's deadline that is not kept while the disk does not answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use portcullis::api::Api;
use portcullis::api::admission::Admission;
use portcullis::api::direct::{AnswerBody, DirectCheck, Progress, WaitingCheck};
use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{Content, RecordType};
use portcullis::audit::session::EndReason;
use portcullis::engine::audit::{AuditOptions, Durability};
use portcullis::engine::{Engine, Options};
use portcullis::policy::limits::Limits;
use portcullis::proto::v1::{CheckRequest, CheckResponse, ConnectionType, Decision};
use prost::Message;

use crate::audit_disk::Switches;
use crate::audit_engine::{DEFAULT, key, open_on, settle};

/// The direct way, with room for one call, before an engine on a disk that can be made to hang.
struct Way {
    direct: DirectCheck,
    engine: Arc<Engine>,
    disk: Switches,
    _directory: tempfile::TempDir,
}

impl Way {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("audit")).unwrap();
        std::fs::create_dir_all(directory.path().join("sessions")).unwrap();
        let audit = AuditOptions {
            shell: Durability::Sync,
            preview: Durability::Async,
            deadline: Duration::from_mins(1),
            ..AuditOptions::default()
        };
        let options = Options { audit, ..Options::default() };
        let disk = Switches::default();
        let engine = Arc::new(open_on(Arc::new(disk.clone()), directory.path(), key(1), options));
        let (_, draining) = tokio::sync::watch::channel(false);
        let api = Api::new(Limits::default(), 1, draining);
        api.start(Arc::clone(&engine));
        let direct = DirectCheck::new(api, Admission::new(1, Duration::from_mins(1)), 4_096);
        Self { direct, engine, disk, _directory: directory }
    }

    fn begin(&self, connection_type: ConnectionType, timeout: &'static str) -> Progress<Full<Bytes>> {
        let request = CheckRequest {
            ip: "192.0.2.1".to_owned(),
            connection_type: connection_type.into(),
            endpoint: DEFAULT.to_owned(),
            user_email: "ada@example.com".to_owned(),
            ..CheckRequest::default()
        };
        let message = request.encode_to_vec();
        let body = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat();
        let call = Request::post("http://127.0.0.1/portcullis.v1.DecisionService/Check")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", timeout)
            .body(Full::new(Bytes::from(body)));
        self.direct.begin(call.unwrap())
    }

    fn waiting(&self, timeout: &'static str) -> WaitingCheck {
        match self.begin(ConnectionType::Shell, timeout) {
            Progress::Waiting(check) => check,
            Progress::Answered(answer) => panic!("answered before its record is on the disk: {answer:?}"),
            Progress::Unread(_) => panic!("not read"),
        }
    }

    /// Decides now; the future waits for the answer.
    fn answer(&self, timeout: &'static str) -> impl Future<Output = Response<AnswerBody>> + use<> {
        let (direct, check) = (self.direct.clone(), self.waiting(timeout));
        async move { direct.answer_durable(check).await }
    }

    fn hang(&self, hangs: bool) {
        self.disk.hangs.store(hangs, Ordering::SeqCst);
    }

    /// The reason of every session's end, once all records are on the disk.
    async fn ended(&self) -> Vec<EndReason> {
        settle(&self.engine).await;
        let filter = RecordFilter { types: vec![RecordType::SessionEnded], ..RecordFilter::default() };
        let records = self.engine.audit().list(&filter, None, 10).unwrap().records;
        let reason = |content| match content {
            Content::SessionEnded(session) => session.end.unwrap().reason,
            other => panic!("{other:?}"),
        };
        records.into_iter().map(|record| reason(record.entry.content)).collect()
    }

    fn decisions(&self) -> u64 {
        let filter = RecordFilter { types: vec![RecordType::Decision], ..RecordFilter::default() };
        self.engine.audit().count(&filter).unwrap()
    }
}

fn status(answer: &Response<AnswerBody>) -> &str {
    answer.headers().get("grpc-status").map_or("0", |status| status.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_answered_when_its_record_is_on_the_disk_and_counts_as_under_way_until_then() {
    let way = Way::new();
    way.hang(true);
    let waiting = tokio::spawn(way.answer("1M"));
    for connection_type in [ConnectionType::Shell, ConnectionType::Preview] {
        let Progress::Answered(refused) = way.begin(connection_type, "1M") else { panic!("let in") };
        assert_eq!(status(&refused), "14", "there is room for one call");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    way.hang(false);
    let answer = waiting.await.unwrap();
    assert_eq!(status(&answer), "0");
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap().get("grpc-status").unwrap(), "0");
    let message = CheckResponse::decode(body.to_bytes().slice(5..)).unwrap();
    assert_eq!((message.decision(), message.session.is_empty()), (Decision::Allow, false));
    drop(way.answer("1M").await);
    assert_eq!((way.ended().await, way.decisions()), (Vec::new(), 2), "each was decided and recorded once");
    assert_eq!(way.engine.sessions().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_at_the_clients_deadline_and_its_session_is_abandoned() {
    let way = Way::new();
    way.hang(true);
    let answer = way.answer("50m").await;
    assert_eq!(status(&answer), "4");
    way.hang(false);
    assert_eq!((way.ended().await, way.decisions()), (vec![EndReason::Abandoned], 1));
    assert_eq!(way.engine.sessions().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_its_client_goes_away_its_session_is_abandoned_and_another_call_is_let_in() {
    let way = Way::new();
    way.hang(true);
    // Gone before it waits, and while it waits.
    drop(way.waiting("1M"));
    let mut waiting = Box::pin(way.answer("1M"));
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err());
    drop(waiting);
    let waiting = tokio::spawn(way.answer("1M"));
    way.hang(false);
    assert_eq!(status(&waiting.await.unwrap()), "0");
    assert_eq!((way.ended().await, way.decisions()), (vec![EndReason::Abandoned; 2], 3));
    assert_eq!(way.engine.sessions().len(), 1);
}
