//! The direct way of Checks against the service behind it: the same calls, byte for byte.
//!
//! Guards against: a Check that is answered otherwise because of the way it took, be it by one header or one trailer.
//! A content type with a parameter, which tonic does not look at, is what sends a call the other way.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis::api::direct::DirectCheck;
use portcullis::config::Config;
use portcullis::proto::v1::{AccessMode, Action, CheckRequest, CheckResponse, ConnectionType, Decision};
use prost::Message;
use tokio_stream::StreamExt;

use crate::harness::{Service, access, allow_list};

const PATH: &str = "/portcullis.v1.DecisionService/Check";
const DIRECT: &str = "application/grpc";
const BEHIND: &str = "application/grpc; way=behind";

/// One call, in all that a client may vary.
#[derive(Clone)]
struct Call {
    what: &'static str,
    body: Vec<u8>,
    /// Bytes of each DATA frame; 0: all in one.
    piece_bytes: usize,
    headers: Vec<(&'static str, &'static str)>,
    trailers: bool,
}

/// What came back.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    headers: Vec<(String, HeaderValue)>,
    message: Option<CheckResponse>,
    /// Where it is no message.
    body: Vec<u8>,
    trailers: Vec<(String, HeaderValue)>,
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, message].concat()
}

fn call(what: &'static str, body: Vec<u8>) -> Call {
    Call { what, body, piece_bytes: 0, headers: Vec::new(), trailers: false }
}

fn check(what: &'static str, change: impl FnOnce(&mut CheckRequest)) -> Call {
    let mut request = CheckRequest {
        ip: "198.51.100.7".to_owned(),
        connection_type: ConnectionType::Preview.into(),
        endpoint: "organizations/default/projects/web/workspaces/ada/endpoints/main".to_owned(),
        user_email: "ada@example.com".to_owned(),
        ..CheckRequest::default()
    };
    change(&mut request);
    call(what, framed(0, &request.encode_to_vec()))
}

impl Call {
    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn request(&self, content_type: &'static str, authority: &str) -> Request<BoxBody<Bytes, std::io::Error>> {
        let size = if self.piece_bytes == 0 { self.body.len().max(1) } else { self.piece_bytes };
        let pieces = self.body.chunks(size).map(|piece| Frame::data(Bytes::copy_from_slice(piece)));
        let mut frames: Vec<Result<Frame<Bytes>, std::io::Error>> = pieces.map(Ok).collect();
        if self.trailers {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-after", HeaderValue::from_static("all"));
            frames.push(Ok(Frame::trailers(trailers)));
        }
        let body = if frames.len() == 1 && !self.trailers {
            Full::new(Bytes::copy_from_slice(&self.body)).map_err(|never| match never {}).boxed()
        } else {
            StreamBody::new(tokio_stream::iter(frames)).boxed()
        };
        let mut request = Request::post(format!("http://{authority}{PATH}")).header(CONTENT_TYPE, content_type);
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        request.body(body).unwrap()
    }
}

async fn send(
    client: &mut SendRequest<BoxBody<Bytes, std::io::Error>>,
    request: Request<BoxBody<Bytes, std::io::Error>>,
) -> Seen {
    client.ready().await.unwrap();
    let response = client.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let body = body.to_bytes();
    let message = body.get(5..).filter(|message| !message.is_empty()).map(|bytes| {
        assert_eq!(framed(0, bytes), body, "one whole message");
        let mut message = CheckResponse::decode(bytes).unwrap();
        assert_eq!(message.encode_to_vec(), bytes, "fields ascending, defaults left out");
        // The two calls are two attempts.
        assert!(!message.decision_id.is_empty());
        message.decision_id.clear();
        assert!(message.sequence > 0, "each has a record of its own");
        message.sequence = 0;
        assert_eq!(message.session.is_empty(), message.decision() == Decision::Deny);
        message.session.clear();
        message
    });
    let body = if message.is_some() { Vec::new() } else { body.to_vec() };
    Seen { status: head.status.as_u16(), headers: sorted(&head.headers), message, body, trailers: sorted(&trailers) }
}

fn sorted(headers: &HeaderMap) -> Vec<(String, HeaderValue)> {
    let mut sorted: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    sorted.sort();
    sorted
}

async fn service(change: impl FnOnce(&mut Config)) -> (Service, tempfile::TempDir) {
    let temporary = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(temporary.path().join("data"));
    config.request_bytes_max = 4_096;
    change(&mut config);
    (Service::with_config(config).await, temporary)
}

async fn connect(service: &Service) -> SendRequest<BoxBody<Bytes, std::io::Error>> {
    let stream = tokio::net::TcpStream::connect(service.address()).await.unwrap();
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Sends every call both ways and compares.
async fn compare(service: &Service, calls: &[Call]) -> Vec<Seen> {
    let authority = service.address().to_string();
    let mut client = connect(service).await;
    let mut answers = Vec::new();
    for call in calls {
        let (direct, behind) = (call.request(DIRECT, &authority), call.request(BEHIND, &authority));
        let encoded = call.headers.iter().any(|(name, value)| *name == "grpc-encoding" && *value != "identity");
        assert_eq!(DirectCheck::takes(&direct), !encoded, "{}", call.what);
        assert!(!DirectCheck::takes(&behind), "{}", call.what);
        let (direct, behind) = (send(&mut client, direct).await, send(&mut client, behind).await);
        assert_eq!(direct, behind, "{}", call.what);
        answers.push(direct);
    }
    answers
}

fn decisions() -> Vec<Call> {
    vec![
        check("an allowed preview", |_| {}),
        check("an allowed shell, waited for", |request| {
            request.connection_type = ConnectionType::Shell.into();
            request.session_lease = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        }),
        check("nobody in particular", |request| request.user_email.clear()),
        check("a rule allows", |request| request.ip = "192.0.2.1".into()),
        check("a rule denies", |request| request.ip = "10.1.2.3".into()),
        check("the same, mapped", |request| request.ip = "::ffff:10.1.2.3".into()),
        check("IPv6", |request| request.ip = "2001:db8::7".into()),
        check("an allowlist refuses", |request| {
            request.endpoint = "organizations/default/projects/closed/workspaces/w/endpoints/e".into();
        }),
        check("an unknown project", |request| request.endpoint = "organizations/default/projects/x".into()),
        check("an unknown organization", |request| request.endpoint = "organizations/none".into()),
        check("an organization", |request| request.endpoint = "organizations/default".into()),
        check("with an identifier", |request| request.request_id = "r-1".into()),
        check("at the newest revision", |request| request.min_revision = 2),
        check("metadata of the client's", |_| {}).header("x-caller", "portal").header("x-trace-bin", "AAEC"),
        check("a deadline that is far", |_| {}).header("grpc-timeout", "10S"),
        check("a deadline that cannot be read", |_| {}).header("grpc-timeout", "soon"),
        check("an encoding that is none", |_| {}).header("grpc-encoding", "identity"),
        check("encodings that the client reads", |_| {}).header("grpc-accept-encoding", "gzip, identity"),
        Call { piece_bytes: 3, ..check("a message in pieces", |_| {}) },
        Call { trailers: true, ..check("trailers of the client's", |_| {}) },
    ]
}

fn refusals() -> Vec<Call> {
    let whole = check("", |_| {}).body;
    let with_unknown_field = [&[0x82, 0x7D, 0x01, 0x78][..], whole.get(5..).unwrap()].concat();
    vec![
        check("everything wrong at once", |request| {
            request.ip = "10.0.0.1/8".into();
            request.connection_type = 9;
            request.endpoint = "endpoint".into();
            request.user_email = "a".repeat(400);
            request.min_revision = -1;
        }),
        check("a lease of a preview", |request| {
            request.session_lease = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        }),
        check("a revision that is not reached", |request| request.min_revision = 9_999),
        check("a revision of the cluster that is not reached", |request| request.min_cluster_revision = 9_999),
        call("nothing", Vec::new()),
        call("a message without fields", framed(0, &[])),
        call("no message", framed(0, &[0xFF; 20])),
        call("text that is no UTF-8", framed(0, &[0x0A, 0x02, 0xC3, 0x28])),
        call("a field of another type", framed(0, &[0x08, 0x01])),
        call("a flag that is none", framed(7, whole.get(5..).unwrap())),
        call("a flag of compression without one", framed(1, whole.get(5..).unwrap())),
        call("less than is announced", whole.get(..whole.len() - 1).unwrap().to_vec()),
        call("a piece of a prefix", vec![0, 0, 0]),
        call("two messages", [&whole[..], &whole].concat()),
        call("a message and a piece of another", [&whole[..], &[0, 0]].concat()),
        call("a field that is unknown", framed(0, &with_unknown_field)),
        call("a message beyond the limit", framed(0, &vec![0; 4_097])),
        call("a message that could be read and is beyond the limit", {
            framed(0, &[&[0x0A, 0xFE, 0x1F][..], &[b'1'; 4_094]].concat())
        }),
        call("a message at the limit", framed(0, &[&[0x0A, 0xFD, 0x1F][..], &[b'1'; 4_093]].concat())),
        check("a compression that is unknown", |_| {}).header("grpc-encoding", "br"),
        check("a compression that is not supported", |_| {}).header("grpc-encoding", "gzip"),
    ]
}

#[tokio::test]
async fn a_check_is_answered_alike_on_both_ways_to_the_last_header_byte_and_trailer() {
    let (service, _temporary) = service(|_| {}).await;
    service.add_rule("inside", Action::Deny, "10.0.0.0/8").await;
    service.add_rule("office", Action::Allow, "192.0.2.0/24").await;
    service.add_node("organizations/default", "web", Some(access(AccessMode::AllowAll))).await;
    service.add_node("organizations/default", "closed", Some(allow_list(&["203.0.113.0/24"]))).await;

    let decided = compare(&service, &decisions()).await;
    assert!(decided.iter().all(|seen| seen.message.is_some()), "each is a decision");
    let denied = |seen: &&Seen| seen.message.as_ref().is_some_and(|message| message.decision() == Decision::Deny);
    assert_eq!(decided.iter().filter(denied).count(), 5);

    let refused = compare(&service, &refusals()).await;
    let failed = |seen: &&Seen| seen.headers.iter().any(|(name, value)| name == "grpc-status" && value != "0");
    // The field that is unknown is ignored, as ever; of two messages the first is taken.
    assert!(refused.iter().filter(failed).count() >= refused.len() - 3);
    service.stop().await;
}

#[tokio::test]
async fn a_check_that_is_not_done_in_time_ends_alike_on_both_ways() {
    let (service, _temporary) = service(|_| {}).await;
    let authority = service.address().to_string();
    let mut client = connect(&service).await;
    // One that never comes to its end.
    let mut late = async |content_type| {
        let pieces = tokio_stream::iter([Ok(Frame::data(Bytes::from_static(&[0, 0])))]);
        let body = StreamBody::new(pieces.chain(tokio_stream::pending())).boxed();
        let request = Request::post(format!("http://{authority}{PATH}"))
            .header(CONTENT_TYPE, content_type)
            .header("grpc-timeout", "50m")
            .body(body);
        send(&mut client, request.unwrap()).await
    };
    let (direct, behind) = (late(DIRECT).await, late(BEHIND).await);
    assert_eq!(direct, behind);
    let status = direct.headers.iter().find(|(name, _)| name == "grpc-status").map(|(_, value)| value.clone());
    assert_eq!(status.unwrap(), "4");
    service.stop().await;
}

#[tokio::test]
async fn a_check_beyond_the_limit_is_refused_alike_on_both_ways() {
    let (service, _temporary) = service(|config| config.requests_in_flight_max = 1).await;
    let authority = service.address().to_string();
    // A client that never ends its request holds the only place.
    let mut holder = connect(&service).await;
    let never = || {
        let body = StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, std::io::Error>>()).boxed();
        Request::post(format!("http://{authority}{PATH}")).header(CONTENT_TYPE, DIRECT).body(body).unwrap()
    };
    holder.ready().await.unwrap();
    let mut held = tokio::spawn(holder.send_request(never()));
    let call = check("one too many", |_| {});
    let mut client = connect(&service).await;
    let refused = loop {
        // It is refused itself where it comes while the other has the place.
        if held.is_finished() {
            holder.ready().await.unwrap();
            held = tokio::spawn(holder.send_request(never()));
        }
        let seen = send(&mut client, call.request(DIRECT, &authority)).await;
        if seen.message.is_none() {
            break seen;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused, send(&mut client, call.request(BEHIND, &authority)).await);
    held.abort();
    service.stop().await;
}
