//! Rules that deny IPv4 addresses whose translated twins are allowed: equal to asking about every address and its twins
//! at every moment.
//!
//! Invariant: every range of a policy has all of the addresses that stand for one IPv4 address outside 10.0.0.0/28 or
//! none of them, so that one such address stands for all. Twins are written out here, not computed by the service's code.
//! Not here: the other problems (`problems`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis::policy::address::{Address, Range};
use portcullis::policy::members::MembersCache;
use portcullis::policy::node::{Access, AccessEntry, Node};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::problems::{self, Code, Examined, Nat64Prefix, Problem, Resource};
use portcullis::policy::rule::{Action, ConnectionType, Rule, Source};
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::time::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;

use crate::campaign::rounds;
use crate::problems::{NOW, examined, id};

/// An IPv4 address, and addresses that stand for it: two of its 6to4 network.
fn addresses() -> Vec<(Address, Vec<Address>)> {
    let inside = (0..16_u32).map(|x| {
        let twins = [
            format!("64:ff9b::a00:{x:x}"),
            format!("2002:a00:{x:x}::"),
            format!("2002:a00:{x:x}:8000::"),
            format!("2001:db8:0:64:a:0:{:x}:0", x << 8),
        ];
        (format!("10.0.0.{x}"), twins)
    });
    let outside = ["64:ff9b::c000:201", "2002:c000:201::", "2002:c000:201:8000::", "2001:db8:0:64:c0:2:100:0"];
    let outside = ("192.0.2.1".to_owned(), outside.map(str::to_owned));
    let parse = |text: &String| text.parse::<Address>().unwrap();
    inside.chain([outside]).map(|(v4, twins)| (parse(&v4), twins.iter().map(parse).collect())).collect()
}

fn range() -> impl Strategy<Value = Range> {
    let v4 = (0..16_u32, 28..=32_u32).prop_map(|(x, length)| format!("10.0.0.{}/{length}", x & (!0 << (32 - length))));
    let well_known = (0..16_u32, 124..=128_u32)
        .prop_map(|(x, length)| format!("64:ff9b::a00:{:x}/{length}", x & (!0 << (128 - length))));
    let six_to_four =
        (0..16_u32, 44..=48_u32).prop_map(|(x, length)| format!("2002:a00:{:x}::/{length}", x & (!0 << (48 - length))));
    let half = (0..16_u32, select(vec!["", "8000"])).prop_map(|(x, half)| match half {
        "" => format!("2002:a00:{x:x}::/49"),
        half => format!("2002:a00:{x:x}:{half}::/49"),
    });
    let own = (0..16_u32, 100..=104_u32)
        .prop_map(|(x, length)| format!("2001:db8:0:64:a:0:{:x}:0/{length}", (x & (!0 << (104 - length))) << 8));
    let single = (0..16_u32).prop_map(|x| format!("2001:db8:0:64:a:0:{:x}:0", x << 8));
    let whole = select(vec!["any", "0.0.0.0/0", "::/0", "64:ff9b::/96", "2002::/16", "2001:db8:0:64::/64"]);
    let whole = whole.prop_map(str::to_owned);
    prop_oneof![5 => v4, 2 => well_known, 1 => six_to_four, 1 => half, 1 => own, 1 => single, 3 => whole]
        .prop_map(|text| text.parse().unwrap())
}

fn access() -> impl Strategy<Value = Access> {
    let list = prop::collection::vec(range(), 0..4).prop_map(|ranges| {
        let entry = |range| AccessEntry { source: Source::Range(range), description: "".into() };
        Access::AllowList(ranges.into_iter().map(entry).collect::<Vec<_>>().into())
    });
    prop_oneof![4 => Just(Access::AllowAll), 1 => list]
}

prop_compose! {
    fn rule()(
        action in select(vec![Action::Allow, Action::Deny, Action::Deny]),
        range in range(),
        types in select(vec![vec![], vec![], vec![ConnectionType::Shell], vec![ConnectionType::Preview]]),
        disabled in prop::bool::weighted(0.1),
        expires in select(vec![None, None, Some(50), Some(150), Some(200), Some(250)]),
    ) -> Rule {
        let now = Timestamp::from_millis(0);
        Rule {
            id: id("r"),
            action,
            source: Source::Range(range),
            connection_types: types.into_iter().collect(),
            description: "".into(),
            disabled,
            expire_time: expires.map(Timestamp::from_millis),
            create_time: now,
            update_time: now,
            changed_at: 1,
            expired: false,
        }
    }
}

fn permits(access: &Access, address: Address) -> bool {
    let contains = |entry: &AccessEntry| matches!(entry.source, Source::Range(range) if range.contains(address));
    matches!(access, Access::AllowAll) || access.entries().iter().any(contains)
}

fn is_alive(rule: &Rule, at: i64) -> bool {
    !rule.disabled && rule.expire_time.is_none_or(|time| time.millis() > at)
}

fn winner(rules: &[Arc<Rule>], address: Address, of: ConnectionType, at: i64) -> Option<usize> {
    rules.iter().position(|rule| {
        let contains = matches!(rule.source, Source::Range(range) if range.contains(address));
        is_alive(rule, at) && rule.connection_types.applies_to(of) && contains
    })
}

/// When a rule begins to deny addresses whose twins are allowed, for which types, and those twins.
type Expected = (Option<i64>, Vec<ConnectionType>, BTreeSet<Address>);

fn expected(organization: &Organization, cluster: &Cluster, place: usize) -> Option<Expected> {
    let rules = &organization.rules;
    let rule = rules.get(place).filter(|rule| rule.action == Action::Deny)?;
    let allowed = |address: Address, of, at| {
        let by_rules = winner(rules, address, of, at).is_none_or(|place| rules[place].action == Action::Allow);
        by_rules && permits(&organization.node.access, address) && permits(&cluster.node.access, address)
    };
    [NOW, 150, 200, 250].into_iter().filter(|at| is_alive(rule, *at)).find_map(|at| {
        let (mut types, mut all) = (Vec::new(), BTreeSet::new());
        for of in ConnectionType::ALL {
            let denied = addresses().into_iter().filter(|(v4, _)| winner(rules, *v4, of, at) == Some(place));
            let twins: Vec<Address> =
                denied.flat_map(|(_, twins)| twins).filter(|twin| allowed(*twin, of, at)).collect();
            if !twins.is_empty() {
                types.push(of);
                all.extend(twins);
            }
        }
        (!all.is_empty()).then_some(((at != NOW).then_some(at), types, all))
    })
}

fn within(problem: &Problem) -> BTreeSet<Address> {
    let twins = addresses().into_iter().flat_map(|(_, twins)| twins);
    twins.filter(|twin| problem.ranges.iter().any(|range| range.contains(*twin))).collect()
}

fn compare(organization: &Organization, cluster: &Cluster) {
    let snapshot = Snapshot::compile(organization, &mut MembersCache::default());
    let cluster_snapshot = ClusterSnapshot::compile(cluster);
    let prefixes: [Nat64Prefix; 1] = ["2001:db8:0:64::/64".parse().unwrap()];
    let examined = examined(organization, &snapshot, cluster, &cluster_snapshot);
    let found = problems::of_organization(&Examined { nat64_prefixes: &prefixes, ..examined }).problems;
    let mut of_rules: BTreeMap<&Resource, Vec<&Problem>> = BTreeMap::new();
    for problem in &found {
        of_rules.entry(&problem.resource).or_default().push(problem);
    }
    for (place, rule) in organization.rules.iter().enumerate() {
        let of_rule = of_rules.get(&Resource::Rule(rule.id.clone())).map_or(&[][..], Vec::as_slice);
        let one = |code| of_rule.iter().find(|problem| problem.code == code);
        let translated = one(Code::TranslatedAddress)
            .map(|problem| (problem.from.map(Timestamp::millis), problem.connection_types.clone(), within(problem)));
        // A catch-all that forgets IPv6 says it already.
        let is_said = |(from, _, twins): &Expected| {
            one(Code::Ipv4OnlyCatchAll).is_some_and(|problem| {
                problem.from.map(Timestamp::millis) <= *from && within(problem).is_superset(twins)
            })
        };
        let expected = expected(organization, cluster, place).filter(|expected| !is_said(expected));
        assert_eq!(translated, expected, "{rule:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(5_000, 50_000), max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn rules_whose_addresses_get_in_translated_are_those_that_asking_about_every_twin_finds(
        rules in prop::collection::vec(rule(), 0..8),
        own in access(),
        cluster_access in access(),
    ) {
        let now = Timestamp::from_millis(0);
        let mut organization = Organization::new(id("default"), 1, Node::new(own, now, 1));
        let numbered = rules.into_iter().enumerate();
        let rules = numbered.map(|(place, rule)| Arc::new(Rule { id: id(&format!("r{place}")), ..rule }));
        organization.rules = Arc::new(rules.collect());
        let mut cluster = Cluster::new(now);
        cluster.node = Arc::new(Node::new(cluster_access, now, 1));
        compare(&organization, &cluster);
    }
}
