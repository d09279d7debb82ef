//! PreviewChange: what it tells is what making the change then does, and nothing is made.
//!
//! Invariant: after every preview the policy is what it was.
//! Not here: that differences are exact (`impact`).

use portcullis::proto::v1::mutation::Request;
use portcullis::proto::v1::{
    AccessMode, Action, AddRangesRequest, AddressGroup, ApplyPolicyRequest, ChangeGates, ChangeOptions, CheckRequest,
    ConnectionType, CreateAddressGroupRequest, CreateNodeRequest, CreateRuleRequest, Decision, DeleteNodeRequest,
    DeleteRuleRequest, ErrorReason, ExportPolicyRequest, GetNodeRequest, Mutation, Node, PolicyTest,
    PreviewChangeRequest, PreviewChangeResponse, ProblemCode, ReorderRulesRequest, RollbackRevisionRequest, Rule,
    UpdateNodeRequest,
};
use prost_types::Duration;
use tonic::{Code, Status};

use crate::harness::{Service, access, allow_list, assert_error, fields, rule};

const DEFAULT: &str = "organizations/default";

async fn preview(service: &Service, parent: &str, requests: Vec<Request>) -> Result<PreviewChangeResponse, Status> {
    let before = service.hierarchy().get_node(GetNodeRequest { name: parent.to_owned() }).await.ok();
    let mutations = requests.into_iter().map(|request| Mutation { request: Some(request) }).collect();
    let request = PreviewChangeRequest {
        parent: parent.to_owned(),
        mutations,
        replay_within: Some(Duration { seconds: 3_600, nanos: 0 }),
    };
    let previewed = service.analysis().preview_change(request).await.map(tonic::Response::into_inner);
    let after = service.hierarchy().get_node(GetNodeRequest { name: parent.to_owned() }).await.ok();
    assert_eq!(before.map(tonic::Response::into_inner), after.map(tonic::Response::into_inner));
    previewed
}

fn new_rule(action: Action, range: &str, position: i32) -> CreateRuleRequest {
    CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule(action, range)),
        position: Some(position),
        ..CreateRuleRequest::default()
    }
}

async fn check_as(service: &Service, email: &str, ip: &str, endpoint: &str) -> Decision {
    let request = CheckRequest {
        ip: ip.to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: endpoint.to_owned(),
        user_email: email.to_owned(),
        ..CheckRequest::default()
    };
    service.decisions().check(request).await.unwrap().into_inner().decision()
}

/// Of a preview, the newly permitted and the newly denied ranges of a node for shells.
fn at<'a>(previewed: &'a PreviewChangeResponse, node: &str) -> (Vec<&'a str>, Vec<&'a str>) {
    let found = previewed
        .differences
        .iter()
        .find(|difference| difference.node == node && difference.connection_type() == ConnectionType::Shell);
    let texts = |ranges: &'a [String]| ranges.iter().map(String::as_str).collect();
    found.map_or_else(Default::default, |found| (texts(&found.newly_permitted), texts(&found.newly_denied)))
}

#[tokio::test]
async fn a_preview_tells_who_would_be_let_in_and_out_whose_sessions_would_go_and_who_would_have_been_refused() {
    let service = Service::start().await;
    service.add_node(DEFAULT, "web", Some(allow_list(&["10.0.0.0/8"]))).await;
    let web = format!("{DEFAULT}/projects/web");
    for (email, ip) in
        [("ann@example.com", "10.1.0.1"), ("ann@example.com", "10.1.0.2"), ("bob@example.com", "10.2.0.1")]
    {
        assert_eq!(check_as(&service, email, ip, &web).await, Decision::Allow);
    }
    assert_eq!(check_as(&service, "eve@example.com", "192.0.2.1", &web).await, Decision::Deny);

    let shut = vec![Request::CreateRule(new_rule(Action::Deny, "10.1.0.0/16", 1))];
    let previewed = preview(&service, DEFAULT, shut).await.unwrap();
    assert_eq!(at(&previewed, &web), (vec![], vec!["10.1.0.0/16"]));
    assert_eq!(at(&previewed, DEFAULT), (vec![], vec!["10.1.0.0/16"]));
    assert_eq!((previewed.revocation_count, previewed.revoked_sessions.len()), (2, 2));
    assert!(previewed.revoked_sessions.iter().all(|name| name.starts_with("organizations/default/sessions/")));
    assert_eq!((previewed.changes.len(), previewed.refusals.len(), previewed.truncated), (1, 0, false));
    let replay = previewed.replay.unwrap();
    assert_eq!((replay.decision_count, replay.newly_denied_count, replay.newly_permitted_count), (4, 2, 0));
    let [ann] = replay.users.as_slice() else { panic!("{:?}", replay.users) };
    assert_eq!((ann.user_email.as_str(), ann.newly_denied_count), ("ann@example.com", 2));

    // Several mutations are one change, each made on top of those before it.
    let opened = Request::UpdateNode(UpdateNodeRequest {
        node: Some(Node {
            name: web.clone(),
            access: Some(allow_list(&["10.0.0.0/8", "192.0.2.0/24"])),
            ..Node::default()
        }),
        ..UpdateNodeRequest::default()
    });
    let shut = Request::CreateRule(new_rule(Action::Deny, "192.0.2.128/25", 1));
    let previewed = preview(&service, DEFAULT, vec![opened, shut]).await.unwrap();
    assert_eq!(at(&previewed, &web), (vec!["192.0.2.0/25"], vec![]));
    assert_eq!(at(&previewed, DEFAULT), (vec![], vec!["192.0.2.128/25"]));
    let replay = previewed.replay.unwrap();
    assert_eq!((replay.newly_permitted_count, replay.users[0].user_email.as_str()), (1, "eve@example.com"));
    assert_eq!(previewed.revocation_count, 0);

    // What is previewed is what is made.
    service.add_rule("shut", Action::Deny, "10.1.0.0/16").await;
    assert_eq!(check_as(&service, "ann@example.com", "10.1.0.1", &web).await, Decision::Deny);
    service.stop().await;
}

#[tokio::test]
async fn a_preview_tells_problems_that_come_and_go_and_gates_that_would_refuse() {
    let service = Service::start().await;
    service.add_rule("offices", Action::Allow, "10.0.0.0/8").await;
    service.add_rule("lab", Action::Deny, "10.0.5.0/24").await;
    let names = ["lab", "offices"].map(|id| format!("{DEFAULT}/rules/{id}"));
    let reorder = ReorderRulesRequest { parent: DEFAULT.to_owned(), rules: names.to_vec(), ..Default::default() };
    let previewed = preview(&service, DEFAULT, vec![Request::ReorderRules(reorder)]).await.unwrap();
    let resolved = |code: ProblemCode| previewed.problems_resolved.iter().any(|problem| problem.code() == code);
    assert!(resolved(ProblemCode::ShadowedRule), "{:?}", previewed.problems_resolved);
    assert_eq!(at(&previewed, DEFAULT), (vec![], vec!["10.0.5.0/24"]));

    let gates = ChangeGates { guard_ips: vec!["10.0.0.1".to_owned()], ..ChangeGates::default() };
    let own = Node { name: DEFAULT.to_owned(), change_gates: Some(gates), ..Node::default() };
    let request = UpdateNodeRequest { node: Some(own), ..UpdateNodeRequest::default() };
    service.hierarchy().update_node(request).await.unwrap();
    let test = portcullis::proto::v1::CreatePolicyTestRequest {
        parent: DEFAULT.to_owned(),
        policy_test: Some(PolicyTest {
            ip: "10.0.0.2".to_owned(),
            connection_type: ConnectionType::Preview.into(),
            endpoint: DEFAULT.to_owned(),
            expected_decision: Decision::Allow.into(),
            ..PolicyTest::default()
        }),
        policy_test_id: "office".to_owned(),
        options: None,
    };
    service.analysis().create_policy_test(test).await.unwrap();
    let mut shut = new_rule(Action::Deny, "any", 1);
    shut.options = Some(ChangeOptions { max_revocations: Some(0), ..ChangeOptions::default() });
    assert_eq!(check_as(&service, "ann@example.com", "10.0.0.9", DEFAULT).await, Decision::Allow);
    let previewed = preview(&service, DEFAULT, vec![Request::CreateRule(shut.clone())]).await.unwrap();
    let reasons: Vec<ErrorReason> = previewed.refusals.iter().map(portcullis::proto::v1::Refusal::reason).collect();
    let expected = [ErrorReason::GuardViolated, ErrorReason::TestsFailed, ErrorReason::TooManyRevocations];
    assert_eq!(reasons, expected, "{:?}", previewed.refusals);
    assert!(previewed.problems_added.iter().any(|problem| problem.code() == ProblemCode::LocksEveryoneOut));
    assert_error(service.firewall().create_rule(shut).await, Code::FailedPrecondition, "GUARD_VIOLATED");
    service.stop().await;
}

#[tokio::test]
async fn groups_nodes_whole_policies_deletions_and_the_cluster_can_be_previewed() {
    let service = Service::start().await;
    let group = CreateAddressGroupRequest {
        parent: DEFAULT.to_owned(),
        address_group: Some(AddressGroup { ranges: vec!["10.0.0.0/24".to_owned()], ..AddressGroup::default() }),
        address_group_id: "office".to_owned(),
        options: None,
    };
    let created = Request::CreateAddressGroup(group.clone());
    let more = Request::AddRanges(AddRangesRequest {
        name: format!("{DEFAULT}/addressGroups/office"),
        ranges: vec!["10.0.1.0/24".to_owned()],
        options: None,
    });
    let by_group = Rule {
        action: Action::Deny.into(),
        source: Some(portcullis::proto::v1::rule::Source::AddressGroup(format!("{DEFAULT}/addressGroups/office"))),
        ..Rule::default()
    };
    let rule = CreateRuleRequest { parent: DEFAULT.to_owned(), rule: Some(by_group), ..CreateRuleRequest::default() };
    let all = vec![created, more, Request::CreateRule(rule)];
    let previewed = preview(&service, DEFAULT, all).await.unwrap();
    assert_eq!(at(&previewed, DEFAULT), (vec![], vec!["10.0.0.0/23"]));

    // The first project makes projects required: every unregistered one is shut.
    let node = CreateNodeRequest {
        parent: DEFAULT.to_owned(),
        node_id: "web".to_owned(),
        node: Some(Node { access: Some(access(AccessMode::AllowAll)), ..Node::default() }),
        options: None,
    };
    let previewed = preview(&service, DEFAULT, vec![Request::CreateNode(node)]).await.unwrap();
    assert_eq!(at(&previewed, &format!("{DEFAULT}/projects/-")), (vec![], vec!["0.0.0.0/0", "::/0"]));
    assert_eq!(at(&previewed, &format!("{DEFAULT}/projects/web")), (vec![], vec![]));

    let policy = service
        .analysis()
        .export_policy(ExportPolicyRequest { parent: DEFAULT.to_owned(), omit_ranges: false })
        .await
        .unwrap()
        .into_inner();
    let mut other = policy.clone();
    other.nodes[0].access = Some(allow_list(&["10.0.0.0/8"]));
    let apply = ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(other), ..ApplyPolicyRequest::default() };
    let previewed = preview(&service, DEFAULT, vec![Request::ApplyPolicy(apply)]).await.unwrap();
    assert_eq!((at(&previewed, DEFAULT).1.len(), at(&previewed, DEFAULT).1[0]), (9, "::/0"));
    assert_eq!(previewed.changes.len(), 1);

    service.add_rule("shut", Action::Deny, "192.0.2.0/24").await;
    let back = RollbackRevisionRequest { name: format!("{DEFAULT}/revisions/1"), ..RollbackRevisionRequest::default() };
    let previewed = preview(&service, DEFAULT, vec![Request::RollbackRevision(back)]).await.unwrap();
    assert_eq!(at(&previewed, DEFAULT), (vec!["192.0.2.0/24"], vec![]));

    assert_eq!(check_as(&service, "ann@example.com", "10.0.0.9", DEFAULT).await, Decision::Allow);
    let gone = DeleteNodeRequest { name: DEFAULT.to_owned(), force: true, ..DeleteNodeRequest::default() };
    let previewed = preview(&service, DEFAULT, vec![Request::DeleteNode(gone)]).await.unwrap();
    assert_eq!((previewed.revocation_count, previewed.replay.unwrap().newly_denied_count), (1, 1));

    let cluster = UpdateNodeRequest {
        node: Some(Node {
            name: "cluster".to_owned(),
            access: Some(allow_list(&["192.0.2.0/24", "198.51.100.0/24"])),
            ..Node::default()
        }),
        ..UpdateNodeRequest::default()
    };
    let previewed = preview(&service, "cluster", vec![Request::UpdateNode(cluster)]).await.unwrap();
    assert_eq!(at(&previewed, DEFAULT).1[0], "::/0");
    assert_eq!((previewed.revocation_count, previewed.revision), (1, 1));
    service.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_mutation_is_told_at_its_path() {
    let service = Service::start().await;
    let refused = |result| assert_error(result, Code::InvalidArgument, "INVALID_FIELD");
    let good = || Request::CreateRule(new_rule(Action::Deny, "10.0.0.0/8", 1));
    let bad = Request::CreateRule(new_rule(Action::Unspecified, "10.0.0.5/8", 7));
    let status = refused(preview(&service, DEFAULT, vec![good(), bad]).await);
    let mut paths = fields(&status);
    paths.sort();
    let expected = ["position", "rule.action", "rule.range"].map(|field| format!("mutations[1].create_rule.{field}"));
    assert_eq!(paths, expected);
    let nowhere = Request::CreateRule(CreateRuleRequest { parent: "x".into(), ..new_rule(Action::Deny, "any", 1) });
    assert_eq!(fields(&refused(preview(&service, DEFAULT, vec![nowhere]).await)), ["mutations[0].create_rule.parent"]);
    let status = refused(preview(&service, DEFAULT, vec![]).await);
    assert_eq!(fields(&status), ["mutations"]);
    let foreign = Request::CreateRule(CreateRuleRequest {
        parent: "organizations/other".into(),
        ..new_rule(Action::Deny, "any", 1)
    });
    assert_eq!(fields(&refused(preview(&service, DEFAULT, vec![foreign]).await)), ["mutations[0].create_rule"]);
    let gone = Request::DeleteRule(DeleteRuleRequest {
        name: format!("{DEFAULT}/rules/nothing"),
        ..DeleteRuleRequest::default()
    });
    assert_error(preview(&service, DEFAULT, vec![gone]).await, Code::NotFound, "NOT_FOUND");
    let empty = PreviewChangeRequest {
        parent: DEFAULT.to_owned(),
        mutations: vec![Mutation { request: None }],
        replay_within: Some(Duration { seconds: -1, nanos: 0 }),
    };
    let status = refused(service.analysis().preview_change(empty.clone()).await.map(tonic::Response::into_inner));
    assert_eq!(fields(&status), ["replay_within"]);
    let empty = PreviewChangeRequest { replay_within: None, ..empty };
    let status = refused(service.analysis().preview_change(empty).await.map(tonic::Response::into_inner));
    assert_eq!(fields(&status), ["mutations[0]"]);
    service.stop().await;
}
