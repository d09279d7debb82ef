//! What guards single changes guards those of the whole policy too: gates, tests, and consent to deletions that widen.
//!
//! Invariant: a refused change leaves the policy as it was.
//! Not here: the gates themselves (`gates_api`).

use std::time::Duration;

use portcullis::proto::v1::mutation::Request;
use portcullis::proto::v1::{
    AccessMode, Action, ApplyPolicyRequest, ApplyPolicyResponse, ChangeGates, ChangeOptions, ConnectionType,
    CreateNodeRequest, CreatePolicyTestRequest, CreateRuleRequest, Decision, DeleteNodeRequest,
    DeletePolicyTestRequest, DeleteRuleRequest, GetNodeRequest, Mutation, Node, Policy, PolicySection, PolicyTest,
    PreviewChangeRequest, PromoteShadowPolicyRequest, ReplaceRulesRequest, Revision, RollbackRevisionRequest,
    SetShadowPolicyRequest, UpdateNodeRequest, policy_object,
};
use tonic::{Code, Status};

use crate::clock::{Hand, until};
use crate::harness::{Service, access, allow_list, assert_error, rule};
use crate::policy_api::{DEFAULT, export};

const WEB: &str = "organizations/default/projects/web";

fn nodes(nodes: Vec<Node>) -> Policy {
    Policy { nodes, sections: vec![PolicySection::Nodes.into()], ..Policy::default() }
}

async fn apply(service: &Service, policy: Policy, force: bool) -> Result<ApplyPolicyResponse, Status> {
    let request =
        ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(policy), force, ..ApplyPolicyRequest::default() };
    service.analysis().apply_policy(request).await.map(tonic::Response::into_inner)
}

async fn preview(service: &Service, request: Request) -> Result<(), Status> {
    let mutations = vec![Mutation { request: Some(request) }];
    let request = PreviewChangeRequest { parent: DEFAULT.to_owned(), mutations, replay_within: None };
    service.analysis().preview_change(request).await.map(drop)
}

fn rollback_to(revision: i64, force: bool) -> RollbackRevisionRequest {
    RollbackRevisionRequest { name: format!("{DEFAULT}/revisions/{revision}"), force, ..Default::default() }
}

async fn rollback(service: &Service, revision: i64, force: bool) -> Result<Revision, Status> {
    let request = rollback_to(revision, force);
    service.analysis().rollback_revision(request).await.map(tonic::Response::into_inner)
}

async fn promote(service: &Service, force: bool) -> Result<Revision, Status> {
    let request = PromoteShadowPolicyRequest { parent: DEFAULT.to_owned(), force, options: None };
    service.analysis().promote_shadow_policy(request).await.map(tonic::Response::into_inner)
}

async fn set_shadow(service: &Service, request: Request) {
    let mutations = vec![Mutation { request: Some(request) }];
    let request = SetShadowPolicyRequest { parent: DEFAULT.to_owned(), mutations, options: None };
    service.analysis().set_shadow_policy(request).await.unwrap();
}

async fn add_test(service: &Service, ip: &str, expected: Decision) {
    let test = PolicyTest {
        ip: ip.to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        expected_decision: expected.into(),
        ..PolicyTest::default()
    };
    let request = CreatePolicyTestRequest {
        parent: DEFAULT.to_owned(),
        policy_test: Some(test),
        policy_test_id: "must".to_owned(),
        options: None,
    };
    service.analysis().create_policy_test(request).await.unwrap();
}

async fn set_gates(service: &Service, gates: ChangeGates) {
    let own = Node { name: DEFAULT.to_owned(), change_gates: Some(gates), ..Node::default() };
    let request = UpdateNodeRequest { node: Some(own), ..UpdateNodeRequest::default() };
    service.hierarchy().update_node(request).await.unwrap();
}

/// The names of the objects that a revision deleted.
fn deleted(revision: Revision) -> Vec<String> {
    let gone = revision.policy_change.unwrap().changes.into_iter().filter(|change| change.after.is_none());
    gone.map(|change| match change.before.unwrap().object.unwrap() {
        policy_object::Object::Rule(rule) => rule.name,
        policy_object::Object::Node(node) => node.name,
        policy_object::Object::PolicyTest(test) => test.name,
        other => panic!("{other:?}"),
    })
    .collect()
}

async fn revision(service: &Service) -> i64 {
    export(service, true).await.revision
}

/// The project `web`, open to 10.0.0.0/8, with a workspace open to 10.1.0.0/16 and one that inherits.
async fn with_workspaces(service: &Service) -> (Node, Node) {
    let web = service.add_node(DEFAULT, "web", Some(allow_list(&["10.0.0.0/8"]))).await;
    service.add_node(WEB, "inherits", None).await;
    let narrow = service.add_node(WEB, "narrow", Some(allow_list(&["10.1.0.0/16"]))).await;
    (web, narrow)
}

fn assert_widens<T: std::fmt::Debug>(refused: Result<T, Status>, named: &str) {
    let status = assert_error(refused, Code::FailedPrecondition, "WOULD_WIDEN_ACCESS");
    let expected = format!("deleting {named} out now: set `force` if that is meant");
    assert_eq!(status.message(), expected);
}

#[tokio::test]
async fn a_policy_that_deletes_a_node_and_permits_more_there_needs_force() {
    let service = Service::start().await;
    let (web, narrow) = with_workspaces(&service).await;
    let before = export(&service, false).await;
    let named = format!("`{WEB}/workspaces/narrow` would permit addresses that it keeps");
    let smaller = || nodes(vec![web.clone()]);
    assert_widens(apply(&service, smaller(), false).await, &named);
    let request = ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(smaller()), ..Default::default() };
    assert_widens(preview(&service, Request::ApplyPolicy(request.clone())).await, &named);
    preview(&service, Request::ApplyPolicy(ApplyPolicyRequest { force: true, ..request })).await.unwrap();
    assert_eq!(export(&service, false).await, before);
    // It is what deleting the node alone needs.
    let request = DeleteNodeRequest { name: narrow.name.clone(), ..DeleteNodeRequest::default() };
    assert_widens(service.hierarchy().delete_node(request).await, &named);
    // A workspace that inherits keeps nobody out, and nobody gets in where the parent becomes as narrow.
    apply(&service, nodes(vec![web.clone(), narrow.clone()]), false).await.unwrap();
    let as_narrow = Node { access: Some(allow_list(&["10.1.0.0/17"])), ..web.clone() };
    apply(&service, nodes(vec![as_narrow]), false).await.unwrap();
    apply(&service, nodes(vec![web.clone(), narrow.clone()]), false).await.unwrap();
    apply(&service, smaller(), true).await.unwrap();
    // A project that must exist is closed by its deletion.
    apply(&service, nodes(Vec::new()), false).await.unwrap();
    assert_eq!(service.check("10.0.0.1", WEB).await.decision(), Decision::Deny);
    service.stop().await;
}

#[tokio::test]
async fn what_the_organization_and_the_policy_after_the_change_permit_counts_for_deletions() {
    let service = Service::start().await;
    let project = |id: &str| Node {
        name: format!("{DEFAULT}/projects/{id}"),
        access: Some(allow_list(&["10.0.0.0/8"])),
        ..Node::default()
    };
    let own = |required, access| Node {
        name: DEFAULT.to_owned(),
        require_projects: Some(required),
        access: Some(access),
        ..Node::default()
    };
    let everything = || access(AccessMode::AllowAll);
    let mut all = vec![own(true, everything())];
    all.extend(["a", "b", "c", "d", "e"].map(project));
    apply(&service, nodes(all), false).await.unwrap();
    // The same change that deletes the projects no longer requires them: they are open then.
    let named = |id: &str| format!("`{DEFAULT}/projects/{id}`");
    let first = format!("{}, {}, {} and 2 other nodes", named("a"), named("b"), named("c"));
    let opened = apply(&service, nodes(vec![own(false, everything())]), false).await;
    assert_widens(opened, &format!("{first} would permit addresses that they keep"));
    // Unless the organization keeps out whom the projects kept out.
    apply(&service, nodes(vec![own(false, allow_list(&["10.2.0.0/16"]))]), false).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn going_back_and_promoting_need_force_where_they_delete_and_say_what_they_deleted() {
    let service = Service::start().await;
    let web = service.add_node(DEFAULT, "web", Some(allow_list(&["10.0.0.0/8"]))).await;
    let base = revision(&service).await;
    service.add_node(WEB, "narrow", Some(allow_list(&["10.1.0.0/16"]))).await;
    add_test(&service, "192.0.2.1", Decision::Allow).await;
    service.add_rule("late", Action::Deny, "198.51.100.1").await;
    let full = revision(&service).await;
    let named = format!("`{WEB}/workspaces/narrow` would permit addresses that it keeps");
    assert_widens(rollback(&service, base, false).await, &named);
    assert_widens(preview(&service, Request::RollbackRevision(rollback_to(base, false))).await, &named);
    assert_eq!(revision(&service).await, full);
    let gone =
        [format!("{DEFAULT}/policyTests/must"), format!("{WEB}/workspaces/narrow"), format!("{DEFAULT}/rules/late")];
    // Judging only answers with the present revision and with what would be altered.
    let options = Some(ChangeOptions { validate_only: true, ..ChangeOptions::default() });
    let request = RollbackRevisionRequest { options, ..rollback_to(base, true) };
    let judged = service.analysis().rollback_revision(request).await.unwrap().into_inner();
    assert_eq!((judged.revision, deleted(judged)), (full, gone.to_vec()));
    let back = rollback(&service, base, true).await.unwrap();
    assert_eq!((back.revision, deleted(back)), (full + 1, gone.to_vec()));
    // Going back to what is there already alters nothing.
    assert!(deleted(rollback(&service, base, false).await.unwrap()).is_empty());

    rollback(&service, full, false).await.unwrap();
    let smaller = nodes(vec![web]);
    let request =
        ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(smaller), force: true, ..Default::default() };
    set_shadow(&service, Request::ApplyPolicy(request)).await;
    assert_widens(promote(&service, false).await, &named);
    assert_eq!(deleted(promote(&service, true).await.unwrap()), [format!("{WEB}/workspaces/narrow")]);
    service.stop().await;
}

#[tokio::test]
async fn the_undo_of_a_change_that_is_not_confirmed_needs_no_force() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    service.add_node(DEFAULT, "web", Some(allow_list(&["10.0.0.0/8"]))).await;
    let within = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let request = CreateNodeRequest {
        parent: WEB.to_owned(),
        node_id: "narrow".to_owned(),
        node: Some(Node { access: Some(allow_list(&["10.1.0.0/16"])), ..Node::default() }),
        options: Some(ChangeOptions { confirm_within: within, ..ChangeOptions::default() }),
    };
    let name = service.hierarchy().create_node(request).await.unwrap().into_inner().name;
    hand.advance(Duration::from_mins(1));
    until("the node is gone", async || {
        service.hierarchy().get_node(GetNodeRequest { name: name.clone() }).await.is_err().then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn gates_hold_for_going_back_promoting_replacing_and_applying() {
    let service = Service::start().await;
    let open = revision(&service).await;
    service.add_rule("shut", Action::Deny, "any").await;
    set_gates(&service, ChangeGates { refuse_open_to_internet: true, ..ChangeGates::default() }).await;
    let before = export(&service, false).await;
    let refused = |result: Result<(), Status>| assert_error(result, Code::FailedPrecondition, "OPEN_TO_INTERNET");
    refused(rollback(&service, open, true).await.map(drop));
    let replace = ReplaceRulesRequest { parent: DEFAULT.to_owned(), ..ReplaceRulesRequest::default() };
    refused(service.firewall().replace_rules(replace.clone()).await.map(drop));
    let emptied = Policy { sections: vec![PolicySection::Rules.into()], ..Policy::default() };
    refused(apply(&service, emptied, true).await.map(drop));
    // A policy that lifts the gate and opens at once is judged by the gate as it was.
    let own = Node { name: DEFAULT.to_owned(), change_gates: Some(ChangeGates::default()), ..Node::default() };
    let lifted = Policy { nodes: vec![own], sections: vec![1, 3], ..Policy::default() };
    refused(apply(&service, lifted, true).await.map(drop));
    assert_eq!(export(&service, false).await, before);
    let delete = DeleteRuleRequest { name: format!("{DEFAULT}/rules/shut"), ..DeleteRuleRequest::default() };
    set_shadow(&service, Request::DeleteRule(delete)).await;
    refused(promote(&service, true).await.map(drop));
    service.stop().await;
}

#[tokio::test]
async fn tests_hold_as_they_were_for_changes_that_remove_or_rewrite_them() {
    let service = Service::start().await;
    let open = revision(&service).await;
    service.add_rule("shut", Action::Deny, "any").await;
    add_test(&service, "8.8.8.8", Decision::Deny).await;
    let before = export(&service, false).await;
    let refused = |result: Result<(), Status>| {
        let status = assert_error(result, Code::FailedPrecondition, "TESTS_FAILED");
        assert!(status.message().contains("must"), "{status:?}");
    };
    // Going back removes the test and opens what it asks to be shut.
    refused(rollback(&service, open, true).await.map(drop));
    let policy = |tests: Vec<PolicyTest>| Policy { policy_tests: tests, sections: vec![1, 4], ..Policy::default() };
    refused(apply(&service, policy(Vec::new()), true).await.map(drop));
    let mut rewritten = before.policy_tests.clone();
    rewritten[0].expected_decision = Decision::Allow.into();
    refused(apply(&service, policy(rewritten), true).await.map(drop));
    let replace = ReplaceRulesRequest { parent: DEFAULT.to_owned(), ..ReplaceRulesRequest::default() };
    refused(service.firewall().replace_rules(replace).await.map(drop));
    let create = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule(Action::Allow, "8.0.0.0/8")),
        position: Some(1),
        ..CreateRuleRequest::default()
    };
    set_shadow(&service, Request::CreateRule(create)).await;
    refused(promote(&service, true).await.map(drop));
    let request = ApplyPolicyRequest {
        parent: DEFAULT.to_owned(),
        policy: Some(policy(Vec::new())),
        options: Some(ChangeOptions { override_tests: true, ..ChangeOptions::default() }),
        ..ApplyPolicyRequest::default()
    };
    service.analysis().apply_policy(request).await.unwrap();
    assert_eq!(service.check("8.8.8.8", DEFAULT).await.decision(), Decision::Allow);
    // A test that would pass may be removed.
    add_test(&service, "8.8.8.8", Decision::Allow).await;
    let request = DeletePolicyTestRequest { name: format!("{DEFAULT}/policyTests/must"), options: None };
    service.analysis().delete_policy_test(request).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn a_test_that_has_ended_is_applied_and_goes_and_comes_back() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let ending = |seconds| PolicyTest {
        ip: "192.0.2.1".to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        expected_decision: Decision::Allow.into(),
        end_time: Some(prost_types::Timestamp { seconds: hand.now().as_secs().try_into().unwrap(), nanos: 0 })
            .map(|now| prost_types::Timestamp { seconds: now.seconds + seconds, ..now }),
        ..PolicyTest::default()
    };
    let tests = |policy_tests| Policy { policy_tests, ..Policy::default() };
    let (soon, past) = (ending(30), ending(0));
    apply(&service, tests(vec![soon.clone(), past]), false).await.unwrap();
    assert_eq!(export(&service, false).await.policy_tests.len(), 2);
    apply(&service, tests(vec![soon.clone()]), false).await.unwrap();
    let kept = export(&service, false).await.policy_tests;
    // Removing it has to be confirmed, and is undone at a moment when the test has ended.
    let within = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let request = DeletePolicyTestRequest {
        name: kept[0].name.clone(),
        options: Some(ChangeOptions { confirm_within: within, ..ChangeOptions::default() }),
    };
    service.analysis().delete_policy_test(request).await.unwrap();
    hand.advance(Duration::from_mins(1));
    until("the test is back", async || (export(&service, false).await.policy_tests == kept).then_some(())).await;
    // One that is there may stay.
    let before = revision(&service).await;
    assert_eq!(apply(&service, tests(vec![soon]), false).await.unwrap().revision, before);
    service.stop().await;
}
