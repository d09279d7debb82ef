//! Pages of every list of FirewallService and HierarchyService.
//!
//! Invariant: whatever the sizes of the pages, a list that does not change gives every item once and in order; a page
//! never exceeds what an answer may be.
//! Not here: malformed sizes and tokens (`malformed_rules`, `malformed_groups`, `malformed_hierarchy`).

use portcullis::proto::v1::{
    Access, AccessEntry, AccessMode, Action, AddRangesRequest, AddressGroup, CreateAddressGroupRequest,
    CreateNodeRequest, CreateRuleRequest, ListAddressGroupsRequest, ListNodesRequest, ListRangesRequest,
    ListRulesRequest, MoveRuleRequest, Node, ReplaceRulesRequest, Rule, UpdateAddressGroupRequest, access_entry,
};
use prost::Message;
use tonic::Code;

use crate::harness::{Service, assert_error, rule};

const ORGANIZATION: &str = "organizations/default";
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A page: its items and the next token.
type Page = (Vec<String>, String);

/// All items of a list, page by page. No page but the last is empty, and none is longer than asked for.
async fn all(size: i32, mut page: impl AsyncFnMut(i32, String) -> Page) -> Vec<String> {
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let (some, next) = page(size, token).await;
        assert!(some.len() <= usize::try_from(size).unwrap());
        items.extend(some.iter().cloned());
        if next.is_empty() {
            return items;
        }
        assert!(!some.is_empty(), "an empty page that is not the last");
        token = next;
    }
}

async fn rules(service: &Service, page_size: i32, page_token: String) -> Page {
    let request = ListRulesRequest { parent: ORGANIZATION.to_owned(), page_size, page_token };
    let answer = service.firewall().list_rules(request).await.unwrap().into_inner();
    assert!(answer.encoded_len() <= ANSWER_BYTES_MAX);
    (answer.rules.into_iter().map(|rule| rule.name).collect(), answer.next_page_token)
}

async fn ranges(service: &Service, name: &str, page_size: i32, page_token: String) -> Page {
    let request = ListRangesRequest { name: name.to_owned(), page_size, page_token };
    let answer = service.firewall().list_ranges(request).await.unwrap().into_inner();
    (answer.ranges, answer.next_page_token)
}

async fn groups(service: &Service, page_size: i32, page_token: String) -> Page {
    let request = ListAddressGroupsRequest { parent: ORGANIZATION.to_owned(), page_size, page_token };
    let answer = service.firewall().list_address_groups(request).await.unwrap().into_inner();
    (answer.address_groups.into_iter().map(|group| group.name).collect(), answer.next_page_token)
}

async fn nodes(service: &Service, parent: &str, recursive: bool, page_size: i32, page_token: String) -> Page {
    let request = ListNodesRequest { parent: parent.to_owned(), recursive, page_size, page_token };
    let answer = service.hierarchy().list_nodes(request).await.unwrap().into_inner();
    assert!(answer.encoded_len() <= ANSWER_BYTES_MAX);
    (answer.nodes.into_iter().map(|node| node.name).collect(), answer.next_page_token)
}

async fn create_group(service: &Service, id: &str, ranges: Vec<String>) -> String {
    let request = CreateAddressGroupRequest {
        parent: ORGANIZATION.to_owned(),
        address_group: Some(AddressGroup { ranges, ..AddressGroup::default() }),
        address_group_id: id.to_owned(),
        ..CreateAddressGroupRequest::default()
    };
    service.firewall().create_address_group(request).await.unwrap().into_inner().name
}

/// Replaces all rules by `count` whose descriptions have `bytes` bytes each.
async fn fill(service: &Service, count: usize, bytes: usize) {
    let described = |n: usize| Rule {
        name: format!("{ORGANIZATION}/rules/r{n}"),
        description: "\u{1F6AA}".repeat(bytes / 4),
        ..rule(Action::Deny, "192.0.2.1")
    };
    let rules = (0..count).map(described).collect();
    let request = ReplaceRulesRequest { parent: ORGANIZATION.to_owned(), rules, ..ReplaceRulesRequest::default() };
    let answer = service.firewall().replace_rules(request).await.unwrap().into_inner();
    assert!(answer.encoded_len() <= ANSWER_BYTES_MAX && answer.rules.len() <= 1_000);
}

#[tokio::test]
async fn pages_of_any_size_give_every_rule_and_range_once_and_in_order() {
    let service = Service::start().await;
    fill(&service, 23, 0).await;
    let expected: Vec<String> = (0..23).map(|n| format!("{ORGANIZATION}/rules/r{n}")).collect();
    let any = vec!["any".to_owned(), "0.0.0.0/0".to_owned(), "10.0.0.0/8".to_owned(), "10.0.0.0".to_owned()];
    let v4 = (1..8).map(|n| format!("192.0.2.{n}"));
    let v6 = (1..8).map(|n| format!("2001:db8::{n}"));
    let expected_ranges: Vec<String> = any.into_iter().chain(v4).chain(["::/0".to_owned()]).chain(v6).collect();
    let group = create_group(&service, "g", expected_ranges.iter().rev().cloned().collect()).await;
    for size in (1..9).chain([17, 18, 19, 22, 23, 24, 1_000, i32::MAX]) {
        assert_eq!(all(size, async |size, token| rules(&service, size, token).await).await, expected, "{size}");
        let read = all(size, async |size, token| ranges(&service, &group, size, token).await).await;
        assert_eq!(read, expected_ranges, "{size}");
    }
    service.stop().await;
}

#[tokio::test]
async fn pages_of_any_size_give_every_group_and_node_once_and_in_order() {
    let service = Service::start().await;
    let ids = ["a", "a-a", "a0", "aa", "b", "0", "z-9"];
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    for id in ids {
        create_group(&service, id, Vec::new()).await;
        let organization = if id == "b" { "default" } else { id };
        let organization = match id {
            "b" => format!("organizations/{organization}"),
            _ => service.add_node("", organization, None).await.name,
        };
        for project in ["p", "p-q"] {
            let project = service.add_node(&organization, project, None).await.name;
            for workspace in ["w", "v"] {
                let workspace = service.add_node(&project, workspace, None).await.name;
                service.add_node(&workspace, "e", None).await;
            }
        }
    }
    let expected_groups: Vec<String> = sorted.iter().map(|id| format!("{ORGANIZATION}/addressGroups/{id}")).collect();
    let mut organizations: Vec<&str> =
        sorted.iter().copied().map(|id| if id == "b" { "default" } else { id }).collect();
    organizations.sort_unstable();
    let expected_organizations: Vec<String> = organizations.iter().map(|id| format!("organizations/{id}")).collect();
    let below = |organization: &String| -> Vec<String> {
        let of = |project: &str| {
            let name = format!("{organization}/projects/{project}");
            let workspace =
                |id: &str| [format!("{name}/workspaces/{id}"), format!("{name}/workspaces/{id}/endpoints/e")];
            [vec![name.clone()], workspace("v").to_vec(), workspace("w").to_vec()].concat()
        };
        [of("p"), of("p-q")].concat()
    };
    let everything: Vec<String> =
        expected_organizations.iter().flat_map(|name| [vec![name.clone()], below(name)].concat()).collect();
    for size in [1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 21, 22, 23, 76, 77, 78, 1_000] {
        assert_eq!(all(size, async |size, token| groups(&service, size, token).await).await, expected_groups);
        for (parent, recursive, expected) in [
            ("", false, expected_organizations.clone()),
            ("", true, everything.clone()),
            (ORGANIZATION, true, below(&ORGANIZATION.to_owned())),
            (ORGANIZATION, false, ["p", "p-q"].map(|id| format!("{ORGANIZATION}/projects/{id}")).to_vec()),
            ("organizations/default/projects/p", true, below(&ORGANIZATION.to_owned())[1..5].to_vec()),
            (
                "organizations/default/projects/p",
                false,
                ["v", "w"].map(|id| format!("{ORGANIZATION}/projects/p/workspaces/{id}")).to_vec(),
            ),
            (
                "organizations/default/projects/p/workspaces/w",
                false,
                vec!["organizations/default/projects/p/workspaces/w/endpoints/e".to_owned()],
            ),
            ("organizations/default/projects/p/workspaces/w/endpoints/e", true, Vec::new()),
        ] {
            let read = all(size, async |size, token| nodes(&service, parent, recursive, size, token).await).await;
            assert_eq!(read, expected, "{parent} {recursive} {size}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn a_page_has_a_hundred_items_unless_told_otherwise_and_a_thousand_at_most() {
    let service = Service::start().await;
    fill(&service, 1_101, 0).await;
    let many = (0..1_101).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    let group = create_group(&service, "g", many).await;
    for (size, count) in [(0, 100), (1, 1), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)] {
        assert_eq!(rules(&service, size, String::new()).await.0.len(), count);
        assert_eq!(ranges(&service, &group, size, String::new()).await.0.len(), count);
    }
    // The size may change from page to page.
    let (first, token) = rules(&service, 7, String::new()).await;
    let (second, token) = rules(&service, 1_000, token).await;
    let (third, token) = rules(&service, 0, token).await;
    assert_eq!([first.len(), second.len(), third.len()], [7, 1_000, 94]);
    assert!(
        token.is_empty()
            && first.iter().chain(&second).chain(&third).collect::<std::collections::BTreeSet<_>>().len() == 1_101
    );
    service.stop().await;
}

#[tokio::test]
async fn a_page_is_shorter_where_its_items_are_long() {
    let service = Service::start().await;
    fill(&service, 1_200, 4_096).await;
    let (first, _) = rules(&service, 1_000, String::new()).await;
    assert!((900..1_000).contains(&first.len()), "{}", first.len());
    let read = all(1_000, async |size, token| rules(&service, size, token).await).await;
    assert_eq!(read.len(), 1_200);
    let entry = |n: usize| AccessEntry {
        source: Some(access_entry::Source::Range(format!("10.0.0.{n}"))),
        description: "\u{1F6AA}".repeat(1_024),
    };
    for project in 0..6 {
        let access = Access { mode: AccessMode::AllowList.into(), entries: (0..240).map(entry).collect() };
        let request = CreateNodeRequest {
            parent: ORGANIZATION.to_owned(),
            node_id: format!("p{project}"),
            node: Some(Node { access: Some(access), ..Node::default() }),
            options: None,
        };
        service.hierarchy().create_node(request).await.unwrap();
    }
    let (first, _) = nodes(&service, ORGANIZATION, false, 0, String::new()).await;
    assert_eq!(first.len(), 4);
    assert_eq!(all(100, async |size, token| nodes(&service, "", true, size, token).await).await.len(), 7);
    service.stop().await;
}

#[tokio::test]
async fn the_token_of_an_ordered_list_that_has_changed_is_refused_and_of_another_list_too() {
    let service = Service::start().await;
    fill(&service, 4, 0).await;
    let mut firewall = service.firewall();
    let move_rule =
        |position| MoveRuleRequest { name: format!("{ORGANIZATION}/rules/r0"), position, ..Default::default() };
    let list_rules =
        |page_token: String| ListRulesRequest { parent: ORGANIZATION.to_owned(), page_size: 2, page_token };
    let (_, token) = rules(&service, 2, String::new()).await;
    firewall.move_rule(move_rule(2)).await.unwrap();
    assert_error(firewall.list_rules(list_rules(token.clone())).await, Code::Aborted, "LIST_CHANGED");
    // Back in the old order it is another state all the same: whoever reads may have missed something.
    firewall.move_rule(move_rule(1)).await.unwrap();
    assert_error(firewall.list_rules(list_rules(token)).await, Code::Aborted, "LIST_CHANGED");
    // What is no change of the list does not matter.
    let (_, token) = rules(&service, 2, String::new()).await;
    service.check("192.0.2.1", ORGANIZATION).await;
    firewall.move_rule(move_rule(1)).await.unwrap();
    let group = create_group(&service, "g", vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned()]).await;
    assert_eq!(rules(&service, 2, token).await.0.len(), 2);

    let (_, token) = ranges(&service, &group, 1, String::new()).await;
    let described = AddressGroup { name: group.clone(), description: "new".to_owned(), ..AddressGroup::default() };
    let request = UpdateAddressGroupRequest { address_group: Some(described), ..Default::default() };
    firewall.update_address_group(request).await.unwrap();
    assert_eq!(ranges(&service, &group, 1, token.clone()).await.0, ["192.0.2.2"]);
    let request = AddRangesRequest { name: group.clone(), ranges: vec!["192.0.2.3".to_owned()], options: None };
    firewall.add_ranges(request).await.unwrap();
    let request = ListRangesRequest { name: group, page_size: 1, page_token: token };
    assert_error(firewall.list_ranges(request).await, Code::Aborted, "LIST_CHANGED");

    // Sets in the order of names go on where they were, whatever came or went.
    for id in ["a", "c", "e"] {
        create_group(&service, id, Vec::new()).await;
    }
    let (first, token) = groups(&service, 2, String::new()).await;
    assert_eq!(first, ["a", "c"].map(|id| format!("{ORGANIZATION}/addressGroups/{id}")));
    let name = format!("{ORGANIZATION}/addressGroups/c");
    let request = portcullis::proto::v1::DeleteAddressGroupRequest { name, ..Default::default() };
    firewall.delete_address_group(request).await.unwrap();
    create_group(&service, "d", Vec::new()).await;
    let (rest, _) = groups(&service, 9, token).await;
    assert_eq!(rest, ["d", "e", "g"].map(|id| format!("{ORGANIZATION}/addressGroups/{id}")));
    let request = CreateRuleRequest {
        parent: ORGANIZATION.to_owned(),
        rule: Some(rule(Action::Deny, "any")),
        ..CreateRuleRequest::default()
    };
    firewall.create_rule(request).await.unwrap();
    service.stop().await;
}
