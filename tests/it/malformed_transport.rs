//! Calls that are no calls: what the transport refuses before a service sees it, as raw bytes over a real connection.
//!
//! Invariant: every such error has a code of the contract and an `ErrorInfo`, and the connection it came on goes on.
//! Not here: messages that can be decoded and are wrong (`malformed_check` and the others).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::proto::v1::{CheckRequest, ConnectionType, ListSessionsRequest, ReplaceRangesRequest, SessionState};
use prost::Message;
use prost::bytes::{Buf, BufMut};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::harness::{Service, assert_error};
use crate::refusals::{GROUP, ORGANIZATION, Table};

/// Messages as they are on the wire.
#[derive(Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining()).to_vec()))
    }
}

const CHECK: &str = "/portcullis.v1.DecisionService/Check";

/// Sends a message to a method, both as they are.
async fn send(
    channel: &Channel,
    method: &'static str,
    message: Vec<u8>,
    header: Option<(&'static str, &'static str)>,
) -> Result<Response<Vec<u8>>, Status> {
    let mut request = Request::new(message);
    if let Some((name, value)) = header {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    client.unary(request, method.parse().unwrap(), Bytes).await
}

fn valid_check() -> Vec<u8> {
    let request = CheckRequest {
        ip: "203.0.113.7".to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: ORGANIZATION.to_owned(),
        ..CheckRequest::default()
    };
    request.encode_to_vec()
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_as_malformed() {
    let mut t = Table::start().await;
    let cases: [(&str, &[u8]); 8] = [
        ("a length beyond the end", &[0x0a, 0x7f, b'1']),
        ("an overlong varint", &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("an unfinished varint", &[0x10, 0x80]),
        ("another wire type", &[0x08, 0x01]),
        ("no UTF-8", &[0x0a, 0x02, 0xc3, 0x28]),
        ("field number zero", &[0x02, 0x01, b'1']),
        ("wire type seven", &[0x0f]),
        ("an end without a group", &[0x0c]),
    ];
    for (case, bytes) in cases {
        for method in [CHECK, "/portcullis.v1.FirewallService/GetRule", "/portcullis.v1.HierarchyService/GetNode"] {
            // GetRule and GetNode have fewer fields, so some of the bytes are unknown fields there.
            if method != CHECK && bytes.first() == Some(&0x10) && bytes.len() > 2 {
                continue;
            }
            let answer = send(&t.channel, method, bytes.to_vec(), None).await;
            t.refused(case, answer, Code::InvalidArgument, "MALFORMED_MESSAGE", &[]).await;
        }
    }
    // Fields that nobody knows are from a newer client and are passed over.
    let newer = [valid_check(), vec![0xfa, 0x3f, 0x01, 0x00]].concat();
    send(&t.channel, CHECK, newer, None).await.unwrap();
    // A broken message in a stream breaks the stream, and nothing is replaced.
    let first = ReplaceRangesRequest { name: GROUP.to_owned(), ranges: vec!["any".to_owned()], ..Default::default() };
    let mut client = Grpc::new(t.channel.clone());
    client.ready().await.unwrap();
    let stream = tokio_stream::iter([first.encode_to_vec(), vec![0x0a, 0x7f]]);
    let path = "/portcullis.v1.FirewallService/ReplaceRanges".parse().unwrap();
    let answer = client.client_streaming(Request::new(stream), path, Bytes).await;
    t.refused("in a stream", answer, Code::InvalidArgument, "MALFORMED_MESSAGE", &[]).await;
    t.finish(20).await;
}

#[tokio::test]
async fn bytes_that_are_no_message_end_a_stream_and_leave_no_session_without_an_answer() {
    const STREAM: &str = "/portcullis.v1.DecisionService/StreamCheck";
    let service = Service::start().await;
    let preview = CheckRequest {
        ip: "203.0.113.7".to_owned(),
        connection_type: ConnectionType::Preview.into(),
        endpoint: ORGANIZATION.to_owned(),
        ..CheckRequest::default()
    };
    let (mut shells, mut previews) = (0, 0);
    for _ in 0..20 {
        // One that waits for the disk, one behind it that waits for nothing, and nonsense.
        let messages = [valid_check(), preview.encode_to_vec(), vec![0xFF; 3]];
        let mut client = Grpc::new(service.channel.clone());
        client.ready().await.unwrap();
        let answers = client.streaming(Request::new(tokio_stream::iter(messages)), STREAM.parse().unwrap(), Bytes);
        let mut answers = answers.await.unwrap().into_inner();
        let mut answered = 0;
        let end = loop {
            match answers.message().await {
                Ok(message) => assert!(message.is_some_and(|message| !message.is_empty())),
                Err(status) => break status,
            }
            answered += 1;
        };
        assert!(answered <= 2);
        shells += usize::from(answered >= 1);
        previews += usize::from(answered == 2);
        assert_error(Err::<(), _>(end), Code::InvalidArgument, "MALFORMED_MESSAGE");
    }
    let list = ListSessionsRequest { parent: ORGANIZATION.to_owned(), page_size: 1_000, ..Default::default() };
    let sessions = service.audit().list_sessions(list).await.unwrap().into_inner().sessions;
    let active = sessions.iter().filter(|session| session.state() == SessionState::Active);
    // Every shell is a session; all previews are one.
    let most = shells + previews.min(1);
    assert!(active.count() <= most, "{shells} shells and {previews} previews were answered: {sessions:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_and_one_at_the_limit_is_read() {
    let mut t = Table::start().await;
    // One field fills the message: its tag, four bytes of length, and the rest.
    let limit = 16 << 20;
    let filled = |bytes: usize| {
        let request = CheckRequest { user_email: "x".repeat(bytes - 5), ..CheckRequest::default() };
        assert_eq!(request.encoded_len(), bytes);
        request.encode_to_vec()
    };
    let answer = send(&t.channel, CHECK, filled(limit), None).await;
    t.invalid("16 MiB", answer, &["ip", "connection_type", "endpoint", "user_email"]).await;
    let answer = send(&t.channel, CHECK, filled(limit + 1), None).await;
    t.refused("16 MiB and a byte", answer, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", &[]).await;
    let mut client = Grpc::new(t.channel.clone());
    client.ready().await.unwrap();
    let first = ReplaceRangesRequest { name: GROUP.to_owned(), ranges: vec!["any".to_owned()], ..Default::default() };
    let stream = tokio_stream::iter([first.encode_to_vec(), vec![0; limit + 1]]);
    let path = "/portcullis.v1.FirewallService/ReplaceRanges".parse().unwrap();
    let answer = client.client_streaming(Request::new(stream), path, Bytes).await;
    t.refused("in a stream", answer, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", &[]).await;
    t.finish(3).await;
}

#[tokio::test]
async fn a_method_or_service_that_does_not_exist_is_unimplemented() {
    let mut t = Table::start().await;
    for method in [
        "/portcullis.v1.DecisionService/Chek",
        "/portcullis.v1.DecisionService/check",
        "/portcullis.v1.DecisionService/",
        "/portcullis.v1.FirewallService/Check",
        "/portcullis.v1.HierarchyService/Check",
        "/portcullis.v2.DecisionService/Check",
        "/portcullis.v1.AuditService/Check",
        "/portcullis.v1.AnalysisService/Check",
        "/portcullis.storage.v1.Policy/Get",
        "/grpc.health.v1.Health/Chek",
        "/",
        "/healthz",
    ] {
        let answer = send(&t.channel, method, valid_check(), None).await;
        t.refused(method, answer, Code::Unimplemented, "METHOD_NOT_FOUND", &[]).await;
    }
    t.finish(12).await;
}

#[tokio::test]
async fn a_compression_that_is_not_supported_is_refused_and_the_supported_ones_are_named() {
    let mut t = Table::start().await;
    for encoding in ["snappy", "gzip", "br", "identity, gzip", ""] {
        let answer = send(&t.channel, CHECK, valid_check(), Some(("grpc-encoding", encoding))).await;
        let status = answer.as_ref().err().unwrap();
        assert!(status.metadata().contains_key("grpc-accept-encoding"), "{encoding}: {status:?}");
        t.refused(encoding, answer, Code::Unimplemented, "UNSUPPORTED_ENCODING", &[]).await;
    }
    send(&t.channel, CHECK, valid_check(), Some(("grpc-encoding", "identity"))).await.unwrap();
    t.finish(5).await;
}

#[tokio::test]
async fn a_deadline_that_cannot_be_read_is_no_deadline() {
    let service = Service::start().await;
    for deadline in ["", "S", "1", "soon", "1s", "-1S", "1.5S", "123456789S", " 1S ", "99999999H"] {
        let answer = send(&service.channel, CHECK, valid_check(), Some(("grpc-timeout", deadline))).await;
        assert!(answer.is_ok(), "`{deadline}`: {answer:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends_with_the_deadline_and_changes_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let config =
        Config { request_timeout: Duration::from_millis(200), ..Config::for_data_dir(temporary.path().join("data")) };
    let service = Service::with_config(config).await;
    let created = portcullis::proto::v1::CreateAddressGroupRequest {
        parent: ORGANIZATION.to_owned(),
        address_group_id: "office".to_owned(),
        ..Default::default()
    };
    let etag = service.firewall().create_address_group(created).await.unwrap().into_inner().etag;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let first = ReplaceRangesRequest { name: GROUP.to_owned(), ranges: vec!["any".to_owned()], ..Default::default() };
    sender.send(first).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let answer = service.firewall().replace_ranges(stream).await;
    assert_error(answer, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    drop(sender);
    let request = portcullis::proto::v1::GetAddressGroupRequest { name: GROUP.to_owned() };
    let group = service.firewall().get_address_group(request).await.unwrap().into_inner();
    assert_eq!((group.etag, group.range_count), (etag, 0));
    service.check("203.0.113.7", ORGANIZATION).await;
    service.stop().await;
}

#[tokio::test]
async fn a_connection_that_never_greets_is_given_up_and_its_place_given_to_another() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let temporary = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(temporary.path().join("data"));
    config.connections_max = 2;
    let service = Service::with_config(config).await;
    // The harness has the other place.
    service.check("192.0.2.1", ORGANIZATION).await;
    let mut silent = tokio::net::TcpStream::connect(service.address()).await.unwrap();
    silent.write_all(b"P").await.unwrap();
    // It waits for the place.
    let another = Channel::from_shared(format!("http://{}", service.address())).unwrap().connect().await.unwrap();
    let another = tokio::spawn(async move { send(&another, CHECK, valid_check(), None).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!another.is_finished(), "there was a place left");
    let mut read = Vec::new();
    tokio::time::timeout(Duration::from_mins(1), silent.read_to_end(&mut read)).await.unwrap().unwrap();
    assert!(read.is_empty());
    another.await.unwrap().unwrap();
    service.stop().await;
}
