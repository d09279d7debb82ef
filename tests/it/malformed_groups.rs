//! Malformed requests about address groups, the streamed replacement included.
//!
//! Invariant: a malformed request names all its faults with their paths at once; one malformed range, wherever in a
//! stream it comes, changes nothing.
//! Not here: rules (`malformed_rules`), what groups do when all is well (`groups_api`).

use portcullis::proto::v1::{
    AddRangesRequest, AddressGroup, ChangeOptions, CreateAddressGroupRequest, DeleteAddressGroupRequest,
    GetAddressGroupRequest, GroupCreation, ListAddressGroupsRequest, ListRangesRequest, PatchRangesRequest,
    RemoveRangesRequest, ReplaceRangesRequest, UpdateAddressGroupRequest,
};
use prost_types::FieldMask;
use tonic::{Code, Response, Status};

use crate::malformed_check::NO_ADDRESSES;
use crate::malformed_rules::NO_RANGES;
use crate::refusals::{FOREIGN, GROUP, ORGANIZATION, OTHER, RULE, Table};

const MISSING: &str = "organizations/default/addressGroups/missing";

/// What is sent, and what it is refused with: code, reason, fields.
type PatchCase<'a> = (&'a str, Vec<PatchRangesRequest>, (Code, &'a str), &'a [&'a str]);

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

async fn replace(t: &Table, messages: Vec<ReplaceRangesRequest>) -> Result<Response<AddressGroup>, Status> {
    t.firewall().replace_ranges(tokio_stream::iter(messages)).await
}

fn first(ranges: &[&str]) -> ReplaceRangesRequest {
    ReplaceRangesRequest { name: GROUP.to_owned(), ranges: texts(ranges), ..ReplaceRangesRequest::default() }
}

fn later(ranges: &[&str]) -> ReplaceRangesRequest {
    ReplaceRangesRequest { name: String::new(), ..first(ranges) }
}

fn creation(description: &str, ranges: &[&str]) -> CreateAddressGroupRequest {
    let group = AddressGroup { description: description.to_owned(), ranges: texts(ranges), ..AddressGroup::default() };
    CreateAddressGroupRequest {
        parent: ORGANIZATION.to_owned(),
        address_group: Some(group),
        ..CreateAddressGroupRequest::default()
    }
}

#[tokio::test]
async fn no_malformed_range_enters_a_group_by_any_door() {
    let mut t = Table::start().await;
    let no_ranges = NO_RANGES.iter().map(|(case, range, _)| (*case, *range)).chain(NO_ADDRESSES.iter().copied());
    for (case, range) in no_ranges {
        let ranges = texts(&["192.0.2.1", range]);
        let answer = t.firewall().create_address_group(creation("", &["192.0.2.1", range])).await;
        t.invalid(case, answer, &["address_group.ranges[1]"]).await;
        let request = AddRangesRequest { name: GROUP.to_owned(), ranges: ranges.clone(), options: None };
        t.invalid(case, t.firewall().add_ranges(request).await, &["ranges[1]"]).await;
        let request = RemoveRangesRequest { name: GROUP.to_owned(), ranges, options: None };
        t.invalid(case, t.firewall().remove_ranges(request).await, &["ranges[1]"]).await;
        let stream = vec![first(&["192.0.2.1"]), later(&["192.0.2.2", range])];
        t.invalid(case, replace(&t, stream).await, &["ranges[2]"]).await;
    }
    t.finish(150).await;
}

#[tokio::test]
async fn no_malformed_field_enters_a_group_and_all_of_them_are_named_at_once() {
    let mut t = Table::start().await;
    let answer = t.firewall().create_address_group(creation(&"ü".repeat(1_025), &[])).await;
    t.invalid("1,025 characters", answer, &["address_group.description"]).await;
    for id in ["Office", "-a", "a-", "a b", "büro", &"x".repeat(64)] {
        let request = CreateAddressGroupRequest { address_group_id: id.to_owned(), ..creation("", &[]) };
        t.invalid(id, t.firewall().create_address_group(request).await, &["address_group_id"]).await;
    }
    let comment = ChangeOptions { comment: "x".repeat(1_025), ..ChangeOptions::default() };
    let request = CreateAddressGroupRequest {
        parent: "x".to_owned(),
        address_group_id: "X".to_owned(),
        options: Some(comment),
        ..creation(&"x".repeat(1_025), &["x", "any", "y"])
    };
    let paths = [
        "parent",
        "address_group_id",
        "options.comment",
        "address_group.description",
        "address_group.ranges[0]",
        "address_group.ranges[2]",
    ];
    t.invalid("everything", t.firewall().create_address_group(request).await, &paths).await;
    for parent in ["", "default", "cluster", GROUP] {
        let request = CreateAddressGroupRequest { parent: parent.to_owned(), ..creation("", &[]) };
        t.invalid(parent, t.firewall().create_address_group(request).await, &["parent"]).await;
        let request = ListAddressGroupsRequest { parent: parent.to_owned(), ..Default::default() };
        t.invalid(parent, t.firewall().list_address_groups(request).await, &["parent"]).await;
    }
    for name in ["", "office", ORGANIZATION, RULE, "organizations/default/addressGroups/Office", &format!("{GROUP}/")] {
        let name = name.to_owned();
        let request = GetAddressGroupRequest { name: name.clone() };
        t.invalid(&name, t.firewall().get_address_group(request).await, &["name"]).await;
        let request = DeleteAddressGroupRequest { name: name.clone(), ..Default::default() };
        t.invalid(&name, t.firewall().delete_address_group(request).await, &["name"]).await;
        let request = AddRangesRequest { name: name.clone(), ranges: texts(&["x"]), options: None };
        t.invalid(&name, t.firewall().add_ranges(request).await, &["name", "ranges[0]"]).await;
        let request = RemoveRangesRequest { name: name.clone(), ranges: texts(&["x"]), options: None };
        t.invalid(&name, t.firewall().remove_ranges(request).await, &["name", "ranges[0]"]).await;
        let request = ListRangesRequest { name: name.clone(), ..Default::default() };
        t.invalid(&name, t.firewall().list_ranges(request).await, &["name"]).await;
        let stream = vec![ReplaceRangesRequest { name: name.clone(), ..first(&["x"]) }, later(&["y"])];
        t.invalid(&name, replace(&t, stream).await, &["name", "ranges[0]", "ranges[1]"]).await;
        let address_group = Some(AddressGroup { name, ..AddressGroup::default() });
        let request = UpdateAddressGroupRequest { address_group, ..Default::default() };
        t.invalid("update", t.firewall().update_address_group(request).await, &["address_group.name"]).await;
    }
    t.finish(50).await;
}

#[tokio::test]
async fn no_mask_reaches_what_an_update_of_a_group_cannot_set() {
    let mut t = Table::start().await;
    let group = || AddressGroup { name: GROUP.to_owned(), description: "new".to_owned(), ..AddressGroup::default() };
    let request = |group: AddressGroup, paths: &[&str]| UpdateAddressGroupRequest {
        address_group: Some(group),
        update_mask: Some(FieldMask { paths: texts(paths) }),
        options: None,
    };
    for path in ["ranges", "range_count", "name", "create_time", "update_time", "revision", "Description", ""] {
        let answer = t.firewall().update_address_group(request(group(), &["description", path])).await;
        t.invalid(path, answer, &["update_mask"]).await;
    }
    let answer = t.firewall().update_address_group(request(group(), &["description", "*"])).await;
    t.invalid("star and another", answer, &["update_mask"]).await;
    let with_ranges = AddressGroup { ranges: texts(&["192.0.2.1"]), ..group() };
    let unmasked = UpdateAddressGroupRequest { update_mask: None, ..request(with_ranges, &[]) };
    t.invalid("ranges", t.firewall().update_address_group(unmasked).await, &["address_group.ranges"]).await;
    let long = AddressGroup { description: "x".repeat(1_025), ..group() };
    let answer = t.firewall().update_address_group(request(long, &["*", "ranges"])).await;
    t.invalid("all at once", answer, &["address_group.description", "update_mask"]).await;
    t.finish(11).await;
}

#[tokio::test]
async fn a_stream_of_ranges_that_is_not_as_announced_is_refused() {
    let mut t = Table::start().await;
    let mismatch = (Code::InvalidArgument, "COUNT_MISMATCH");
    let empty = (Code::InvalidArgument, "EMPTY_REPLACEMENT");
    let not_found = (Code::NotFound, "NOT_FOUND");
    let stale = (Code::Aborted, "STALE_ETAG");
    let counted = |expected_count, ranges: &[&str]| ReplaceRangesRequest { expected_count, ..first(ranges) };
    let staled = |message| ReplaceRangesRequest { etag: "group-0".to_owned(), ..message };
    let lost = |message| ReplaceRangesRequest { name: MISSING.to_owned(), ..message };
    let cases = [
        ("one too few", vec![counted(3, &["192.0.2.1"]), later(&["192.0.2.2"])], mismatch, "expected_count"),
        ("one too many", vec![counted(1, &["192.0.2.1"]), later(&["192.0.2.2"])], mismatch, "expected_count"),
        ("none", vec![counted(1, &[]), later(&[])], mismatch, "expected_count"),
        ("none, and none announced", vec![first(&[])], empty, "ranges"),
        ("none in several messages", vec![first(&[]), later(&[]), later(&[])], empty, "ranges"),
        ("none, as often as announced", vec![counted(0, &[])], empty, "ranges"),
        ("missing group", vec![lost(first(&["192.0.2.1"]))], not_found, ""),
        ("missing group, bad range", vec![lost(first(&["x"]))], not_found, ""),
        ("missing group, bad count", vec![lost(counted(2, &["192.0.2.1"]))], not_found, ""),
        ("stale", vec![staled(first(&["192.0.2.1"]))], stale, ""),
        ("stale before a bad range", vec![staled(first(&["x"]))], stale, ""),
        ("stale before a bad count", vec![staled(counted(5, &["192.0.2.1"]))], stale, ""),
        ("stale before an empty stream", vec![staled(first(&[]))], stale, ""),
        ("stale before a later etag", vec![staled(first(&["any"])), staled(later(&["any"]))], stale, ""),
    ];
    for (case, stream, (code, reason), path) in cases {
        let paths: &[&str] = if path.is_empty() { &[] } else { &[path] };
        t.refused(case, replace(&t, stream).await, code, reason, paths).await;
    }
    let options = Some(ChangeOptions { validate_only: true, ..ChangeOptions::default() });
    let fields = ReplaceRangesRequest {
        name: FOREIGN.to_owned(),
        etag: "group-1".to_owned(),
        expected_count: 2,
        allow_empty: true,
        options,
        ..later(&["x"])
    };
    let paths = ["name", "etag", "expected_count", "allow_empty", "options", "ranges[1]"];
    t.invalid("later fields", replace(&t, vec![first(&["any"]), fields]).await, &paths).await;
    let stream = vec![first(&["any"]), first(&["any"])];
    t.invalid("the name again", replace(&t, stream).await, &["name"]).await;
    let stream = vec![counted(-1, &["any", "x"])];
    t.invalid("negative count", replace(&t, stream).await, &["expected_count", "ranges[1]"]).await;
    t.invalid("no message", replace(&t, vec![]).await, &["name"]).await;
    // A malformed range is no reason to hide that the count is wrong too, nor the other way round.
    let answer = replace(&t, vec![counted(3, &["x", "any"])]).await;
    t.invalid("count and range", answer, &["expected_count", "ranges[0]"]).await;
    t.finish(19).await;
}

#[tokio::test]
async fn a_patch_that_is_not_as_announced_or_makes_no_sense_is_refused() {
    let mut t = Table::start().await;
    let patch = async |messages: Vec<PatchRangesRequest>| t.firewall().patch_ranges(tokio_stream::iter(messages)).await;
    let later = |add: &[&str], remove: &[&str]| PatchRangesRequest {
        add: texts(add),
        remove: texts(remove),
        ..PatchRangesRequest::default()
    };
    let first = |add: &[&str], remove: &[&str]| PatchRangesRequest { name: GROUP.to_owned(), ..later(add, remove) };
    let counted = |add_count, remove_count, message| PatchRangesRequest {
        expected_add_count: add_count,
        expected_remove_count: remove_count,
        ..message
    };
    let creating = |message| PatchRangesRequest {
        name: "organizations/default/addressGroups/new".to_owned(),
        create: Some(GroupCreation::default()),
        ..message
    };
    let mismatch = (Code::InvalidArgument, "COUNT_MISMATCH");
    let invalid = (Code::InvalidArgument, "INVALID_FIELD");
    let etag = "group-0".to_owned();
    let named = |name: &str| PatchRangesRequest { name: name.to_owned(), ..first(&["x"], &["y"]) };
    let others = PatchRangesRequest {
        create: Some(GroupCreation::default()),
        etag: etag.clone(),
        options: Some(ChangeOptions::default()),
        ..counted(1, 1, first(&["x"], &[]))
    };
    let again = ["name", "etag", "create", "expected_add_count", "expected_remove_count", "options", "add[1]"];
    let long = Some(GroupCreation { description: "x".repeat(1_025) });
    let cases: Vec<PatchCase<'_>> = vec![
        ("one too few", vec![counted(2, 0, first(&["any"], &[]))], mismatch, &["expected_add_count"]),
        (
            "one too many",
            vec![counted(0, 1, first(&[], &["any"])), later(&[], &["::"])],
            mismatch,
            &["expected_remove_count"],
        ),
        (
            "both wrong",
            vec![counted(2, 2, first(&["any"], &[]))],
            mismatch,
            &["expected_add_count", "expected_remove_count"],
        ),
        ("count and range", vec![counted(3, 0, first(&["x"], &[]))], invalid, &["expected_add_count", "add[0]"]),
        ("negative", vec![counted(-1, -1, first(&[], &[]))], invalid, &["expected_add_count", "expected_remove_count"]),
        ("both directions", vec![first(&["10.1.0.0/16"], &["::ffff:10.1.0.0/112"])], invalid, &["remove[0]"]),
        ("fields again", vec![first(&["any"], &[]), others], invalid, &again),
        ("no message", vec![], invalid, &["name"]),
        ("no group", vec![named("organizations/default")], invalid, &["name", "add[0]", "remove[0]"]),
        ("removes from a new group", vec![creating(first(&[], &["any"]))], invalid, &["remove"]),
        ("etag of a new group", vec![creating(PatchRangesRequest { etag, ..first(&[], &[]) })], invalid, &["etag"]),
        (
            "long description",
            vec![PatchRangesRequest { create: long, ..creating(first(&[], &[])) }],
            invalid,
            &["create.description"],
        ),
    ];
    let mut answers = Vec::new();
    for (case, messages, (code, reason), paths) in cases {
        answers.push((case, patch(messages).await, code, reason, paths));
    }
    for (case, answer, code, reason, paths) in answers {
        t.refused(case, answer, code, reason, paths).await;
    }
    for (case, range, _) in NO_RANGES {
        let stream = vec![first(&["192.0.2.1"], &["192.0.2.2", range]), later(&["192.0.2.3", range], &[])];
        let answer = t.firewall().patch_ranges(tokio_stream::iter(stream)).await;
        t.invalid(case, answer, &["remove[1]", "add[2]"]).await;
    }
    t.finish(30).await;
}

#[tokio::test]
async fn pages_of_groups_and_ranges_are_refused_with_all_that_is_wrong() {
    let mut t = Table::start().await;
    for id in ["a", "b"] {
        let request = CreateAddressGroupRequest { address_group_id: id.to_owned(), ..creation("", &["any", "::/0"]) };
        t.firewall().create_address_group(request).await.unwrap();
    }
    t.prepared().await;
    let groups = |parent: &str, page_size, page_token: &str| ListAddressGroupsRequest {
        parent: parent.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
    };
    let ranges = |name: &str, page_size, page_token: &str| ListRangesRequest {
        name: name.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
    };
    let (a, b) = ("organizations/default/addressGroups/a", "organizations/default/addressGroups/b");
    let of_groups = t.firewall().list_address_groups(groups(ORGANIZATION, 1, "")).await.unwrap();
    let of_groups = of_groups.into_inner().next_page_token;
    let of_ranges = t.firewall().list_ranges(ranges(a, 1, "")).await.unwrap().into_inner().next_page_token;
    for (case, request) in [
        ("token of ranges", groups(ORGANIZATION, 1, &of_ranges)),
        ("token of another organization", groups(OTHER, 1, &of_groups)),
        ("no token", groups(ORGANIZATION, 1, "1")),
    ] {
        t.invalid(case, t.firewall().list_address_groups(request).await, &["page_token"]).await;
    }
    let answer = t.firewall().list_address_groups(groups("x", -1, "x")).await;
    t.invalid("all", answer, &["parent", "page_size", "page_token"]).await;
    for (case, request) in [
        ("token of groups", ranges(a, 1, &of_groups)),
        ("token of another group", ranges(b, 1, &of_ranges)),
        ("no token", ranges(a, 1, "1")),
    ] {
        t.invalid(case, t.firewall().list_ranges(request).await, &["page_token"]).await;
    }
    let answer = t.firewall().list_ranges(ranges("x", -1, "x")).await;
    t.invalid("all", answer, &["name", "page_size", "page_token"]).await;
    let answer = t.firewall().list_ranges(ranges(MISSING, 1, "")).await;
    t.refused("missing", answer, Code::NotFound, "NOT_FOUND", &[]).await;
    t.finish(9).await;
}
