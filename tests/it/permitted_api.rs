//! Effective access and permitted ranges through the API, against a naive computation and against Checks.
//!
//! Invariant: a range is listed exactly where every address of it is allowed, and there is no shorter list.
//! Not here: nodes (`hierarchy_api`), the algebra itself (`decisions`).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portcullis::proto::v1::{
    Access, AccessEntry, AccessMode, Action, AddRangesRequest, CheckRequest, ConnectionType, CreateAddressGroupRequest,
    CreateRuleRequest, Decision, EffectiveAccess, GetEffectiveAccessRequest, ListPermittedRangesRequest,
    ListPermittedRangesResponse, ProblemCode, Rule, access_entry,
};
use tonic::{Code, Status};

use crate::harness::{Service, access, allow_list, assert_error, rule};

const ORGANIZATION: &str = "organizations/default";
const PROJECT: &str = "organizations/default/projects/shop";
const WORKSPACE: &str = "organizations/default/projects/shop/workspaces/dev";
const ENDPOINT: &str = "organizations/default/projects/shop/workspaces/dev/endpoints/web";

async fn effective(service: &Service, name: &str) -> EffectiveAccess {
    let request = GetEffectiveAccessRequest { name: name.to_owned() };
    service.hierarchy().get_effective_access(request).await.unwrap().into_inner()
}

async fn page(
    service: &Service,
    name: &str,
    connection_type: ConnectionType,
    page_size: i32,
    page_token: &str,
) -> Result<ListPermittedRangesResponse, Status> {
    let (name, page_token) = (name.to_owned(), page_token.to_owned());
    let connection_type = connection_type.into();
    let request = ListPermittedRangesRequest { name, connection_type, page_size, page_token };
    service.hierarchy().list_permitted_ranges(request).await.map(tonic::Response::into_inner)
}

async fn permitted(service: &Service, name: &str, connection_type: ConnectionType, page_size: i32) -> Vec<String> {
    let (mut ranges, mut token) = (Vec::new(), String::new());
    loop {
        let next = page(service, name, connection_type, page_size, &token).await.unwrap();
        assert!(next.ranges.len() <= usize::try_from(page_size).unwrap());
        ranges.extend(next.ranges);
        if next.next_page_token.is_empty() {
            return ranges;
        }
        token = next.next_page_token;
    }
}

/// All IPv4 and all IPv6 addresses, or the networks of one range.
fn networks(range: &str) -> Vec<IpNet> {
    match range {
        "any" => vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
        _ => vec![range.parse().unwrap_or_else(|_| IpNet::from(range.parse::<IpAddr>().unwrap()))],
    }
}

/// A policy as its author reads it: the rules in order, and one list for each level; none permits everything.
struct Naive<'a> {
    rules: &'a [(Action, &'a str)],
    lists: &'a [&'a [&'a str]],
}

impl Naive<'_> {
    fn permits(&self, address: IpAddr) -> bool {
        let within = |range: &str| networks(range).iter().any(|network| network.contains(&address));
        let first = self.rules.iter().find(|(_, range)| within(range));
        first.is_none_or(|(action, _)| *action == Action::Allow)
            && self.lists.iter().all(|list| list.iter().any(|range| within(range)))
    }

    /// The fewest ranges below `network` by halving it until nothing in the policy tells its addresses apart.
    fn ranges(&self, network: IpNet) -> Vec<IpNet> {
        let named = self.rules.iter().map(|(_, range)| *range).chain(self.lists.iter().copied().flatten().copied());
        let divides = |range: &str| networks(range).iter().any(|inner| network.contains(inner) && *inner != network);
        if !named.into_iter().any(divides) {
            return if self.permits(network.addr()) { vec![network] } else { Vec::new() };
        }
        let halves: Vec<IpNet> = network.subnets(network.prefix_len() + 1).unwrap().collect();
        let below: Vec<IpNet> = halves.iter().flat_map(|half| self.ranges(*half)).collect();
        if below == halves { vec![network] } else { below }
    }

    fn all(&self) -> Vec<String> {
        let shown = |network: IpNet| {
            if network.prefix_len() == network.max_prefix_len() {
                network.addr().to_string()
            } else {
                network.to_string()
            }
        };
        networks("any").into_iter().flat_map(|family| self.ranges(family)).map(shown).collect()
    }
}

async fn add_rule(service: &Service, rule: Rule) {
    let request =
        CreateRuleRequest { parent: ORGANIZATION.to_owned(), rule: Some(rule), ..CreateRuleRequest::default() };
    service.firewall().create_rule(request).await.unwrap();
}

const RULES: &[(Action, &str)] = &[
    (Action::Allow, "10.1.2.0/24"),
    (Action::Deny, "10.1.0.0/16"),
    (Action::Deny, "2001:db8:1::/48"),
    (Action::Allow, "10.0.0.0/8"),
    (Action::Deny, "192.0.2.128/25"),
    (Action::Deny, "255.255.255.255"),
    (Action::Deny, "0.0.0.0"),
];
const CLUSTER: &[&str] = &["0.0.0.0/1", "128.0.0.0/1", "2001:db8::/32", "2001:db9::/32"];
const OWN: &[&str] = &["any"];
const LISTED: &[&str] =
    &["10.1.2.3", "10.1.3.0/24", "10.128.0.0/9", "192.0.2.0/24", "0.0.0.0/30", "255.255.255.254/31", "2001:db8::/31"];

async fn build(service: &Service) {
    for (action, range) in RULES {
        add_rule(service, rule(*action, range)).await;
    }
    service.set_access("cluster", allow_list(CLUSTER)).await;
    service.set_access(ORGANIZATION, allow_list(OWN)).await;
    service.add_node(ORGANIZATION, "shop", Some(allow_list(LISTED))).await;
    service.add_node(PROJECT, "dev", None).await;
    service.add_node(WORKSPACE, "web", Some(access(AccessMode::AllowAll))).await;
}

#[tokio::test]
async fn permitted_ranges_are_the_fewest_that_a_naive_reading_of_the_policy_gives() {
    let service = Service::start().await;
    build(&service).await;
    add_rule(&service, Rule { disabled: true, ..rule(Action::Deny, "any") }).await;
    let types = vec![ConnectionType::Preview.into()];
    add_rule(&service, Rule { connection_types: types, ..rule(Action::Deny, "192.0.2.0/26") }).await;
    let with_preview = [RULES, &[(Action::Deny, "192.0.2.0/26")]].concat();
    let expected = |lists: &[&[&str]]| [RULES, &with_preview].map(|rules| Naive { rules, lists }.all());
    let (at_project, at_endpoint) = (expected(&[CLUSTER, OWN, LISTED]), expected(&[CLUSTER, OWN]));
    assert_ne!(at_project[0], at_project[1]);
    let unregistered = format!("{PROJECT}/workspaces/none/endpoints/none");
    for (name, expected) in [
        (PROJECT, &at_project),
        (WORKSPACE, &at_project),
        (unregistered.as_str(), &at_project),
        (ENDPOINT, &at_endpoint),
    ] {
        let shown = effective(&service, name).await;
        assert!(!shown.truncated);
        let types = [ConnectionType::Shell, ConnectionType::Preview];
        assert_eq!(shown.permitted_ranges.len(), types.len());
        for ((ranges, connection_type), expected) in shown.permitted_ranges.iter().zip(types).zip(expected) {
            assert_eq!((ranges.connection_type(), &ranges.ranges), (connection_type, expected), "{name}");
            for size in [1, 2, 3, 7, 1_000] {
                assert_eq!(&permitted(&service, name, connection_type, size).await, expected, "{name}");
            }
        }
    }
    // And a Check at both ends of every range, and beside them, says the same.
    let networks: Vec<IpNet> = at_project[0].iter().flat_map(|range| networks(range)).collect();
    let next_to = |address: IpAddr| match address {
        IpAddr::V4(v4) => [v4.to_bits().checked_sub(1), v4.to_bits().checked_add(1)]
            .into_iter()
            .flatten()
            .map(|bits| IpAddr::V4(bits.into()))
            .collect::<Vec<_>>(),
        IpAddr::V6(v6) => [v6.to_bits().checked_sub(1), v6.to_bits().checked_add(1)]
            .into_iter()
            .flatten()
            .map(|bits| IpAddr::V6(bits.into()))
            .collect(),
    };
    for edge in networks.iter().flat_map(|network| [network.addr(), network.broadcast()]) {
        for address in next_to(edge).into_iter().chain([edge]) {
            let allowed = service.check(&address.to_string(), PROJECT).await.decision() == Decision::Allow;
            assert_eq!(allowed, networks.iter().any(|network| network.contains(&address)), "{address}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn effective_access_names_the_node_whose_setting_applies_and_its_entries() {
    let service = Service::start().await;
    // Nothing but the organization.
    let shown = effective(&service, ORGANIZATION).await;
    assert_eq!((shown.mode(), shown.source.as_str(), shown.entries.len()), (AccessMode::AllowAll, ORGANIZATION, 0));
    assert_eq!(shown.permitted_ranges[0].ranges, ["0.0.0.0/0", "::/0"]);
    assert_eq!(effective(&service, ENDPOINT).await.source, ORGANIZATION, "no project is required yet");
    let shown = effective(&service, "cluster").await;
    assert_eq!(
        (shown.name.as_str(), shown.source.as_str(), shown.mode()),
        ("cluster", "cluster", AccessMode::AllowAll)
    );
    build(&service).await;
    let entries = |ranges: &[&str]| allow_list(ranges).entries;
    for (name, source, mode, own) in [
        (ORGANIZATION, ORGANIZATION, AccessMode::AllowList, entries(OWN)),
        (PROJECT, PROJECT, AccessMode::AllowList, entries(LISTED)),
        (WORKSPACE, PROJECT, AccessMode::AllowList, entries(LISTED)),
        (ENDPOINT, ENDPOINT, AccessMode::AllowAll, vec![]),
    ] {
        let shown = effective(&service, name).await;
        assert_eq!(
            (shown.name.as_str(), shown.source.as_str(), shown.mode(), shown.entries),
            (name, source, mode, own)
        );
        assert_eq!((shown.organization_entries, shown.cluster_entries), (entries(OWN), entries(CLUSTER)));
    }
    let shown = effective(&service, "cluster").await;
    assert_eq!((shown.mode(), shown.entries), (AccessMode::AllowList, entries(CLUSTER)));
    service.add_node(ORGANIZATION, "empty", None).await;
    let shown = effective(&service, "organizations/default/projects/empty/workspaces/w").await;
    assert_eq!((shown.source.as_str(), shown.problems.len()), ("organizations/default/projects/empty", 1));
    let problem = &shown.problems[0];
    let asked = "organizations/default/projects/empty/workspaces/w";
    assert_eq!((problem.code(), problem.resource.as_str()), (ProblemCode::NoAddresses, asked));
    assert!(shown.permitted_ranges.iter().all(|ranges| ranges.ranges.is_empty()));
    let request = GetEffectiveAccessRequest { name: "organizations/default/projects/none".to_owned() };
    assert_error(service.hierarchy().get_effective_access(request).await, Code::NotFound, "NOT_FOUND");
    service.stop().await;
}

#[tokio::test]
async fn entries_keep_the_order_and_the_words_they_were_given() {
    let service = Service::start().await;
    let request = CreateAddressGroupRequest {
        parent: ORGANIZATION.to_owned(),
        address_group_id: "g".to_owned(),
        ..CreateAddressGroupRequest::default()
    };
    let group = service.firewall().create_address_group(request).await.unwrap().into_inner().name;
    let entry = |source, words: &str| AccessEntry { source: Some(source), description: words.to_owned() };
    let given = |mapped: &str| Access {
        mode: AccessMode::AllowList.into(),
        entries: vec![
            entry(access_entry::Source::Range("198.51.100.7".to_owned()), "second floor"),
            entry(access_entry::Source::AddressGroup(group.clone()), ""),
            entry(access_entry::Source::Range(mapped.to_owned()), "first floor"),
            entry(access_entry::Source::Range("198.51.100.7".to_owned()), "doubled"),
        ],
    };
    let node = service.add_node(ORGANIZATION, "shop", Some(given("::ffff:10.0.0.0/104"))).await;
    assert_eq!(node.access, Some(given("10.0.0.0/8")));
    let shown = effective(&service, PROJECT).await;
    assert_eq!(shown.entries, given("10.0.0.0/8").entries);
    assert_eq!(shown.permitted_ranges[0].ranges, ["10.0.0.0/8", "198.51.100.7"]);
    // What enters the group is permitted at once, merged with what is there.
    let ranges = ["198.51.100.6", "11.0.0.0/8"].map(str::to_owned).to_vec();
    let request = AddRangesRequest { name: group, ranges, options: None };
    service.firewall().add_ranges(request).await.unwrap();
    assert_eq!(permitted(&service, PROJECT, ConnectionType::Shell, 9).await, ["10.0.0.0/7", "198.51.100.6/31"]);
    service.stop().await;
}

#[tokio::test]
async fn the_pages_of_permitted_ranges_are_of_one_policy() {
    let service = Service::start().await;
    build(&service).await;
    let shell = ConnectionType::Shell;
    let token = async || page(&service, PROJECT, shell, 2, "").await.unwrap().next_page_token;
    let first = token().await;
    // Another organization is none of this list's business.
    service.add_node("", "other", None).await;
    let check = CheckRequest {
        ip: "10.1.2.3".to_owned(),
        connection_type: 1,
        endpoint: PROJECT.to_owned(),
        ..Default::default()
    };
    service.decisions().check(check).await.unwrap();
    page(&service, PROJECT, shell, 2, &first).await.unwrap();
    service.set_access(ENDPOINT, access(AccessMode::Inherit)).await;
    assert_error(page(&service, PROJECT, shell, 2, &first).await, Code::Aborted, "LIST_CHANGED");
    let second = token().await;
    service.set_access("cluster", access(AccessMode::AllowAll)).await;
    assert_error(page(&service, PROJECT, shell, 2, &second).await, Code::Aborted, "LIST_CHANGED");
    service.stop().await;
}

#[tokio::test]
async fn beyond_ten_thousand_ranges_effective_access_says_so_and_the_list_has_them_all() {
    let service = Service::start().await;
    let every_other = (0..10_500_u32).map(|n| format!("10.{}.{}.{}", n / 32_768, n / 128 % 256, n % 128 * 2)).collect();
    let request = CreateAddressGroupRequest {
        parent: ORGANIZATION.to_owned(),
        address_group_id: "g".to_owned(),
        ..CreateAddressGroupRequest::default()
    };
    let name = service.firewall().create_address_group(request).await.unwrap().into_inner().name;
    let request = AddRangesRequest { name: name.clone(), ranges: every_other, options: None };
    service.firewall().add_ranges(request).await.unwrap();
    let entry = AccessEntry { source: Some(access_entry::Source::AddressGroup(name)), ..AccessEntry::default() };
    service.set_access(ORGANIZATION, Access { mode: AccessMode::AllowList.into(), entries: vec![entry] }).await;
    let shown = effective(&service, ORGANIZATION).await;
    assert!(shown.truncated);
    assert_eq!(shown.permitted_ranges[1].ranges.len(), 10_000);
    let all = permitted(&service, ORGANIZATION, ConnectionType::Preview, 1_000).await;
    assert_eq!((all.len(), &all[..10_000]), (10_500, &shown.permitted_ranges[1].ranges[..]));
    service.stop().await;
}
