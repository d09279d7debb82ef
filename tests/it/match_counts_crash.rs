//! Match counts over a `kill -9`: what was acknowledged is counted, whenever the counts were last stored.
//!
//! Guards against: a rule that looks unused, and is deleted, because the service was killed.
//! Not here: counting (`rules_api`), and counts over a regular restart (`restart`).

use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::hierarchy_service_client::HierarchyServiceClient;
use portcullis::proto::v1::{
    Action, CheckRequest, ConnectionType, CreateNodeRequest, CreateRuleRequest, ListRulesRequest, Node, Rule,
};
use tonic::transport::Channel;

use crate::harness::{allow_list, rule};
use crate::process::Process;

const DEFAULT: &str = "organizations/default";

async fn add_rule(channel: &Channel, id: &str, action: Action, range: &str) {
    let request = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule(action, range)),
        rule_id: id.to_owned(),
        ..CreateRuleRequest::default()
    };
    FirewallServiceClient::new(channel.clone()).create_rule(request).await.unwrap();
}

async fn rules(channel: &Channel) -> Vec<Rule> {
    let request = ListRulesRequest { parent: DEFAULT.to_owned(), ..ListRulesRequest::default() };
    FirewallServiceClient::new(channel.clone()).list_rules(request).await.unwrap().into_inner().rules
}

/// Shells, whose records are durable before they are answered.
async fn check(channel: &Channel, ip: &str, endpoint: &str, times: usize) {
    let request = CheckRequest {
        ip: ip.to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: endpoint.to_owned(),
        ..CheckRequest::default()
    };
    for _ in 0..times {
        DecisionServiceClient::new(channel.clone()).check(request.clone()).await.unwrap();
    }
}

fn counts(rules: &[Rule]) -> Vec<i64> {
    rules.iter().map(|rule| rule.match_count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_no_match_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Process::start(directory.path());
    let channel = service.connect().await;
    add_rule(&channel, "bad", Action::Deny, "203.0.113.0/24").await;
    add_rule(&channel, "office", Action::Allow, "198.51.100.0/24").await;
    // The office may not reach this project: its rule matches there, and no record names it.
    let node = Node { access: Some(allow_list(&["192.0.2.0/24"])), ..Node::default() };
    let closed = CreateNodeRequest {
        parent: DEFAULT.to_owned(),
        node_id: "closed".to_owned(),
        node: Some(node),
        ..CreateNodeRequest::default()
    };
    HierarchyServiceClient::new(channel.clone()).create_node(closed).await.unwrap();
    let (closed, mut expected) = (format!("{DEFAULT}/projects/closed"), [0, 0]);
    let begun = rules(&channel).await;
    // Counts are stored at most every ten seconds: each round is killed before, or shortly after.
    for round in 1..=4 {
        let channel = service.connect().await;
        check(&channel, "203.0.113.9", DEFAULT, 3 * round).await;
        check(&channel, "198.51.100.7", DEFAULT, 2).await;
        check(&channel, "198.51.100.7", &closed, round).await;
        let round = i64::try_from(round).unwrap();
        expected = [expected[0] + 3 * round, expected[1] + 2 + round];
        assert_eq!(counts(&rules(&channel).await), expected);
        if round == 3 {
            // A regular end stores them.
            let (status, log) = service.terminate();
            assert!(status.success(), "{log}");
        } else {
            service.kill();
        }
        service = Process::start(directory.path());
        let after = rules(&service.connect().await).await;
        assert_eq!(counts(&after), expected, "round {round}");
        for (rule, begun) in after.iter().zip(&begun) {
            let [start, begun] = [rule, begun].map(|rule| rule.match_count_start_time.unwrap());
            assert!(
                (start.seconds, start.nanos) <= (begun.seconds, begun.nanos),
                "round {round}: {start:?}, {begun:?}"
            );
            assert!(rule.last_match_time.is_some());
        }
    }
    service.kill();
}
