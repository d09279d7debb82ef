//! Malformed requests of HierarchyService: names, settings, entries, masks and pages.
//!
//! Invariant: a malformed request names all its faults with their paths at once and changes nothing; nothing that is
//! unset or unknown is taken for "allow".
//! Not here: what nodes do when all is well (`hierarchy_api`).

use portcullis::proto::v1::access_entry::Source;
use portcullis::proto::v1::{
    Access, AccessEntry, AccessMode, ChangeOptions, CreateNodeRequest, DeleteNodeRequest, GetEffectiveAccessRequest,
    GetNodeRequest, ListNodesRequest, ListPermittedRangesRequest, Node, UpdateNodeRequest,
};
use prost_types::FieldMask;
use tonic::{Code, Response, Status};

use crate::harness::{access, allow_list};
use crate::malformed_rules::NO_RANGES;
use crate::refusals::{FOREIGN, GROUP, ORGANIZATION, PROJECT, RULE, Table};

const WORKSPACE: &str = "organizations/default/projects/shop/workspaces/dev";
const ENDPOINT: &str = "organizations/default/projects/shop/workspaces/dev/endpoints/web";
const MISSING: &str = "organizations/default/addressGroups/missing";

/// Names that are no node's.
const NO_NODES: &[&str] = &[
    "default",
    "Cluster",
    "cluster/",
    "clusters/cluster",
    "organizations",
    "organizations/",
    "organizations/Default",
    "organizations/default/",
    "organizations/default-",
    "organizations/default/projects",
    "organizations/default/projects/-",
    "organizations/default/workspaces/dev",
    "organizations/default/projects/shop/endpoints/web",
    "organizations/default/projects/shop/workspaces/dev/endpoints/web/x/y",
    RULE,
    GROUP,
];

fn creation(parent: &str, node: Node) -> CreateNodeRequest {
    CreateNodeRequest { parent: parent.to_owned(), node_id: "new".to_owned(), node: Some(node), options: None }
}

fn with(access: Access) -> Node {
    Node { access: Some(access), ..Node::default() }
}

fn by_group(name: &str) -> AccessEntry {
    AccessEntry { source: Some(Source::AddressGroup(name.to_owned())), description: String::new() }
}

fn by_range(range: &str) -> AccessEntry {
    AccessEntry { source: Some(Source::Range(range.to_owned())), description: String::new() }
}

fn listing(entries: Vec<AccessEntry>) -> Access {
    Access { mode: AccessMode::AllowList.into(), entries }
}

async fn create(t: &Table, parent: &str, node: Node) -> Result<Response<Node>, Status> {
    t.hierarchy().create_node(creation(parent, node)).await
}

async fn update(t: &Table, name: &str, node: Node, paths: &[&str]) -> Result<Response<Node>, Status> {
    let mask = FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
    let node = Some(Node { name: name.to_owned(), ..node });
    t.hierarchy().update_node(UpdateNodeRequest { node, update_mask: Some(mask), options: None }).await
}

#[tokio::test]
async fn no_malformed_access_is_set_on_any_kind_of_node() {
    let mut t = Table::start().await;
    for (parent, name) in [
        ("", ORGANIZATION),
        (ORGANIZATION, PROJECT),
        (PROJECT, WORKSPACE),
        (WORKSPACE, ENDPOINT),
        // The cluster cannot be created: its parent is no parent.
        ("-", "cluster"),
    ] {
        let mut cases = vec![
            ("no mode", Access::default(), vec!["node.access.mode"]),
            ("no mode, entries", Access { mode: 0, ..allow_list(&["any"]) }, vec!["node.access.mode"]),
            ("unknown mode", Access { mode: 4, entries: vec![] }, vec!["node.access.mode"]),
            (
                "negative mode",
                Access { mode: -1, ..allow_list(&["x"]) },
                vec!["node.access.mode", "node.access.entries[0].range"],
            ),
            ("entries to allow all", Access { mode: 2, ..allow_list(&["any"]) }, vec!["node.access.entries"]),
            (
                "entry without source",
                listing(vec![by_range("any"), AccessEntry::default()]),
                vec!["node.access.entries[1].range"],
            ),
            ("missing group", listing(vec![by_group(MISSING)]), vec!["node.access.entries[0].address_group"]),
            ("foreign group", listing(vec![by_group(FOREIGN)]), vec!["node.access.entries[0].address_group"]),
            ("no group", listing(vec![by_group("")]), vec!["node.access.entries[0].address_group"]),
            ("a rule for a group", listing(vec![by_group(RULE)]), vec!["node.access.entries[0].address_group"]),
            (
                "a malformed entry before a missing group",
                listing(vec![by_range("10.0.0.1/8"), by_group(MISSING), by_range("x"), by_group(FOREIGN)]),
                vec![
                    "node.access.entries[0].range",
                    "node.access.entries[1].address_group",
                    "node.access.entries[2].range",
                    "node.access.entries[3].address_group",
                ],
            ),
        ];
        let inherits = name == WORKSPACE || name == ENDPOINT;
        if inherits {
            let given = Access { mode: AccessMode::Inherit.into(), ..allow_list(&["any"]) };
            cases.push(("entries to inherit", given, vec!["node.access.entries"]));
        } else {
            cases.push(("inherit", access(AccessMode::Inherit), vec!["node.access.mode"]));
        }
        if name == "cluster" {
            cases.push((
                "a group of the cluster",
                listing(vec![by_group(GROUP)]),
                vec!["node.access.entries[0].address_group"],
            ));
        }
        for (case, given, paths) in cases {
            if parent != "-" {
                let answer = create(&t, parent, with(given.clone())).await;
                t.invalid(&format!("{case}, below `{parent}`"), answer, &paths).await;
            }
            let answer = update(&t, name, with(given), &["access"]).await;
            t.invalid(&format!("{case}, `{name}`"), answer, &paths).await;
        }
        if name != ORGANIZATION {
            let node = Node { require_projects: Some(true), ..Node::default() };
            let answer = update(&t, name, node, &["require_projects"]).await;
            t.invalid(&format!("projects required of {name}"), answer, &["node.require_projects"]).await;
        }
    }
    for (case, range, _) in NO_RANGES {
        let answer = create(&t, ORGANIZATION, with(allow_list(&["any", range]))).await;
        t.invalid(case, answer, &["node.access.entries[1].range"]).await;
    }
    t.finish(120).await;
}

#[tokio::test]
async fn no_malformed_name_is_looked_up() {
    let mut t = Table::start().await;
    for name in NO_NODES.iter().copied().chain([""]) {
        let answer = t.hierarchy().get_node(GetNodeRequest { name: name.to_owned() }).await;
        t.invalid(&format!("get `{name}`"), answer, &["name"]).await;
        let request = DeleteNodeRequest { name: name.to_owned(), force: true, ..DeleteNodeRequest::default() };
        t.invalid(&format!("delete `{name}`"), t.hierarchy().delete_node(request).await, &["name"]).await;
        let request = GetEffectiveAccessRequest { name: name.to_owned() };
        t.invalid(&format!("access `{name}`"), t.hierarchy().get_effective_access(request).await, &["name"]).await;
        let request = ListPermittedRangesRequest { name: name.to_owned(), connection_type: 1, ..Default::default() };
        t.invalid(&format!("ranges `{name}`"), t.hierarchy().list_permitted_ranges(request).await, &["name"]).await;
        t.invalid(&format!("update `{name}`"), update(&t, name, Node::default(), &[]).await, &["node.name"]).await;
        if name.is_empty() {
            continue;
        }
        let request = ListNodesRequest { parent: name.to_owned(), ..ListNodesRequest::default() };
        t.invalid(&format!("list `{name}`"), t.hierarchy().list_nodes(request).await, &["parent"]).await;
        t.invalid(&format!("create below `{name}`"), create(&t, name, Node::default()).await, &["parent"]).await;
    }
    for parent in ["cluster", ENDPOINT] {
        t.invalid(parent, create(&t, parent, Node::default()).await, &["parent"]).await;
    }
    let request = ListNodesRequest { parent: "cluster".to_owned(), ..ListNodesRequest::default() };
    t.invalid("list the cluster", t.hierarchy().list_nodes(request).await, &["parent"]).await;
    let request = DeleteNodeRequest { name: "cluster".to_owned(), force: true, ..DeleteNodeRequest::default() };
    let answer = t.hierarchy().delete_node(request).await;
    t.refused("delete the cluster", answer, Code::InvalidArgument, "CLUSTER_UNDELETABLE", &[]).await;
    let request = ListPermittedRangesRequest { name: "cluster".to_owned(), connection_type: 1, ..Default::default() };
    t.invalid("ranges of the cluster", t.hierarchy().list_permitted_ranges(request).await, &["name"]).await;
    t.finish(110).await;
}

#[tokio::test]
async fn no_other_malformed_field_enters_a_node_and_all_of_them_are_named_at_once() {
    let mut t = Table::start().await;
    for id in ["", "New", "-new", "new-", "n ew", "n/ew", "größe", &"x".repeat(64)] {
        let request = CreateNodeRequest { node_id: id.to_owned(), ..creation(ORGANIZATION, Node::default()) };
        t.invalid(&format!("id `{id}`"), t.hierarchy().create_node(request).await, &["node_id"]).await;
    }
    let long = || "ü".repeat(1_025);
    for (parent, name) in [("", ORGANIZATION), (ORGANIZATION, PROJECT), (PROJECT, WORKSPACE), (WORKSPACE, ENDPOINT)] {
        let node = Node { display_name: long(), ..Node::default() };
        t.invalid(name, create(&t, parent, node.clone()).await, &["node.display_name"]).await;
        t.invalid(name, update(&t, name, node, &[]).await, &["node.display_name"]).await;
        if !parent.is_empty() {
            let node = Node { require_projects: Some(true), ..Node::default() };
            t.invalid(parent, create(&t, parent, node).await, &["node.require_projects"]).await;
        }
    }
    let described = AccessEntry { description: long(), ..by_range("x") };
    let worst = Node {
        display_name: long(),
        require_projects: Some(true),
        access: Some(listing(vec![by_range("any"), described, by_group(MISSING)])),
        ..Node::default()
    };
    let in_node = [
        "node.display_name",
        "node.require_projects",
        "node.access.entries[1].range",
        "node.access.entries[1].description",
        "node.access.entries[2].address_group",
    ];
    t.invalid("the node", create(&t, ORGANIZATION, worst.clone()).await, &in_node).await;
    let answer = update(&t, PROJECT, worst.clone(), &["access", "display_name", "require_projects", "name"]).await;
    t.invalid("node and mask", answer, &[&in_node[..], &["update_mask"]].concat()).await;
    let comment = ChangeOptions { comment: long(), ..ChangeOptions::default() };
    let inheriting = Node { access: Some(access(AccessMode::Inherit)), display_name: long(), ..Node::default() };
    let request =
        CreateNodeRequest { node_id: "X".to_owned(), options: Some(comment), ..creation(ORGANIZATION, inheriting) };
    let paths = ["node_id", "options.comment", "node.display_name", "node.access.mode"];
    t.invalid("id, options and node", t.hierarchy().create_node(request.clone()).await, &paths).await;
    // Below what, is not known, so whether it may inherit is not either.
    let request = CreateNodeRequest { parent: "x".to_owned(), ..request };
    let paths = ["parent", "node_id", "options.comment", "node.display_name"];
    t.invalid("everything", t.hierarchy().create_node(request).await, &paths).await;
    t.finish(23).await;
}

#[tokio::test]
async fn no_mask_reaches_what_an_update_of_a_node_cannot_set() {
    let mut t = Table::start().await;
    let node = || Node { display_name: "new".to_owned(), ..with(access(AccessMode::AllowAll)) };
    for path in ["name", "revision", "create_time", "update_time", "access.mode", "access.entries", "Access", ""] {
        t.invalid(path, update(&t, PROJECT, node(), &["access", path]).await, &["update_mask"]).await;
        t.invalid(path, update(&t, "cluster", node(), &[path]).await, &["update_mask"]).await;
    }
    t.invalid("star and another", update(&t, PROJECT, node(), &["*", "access"]).await, &["update_mask"]).await;
    for name in ["cluster", ORGANIZATION, PROJECT, WORKSPACE] {
        t.invalid(name, update(&t, name, Node::default(), &["access"]).await, &["node.access"]).await;
        // "Nothing unset means allow": only a node that is created has a default access.
        t.invalid(name, update(&t, name, Node::default(), &["*"]).await, &["node.access"]).await;
    }
    t.finish(25).await;
}

#[tokio::test]
async fn pages_of_nodes_and_permitted_ranges_are_refused_with_all_that_is_wrong() {
    let mut t = Table::start().await;
    let nodes = |parent: &str, recursive, page_size, page_token: &str| ListNodesRequest {
        parent: parent.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
        recursive,
    };
    let token = t.hierarchy().list_nodes(nodes("", true, 1, "")).await.unwrap().into_inner().next_page_token;
    for (case, request) in [
        ("token of a recursive list", nodes("", false, 1, &token)),
        ("token of another parent", nodes(ORGANIZATION, true, 1, &token)),
        ("no token", nodes("", true, 1, "organizations/default")),
    ] {
        t.invalid(case, t.hierarchy().list_nodes(request).await, &["page_token"]).await;
    }
    let answer = t.hierarchy().list_nodes(nodes("x", true, -1, "x")).await;
    t.invalid("all", answer, &["parent", "page_size", "page_token"]).await;
    let answer = t.hierarchy().list_nodes(nodes("organizations/missing", false, 0, "")).await;
    t.refused("missing", answer, Code::NotFound, "NOT_FOUND", &[]).await;

    let ranges = |name: &str, connection_type, page_size, page_token: &str| ListPermittedRangesRequest {
        name: name.to_owned(),
        connection_type,
        page_size,
        page_token: page_token.to_owned(),
    };
    let first = t.hierarchy().list_permitted_ranges(ranges(PROJECT, 1, 1, "")).await.unwrap().into_inner();
    for connection_type in [0, 3, -1] {
        let answer = t.hierarchy().list_permitted_ranges(ranges(PROJECT, connection_type, 1, "")).await;
        t.invalid("connection type", answer, &["connection_type"]).await;
    }
    for (case, request) in [
        ("token of another node", ranges(WORKSPACE, 1, 1, &first.next_page_token)),
        ("token of another connection type", ranges(PROJECT, 2, 1, &first.next_page_token)),
        ("no token", ranges(PROJECT, 1, 1, "1")),
        ("token of nodes", ranges(PROJECT, 1, 1, &token)),
    ] {
        t.invalid(case, t.hierarchy().list_permitted_ranges(request).await, &["page_token"]).await;
    }
    let answer = t.hierarchy().list_permitted_ranges(ranges("x", 0, -1, "x")).await;
    t.invalid("all", answer, &["name", "connection_type", "page_size", "page_token"]).await;
    let unknown = "organizations/default/projects/unknown/workspaces/dev";
    for name in ["organizations/missing", unknown] {
        let answer = t.hierarchy().list_permitted_ranges(ranges(name, 1, 0, "")).await;
        t.refused(name, answer, Code::NotFound, "NOT_FOUND", &[]).await;
        let request = GetEffectiveAccessRequest { name: name.to_owned() };
        t.refused(name, t.hierarchy().get_effective_access(request).await, Code::NotFound, "NOT_FOUND", &[]).await;
    }
    t.finish(16).await;
}
