//! Problems that begin later, through gRPC and the command line: what will lock out, open or fail is listed with its
//! moment, comes true at that moment, and is then listed without one.
//!
//! Invariant: every moment is reached by moving the clock of the service.
//! Not here: that problems and moments are exact (`problems`, `problems_whole`, `problems_translated`).

use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis::config::{Config, Nat64Prefixes, ServeArgs};
use portcullis::proto::v1::mutation::Request;
use portcullis::proto::v1::{
    AccessMode, Action, ApplyPolicyRequest, ChangeGates, ChangeOptions, ConnectionType, CreatePolicyTestRequest,
    CreateRuleRequest, Decision, DeleteRuleRequest, ExportPolicyRequest, GetEffectiveAccessRequest,
    ListProblemsRequest, ListRulesRequest, Mutation, Node, PolicyTest, PreviewChangeRequest, PreviewChangeResponse,
    Problem, ProblemCode, Rule, Severity, UpdateNodeRequest, UpdateRuleRequest,
};
use prost_types::Timestamp;

use crate::clock::Hand;
use crate::harness::{Service, access, rule};

const DEFAULT: &str = "organizations/default";

/// An hour after the clock's beginning, and how messages write it.
const LATER: Timestamp = Timestamp { seconds: 1_800_003_600, nanos: 0 };
const LATER_TEXT: &str = "2027-01-15T09:00:00Z";

async fn problems(service: &Service, parent: &str) -> Vec<Problem> {
    let request = ListProblemsRequest { parent: parent.to_owned(), page_size: 1_000, ..Default::default() };
    service.analysis().list_problems(request).await.unwrap().into_inner().problems
}

fn of(problems: &[Problem], code: ProblemCode) -> Vec<&Problem> {
    problems.iter().filter(|problem| problem.code() == code).collect()
}

/// The one problem of this kind.
fn one(problems: &[Problem], code: ProblemCode) -> &Problem {
    match of(problems, code).as_slice() {
        [problem] => problem,
        found => panic!("not one {code:?}: {found:?} of {problems:?}"),
    }
}

/// The opening of a resource.
fn opened<'a>(problems: &'a [Problem], resource: &str) -> &'a Problem {
    let found = of(problems, ProblemCode::OpenToInternet);
    let of_resource: Vec<_> = found.into_iter().filter(|problem| problem.resource == resource).collect();
    match of_resource.as_slice() {
        [problem] => problem,
        _ => panic!("`{resource}` has not one opening: {problems:?}"),
    }
}

/// A preview of another expire time.
async fn preview_update(service: &Service, rule: Rule) -> PreviewChangeResponse {
    let mask = prost_types::FieldMask { paths: vec!["expire_time".to_owned()] };
    let request = UpdateRuleRequest { rule: Some(rule), update_mask: Some(mask), ..UpdateRuleRequest::default() };
    let request = PreviewChangeRequest {
        parent: DEFAULT.to_owned(),
        mutations: vec![Mutation { request: Some(Request::UpdateRule(request)) }],
        ..PreviewChangeRequest::default()
    };
    service.analysis().preview_change(request).await.unwrap().into_inner()
}

async fn add(service: &Service, id: &str, action: Action, range: &str, expire_time: Option<Timestamp>) -> Rule {
    let request = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(Rule { expire_time, ..rule(action, range) }),
        rule_id: id.to_owned(),
        ..CreateRuleRequest::default()
    };
    service.firewall().create_rule(request).await.unwrap().into_inner()
}

/// Adds a test though it will fail.
async fn add_test(service: &Service, id: &str, ip: &str, expected: Decision, end_time: Option<Timestamp>) {
    let test = PolicyTest {
        ip: ip.to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        expected_decision: expected.into(),
        end_time,
        ..PolicyTest::default()
    };
    let request = CreatePolicyTestRequest {
        parent: DEFAULT.to_owned(),
        policy_test: Some(test),
        policy_test_id: id.to_owned(),
        options: Some(ChangeOptions { override_tests: true, ..ChangeOptions::default() }),
    };
    service.analysis().create_policy_test(request).await.unwrap();
}

async fn guard(service: &Service, name: &str, ip: &str) {
    let gates = ChangeGates { guard_ips: vec![ip.to_owned()], ..ChangeGates::default() };
    let node = Node { name: name.to_owned(), change_gates: Some(gates), ..Node::default() };
    let request = UpdateNodeRequest { node: Some(node), ..UpdateNodeRequest::default() };
    service.hierarchy().update_node(request).await.unwrap();
}

/// A problem that begins later says so in its field and in its message.
fn is_later(problem: &Problem) -> bool {
    problem.from_time == Some(LATER) && problem.message.starts_with(&format!("from {LATER_TEXT} on, "))
}

fn is_now(problem: &Problem) -> bool {
    problem.from_time.is_none() && !problem.message.contains(LATER_TEXT)
}

#[tokio::test]
async fn a_lock_out_that_will_come_is_listed_with_its_moment_and_comes_true() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    add(&service, "office", Action::Allow, "203.0.113.0/24", Some(LATER)).await;
    add(&service, "rest", Action::Deny, "any", None).await;
    guard(&service, DEFAULT, "203.0.113.9").await;
    guard(&service, "cluster", "203.0.113.10").await;
    add_test(&service, "office-gets-in", "203.0.113.9", Decision::Allow, None).await;
    add_test(&service, "until-then", "203.0.113.9", Decision::Allow, Some(LATER)).await;
    assert_eq!(service.check("203.0.113.9", DEFAULT).await.decision(), Decision::Allow);

    let found = problems(&service, DEFAULT).await;
    let locked = one(&found, ProblemCode::LocksEveryoneOut);
    assert!(is_later(locked) && locked.resource == DEFAULT && locked.severity() == Severity::Error, "{locked:?}");
    let guarded = of(&found, ProblemCode::GuardedAddressLockedOut);
    let ranges: Vec<_> = guarded.iter().map(|problem| problem.ranges.join(" ")).collect();
    assert_eq!(ranges, ["203.0.113.9", "203.0.113.10"]);
    assert!(guarded.iter().all(|problem| is_later(problem) && problem.severity() == Severity::Error), "{guarded:?}");
    let failing = one(&found, ProblemCode::FailingTest);
    assert_eq!(failing.resource, format!("{DEFAULT}/policyTests/office-gets-in"));
    assert!(is_later(failing) && failing.severity() == Severity::Error, "{failing:?}");
    let words = format!(
        "from {LATER_TEXT} on, the guarded address `203.0.113.9` loses what it is allowed now: extend the rules that \
         expire then, or take it out of the guarded addresses"
    );
    assert_eq!(guarded[0].message, words);

    // A millisecond before, nothing has happened.
    hand.advance(Duration::from_millis(3_599_999));
    assert_eq!(service.check("203.0.113.9", DEFAULT).await.decision(), Decision::Allow);
    assert!(is_later(one(&problems(&service, DEFAULT).await, ProblemCode::LocksEveryoneOut)));
    hand.advance(Duration::from_millis(1));
    assert_eq!(service.check("203.0.113.9", DEFAULT).await.decision(), Decision::Deny);
    let found = problems(&service, DEFAULT).await;
    assert!(is_now(one(&found, ProblemCode::LocksEveryoneOut)), "{found:?}");
    let failing = one(&found, ProblemCode::FailingTest);
    assert!(is_now(failing) && failing.resource.ends_with("/office-gets-in"), "{found:?}");
    assert_eq!(of(&found, ProblemCode::GuardedAddressLockedOut).len(), 0, "it is not allowed any more");
    service.stop().await;
}

#[tokio::test]
async fn an_opening_that_will_come_is_shown_by_everything_that_shows_problems_and_comes_true() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    add(&service, "office", Action::Allow, "203.0.113.0/24", None).await;
    add(&service, "rest-v4", Action::Deny, "0.0.0.0/0", None).await;
    add(&service, "rest-v6", Action::Deny, "::/0", Some(LATER)).await;
    service.add_node(DEFAULT, "web", Some(access(AccessMode::AllowAll))).await;
    let [web, rest] = [format!("{DEFAULT}/projects/web"), format!("{DEFAULT}/rules/rest-v4")];
    add_test(&service, "v6-stays-out", "2001:db8::1", Decision::Deny, None).await;

    let found = problems(&service, DEFAULT).await;
    let open = opened(&found, &web);
    assert!(is_later(open), "{open:?}");
    assert_eq!(opened(&found, DEFAULT).message, open.message, "the first project closed those that are not registered");
    let forgets = one(&found, ProblemCode::Ipv4OnlyCatchAll);
    assert!(is_later(forgets) && forgets.resource == rest && forgets.ranges == ["::/0"], "{forgets:?}");
    assert!(is_later(one(&found, ProblemCode::FailingTest)), "{found:?}");
    // The catch-all says already that translated addresses are open.
    assert_eq!(of(&found, ProblemCode::TranslatedAddress).len(), 0, "{found:?}");

    let request = GetEffectiveAccessRequest { name: web.clone() };
    let effective = service.hierarchy().get_effective_access(request).await.unwrap().into_inner();
    assert_eq!(opened(&effective.problems, &web), open);
    let request = ListRulesRequest { parent: DEFAULT.to_owned(), ..Default::default() };
    let listed = service.firewall().list_rules(request).await.unwrap().into_inner();
    assert_eq!(one(&listed.problems, ProblemCode::Ipv4OnlyCatchAll), forgets);
    let request = ExportPolicyRequest { parent: DEFAULT.to_owned(), ..Default::default() };
    let policy = service.analysis().export_policy(request).await.unwrap().into_inner();
    let request = ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(policy), ..Default::default() };
    let applied = service.analysis().apply_policy(request).await.unwrap().into_inner();
    assert_eq!(opened(&applied.problems, &web), open);

    // A preview tells that the opening would come sooner. It is the same one, so it does not go. One that comes later is
    // neither new nor gone, and one that never comes is gone.
    let sooner = Timestamp { seconds: LATER.seconds - 1_800, nanos: 0 };
    let later = Timestamp { seconds: LATER.seconds + 1_800, nanos: 0 };
    let of_time = |expire_time| Rule { expire_time, ..listed.rules[2].clone() };
    for resource in [&web, DEFAULT] {
        let previewed = preview_update(&service, of_time(Some(sooner))).await;
        assert_eq!(opened(&previewed.problems_added, resource).from_time, Some(sooner));
        assert_eq!(previewed.problems_resolved, []);
        let previewed = preview_update(&service, of_time(Some(later))).await;
        assert_eq!((&*previewed.problems_added, &*previewed.problems_resolved), (&[][..], &[][..]));
        let previewed = preview_update(&service, of_time(None)).await;
        assert_eq!(previewed.problems_added, []);
        assert_eq!(opened(&previewed.problems_resolved, resource).from_time, Some(LATER));
    }

    assert_eq!(service.check("2001:db8::1", &web).await.decision(), Decision::Deny);
    hand.advance(Duration::from_hours(1));
    assert_eq!(service.check("2001:db8::1", &web).await.decision(), Decision::Allow);
    let found = problems(&service, DEFAULT).await;
    for code in [ProblemCode::Ipv4OnlyCatchAll, ProblemCode::FailingTest] {
        assert!(is_now(one(&found, code)), "{found:?}");
    }
    assert!(is_now(opened(&found, &web)) && is_now(opened(&found, DEFAULT)), "{found:?}");
    service.stop().await;
}

#[tokio::test]
async fn an_organization_that_will_be_open_is_listed_and_one_that_is_meant_to_be_open_is_not() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let nothing = Vec::<&Problem>::new();
    assert_eq!(of(&problems(&service, DEFAULT).await, ProblemCode::OpenToInternet), nothing, "without any rule");
    // A rule that denies some addresses says nothing of the others.
    add(&service, "one", Action::Deny, "198.51.100.7", None).await;
    assert_eq!(of(&problems(&service, DEFAULT).await, ProblemCode::OpenToInternet), nothing);
    add(&service, "office", Action::Allow, "203.0.113.0/24", None).await;
    add(&service, "rest", Action::Deny, "any", Some(LATER)).await;
    let found = problems(&service, DEFAULT).await;
    let open = opened(&found, DEFAULT);
    assert!(is_later(open) && open.severity() == Severity::Error, "{open:?}");
    let words = format!(
        "from {LATER_TEXT} on, every address of a whole family gets in, at projects that are not registered too: restrict \
         the access, or extend the rules that expire then, unless everybody is meant"
    );
    assert_eq!(open.message, words);
    let unregistered = format!("{DEFAULT}/projects/unknown");
    for name in [DEFAULT, &unregistered] {
        assert_eq!(service.check("2001:db8::1", name).await.decision(), Decision::Deny);
    }
    hand.advance(Duration::from_hours(1));
    for name in [DEFAULT, &unregistered] {
        assert_eq!(service.check("2001:db8::1", name).await.decision(), Decision::Allow);
    }
    // The rule that has expired says what was meant.
    assert!(is_now(opened(&problems(&service, DEFAULT).await, DEFAULT)));
    let request = DeleteRuleRequest { name: format!("{DEFAULT}/rules/rest"), ..DeleteRuleRequest::default() };
    service.firewall().delete_rule(request).await.unwrap();
    assert_eq!(of(&problems(&service, DEFAULT).await, ProblemCode::OpenToInternet), nothing);
    // So does a gate.
    let gates = ChangeGates { refuse_open_to_internet: true, ..ChangeGates::default() };
    let node = Node { name: "cluster".to_owned(), change_gates: Some(gates), ..Node::default() };
    let request = UpdateNodeRequest { node: Some(node), ..UpdateNodeRequest::default() };
    service.hierarchy().update_node(request).await.unwrap();
    assert!(is_now(opened(&problems(&service, DEFAULT).await, DEFAULT)));
    service.stop().await;
}

#[tokio::test]
async fn a_preview_of_an_expire_time_tells_the_problems_that_come_with_it() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    add(&service, "office", Action::Allow, "203.0.113.0/24", None).await;
    let mut rest = add(&service, "rest", Action::Deny, "any", None).await;
    service.add_node(DEFAULT, "web", Some(access(AccessMode::AllowAll))).await;
    add_test(&service, "stranger", "8.8.8.8", Decision::Deny, None).await;
    assert_eq!(of(&problems(&service, DEFAULT).await, ProblemCode::FailingTest).len(), 0);
    // Three seconds later the policy would be open: that is what the preview has to say.
    let soon = Timestamp { seconds: LATER.seconds - 3_597, nanos: 0 };
    rest.expire_time = Some(soon);
    let previewed = preview_update(&service, rest).await;
    let web = format!("{DEFAULT}/projects/web");
    let added = &previewed.problems_added;
    for problem in [opened(added, &web), opened(added, DEFAULT), one(added, ProblemCode::FailingTest)] {
        assert_eq!(problem.from_time, Some(soon), "{problem:?}");
        assert!(problem.message.starts_with("from 2027-01-15T08:00:03Z on, "), "{problem:?}");
    }
    assert_eq!(of(&previewed.problems_resolved, ProblemCode::OpenToInternet), Vec::<&Problem>::new());
    service.stop().await;
}

#[tokio::test]
async fn denied_addresses_that_get_in_translated_are_listed_until_their_twins_are_denied() {
    let temporary = tempfile::tempdir().unwrap();
    let file = "nat64_prefixes = '2001:db8:64::/96, 64:ff9b::/96'";
    let prefixes: Nat64Prefixes = Config::resolve(&ServeArgs::default(), Some(file)).unwrap().nat64_prefixes;
    let config = Config { nat64_prefixes: prefixes, ..Config::for_data_dir(temporary.path().join("data")) };
    let hand = Hand::new();
    let service = Service::with_clock(config, hand.clock()).await;
    add(&service, "block", Action::Deny, "203.0.113.0/24", None).await;
    let block = format!("{DEFAULT}/rules/block");
    assert_eq!(service.check("203.0.113.7", DEFAULT).await.decision(), Decision::Deny);

    let twins = ["64:ff9b::cb00:7100/120", "2001:db8:64::cb00:7100/120", "2002:cb00:7100::/40"];
    let found = problems(&service, DEFAULT).await;
    let problem = one(&found, ProblemCode::TranslatedAddress);
    assert_eq!((problem.resource.as_str(), problem.severity()), (block.as_str(), Severity::Info));
    assert_eq!(problem.ranges, twins);
    assert_eq!(
        problem.message,
        "the rule denies IPv4 addresses that still get in as IPv6 addresses of `64:ff9b::cb00:7100/120` and 2 more \
         ranges: deny these too, unless no NAT64 or 6to4 leads to you"
    );
    // It is true, and stays so: the addresses are plain IPv6.
    for twin in ["64:ff9b::203.0.113.7", "2001:db8:64::203.0.113.7", "2002:cb00:7107:1::1"] {
        assert_eq!(service.check(twin, DEFAULT).await.decision(), Decision::Allow, "{twin}");
    }
    // A rule that covers the twins, for a while: then only from its end on.
    add(&service, "rest", Action::Deny, "any", Some(LATER)).await;
    let found = problems(&service, DEFAULT).await;
    let problem = one(&found, ProblemCode::TranslatedAddress);
    assert!(is_later(problem) && problem.ranges == twins, "{problem:?}");
    for (id, twin) in ["nat64", "own", "6to4"].into_iter().zip(twins) {
        assert_eq!(of(&problems(&service, DEFAULT).await, ProblemCode::TranslatedAddress).len(), 1);
        add(&service, id, Action::Deny, twin, None).await;
    }
    assert_eq!(of(&problems(&service, DEFAULT).await, ProblemCode::TranslatedAddress), Vec::<&Problem>::new());
    hand.advance(Duration::from_hours(2));
    assert_eq!(of(&problems(&service, DEFAULT).await, ProblemCode::TranslatedAddress), Vec::<&Problem>::new());
    assert_eq!(service.check("64:ff9b::203.0.113.7", DEFAULT).await.decision(), Decision::Deny);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_shows_from_when_on_something_is_a_problem() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    add(&service, "office", Action::Allow, "203.0.113.0/24", Some(LATER)).await;
    add(&service, "rest", Action::Deny, "any", None).await;
    let server = service.address().to_string();
    let run = async |output: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["problems", "--output", output]).env_clear().env("PORTCULLIS_SERVER", &server);
        command.stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = run("table").await;
    let heading = format!("error locks-everyone-out organizations/default from {LATER_TEXT}\n");
    assert!(lines.starts_with(&heading), "{lines}");
    let json: serde_json::Value = serde_json::from_str(&run("json").await).unwrap();
    assert_eq!(json["problems"][0]["fromTime"], LATER_TEXT);
    hand.advance(Duration::from_hours(1));
    let lines = run("table").await;
    assert!(lines.starts_with("error locks-everyone-out organizations/default\n"), "{lines}");
    service.stop().await;
}

#[tokio::test]
async fn a_list_shows_what_holds_after_an_expiry_within_the_same_minute() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let soon = Timestamp { seconds: 1_800_000_003, nanos: 0 };
    add(&service, "office", Action::Allow, "10.0.0.0/8", Some(soon)).await;
    add(&service, "rest", Action::Deny, "any", None).await;
    let listed = async || {
        let request = ListRulesRequest { parent: DEFAULT.to_owned(), ..ListRulesRequest::default() };
        let found = service.firewall().list_rules(request).await.unwrap().into_inner().problems;
        found.iter().map(Problem::code).collect::<Vec<_>>()
    };
    assert!(!listed().await.contains(&ProblemCode::ExpiredRule));
    hand.advance(Duration::from_millis(2_999));
    assert!(!listed().await.contains(&ProblemCode::ExpiredRule));
    hand.advance(Duration::from_millis(1));
    assert!(listed().await.contains(&ProblemCode::ExpiredRule), "{:?}", listed().await);
    service.stop().await;
}
