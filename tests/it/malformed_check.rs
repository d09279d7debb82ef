//! Malformed Checks: every field of the request, wrong in every way that somebody has thought of.
//!
//! Invariant: a malformed Check is an error that names its fields, never a decision, and the next Check is answered.
//! Not here: the management services (`malformed_firewall`, `malformed_hierarchy`) and the transport
//! (`malformed_transport`).

use portcullis::proto::v1::{CheckRequest, ConnectionType, Decision, Reason};
use tonic::Code;

use crate::harness::Service;
use crate::refusals::{ORGANIZATION, Table};

/// Texts that are no address.
pub(crate) const NO_ADDRESSES: &[(&str, &str)] = &[
    ("IPv4 with a port", "203.0.113.7:443"),
    ("IPv6 in brackets", "[2001:db8::1]"),
    ("IPv6 in brackets with a port", "[2001:db8::1]:443"),
    ("a zone", "fe80::1%eth0"),
    ("a space before", " 203.0.113.7"),
    ("a space behind", "203.0.113.7 "),
    ("a line feed behind", "203.0.113.7\n"),
    ("a NUL behind", "203.0.113.7\0"),
    ("a leading zero", "203.0.113.07"),
    ("leading zeros in a mapped address", "::ffff:203.0.113.007"),
    ("three octets", "203.0.113"),
    ("an octet of 256", "203.0.113.256"),
    ("a negative octet", "203.0.113.-7"),
    ("a number", "3405803783"),
    ("hexadecimal octets", "0xcb.0x0.0x71.0x7"),
    ("two gaps", "2001:db8::1::2"),
    ("nine groups", "2001:db8:0:0:0:0:0:0:1"),
    ("five digits in a group", "2001:db8::00001"),
    ("a host name", "localhost"),
    ("digits of another script", "２０３.0.113.7"),
    ("a list", "203.0.113.7,198.51.100.1"),
];

fn request() -> CheckRequest {
    CheckRequest {
        ip: "203.0.113.7".to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: ORGANIZATION.to_owned(),
        ..CheckRequest::default()
    }
}

#[tokio::test]
async fn no_malformed_address_is_decided() {
    let mut t = Table::start().await;
    let overlong = "1".repeat(100_000);
    let others = [("empty", ""), ("a range", "203.0.113.7/32"), ("any", "any"), ("overlong", overlong.as_str())];
    for (case, ip) in NO_ADDRESSES.iter().copied().chain(others) {
        let answer = t.decisions().check(CheckRequest { ip: ip.to_owned(), ..request() }).await;
        t.invalid(case, answer, &["ip"]).await;
    }
    t.finish(25).await;
}

#[tokio::test]
async fn no_malformed_endpoint_is_decided() {
    let mut t = Table::start().await;
    let too_long = format!("organizations/{}", "a".repeat(64));
    let cases = [
        ("empty", ""),
        ("the cluster", "cluster"),
        ("no id", "organizations"),
        ("an empty id", "organizations/"),
        ("a trailing slash", "organizations/default/"),
        ("a leading slash", "/organizations/default"),
        ("a double slash", "organizations//projects/p"),
        ("a collection in capitals", "Organizations/default"),
        ("an id in capitals", "organizations/Default"),
        ("a hyphen first", "organizations/-default"),
        ("a hyphen last", "organizations/default-"),
        ("an underscore", "organizations/my_org"),
        ("a letter of another script", "organizations/größe"),
        ("an id of 64 characters", too_long.as_str()),
        ("a rule", "organizations/default/rules/first"),
        ("a group", "organizations/default/addressGroups/office"),
        ("a session", "organizations/default/sessions/s"),
        ("a collection without id", "organizations/default/projects"),
        ("a level left out", "organizations/default/workspaces/dev"),
        ("a level too many", "organizations/default/projects/p/workspaces/w/endpoints/e/ports/1"),
        ("a space", "organizations/default "),
        ("a full resource name", "//portcullis/organizations/default"),
    ];
    for (case, endpoint) in cases {
        let answer = t.decisions().check(CheckRequest { endpoint: endpoint.to_owned(), ..request() }).await;
        t.invalid(case, answer, &["endpoint"]).await;
    }
    t.finish(20).await;
}

#[tokio::test]
async fn no_other_malformed_field_is_decided_and_all_of_them_are_named_at_once() {
    let mut t = Table::start().await;
    for connection_type in [0, 3, -1, i32::MAX] {
        let answer = t.decisions().check(CheckRequest { connection_type, ..request() }).await;
        t.invalid(&format!("connection type {connection_type}"), answer, &["connection_type"]).await;
    }
    for number in [-1, i64::MIN] {
        let answer = t.decisions().check(CheckRequest { min_revision: number, ..request() }).await;
        t.invalid("negative min_revision", answer, &["min_revision"]).await;
        let answer = t.decisions().check(CheckRequest { min_cluster_revision: number, ..request() }).await;
        t.invalid("negative min_cluster_revision", answer, &["min_cluster_revision"]).await;
    }
    let answer = t.decisions().check(CheckRequest { user_email: "ü".repeat(321), ..request() }).await;
    t.invalid("321 characters of email", answer, &["user_email"]).await;
    let answer = t.decisions().check(CheckRequest { request_id: "ü".repeat(129), ..request() }).await;
    t.invalid("129 characters of request id", answer, &["request_id"]).await;
    for (seconds, nanos) in [(0, 0), (-1, 0), (0, -1), (i64::MAX, 0), (1, 1_000_000_000)] {
        let session_lease = Some(prost_types::Duration { seconds, nanos });
        let answer = t.decisions().check(CheckRequest { session_lease, ..request() }).await;
        t.invalid("lease that is no positive time", answer, &["session_lease"]).await;
    }
    let preview = CheckRequest { connection_type: ConnectionType::Preview.into(), ..request() };
    let session_lease = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let answer = t.decisions().check(CheckRequest { session_lease, ..preview }).await;
    t.invalid("lease for a preview", answer, &["session_lease"]).await;

    let answer = t.decisions().check(CheckRequest::default()).await;
    t.invalid("nothing at all", answer, &["ip", "connection_type", "endpoint"]).await;
    let everything = CheckRequest {
        ip: "203.0.113.7:1".to_owned(),
        connection_type: 9,
        endpoint: "cluster".to_owned(),
        user_email: "x".repeat(321),
        min_revision: -1,
        min_cluster_revision: -1,
        session_lease: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        request_id: "x".repeat(129),
    };
    let all = [
        "ip",
        "connection_type",
        "endpoint",
        "user_email",
        "min_revision",
        "min_cluster_revision",
        "session_lease",
        "request_id",
    ];
    let answer = t.decisions().check(everything).await;
    t.invalid("everything at once", answer, &all).await;

    // Fields before revisions: a malformed check is malformed, however far the server is.
    let ahead = CheckRequest { min_revision: 1_000, ip: String::new(), ..request() };
    let answer = t.decisions().check(ahead).await;
    t.invalid("malformed and ahead", answer, &["ip"]).await;
    let answer = t.decisions().check(CheckRequest { min_revision: 1_000, ..request() }).await;
    t.refused("ahead", answer, Code::Unavailable, "REVISION_NOT_REACHED", &[]).await;
    let answer = t.decisions().check(CheckRequest { min_cluster_revision: 2, ..request() }).await;
    t.refused("cluster ahead", answer, Code::Unavailable, "CLUSTER_REVISION_NOT_REACHED", &[]).await;
    t.finish(20).await;
}

#[tokio::test]
async fn the_longest_values_that_are_permitted_are_decided() {
    let service = Service::start().await;
    let id = "a".repeat(63);
    let endpoint = format!("organizations/{id}/projects/{id}/workspaces/{id}/endpoints/{id}");
    let (user_email, request_id) = ("ü".repeat(320), "ü".repeat(128));
    let longest = CheckRequest { endpoint, user_email, request_id, ..request() };
    let answer = service.decisions().check(longest).await.unwrap().into_inner();
    assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, Reason::UnknownEndpoint));
    assert_eq!((answer.message.as_str(), answer.revision, answer.cluster_revision), ("unknown_endpoint", 0, 1));
    for ip in ["0.0.0.0", "255.255.255.255", "::", "::1", "2001:DB8::A", "1:2:3:4:5:6:7:8", "::ffff:0:0"] {
        let answer = service.decisions().check(CheckRequest { ip: ip.to_owned(), ..request() }).await.unwrap();
        assert_eq!(answer.into_inner().decision(), Decision::Allow, "{ip}");
    }
    service.stop().await;
}
