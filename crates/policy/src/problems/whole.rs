//! The problems of a policy as a whole: who is locked out, who gets in, and which of its own demands it does not meet.
//!
//! Invariant: what is locked out or fails is decided as a Check would be, at every moment from the given one on.
//! Not here: single rules (`rules`) and nodes (`nodes`).

use std::collections::BTreeMap;

use super::examined::{Examined, LevelSets};
use super::problem::{Code, Problem, Resource};
use crate::address::Range;
use crate::breakage::failures;
use crate::forecast::TooCostly;
use crate::name::Name;
use crate::node::Access;
use crate::policy_test::PolicyTest;
use crate::ranges::RangeSet;
use crate::rule::{Action, ConnectionType, Source};
use crate::timeline::{Moment, Timeline};

/// One problem for each moment at which something begins, with the connection types for which it begins then.
pub(super) fn by_moment(
    problem: &Problem,
    timelines: impl IntoIterator<Item = (ConnectionType, Timeline)>,
) -> Vec<Problem> {
    let mut moments: BTreeMap<Moment, Vec<ConnectionType>> = BTreeMap::new();
    for (connection_type, timeline) in timelines {
        if let Some(first) = timeline.first() {
            moments.entry(first).or_default().push(connection_type);
        }
    }
    let at = |(from, connection_types): (Moment, _)| Problem { connection_types, from: from.time(), ..problem.clone() };
    moments.into_iter().map(at).collect()
}

/// The connection types for which cluster, firewall and organization together permit nobody at some moment.
pub(super) fn locks(levels: &LevelSets) -> Vec<Problem> {
    let nobody = levels.permitted_from.iter().map(|permitted| permitted.somebody().negated());
    by_moment(
        &Problem::new(Code::LocksEveryoneOut, Resource::Organization),
        ConnectionType::ALL.into_iter().zip(nobody),
    )
}

/// The connection types for which every address of a family gets into the organization itself, and so into every project
/// that inherits its access, registered or not.
///
/// An organization without any restriction is open, and meant to be: each is when it is made. So what is open now is a
/// problem only where a fact of the policy says that it is not meant; what becomes open later always is.
pub(super) fn opened(examined: &Examined<'_>, levels: &LevelSets) -> Vec<Problem> {
    let is_restricted = is_restricted(examined);
    let opened = levels.opened([true, true]);
    let unregistered = !examined.organization.node.require_projects;
    by_moment(
        &Problem { unregistered, ..Problem::new(Code::OpenToInternet, Resource::Organization) },
        opened.filter(|(_, open)| is_restricted || !open.holds_at(Moment::Now)),
    )
}

/// Whether an organization is meant to be closed to most addresses: it has an allowlist, a gate of the organization or the
/// cluster refuses changes that open it, or a rule, in force or not any more, denies all of a family. A rule that denies
/// single addresses says nothing of the others.
fn is_restricted(examined: &Examined<'_>) -> bool {
    let Examined { organization, cluster, .. } = examined;
    let denies_family = || {
        let denying = organization.rules.iter().filter(|rule| rule.action == Action::Deny);
        denying.map(|rule| &rule.source).any(|source| match source {
            Source::Range(range) => is_whole_family(*range),
            Source::Group(id) => organization.groups.get(id.as_str()).is_some_and(|group| {
                let (full, set) = (RangeSet::full(), group.set());
                full.v4.is_subset(&set.v4) || full.v6.is_subset(&set.v6)
            }),
        })
    };
    matches!(organization.node.access, Access::AllowList(_))
        || organization.node.gates.and(&cluster.node.gates).refuse_open_to_internet
        || denies_family()
}

pub(super) fn is_whole_family(range: Range) -> bool {
    match range {
        Range::Any => true,
        Range::V4(block) => block.prefix_length() == 0,
        Range::V6(block) => block.prefix_length() == 0,
    }
}

/// The guarded addresses that will lose a connection that they are allowed now.
///
/// Time alters only what the firewall allows. So an address loses something at a node exactly where it loses it at the
/// organization itself, whose access no node widens.
pub(super) fn guarded(examined: &Examined<'_>) -> Vec<Problem> {
    let Examined { organization, cluster, now, .. } = examined;
    let version = examined.version();
    let target = Name::organization(&organization.id).to_string();
    let gates = organization.node.gates.and(&cluster.node.gates);
    let of_address = |address| {
        let allowed = ConnectionType::ALL.map(|of| (of, version.allowed(address, of, &target, *now)));
        let now = allowed.into_iter().filter(|(_, allowed)| allowed.holds_at(Moment::Now));
        let problem = Problem::new(Code::GuardedAddressLockedOut, Resource::Organization);
        by_moment(
            &Problem { ranges: [Range::from(address)].into(), ..problem },
            now.map(|(of, allowed)| (of, allowed.negated())),
        )
    };
    gates.guard.iter().copied().flat_map(of_address).collect()
}

/// The policy tests that fail, now or later; and whether it takes too long to find out for some when they fail later.
pub(super) fn tests(examined: &Examined<'_>) -> (Vec<Problem>, bool) {
    let version = examined.version();
    let tests: Vec<&PolicyTest> = examined.organization.tests.iter().collect();
    let failures = failures(&tests, &version, examined.now);
    let is_unknown = failures.iter().any(Result::is_err);
    let failing = tests.into_iter().zip(failures).filter_map(|(test, first)| {
        // What it decides now is always known.
        let fails = test.is_on(examined.now) && test.actual(&version, examined.now) != test.expected;
        let from = first.unwrap_or_else(|TooCostly| fails.then_some(Moment::Now))?.time();
        Some(Problem { from, ..Problem::new(Code::FailingTest, Resource::Test(test.id.clone())) })
    });
    (failing.collect(), is_unknown)
}
