//! Address groups through the API: a set of canonical strings, patched or replaced in one step.
//!
//! Invariant: what a group holds is what was put in, canonical and once; a change that fails leaves it as it was.
//! Not here: malformed requests (`malformed_groups`), pages (`lists_api`).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::policy::limits::Limits;
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::rule::Source;
use portcullis::proto::v1::{
    Access, AccessEntry, AccessMode, Action, AddRangesRequest, AddressGroup, ChangeOptions, CreateAddressGroupRequest,
    CreateRuleRequest, DeleteAddressGroupRequest, DeleteRuleRequest, GetAddressGroupRequest, ListAddressGroupsRequest,
    ListRangesRequest, RemoveRangesRequest, ReplaceRangesRequest, UpdateAddressGroupRequest, access_entry,
};
use prost_types::FieldMask;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::harness::{Service, access, assert_error, rule};

const ORGANIZATION: &str = "organizations/default";

/// The messages of a stream as a test sends them.
type Parts = tokio_stream::wrappers::ReceiverStream<ReplaceRangesRequest>;

/// A replacement under way.
type Call = tokio::task::JoinHandle<Result<Response<AddressGroup>, Status>>;

fn name(id: &str) -> String {
    format!("{ORGANIZATION}/addressGroups/{id}")
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

async fn create(service: &Service, id: &str, ranges: &[&str]) -> Result<Response<AddressGroup>, Status> {
    let group = AddressGroup { ranges: texts(ranges), ..AddressGroup::default() };
    let request = CreateAddressGroupRequest {
        parent: ORGANIZATION.to_owned(),
        address_group: Some(group),
        address_group_id: id.to_owned(),
        ..CreateAddressGroupRequest::default()
    };
    service.firewall().create_address_group(request).await
}

async fn get(service: &Service, id: &str) -> AddressGroup {
    service.firewall().get_address_group(GetAddressGroupRequest { name: name(id) }).await.unwrap().into_inner()
}

/// All ranges of a group, as many as it says it has.
async fn ranges(service: &Service, id: &str) -> Vec<String> {
    let request = ListRangesRequest { name: name(id), page_size: 1_000, ..ListRangesRequest::default() };
    let listed = service.firewall().list_ranges(request).await.unwrap().into_inner();
    let group = get(service, id).await;
    assert_eq!((listed.ranges.len(), &listed.etag), (usize::try_from(group.range_count).unwrap(), &group.etag));
    listed.ranges
}

async fn add(service: &Service, id: &str, ranges: &[&str]) -> Result<Response<AddressGroup>, Status> {
    let request = AddRangesRequest { name: name(id), ranges: texts(ranges), options: None };
    service.firewall().add_ranges(request).await
}

async fn remove(service: &Service, id: &str, ranges: &[&str]) -> Result<Response<AddressGroup>, Status> {
    let request = RemoveRangesRequest { name: name(id), ranges: texts(ranges), options: None };
    service.firewall().remove_ranges(request).await
}

fn part(id: &str, ranges: &[&str]) -> ReplaceRangesRequest {
    let name = if id.is_empty() { String::new() } else { name(id) };
    ReplaceRangesRequest { name, ranges: texts(ranges), ..ReplaceRangesRequest::default() }
}

async fn replace(service: &Service, parts: Vec<ReplaceRangesRequest>) -> Result<Response<AddressGroup>, Status> {
    service.firewall().replace_ranges(tokio_stream::iter(parts)).await
}

#[tokio::test]
async fn a_group_is_a_set_of_canonical_ranges_in_one_order() {
    let service = Service::start().await;
    let spelled = [
        "::ffff:10.0.0.0/104",
        "2001:DB8::0/32",
        "10.1.0.0/16",
        "10.0.0.0/8",
        "ANY",
        "::/0",
        "0.0.0.0/0",
        "10.0.0.1/32",
        "10.0.0.1",
        "::ffff:a00:1",
        "any",
        "2001:db8:0:0:0:0:0:1/128",
        "::1",
        "::ffff:0:0/96",
        "255.255.255.255",
    ];
    let canonical = [
        "any",
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.1",
        "10.1.0.0/16",
        "255.255.255.255",
        "::/0",
        "::1",
        "2001:db8::/32",
        "2001:db8::1",
    ];
    let created = create(&service, "g", &spelled).await.unwrap().into_inner();
    assert_eq!((created.range_count, created.ranges.len(), created.revision), (10, 0, 2));
    assert_eq!(ranges(&service, "g").await, canonical);
    // What is there already is added to no effect, in whatever spelling, and so is nothing.
    for again in [&spelled[..], &[], &["::ffff:10.1.0.0/112"]] {
        assert_eq!(add(&service, "g", again).await.unwrap().into_inner(), created);
    }
    // A range is removed as it was added; parts of ranges and what is not there are no-ops.
    for missing in [&["10.0.0.0/9", "10.0.0.2", "::2"][..], &[]] {
        assert_eq!(remove(&service, "g", missing).await.unwrap().into_inner(), created);
    }
    let removed = remove(&service, "g", &["ANY", "::ffff:10.0.0.1", "::0/0", "10.0.0.2", "ANY"]).await.unwrap();
    let removed = removed.into_inner();
    assert_eq!((removed.range_count, removed.revision), (7, 3));
    assert!(removed.etag != created.etag && removed.create_time == created.create_time);
    let left = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "255.255.255.255", "::1", "2001:db8::/32", "2001:db8::1"];
    assert_eq!(ranges(&service, "g").await, left);
    service.stop().await;
}

#[tokio::test]
async fn a_group_is_created_read_described_listed_and_deleted() {
    let service = Service::start().await;
    let mut firewall = service.firewall();
    let group = AddressGroup { name: name("ignored"), range_count: 7, etag: "x".to_owned(), ..AddressGroup::default() };
    let request = CreateAddressGroupRequest {
        parent: ORGANIZATION.to_owned(),
        address_group: Some(AddressGroup { description: "offices".to_owned(), ..group }),
        ..CreateAddressGroupRequest::default()
    };
    let made_up = firewall.create_address_group(request.clone()).await.unwrap().into_inner();
    let other = firewall.create_address_group(CreateAddressGroupRequest { address_group: None, ..request }).await;
    assert_ne!(other.unwrap().into_inner().name, made_up.name);
    assert_eq!((made_up.range_count, made_up.description.as_str()), (0, "offices"));
    let created = create(&service, "g", &["192.0.2.1"]).await.unwrap().into_inner();
    assert_error(create(&service, "g", &[]).await, Code::AlreadyExists, "ALREADY_EXISTS");

    let update = |group: AddressGroup, paths: &[&str]| UpdateAddressGroupRequest {
        address_group: Some(AddressGroup { name: name("g"), ..group }),
        update_mask: (!paths.is_empty()).then(|| FieldMask { paths: texts(paths) }),
        options: None,
    };
    let described = || AddressGroup { description: "d".to_owned(), ..AddressGroup::default() };
    let updated = firewall.update_address_group(update(described(), &[])).await.unwrap().into_inner();
    assert_eq!((updated.description.as_str(), updated.range_count, updated.revision), ("d", 1, created.revision + 1));
    assert_ne!(updated.etag, created.etag);
    // A star leaves the ranges, also where some are given; what is as it was is no change.
    let with_ranges = AddressGroup { ranges: texts(&["any"]), ..described() };
    for request in
        [update(with_ranges, &["*"]), update(described(), &["description"]), update(AddressGroup::default(), &[])]
    {
        assert_eq!(firewall.update_address_group(request).await.unwrap().into_inner(), updated);
    }
    let stale = AddressGroup { etag: created.etag.clone(), description: "x".repeat(2_000), ..AddressGroup::default() };
    for paths in [&[][..], &["ranges"]] {
        let answer = firewall.update_address_group(update(stale.clone(), paths)).await;
        assert_error(answer, Code::Aborted, "STALE_ETAG");
    }
    let cleared = firewall.update_address_group(update(AddressGroup::default(), &["*"])).await.unwrap().into_inner();
    assert_eq!((cleared.description.as_str(), ranges(&service, "g").await), ("", texts(&["192.0.2.1"])));

    let list = ListAddressGroupsRequest { parent: ORGANIZATION.to_owned(), ..ListAddressGroupsRequest::default() };
    let listed = firewall.list_address_groups(list.clone()).await.unwrap().into_inner();
    assert_eq!((listed.address_groups.len(), listed.revision), (3, cleared.revision));
    assert!(listed.address_groups.contains(&cleared));
    let request = DeleteAddressGroupRequest { name: name("g"), etag: updated.etag, options: None };
    assert_error(firewall.delete_address_group(request).await, Code::Aborted, "STALE_ETAG");
    let request = DeleteAddressGroupRequest { name: name("g"), etag: cleared.etag, options: None };
    firewall.delete_address_group(request.clone()).await.unwrap();
    assert_error(firewall.delete_address_group(request).await, Code::NotFound, "NOT_FOUND");
    let after = firewall.list_address_groups(list).await.unwrap().into_inner();
    assert!(after.address_groups.len() == 2 && after.etag != listed.etag);
    for answer in [add(&service, "g", &["x"]).await, remove(&service, "g", &["x"]).await] {
        assert_error(answer, Code::NotFound, "NOT_FOUND");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_group_that_is_named_somewhere_is_not_deleted_and_follows_into_decisions() {
    let service = Service::start().await;
    create(&service, "g", &["192.0.2.0/24"]).await.unwrap();
    let delete = DeleteAddressGroupRequest { name: name("g"), ..DeleteAddressGroupRequest::default() };
    let entry = AccessEntry { source: Some(access_entry::Source::AddressGroup(name("g"))), ..AccessEntry::default() };
    let listed = Access { mode: AccessMode::AllowList.into(), entries: vec![entry] };
    let in_use = async |user: &str| {
        let status = service.firewall().delete_address_group(delete.clone()).await;
        let status = assert_error(status, Code::FailedPrecondition, "GROUP_IN_USE");
        assert!(status.message().contains(&format!("`{user}`")), "{status:?}");
    };

    let mut by_group = rule(Action::Deny, "any");
    by_group.source = Some(Source::AddressGroup(name("g")));
    by_group.disabled = true;
    let request = CreateRuleRequest {
        parent: ORGANIZATION.to_owned(),
        rule: Some(by_group),
        rule_id: "r".to_owned(),
        ..CreateRuleRequest::default()
    };
    let named = service.firewall().create_rule(request).await.unwrap().into_inner().name;
    in_use("organizations/default/rules/r").await;
    service.firewall().delete_rule(DeleteRuleRequest { name: named, ..Default::default() }).await.unwrap();

    service.set_access(ORGANIZATION, listed.clone()).await;
    in_use(ORGANIZATION).await;
    // What is added or removed counts for the next Check.
    assert_eq!(service.check("198.51.100.1", ORGANIZATION).await.message, "organization_restricted");
    add(&service, "g", &["198.51.100.0/24"]).await.unwrap();
    assert_eq!(service.check("198.51.100.1", ORGANIZATION).await.message, "");
    remove(&service, "g", &["192.0.2.0/24"]).await.unwrap();
    assert_eq!(service.check("192.0.2.1", ORGANIZATION).await.message, "organization_restricted");
    replace(&service, vec![part("g", &["192.0.2.0/25"]), part("", &["192.0.2.128/25"])]).await.unwrap();
    assert_eq!(service.check("192.0.2.200", ORGANIZATION).await.message, "");
    assert_eq!(service.check("198.51.100.1", ORGANIZATION).await.message, "organization_restricted");

    service.set_access(ORGANIZATION, access(AccessMode::AllowAll)).await;
    let project = service.add_node(ORGANIZATION, "p", Some(listed)).await.name;
    in_use(&project).await;
    service.set_access(&project, access(AccessMode::AllowAll)).await;
    service.firewall().delete_address_group(delete.clone()).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn a_stream_replaces_all_ranges_in_one_change() {
    let service = Service::start().await;
    let created = create(&service, "g", &["192.0.2.1", "192.0.2.2"]).await.unwrap().into_inner();
    let counted = ReplaceRangesRequest { expected_count: 4, etag: created.etag.clone(), ..part("g", &["192.0.2.2"]) };
    let parts = vec![counted, part("", &[]), part("", &["2001:db8::1", "192.0.2.2"]), part("", &["any"])];
    let replaced = replace(&service, parts.clone()).await.unwrap().into_inner();
    assert_eq!((replaced.range_count, replaced.revision), (3, created.revision + 1), "duplicates count as sent");
    assert_eq!(ranges(&service, "g").await, ["any", "192.0.2.2", "2001:db8::1"]);
    assert_error(replace(&service, parts).await, Code::Aborted, "STALE_ETAG");
    // The same ranges are no change.
    let same = vec![part("g", &["2001:db8::1", "192.0.2.2", "ANY"])];
    assert_eq!(replace(&service, same).await.unwrap().into_inner(), replaced);
    let options = Some(ChangeOptions { validate_only: true, ..ChangeOptions::default() });
    let judged = replace(&service, vec![ReplaceRangesRequest { options, ..part("g", &["::"]) }]).await.unwrap();
    let judged = judged.into_inner();
    assert_eq!((judged.range_count, judged.etag.as_str(), judged.revision), (1, "", replaced.revision));
    assert_eq!(get(&service, "g").await, replaced);
    let emptied = replace(&service, vec![ReplaceRangesRequest { allow_empty: true, ..part("g", &[]) }]).await.unwrap();
    assert_eq!(emptied.into_inner().range_count, 0);
    assert_eq!(ranges(&service, "g").await, [""; 0]);
    service.stop().await;
}

/// Begins a replacement through `channel` and sends two ranges of it; the stream stays open.
async fn begin(channel: &Channel, sender: &tokio::sync::mpsc::Sender<ReplaceRangesRequest>, parts: Parts) -> Call {
    let mut firewall = FirewallServiceClient::new(channel.clone());
    let call = tokio::spawn(async move { firewall.replace_ranges(parts).await });
    sender.send(part("g", &["198.51.100.1"])).await.unwrap();
    sender.send(part("", &["198.51.100.2"])).await.unwrap();
    // Long enough for the server to have read them, or the test shows less than it could.
    tokio::time::sleep(Duration::from_millis(50)).await;
    call
}

#[tokio::test]
async fn a_stream_that_breaks_changes_nothing() {
    let service = Service::start().await;
    let before = create(&service, "g", &["192.0.2.1"]).await.unwrap().into_inner();
    // The client cancels.
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    let call = begin(&service.channel, &sender, receiver.into()).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // The client's deadline passes.
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    let endpoint = format!("http://{}", service.address());
    let impatient =
        Channel::from_shared(endpoint).unwrap().timeout(Duration::from_millis(100)).connect().await.unwrap();
    let call = begin(&impatient, &sender, receiver.into()).await;
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Cancelled);
    // The connection is cut.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (middle, server) = (listener.local_addr().unwrap(), service.address());
    let relay = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    let channel = Channel::from_shared(format!("http://{middle}")).unwrap().connect().await.unwrap();
    let call = begin(&channel, &sender, receiver.into()).await;
    relay.abort();
    assert!(call.await.unwrap().is_err());

    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(get(&service, "g").await, before);
    assert_eq!(ranges(&service, "g").await, ["192.0.2.1"]);
    // One that is only slow is whole in the end.
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    let call = begin(&service.channel, &sender, receiver.into()).await;
    drop(sender);
    assert_eq!(call.await.unwrap().unwrap().into_inner().range_count, 2);
    service.stop().await;
}

#[tokio::test]
async fn a_limit_refuses_the_change_that_would_pass_it_and_no_other() {
    let temporary = tempfile::tempdir().unwrap();
    let limits = Limits {
        rules_per_organization_max: 2,
        groups_per_organization_max: 3,
        ranges_per_group_max: 4,
        ranges_per_organization_max: 6,
        ..Limits::default()
    };
    let config = Config { limits, ..Config::for_data_dir(temporary.path().join("data")) };
    let service = Service::with_config(config).await;
    let reached = |answer: Result<Response<AddressGroup>, Status>| {
        assert_error(answer, Code::ResourceExhausted, "LIMIT_REACHED");
    };
    let four = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    let five = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"];
    reached(create(&service, "a", &five).await);
    create(&service, "a", &four).await.unwrap();
    reached(add(&service, "a", &["192.0.2.5"]).await);
    // Duplicates and what is there already are no new ranges.
    add(&service, "a", &["192.0.2.1", "192.0.2.1", "192.0.2.4"]).await.unwrap();
    reached(create(&service, "b", &four).await);
    create(&service, "b", &["192.0.2.1", "192.0.2.2"]).await.unwrap();
    reached(add(&service, "b", &["192.0.2.3"]).await);
    reached(replace(&service, vec![part("b", &four[..3])]).await);
    reached(replace(&service, vec![part("a", &four), part("", &["192.0.2.5"])]).await);
    replace(&service, vec![part("a", &["192.0.2.9", "192.0.2.8", "192.0.2.7"])]).await.unwrap();
    create(&service, "c", &[]).await.unwrap();
    reached(create(&service, "d", &[]).await);
    add(&service, "c", &["192.0.2.1"]).await.unwrap();
    reached(add(&service, "c", &["192.0.2.2"]).await);
    assert_eq!(ranges(&service, "a").await, ["192.0.2.7", "192.0.2.8", "192.0.2.9"]);

    service.add_rule("one", Action::Deny, "192.0.2.1").await;
    service.add_rule("two", Action::Deny, "192.0.2.2").await;
    let request = CreateRuleRequest {
        parent: ORGANIZATION.to_owned(),
        rule: Some(rule(Action::Deny, "192.0.2.3")),
        ..CreateRuleRequest::default()
    };
    assert_error(service.firewall().create_rule(request).await, Code::ResourceExhausted, "LIMIT_REACHED");
    let rules = |count| portcullis::proto::v1::ReplaceRulesRequest {
        parent: ORGANIZATION.to_owned(),
        rules: vec![rule(Action::Deny, "192.0.2.3"); count],
        ..Default::default()
    };
    let answer = service.firewall().replace_rules(rules(3)).await;
    assert_error(answer, Code::ResourceExhausted, "LIMIT_REACHED");
    service.firewall().replace_rules(rules(2)).await.unwrap();
    service.stop().await;
}
