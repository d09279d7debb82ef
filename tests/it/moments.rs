//! Random policies whose rules expire at different moments, random changes of them, and what enumerating every address and
//! every moment finds.
//!
//! Invariant: the universe is 16 addresses of each family and one that stands for all others; every range of a policy is
//! inside, or a whole family, so that a set of addresses is a set of bits. At most moments of a policy some rule expires.
//! Not here: what is compared with it (`moments_judged`).

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use portcullis::policy::address::{Address, Range};
use portcullis::policy::group::Group;
use portcullis::policy::name::{Id, NodeKey, NodePath};
use portcullis::policy::node::{Access, AccessEntry, Node};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::rule::{Action, ConnectionType, Rule, Source};
use portcullis::policy::time::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;

use crate::naive;

pub(crate) const NOW: i64 = 100;

/// One bit for each address of the universe.
pub(crate) type Mask = u64;

const OTHER_V4: u32 = 32;
const OTHER_V6: u32 = 33;
pub(crate) const POINTS: u32 = 34;
pub(crate) const V4: Mask = 0xFFFF | 1 << OTHER_V4;
pub(crate) const V6: Mask = 0xFFFF << 16 | 1 << OTHER_V6;

/// Every kind of target: registered or not, at each level.
pub(crate) const PLACES: [&str; 7] = [
    "organizations/default",
    "organizations/default/projects/other",
    "organizations/default/projects/p",
    "organizations/default/projects/p/workspaces/w",
    "organizations/default/projects/p/workspaces/w/endpoints/e",
    "organizations/default/projects/p/workspaces/x",
    "organizations/default/projects/q",
];

pub(crate) fn point(at: u32) -> Address {
    match at {
        OTHER_V4 => Address::V4(0xC000_0201),
        OTHER_V6 => Address::V6(0xFE80 << 112),
        v4 if v4 < 16 => Address::V4(0x0A00_0000 + v4),
        v6 => Address::V6((0x2001_0DB8 << 96) + u128::from(v6 - 16)),
    }
}

pub(crate) fn mask_where(is_in: impl Fn(Address) -> bool) -> Mask {
    (0..POINTS).filter(|at| is_in(point(*at))).fold(0, |mask, at| mask | 1 << at)
}

pub(crate) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn key(name: &str) -> NodeKey {
    NodeKey::of(&NodePath::parse(name).unwrap()).unwrap()
}

/// One version of a policy. None stands for an organization that does not exist.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) organization: Option<Organization>,
    pub(crate) cluster: Cluster,
}

/// What a world permits, by enumeration.
pub(crate) struct Oracle<'a> {
    world: &'a World,
    sources: HashMap<Source, Mask>,
    /// What the firewall lets through, as far as it was asked.
    known: RefCell<HashMap<(ConnectionType, i64), Mask>>,
}

impl<'a> Oracle<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        let mut sources = HashMap::new();
        let mut add = |organization: Option<&Organization>, source: &Source| {
            let mask = match source {
                Source::Range(range) => mask_where(|address| range.contains(address)),
                Source::Group(id) => organization.and_then(|own| own.groups.get(id.as_str())).map_or(0, |group| {
                    let ranges: Vec<Range> = group.ranges().iter().collect();
                    mask_where(|address| ranges.iter().any(|range| range.contains(address)))
                }),
            };
            sources.insert(source.clone(), mask);
        };
        world.cluster.node.access.entries().iter().for_each(|entry| add(None, &entry.source));
        if let Some(organization) = &world.organization {
            let nodes = organization.nodes.values().map(|node| &node.access).chain([&organization.node.access]);
            nodes.flat_map(Access::entries).for_each(|entry| add(Some(organization), &entry.source));
            organization.rules.iter().for_each(|rule| add(Some(organization), &rule.source));
        }
        Self { world, sources, known: RefCell::default() }
    }

    fn access(&self, access: &Access) -> Mask {
        match access {
            Access::AllowAll | Access::Inherit => V4 | V6,
            Access::AllowList(entries) => entries.iter().fold(0, |mask, entry| mask | self.sources[&entry.source]),
        }
    }

    /// What the firewall lets through at a moment.
    pub(crate) fn firewall(&self, connection_type: ConnectionType, at: i64) -> Mask {
        let enumerate = || self.enumerate(connection_type, at);
        *self.known.borrow_mut().entry((connection_type, at)).or_insert_with(enumerate)
    }

    fn enumerate(&self, connection_type: ConnectionType, at: i64) -> Mask {
        let Some(organization) = &self.world.organization else { return 0 };
        let (mut open, mut allowed) = (V4 | V6, 0);
        for rule in organization.rules.iter() {
            let alive = !rule.expired && rule.expire_time.is_none_or(|expires| at < expires.millis());
            if !rule.disabled && alive && rule.connection_types.applies_to(connection_type) {
                let wins = open & self.sources[&rule.source];
                open &= !wins;
                if rule.action == Action::Allow {
                    allowed |= wins;
                }
            }
        }
        allowed | open
    }

    /// What everything but the firewall permits at a place.
    pub(crate) fn beside_firewall(&self, place: &str) -> Mask {
        let Some(organization) = &self.world.organization else { return 0 };
        let levels = self.access(&self.world.cluster.node.access) & self.access(&organization.node.access);
        let parts: Vec<&str> = place.split('/').collect();
        if parts.len() > 2 {
            let project = key(&parts[..4].join("/"));
            if organization.node.require_projects && organization.nodes.get(&project).is_none() {
                return 0;
            }
        }
        for length in [8, 6, 4].into_iter().filter(|length| *length <= parts.len()) {
            let node = organization.nodes.get(&key(&parts[..length].join("/"))).map(|node| &node.access);
            if let Some(access) = node.filter(|access| **access != Access::Inherit) {
                return levels & self.access(access);
            }
        }
        levels
    }

    /// Who is permitted at a place and a moment.
    pub(crate) fn permitted(&self, place: &str, connection_type: ConnectionType, at: i64) -> Mask {
        self.beside_firewall(place) & self.firewall(connection_type, at)
    }
}

/// Now, every moment at which a rule expires, one between that and the next, and one after all.
pub(crate) fn moments(worlds: [&World; 2]) -> BTreeSet<i64> {
    let rules = worlds.iter().filter_map(|world| world.organization.as_ref()).flat_map(|own| own.rules.iter());
    let expiries = rules.filter_map(|rule| rule.expire_time).map(Timestamp::millis).filter(|expires| *expires > NOW);
    expiries.flat_map(|expires| [expires, expires + 5]).chain([NOW, NOW + 5, 1_000_000]).collect()
}

/// The world as the naive evaluator takes it.
pub(crate) fn to_naive(world: &World) -> naive::Policy {
    let source = |source: &Source| match source {
        Source::Range(range) => naive::Source::Range(range.to_string()),
        Source::Group(id) => naive::Source::Group(id.to_string()),
    };
    let access = |access: &Access| match access {
        Access::Inherit => naive::Access::Inherit,
        Access::AllowAll => naive::Access::AllowAll,
        Access::AllowList(entries) => {
            naive::Access::AllowList(entries.iter().map(|entry| source(&entry.source)).collect())
        }
    };
    let of_type = |connection_type: ConnectionType| match connection_type {
        ConnectionType::Shell => naive::ConnectionType::Shell,
        ConnectionType::Preview => naive::ConnectionType::Preview,
    };
    let rule = |rule: &Arc<Rule>| naive::Rule {
        id: rule.id.to_string(),
        action: if rule.action == Action::Allow { naive::Action::Allow } else { naive::Action::Deny },
        source: source(&rule.source),
        connection_types: rule.connection_types.iter().map(of_type).collect(),
        disabled: rule.disabled,
        expire_time_ms: if rule.expired { Some(i64::MIN) } else { rule.expire_time.map(Timestamp::millis) },
    };
    let organizations = world.organization.iter().map(|own| {
        let group = |(id, group): (&Id, &Arc<Group>)| {
            (id.to_string(), group.ranges().iter().map(|range| range.to_string()).collect())
        };
        let node = |(key, node): (&NodeKey, &Arc<Node>)| (format!("organizations/default/{key}"), access(&node.access));
        let organization = naive::Organization {
            revision: 1,
            require_projects: own.node.require_projects,
            access: access(&own.node.access),
            rules: own.rules.iter().map(rule).collect(),
            groups: own.groups.iter().map(group).collect(),
            nodes: own.nodes.iter().map(node).collect(),
        };
        ("default".to_owned(), organization)
    });
    let organizations = organizations.collect();
    naive::Policy { cluster: access(&world.cluster.node.access), cluster_revision: 1, organizations }
}

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn range() -> impl Strategy<Value = Range> {
    let v4 = (0..16_u32, 28..=32_u32).prop_map(|(low, length)| {
        let low = low & (0xF_u32 << (32 - length));
        format!("10.0.0.{low}/{length}")
    });
    let v6 = (0..16_u32, 124..=128_u32).prop_map(|(low, length)| {
        let low = low & (0xF_u32 << (128 - length));
        format!("2001:db8::{low:x}/{length}")
    });
    let whole = select(vec!["any", "0.0.0.0/0", "::/0"]).prop_map(str::to_owned);
    prop_oneof![3 => v4, 2 => v6, 4 => whole].prop_map(|text| text.parse().unwrap())
}

fn source() -> impl Strategy<Value = Source> {
    let group = select(vec!["one", "two"]).prop_map(|group| Source::Group(id(group)));
    prop_oneof![4 => range().prop_map(Source::Range), 1 => group]
}

fn rule_of(expires: impl Strategy<Value = Option<i64>>) -> impl Strategy<Value = Rule> {
    let types = select(vec![vec![], vec![], vec![ConnectionType::Shell], vec![ConnectionType::Preview]]);
    let action = select(vec![Action::Allow, Action::Deny]);
    (action, source(), types, prop::bool::weighted(0.1), expires, prop::bool::weighted(0.15)).prop_map(
        |(action, source, types, disabled, expires, marked)| Rule {
            id: id("r"),
            action,
            source,
            connection_types: types.into_iter().collect(),
            description: "".into(),
            disabled,
            expire_time: expires.map(time),
            create_time: time(0),
            update_time: time(0),
            changed_at: 1,
            // As after a correction of the clock: whatever the time is.
            expired: marked && expires.is_some(),
        },
    )
}

/// Rules that expire before now, now, and at few or many moments afterwards, or never.
fn rule() -> impl Strategy<Value = Rule> {
    let soon = (0..6_i64).prop_map(|step| Some(NOW + 10 * step));
    rule_of(prop_oneof![2 => Just(None), 5 => soon, 1 => Just(Some(50))])
}

/// Few rules; or so many that expire one after the other that compiled chains do not hold them.
fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let step = rule_of((1..60_i64).prop_map(|step| Some(NOW + 10 * step)));
    let ladder = prop::collection::vec(step, 18..60).prop_map(|mut rules| {
        rules.sort_by_key(|rule| rule.expire_time);
        rules
    });
    let few = || prop::collection::vec(rule(), 0..8);
    let long = (few(), ladder, few()).prop_map(|(above, ladder, below)| [above, ladder, below].concat());
    prop_oneof![7 => few(), 1 => long]
}

fn access(own: Access) -> impl Strategy<Value = Access> {
    let list = prop::collection::vec(source(), 0..3).prop_map(list);
    prop_oneof![2 => list, 2 => Just(Access::AllowAll), 2 => Just(own)]
}

fn list(sources: Vec<Source>) -> Access {
    let entry = |source| AccessEntry { source, description: "".into() };
    Access::AllowList(sources.into_iter().map(entry).collect::<Vec<_>>().into())
}

fn cluster_access() -> impl Strategy<Value = Access> {
    let some = prop::collection::vec(range().prop_map(Source::Range), 1..3).prop_map(list);
    prop_oneof![4 => Just(Access::AllowAll), 1 => some]
}

fn numbered(rules: Vec<Rule>) -> Arc<Vec<Arc<Rule>>> {
    let rules = rules.into_iter().enumerate();
    Arc::new(rules.map(|(place, rule)| Arc::new(Rule { id: id(&format!("r{place}")), ..rule })).collect())
}

prop_compose! {
    pub(crate) fn world()(
        rules in rules(),
        groups in [prop::collection::vec(range(), 1..4), prop::collection::vec(range(), 1..4)],
        own in prop_oneof![2 => Just(Access::AllowAll), 1 => access(Access::AllowAll)],
        nodes in (access(Access::AllowAll), access(Access::Inherit), access(Access::Inherit)),
        kept in 0..4_usize,
        require_projects in any::<bool>(),
        cluster in cluster_access(),
    ) -> World {
        let mut organization = Organization::new(id("default"), 1, Node::new(own, time(0), 1));
        let mut node = (*organization.node).clone();
        node.require_projects = require_projects;
        organization.node = Arc::new(node);
        for (name, ranges) in ["one", "two"].into_iter().zip(groups) {
            let group = Group::new(id(name), "".into(), ranges.into_iter().collect(), time(0), 1);
            organization.groups.insert(id(name), Arc::new(group));
        }
        organization.rules = numbered(rules);
        let nodes = [nodes.0, nodes.1, nodes.2];
        for (name, access) in PLACES.into_iter().skip(2).zip(nodes).take(kept) {
            organization.nodes.insert(key(name), Arc::new(Node::new(access, time(0), 1)));
        }
        let mut of_cluster = Cluster::new(time(0));
        of_cluster.node = Arc::new(Node::new(cluster, time(0), 1));
        World { organization: Some(organization), cluster: of_cluster }
    }
}

/// A policy and what a change of its rules makes of it: often only a moment at which one expires.
pub(crate) fn change_of_rules() -> impl Strategy<Value = (World, World)> {
    change(5..11)
}

/// A policy and what another change makes of it: of groups, nodes, the cluster or everything, or its deletion.
pub(crate) fn change_of_the_rest() -> impl Strategy<Value = (World, World)> {
    change(0..5)
}

fn change(kinds: std::ops::Range<u32>) -> impl Strategy<Value = (World, World)> {
    let moment = prop_oneof![1 => Just(None), 4 => (0..8_i64).prop_map(|step| Some(time(NOW + 10 * step)))];
    (world(), world(), kinds, any::<prop::sample::Index>(), moment).prop_map(|(before, other, kind, at, moment)| {
        let (Some(own), Some(others)) = (&before.organization, &other.organization) else { return (before, other) };
        let mut after = before.clone();
        let mut organization = own.clone();
        let mut rules: Vec<Rule> = own.rules.iter().map(|rule| (**rule).clone()).collect();
        let at = at.index(rules.len().max(1));
        match kind {
            0 => return (before, other),
            1 => after.cluster = other.cluster,
            2 => {
                after.organization = None;
                return (before, after);
            }
            3 => organization.groups = others.groups.clone(),
            4 => (organization.nodes, organization.node) = (others.nodes.clone(), Arc::clone(&others.node)),
            5 if !rules.is_empty() => drop(rules.remove(at)),
            6 => rules.splice(at..at, others.rules.first().map(|rule| (**rule).clone())).for_each(drop),
            7 => rules.reverse(),
            _ => {
                if let Some(rule) = rules.get_mut(at) {
                    rule.expire_time = moment;
                }
            }
        }
        if kind >= 5 {
            organization.rules = numbered(rules);
        }
        after.organization = Some(organization);
        (before, after)
    })
}
