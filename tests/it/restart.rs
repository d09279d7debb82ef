//! A restart on the same data directory, and a second server on it.
//!
//! Invariant: whatever a client could read before a regular stop, it reads after the next start, and a directory has
//! one server at a time.
//! Not here: crashes (`store_journal_crash`), damaged files (`store_journal_files`).

use portcullis::config::Config;
use portcullis::proto::v1::{
    Action, ChangeOptions, CheckRequest, CreateAddressGroupRequest, CreateRuleRequest, DeleteNodeRequest,
    ListAddressGroupsRequest, ListAddressGroupsResponse, ListNodesRequest, ListRangesRequest, ListRulesRequest,
    ListRulesResponse, MoveRuleRequest, Node, Rule,
};
use portcullis::proto::v1::{AddressGroup, GetNodeRequest};
use prost_types::Timestamp;

use crate::harness::{Service, allow_list, rule};

const ORGANIZATION: &str = "organizations/default";

/// Everything that the API shows of the policy.
#[derive(Debug, PartialEq)]
struct Shown {
    cluster: Node,
    nodes: Vec<Node>,
    rules: Vec<ListRulesResponse>,
    groups: Vec<ListAddressGroupsResponse>,
    ranges: Vec<Vec<String>>,
}

async fn show(service: &Service) -> Shown {
    let cluster = service.hierarchy().get_node(GetNodeRequest { name: "cluster".to_owned() }).await.unwrap();
    let request = ListNodesRequest { recursive: true, page_size: 1_000, ..ListNodesRequest::default() };
    let nodes = service.hierarchy().list_nodes(request).await.unwrap().into_inner().nodes;
    let mut shown = Shown { cluster: cluster.into_inner(), rules: vec![], groups: vec![], ranges: vec![], nodes };
    for organization in shown.nodes.iter().filter(|node| node.name.matches('/').count() == 1) {
        let parent = organization.name.clone();
        let request = ListRulesRequest { parent: parent.clone(), ..ListRulesRequest::default() };
        shown.rules.push(service.firewall().list_rules(request).await.unwrap().into_inner());
        let request = ListAddressGroupsRequest { parent, ..ListAddressGroupsRequest::default() };
        let groups = service.firewall().list_address_groups(request).await.unwrap().into_inner();
        for group in &groups.address_groups {
            let request = ListRangesRequest { name: group.name.clone(), page_size: 1_000, ..Default::default() };
            shown.ranges.push(service.firewall().list_ranges(request).await.unwrap().into_inner().ranges);
        }
        shown.groups.push(groups);
    }
    shown
}

/// A policy with something of everything, with a history, and decisions that rules have counted.
async fn fill(service: &Service) {
    for id in ["other", "gone"] {
        service.add_node("", id, None).await;
    }
    let group = AddressGroup {
        description: "block list".to_owned(),
        ranges: ["any", "::/0", "10.0.0.0/8", "192.0.2.1", "2001:db8::1"].map(str::to_owned).to_vec(),
        ..AddressGroup::default()
    };
    for id in ["listed", "empty"] {
        let request = CreateAddressGroupRequest {
            parent: ORGANIZATION.to_owned(),
            address_group: (id == "listed").then(|| group.clone()),
            address_group_id: id.to_owned(),
            ..CreateAddressGroupRequest::default()
        };
        service.firewall().create_address_group(request).await.unwrap();
    }
    for (id, given) in [
        (
            "full",
            Rule {
                description: "ü".to_owned(),
                connection_types: vec![2],
                disabled: true,
                expire_time: Some(Timestamp { seconds: 4_000_000_000, nanos: 1 }),
                ..rule(Action::Allow, "2001:db8::/32")
            },
        ),
        ("deny", rule(Action::Deny, "198.51.100.0/24")),
        ("allow", rule(Action::Allow, "192.0.2.0/24")),
    ] {
        let options = Some(ChangeOptions { comment: "setup".to_owned(), ..ChangeOptions::default() });
        let (parent, rule_id) = (ORGANIZATION.to_owned(), id.to_owned());
        let request = CreateRuleRequest { parent, rule: Some(given), rule_id, position: Some(1), options };
        service.firewall().create_rule(request).await.unwrap();
    }
    let name = format!("{ORGANIZATION}/rules/full");
    service.firewall().move_rule(MoveRuleRequest { name, position: 1, ..Default::default() }).await.unwrap();
    let project = service.add_node(ORGANIZATION, "shop", Some(allow_list(&["192.0.2.0/24", "::/0"]))).await.name;
    let workspace = service.add_node(&project, "dev", None).await.name;
    service.add_node(&workspace, "web", Some(allow_list(&[]))).await;
    service.set_access("cluster", allow_list(&["0.0.0.0/0", "2001:db8::/32"])).await;
    let request = DeleteNodeRequest { name: "organizations/gone".to_owned(), ..DeleteNodeRequest::default() };
    service.hierarchy().delete_node(request).await.unwrap();
    for ip in ["192.0.2.1", "192.0.2.2", "198.51.100.1", "192.0.2.3"] {
        service.check(ip, &project).await;
    }
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let temporary = tempfile::tempdir().unwrap();
    let config = || Config::for_data_dir(temporary.path().join("data"));
    let service = Service::with_config(config()).await;
    fill(&service).await;
    let before = show(&service).await;
    let counts: Vec<i64> = before.rules[0].rules.iter().map(|rule| rule.match_count).collect();
    assert_eq!(counts, [0, 3, 1]);
    let mut decisions = vec![service.check("192.0.2.1", ORGANIZATION).await.decision_id];
    let page = ListRulesRequest { parent: ORGANIZATION.to_owned(), page_size: 1, ..ListRulesRequest::default() };
    let token = service.firewall().list_rules(page.clone()).await.unwrap().into_inner().next_page_token;
    let before = { show(&service).await.rules[0].rules[1].match_count == 4 }.then_some(before).unwrap();
    service.stop().await;

    for round in 0..3 {
        let service = Service::with_config(config()).await;
        let mut after = show(&service).await;
        // The one decision since it was shown, and those of this test's earlier rounds.
        let counted = &mut after.rules[0].rules[1];
        assert_eq!(counted.match_count, 4 + round);
        (counted.match_count, counted.last_match_time) = (3, before.rules[0].rules[1].last_match_time);
        assert_eq!(after, before);
        let answer = service.check("192.0.2.1", "organizations/default/projects/shop").await;
        assert_eq!((answer.revision, answer.cluster_revision), (before.rules[0].revision, before.cluster.revision));
        assert!(!decisions.contains(&answer.decision_id));
        decisions.push(answer.decision_id);
        // Etags and tokens that were given out before still fit.
        let next = ListRulesRequest { page_token: token.clone(), ..page.clone() };
        assert_eq!(service.firewall().list_rules(next).await.unwrap().into_inner().rules[0].position, 2);
        service.stop().await;
    }
    let service = Service::with_config(config()).await;
    let moved = MoveRuleRequest {
        name: format!("{ORGANIZATION}/rules/deny"),
        position: 1,
        etag: before.rules[0].etag.clone(),
        options: None,
    };
    let moved = service.firewall().move_rule(moved).await.unwrap().into_inner();
    assert_eq!(moved.revision, before.rules[0].revision + 1);
    // An organization that was deleted before goes on from its old count.
    assert!(service.add_node("", "gone", None).await.revision > 1);
    let request = CheckRequest { ip: "::1".to_owned(), connection_type: 1, ..CheckRequest::default() };
    let request = CheckRequest { endpoint: "organizations/gone".to_owned(), ..request };
    assert_eq!(service.decisions().check(request).await.unwrap().into_inner().message, "cluster_restricted");
    service.stop().await;
}

#[tokio::test]
async fn a_fresh_directory_holds_the_default_organization_and_an_open_cluster() {
    let service = Service::start().await;
    let Shown { cluster, nodes, rules, groups, ranges } = show(&service).await;
    assert_eq!((cluster.revision, nodes.len(), ranges.len()), (1, 1, 0));
    assert_eq!((nodes[0].name.as_str(), nodes[0].revision, nodes[0].require_projects()), (ORGANIZATION, 1, false));
    assert_eq!((rules[0].rules.len(), rules[0].revision, groups[0].address_groups.len()), (0, 1, 0));
    service.stop().await;
}

#[tokio::test]
async fn a_deleted_default_organization_stays_deleted() {
    let temporary = tempfile::tempdir().unwrap();
    let config = || Config::for_data_dir(temporary.path().join("data"));
    let service = Service::with_config(config()).await;
    let request = DeleteNodeRequest { name: ORGANIZATION.to_owned(), ..DeleteNodeRequest::default() };
    service.hierarchy().delete_node(request).await.unwrap();
    service.stop().await;
    let service = Service::with_config(config()).await;
    assert_eq!(show(&service).await.nodes, []);
    assert_eq!(service.check("192.0.2.1", ORGANIZATION).await.message, "unknown_endpoint");
    service.stop().await;
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let temporary = tempfile::tempdir().unwrap();
    let config = Config::for_data_dir(temporary.path().join("data"));
    let service = Service::with_config(config.clone()).await;
    for _ in 0..2 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let second = portcullis::server::run(config.clone(), listener, std::future::pending());
        let second = tokio::time::timeout(std::time::Duration::from_secs(5), second).await;
        let message = format!("{:#}", second.expect("refused at once").unwrap_err());
        assert!(message.contains(&*service.data_dir().to_string_lossy()), "{message}");
        assert!(message.contains("in use") || message.contains("another process"), "{message}");
        service.add_rule("", Action::Deny, "192.0.2.1").await;
    }
    service.stop().await;
    let service = Service::with_config(config).await;
    assert_eq!(show(&service).await.rules[0].rules.len(), 2);
    service.stop().await;
}
