//! Revisions: the list, one of them, two compared, going back; and changes that are undone unless they are confirmed,
//! also over `kill -9`.
//!
//! Invariant: after a change is undone, every decision is what it was before it.
//! Not here: gates (`gates_api`).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::proto::v1::analysis_service_client::AnalysisServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::{
    Action, ChangeOptions, CheckRequest, CompareRevisionsRequest, ConfirmRevisionRequest, ConnectionType,
    CreateAddressGroupRequest, CreateNodeRequest, CreateRuleRequest, Decision, DeleteRuleRequest, GetNodeRequest,
    GetRevisionRequest, ListRevisionsRequest, ListRulesRequest, Node, Revision, RollbackRevisionRequest, Rule,
    UpdateNodeRequest, policy_object,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::clock::{Hand, until};
use crate::clock_follows::pass;
use crate::harness::{Service, allow_list, assert_error, fields, rule};
use crate::process::Process;

const DEFAULT: &str = "organizations/default";

fn name(revision: i64) -> String {
    format!("{DEFAULT}/revisions/{revision}")
}

async fn revisions(service: &Service, page_size: i32) -> Vec<Revision> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListRevisionsRequest { parent: DEFAULT.to_owned(), page_size, page_token };
        let page = service.analysis().list_revisions(request).await.unwrap().into_inner();
        found.extend(page.revisions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

async fn rollback(service: &Service, revision: i64) -> Result<Revision, Status> {
    let request = RollbackRevisionRequest { name: name(revision), ..RollbackRevisionRequest::default() };
    service.analysis().rollback_revision(request).await.map(tonic::Response::into_inner)
}

async fn rules(service: &Service) -> Vec<String> {
    let request = ListRulesRequest { parent: DEFAULT.to_owned(), ..ListRulesRequest::default() };
    let rules = service.firewall().list_rules(request).await.unwrap().into_inner().rules;
    rules.into_iter().map(|rule| rule.name.rsplit('/').next().unwrap().to_owned()).collect()
}

async fn deny(
    mut firewall: FirewallServiceClient<Channel>,
    id: &str,
    range: &str,
    within: Option<Duration>,
) -> Result<Rule, Status> {
    let options = ChangeOptions {
        comment: format!("deny {range}"),
        confirm_within: within.map(|within| within.try_into().unwrap()),
        ..ChangeOptions::default()
    };
    let request = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule(Action::Deny, range)),
        rule_id: id.to_owned(),
        options: Some(options),
        ..CreateRuleRequest::default()
    };
    firewall.create_rule(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn every_revision_is_listed_shown_compared_and_can_be_gone_back_to() {
    let service = Service::start().await;
    deny(service.firewall(), "first", "10.0.0.0/8", None).await.unwrap();
    deny(service.firewall(), "second", "192.0.2.0/24", None).await.unwrap();
    let group = CreateAddressGroupRequest {
        parent: DEFAULT.to_owned(),
        address_group: Some(portcullis::proto::v1::AddressGroup {
            ranges: vec!["198.51.100.0/24".to_owned()],
            ..Default::default()
        }),
        address_group_id: "office".to_owned(),
        options: None,
    };
    service.firewall().create_address_group(group).await.unwrap();
    let node = CreateNodeRequest {
        parent: DEFAULT.to_owned(),
        node_id: "web".to_owned(),
        node: Some(Node { access: Some(allow_list(&["10.0.0.0/8"])), ..Node::default() }),
        options: None,
    };
    service.hierarchy().create_node(node).await.unwrap();
    let request = DeleteRuleRequest { name: format!("{DEFAULT}/rules/first"), ..DeleteRuleRequest::default() };
    service.firewall().delete_rule(request).await.unwrap();

    let all = revisions(&service, 2).await;
    assert_eq!(all.iter().map(|revision| revision.revision).collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1]);
    assert_eq!(all[4].name, name(2));
    let second = all[3].policy_change.clone().unwrap();
    assert_eq!((second.comment.as_str(), second.actor.as_str()), ("deny 192.0.2.0/24", "127.0.0.1"));
    // Nodes are changed by somebody too.
    assert_eq!(all[1].policy_change.clone().unwrap().actor, "127.0.0.1");
    assert!(all.windows(2).all(|pair| pair[0].create_time.unwrap().seconds >= pair[1].create_time.unwrap().seconds));

    let get = GetRevisionRequest { name: name(6) };
    let shown = service.analysis().get_revision(get).await.unwrap().into_inner().policy_change.unwrap();
    assert_eq!(shown.changes.len(), 1);
    let before = shown.changes[0].before.clone().unwrap().object;
    assert!(matches!(before, Some(policy_object::Object::Rule(rule)) if rule.name.ends_with("/rules/first")));
    assert_eq!(shown.changes[0].after, None);

    let request = CompareRevisionsRequest { base: name(1), name: name(3) };
    let compared = service.analysis().compare_revisions(request).await.unwrap().into_inner();
    let shell = compared
        .differences
        .iter()
        .find(|difference| difference.node == DEFAULT && difference.connection_type() == ConnectionType::Shell);
    assert_eq!(shell.unwrap().newly_denied, ["10.0.0.0/8", "192.0.2.0/24"]);
    assert_eq!((shell.unwrap().newly_permitted.len(), compared.changes.len()), (0, 2));

    // Back to when both rules were there and neither group nor node was: everybody could reach what the project is now.
    assert_error(rollback(&service, 3).await, Code::FailedPrecondition, "WOULD_WIDEN_ACCESS");
    let request = RollbackRevisionRequest { name: name(3), force: true, ..RollbackRevisionRequest::default() };
    let back = service.analysis().rollback_revision(request).await.unwrap().into_inner();
    let change = back.policy_change.unwrap();
    assert_eq!((back.revision, change.comment.as_str()), (7, "back to revision 3"));
    // The answer says what it altered: a rule, the group, the project, and that projects are required.
    assert_eq!(change.changes.len(), 4, "{:?}", change.changes);
    assert_eq!(rules(&service).await, ["first", "second"]);
    let gone = service.hierarchy().get_node(GetNodeRequest { name: format!("{DEFAULT}/projects/web") }).await;
    assert_error(gone, Code::NotFound, "NOT_FOUND");
    // And forward again: groups, nodes and their ranges are what they were.
    rollback(&service, 5).await.unwrap();
    assert_eq!(rules(&service).await, ["first", "second"]);
    let request = CompareRevisionsRequest { base: name(5), name: name(8) };
    let compared = service.analysis().compare_revisions(request).await.unwrap().into_inner();
    assert_eq!((compared.differences.len(), compared.changes.len()), (0, 0));
    // Going back to what already is changes nothing.
    assert_eq!(rollback(&service, 5).await.unwrap().revision, 8);
    service.stop().await;
}

#[tokio::test]
async fn what_no_revision_is_is_refused() {
    let service = Service::start().await;
    for missing in ["organizations/default/revisions/99", "organizations/nobody/revisions/1"] {
        let request = GetRevisionRequest { name: missing.to_owned() };
        assert_error(service.analysis().get_revision(request).await, Code::NotFound, "NOT_FOUND");
        let request = RollbackRevisionRequest { name: missing.to_owned(), ..RollbackRevisionRequest::default() };
        assert_error(service.analysis().rollback_revision(request).await, Code::NotFound, "NOT_FOUND");
    }
    for malformed in
        ["", "organizations/default", "organizations/default/revisions/x", "organizations/default/revisions/0"]
    {
        let request = GetRevisionRequest { name: malformed.to_owned() };
        let refused = service.analysis().get_revision(request).await;
        assert_eq!(fields(&assert_error(refused, Code::InvalidArgument, "INVALID_FIELD")), ["name"]);
    }
    let request =
        RollbackRevisionRequest { name: name(1), etag: "policy-99".to_owned(), ..RollbackRevisionRequest::default() };
    assert_error(service.analysis().rollback_revision(request).await, Code::Aborted, "STALE_ETAG");
    let request = ListRevisionsRequest { parent: "organizations/nobody".to_owned(), ..Default::default() };
    assert_error(service.analysis().list_revisions(request).await, Code::NotFound, "NOT_FOUND");
    service.stop().await;
}

#[tokio::test]
async fn a_change_that_waits_holds_others_up_and_stays_once_it_is_confirmed() {
    let service = Service::start().await;
    let made = deny(service.firewall(), "lock", "10.0.0.0/8", Some(Duration::from_mins(10))).await.unwrap();
    assert_eq!(service.check("10.0.0.1", DEFAULT).await.decision(), Decision::Deny);
    let node = service.hierarchy().get_node(GetNodeRequest { name: DEFAULT.to_owned() }).await.unwrap().into_inner();
    assert_eq!(node.pending_revision.unwrap().revision, made.revision);
    let other = deny(service.firewall(), "other", "192.0.2.0/24", None).await;
    assert_error(other, Code::FailedPrecondition, "CONFIRMATION_PENDING");
    let node = Node { name: DEFAULT.to_owned(), display_name: "x".to_owned(), ..Node::default() };
    let request = UpdateNodeRequest { node: Some(node), ..UpdateNodeRequest::default() };
    let refused = service.hierarchy().update_node(request).await;
    assert_error(refused, Code::FailedPrecondition, "CONFIRMATION_PENDING");

    let wrong = ConfirmRevisionRequest { name: name(1), options: None };
    assert_error(service.analysis().confirm_revision(wrong).await, Code::FailedPrecondition, "NOTHING_TO_CONFIRM");
    let confirm = ConfirmRevisionRequest { name: name(made.revision), options: None };
    let confirmed = service.analysis().confirm_revision(confirm.clone()).await.unwrap().into_inner();
    assert_eq!(confirmed.revision, made.revision + 1);
    let again = service.analysis().confirm_revision(confirm).await;
    assert_error(again, Code::FailedPrecondition, "NOTHING_TO_CONFIRM");
    deny(service.firewall(), "other", "192.0.2.0/24", None).await.unwrap();
    assert_eq!(rules(&service).await, ["lock", "other"]);

    // Going back ends the waiting at once.
    let waits = deny(service.firewall(), "third", "198.51.100.0/24", Some(Duration::from_mins(10))).await.unwrap();
    rollback(&service, waits.revision - 1).await.unwrap();
    assert_eq!(rules(&service).await, ["lock", "other"]);
    deny(service.firewall(), "fourth", "198.51.100.0/24", None).await.unwrap();
    // The cluster and whole organizations cannot wait, and say so.
    let node = Node { name: "cluster".to_owned(), access: Some(allow_list(&["10.0.0.0/8"])), ..Node::default() };
    let options = ChangeOptions {
        confirm_within: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..ChangeOptions::default()
    };
    let request = UpdateNodeRequest { node: Some(node), options: Some(options), ..UpdateNodeRequest::default() };
    assert_error(service.hierarchy().update_node(request).await, Code::Unimplemented, "UNSUPPORTED_OPTION");
    service.stop().await;
}

#[tokio::test]
async fn a_change_that_is_not_confirmed_goes_back_by_itself() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    service.add_rule("kept", Action::Allow, "10.0.0.0/8").await;
    let made = deny(service.firewall(), "lock", "any", Some(Duration::from_mins(10))).await.unwrap();
    hand.advance(Duration::from_mins(10) - Duration::from_millis(1));
    assert_eq!(service.check("192.0.2.1", DEFAULT).await.decision(), Decision::Deny);
    // Another change waits until the last moment.
    let other = deny(service.firewall(), "other", "192.0.2.0/24", None).await;
    assert_error(other, Code::FailedPrecondition, "CONFIRMATION_PENDING");
    hand.advance(Duration::from_millis(1));
    until("the change goes back", async || {
        (service.check("192.0.2.1", DEFAULT).await.decision() == Decision::Allow).then_some(())
    })
    .await;
    assert_eq!(rules(&service).await, ["kept"]);
    let newest = revisions(&service, 1_000).await.remove(0);
    let change = newest.policy_change.unwrap();
    assert_eq!((newest.revision, change.actor.as_str()), (made.revision + 1, ""));
    assert_eq!(change.comment, format!("revision {} was not confirmed in time", made.revision));
    let late = ConfirmRevisionRequest { name: name(made.revision), options: None };
    assert_error(service.analysis().confirm_revision(late).await, Code::FailedPrecondition, "NOTHING_TO_CONFIRM");
    service.stop().await;
}

async fn decision(channel: Channel, ip: &str) -> Decision {
    let request = CheckRequest {
        ip: ip.to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        ..CheckRequest::default()
    };
    DecisionServiceClient::new(channel).check(request).await.unwrap().into_inner().decision()
}

#[tokio::test]
async fn a_change_whose_time_ran_out_while_the_service_was_down_is_undone() {
    for is_booted in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (config, hand) = (Config::for_data_dir(directory.path().join("data")), Hand::at_present());
        let service = Service::with_clock(config.clone(), hand.clock()).await;
        deny(service.firewall(), "kept", "198.51.100.0/24", None).await.unwrap();
        let made = deny(service.firewall(), "lock", "any", Some(Duration::from_mins(10))).await.unwrap();
        assert_eq!(decision(service.channel.clone(), "192.0.2.1").await, Decision::Deny);
        service.stop().await;

        hand.advance(Duration::from_mins(11));
        if is_booted {
            hand.boot();
        }
        let service = Service::with_clock(config, hand.clock()).await;
        let channel = service.channel.clone();
        if is_booted {
            // What only a wall clock shows is believed once it has stayed for a minute.
            assert_eq!(decision(channel.clone(), "192.0.2.1").await, Decision::Deny);
            pass(&hand, 31).await;
            pass(&hand, 31).await;
            let undone = async || (decision(channel.clone(), "192.0.2.1").await == Decision::Allow).then_some(());
            until("the change is undone", undone).await;
        }
        assert_eq!(decision(channel.clone(), "192.0.2.1").await, Decision::Allow, "before the first answer");
        assert_eq!(decision(channel.clone(), "198.51.100.1").await, Decision::Deny);
        let request = GetRevisionRequest { name: name(made.revision + 1) };
        let undone = AnalysisServiceClient::new(channel).get_revision(request).await.unwrap().into_inner();
        assert_eq!(undone.policy_change.unwrap().changes.len(), 1);
        service.stop().await;
    }
}

#[tokio::test]
async fn a_change_that_still_waits_after_a_crash_goes_on_waiting_and_can_be_confirmed() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let process = Process::start(&data_dir);
    let firewall = FirewallServiceClient::new(process.connect().await);
    let made = deny(firewall, "lock", "any", Some(Duration::from_mins(10))).await.unwrap();
    process.kill();

    let process = Process::start(&data_dir);
    let channel = process.connect().await;
    assert_eq!(decision(channel.clone(), "192.0.2.1").await, Decision::Deny);
    let other = deny(FirewallServiceClient::new(channel.clone()), "other", "10.0.0.0/8", None).await;
    assert_error(other, Code::FailedPrecondition, "CONFIRMATION_PENDING");
    let confirm = ConfirmRevisionRequest { name: name(made.revision), options: None };
    AnalysisServiceClient::new(channel.clone()).confirm_revision(confirm).await.unwrap();
    process.kill();

    let process = Process::start(&data_dir);
    let channel = process.connect().await;
    assert_eq!(decision(channel.clone(), "192.0.2.1").await, Decision::Deny);
    deny(FirewallServiceClient::new(channel), "other", "10.0.0.0/8", None).await.unwrap();
    process.kill();
}

#[tokio::test]
async fn a_change_is_undone_also_where_limits_were_lowered_since() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = portcullis::config::Config::for_data_dir(directory.path().join("data"));
    let hand = Hand::new();
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    service.add_rule("one", Action::Deny, "192.0.2.0/24").await;
    service.add_rule("two", Action::Deny, "198.51.100.0/24").await;
    let options = ChangeOptions {
        confirm_within: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..ChangeOptions::default()
    };
    let name = format!("{DEFAULT}/rules/two");
    let request = DeleteRuleRequest { name, options: Some(options), ..DeleteRuleRequest::default() };
    service.firewall().delete_rule(request).await.unwrap();
    service.stop().await;
    config.limits.rules_per_organization_max = 1;
    hand.advance(Duration::from_millis(999));
    let service = Service::with_clock(config, hand.clock()).await;
    assert_eq!(rules(&service).await, ["one"], "it still waits");
    hand.advance(Duration::from_millis(1));
    until("the change goes back", async || (rules(&service).await.len() == 2).then_some(())).await;
    assert_eq!(rules(&service).await, ["one", "two"]);
    service.stop().await;
}
