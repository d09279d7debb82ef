//! Patching an address group by a stream of any length, through the API: one change, whole or not at all.
//!
//! Invariant: a stream that is refused or breaks leaves the organization as it was.
//! Not here: replacing all ranges (`groups_api`), malformed requests (`malformed_groups`), the command line (`cli_groups`).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::policy::limits::Limits;
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::mutation::Request as Asked;
use portcullis::proto::v1::rule::Source;
use portcullis::proto::v1::{
    Action, ChangeOptions, ConfirmRevisionRequest, CreateRuleRequest, GetAddressGroupRequest, GetNodeRequest,
    GroupCreation, ListRangesRequest, ListSessionsRequest, Mutation, PatchRangesRequest, PatchRangesResponse,
    PreviewChangeRequest, RangeToRemove, SessionState, SetShadowPolicyRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::clock::{Hand, until};
use crate::harness::{Service, assert_error, fields, rule};

const ORGANIZATION: &str = "organizations/default";

/// As many ranges as are well above 3 MiB, none of them a range of the documentation.
const MANY: u32 = 300_000;

pub(crate) type Answer = Result<Response<PatchRangesResponse>, Status>;

fn name(id: &str) -> String {
    format!("{ORGANIZATION}/addressGroups/{id}")
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Different single addresses from 10.0.0.0 on.
pub(crate) fn addresses(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|number| std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string())
}

pub(crate) fn first(id: &str, add: &[&str], remove: &[&str]) -> PatchRangesRequest {
    PatchRangesRequest { name: name(id), ..later(add, remove) }
}

fn later(add: &[&str], remove: &[&str]) -> PatchRangesRequest {
    PatchRangesRequest { add: texts(add), remove: texts(remove), ..PatchRangesRequest::default() }
}

fn creation(id: &str, add: &[&str]) -> PatchRangesRequest {
    PatchRangesRequest { create: Some(GroupCreation::default()), ..first(id, add, &[]) }
}

/// A first message, then the ranges in messages of 10,000.
fn stream_of(first: PatchRangesRequest, add: &[String]) -> Vec<PatchRangesRequest> {
    let parts = add.chunks(10_000).map(|part| PatchRangesRequest { add: part.to_vec(), ..Default::default() });
    std::iter::once(first).chain(parts).collect()
}

pub(crate) async fn patch(service: &Service, messages: Vec<PatchRangesRequest>) -> Answer {
    service.firewall().patch_ranges(tokio_stream::iter(messages)).await
}

pub(crate) async fn create(service: &Service, id: &str, ranges: &[&str]) {
    patch(service, vec![creation(id, ranges)]).await.unwrap();
}

async fn ranges(service: &Service, id: &str) -> Vec<String> {
    let request = ListRangesRequest { name: name(id), page_size: 1_000, ..ListRangesRequest::default() };
    service.firewall().list_ranges(request).await.unwrap().into_inner().ranges
}

pub(crate) async fn exists(service: &Service, id: &str) -> bool {
    service.firewall().get_address_group(GetAddressGroupRequest { name: name(id) }).await.is_ok()
}

pub(crate) async fn revision(service: &Service) -> i64 {
    let request = GetNodeRequest { name: ORGANIZATION.to_owned() };
    service.hierarchy().get_node(request).await.unwrap().into_inner().revision
}

/// Denies what a group holds.
pub(crate) async fn deny_group(service: &Service, id: &str) {
    let mut by_group = rule(Action::Deny, "any");
    by_group.source = Some(Source::AddressGroup(name(id)));
    let request =
        CreateRuleRequest { parent: ORGANIZATION.to_owned(), rule: Some(by_group), ..CreateRuleRequest::default() };
    service.firewall().create_rule(request).await.unwrap();
}

/// How many active sessions there are, and how many of them are revoked.
pub(crate) async fn sessions(service: &Service) -> (usize, usize) {
    let request = ListSessionsRequest {
        parent: ORGANIZATION.to_owned(),
        state: SessionState::Active.into(),
        ..ListSessionsRequest::default()
    };
    let listed = service.audit().list_sessions(request).await.unwrap().into_inner().sessions;
    (listed.len(), listed.iter().filter(|session| session.revoke_time.is_some()).count())
}

/// A range to remove, and the wider one that is left.
fn removal(range: &str, covered_by: &str) -> RangeToRemove {
    let covering_ranges: Vec<String> = Some(covered_by.to_owned()).into_iter().filter(|by| !by.is_empty()).collect();
    RangeToRemove {
        range: range.to_owned(),
        covered_by: covered_by.to_owned(),
        covering_count: i64::try_from(covering_ranges.len()).unwrap(),
        covering_ranges,
        partly: false,
    }
}

#[tokio::test]
async fn a_stream_adds_and_removes_in_one_change_and_tells_what_had_no_effect() {
    let service = Service::start().await;
    create(&service, "g", &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.1", "2001:db8::/32"]).await;
    let before = revision(&service).await;
    let messages = vec![
        PatchRangesRequest {
            expected_add_count: 4,
            expected_remove_count: 5,
            ..first("g", &["198.51.100.7", "192.0.2.1"], &["10.1.2.0/24"])
        },
        later(&["198.51.100.7/32"], &["10.1.2.9", "203.0.113.0/24"]),
        later(&["2001:DB8::1"], &["2001:db8::2", "::ffff:10.1.2.9"]),
    ];
    let patched = patch(&service, messages.clone()).await.unwrap().into_inner();
    let group = patched.address_group.clone().unwrap();
    assert_eq!((group.range_count, group.revision), (6, before + 1));
    assert_eq!((patched.added_count, patched.removed_count, patched.present_count), (2, 1, 1));
    assert_eq!(patched.absent_count, 3);
    let absent =
        [removal("10.1.2.9", "10.1.0.0/16"), removal("203.0.113.0/24", ""), removal("2001:db8::2", "2001:db8::/32")];
    assert_eq!(patched.absent_ranges, absent);
    assert_eq!(
        (patched.still_covered_count, patched.still_covered_ranges),
        (1, vec![removal("10.1.2.0/24", "10.1.0.0/16")])
    );
    let held = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "198.51.100.7", "2001:db8::/32", "2001:db8::1"];
    assert_eq!(ranges(&service, "g").await, held);

    // Again, it changes nothing and makes no revision.
    let again = patch(&service, messages).await.unwrap().into_inner();
    assert_eq!((again.added_count, again.removed_count, again.present_count, again.absent_count), (0, 0, 3, 4));
    assert_eq!(again.address_group.unwrap(), group);
    // `any` covers whatever is left; a stream without ranges is no change.
    patch(&service, vec![first("g", &["any"], &[])]).await.unwrap();
    let covered = patch(&service, vec![first("g", &[], &["10.0.0.0/8", "::"])]).await.unwrap().into_inner();
    assert_eq!(covered.still_covered_ranges, [removal("10.0.0.0/8", "any")]);
    assert_eq!(covered.absent_ranges, [removal("::", "any")]);
    let revised = revision(&service).await;
    patch(&service, vec![first("g", &[], &[])]).await.unwrap();
    assert_eq!(revision(&service).await, revised);
    // Only the first 100 are named, and all are counted.
    let absent: Vec<String> = addresses(1_000).collect();
    let request = PatchRangesRequest { remove: absent, ..first("g", &[], &[]) };
    let many = patch(&service, vec![request]).await.unwrap().into_inner();
    assert_eq!((many.absent_count, many.absent_ranges.len()), (1_000, 100));
    service.stop().await;
}

#[tokio::test]
async fn a_group_is_created_with_its_ranges_or_not_at_all() {
    let service = Service::start().await;
    let described = GroupCreation { description: "offices".to_owned() };
    let first_message = PatchRangesRequest { create: Some(described), ..first("g", &[], &[]) };
    let created =
        patch(&service, stream_of(first_message, &addresses(20_000).collect::<Vec<_>>())).await.unwrap().into_inner();
    let group = created.address_group.unwrap();
    assert_eq!((group.name.as_str(), group.description.as_str()), (name("g").as_str(), "offices"));
    assert_eq!((group.range_count, group.revision, created.added_count), (20_000, 2, 20_000));
    assert_error(patch(&service, vec![creation("g", &["any"])]).await, Code::AlreadyExists, "ALREADY_EXISTS");
    assert_error(patch(&service, vec![first("h", &["any"], &[])]).await, Code::NotFound, "NOT_FOUND");
    // The server makes up an id for `-`, but only where a group is created.
    let made_up = patch(&service, vec![creation("-", &[])]).await.unwrap().into_inner().address_group.unwrap();
    assert!(made_up.name.starts_with(&name("group-")), "{}", made_up.name);
    let status =
        assert_error(patch(&service, vec![first("-", &[], &[])]).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["name"]);
    // What is only judged leaves no group.
    let judged = PatchRangesRequest {
        options: Some(ChangeOptions { validate_only: true, ..ChangeOptions::default() }),
        ..creation("judged", &["192.0.2.1"])
    };
    let judged = patch(&service, vec![judged]).await.unwrap().into_inner();
    assert_eq!((judged.added_count, judged.address_group.unwrap().etag.as_str()), (1, ""));
    assert!(!exists(&service, "judged").await);
    // A stale etag is judged before anything else.
    let stale = PatchRangesRequest { etag: "group-1".to_owned(), ..first("g", &["x"], &[]) };
    assert_error(patch(&service, vec![stale]).await, Code::Aborted, "STALE_ETAG");
    let current = PatchRangesRequest { etag: group.etag, ..first("g", &["any"], &[]) };
    patch(&service, vec![current]).await.unwrap();
    service.stop().await;
}

/// The hazard: gates that count for each part of a long list.
#[tokio::test]
async fn gates_judge_a_long_list_as_one_change() {
    let service = Service::start().await;
    create(&service, "block", &[]).await;
    deny_group(&service, "block").await;
    for ip in ["198.51.100.1", "203.0.113.1"] {
        service.check(ip, ORGANIZATION).await;
    }
    // One of the two is at the beginning of the list, the other at its end.
    let mut list: Vec<String> = addresses(MANY).collect();
    list.insert(0, "198.51.100.1".to_owned());
    list.push("203.0.113.1".to_owned());
    let before = revision(&service).await;
    let with = |options| PatchRangesRequest { options: Some(options), ..first("block", &[], &[]) };
    let at_most = |max| ChangeOptions { max_revocations: Some(max), ..ChangeOptions::default() };
    let refused = patch(&service, stream_of(with(at_most(1)), &list)).await;
    assert_error(refused, Code::FailedPrecondition, "TOO_MANY_REVOCATIONS");
    let guard = ChangeOptions { guard_ips: texts(&["203.0.113.1"]), ..ChangeOptions::default() };
    let refused = patch(&service, stream_of(with(guard), &list)).await;
    assert_error(refused, Code::FailedPrecondition, "GUARD_VIOLATED");
    assert_eq!((sessions(&service).await, revision(&service).await), ((2, 0), before));
    assert_eq!(ranges(&service, "block").await, [""; 0]);
    patch(&service, stream_of(with(at_most(2)), &list)).await.unwrap();
    until("both are revoked", async || (sessions(&service).await == (2, 2)).then_some(())).await;
    assert_eq!(revision(&service).await, before + 1);
    service.stop().await;
}

/// The hazard: a creation in parts arms a confirmation that refuses its own second part.
#[tokio::test]
async fn a_long_creation_waits_for_its_confirmation_and_goes_back_whole() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let waiting = |id: &str| PatchRangesRequest {
        options: Some(ChangeOptions {
            confirm_within: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
            ..ChangeOptions::default()
        }),
        ..creation(id, &[])
    };
    let list: Vec<String> = addresses(MANY).collect();
    let made = patch(&service, stream_of(waiting("kept"), &list)).await.unwrap().into_inner();
    assert_eq!(made.added_count, i64::from(MANY));
    let name = format!("{ORGANIZATION}/revisions/{}", revision(&service).await);
    service.analysis().confirm_revision(ConfirmRevisionRequest { name, options: None }).await.unwrap();
    patch(&service, stream_of(waiting("lost"), &list)).await.unwrap();
    assert!(exists(&service, "lost").await);
    hand.advance(Duration::from_mins(10));
    until("the creation goes back", async || (!exists(&service, "lost").await).then_some(())).await;
    let kept = service.firewall().get_address_group(GetAddressGroupRequest { name: self::name("kept") }).await.unwrap();
    assert_eq!(kept.into_inner().range_count, i64::from(MANY));
    service.stop().await;
}

#[tokio::test]
async fn one_malformed_range_near_the_end_leaves_nothing_and_is_named_by_its_index() {
    let service = Service::start().await;
    let mut list: Vec<String> = addresses(400_000).collect();
    list[399_990] = "10.0.0.5/8".to_owned();
    let refused = patch(&service, stream_of(creation("g", &[]), &list)).await;
    let status = assert_error(refused, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["add[399990]"]);
    assert!(!exists(&service, "g").await);
    // Indexes count on through messages, for each direction by itself, whatever was malformed before.
    create(&service, "g", &["192.0.2.0/24"]).await;
    let before = revision(&service).await;
    let messages = vec![
        first("g", &["x", "198.51.100.1"], &["y", "192.0.2.0/24", "203.0.113.9"]),
        later(&["198.51.100.2", "z", "203.0.113.9"], &[]),
        later(&["203.0.113.10"], &["198.51.100.2", "10.0.0.1/8", "203.0.113.10"]),
    ];
    let status = assert_error(patch(&service, messages).await, Code::InvalidArgument, "INVALID_FIELD");
    let mut found = fields(&status);
    found.sort();
    assert_eq!(found, ["add[0]", "add[3]", "remove[0]", "remove[2]", "remove[3]", "remove[4]", "remove[5]"]);
    assert_eq!((revision(&service).await, ranges(&service, "g").await), (before, texts(&["192.0.2.0/24"])));
    service.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_changes_nothing() {
    let service = Service::start().await;
    create(&service, "g", &["192.0.2.1"]).await;
    let before = revision(&service).await;
    for begun in [first("g", &["198.51.100.1"], &["192.0.2.1"]), creation("new", &["198.51.100.1"])] {
        // The client cancels.
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let parts = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut firewall = service.firewall();
        let call = tokio::spawn(async move { firewall.patch_ranges(parts).await });
        sender.send(begun.clone()).await.unwrap();
        sender.send(later(&["198.51.100.2"], &[])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        // The connection is cut.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (middle, server) = (listener.local_addr().unwrap(), service.address());
        let relay = tokio::spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        let channel = Channel::from_shared(format!("http://{middle}")).unwrap().connect().await.unwrap();
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let parts = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let call = tokio::spawn(async move { FirewallServiceClient::new(channel).patch_ranges(parts).await });
        sender.send(begun).await.unwrap();
        sender.send(later(&["198.51.100.2"], &[])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        relay.abort();
        assert!(call.await.unwrap().is_err());
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((revision(&service).await, ranges(&service, "g").await), (before, texts(&["192.0.2.1"])));
    assert!(!exists(&service, "new").await);
    service.stop().await;
}

#[tokio::test]
async fn a_limit_refuses_the_whole_stream() {
    let temporary = tempfile::tempdir().unwrap();
    let limits = Limits {
        groups_per_organization_max: 2,
        ranges_per_group_max: 4,
        ranges_per_organization_max: 6,
        ..Limits::default()
    };
    let config = Config { limits, ..Config::for_data_dir(temporary.path().join("data")) };
    let service = Service::with_config(config).await;
    let four = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    let five = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"];
    let reached = |answer: Answer| assert_error(answer, Code::ResourceExhausted, "LIMIT_REACHED");
    reached(patch(&service, vec![creation("a", &five)]).await);
    create(&service, "a", &four).await;
    // As many may go as come.
    patch(&service, vec![first("a", &["192.0.2.5"], &["192.0.2.1"])]).await.unwrap();
    reached(patch(&service, vec![first("a", &["192.0.2.1"], &[])]).await);
    reached(patch(&service, vec![creation("b", &four[..3])]).await);
    assert!(!exists(&service, "b").await);
    // A stream may hold no more ranges of a direction than a group, as they are sent.
    reached(patch(&service, vec![first("a", &four, &[]), later(&["192.0.2.1"], &[])]).await);
    reached(patch(&service, vec![first("a", &[], &four), later(&[], &["192.0.2.1"])]).await);
    create(&service, "b", &[]).await;
    reached(patch(&service, vec![creation("c", &[])]).await);
    assert_eq!(ranges(&service, "a").await, five[1..]);
    service.stop().await;
}

#[tokio::test]
async fn a_patch_can_be_previewed_and_tried_in_a_shadow_policy() {
    let service = Service::start().await;
    create(&service, "block", &["198.51.100.0/24"]).await;
    deny_group(&service, "block").await;
    let before = revision(&service).await;
    let mutations = |request| vec![Mutation { request: Some(Asked::PatchRanges(request)) }];
    let preview = |request| PreviewChangeRequest {
        parent: ORGANIZATION.to_owned(),
        mutations: mutations(request),
        replay_within: None,
    };
    let swap = first("block", &["203.0.113.0/24"], &["198.51.100.0/24"]);
    let shown = service.analysis().preview_change(preview(swap.clone())).await.unwrap().into_inner();
    assert_eq!(shown.differences[0].newly_permitted, ["198.51.100.0/24"]);
    assert_eq!(shown.differences[0].newly_denied, ["203.0.113.0/24"]);
    let refused = service.analysis().preview_change(preview(first("block", &["x"], &[]))).await;
    let status = assert_error(refused, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["mutations[0].patch_ranges.add[0]"]);
    let request = SetShadowPolicyRequest {
        parent: ORGANIZATION.to_owned(),
        mutations: mutations(swap),
        ..SetShadowPolicyRequest::default()
    };
    service.analysis().set_shadow_policy(request).await.unwrap();
    assert_eq!(ranges(&service, "block").await, ["198.51.100.0/24"]);
    assert!(revision(&service).await <= before + 1);
    service.stop().await;
}
