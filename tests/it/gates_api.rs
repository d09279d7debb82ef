//! Gates and policy tests: what they refuse, what they let pass, and what stands on the record.
//!
//! Invariant: a refused change leaves the revision as it was.
//! Not here: what a change differs in (`impact`), changes that wait for their confirmation (`revisions_api`).

use portcullis::proto::v1::{
    AccessMode, Action, AuditType, ChangeGates, ChangeOptions, ConnectionType, CreatePolicyTestRequest,
    CreateRuleRequest, Decision, DeletePolicyTestRequest, DeleteRuleRequest, ErrorReason, GetNodeRequest,
    ListAuditRecordsRequest, ListPolicyTestsRequest, Mutation, Node, PolicyChange, PolicyTest, PreviewChangeRequest,
    Rule, UpdateNodeRequest, audit_record, mutation,
};
use tonic::{Code, Status};

use crate::harness::{Service, access, allow_list, assert_error, fields, rule};

const DEFAULT: &str = "organizations/default";

async fn revision(service: &Service) -> i64 {
    let request = GetNodeRequest { name: DEFAULT.to_owned() };
    service.hierarchy().get_node(request).await.unwrap().into_inner().revision
}

async fn create(service: &Service, action: Action, range: &str, options: ChangeOptions) -> Result<Rule, Status> {
    let request = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule(action, range)),
        position: Some(1),
        options: Some(options),
        ..CreateRuleRequest::default()
    };
    service.firewall().create_rule(request).await.map(tonic::Response::into_inner)
}

async fn set(service: &Service, node: Node, options: ChangeOptions) -> Result<Node, Status> {
    let request = UpdateNodeRequest { node: Some(node), options: Some(options), ..UpdateNodeRequest::default() };
    service.hierarchy().update_node(request).await.map(tonic::Response::into_inner)
}

fn guard(ip: &str) -> ChangeOptions {
    ChangeOptions { guard_ips: vec![ip.to_owned()], ..ChangeOptions::default() }
}

fn test_of(ip: &str, endpoint: &str, expected: Decision) -> PolicyTest {
    PolicyTest {
        ip: ip.to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: endpoint.to_owned(),
        expected_decision: expected.into(),
        description: "must stay so".to_owned(),
        ..PolicyTest::default()
    }
}

async fn add_test(service: &Service, id: &str, test: PolicyTest, options: ChangeOptions) -> Result<PolicyTest, Status> {
    let request = CreatePolicyTestRequest {
        parent: DEFAULT.to_owned(),
        policy_test: Some(test),
        policy_test_id: id.to_owned(),
        options: Some(options),
    };
    service.analysis().create_policy_test(request).await.map(tonic::Response::into_inner)
}

/// The newest policy change on the record.
async fn newest_change(service: &Service) -> PolicyChange {
    let request = ListAuditRecordsRequest {
        parent: DEFAULT.to_owned(),
        types: vec![AuditType::PolicyChanged.into()],
        page_size: 1,
        ..ListAuditRecordsRequest::default()
    };
    for _ in 0..200 {
        let page = service.audit().list_audit_records(request.clone()).await.unwrap().into_inner();
        let change = page.audit_records.into_iter().find_map(|record| match record.content {
            Some(audit_record::Content::PolicyChange(change)) => Some(change),
            _ => None,
        });
        let current = revision(service).await;
        if let Some(change) = change.filter(|change| change.revision == current) {
            return change;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the change is not on the record");
}

#[tokio::test]
async fn a_change_that_locks_a_guarded_address_out_is_refused_wherever_it_would() {
    let service = Service::start().await;
    let refused = |result| assert_error(result, Code::FailedPrecondition, "GUARD_VIOLATED");
    let before = revision(&service).await;
    let status = refused(create(&service, Action::Deny, "203.0.113.0/24", guard("203.0.113.7")).await);
    assert!(status.message().contains("`203.0.113.7`") && status.message().contains("shell"), "{status:?}");
    assert_eq!(revision(&service).await, before);
    // Another address may be locked out, and what was denied before may go on to be.
    create(&service, Action::Deny, "203.0.113.0/24", guard("198.51.100.1")).await.unwrap();
    create(&service, Action::Deny, "203.0.113.0/25", guard("203.0.113.7")).await.unwrap();

    // A node deep below counts too, and the error names it.
    service.add_node(DEFAULT, "web", Some(access(AccessMode::AllowAll))).await;
    let endpoint = format!("{DEFAULT}/projects/web/workspaces/main");
    service.add_node(&format!("{DEFAULT}/projects/web"), "main", Some(access(AccessMode::AllowAll))).await;
    let narrow = Node { name: endpoint.clone(), access: Some(allow_list(&["10.0.0.0/8"])), ..Node::default() };
    let status = refused(set(&service, narrow.clone(), guard("198.51.100.1")).await.map(|_| Rule::default()));
    assert!(status.message().contains(&endpoint), "{status:?}");
    // Validating is judged too.
    let validate = ChangeOptions { validate_only: true, ..guard("198.51.100.1") };
    refused(set(&service, narrow.clone(), validate).await.map(|_| Rule::default()));
    set(&service, narrow, guard("10.1.2.3")).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn the_gates_of_an_organization_hold_for_every_change_until_they_are_lifted() {
    let service = Service::start().await;
    let gates =
        ChangeGates { guard_ips: vec!["192.0.2.1".into()], max_revocations: None, refuse_open_to_internet: false };
    let own = Node { name: DEFAULT.to_owned(), change_gates: Some(gates.clone()), ..Node::default() };
    assert_eq!(set(&service, own, ChangeOptions::default()).await.unwrap().change_gates, Some(gates.clone()));
    let got = service.hierarchy().get_node(GetNodeRequest { name: DEFAULT.to_owned() }).await.unwrap().into_inner();
    assert_eq!(got.change_gates, Some(gates));
    let locking = create(&service, Action::Deny, "192.0.2.0/24", ChangeOptions::default()).await;
    assert_error(locking, Code::FailedPrecondition, "GUARD_VIOLATED");
    // Lifting the gate and passing it at once is judged by the gate as it was.
    let both = Node {
        name: DEFAULT.to_owned(),
        change_gates: Some(ChangeGates::default()),
        access: Some(allow_list(&["10.0.0.0/8"])),
        ..Node::default()
    };
    assert_error(
        set(&service, both.clone(), ChangeOptions::default()).await,
        Code::FailedPrecondition,
        "GUARD_VIOLATED",
    );
    set(&service, Node { access: None, ..both }, ChangeOptions::default()).await.unwrap();
    create(&service, Action::Deny, "192.0.2.0/24", ChangeOptions::default()).await.unwrap();

    // Gates are of organizations and the cluster.
    service.add_node(DEFAULT, "web", None).await;
    let project = Node {
        name: format!("{DEFAULT}/projects/web"),
        change_gates: Some(ChangeGates { refuse_open_to_internet: true, ..ChangeGates::default() }),
        ..Node::default()
    };
    let status =
        assert_error(set(&service, project, ChangeOptions::default()).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["node.change_gates"]);
    let cluster = Node { name: "cluster".to_owned(), access: Some(allow_list(&["10.0.0.0/8"])), ..Node::default() };
    let locked = set(&service, cluster.clone(), guard("198.51.100.9")).await;
    assert_error(locked, Code::FailedPrecondition, "GUARD_VIOLATED");
    set(&service, cluster, guard("10.9.9.9")).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn the_gates_that_a_change_sets_hold_for_it_too() {
    let service = Service::start().await;
    let closed = create(&service, Action::Deny, "any", ChangeOptions::default()).await.unwrap();
    let gated = |gates, access| Node {
        name: DEFAULT.to_owned(),
        change_gates: Some(gates),
        access: Some(access),
        ..Node::default()
    };
    set(&service, gated(ChangeGates::default(), allow_list(&["10.0.0.0/8"])), ChangeOptions::default()).await.unwrap();
    let request = DeleteRuleRequest { name: closed.name, ..DeleteRuleRequest::default() };
    service.firewall().delete_rule(request).await.unwrap();
    let open = ChangeGates { refuse_open_to_internet: true, ..ChangeGates::default() };
    let guards = ChangeGates { guard_ips: vec!["10.1.2.3".into()], ..ChangeGates::default() };
    let opened = set(&service, gated(open.clone(), access(AccessMode::AllowAll)), ChangeOptions::default()).await;
    assert_error(opened, Code::FailedPrecondition, "OPEN_TO_INTERNET");
    let locked = gated(guards.clone(), allow_list(&["10.9.0.0/16"]));
    let request = UpdateNodeRequest { node: Some(locked.clone()), ..UpdateNodeRequest::default() };
    let request = PreviewChangeRequest {
        parent: DEFAULT.to_owned(),
        mutations: vec![Mutation { request: Some(mutation::Request::UpdateNode(request)) }],
        ..PreviewChangeRequest::default()
    };
    let previewed = service.analysis().preview_change(request).await.unwrap().into_inner();
    assert_eq!(previewed.refusals[0].reason(), ErrorReason::GuardViolated, "{previewed:?}");
    assert_error(set(&service, locked, ChangeOptions::default()).await, Code::FailedPrecondition, "GUARD_VIOLATED");
    // Set together with a change that they permit, they hold from then on.
    set(&service, gated(guards.clone(), allow_list(&["10.0.0.0/9"])), ChangeOptions::default()).await.unwrap();
    // A guard that was there before keeps projects that are not registered, one that comes with them does not.
    let required = Node { require_projects: Some(true), ..gated(guards, allow_list(&["10.0.0.0/9"])) };
    let refused = set(&service, required.clone(), ChangeOptions::default()).await;
    let status = assert_error(refused, Code::FailedPrecondition, "GUARD_VIOLATED");
    assert!(status.message().contains("/projects/-`"), "{status:?}");
    set(&service, gated(ChangeGates::default(), allow_list(&["10.0.0.0/9"])), ChangeOptions::default()).await.unwrap();
    // Whoever guards the address in this very change, too, means every connection that it has.
    let asked = ChangeOptions { guard_ips: vec!["10.1.2.3".into()], ..ChangeOptions::default() };
    let refused = set(&service, required.clone(), asked).await;
    assert_error(refused, Code::FailedPrecondition, "GUARD_VIOLATED");
    set(&service, required, ChangeOptions::default()).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn a_change_may_revoke_no_more_sessions_than_it_says() {
    let service = Service::start().await;
    for ip in ["10.0.0.1", "10.0.0.2", "10.0.1.1"] {
        assert_eq!(service.check(ip, DEFAULT).await.decision(), Decision::Allow);
    }
    let at_most = |max| ChangeOptions { max_revocations: Some(max), ..ChangeOptions::default() };
    let refused = create(&service, Action::Deny, "10.0.0.0/24", at_most(1)).await;
    let status = assert_error(refused, Code::FailedPrecondition, "TOO_MANY_REVOCATIONS");
    assert!(status.message().contains("revoke 2 sessions"), "{status:?}");
    create(&service, Action::Deny, "10.0.2.0/24", at_most(0)).await.unwrap();
    create(&service, Action::Deny, "10.0.0.0/24", at_most(2)).await.unwrap();
    let negative = create(&service, Action::Deny, "10.0.3.0/24", at_most(-1)).await;
    let status = assert_error(negative, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["options.max_revocations"]);
    service.stop().await;
}

#[tokio::test]
async fn nothing_is_opened_to_the_internet_unseen_and_what_was_open_may_stay() {
    let service = Service::start().await;
    let careful = || ChangeOptions { refuse_open_to_internet: true, ..ChangeOptions::default() };
    service.add_node(DEFAULT, "web", Some(allow_list(&["10.0.0.0/8"]))).await;
    let web = |access| Node { name: format!("{DEFAULT}/projects/web"), access: Some(access), ..Node::default() };
    let opened = set(&service, web(allow_list(&["10.0.0.0/8", "::/0"])), careful()).await;
    let status = assert_error(opened, Code::FailedPrecondition, "OPEN_TO_INTERNET");
    assert!(status.message().contains("IPv6") && status.message().contains("projects/web"), "{status:?}");
    set(&service, web(allow_list(&["10.0.0.0/9", "2001:db8::/32"])), careful()).await.unwrap();
    // The organization itself is open from the beginning.
    create(&service, Action::Allow, "10.0.0.0/8", careful()).await.unwrap();
    let closed = create(&service, Action::Deny, "any", careful()).await.unwrap();
    let request = DeleteRuleRequest { name: closed.name, options: Some(careful()), ..DeleteRuleRequest::default() };
    assert_error(service.firewall().delete_rule(request).await, Code::FailedPrecondition, "OPEN_TO_INTERNET");
    service.stop().await;
}

#[tokio::test]
async fn a_change_that_breaks_a_policy_test_is_refused_unless_it_is_forced_and_then_says_so() {
    let service = Service::start().await;
    service.add_node(DEFAULT, "web", Some(allow_list(&["10.0.0.0/8"]))).await;
    let web = format!("{DEFAULT}/projects/web");
    add_test(&service, "office", test_of("10.1.2.3", &web, Decision::Allow), ChangeOptions::default()).await.unwrap();
    add_test(&service, "world", test_of("192.0.2.1", &web, Decision::Deny), ChangeOptions::default()).await.unwrap();
    let taken = add_test(&service, "world", test_of("192.0.2.1", &web, Decision::Deny), ChangeOptions::default()).await;
    assert_error(taken, Code::AlreadyExists, "ALREADY_EXISTS");
    // A test that fails at once is a change that breaks one.
    let failing = test_of("192.0.2.1", &web, Decision::Allow);
    let refused = add_test(&service, "wrong", failing.clone(), ChangeOptions::default()).await;
    assert_error(refused, Code::FailedPrecondition, "TESTS_FAILED");

    let before = revision(&service).await;
    let refused = create(&service, Action::Deny, "10.1.0.0/16", ChangeOptions::default()).await;
    let status = assert_error(refused, Code::FailedPrecondition, "TESTS_FAILED");
    assert!(status.message().contains("`office`") && !status.message().contains("`world`"), "{status:?}");
    assert_eq!(revision(&service).await, before);
    let forced = ChangeOptions { override_tests: true, ..ChangeOptions::default() };
    create(&service, Action::Deny, "10.1.0.0/16", forced.clone()).await.unwrap();
    assert_eq!(newest_change(&service).await.overridden_tests, [format!("{DEFAULT}/policyTests/office")]);

    // What was broken before is no reason to refuse the next change, and is no longer named.
    create(&service, Action::Deny, "10.1.0.0/24", ChangeOptions::default()).await.unwrap();
    assert_eq!(newest_change(&service).await.overridden_tests, [""; 0]);
    let request = ListPolicyTestsRequest { parent: DEFAULT.to_owned(), page_size: 1, ..Default::default() };
    let first = service.analysis().list_policy_tests(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.policy_tests[0].expected_decision(), Decision::Allow);
    assert_eq!(first.policy_tests[0].actual_decision(), Decision::Deny);
    let request = ListPolicyTestsRequest { page_token: first.next_page_token, ..request };
    let second = service.analysis().list_policy_tests(request).await.unwrap().into_inner();
    assert_eq!(second.policy_tests[0].name, format!("{DEFAULT}/policyTests/world"));
    assert_eq!((second.policy_tests[0].actual_decision(), second.next_page_token.as_str()), (Decision::Deny, ""));

    let name = format!("{DEFAULT}/policyTests/office");
    let request = DeletePolicyTestRequest { name, options: None };
    service.analysis().delete_policy_test(request.clone()).await.unwrap();
    assert_error(service.analysis().delete_policy_test(request).await, Code::NotFound, "NOT_FOUND");
    // The tests of an organization hold against the cluster too.
    let inside = test_of("10.200.0.1", &web, Decision::Allow);
    add_test(&service, "inside", inside, ChangeOptions::default()).await.unwrap();
    let cluster = Node { name: "cluster".to_owned(), access: Some(allow_list(&["10.0.0.0/9"])), ..Node::default() };
    let refused = set(&service, cluster, ChangeOptions::default()).await;
    assert_error(refused, Code::FailedPrecondition, "TESTS_FAILED");
    service.stop().await;
}

#[tokio::test]
async fn all_that_is_wrong_with_a_policy_test_and_with_options_is_told_at_once() {
    let service = Service::start().await;
    let test = PolicyTest { ip: "10.0.0.300".into(), endpoint: "organizations/other".into(), ..PolicyTest::default() };
    let status = assert_error(
        add_test(&service, "A", test, ChangeOptions::default()).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
    );
    let expected = [
        "policy_test_id",
        "policy_test.ip",
        "policy_test.connection_type",
        "policy_test.endpoint",
        "policy_test.expected_decision",
    ];
    assert_eq!(fields(&status), expected);
    let options = ChangeOptions {
        guard_ips: vec!["x".into(), "10.0.0.1".into(), "10.0.0.0/8".into()],
        max_revocations: Some(-2),
        confirm_within: Some(prost_types::Duration { seconds: 0, nanos: 1 }),
        ..ChangeOptions::default()
    };
    let status = assert_error(
        create(&service, Action::Deny, "10.0.0.0/8", options).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
    );
    let mut paths = fields(&status);
    paths.sort();
    assert_eq!(
        paths,
        ["options.confirm_within", "options.guard_ips[0]", "options.guard_ips[2]", "options.max_revocations"]
    );
    service.stop().await;
}
