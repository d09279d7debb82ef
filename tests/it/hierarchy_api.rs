//! Nodes through the API: the cluster, organizations, projects, workspaces and endpoints.
//!
//! Invariant: nobody is let in by a deletion unless that was forced, and revisions never go back.
//! Not here: malformed requests (`malformed_hierarchy`), pages (`lists_api`), permitted ranges (`permitted_api`).

use portcullis::config::Config;
use portcullis::policy::limits::Limits;
use portcullis::proto::v1::{
    Access, AccessMode, Action, ChangeOptions, CheckRequest, CheckResponse, ConnectionType, CreateNodeRequest,
    DeleteNodeRequest, GetNodeRequest, ListNodesRequest, ListRulesRequest, Node, ProblemCode, Reason,
    UpdateNodeRequest,
};
use prost_types::FieldMask;
use tonic::{Code, Response, Status};

use crate::harness::{Service, access, allow_list, assert_error};

const ORGANIZATION: &str = "organizations/default";
const PROJECT: &str = "organizations/default/projects/shop";
const WORKSPACE: &str = "organizations/default/projects/shop/workspaces/dev";
const ENDPOINT: &str = "organizations/default/projects/shop/workspaces/dev/endpoints/web";

async fn get(service: &Service, name: &str) -> Node {
    service.hierarchy().get_node(GetNodeRequest { name: name.to_owned() }).await.unwrap().into_inner()
}

async fn create(service: &Service, parent: &str, id: &str, node: Option<Node>) -> Result<Response<Node>, Status> {
    let request = CreateNodeRequest { parent: parent.to_owned(), node_id: id.to_owned(), node, options: None };
    service.hierarchy().create_node(request).await
}

async fn update(service: &Service, node: Node, paths: &[&str]) -> Result<Response<Node>, Status> {
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
    service.hierarchy().update_node(UpdateNodeRequest { node: Some(node), update_mask, options: None }).await
}

async fn delete(service: &Service, name: &str, force: bool) -> Result<Response<()>, Status> {
    let request = DeleteNodeRequest { name: name.to_owned(), force, ..DeleteNodeRequest::default() };
    service.hierarchy().delete_node(request).await
}

fn header<T>(response: &Response<T>) -> i64 {
    response.metadata().get("portcullis-revision").expect("the header").to_str().unwrap().parse().unwrap()
}

fn request(endpoint: &str) -> CheckRequest {
    CheckRequest {
        ip: "192.0.2.1".to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: endpoint.to_owned(),
        ..CheckRequest::default()
    }
}

fn reason_and_node(answer: &CheckResponse) -> (Reason, &str) {
    (answer.reason(), answer.node.as_str())
}

#[tokio::test]
async fn a_node_of_every_kind_is_created_with_its_default_read_changed_and_deleted() {
    let service = Service::start().await;
    for (parent, id, mode, revision) in [
        ("", "new", AccessMode::AllowAll, 1),
        ("organizations/new", "p", AccessMode::AllowList, 2),
        ("organizations/new/projects/p", "w", AccessMode::Inherit, 3),
        ("organizations/new/projects/p/workspaces/w", "e", AccessMode::Inherit, 4),
    ] {
        let given = Node { name: "ignored".to_owned(), etag: "x".to_owned(), revision: 99, ..Node::default() };
        let created = create(&service, parent, id, (id != "w").then_some(given)).await.unwrap();
        assert_eq!(header(&created), revision);
        let created = created.into_inner();
        let collection = ["organizations", "projects", "workspaces", "endpoints"];
        let collection = collection[usize::try_from(revision - 1).unwrap()];
        let name = if parent.is_empty() { format!("{collection}/{id}") } else { format!("{parent}/{collection}/{id}") };
        let expected = Node {
            name: name.clone(),
            require_projects: parent.is_empty().then_some(false),
            revision,
            access: Some(access(mode)),
            etag: created.etag.clone(),
            create_time: created.create_time,
            update_time: created.create_time,
            ..Node::default()
        };
        assert_eq!(created, expected);
        assert!(!created.etag.is_empty() && created.create_time.is_some());
        assert_eq!(get(&service, &name).await, created);
        assert_error(create(&service, parent, id, None).await, Code::AlreadyExists, "ALREADY_EXISTS");
    }
    let name = "organizations/new/projects/p/workspaces/w/endpoints/e";
    let before = get(&service, name).await;
    let given =
        Node { display_name: "ü".repeat(1_024), access: Some(allow_list(&["192.0.2.0/24"])), ..before.clone() };
    let changed = update(&service, given.clone(), &[]).await.unwrap().into_inner();
    assert_eq!((changed.revision, changed.access.clone(), changed.display_name.len()), (5, given.access, 2_048));
    assert!(changed.etag != before.etag && changed.create_time == before.create_time);
    for paths in [&[][..], &["*"], &["display_name"], &["access", "require_projects"]] {
        assert_eq!(update(&service, changed.clone(), paths).await.unwrap().into_inner(), changed, "no effect");
    }
    // Only what the mask names, and cleared where it is not given.
    let mixed = Node { name: name.to_owned(), access: Some(access(AccessMode::AllowAll)), ..Node::default() };
    let cleared = update(&service, mixed, &["display_name"]).await.unwrap().into_inner();
    assert_eq!((cleared.display_name.as_str(), cleared.access, cleared.revision), ("", changed.access, 6));
    assert_eq!(header(&delete(&service, name, true).await.unwrap()), 7);
    for answer in [delete(&service, name, true).await, delete(&service, "organizations/none", true).await] {
        assert_error(answer, Code::NotFound, "NOT_FOUND");
    }
    let gone = GetNodeRequest { name: name.to_owned() };
    assert_error(service.hierarchy().get_node(gone).await, Code::NotFound, "NOT_FOUND");
    for (parent, id) in [("organizations/none", "p"), ("organizations/new/projects/none", "w")] {
        assert_error(create(&service, parent, id, None).await, Code::NotFound, "NOT_FOUND");
    }
    let missing = ListNodesRequest { parent: "organizations/new/projects/none".to_owned(), ..Default::default() };
    assert_error(service.hierarchy().list_nodes(missing).await, Code::NotFound, "NOT_FOUND");
    assert_eq!(get(&service, ORGANIZATION).await.revision, 1, "the other organization was not touched");
    service.stop().await;
}

#[tokio::test]
async fn the_cluster_restricts_everything_and_counts_its_own_revision() {
    let service = Service::start().await;
    let before = get(&service, "cluster").await;
    assert_eq!(
        (before.name.as_str(), before.revision, before.access.clone()),
        ("cluster", 1, Some(access(AccessMode::AllowAll)))
    );
    service.add_rule("allow", Action::Allow, "any").await;
    let given = Node { access: Some(allow_list(&["198.51.100.0/24", "::ffff:198.51.101.0/120"])), ..before.clone() };
    let changed = update(&service, given, &["access"]).await.unwrap();
    assert_eq!(header(&changed), 2);
    let changed = changed.into_inner();
    assert_eq!(
        (changed.revision, changed.access.clone()),
        (2, Some(allow_list(&["198.51.100.0/24", "198.51.101.0/24"])))
    );
    for endpoint in [ORGANIZATION, PROJECT] {
        let answer = service.check("192.0.2.1", endpoint).await;
        assert_eq!(reason_and_node(&answer), (Reason::OutsideCluster, "cluster"));
        assert_eq!((answer.message.as_str(), answer.cluster_revision, answer.revision), ("cluster_restricted", 2, 2));
    }
    assert_eq!(service.check("198.51.101.1", ORGANIZATION).await.reason(), Reason::AllowRule);
    // The target comes first.
    let answer = service.check("192.0.2.1", "organizations/unknown").await;
    assert_eq!((answer.reason(), answer.revision, answer.cluster_revision), (Reason::UnknownEndpoint, 0, 2));
    let answer =
        update(&service, Node { etag: before.etag, access: Some(Access::default()), ..changed.clone() }, &[]).await;
    assert_error(answer, Code::Aborted, "STALE_ETAG");
    assert_error(delete(&service, "cluster", true).await, Code::InvalidArgument, "CLUSTER_UNDELETABLE");
    assert_eq!(update(&service, changed.clone(), &["*"]).await.unwrap().into_inner(), changed);
    let options = Some(ChangeOptions { validate_only: true, ..ChangeOptions::default() });
    let node = Some(Node { access: Some(access(AccessMode::AllowAll)), etag: String::new(), ..changed.clone() });
    let request = UpdateNodeRequest { node, update_mask: None, options };
    let judged = service.hierarchy().update_node(request).await.unwrap().into_inner();
    assert_eq!((judged.revision, judged.etag.as_str(), judged.access), (2, "", Some(access(AccessMode::AllowAll))));
    assert_eq!(get(&service, "cluster").await, changed);
    assert_eq!(get(&service, ORGANIZATION).await.revision, 2, "the organization's revision is its own");
    service.stop().await;
}

#[tokio::test]
async fn the_first_project_requires_projects_and_only_an_update_lifts_that() {
    let service = Service::start().await;
    let unregistered = "organizations/default/projects/none/workspaces/w/endpoints/e";
    assert_eq!(service.check("192.0.2.1", unregistered).await.reason(), Reason::DefaultAllow);
    let organization = get(&service, ORGANIZATION).await;
    assert!(!organization.require_projects());
    let project = create(&service, ORGANIZATION, "shop", None).await.unwrap().into_inner();
    let after = get(&service, ORGANIZATION).await;
    assert!(after.require_projects() && after.etag != organization.etag);
    assert_eq!((project.revision, after.revision), (2, 2), "one change");
    let answer = service.check("192.0.2.1", unregistered).await;
    assert_eq!((reason_and_node(&answer), answer.revision), ((Reason::UnknownEndpoint, ""), 2));
    assert_eq!(service.check("192.0.2.1", ORGANIZATION).await.reason(), Reason::DefaultAllow);
    // Deleting the project does not lift it, so nobody gets in by that, and no force is needed.
    delete(&service, PROJECT, false).await.unwrap();
    assert!(get(&service, ORGANIZATION).await.require_projects());
    assert_eq!(service.check("192.0.2.1", PROJECT).await.reason(), Reason::UnknownEndpoint);
    // False is not populated: without a mask nothing changes.
    let lifted = Node { name: ORGANIZATION.to_owned(), ..Node::default() };
    assert!(update(&service, lifted.clone(), &[]).await.unwrap().into_inner().require_projects());
    assert!(!update(&service, lifted, &["require_projects"]).await.unwrap().into_inner().require_projects());
    assert_eq!(service.check("192.0.2.1", PROJECT).await.reason(), Reason::DefaultAllow);
    service.stop().await;
}

#[tokio::test]
async fn a_deletion_that_lets_somebody_in_or_takes_children_along_needs_force() {
    let service = Service::start().await;
    create(
        &service,
        ORGANIZATION,
        "shop",
        Some(Node { access: Some(allow_list(&["192.0.2.0/24"])), ..Node::default() }),
    )
    .await
    .unwrap();
    create(&service, PROJECT, "dev", Some(Node { access: Some(allow_list(&["192.0.2.0/25"])), ..Node::default() }))
        .await
        .unwrap();
    create(&service, WORKSPACE, "web", Some(Node { access: Some(allow_list(&["192.0.2.0/24"])), ..Node::default() }))
        .await
        .unwrap();
    let revision = get(&service, ORGANIZATION).await.revision;
    for name in [ORGANIZATION, PROJECT, WORKSPACE] {
        assert_error(delete(&service, name, false).await, Code::FailedPrecondition, "HAS_CHILDREN");
    }
    let stale = DeleteNodeRequest { name: PROJECT.to_owned(), etag: "x".to_owned(), force: true, options: None };
    assert_error(service.hierarchy().delete_node(stale).await, Code::Aborted, "STALE_ETAG");
    assert_eq!(get(&service, ORGANIZATION).await.revision, revision);
    // Narrower above than here: nobody gets in.
    delete(&service, ENDPOINT, false).await.unwrap();
    assert_eq!(service.check("192.0.2.200", ENDPOINT).await.node, WORKSPACE);
    // Wider above: somebody does.
    let status = delete(&service, WORKSPACE, false).await;
    assert_error(status, Code::FailedPrecondition, "WOULD_WIDEN_ACCESS");
    // Unless the organization, or the cluster, keeps them out anyway.
    for bound in [ORGANIZATION, "cluster"] {
        service.set_access(bound, allow_list(&["192.0.2.0/26"])).await;
        let options = Some(ChangeOptions { validate_only: true, ..ChangeOptions::default() });
        let request = DeleteNodeRequest { name: WORKSPACE.to_owned(), options, ..DeleteNodeRequest::default() };
        service.hierarchy().delete_node(request).await.unwrap();
        service.set_access(bound, access(AccessMode::AllowAll)).await;
    }
    assert_eq!(get(&service, WORKSPACE).await.name, WORKSPACE, "only judged");
    delete(&service, WORKSPACE, true).await.unwrap();
    assert_eq!(service.check("192.0.2.200", ENDPOINT).await.reason(), Reason::DefaultAllow);
    // Without `require_projects` an unknown project is open, so deleting a known one opens it.
    let lifted = Node { name: ORGANIZATION.to_owned(), ..Node::default() };
    update(&service, lifted, &["require_projects"]).await.unwrap();
    assert_error(delete(&service, PROJECT, false).await, Code::FailedPrecondition, "WOULD_WIDEN_ACCESS");
    service.set_access(PROJECT, access(AccessMode::AllowAll)).await;
    delete(&service, PROJECT, false).await.unwrap();
    // With force all below goes too, in one change.
    for (parent, id) in [(ORGANIZATION, "shop"), (PROJECT, "dev"), (WORKSPACE, "web")] {
        create(&service, parent, id, None).await.unwrap();
    }
    let revision = get(&service, ORGANIZATION).await.revision;
    assert_eq!(header(&delete(&service, PROJECT, true).await.unwrap()), revision + 1);
    let request = ListNodesRequest { parent: ORGANIZATION.to_owned(), recursive: true, ..Default::default() };
    assert_eq!(service.hierarchy().list_nodes(request).await.unwrap().into_inner().nodes, []);
    service.stop().await;
}

#[tokio::test]
async fn an_organization_that_is_made_again_is_empty_and_goes_on_from_its_old_revision() {
    let service = Service::start().await;
    service.add_rule("r", Action::Deny, "any").await;
    create(&service, ORGANIZATION, "shop", None).await.unwrap();
    let old = get(&service, ORGANIZATION).await;
    assert_eq!(old.revision, 3);
    let deleted = header(&delete(&service, ORGANIZATION, true).await.unwrap());
    let answer = service.check("192.0.2.1", PROJECT).await;
    assert_eq!((answer.reason(), answer.revision), (Reason::UnknownEndpoint, 0));
    let request = ListRulesRequest { parent: ORGANIZATION.to_owned(), ..ListRulesRequest::default() };
    assert_error(service.firewall().list_rules(request.clone()).await, Code::NotFound, "NOT_FOUND");
    let new = create(&service, "", "default", None).await.unwrap().into_inner();
    assert!(new.revision > deleted && deleted > old.revision, "{} {deleted} {}", new.revision, old.revision);
    assert!(new.etag != old.etag && !new.require_projects());
    let listed = service.firewall().list_rules(request).await.unwrap().into_inner();
    assert_eq!((listed.rules.len(), listed.revision), (0, new.revision));
    let again = CheckRequest { min_revision: new.revision, ..self::request(PROJECT) };
    assert_eq!(service.decisions().check(again).await.unwrap().into_inner().reason(), Reason::DefaultAllow);
    // And once more, over a restart of the count.
    delete(&service, ORGANIZATION, false).await.unwrap();
    assert!(create(&service, "", "default", None).await.unwrap().into_inner().revision > new.revision);
    service.stop().await;
}

#[tokio::test]
async fn a_check_never_answers_from_an_older_revision_than_was_asked_for() {
    let service = Service::start().await;
    let revision = service.add_rule("r", Action::Deny, "any").await.revision;
    service.set_access("cluster", allow_list(&["192.0.2.0/24"])).await;
    let check = |min_revision, min_cluster_revision| {
        let mut decisions = service.decisions();
        let request = CheckRequest { min_revision, min_cluster_revision, ..request(ORGANIZATION) };
        async move { decisions.check(request).await }
    };
    let answer = check(revision, 2).await.unwrap();
    assert_eq!(header(&answer), revision);
    assert_eq!((answer.get_ref().revision, answer.get_ref().cluster_revision), (revision, 2));
    for (wanted, cluster, reason) in [
        (revision + 1, 0, "REVISION_NOT_REACHED"),
        (i64::MAX, 2, "REVISION_NOT_REACHED"),
        (0, 3, "CLUSTER_REVISION_NOT_REACHED"),
        (revision, i64::MAX, "CLUSTER_REVISION_NOT_REACHED"),
    ] {
        assert_error(check(wanted, cluster).await, Code::Unavailable, reason);
    }
    // As soon as it is there, it is there.
    service.add_rule("s", Action::Deny, "any").await;
    assert_eq!(check(revision + 1, 2).await.unwrap().into_inner().revision, revision + 1);
    let unknown = CheckRequest { min_revision: 1, ..request("organizations/unknown") };
    assert_error(service.decisions().check(unknown).await, Code::Unavailable, "REVISION_NOT_REACHED");
    service.stop().await;
}

#[tokio::test]
async fn a_limit_of_nodes_or_entries_refuses_the_change_that_would_pass_it() {
    let temporary = tempfile::tempdir().unwrap();
    let limits =
        Limits { organizations_max: 2, nodes_per_organization_max: 2, entries_per_node_max: 2, ..Limits::default() };
    let service = Service::with_config(Config { limits, ..Config::for_data_dir(temporary.path().join("data")) }).await;
    let refused = |answer: Result<Response<Node>, Status>| {
        assert_error(answer, Code::ResourceExhausted, "LIMIT_REACHED");
    };
    let listing = |count: usize| Node { access: Some(allow_list(&["192.0.2.1"].repeat(count))), ..Node::default() };
    for name in [ORGANIZATION, "cluster"] {
        refused(update(&service, Node { name: name.to_owned(), ..listing(3) }, &[]).await);
        update(&service, Node { name: name.to_owned(), ..listing(2) }, &[]).await.unwrap();
    }
    refused(create(&service, "", "second", Some(listing(3))).await);
    create(&service, "", "second", Some(listing(2))).await.unwrap();
    refused(create(&service, "", "third", None).await);
    refused(create(&service, ORGANIZATION, "shop", Some(listing(3))).await);
    create(&service, ORGANIZATION, "shop", None).await.unwrap();
    create(&service, PROJECT, "dev", None).await.unwrap();
    refused(create(&service, WORKSPACE, "web", None).await);
    refused(create(&service, ORGANIZATION, "other", None).await);
    delete(&service, WORKSPACE, true).await.unwrap();
    create(&service, ORGANIZATION, "other", None).await.unwrap();
    delete(&service, "organizations/second", true).await.unwrap();
    create(&service, "", "third", None).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn lists_of_nodes_report_those_that_permit_nobody() {
    let service = Service::start().await;
    create(&service, ORGANIZATION, "shop", None).await.unwrap();
    service.add_node(ORGANIZATION, "open", Some(access(AccessMode::AllowAll))).await;
    service.add_node(PROJECT, "dev", None).await;
    let request = ListNodesRequest { recursive: true, ..ListNodesRequest::default() };
    let listed = service.hierarchy().list_nodes(request).await.unwrap();
    assert!(listed.metadata().get("portcullis-revision").is_none(), "an answer about no single organization");
    let problems = listed.into_inner().problems;
    let shown: Vec<_> = problems.iter().map(|problem| (problem.code(), problem.resource.as_str())).collect();
    assert_eq!(shown, [(ProblemCode::NoAddresses, PROJECT)]);
    service.set_access(PROJECT, allow_list(&["192.0.2.1"])).await;
    let request = ListNodesRequest { parent: ORGANIZATION.to_owned(), ..ListNodesRequest::default() };
    let listed = service.hierarchy().list_nodes(request).await.unwrap();
    assert_eq!((header(&listed), listed.into_inner().problems), (5, Vec::new()));
    service.stop().await;
}
