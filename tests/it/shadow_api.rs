//! Shadow policies: tried on every Check, enforced never, promoted whole.
//!
//! Invariant: what is answered is what is answered without a candidate.
//! Not here: how a policy is read from a file (`cli_policy`).

use portcullis::proto::v1::mutation::Request;
use portcullis::proto::v1::{
    Action, ChangeOptions, CheckRequest, ConnectionType, CreateRuleRequest, Decision, DeleteShadowPolicyRequest,
    Divergence, EraseUserRequest, GetShadowPolicyRequest, ListDivergencesRequest, Mutation, PromoteShadowPolicyRequest,
    Reason, SetShadowPolicyRequest, ShadowPolicy, WatchDivergencesRequest,
};
use tonic::{Code, Status};

use crate::harness::{Service, assert_error, command_line, fields, rule};

const DEFAULT: &str = "organizations/default";

async fn set(service: &Service, action: Action, range: &str) -> Result<ShadowPolicy, Status> {
    let create = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule(action, range)),
        rule_id: "tried".to_owned(),
        position: Some(1),
        ..CreateRuleRequest::default()
    };
    let request = SetShadowPolicyRequest {
        parent: DEFAULT.to_owned(),
        mutations: vec![Mutation { request: Some(Request::CreateRule(create)) }],
        options: None,
    };
    service.analysis().set_shadow_policy(request).await.map(tonic::Response::into_inner)
}

async fn get(service: &Service) -> Result<ShadowPolicy, Status> {
    let request = GetShadowPolicyRequest { parent: DEFAULT.to_owned(), include_policy: true };
    service.analysis().get_shadow_policy(request).await.map(tonic::Response::into_inner)
}

async fn check(service: &Service, email: &str, ip: &str) -> Decision {
    let request = CheckRequest {
        ip: ip.to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        user_email: email.to_owned(),
        ..CheckRequest::default()
    };
    service.decisions().check(request).await.unwrap().into_inner().decision()
}

async fn divergences(service: &Service, page_size: i32) -> Vec<Divergence> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListDivergencesRequest { parent: DEFAULT.to_owned(), page_size, page_token };
        let page = service.analysis().list_divergences(request).await.unwrap().into_inner();
        found.extend(page.divergences);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

#[tokio::test]
async fn a_candidate_is_tried_on_every_check_and_enforced_on_none_until_it_is_promoted() {
    let service = Service::start().await;
    service.add_rule("shut", Action::Deny, "192.0.2.0/24").await;
    assert_error(get(&service).await, Code::NotFound, "NOT_FOUND");
    let made = set(&service, Action::Deny, "10.0.0.0/8").await.unwrap();
    assert_eq!((made.revision, made.check_count), (3, 0));
    let request = WatchDivergencesRequest { parent: DEFAULT.to_owned() };
    let mut watched = service.analysis().watch_divergences(request).await.unwrap().into_inner();

    for (ip, expected) in
        [("10.0.0.1", Decision::Allow), ("192.0.2.1", Decision::Deny), ("198.51.100.1", Decision::Allow)]
    {
        assert_eq!(check(&service, "ann@example.com", ip).await, expected);
    }
    assert_eq!(check(&service, "bob@example.com", "10.0.0.2").await, Decision::Allow);
    let shadow = get(&service).await.unwrap();
    assert_eq!((shadow.check_count, shadow.newly_denied_count, shadow.newly_permitted_count), (4, 2, 0));
    assert_eq!(shadow.policy.unwrap().rules[0].name, format!("{DEFAULT}/rules/tried"));
    for page_size in [1, 100] {
        let found = divergences(&service, page_size).await;
        assert_eq!(found.iter().map(|divergence| divergence.number).collect::<Vec<_>>(), [2, 1]);
        let oldest = &found[1];
        assert_eq!((oldest.ip.as_str(), oldest.user_email.as_str()), ("10.0.0.1", "ann@example.com"));
        assert_eq!((oldest.decision(), oldest.reason()), (Decision::Allow, Reason::DefaultAllow));
        assert_eq!((oldest.shadow_decision(), oldest.shadow_reason()), (Decision::Deny, Reason::DenyRule));
        assert_eq!(oldest.shadow_rule, format!("{DEFAULT}/rules/tried"));
        assert_eq!((oldest.rule_source.as_str(), oldest.shadow_rule_source.as_str()), ("", "10.0.0.0/8"));
    }
    for number in [1, 2] {
        assert_eq!(watched.message().await.unwrap().unwrap().number, number);
    }

    // Another candidate counts anew, and whoever watched the one before is told.
    set(&service, Action::Allow, "192.0.2.0/25").await.unwrap();
    assert_eq!(watched.message().await.unwrap_err().code(), Code::Aborted);
    assert_eq!(check(&service, "ann@example.com", "192.0.2.1").await, Decision::Deny);
    let shadow = get(&service).await.unwrap();
    assert_eq!((shadow.check_count, shadow.newly_denied_count, shadow.newly_permitted_count), (1, 0, 1));

    // A change in between would be undone by a promotion.
    service.add_rule("late", Action::Deny, "203.0.113.0/24").await;
    let promote = PromoteShadowPolicyRequest { parent: DEFAULT.to_owned(), ..PromoteShadowPolicyRequest::default() };
    let refused = service.analysis().promote_shadow_policy(promote.clone()).await;
    assert_error(refused, Code::FailedPrecondition, "SHADOW_OUTDATED");
    set(&service, Action::Allow, "192.0.2.0/25").await.unwrap();
    let revision = service.analysis().promote_shadow_policy(promote.clone()).await.unwrap().into_inner().revision;
    assert_eq!(check(&service, "ann@example.com", "192.0.2.1").await, Decision::Allow);
    assert_eq!(check(&service, "ann@example.com", "203.0.113.1").await, Decision::Deny);
    assert_error(get(&service).await, Code::NotFound, "NOT_FOUND");
    assert_error(service.analysis().promote_shadow_policy(promote).await, Code::NotFound, "NOT_FOUND");
    assert_eq!(revision, 7);
    service.stop().await;
}

#[tokio::test]
async fn a_candidate_survives_a_restart_and_forgets_erased_users() {
    let directory = tempfile::tempdir().unwrap();
    let config = || portcullis::config::Config::for_data_dir(directory.path().join("data"));
    let service = Service::with_config(config()).await;
    set(&service, Action::Deny, "10.0.0.0/8").await.unwrap();
    check(&service, "ann@example.com", "10.0.0.1").await;
    service.stop().await;

    let service = Service::with_config(config()).await;
    assert_eq!(get(&service).await.unwrap().check_count, 0);
    check(&service, "ann@example.com", "10.0.0.1").await;
    check(&service, "bob@example.com", "10.0.0.2").await;
    assert_eq!(divergences(&service, 100).await.len(), 2);
    let request =
        EraseUserRequest { parent: DEFAULT.to_owned(), user_email: "ann@example.com".to_owned(), ..Default::default() };
    service.audit().erase_user(request.clone()).await.unwrap();
    let left = divergences(&service, 100).await;
    assert_eq!(left.iter().map(|of| of.user_email.as_str()).collect::<Vec<_>>(), ["bob@example.com"]);
    // Nor is a number given out again.
    let request = EraseUserRequest { parent: DEFAULT.to_owned(), user_email: "bob@example.com".to_owned(), ..request };
    service.audit().erase_user(request).await.unwrap();
    check(&service, "eve@example.com", "10.0.0.3").await;
    assert_eq!(divergences(&service, 100).await.iter().map(|of| of.number).collect::<Vec<_>>(), [3]);

    let delete = DeleteShadowPolicyRequest { parent: DEFAULT.to_owned(), options: None };
    service.analysis().delete_shadow_policy(delete.clone()).await.unwrap();
    assert_error(service.analysis().delete_shadow_policy(delete).await, Code::NotFound, "NOT_FOUND");
    service.stop().await;
}

#[tokio::test]
async fn a_token_of_a_list_of_another_candidate_or_of_another_start_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = || portcullis::config::Config::for_data_dir(directory.path().join("data"));
    let service = Service::with_config(config()).await;
    let diverge = async |service: &Service| {
        for ip in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
            check(service, "ann@example.com", ip).await;
        }
    };
    let list = async |service: &Service, page_token: &str| {
        let (parent, page_token) = (DEFAULT.to_owned(), page_token.to_owned());
        let request = ListDivergencesRequest { parent, page_size: 1, page_token };
        service.analysis().list_divergences(request).await.map(tonic::Response::into_inner)
    };
    set(&service, Action::Deny, "10.0.0.0/8").await.unwrap();
    diverge(&service).await;
    let token = list(&service, "").await.unwrap().next_page_token;
    // More of the same candidate is no other list.
    diverge(&service).await;
    assert_eq!(list(&service, &token).await.unwrap().divergences[0].number, 2);
    set(&service, Action::Deny, "10.0.0.0/9").await.unwrap();
    diverge(&service).await;
    assert_error(list(&service, &token).await, Code::Aborted, "LIST_CHANGED");
    let token = list(&service, "").await.unwrap().next_page_token;
    service.stop().await;

    let service = Service::with_config(config()).await;
    diverge(&service).await;
    assert_error(list(&service, &token).await, Code::Aborted, "LIST_CHANGED");
    service.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_candidate_is_told_at_its_path() {
    let service = Service::start().await;
    let refused = set(&service, Action::Unspecified, "10.0.0.5/8").await;
    let mut paths = fields(&assert_error(refused, Code::InvalidArgument, "INVALID_FIELD"));
    paths.sort();
    assert_eq!(paths, ["mutations[0].create_rule.rule.action", "mutations[0].create_rule.rule.range"]);
    let empty = SetShadowPolicyRequest { parent: DEFAULT.to_owned(), ..SetShadowPolicyRequest::default() };
    let refused = service.analysis().set_shadow_policy(empty).await;
    assert_eq!(fields(&assert_error(refused, Code::InvalidArgument, "INVALID_FIELD")), ["mutations"]);
    service.stop().await;
}

#[tokio::test]
async fn the_command_line_tries_a_file_and_promotes_it() {
    let service = Service::start().await;
    let run = async |arguments: &[&str], input: &'static str| {
        let output = command_line(&service, &[arguments, &["--output", "table"]].concat(), input).await;
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let file = "rules:\n  - id: tried\n    action: deny\n    range: 10.0.0.0/8\n";
    assert_eq!(run(&["shadow", "set", "-"], file).await.0, Some(0));
    check(&service, "ann@example.com", "10.0.0.1").await;
    let (_, shown) = run(&["shadow", "divergences"], "").await;
    assert!(shown.contains("ann@example.com 10.0.0.1"), "{shown}");
    assert!(shown.contains("allow (default-allow), would be deny 10.0.0.0/8 (tried)"), "{shown}");
    let (_, shown) = run(&["shadow", "get"], "").await;
    assert!(shown.contains("would be denied   1"), "{shown}");
    assert_eq!(run(&["shadow", "promote"], "").await.0, Some(0));
    assert_eq!(check(&service, "ann@example.com", "10.0.0.1").await, Decision::Deny);
    assert_eq!(run(&["shadow", "get"], "").await.0, Some(1));
    service.stop().await;
}

#[tokio::test]
async fn gates_are_refused_where_a_shadow_policy_is_set_and_not_ignored() {
    let service = Service::start().await;
    let gated = ChangeOptions { guard_ips: vec!["192.0.2.1".to_owned()], ..ChangeOptions::default() };
    let step = |options| {
        let (parent, rule) = (DEFAULT.to_owned(), Some(rule(Action::Deny, "192.0.2.0/24")));
        let create = CreateRuleRequest { parent, rule, options, ..CreateRuleRequest::default() };
        vec![Mutation { request: Some(Request::CreateRule(create)) }]
    };
    for (mutations, options, field) in
        [(step(None), Some(gated.clone()), "options"), (step(Some(gated)), None, "mutations[0].create_rule.options")]
    {
        let request = SetShadowPolicyRequest { parent: DEFAULT.to_owned(), mutations, options };
        let answer = service.analysis().set_shadow_policy(request).await;
        let status = assert_error(answer, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [field]);
    }
    assert_error(get(&service).await, Code::NotFound, "NOT_FOUND");
    service.stop().await;
}
