//! Problems: equal to what enumerating every address and every moment finds, for random policies over small universes.
//!
//! Invariant: the universe is 256 addresses of each family and one that stands for all others; every range of a policy is
//! inside, or a whole family, so that a set of addresses is a set of bits and nothing is left out.
//! Not here: words and pages (`problems_api`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis::policy::address::{Address, Range};
use portcullis::policy::group::Group;
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{Id, NodeKey, NodePath};
use portcullis::policy::node::{Access, AccessEntry, Node};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::problems::{self, Code, Examined, Problem, Resource};
use portcullis::policy::rule::{Action, ConnectionType, Rule, Source};
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::time::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;

use crate::campaign::rounds;

pub(crate) const NOW: i64 = 100;

/// Bits: 256 of IPv4, 256 of IPv6, then all other addresses of each family.
pub(crate) type Mask = [u64; 9];

const OTHER_V4: usize = 512;
const OTHER_V6: usize = 513;

pub(crate) fn point(at: usize) -> Address {
    match at {
        OTHER_V4 => Address::V4(0xC000_0201),
        OTHER_V6 => Address::V6(0xFE80 << 112),
        v4 if v4 < 256 => Address::V4(0x0A00_0000 + u32::try_from(v4).unwrap()),
        v6 => Address::V6((0x2001_0DB8 << 96) + (v6 as u128 - 256)),
    }
}

pub(crate) fn mask_where(is_in: impl Fn(usize) -> bool) -> Mask {
    let mut mask = Mask::default();
    for at in (0..=OTHER_V6).filter(|at| is_in(*at)) {
        mask[at / 64] |= 1 << (at % 64);
    }
    mask
}

pub(crate) fn and(one: &Mask, other: &Mask) -> Mask {
    std::array::from_fn(|at| one[at] & other[at])
}

pub(crate) fn or(one: &Mask, other: &Mask) -> Mask {
    std::array::from_fn(|at| one[at] | other[at])
}

pub(crate) fn and_not(one: &Mask, other: &Mask) -> Mask {
    std::array::from_fn(|at| one[at] & !other[at])
}

pub(crate) fn is_empty(mask: &Mask) -> bool {
    mask.iter().all(|word| *word == 0)
}

fn is_subset(one: &Mask, other: &Mask) -> bool {
    is_empty(&and_not(one, other))
}

pub(crate) fn of_ranges(ranges: &[Range]) -> Mask {
    mask_where(|at| ranges.iter().any(|range| range.contains(point(at))))
}

/// What the model says, in bits.
pub(crate) struct Naive<'a> {
    pub(crate) organization: &'a Organization,
    sources: BTreeMap<Source, Mask>,
    v4: Mask,
    v6: Mask,
}

impl<'a> Naive<'a> {
    pub(crate) fn new(organization: &'a Organization, cluster: &Cluster) -> Self {
        let accesses = organization.nodes.values().map(|node| &node.access);
        let accesses = accesses.chain([&organization.node.access, &cluster.node.access]);
        let of_entries = accesses.flat_map(Access::entries).map(|entry| &entry.source);
        let sources = organization.rules.iter().map(|rule| &rule.source).chain(of_entries);
        let mask = |source: &Source| match source {
            Source::Range(range) => of_ranges(&[*range]),
            Source::Group(id) => {
                of_ranges(&organization.groups.get(id.as_str()).unwrap().ranges().iter().collect::<Vec<_>>())
            }
        };
        Self {
            organization,
            sources: sources.map(|source| (source.clone(), mask(source))).collect(),
            v4: mask_where(|at| matches!(point(at), Address::V4(_))),
            v6: mask_where(|at| matches!(point(at), Address::V6(_))),
        }
    }

    fn source(&self, source: &Source) -> &Mask {
        &self.sources[source]
    }

    pub(crate) fn access(&self, access: &Access) -> Mask {
        match access {
            Access::Inherit => Mask::default(),
            Access::AllowAll => or(&self.v4, &self.v6),
            Access::AllowList(entries) => {
                entries.iter().fold(Mask::default(), |mask, entry| or(&mask, self.source(&entry.source)))
            }
        }
    }

    /// What the firewall lets through, and what the rule at a place wins, when one rule is left out.
    pub(crate) fn firewall(
        &self,
        connection_type: ConnectionType,
        at: i64,
        without: Option<usize>,
    ) -> (Mask, Vec<Mask>) {
        let (mut open, mut allowed) = (or(&self.v4, &self.v6), Mask::default());
        let mut won = Vec::new();
        for (place, rule) in self.organization.rules.iter().enumerate() {
            let matches = !rule.disabled
                && rule.expire_time.is_none_or(|time| time.millis() > at)
                && rule.connection_types.applies_to(connection_type)
                && without != Some(place);
            let wins = if matches { and(&open, self.source(&rule.source)) } else { Mask::default() };
            open = and_not(&open, &wins);
            if rule.action == Action::Allow {
                allowed = or(&allowed, &wins);
            }
            won.push(wins);
        }
        (or(&allowed, &open), won)
    }

    /// Now, and every moment at which something expires.
    pub(crate) fn moments(&self) -> BTreeSet<i64> {
        let expiries = self.organization.rules.iter().filter_map(|rule| rule.expire_time.map(Timestamp::millis));
        expiries.filter(|time| *time > NOW).chain([NOW]).collect()
    }
}

#[derive(Clone, Debug)]
struct RuleModel {
    action: Action,
    source: Source,
    types: Vec<ConnectionType>,
    disabled: bool,
    expires: Option<i64>,
}

pub(crate) fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn range() -> impl Strategy<Value = Range> {
    let v4 = (0..=255_u32, 24..=32_u32).prop_map(|(low, length)| {
        let low = low & (0xFF_u32 << (32 - length));
        format!("10.0.0.{low}/{length}")
    });
    let v6 = (0..=255_u32, 120..=128_u32).prop_map(|(low, length)| {
        let low = low & (0xFF_u32 << (128 - length));
        format!("2001:db8::{low:x}/{length}")
    });
    let whole = select(vec!["any", "0.0.0.0/0", "::/0"]).prop_map(str::to_owned);
    prop_oneof![4 => v4, 3 => v6, 2 => whole].prop_map(|text| text.parse().unwrap())
}

fn source() -> impl Strategy<Value = Source> {
    let group = select(vec!["one", "two", "empty"]).prop_map(|group| Source::Group(id(group)));
    prop_oneof![5 => range().prop_map(Source::Range), 1 => group]
}

fn rule() -> impl Strategy<Value = RuleModel> {
    let types = select(vec![vec![], vec![], vec![ConnectionType::Shell], vec![ConnectionType::Preview]]);
    let expires = select(vec![None, None, None, Some(50), Some(150), Some(200)]);
    let action = select(vec![Action::Allow, Action::Deny]);
    (action, source(), types, prop::bool::weighted(0.1), expires)
        .prop_map(|(action, source, types, disabled, expires)| RuleModel { action, source, types, disabled, expires })
}

fn access(own: bool) -> impl Strategy<Value = Access> {
    let list = prop::collection::vec(source(), 0..3).prop_map(|sources| {
        Access::AllowList(
            sources.into_iter().map(|source| AccessEntry { source, description: "".into() }).collect::<Vec<_>>().into(),
        )
    });
    let other = if own { Access::AllowAll } else { Access::Inherit };
    prop_oneof![2 => list, 1 => Just(Access::AllowAll), 1 => Just(other)]
}

fn cluster_access() -> impl Strategy<Value = Access> {
    let list = prop::collection::vec(range(), 0..3).prop_map(|ranges| {
        let entries =
            ranges.into_iter().map(|range| AccessEntry { source: Source::Range(range), description: "".into() });
        Access::AllowList(entries.collect::<Vec<_>>().into())
    });
    prop_oneof![3 => Just(Access::AllowAll), 1 => list]
}

/// Rules of nested ranges that expire one after the other: long stairs of winners, of which each range alters a part.
fn nested_rule() -> impl Strategy<Value = RuleModel> {
    let ranges = ["any", "any", "0.0.0.0/0", "10.0.0.0/24", "10.0.0.0/26", "10.0.0.64/26", "10.0.0.0/28", "10.0.0.3"];
    let range = select(ranges.to_vec()).prop_map(|text| Source::Range(text.parse().unwrap()));
    let group = Just(Source::Group(id("one")));
    let source = prop_oneof![6 => range, 1 => group];
    let expires = prop_oneof![1 => Just(None), 8 => (110..130_i64).prop_map(Some)];
    let types = select(vec![vec![], vec![], vec![], vec![], vec![ConnectionType::Shell]]);
    let action = select(vec![Action::Allow, Action::Deny]);
    (action, source, types, expires).prop_map(|(action, source, types, expires)| RuleModel {
        action,
        source,
        types,
        disabled: false,
        expires,
    })
}

pub(crate) fn model() -> impl Strategy<Value = (Organization, Cluster)> {
    model_of(prop::collection::vec(rule(), 0..8).boxed())
}

fn nested_model() -> impl Strategy<Value = (Organization, Cluster)> {
    model_of(prop::collection::vec(nested_rule(), 4..16).boxed())
}

prop_compose! {
    fn model_of(of_rules: BoxedStrategy<Vec<RuleModel>>)(
        rules in of_rules,
        groups in (prop::collection::vec(range(), 1..4), prop::collection::vec(range(), 1..4)),
        own in access(true),
        project in access(true),
        workspace in access(false),
        cluster in cluster_access(),
    ) -> (Organization, Cluster) {
        let now = Timestamp::from_millis(0);
        let mut organization = Organization::new(id("default"), 1, Node::new(own, now, 1));
        let one = groups.0.into_iter().collect();
        let two = groups.1.into_iter().collect();
        for (name, ranges) in [("one", one), ("two", two), ("empty", std::iter::empty().collect())] {
            organization.groups.insert(id(name), Arc::new(Group::new(id(name), "".into(), ranges, now, 1)));
        }
        let rules = rules.into_iter().enumerate().map(|(place, model)| Arc::new(Rule {
            id: id(&format!("r{place}")),
            action: model.action,
            source: model.source,
            connection_types: model.types.into_iter().collect(),
            description: "".into(),
            disabled: model.disabled,
            expire_time: model.expires.map(Timestamp::from_millis),
            create_time: now,
            update_time: now,
            changed_at: 1,
            expired: false,
        }));
        organization.rules = Arc::new(rules.collect());
        for (name, access) in [("projects/p", project), ("projects/p/workspaces/w", workspace)] {
            let name = format!("organizations/default/{name}");
            let key = NodeKey::of(&NodePath::parse(&name).unwrap()).unwrap();
            organization.nodes.insert(key, Arc::new(Node::new(access, now, 1)));
        }
        let mut of_cluster = Cluster::new(now);
        of_cluster.node = Arc::new(Node::new(cluster, now, 1));
        (organization, of_cluster)
    }
}

/// A kind of problem, from when on it is one, and the connection types that it is about.
type Kind = (Code, Option<i64>, Vec<ConnectionType>);

/// The problems of a resource, with the addresses that they are about.
type Kinds = BTreeMap<Kind, Mask>;

fn of_resource(problems: &[Problem], resource: &Resource) -> Kinds {
    let kind =
        |problem: &Problem| (problem.code, problem.from.map(Timestamp::millis), problem.connection_types.clone());
    let own = problems.iter().filter(|problem| problem.resource == *resource);
    own.map(|problem| (kind(problem), of_ranges(&problem.ranges))).collect()
}

/// A problem at every moment.
fn always(code: Code) -> Kind {
    (code, None, Vec::new())
}

/// The problems that begin where something begins to hold for a connection type: one for each first moment.
pub(crate) fn begins(naive: &Naive<'_>, code: Code, holds: impl Fn(ConnectionType, i64) -> bool) -> BTreeSet<Kind> {
    let mut kinds: BTreeMap<i64, Vec<ConnectionType>> = BTreeMap::new();
    for of in ConnectionType::ALL {
        if let Some(at) = naive.moments().into_iter().find(|at| holds(of, *at)) {
            kinds.entry(at).or_default().push(of);
        }
    }
    kinds.into_iter().map(|(at, types)| (code, later(at), types)).collect()
}

fn later(at: i64) -> Option<i64> {
    (at != NOW).then_some(at)
}

fn expected_of_rule(naive: &Naive<'_>, permitted: &Mask, place: usize) -> Kinds {
    let rule = &naive.organization.rules[place];
    let source = naive.source(&rule.source);
    let mut expected = BTreeMap::new();
    if rule.disabled {
        return expected;
    }
    if rule.expire_time.is_some_and(|time| time.millis() <= NOW) {
        return [(always(Code::ExpiredRule), Mask::default())].into();
    }
    if is_empty(source) {
        return [(always(Code::EmptyGroup), Mask::default())].into();
    }
    let (mut won, mut alters) = (Mask::default(), false);
    for connection_type in ConnectionType::ALL {
        for at in naive.moments() {
            let (allowed, wins) = naive.firewall(connection_type, at, None);
            let (allowed_without, _) = naive.firewall(connection_type, at, Some(place));
            won = or(&won, &wins[place]);
            let changed = or(&and_not(&allowed, &allowed_without), &and_not(&allowed_without, &allowed));
            alters |= !is_empty(&and(&changed, permitted));
        }
    }
    let catch_all = expected_catch_all(naive, permitted, place);
    expected.extend(expected_translated(naive, permitted, place, catch_all.as_ref()));
    expected.extend(catch_all);
    if is_empty(&won) {
        expected.insert(always(Code::ShadowedRule), Mask::default());
        return expected;
    }
    if !alters {
        expected.insert(always(Code::RedundantRule), Mask::default());
    }
    let lost = and_not(source, &won);
    if !is_empty(&lost) {
        expected.insert(always(Code::PartlyShadowedRule), lost);
    }
    expected
}

/// The first moment of a rule's life at which something is so for a connection type that the rule is about, with those
/// types and the addresses for which it is so.
fn first_in_life(
    naive: &Naive<'_>,
    rule: &Rule,
    code: Code,
    concerned: impl Fn(ConnectionType, i64) -> Mask,
) -> Option<(Kind, Mask)> {
    let lives = |at: &i64| rule.expire_time.is_none_or(|time| time.millis() > *at);
    naive.moments().into_iter().filter(lives).find_map(|at| {
        let (mut types, mut all) = (Vec::new(), Mask::default());
        for of in ConnectionType::ALL.into_iter().filter(|of| rule.connection_types.applies_to(*of)) {
            let mask = concerned(of, at);
            if !is_empty(&mask) {
                types.push(of);
                all = or(&all, &mask);
            }
        }
        (!types.is_empty()).then_some(((code, later(at), types), all))
    })
}

fn expected_catch_all(naive: &Naive<'_>, permitted: &Mask, place: usize) -> Option<(Kind, Mask)> {
    let rule = &naive.organization.rules[place];
    let source = naive.source(&rule.source);
    let (all_v4, all_v6) = (is_subset(&naive.v4, source), is_subset(&naive.v6, source));
    if rule.action != Action::Deny || all_v4 == all_v6 {
        return None;
    }
    let other = if all_v4 { &naive.v6 } else { &naive.v4 };
    first_in_life(naive, rule, Code::Ipv4OnlyCatchAll, |of, at| {
        let (_, wins) = naive.firewall(of, at, None);
        let matched = wins.iter().fold(Mask::default(), |mask, wins| or(&mask, wins));
        and(&and_not(permitted, &matched), other)
    })
}

/// No range of a policy has a part of the translated addresses without the others, so they are all decided as
/// `OTHER_V6` is.
fn expected_translated(
    naive: &Naive<'_>,
    permitted: &Mask,
    place: usize,
    catch_all: Option<&(Kind, Mask)>,
) -> Option<(Kind, Mask)> {
    let rule = &naive.organization.rules[place];
    let twins = mask_where(|at| at == OTHER_V6);
    let ((code, from, types), _) = first_in_life(naive, rule, Code::TranslatedAddress, |of, at| {
        let (allowed, wins) = naive.firewall(of, at, None);
        let denies = rule.action == Action::Deny && !is_empty(&and(&wins[place], &naive.v4));
        if denies { and(&and(&allowed, permitted), &twins) } else { Mask::default() }
    })?;
    let said = catch_all.is_some_and(|((_, said_from, _), open)| *said_from <= from && is_subset(&twins, open));
    (!said).then_some(((code, from, types), Mask::default()))
}

/// The rules named really are what keeps a shadowed rule from winning: without all others it still never wins.
fn check_related(naive: &Naive<'_>, problem: &Problem, place: usize) {
    let named: BTreeSet<&Id> = problem
        .related
        .iter()
        .map(|resource| match resource {
            Resource::Rule(id) => id,
            other => panic!("{other:?} is no rule"),
        })
        .collect();
    let mut organization = naive.organization.clone();
    let shadowed = &naive.organization.rules[place];
    let rules = naive.organization.rules.iter().filter(|rule| named.contains(&rule.id) || rule.id == shadowed.id);
    organization.rules = Arc::new(rules.cloned().collect());
    let (at, _) = organization.rule(shadowed.id.as_str()).unwrap();
    let alone = Naive { organization: &organization, sources: naive.sources.clone(), v4: naive.v4, v6: naive.v6 };
    for connection_type in ConnectionType::ALL {
        for moment in naive.moments() {
            assert!(is_empty(&alone.firewall(connection_type, moment, None).1[at]), "{problem:?}");
        }
    }
    assert!(!named.contains(&shadowed.id) && !named.is_empty(), "{problem:?}");
}

fn is_whole_family(range: Range) -> bool {
    ["any", "0.0.0.0/0", "::/0"].iter().any(|whole| whole.parse::<Range>().unwrap() == range)
}

fn expected_of_node(naive: &Naive<'_>, permitted: &Mask, node: &Access) -> Kinds {
    let organization = naive.organization;
    let own = naive.access(&organization.node.access);
    let set = naive.access(node);
    let mut expected = expected_of_entries(naive, node);
    if is_empty(&set) {
        expected.insert(always(Code::NoAddresses), Mask::default());
    }
    let mut listed = Mask::default();
    for entry in node.entries() {
        let ranges: Vec<Range> = match &entry.source {
            Source::Range(range) => vec![*range],
            Source::Group(id) => organization.groups.get(id.as_str()).unwrap().ranges().iter().collect(),
        };
        let ranges: Vec<Range> = ranges.into_iter().filter(|range| !is_whole_family(*range)).collect();
        listed = or(&listed, &of_ranges(&ranges));
    }
    let outside = and_not(&listed, &own);
    if !is_empty(&outside) {
        expected.insert(always(Code::ExceedsOrganization), outside);
    }
    let covers_family = |mask: &Mask| is_subset(&naive.v4, mask) || is_subset(&naive.v6, mask);
    if covers_family(&set) {
        expected.insert(always(Code::AllowsAll), Mask::default());
    }
    let open = |of, at| covers_family(&and(&and(&set, permitted), &naive.firewall(of, at, None).0));
    expected.extend(begins(naive, Code::OpenToInternet, open).into_iter().map(|kind| (kind, Mask::default())));
    expected
}

/// The organization is open from a later moment on; or now, though something says that this is not meant.
fn expected_opened(naive: &Naive<'_>, permitted: &Mask, cluster: &Cluster) -> Vec<Kind> {
    let covers_family = |mask: &Mask| is_subset(&naive.v4, mask) || is_subset(&naive.v6, mask);
    let open = |of, at| covers_family(&and(permitted, &naive.firewall(of, at, None).0));
    let rules = &naive.organization.rules;
    let denies = |rule: &Arc<Rule>| rule.action == Action::Deny && covers_family(naive.source(&rule.source));
    let node = &naive.organization.node;
    let restricted = matches!(node.access, Access::AllowList(_))
        || node.gates.refuse_open_to_internet
        || cluster.node.gates.refuse_open_to_internet
        || rules.iter().any(denies);
    let opened = begins(naive, Code::OpenToInternet, open).into_iter();
    opened.filter(|(_, from, _)| restricted || from.is_some()).collect()
}

fn expected_of_entries(naive: &Naive<'_>, node: &Access) -> Kinds {
    let mut expected = BTreeMap::new();
    for entry in node.entries() {
        let set = naive.source(&entry.source);
        if is_empty(set) {
            expected.insert(always(Code::EmptyGroup), *set);
            continue;
        }
        let reached =
            |at: i64| ConnectionType::ALL.into_iter().any(|of| !is_empty(&and(set, &naive.firewall(of, at, None).0)));
        if let Some(at) = naive.moments().into_iter().find(|at| !reached(*at)) {
            expected.insert((Code::UnreachableEntry, later(at), Vec::new()), *set);
        }
    }
    expected
}

pub(crate) fn examined<'a>(
    organization: &'a Organization,
    snapshot: &'a Snapshot,
    cluster: &'a Cluster,
    cluster_snapshot: &'a ClusterSnapshot,
) -> Examined<'a> {
    Examined {
        organization,
        snapshot,
        cluster,
        cluster_snapshot,
        now: Timestamp::from_millis(NOW),
        matches: &|_| None,
        unused_since: Timestamp::from_millis(0),
        nat64_prefixes: &[],
    }
}

fn compare(organization: &Organization, cluster: &Cluster) {
    let snapshot = Snapshot::compile(organization, &mut MembersCache::default());
    let cluster_snapshot = ClusterSnapshot::compile(cluster);
    let examined = examined(organization, &snapshot, cluster, &cluster_snapshot);
    let found = problems::of_organization(&examined).problems;
    let naive = Naive::new(organization, cluster);
    let permitted = and(&naive.access(&organization.node.access), &naive.access(&cluster.node.access));
    for (place, rule) in organization.rules.iter().enumerate() {
        let resource = Resource::Rule(rule.id.clone());
        let expected = expected_of_rule(&naive, &permitted, place);
        assert_eq!(of_resource(&found, &resource), expected, "{rule:?}");
        let shadowed = |problem: &&Problem| problem.resource == resource && problem.code == Code::ShadowedRule;
        for problem in found.iter().filter(shadowed) {
            check_related(&naive, problem, place);
        }
    }
    for (key, node) in organization.nodes.iter() {
        let expected = match &node.access {
            Access::Inherit => BTreeMap::new(),
            own => expected_of_node(&naive, &permitted, own),
        };
        let resource = Resource::Node(key.clone());
        let without_entries = |mut kinds: Kinds| {
            // Several entries may have the same fault: which of them is not told apart here.
            let of_entries =
                kinds.iter_mut().filter(|((code, ..), _)| matches!(code, Code::EmptyGroup | Code::UnreachableEntry));
            of_entries.for_each(|(_, mask)| *mask = Mask::default());
            kinds
        };
        assert_eq!(without_entries(of_resource(&found, &resource)), without_entries(expected), "{node:?}");
        // Asked about by itself, a node that inherits has what its parent's setting has.
        if let Some((_, effective)) = organization.effective_access(key) {
            let alone = problems::of_node(&examined, key).problems;
            let expected = expected_of_node(&naive, &permitted, effective);
            assert_eq!(without_entries(of_resource(&alone, &resource)), without_entries(expected), "{node:?}");
        }
    }
    let mut expected = expected_of_entries(&naive, &organization.node.access);
    if is_empty(&naive.access(&organization.node.access)) {
        expected.insert(always(Code::NoAddresses), Mask::default());
    }
    let locked = |of, at| is_empty(&and(&permitted, &naive.firewall(of, at, None).0));
    expected.extend(begins(&naive, Code::LocksEveryoneOut, locked).into_iter().map(|kind| (kind, Mask::default())));
    expected.extend(expected_opened(&naive, &permitted, cluster).into_iter().map(|kind| (kind, Mask::default())));
    let kinds = |kinds: Kinds| kinds.into_keys().collect::<Vec<_>>();
    assert_eq!(kinds(of_resource(&found, &Resource::Organization)), kinds(expected));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(2_000, 10_000), max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn problems_are_just_those_that_enumerating_every_address_finds((organization, cluster) in model()) {
        compare(&organization, &cluster);
    }

    #[test]
    fn so_are_those_of_rules_that_expire_one_after_the_other_in_nested_ranges((organization, cluster) in nested_model()) {
        compare(&organization, &cluster);
    }
}
