//! Random policies and the questions worth asking them, for comparing the service with the naive
//! evaluator.
//!
//! Invariant: every policy is one that the service could hold (names resolve, parents exist, only
//! workspaces and endpoints inherit, every range is valid in the spelling given), and every probe
//! is a valid request; so a difference is a fault of one side, never of the input.
//!
//! What it deliberately does not do: it is not uniform. Ids, ranges and times come from small pools
//! in which things nest, touch, repeat and end at the edges of the address space, because that is
//! where evaluators go wrong. It generates no invalid input, and uses nothing of the crate under
//! test.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use crate::naive::{
    Access, Action, Address, ConnectionType, Organization, Policy, Range, Rule, Source, groups_of, lineage, mask_v4,
    mask_v6, parse_range,
};

/// The moment around which rules expire, in milliseconds since the epoch.
pub(crate) const BASE_TIME_MS: i64 = 1_700_000_000_000;

/// What is worth asking one policy; every list is sorted and without duplicates.
#[derive(Clone, Debug)]
pub(crate) struct Probes {
    /// Both ends of every range and their neighbours (those of the address space wrap around), the
    /// edges of the families and of the mapped block, something inside every range, and a few
    /// anywhere.
    pub(crate) addresses: Vec<Address>,
    /// Every name that can be put together from the ids of the policy and one unknown id per level:
    /// known nodes, unknown siblings, unknown children, ids that are known elsewhere.
    pub(crate) endpoints: Vec<String>,
    /// Those of them that no organization calls unknown, whether it requires projects or not.
    pub(crate) known_endpoints: Vec<String>,
    /// The millisecond before, at and after every expire time, and long before and after.
    pub(crate) times_ms: Vec<i64>,
}

/// One question: what to send (`ip` as text), and what `ip` means.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) ip: String,
    pub(crate) address: Address,
    pub(crate) connection_type: ConnectionType,
    pub(crate) endpoint: String,
    pub(crate) now_ms: i64,
}

/// Ids of which each is a prefix of another, or lacks only what follows a `-`: names must be
/// compared whole.
const ORGANIZATION_IDS: [&str; 3] = ["default", "acme", "acme-2"];
const PROJECT_IDS: [&str; 3] = ["web", "web-2", "w"];
const WORKSPACE_IDS: [&str; 2] = ["main", "web"];
const ENDPOINT_IDS: [&str; 2] = ["3000", "web"];
const GROUP_IDS: [&str; 4] = ["offices", "blocked", "office", "web"];
const UNKNOWN_ID: &str = "unknown";

/// Ranges that hold most of a family, or all.
const WIDE_RANGES: [&str; 10] = [
    "any",
    "0.0.0.0/0",
    "::/0",
    "::ffff:0:0/96",
    "0.0.0.0/1",
    "128.0.0.0/1",
    "0:0:0:0:0:ffff:8000:0/97",
    "::/1",
    "8000::/1",
    "10.0.0.0/8",
];

/// Ranges that nest, touch, repeat in another spelling, or lie at an edge.
const NARROW_RANGES: [&str; 66] = [
    // Nested and adjacent IPv4, down to single addresses.
    "10.0.0.0/8",
    "10.0.0.0/9",
    "10.128.0.0/9",
    "10.0.4.0/22",
    "10.0.4.0/24",
    "10.0.5.0/24",
    "10.0.6.0/24",
    "10.0.5.0/25",
    "10.0.5.128/25",
    "10.0.5.42/31",
    "10.0.5.42",
    "10.0.5.42/32",
    "10.0.5.43",
    "10.0.5.44/32",
    "9.255.255.255",
    "10.255.255.255/32",
    "11.0.0.0/8",
    "11.0.0.0",
    // The edges of IPv4.
    "0.0.0.0",
    "0.0.0.0/32",
    "0.0.0.1",
    "0.0.0.0/31",
    "0.0.0.0/8",
    "127.255.255.255",
    "128.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
    "255.255.255.254/31",
    "255.0.0.0/8",
    // The same, mapped.
    "::ffff:10.0.0.0/104",
    "::FFFF:0a00:0500/120",
    "::ffff:10.0.5.42",
    "0000:0000:0000:0000:0000:ffff:0a00:052a/128",
    "::ffff:10.0.5.42/127",
    "::ffff:0:0",
    "::ffff:255.255.255.255",
    // Nested and adjacent IPv6.
    "2001:db8::/32",
    "2001:db8::/33",
    "2001:db8:8000::/33",
    "2001:DB8::/48",
    "2001:db8:0:0::/64",
    "2001:db8:0:1::/64",
    "2001:db8::42/127",
    "2001:db8::42",
    "2001:0DB8:0:0:0:0:0:42/128",
    "2001:db8::43",
    "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db9::",
    // The edges of IPv6.
    "::",
    "::/127",
    "::1/128",
    "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "8000::",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    // Around the mapped block, and over it: no IPv4 address is in any of these.
    "::fffe:0:0/95",
    "::fffe:0:0/96",
    "::fffe:ffff:ffff",
    "::1:0:0:0",
    "::1:0:0:0/96",
    "::/80",
    "::/64",
    // IPv4 addresses within IPv6 that are IPv6.
    "::10.0.0.0/104",
    "64:ff9b::10.0.5.42",
    "64:ff9b::/96",
    "2002:a00:52a::/48",
];

/// Any policy: 0 to 2 organizations and a cluster node.
pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let organizations = btree_map(select(&ORGANIZATION_IDS[..]), organization_draft(), 0..=2);
    // An installation without organizations answers everything alike; one in ten is enough.
    let organizations = prop_oneof![
        1 => organizations,
        9 => btree_map(select(&ORGANIZATION_IDS[..]), organization_draft(), 1..=2),
    ];
    (cluster_access(), 1_i64..1000, organizations).prop_map(|(cluster, cluster_revision, organizations)| Policy {
        cluster,
        cluster_revision,
        organizations: organizations.into_iter().map(|(id, draft)| (id.to_owned(), draft.finish(id))).collect(),
    })
}

/// The text of a valid range, in any spelling.
pub(crate) fn range_text() -> impl Strategy<Value = String> {
    let pooled = |pool: &'static [&'static str]| select(pool).prop_map(str::to_owned);
    prop_oneof![
        1 => pooled(&WIDE_RANGES),
        12 => pooled(&NARROW_RANGES),
        2 => nested_range().prop_map(|range| range.to_string()),
        1 => (any::<u32>(), 0_u32..=32).prop_map(|(bits, len)| v4_range(bits, len).to_string()),
        1 => (any::<u128>(), 0_u32..=128).prop_map(|(bits, len)| v6_range(bits, len).to_string()),
    ]
}

/// What is worth asking `policy`: the same for the same policy.
pub(crate) fn probes(policy: &Policy) -> Probes {
    let mut chance = Chance(0);
    let mut addresses = BTreeSet::new();
    for range in ranges_of(policy).iter().chain([&Range::Any]) {
        addresses.extend(interesting_addresses(*range, &mut chance));
    }
    for _ in 0..4 {
        addresses.insert(Address::V4(chance.bits_u32()));
        addresses.insert(Address::from_v6_bits(chance.bits_u128()));
    }

    let mut times_ms = BTreeSet::from([BASE_TIME_MS - 1_000_000, BASE_TIME_MS + 1_000_000]);
    for rule in policy.organizations.values().flat_map(|organization| &organization.rules) {
        if let Some(expire_time_ms) = rule.expire_time_ms {
            times_ms.extend([expire_time_ms - 1, expire_time_ms, expire_time_ms + 1]);
        }
    }
    let endpoints = endpoints_of(policy);
    let known_endpoints = endpoints.iter().filter(|endpoint| is_known(policy, endpoint)).cloned();
    Probes {
        addresses: addresses.into_iter().collect(),
        known_endpoints: known_endpoints.collect(),
        endpoints,
        times_ms: times_ms.into_iter().collect(),
    }
}

/// Every spelling of an address: for IPv4 plain and mapped, for IPv6 short, long and with dots.
pub(crate) fn spellings(address: Address) -> Vec<String> {
    match address {
        Address::V4(bits) => {
            let hex = format!("{:x}:{:x}", bits >> 16, bits & 0xffff);
            vec![
                address.to_string(),
                format!("::ffff:{address}"),
                format!("::ffff:{hex}"),
                format!("::FFFF:{}", hex.to_uppercase()),
                format!("0:0:0:0:0:ffff:{address}"),
                format!("0000:0000:0000:0000:0000:ffff:{:04x}:{:04x}", bits >> 16, bits & 0xffff),
            ]
        }
        Address::V6(bits) => {
            let long = groups_of(bits).map(|group| format!("{group:04X}"));
            let [a, b, c, d] = bits.to_be_bytes()[12..] else {
                panic!("16 bytes less 12 are 4");
            };
            vec![address.to_string(), long.join(":"), format!("{}:{a}.{b}.{c}.{d}", long[..6].join(":"))]
        }
    }
}

impl Probes {
    /// Questions in which every address, every endpoint and every time occurs with both connection
    /// types, each time together with others picked by chance (the same for the same probes; where
    /// the endpoint is picked, mostly a known one, for an unknown one ends a decision early).
    pub(crate) fn sweep(&self) -> Vec<Probe> {
        let mut chance = Chance(1);
        let mut sweep = Vec::new();
        for connection_type in ConnectionType::ALL {
            let mut ask = |address: Option<&Address>, endpoint: Option<&String>, time: Option<&i64>| {
                let address = *address.unwrap_or_else(|| chance.pick(&self.addresses));
                let endpoint = endpoint.unwrap_or_else(|| {
                    let known_only = !self.known_endpoints.is_empty() && *chance.pick(&[true, true, true, false]);
                    chance.pick(if known_only { &self.known_endpoints } else { &self.endpoints })
                });
                let now_ms = *time.unwrap_or_else(|| chance.pick(&self.times_ms));
                sweep.push(Probe {
                    ip: chance.pick(&spellings(address)).clone(),
                    address,
                    connection_type,
                    endpoint: endpoint.clone(),
                    now_ms,
                });
            };
            self.addresses.iter().for_each(|address| ask(Some(address), None, None));
            self.endpoints.iter().for_each(|endpoint| ask(None, Some(endpoint), None));
            self.times_ms.iter().for_each(|time| ask(None, None, Some(time)));
        }
        sweep
    }
}

// Ranges ------------------------------------------------------------------------------------------

/// Random ranges that nest in the pool's.
fn nested_range() -> impl Strategy<Value = Range> {
    prop_oneof![
        (any::<u32>(), 8_u32..=32).prop_map(|(bits, len)| v4_range(10 << 24 | bits >> 20, len)),
        (any::<u128>(), 32_u32..=128).prop_map(|(bits, len)| v6_range(0x2001_0db8 << 96 | bits >> 120, len)),
    ]
}

fn v4_range(bits: u32, len: u32) -> Range {
    Range::V4 { first: bits & mask_v4(len), len }
}

/// Through its text, so that what happens to lie in the mapped block becomes IPv4.
fn v6_range(bits: u128, len: u32) -> Range {
    let range = Range::V6 { first: bits & mask_v6(len), len };
    parse_range(&range.to_string()).unwrap()
}

/// Every distinct range that the policy mentions.
fn ranges_of(policy: &Policy) -> BTreeSet<Range> {
    let mut texts: Vec<&String> = ranges_in(&policy.cluster).collect();
    for organization in policy.organizations.values() {
        texts.extend(organization.groups.values().flatten());
        texts.extend(organization.rules.iter().filter_map(|rule| range_in(&rule.source)));
        texts.extend(ranges_in(&organization.access));
        texts.extend(organization.nodes.values().flat_map(ranges_in));
    }
    texts.into_iter().map(|text| parse_range(text).unwrap()).collect()
}

fn ranges_in(access: &Access) -> impl Iterator<Item = &String> {
    let entries = match access {
        Access::AllowList(entries) => entries.as_slice(),
        Access::Inherit | Access::AllowAll => &[],
    };
    entries.iter().filter_map(range_in)
}

fn range_in(source: &Source) -> Option<&String> {
    match source {
        Source::Range(text) => Some(text),
        Source::Group(_) => None,
    }
}

/// The ends of a range, what is next to them, and something between them. `Any` has the edges of
/// both families and of the mapped block.
fn interesting_addresses(range: Range, chance: &mut Chance) -> Vec<Address> {
    match range {
        Range::Any => [0, 1 << 127, 0xffff_0000_0000, 0x1_0000_0000_0000]
            .into_iter()
            .flat_map(|edge: u128| [edge.wrapping_sub(1), edge])
            .map(Address::from_v6_bits)
            .chain([0, u32::MAX].map(Address::V4))
            .collect(),
        Range::V4 { first, len } => {
            let inside = first | (chance.bits_u32() & !mask_v4(len));
            let last = first | !mask_v4(len);
            [first.wrapping_sub(1), first, inside, last, last.wrapping_add(1)].map(Address::V4).to_vec()
        }
        Range::V6 { first, len } => {
            let inside = first | (chance.bits_u128() & !mask_v6(len));
            let last = first | !mask_v6(len);
            // A neighbour may lie in the mapped block: as text it is IPv4, and is asked as that.
            [first.wrapping_sub(1), first, inside, last, last.wrapping_add(1)].map(Address::from_v6_bits).to_vec()
        }
    }
}

// Organizations -----------------------------------------------------------------------------------

/// An organization whose sources do not know the groups' names yet. Drawing everything at once and
/// joining it later shrinks far better than drawing what depends on what was drawn.
#[derive(Clone, Debug)]
struct OrganizationDraft {
    revision: i64,
    require_projects: bool,
    access: AccessDraft,
    rules: Vec<RuleDraft>,
    groups: BTreeMap<&'static str, Vec<String>>,
    projects: BTreeMap<&'static str, NodeDraft>,
}

#[derive(Clone, Debug)]
struct NodeDraft {
    access: AccessDraft,
    children: BTreeMap<&'static str, NodeDraft>,
}

#[derive(Clone, Debug)]
struct RuleDraft {
    action: Action,
    source: SourceDraft,
    connection_types: Vec<ConnectionType>,
    disabled: bool,
    expire_time_ms: Option<i64>,
}

#[derive(Clone, Debug)]
enum AccessDraft {
    Inherit,
    AllowAll,
    AllowList(Vec<SourceDraft>),
}

/// A range, or where the organization has groups perhaps one of them.
#[derive(Clone, Debug)]
struct SourceDraft {
    range: String,
    group: Option<Index>,
}

fn organization_draft() -> impl Strategy<Value = OrganizationDraft> {
    // Long lists are where first-match goes wrong; through short ones the later steps are reached.
    let rules = prop_oneof![vec(rule_draft(), 0..=4), vec(rule_draft(), 0..=40)];
    let groups = btree_map(select(&GROUP_IDS[..]), vec(range_text(), 0..=30), 0..=4);
    let projects = btree_map(select(&PROJECT_IDS[..]), project_draft(), 0..=3);
    (1_i64..1000, any::<bool>(), top_access_draft(), rules, groups, projects).prop_map(
        |(revision, require_projects, access, rules, groups, projects)| OrganizationDraft {
            revision,
            require_projects,
            access,
            rules,
            groups,
            projects,
        },
    )
}

fn rule_draft() -> impl Strategy<Value = RuleDraft> {
    let expire_time_ms = prop_oneof![
        3 => Just(None),
        1 => select(&[0, 1, 2, 5, 1000][..]).prop_map(|after| Some(BASE_TIME_MS + after)),
    ];
    // Subsequences only: a repeated connection type is malformed at worst, and never more than one.
    let connection_types = prop_oneof![
        2 => Just(Vec::new()),
        1 => subsequence(ConnectionType::ALL.to_vec(), 0..=2),
    ];
    (
        select(&[Action::Allow, Action::Deny][..]),
        source_draft(),
        connection_types,
        prop::bool::weighted(0.15),
        expire_time_ms,
    )
        .prop_map(|(action, source, connection_types, disabled, expire_time_ms)| RuleDraft {
            action,
            source,
            connection_types,
            disabled,
            expire_time_ms,
        })
}

fn source_draft() -> impl Strategy<Value = SourceDraft> {
    (range_text(), prop::option::weighted(0.3, any::<Index>())).prop_map(|(range, group)| SourceDraft { range, group })
}

/// Entries of which one in two lists has a wide one: most addresses must get past the upper levels,
/// or the lower ones are never asked.
fn entries_draft() -> impl Strategy<Value = Vec<SourceDraft>> {
    let wide = select(&WIDE_RANGES[..]).prop_map(|range| SourceDraft { range: range.to_owned(), group: None });
    prop_oneof![
        vec(source_draft(), 0..=8),
        (wide, vec(source_draft(), 0..=3)).prop_map(|(wide, mut entries)| {
            entries.push(wide);
            entries
        }),
    ]
}

/// Organizations and projects.
fn top_access_draft() -> impl Strategy<Value = AccessDraft> {
    prop_oneof![Just(AccessDraft::AllowAll), entries_draft().prop_map(AccessDraft::AllowList),]
}

/// Workspaces and endpoints.
fn lower_access_draft() -> impl Strategy<Value = AccessDraft> {
    prop_oneof![
        2 => Just(AccessDraft::Inherit),
        1 => Just(AccessDraft::AllowAll),
        2 => entries_draft().prop_map(AccessDraft::AllowList),
    ]
}

fn cluster_access() -> impl Strategy<Value = Access> {
    // The cluster names ranges only, so there are no groups to pick from.
    prop_oneof![
        2 => Just(AccessDraft::AllowAll),
        1 => entries_draft().prop_map(AccessDraft::AllowList),
    ]
    .prop_map(|draft| draft.finish(&[]))
}

fn project_draft() -> impl Strategy<Value = NodeDraft> {
    let endpoint = lower_access_draft().prop_map(|access| NodeDraft { access, children: BTreeMap::new() });
    let endpoints = btree_map(select(&ENDPOINT_IDS[..]), endpoint, 0..=2);
    let workspace = (lower_access_draft(), endpoints).prop_map(|(access, children)| NodeDraft { access, children });
    let workspaces = btree_map(select(&WORKSPACE_IDS[..]), workspace, 0..=2);
    (top_access_draft(), workspaces).prop_map(|(access, children)| NodeDraft { access, children })
}

impl OrganizationDraft {
    fn finish(self, id: &str) -> Organization {
        let group_ids: Vec<&str> = self.groups.keys().copied().collect();
        let mut nodes = BTreeMap::new();
        for (project, draft) in self.projects {
            let name = format!("organizations/{id}/projects/{project}");
            draft.finish(name, &["workspaces", "endpoints"], &group_ids, &mut nodes);
        }
        let rules = self.rules.into_iter().enumerate().map(|(index, draft)| Rule {
            id: format!("r{}", index + 1),
            action: draft.action,
            source: draft.source.finish(&group_ids),
            connection_types: draft.connection_types,
            disabled: draft.disabled,
            expire_time_ms: draft.expire_time_ms,
        });
        Organization {
            revision: self.revision,
            require_projects: self.require_projects,
            access: self.access.finish(&group_ids),
            rules: rules.collect(),
            groups: self.groups.into_iter().map(|(id, ranges)| (id.to_owned(), ranges)).collect(),
            nodes,
        }
    }
}

impl NodeDraft {
    fn finish(self, name: String, collections: &[&str], group_ids: &[&str], nodes: &mut BTreeMap<String, Access>) {
        if let Some((collection, below)) = collections.split_first() {
            for (id, child) in self.children {
                child.finish(format!("{name}/{collection}/{id}"), below, group_ids, nodes);
            }
        }
        nodes.insert(name, self.access.finish(group_ids));
    }
}

impl AccessDraft {
    fn finish(self, group_ids: &[&str]) -> Access {
        match self {
            Self::Inherit => Access::Inherit,
            Self::AllowAll => Access::AllowAll,
            Self::AllowList(entries) => {
                Access::AllowList(entries.into_iter().map(|entry| entry.finish(group_ids)).collect())
            }
        }
    }
}

impl SourceDraft {
    fn finish(self, group_ids: &[&str]) -> Source {
        match self.group {
            Some(index) if !group_ids.is_empty() => Source::Group((*index.get(group_ids)).to_owned()),
            _ => Source::Range(self.range),
        }
    }
}

// Endpoints and chance ----------------------------------------------------------------------------

/// Every name from the ids that occur at each level, with one that does not.
fn endpoints_of(policy: &Policy) -> Vec<String> {
    let mut ids: [BTreeSet<&str>; 4] = std::array::from_fn(|_| BTreeSet::from([UNKNOWN_ID]));
    ids[0].extend(policy.organizations.keys().map(String::as_str));
    for name in policy.organizations.values().flat_map(|organization| organization.nodes.keys()) {
        for (level, id) in name.split('/').skip(1).step_by(2).enumerate() {
            ids[level].insert(id);
        }
    }
    let collections = ["organizations", "/projects", "/workspaces", "/endpoints"];
    let mut parents = vec![String::new()];
    let mut endpoints = Vec::new();
    for (collection, ids) in collections.iter().zip(&ids) {
        parents =
            parents.iter().flat_map(|parent| ids.iter().map(move |id| format!("{parent}{collection}/{id}"))).collect();
        endpoints.extend_from_slice(&parents);
    }
    endpoints.sort_unstable();
    endpoints
}

/// Whether the organization is known, and the project too if one is named.
fn is_known(policy: &Policy, endpoint: &str) -> bool {
    let lineage = lineage(endpoint).unwrap();
    let organization = lineage[0].rsplit('/').next().and_then(|id| policy.organizations.get(id));
    organization
        .is_some_and(|organization| lineage.get(1).is_none_or(|project| organization.nodes.contains_key(project)))
}

/// A fixed sequence of numbers (`SplitMix64`): the same policy must always have the same probes, or
/// a failure would not shrink.
struct Chance(u64);

impl Chance {
    fn bits_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bits_u32(&mut self) -> u32 {
        u32::try_from(self.bits_u64() >> 32).expect("32 bits remain")
    }

    fn bits_u128(&mut self) -> u128 {
        (u128::from(self.bits_u64()) << 64) | u128::from(self.bits_u64())
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = usize::try_from(self.bits_u32()).expect("32 bits fit") % items.len();
        &items[index]
    }
}

// Tests -------------------------------------------------------------------------------------------

mod tests {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use crate::naive::{Reason, decide, is_id, parse_address};

    use super::*;

    // Hazard: a pool entry with a typing error, or one that is there twice by accident.
    #[test]
    fn every_pooled_range_is_valid() {
        for pool in [&WIDE_RANGES[..], &NARROW_RANGES] {
            for text in pool {
                parse_range(text).unwrap();
            }
            assert_eq!(BTreeSet::from_iter(pool).len(), pool.len());
        }
    }

    #[test]
    fn spellings_mean_the_same_address() {
        for address in interesting_addresses(Range::Any, &mut Chance(2)) {
            let spellings = spellings(address);
            assert_eq!(BTreeSet::from_iter(&spellings).len(), spellings.len().min(6));
            for spelling in spellings {
                assert_eq!(parse_address(&spelling), Ok(address), "`{spelling}`");
            }
        }
    }

    // Hazard: a comparison of two evaluators that never leaves the first two steps proves nothing.
    #[test]
    fn every_reason_is_frequent() {
        let mut runner = TestRunner::deterministic();
        let (mut questions, mut seen, mut last_rule) = (0_usize, BTreeMap::new(), 0);
        for _ in 0..100 {
            let policy = policy().new_tree(&mut runner).unwrap().current();
            for probe in probes(&policy).sweep().iter().step_by(5) {
                let answer = ask(&policy, probe);
                questions += 1;
                *seen.entry(answer.reason).or_insert(0_usize) += 1;
                if answer.rule.is_some_and(|rule| rule.len() > "organizations/acme-2/rules/r9".len()) {
                    last_rule += 1;
                }
            }
        }
        for reason in Reason::ALL {
            let share = seen.get(&reason).copied().unwrap_or_default() * 100 / questions;
            assert!(share >= 2, "{} answers {share} % of {questions}: {seen:?}", reason.name());
        }
        assert!(last_rule * 100 >= questions, "{last_rule} of {questions} reach past rule 9");
    }

    #[test]
    fn probes_reach_both_sides_of_every_edge() {
        let mut runner = TestRunner::deterministic();
        let mut policy = policy().new_tree(&mut runner).unwrap().current();
        policy.cluster = Access::AllowList(
            ["0.0.0.0/0", "10.0.5.0/24", "::fffe:0:0/96", "2001:db8::/32"]
                .map(|text| Source::Range(text.to_owned()))
                .to_vec(),
        );
        let probes = probes(&policy);
        for text in [
            "0.0.0.0",
            "255.255.255.255",
            "10.0.4.255",
            "10.0.5.0",
            "10.0.5.255",
            "10.0.6.0",
            "::",
            "::fffd:ffff:ffff",
            "::fffe:0:0",
            "::fffe:ffff:ffff",
            "::1:0:0:0",
            "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db9::",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(probes.addresses.contains(&parse_address(text).unwrap()), "`{text}`");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn policies_are_ones_that_the_service_could_hold(policy in policy()) {
            prop_assert!(!ranges_in(&policy.cluster).any(|text| parse_range(text).is_err()));
            prop_assert!(groups_in(&policy.cluster).is_empty());
            for (organization_id, organization) in &policy.organizations {
                prop_assert!(is_id(organization_id));
                prop_assert!(organization.access != Access::Inherit);
                prop_assert!(organization.groups.len() <= 4);
                let mut groups = groups_in(&organization.access);
                for group in organization.groups.keys() {
                    prop_assert!(is_id(group));
                }
                for (name, access) in &organization.nodes {
                    let lineage = lineage(name).unwrap();
                    prop_assert_eq!(&lineage[0], &format!("organizations/{organization_id}"));
                    prop_assert!(lineage.len() >= 2);
                    prop_assert!(lineage.len() > 2 || *access != Access::Inherit);
                    for ancestor in &lineage[1..] {
                        prop_assert!(organization.nodes.contains_key(ancestor));
                    }
                    groups.extend(groups_in(access));
                }
                let rule_ids: BTreeSet<&str> =
                    organization.rules.iter().map(|rule| rule.id.as_str()).collect();
                prop_assert_eq!(rule_ids.len(), organization.rules.len());
                prop_assert!(rule_ids.into_iter().all(is_id));
                for rule in &organization.rules {
                    groups.extend(group_in(&rule.source));
                }
                for group in groups {
                    prop_assert!(organization.groups.contains_key(group));
                }
            }
        }

        #[test]
        fn probes_are_valid_and_always_the_same(policy in policy()) {
            let probes = probes(&policy);
            let sweep = probes.sweep();
            for probe in &sweep {
                prop_assert_eq!(parse_address(&probe.ip), Ok(probe.address));
                prop_assert!(lineage(&probe.endpoint).is_ok());
            }
            for organization in policy.organizations.values() {
                for name in organization.nodes.keys() {
                    prop_assert!(probes.endpoints.binary_search(name).is_ok());
                }
            }
            let again = self::probes(&policy).sweep();
            prop_assert_eq!(format!("{sweep:?}"), format!("{again:?}"));
        }

        // What holds of any decision, by §2.4: another check of the naive evaluator itself.
        #[test]
        fn answers_are_consistent(policy in policy()) {
            for probe in probes(&policy).sweep().iter().step_by(7) {
                let answer = ask(&policy, probe);
                let reason = answer.reason;
                prop_assert_eq!(answer.allow, answer.message.is_empty());
                prop_assert_eq!(
                    answer.rule.is_some(),
                    matches!(reason, Reason::AllowRule | Reason::DenyRule)
                );
                prop_assert_eq!(answer.node.is_some(), reason.name().starts_with("OUTSIDE_"));
                prop_assert_eq!(answer.cluster_revision, policy.cluster_revision);
                if let (Reason::OutsideEndpoint, Some(node)) = (reason, &answer.node) {
                    prop_assert!(lineage(&probe.endpoint).unwrap()[1..].contains(node));
                }
            }
        }
    }

    fn ask(policy: &Policy, probe: &Probe) -> crate::naive::Answer {
        decide(policy, probe.address, probe.connection_type, &probe.endpoint, probe.now_ms)
    }

    fn groups_in(access: &Access) -> Vec<&String> {
        match access {
            Access::AllowList(entries) => entries.iter().filter_map(group_in).collect(),
            Access::Inherit | Access::AllowAll => Vec::new(),
        }
    }

    fn group_in(source: &Source) -> Option<&String> {
        match source {
            Source::Group(id) => Some(id),
            Source::Range(_) => None,
        }
    }
}
