//! What a change does at every moment from now on: differences, gates, policy tests and revocations, each equal to what
//! enumerating every address and every moment before and after finds.
//!
//! Invariant: a fault that only some later moment shows is found as surely as one of now.
//! Not here: random policies and their enumeration (`moments`), the same through the API (`moments_api`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use portcullis::policy::address::Range;
use portcullis::policy::breakage::{broken_tests, failures};
use portcullis::policy::decision::{Decision, Reason};
use portcullis::policy::forecast::{Budget, Comparison, Event, TooCostly};
use portcullis::policy::gates::Gates;
use portcullis::policy::impact::Impact;
use portcullis::policy::judging::{Losses, Refusal};
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{Id, NodePath};
use portcullis::policy::organization::Organization;
use portcullis::policy::policy_test::PolicyTest;
use portcullis::policy::ranges::RangeSet;
use portcullis::policy::rule::ConnectionType;
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::timeline::Moment;
use portcullis::policy::version::Version;
use proptest::prelude::*;
use proptest::sample::select;

use crate::campaign::rounds;
use crate::moments::{
    Mask, NOW, Oracle, PLACES, POINTS, V4, V6, World, change_of_rules, change_of_the_rest, mask_where, moments, point,
    time, to_naive, world,
};
use crate::naive;

/// A world with its compiled form.
struct Compiled<'a> {
    world: &'a World,
    snapshot: Option<Snapshot>,
    cluster: ClusterSnapshot,
}

impl<'a> Compiled<'a> {
    fn new(world: &'a World) -> Self {
        let compile = |own: &Organization| Snapshot::compile(own, &mut MembersCache::default());
        let snapshot = world.organization.as_ref().map(compile);
        Self { world, snapshot, cluster: ClusterSnapshot::compile(&world.cluster) }
    }

    fn version(&self) -> Option<Version<'_>> {
        Some(Version {
            organization: self.world.organization.as_ref()?,
            snapshot: self.snapshot.as_ref()?,
            cluster: &self.world.cluster,
            cluster_snapshot: &self.cluster,
        })
    }
}

fn moment(at: i64) -> Moment {
    if at == NOW { Moment::Now } else { Moment::At(time(at)) }
}

fn mask_of(set: &RangeSet) -> Mask {
    let ranges: Vec<Range> = set.ranges().collect();
    mask_where(|address| ranges.iter().any(|range| range.contains(address)))
}

/// The first moment at which something is so.
fn first(moments: &BTreeSet<i64>, is_so: impl Fn(i64) -> bool) -> Option<Moment> {
    moments.iter().copied().find(|at| is_so(*at)).map(moment)
}

/// What the compiled policy says of every moment is what is decided then, also by the naive evaluator.
fn decisions(world: &World, moments: &BTreeSet<i64>, probe: u32) {
    let (oracle, compiled) = (Oracle::new(world), Compiled::new(world));
    let Some(version) = compiled.version() else { return };
    let policy = to_naive(world);
    for connection_type in ConnectionType::ALL {
        let firewall = version.snapshot.firewall();
        let allowed = firewall.allowed_from(connection_type, time(NOW));
        let whole = firewall.whole_families(connection_type, time(NOW)).unwrap();
        for at in moments {
            let expected = oracle.firewall(connection_type, *at);
            let families = whole.each_ref().map(|timeline| timeline.holds_at(moment(*at)));
            assert_eq!(families, [expected & V4 == V4, expected & V6 == V6], "{connection_type} at {at}");
            assert_eq!(mask_of(&allowed.at(moment(*at))), expected, "{connection_type} at {at}");
            assert_eq!(mask_of(&firewall.allowed(connection_type, time(*at))), expected, "{connection_type} at {at}");
        }
        for number in 0..POINTS {
            let address = point(number);
            let timeline = firewall.timeline(address, connection_type, time(NOW));
            assert_eq!(timeline, allowed.timeline(address));
            assert_eq!(mask_of(&allowed.ever()) >> number & 1 == 1, !timeline.is_never());
            for (place, at) in PLACES.into_iter().zip(moments.iter().cycle().skip((number + probe) as usize)) {
                let expected = oracle.permitted(place, connection_type, *at) >> number & 1 == 1;
                let allowed = version.allowed(address, connection_type, place, time(NOW));
                assert_eq!(allowed.holds_at(moment(*at)), expected, "{address} at {place}, {at}");
                let decision = version.decision(address, connection_type, place, time(*at));
                assert_eq!(decision == Decision::Allow, expected, "{address} at {place}, {at}");
                if number == probe {
                    let of_type = match connection_type {
                        ConnectionType::Shell => naive::ConnectionType::Shell,
                        ConnectionType::Preview => naive::ConnectionType::Preview,
                    };
                    let address = naive::parse_address(&address.to_string()).unwrap();
                    assert_eq!(naive::decide(&policy, address, of_type, place, *at).allow, expected, "{place} at {at}");
                }
            }
        }
    }
}

/// The place whose differences a place has: the nearest above that one of the versions knows.
fn told_by(worlds: [&World; 2], place: &str) -> String {
    let known = |name: &str| {
        let key = crate::moments::key(name);
        worlds.iter().any(|world| world.organization.as_ref().is_some_and(|own| own.nodes.get(&key).is_some()))
    };
    let parts: Vec<&str> = place.split('/').collect();
    let above = [8, 6, 4].into_iter().filter(|length| *length <= parts.len()).map(|length| parts[..length].join("/"));
    let mut known = above.filter(|name| known(name));
    let otherwise = if parts.len() == 2 { place } else { "organizations/default/projects/-" };
    known.next().unwrap_or_else(|| otherwise.to_owned())
}

/// A difference, in bits: node, connection type, first moment, end, newly permitted, newly denied.
type Told = (String, ConnectionType, Moment, Option<i64>, Mask, Mask);

fn differences(before: &World, after: &World) {
    let all = moments([before, after]);
    let (old, new) = (Compiled::new(before), Compiled::new(after));
    let impact = Impact::new(old.version(), new.version(), time(NOW));
    let id = Id::parse("default").unwrap();
    let told: Vec<Told> = impact
        .differences()
        .map(|told| {
            let to = told.period.to.map(portcullis::policy::time::Timestamp::millis);
            let masks = (mask_of(&told.newly_permitted), mask_of(&told.newly_denied));
            assert!(masks != (0, 0) && to.is_none_or(|to| moment(to) > told.period.from));
            (told.targets.name(&id), told.connection_type, told.period.from, to, masks.0, masks.1)
        })
        .collect();
    assert!(told.is_sorted_by_key(|(_, _, from, ..)| *from > Moment::Now), "those of now come first");
    let concerned = mask_of(&impact.concerned());
    let (was, is) = (Oracle::new(before), Oracle::new(after));
    for place in PLACES {
        let node = told_by([before, after], place);
        let (beside_before, beside_after) = (was.beside_firewall(place), is.beside_firewall(place));
        for connection_type in ConnectionType::ALL {
            let of_place: Vec<&Told> = told.iter().filter(|told| told.0 == node && told.1 == connection_type).collect();
            for at in &all {
                let was = beside_before & was.firewall(connection_type, *at);
                let is = beside_after & is.firewall(connection_type, *at);
                let mut found = (0, 0);
                for (_, _, from, to, permitted, denied) in &of_place {
                    if *from <= moment(*at) && to.is_none_or(|to| *at < to) {
                        assert_eq!((found.0 & permitted, found.1 & denied), (0, 0), "told twice at {at}");
                        found = (found.0 | permitted, found.1 | denied);
                    }
                }
                assert_eq!(found, (is & !was, was & !is), "{place} for {connection_type} at {at}");
                assert_eq!((was ^ is) & !concerned, 0, "{place} at {at} is not among what is concerned");
            }
            // A period is as long as it can be: nothing goes on where one ends.
            for (_, _, _, to, permitted, denied) in &of_place {
                let next = of_place.iter().filter(|next| to.is_some_and(|to| next.2 == Moment::At(time(to))));
                next.for_each(|next| assert_eq!((permitted & next.4, denied & next.5), (0, 0), "{place} at {to:?}"));
            }
        }
    }
}

fn gates(before: &World, after: &World, guarded: u32) {
    let all = moments([before, after]);
    let (old, new) = (Compiled::new(before), Compiled::new(after));
    let (was, is) = (Oracle::new(before), Oracle::new(after));
    let beside: HashMap<&str, (Mask, Mask)> =
        PLACES.iter().map(|place| (*place, (was.beside_firewall(place), is.beside_firewall(place)))).collect();
    let permitted = |place: &str, of, at| {
        let (before, after) = beside[place];
        (before & was.firewall(of, at), after & is.firewall(of, at))
    };
    let address = point(guarded);
    let lost = |place: &str, of, at| {
        let (was, is) = permitted(place, of, at);
        was & !is & 1 << guarded != 0
    };
    let any = |bad: &dyn Fn(&str, ConnectionType, i64) -> bool| {
        let anywhere = |at| PLACES.iter().any(|place| ConnectionType::ALL.iter().any(|of| bad(place, *of, at)));
        first(&all, anywhere)
    };
    let gates = Gates { guard: vec![address], refuse_open_to_internet: true, max_revocations: None };
    let refusals = gates.refusals(
        &Gates::default(),
        old.version().as_ref(),
        new.version().as_ref(),
        time(NOW),
        &Budget::default(),
    );
    let guard = refusals.iter().find(|refusal| matches!(refusal, Refusal::GuardViolated { .. }));
    assert_eq!(guard.map(Refusal::from), any(&lost), "{refusals:?}");
    let opens = |place: &str, of, at| {
        let (was, is) = permitted(place, of, at);
        [V4, V6].into_iter().any(|family| is & family == family && was & family != family)
    };
    let open = refusals.iter().find(|refusal| matches!(refusal, Refusal::OpenToInternet { .. }));
    assert_eq!(open.map(Refusal::from), any(&opens), "{refusals:?}");
    for refusal in &refusals {
        let (Refusal::GuardViolated { node, connection_type, from, .. }
        | Refusal::OpenToInternet { node, connection_type, from, .. }) = refusal
        else {
            panic!("{refusal}");
        };
        // The node and the moment that are named are such.
        let at = from.time().map_or(NOW, portcullis::policy::time::Timestamp::millis);
        let bad = |place: &&&str| {
            told_by([before, after], place) == *node
                || (node.ends_with("/-") && **place == PLACES[1])
                || **place == node
        };
        let mut named = PLACES.iter().filter(bad);
        let is_so = |place: &&str| lost(place, *connection_type, at) || opens(place, *connection_type, at);
        assert!(named.any(is_so), "{refusal}");
        let text = from.time().map(|time| format!(" from {time} on"));
        assert_eq!(refusal.to_string().contains(" from "), text.is_some(), "{refusal}");
        assert!(text.is_none_or(|text| refusal.to_string().contains(&text)), "{refusal}");
    }
    if let Some(before) = old.version() {
        let (after, budget) = (new.version(), Budget::default());
        let some = Comparison::of_versions(Some(&before), after.as_ref(), vec![point(0), address], time(NOW));
        let after_firewall = after.as_ref().map(|after| after.snapshot.firewall());
        let all_addresses = Comparison::new(Some(before.snapshot.firewall()), after_firewall, None, time(NOW));
        for of in ConnectionType::ALL {
            for comparison in [&some, &all_addresses] {
                let losses = Losses::new(address, of, comparison, &budget).unwrap();
                for place in PLACES {
                    let expected = first(&all, |at| lost(place, of, at));
                    assert_eq!(losses.of(&before, after.as_ref(), address, place), expected, "{place}");
                }
            }
            // What is not known is not answered.
            let unknown = some.first(Event::Lost, point(guarded ^ 1), of, &budget);
            assert!(guarded == 1 || unknown == Err(TooCostly));
        }
    }
}

/// A test, before it has an id: address, whether for shells, place, whether it is to be allowed, when it ends.
type Draft = (u32, bool, usize, bool, Option<i64>);

fn draft() -> impl Strategy<Value = Draft> {
    let end = select(vec![None, None, None, Some(50), Some(NOW), Some(NOW + 20), Some(NOW + 25)]);
    (0..POINTS, any::<bool>(), 0..PLACES.len(), any::<bool>(), end)
}

fn to_test(number: usize, (at, shell, place, allow, end): Draft) -> PolicyTest {
    PolicyTest {
        id: Id::parse(&format!("t{number}")).unwrap(),
        address: point(at),
        connection_type: if shell { ConnectionType::Shell } else { ConnectionType::Preview },
        endpoint: PLACES[place].into(),
        expected: if allow { Decision::Allow } else { Decision::Deny },
        description: "".into(),
        end_time: end.map(time),
    }
}

/// Tests before and after a change: of those before, some are kept, under another id or not.
fn tests(before: &World, after: &World, drafts: &[(Draft, u32)]) {
    let (mut before, mut after) = (before.clone(), after.clone());
    let all = moments([&before, &after]).into_iter().chain([NOW + 20, NOW + 25]).collect();
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for (number, (draft, kind)) in drafts.iter().enumerate() {
        if *kind != 0 {
            old.push((to_test(number, *draft), *draft));
        }
        match kind {
            0 | 2 => new.push((to_test(number, *draft), *draft)),
            3 => new.push((to_test(number + 100, *draft), *draft)),
            _ => {}
        }
    }
    let only = |tests: &[(PolicyTest, Draft)]| tests.iter().map(|(test, _)| test.clone()).collect::<Vec<_>>();
    if let Some(own) = &mut before.organization {
        own.tests = Arc::new(only(&old));
    }
    match &mut after.organization {
        Some(own) => own.tests = Arc::new(only(&new)),
        None => new.clear(),
    }
    let (was, is) = (Oracle::new(&before), Oracle::new(&after));
    let fails = |oracle: &Oracle<'_>, (number, shell, place, allow, end): Draft, at: i64| {
        let of = if shell { ConnectionType::Shell } else { ConnectionType::Preview };
        let allowed = oracle.permitted(PLACES[place], of, at) >> number & 1 == 1;
        allowed != allow && end.is_none_or(|end| at < end)
    };
    let knew = |draft: &Draft| old.iter().any(|(_, known)| known == draft);
    let keeps = |draft: &Draft| new.iter().any(|(_, known)| known == draft);
    let mut expected: Vec<(Id, Moment)> = Vec::new();
    for (test, draft) in new.iter().chain(old.iter().filter(|(_, draft)| !keeps(draft))) {
        let breaks = |at| fails(&is, *draft, at) && !(knew(draft) && fails(&was, *draft, at));
        expected.extend(first(&all, breaks).map(|from| (test.id.clone(), from)));
    }
    let (old, new) = (Compiled::new(&before), Compiled::new(&after));
    let broken = broken_tests(old.version().as_ref(), new.version().as_ref(), time(NOW), &Budget::default());
    for test in &broken.tests {
        let at = test.from.time().unwrap_or(time(NOW));
        assert_ne!(test.reason.map_or(Decision::Deny, Reason::decision), test.expected, "{test:?} at {at}");
    }
    let mut firsts: BTreeMap<Id, Moment> = BTreeMap::new();
    for (id, from) in expected {
        firsts.entry(id).and_modify(|first| *first = from.min(*first)).or_insert(from);
    }
    let mut expected: Vec<(Id, Moment)> = firsts.into_iter().collect();
    expected.sort_by_key(|(_, from)| *from);
    assert!(broken.unknown.is_empty());
    let found: Vec<(Id, Moment)> = broken.tests.into_iter().map(|test| (test.id, test.from)).collect();
    assert_eq!(found, expected);
    // Asked alone, a test says when it fails.
    let known: Vec<&PolicyTest> = before.organization.iter().flat_map(|own| own.tests.iter()).collect();
    let failures = old.version().map(|version| failures(&known, &version, time(NOW))).unwrap_or_default();
    for (test, failure) in known.into_iter().zip(failures) {
        let version = old.version().unwrap();
        let expected = first(&all, |at| {
            let allowed = version.decision(test.address, test.connection_type, &test.endpoint, time(at));
            allowed != test.expected && test.end_time.is_none_or(|end| time(at) < end)
        });
        assert_eq!(failure, Ok(expected));
    }
}

fn config(short: u32, long: u32) -> ProptestConfig {
    let cases = rounds(short, long);
    ProptestConfig { cases, max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() }
}

fn drafts() -> impl Strategy<Value = Vec<(Draft, u32)>> {
    prop::collection::vec((draft(), 0..4_u32), 1..5)
}

fn judge(before: &World, after: &World, guarded: u32, drafts: &[(Draft, u32)]) {
    differences(before, after);
    gates(before, after, guarded);
    tests(before, after, drafts);
}

proptest! {
    #![proptest_config(config(5_000, 100_000))]

    #[test]
    fn a_change_of_rules_is_judged_as_enumerating_every_address_and_moment_does(
        (before, after) in change_of_rules(),
        guarded in 0..POINTS,
        drafts in drafts(),
    ) {
        judge(&before, &after, guarded, &drafts);
    }

    #[test]
    fn a_change_of_anything_else_is_judged_as_enumerating_every_address_and_moment_does(
        (before, after) in change_of_the_rest(),
        guarded in 0..POINTS,
        drafts in drafts(),
    ) {
        judge(&before, &after, guarded, &drafts);
    }
}

proptest! {
    #![proptest_config(config(1_000, 50_000))]

    #[test]
    fn timelines_are_what_is_decided_at_every_moment(world in world(), probe in 0..POINTS) {
        decisions(&world, &moments([&world, &world]), probe);
    }
}

#[test]
fn places_that_can_be_checked_are_those_that_the_naive_evaluator_knows() {
    for place in PLACES {
        assert!(NodePath::parse(place).is_ok() && naive::lineage(place).is_ok());
    }
}
