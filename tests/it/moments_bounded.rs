//! Policies in which very many rules expire one after the other: what is judged in few steps, and what is refused because
//! nobody could say.
//!
//! Invariant: what is counted is steps, not time, so a slow machine passes too.
//! Not here: that judging is exact (`moments_judged`).

use std::cell::Cell;
use std::sync::Arc;

use portcullis::engine::sessions::{AdmissionKey, Scope, SessionOptions, SessionTable};
use portcullis::policy::address::Address;
use portcullis::policy::breakage::{Broken, broken_tests};
use portcullis::policy::decision::Decision;
use portcullis::policy::forecast::{Budget, Comparison, Event};
use portcullis::policy::gates::Gates;
use portcullis::policy::group::Group;
use portcullis::policy::judging::{Judged, Refusal};
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{Id, NodeKey, NodePath};
use portcullis::policy::node::{Access, Node};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::policy_test::PolicyTest;
use portcullis::policy::problems::{self, Code, Examined};
use portcullis::policy::rule::{Action, ConnectionType, Rule, Source};
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::time::Timestamp;
use portcullis::policy::timeline::Moment;
use portcullis::policy::version::Version;

use crate::problems::examined;

const RULES: u32 = 20_000;
const SHELL: ConnectionType = ConnectionType::Shell;

fn now() -> Timestamp {
    Timestamp::from_millis(1_000)
}

fn id(id: &str) -> Id {
    Id::parse(id).unwrap()
}

fn rule(number: u32, action: Action, source: Source, expires: Option<i64>) -> Arc<Rule> {
    Arc::new(Rule {
        id: id(&format!("r{number}")),
        action,
        source,
        connection_types: std::iter::empty().collect(),
        description: "".into(),
        disabled: false,
        expire_time: expires.map(Timestamp::from_millis),
        create_time: now(),
        update_time: now(),
        changed_at: 1,
        expired: false,
    })
}

fn range(text: &str) -> Source {
    Source::Range(text.parse().unwrap())
}

/// When the rule of a number expires.
fn end(number: u32) -> i64 {
    10_000 + i64::from(number)
}

/// The address that the narrow rule of a number is about.
fn narrow(number: u32) -> Address {
    Address::V4((10 << 24) + 7 * number)
}

/// Every second rule is about all addresses, the others about one each. All expire, one after the other.
fn nested(action: impl Fn(u32) -> Action) -> Organization {
    let mut organization = Organization::new(id("default"), 1, Node::new(Access::AllowAll, now(), 1));
    let rules = (0..RULES).map(|number| {
        let source = if number % 2 == 1 { range("any") } else { range(&narrow(number).to_string()) };
        rule(number, action(number), source, Some(end(number)))
    });
    organization.rules = Arc::new(rules.collect());
    organization
}

fn alternating(number: u32) -> Action {
    if (number / 2).is_multiple_of(2) { Action::Deny } else { Action::Allow }
}

/// The same with a rule that denies everybody at its end.
fn shut(organization: &Organization) -> Organization {
    let mut after = organization.clone();
    Arc::make_mut(&mut after.rules).push(rule(RULES, Action::Deny, range("any"), None));
    after
}

fn judged<T>(before: &Organization, after: &Organization, judge: impl FnOnce(&Version<'_>, &Version<'_>) -> T) -> T {
    let cluster = Cluster::new(now());
    let cluster_snapshot = ClusterSnapshot::compile(&cluster);
    let [old, new] = [before, after].map(|of| Snapshot::compile(of, &mut MembersCache::default()));
    let version = |organization, snapshot| Version {
        organization,
        snapshot,
        cluster: &cluster,
        cluster_snapshot: &cluster_snapshot,
    };
    judge(&version(before, &old), &version(after, &new))
}

#[test]
fn rules_that_all_deny_are_passed_in_few_steps_for_every_address() {
    let before = nested(|_| Action::Deny);
    judged(&before, &shut(&before), |before, after| {
        let firewalls = [before, after].map(|version| version.snapshot.firewall());
        let comparison = Comparison::new(Some(firewalls[0]), Some(firewalls[1]), None, now());
        // One address after the other, each of a class of its own: a walk over the rules would take 20,000,000 steps.
        let budget = Budget::new(100_000);
        for number in (0..RULES).step_by(20) {
            let lost = comparison.first(Event::Lost, narrow(number), SHELL, &budget);
            assert_eq!(lost, Ok(Some(Moment::At(Timestamp::from_millis(end(RULES - 1))))), "{number}");
        }
        let elsewhere = comparison.first(Event::Gained, "192.0.2.1".parse().unwrap(), SHELL, &budget);
        assert_eq!(elsewhere, Ok(None));
        // All addresses at all moments: none is cut.
        let allowed = firewalls[0].allowed_from(SHELL, now());
        assert_eq!(allowed.horizon(), None);
        let last = Moment::At(Timestamp::from_millis(end(RULES - 1)));
        assert_eq!(allowed.timeline(narrow(0)).first(), Some(last));
    });
}

#[test]
fn addresses_that_are_decided_alike_are_judged_once() {
    let before = nested(alternating);
    judged(&before, &shut(&before), |before, after| {
        let addresses: Vec<Address> = (0..1_000).map(|number| Address::V4((192 << 24) + number)).collect();
        let comparison = Comparison::of_versions(Some(before), Some(after), addresses.clone(), now());
        let budget = Budget::new(2 * u64::from(RULES) + 2);
        for address in addresses {
            let lost = comparison.first(Event::Lost, address, SHELL, &budget);
            assert_eq!(lost, Ok(Some(Moment::At(Timestamp::from_millis(end(RULES - 1))))));
        }
    });
}

#[test]
fn what_takes_too_many_steps_is_refused_with_what_to_do() {
    let before = nested(alternating);
    let test = |number: u32| PolicyTest {
        id: id(&format!("t{number}")),
        address: narrow(number),
        connection_type: SHELL,
        endpoint: "organizations/default".into(),
        expected: Decision::Allow,
        description: "".into(),
        end_time: None,
    };
    let before = Organization { tests: Arc::new(vec![test(2), test(4)]), ..before };
    judged(&before, &shut(&before), |before, after| {
        let (old, new) = (Some(before), Some(after));
        let gates = Gates { guard: vec![narrow(2)], ..Gates::default() };
        let refused = gates.refusals(&Gates::default(), old, new, now(), &Budget::new(1_000));
        assert_eq!(refused, [Refusal::CannotJudge { organization: id("default"), judged: Judged::Guards }]);
        let message = refused[0].to_string();
        assert!(message.contains("`organizations/default`") && message.contains("cannot be judged"), "{message}");
        assert!(message.contains("let fewer rules expire, or guard no address: clear `guard_ips`"), "{message}");
        assert!(matches!(
            &gates.refusals(&Gates::default(), old, new, now(), &Budget::default())[..],
            [Refusal::GuardViolated { .. }]
        ));
        let broken = broken_tests(old, new, now(), &Budget::new(1_000));
        assert_eq!(broken, Broken { tests: Vec::new(), unknown: vec![id("t2"), id("t4")] });
        let last = Moment::At(Timestamp::from_millis(end(RULES - 1)));
        let Broken { tests, unknown } = broken_tests(old, new, now(), &Budget::default());
        let tests: Vec<_> = tests.into_iter().map(|test| (test.id, test.from)).collect();
        assert_eq!((tests, unknown), (vec![(id("t2"), last), (id("t4"), last)], Vec::new()));
    });
    // A change of words alters no decision, so nothing has to be found out.
    let mut reworded = before.clone();
    let described = |rule: &Arc<Rule>| Arc::new(Rule { description: "another".into(), ..(**rule).clone() });
    reworded.rules = Arc::new(before.rules.iter().map(described).collect());
    judged(&before, &reworded, |before, after| {
        let broken = broken_tests(Some(before), Some(after), now(), &Budget::new(1));
        assert_eq!(broken, Broken::default());
    });
}

#[test]
fn many_rules_for_each_of_many_ranges_are_not_judged_for_ever() {
    // In each range of the group, and between any two, there is an address with a rule of its own.
    let count = 5_000;
    let mut organization = Organization::new(id("default"), 1, Node::new(Access::AllowAll, now(), 1));
    let block = |number: u32| format!("{}/31", Address::V4((10 << 24) + 4 * number));
    let ranges = (0..count).map(|number| block(number).parse().unwrap()).collect();
    organization.groups.insert(id("large"), Arc::new(Group::new(id("large"), "".into(), ranges, now(), 1)));
    let narrow = |number: u32| range(&Address::V4((10 << 24) + 2 * number).to_string());
    let rules = (0..count).map(|number| {
        let source = Source::Group(id("large"));
        rule(number, Action::Deny, source, Some(end(number)))
    });
    let own = (count..3 * count).map(|number| rule(number, Action::Deny, narrow(number - count), Some(end(number))));
    organization.rules = Arc::new(rules.chain(own).collect());
    judged(&organization, &shut(&organization), |before, after| {
        let gates = Gates { refuse_open_to_internet: true, ..Gates::default() };
        let refused = gates.refusals(&Gates::default(), Some(after), Some(before), now(), &Budget::default());
        assert_eq!(refused, [Refusal::CannotJudge { organization: id("default"), judged: Judged::Openness }]);
    });
    // Nor are they said to have no problem: a test that fails now is named, and what else is wrong is not known.
    organization.tests = Arc::new(vec![PolicyTest {
        id: id("fails"),
        address: Address::V4(10 << 24),
        connection_type: SHELL,
        endpoint: "organizations/default".into(),
        expected: Decision::Allow,
        description: "".into(),
        end_time: None,
    }]);
    let snapshot = Snapshot::compile(&organization, &mut MembersCache::default());
    let (cluster, cluster_snapshot) = (Cluster::new(now()), ClusterSnapshot::compile(&Cluster::new(now())));
    let examined = Examined { now: now(), ..examined(&organization, &snapshot, &cluster, &cluster_snapshot) };
    let found = problems::of_organization(&examined);
    let failing: Vec<_> = found.problems.iter().filter(|problem| problem.code == Code::FailingTest).collect();
    assert!(found.incomplete && failing.len() == 1 && failing[0].from.is_none(), "{failing:?}");
    assert!(
        problems::of_node(
            &examined,
            &NodeKey::of(&NodePath::parse("organizations/default/projects/web").unwrap()).unwrap()
        )
        .incomplete
    );
    assert!(!Code::FailingTest.is_always_found() && !Code::OpenToInternet.is_always_found());
}

#[test]
fn refusals_count_exactly() {
    let at = |seconds: i64| Moment::At(Timestamp::from_millis(1_000 * seconds));
    let revoked = |would_be, by_then, from| {
        Refusal::TooManyRevocations { would_be, by_then, max: 1, from }.to_string().replace("1970-01-01T", "")
    };
    assert!(revoked(2, 2, Moment::Now).contains("would revoke 2 sessions, and at most 1 may be"));
    assert!(revoked(2, 2, at(5)).contains("would revoke 2 sessions by 00:00:05Z, and at most 1 may be"));
    assert!(revoked(9, 2, at(5)).contains("would revoke 2 sessions by 00:00:05Z and 9 in all, and at most 1 may be"));
    assert!(revoked(9, 2, Moment::Now).contains("would revoke 2 sessions at once and 9 in all, and"));
}

#[test]
fn no_shard_is_locked_while_its_sessions_are_judged() {
    let table = SessionTable::new(1, &SessionOptions::default());
    let (organization, endpoint) = (id("default"), "organizations/default".to_owned());
    for number in 0..100 {
        let email = format!("user-{number}@example.com");
        let key = AdmissionKey {
            organization: &organization,
            endpoint: &endpoint,
            connection_type: SHELL,
            email: &email,
            address: narrow(number),
        };
        table.admit(&key, |_| (), |admission| admission.allow(now(), None, 1, None)).unwrap();
    }
    let inner = Cell::new(0);
    let (count, listed) = table.find(
        &Scope::All,
        |_| {
            // Waits for the lock of every shard.
            inner.set(table.find(&Scope::All, |_| true, 0).0);
            true
        },
        7,
    );
    assert_eq!((count, listed.len(), inner.get()), (100, 7, 100));
}
