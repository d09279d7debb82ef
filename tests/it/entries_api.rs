//! Single entries of allowlists, added and removed through the API and the command line.
//!
//! Invariant: entries that a call does not name stay; a call that is refused changes nothing.
//! Not here: setting an access as a whole (`hierarchy_api`).

use portcullis::config::Config;
use portcullis::proto::v1::access_entry::Source;
use portcullis::proto::v1::access_source::Source as Removed;
use portcullis::proto::v1::mutation::Request as Asked;
use portcullis::proto::v1::{
    AccessEntry, AccessMode, AccessSource, AddAccessEntriesRequest, AddAccessEntriesResponse, AddressGroup,
    ChangeOptions, CoveredSource, CreateAddressGroupRequest, GetNodeRequest, Mutation, Node, PreviewChangeRequest,
    RemoveAccessEntriesRequest, RemoveAccessEntriesResponse,
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::cli_groups::run;
use crate::harness::{Service, access, allow_list, assert_error, fields};

const ORGANIZATION: &str = "organizations/default";
pub(crate) const PROJECT: &str = "organizations/default/projects/web";
pub(crate) const OFFICE: &str = "organizations/default/addressGroups/office";

/// A range, or the full name of a group.
fn is_group(text: &str) -> bool {
    text.starts_with("organizations/")
}

pub(crate) fn entry(source: &str, description: &str) -> AccessEntry {
    let text = source.to_owned();
    let source = if is_group(source) { Source::AddressGroup(text) } else { Source::Range(text) };
    AccessEntry { source: Some(source), description: description.to_owned() }
}

pub(crate) fn addition(node: &str, entries: Vec<AccessEntry>) -> AddAccessEntriesRequest {
    AddAccessEntriesRequest { name: node.to_owned(), entries, ..AddAccessEntriesRequest::default() }
}

pub(crate) fn removal(node: &str, sources: &[&str]) -> RemoveAccessEntriesRequest {
    let source = |text: &&str| AccessSource {
        source: Some(if is_group(text) {
            Removed::AddressGroup((*text).to_owned())
        } else {
            Removed::Range((*text).to_owned())
        }),
    };
    let sources = sources.iter().map(source).collect();
    RemoveAccessEntriesRequest { name: node.to_owned(), sources, ..RemoveAccessEntriesRequest::default() }
}

pub(crate) async fn add(
    service: &Service,
    request: AddAccessEntriesRequest,
) -> Result<AddAccessEntriesResponse, Status> {
    service.hierarchy().add_access_entries(request).await.map(Response::into_inner)
}

pub(crate) async fn remove(
    service: &Service,
    request: RemoveAccessEntriesRequest,
) -> Result<RemoveAccessEntriesResponse, Status> {
    service.hierarchy().remove_access_entries(request).await.map(Response::into_inner)
}

async fn get(service: &Service, node: &str) -> Node {
    service.hierarchy().get_node(GetNodeRequest { name: node.to_owned() }).await.unwrap().into_inner()
}

/// Sources and descriptions of a node's entries.
fn entries(node: &Node) -> Vec<(String, String)> {
    let source = |entry: &AccessEntry| match entry.source.clone().unwrap() {
        Source::Range(text) | Source::AddressGroup(text) => text,
    };
    let access = node.access.as_ref().unwrap();
    access.entries.iter().map(|entry| (source(entry), entry.description.clone())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(source, description)| ((*source).to_owned(), (*description).to_owned())).collect()
}

/// A service with a group `office` of `10.0.0.0/8`, and a project with an allowlist of one range.
pub(crate) async fn prepared() -> Service {
    let service = Service::start().await;
    let group = AddressGroup { ranges: vec!["10.0.0.0/8".to_owned()], ..AddressGroup::default() };
    let request = CreateAddressGroupRequest {
        parent: ORGANIZATION.to_owned(),
        address_group: Some(group),
        address_group_id: "office".to_owned(),
        ..CreateAddressGroupRequest::default()
    };
    service.firewall().create_address_group(request).await.unwrap();
    service.add_node(ORGANIZATION, "web", Some(allow_list(&["192.0.2.0/24"]))).await;
    service
}

#[tokio::test]
async fn entries_are_added_and_removed_and_the_others_stay() {
    let service = prepared().await;
    let before = get(&service, PROJECT).await;
    let new = vec![entry("198.51.100.7/32", "home"), entry(OFFICE, ""), entry("192.0.2.0/24", "")];
    let added = add(&service, addition(PROJECT, new.clone())).await.unwrap();
    let node = added.node.unwrap();
    assert_eq!((added.added_count, added.updated_count), (2, 0));
    assert_eq!((node.name.as_str(), node.revision), (PROJECT, before.revision + 1));
    let three = [("192.0.2.0/24", ""), ("198.51.100.7", "home"), (OFFICE, "")];
    assert_eq!(entries(&node), pairs(&three));
    assert_eq!(service.check("198.51.100.7", PROJECT).await.message, "");
    // Again, it is no change; with another description it is one of that entry, and one without leaves it.
    assert_eq!(add(&service, addition(PROJECT, new)).await.unwrap().node.unwrap(), node);
    let described = vec![entry("192.0.2.0/24", "first floor"), entry("198.51.100.7", "")];
    let added = add(&service, addition(PROJECT, described)).await.unwrap();
    assert_eq!((added.added_count, added.updated_count), (0, 1));
    let described = [("192.0.2.0/24", "first floor"), ("198.51.100.7", "home"), (OFFICE, "")];
    assert_eq!(entries(&added.node.unwrap()), pairs(&described));

    // What other entries still cover is told: by a range, and by a group.
    add(&service, addition(PROJECT, vec![entry("10.9.0.0/16", ""), entry("192.0.2.128/25", "")])).await.unwrap();
    let removed = remove(&service, removal(PROJECT, &["192.0.2.128/25", "10.9.0.0/16", "198.51.100.7"])).await.unwrap();
    assert_eq!(removed.removed_count, 3);
    let covered = |range: &str, by: &str| CoveredSource {
        range: range.to_owned(),
        covered_by: by.to_owned(),
        covering_entries: vec![by.to_owned()],
        covering_count: 1,
        ..CoveredSource::default()
    };
    assert_eq!(removed.still_covered, [covered("10.9.0.0/16", OFFICE), covered("192.0.2.128/25", "192.0.2.0/24")]);
    assert_eq!(entries(&removed.node.unwrap()), pairs(&[("192.0.2.0/24", "first floor"), (OFFICE, "")]));
    assert_eq!(service.check("198.51.100.7", PROJECT).await.message, "endpoint_restricted");
    // Without entries, an allowlist permits nobody.
    let removed = remove(&service, removal(PROJECT, &[OFFICE, "192.0.2.0/24"])).await.unwrap();
    let access = removed.node.unwrap().access.unwrap();
    assert_eq!((access.mode(), access.entries.len()), (AccessMode::AllowList, 0));
    assert_eq!(service.check("192.0.2.1", PROJECT).await.message, "endpoint_restricted");
    service.stop().await;
}

#[tokio::test]
async fn every_kind_of_node_with_an_allowlist_takes_entries() {
    let service = prepared().await;
    let workspace = service.add_node(PROJECT, "main", Some(allow_list(&[]))).await.name;
    let endpoint = service.add_node(&workspace, "shell", Some(allow_list(&[]))).await.name;
    service.set_access(ORGANIZATION, allow_list(&["192.0.2.0/24"])).await;
    service.set_access("cluster", allow_list(&["192.0.2.0/24"])).await;
    for node in ["cluster", ORGANIZATION, &workspace, &endpoint] {
        let old = get(&service, node).await;
        let added = add(&service, addition(node, vec![entry("203.0.113.7", "guest")])).await.unwrap();
        let made = added.node.unwrap();
        assert_eq!((made.name.as_str(), made.revision, added.added_count), (node, old.revision + 1, 1));
        assert_eq!(get(&service, node).await, made);
        assert_eq!(entries(&made).last().unwrap().0, "203.0.113.7");
        let stale = RemoveAccessEntriesRequest { etag: old.etag.clone(), ..removal(node, &["x"]) };
        assert_error(remove(&service, stale).await, Code::Aborted, "STALE_ETAG");
        let current = RemoveAccessEntriesRequest { etag: made.etag, ..removal(node, &["203.0.113.7"]) };
        assert_eq!(entries(&remove(&service, current).await.unwrap().node.unwrap()), entries(&old));
    }
    // Groups are of organizations.
    let status = add(&service, addition("cluster", vec![entry(OFFICE, "")])).await;
    assert_eq!(fields(&assert_error(status, Code::InvalidArgument, "INVALID_FIELD")), ["entries[0].address_group"]);
    service.stop().await;
}

/// The hazard: the first entry of a node that inherits shuts out everybody whom it lets in now.
#[tokio::test]
async fn a_node_without_an_allowlist_takes_no_entries_and_says_what_to_do() {
    let service = prepared().await;
    let workspace = service.add_node(PROJECT, "main", None).await.name;
    let open = service.add_node(ORGANIZATION, "open", Some(access(AccessMode::AllowAll))).await.name;
    for (node, words) in
        [(&*workspace, "inherits"), (&open, "permits every"), (ORGANIZATION, "every"), ("cluster", "every")]
    {
        let before = get(&service, node).await;
        let added = add(&service, addition(node, vec![entry("192.0.2.1", "")])).await.map(|_| ());
        let removed = remove(&service, removal(node, &["192.0.2.1"])).await.map(|_| ());
        for refused in [added, removed] {
            let status = assert_error(refused, Code::FailedPrecondition, "NO_ALLOWLIST");
            let message = status.message();
            assert!(message.contains(node) && message.contains(words) && message.contains("UpdateNode"), "{message}");
        }
        assert_eq!(get(&service, node).await, before);
    }
    let missing = format!("{PROJECT}/workspaces/none");
    assert_error(add(&service, addition(&missing, vec![entry("any", "")])).await, Code::NotFound, "NOT_FOUND");
    service.stop().await;
}

#[tokio::test]
async fn a_source_that_no_entry_has_is_refused_and_who_still_permits_it_is_named() {
    let service = prepared().await;
    add(&service, addition(PROJECT, vec![entry(OFFICE, "")])).await.unwrap();
    let before = get(&service, PROJECT).await;
    let absent = ["192.0.2.7", "192.0.2.0/24", "10.1.1.1", "203.0.113.1"];
    let refused = remove(&service, removal(PROJECT, &absent)).await;
    let status = assert_error(refused, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["sources[0].range", "sources[2].range", "sources[3].range"]);
    let details = status.get_details_bad_request().unwrap().field_violations;
    assert!(
        details[0].description.contains("`192.0.2.7` is no entry") && details[0].description.contains("`192.0.2.0/24`")
    );
    assert!(details[1].description.contains(&format!("`{OFFICE}` still permits it")), "{details:?}");
    assert!(details[2].description.contains("no other permits"), "{details:?}");
    // All faults at once, and by their indexes.
    let wrong = vec![
        entry("10.0.0.5/8", &"x".repeat(1_025)),
        AccessEntry::default(),
        entry(&format!("{ORGANIZATION}/addressGroups/none"), ""),
        entry("organizations/other/addressGroups/office", ""),
        entry("192.0.2.9", ""),
    ];
    let status = assert_error(add(&service, addition(PROJECT, wrong)).await, Code::InvalidArgument, "INVALID_FIELD");
    let paths = [
        "entries[0].range",
        "entries[0].description",
        "entries[1].range",
        "entries[3].address_group",
        "entries[2].address_group",
    ];
    assert_eq!(fields(&status), paths);
    let mut nothing = removal("x", &[]);
    nothing.options = Some(ChangeOptions { guard_ips: vec!["x".to_owned()], ..ChangeOptions::default() });
    let status = assert_error(remove(&service, nothing).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["options.guard_ips[0]", "name", "sources"]);
    let guarded = RemoveAccessEntriesRequest {
        options: Some(ChangeOptions { guard_ips: vec!["192.0.2.1".to_owned()], ..ChangeOptions::default() }),
        ..removal(PROJECT, &["192.0.2.0/24"])
    };
    assert_error(remove(&service, guarded).await, Code::FailedPrecondition, "GUARD_VIOLATED");
    assert_eq!(get(&service, PROJECT).await, before);
    service.stop().await;
}

#[tokio::test]
async fn entries_are_bounded_and_can_be_previewed() {
    let service = prepared().await;
    let many = (0..10_000_u32).map(|number| entry(&std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string(), ""));
    let refused = add(&service, addition(PROJECT, many.clone().collect())).await;
    assert_error(refused, Code::ResourceExhausted, "LIMIT_REACHED");
    add(&service, addition(PROJECT, many.take(9_998).collect())).await.unwrap();
    // A node must fit an answer: long descriptions are refused, with what is there.
    let described = (0..1_000_u32)
        .map(|number| entry(&std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string(), &"x".repeat(1_000)));
    let refused = add(&service, addition(PROJECT, described.collect())).await;
    assert_eq!(fields(&assert_error(refused, Code::InvalidArgument, "INVALID_FIELD")), ["entries"]);

    let mutations = [
        Asked::AddAccessEntries(addition(PROJECT, vec![entry("203.0.113.1", "")])),
        Asked::RemoveAccessEntries(removal(PROJECT, &["192.0.2.0/24"])),
    ];
    let request = PreviewChangeRequest {
        parent: ORGANIZATION.to_owned(),
        mutations: mutations.into_iter().map(|asked| Mutation { request: Some(asked) }).collect(),
        replay_within: None,
    };
    let shown = service.analysis().preview_change(request).await.unwrap();
    let difference = shown.into_inner().differences.remove(0);
    assert_eq!(
        (difference.newly_permitted, difference.newly_denied),
        (vec!["203.0.113.1".to_owned()], vec!["192.0.2.0/24".to_owned()])
    );
    service.stop().await;
}

/// The hazard: a list that is too long can no longer be made shorter.
#[tokio::test]
async fn entries_can_be_removed_where_the_limit_was_lowered_since() {
    let temporary = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(temporary.path().join("data"));
    let service = Service::with_config(config.clone()).await;
    let four = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    for node in ["cluster", ORGANIZATION] {
        service.set_access(node, allow_list(&four)).await;
    }
    service.add_node(ORGANIZATION, "web", Some(allow_list(&four))).await;
    service.stop().await;
    config.limits.entries_per_node_max = 2;
    let service = Service::with_config(config).await;
    for node in ["cluster", ORGANIZATION, PROJECT] {
        let removed = remove(&service, removal(node, &["192.0.2.1"])).await.unwrap();
        assert_eq!(removed.node.unwrap().access.unwrap().entries.len(), 3);
        let refused = add(&service, addition(node, vec![entry("192.0.2.9", "")])).await;
        assert_error(refused, Code::ResourceExhausted, "LIMIT_REACHED");
    }
    service.stop().await;
}

#[tokio::test]
async fn commands_say_on_what_they_acted_what_is_there_now_and_what_is_still_permitted() {
    let service = prepared().await;
    let with = |more: &[&'static str]| [&["nodes", "entries"][..], more].concat();
    let add = with(&["add", "projects/web", "198.51.100.7", "office", "192.0.2.0/24", "--description", "visitors"]);
    let (status, shown, told) = run(&service, &add, "").await;
    assert_eq!(status, Some(0), "{told}");
    for line in [PROJECT, "2 entries added, 1 entry described anew", "group office", "192.0.2.0/24", "visitors"] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    let again = with(&["add", "projects/web", "198.51.100.7"]);
    assert!(run(&service, &again, "").await.1.contains("0 entries added, 1 was there already"));
    let (status, shown, _) = run(&service, &with(&["remove", "projects/web", "192.0.2.0/24", "--preview"]), "").await;
    assert_eq!(status, Some(0));
    assert!(shown.contains("- would be denied") && shown.contains("192.0.2.0/24"), "{shown}");
    let (status, _, told) = run(&service, &with(&["remove", "projects/web", "192.0.2.7", "198.51.100.7"]), "").await;
    assert_eq!(status, Some(1));
    assert!(
        told.contains("RANGE|GROUP 1: `192.0.2.7` is no entry") && told.contains("`192.0.2.0/24` still permits it"),
        "{told}"
    );
    run(&service, &with(&["add", "projects/web", "--file", "-"]), "10.1.0.0/16 # first\n").await;
    let (_, shown, _) = run(&service, &with(&["remove", "projects/web", "10.1.0.0/16"]), "").await;
    assert!(shown.contains("1 entry removed"), "{shown}");
    assert!(shown.contains(&format!("still permitted: 10.1.0.0/16, by {OFFICE}")), "{shown}");
    let rest = with(&["remove", "projects/web", "192.0.2.0/24", "198.51.100.7", "office"]);
    let (_, shown, _) = run(&service, &rest, "").await;
    assert!(shown.contains("3 entries removed") && shown.contains("none, so nobody is permitted"), "{shown}");
    service.add_node(PROJECT, "main", None).await;
    let (status, _, told) = run(&service, &with(&["add", "projects/web/workspaces/main", "any"]), "").await;
    assert_eq!(status, Some(1));
    assert!(told.contains("inherits its access") && told.contains("portcullis nodes update"), "{told}");
    assert!(!told.contains("UpdateNode"), "{told}");
    assert_eq!(run(&service, &with(&["add", "projects/web"]), "").await.0, Some(2));
    let (_, _, told) = run(&service, &with(&["add", "projects/web", "any", "--guard-ip", "x"]), "").await;
    assert!(!told.contains("RANGE|GROUP"), "{told}");
    service.stop().await;
}
