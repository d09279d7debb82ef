//! Which policy tests a change breaks, and which fail.
//!
//! Invariant: a test is broken at the first moment at which it fails with the change, and did not without it.
//! Not here: what refuses a change (`judging`, `engine`), how a broken test is told (`broken_test`).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::address::Address;
use super::broken_test::BrokenTest;
use super::decision::Decision;
use super::forecast::{Budget, Comparison, Event, TooCostly};
use super::name::Id;
use super::policy_test::PolicyTest;
use super::rule::ConnectionType;
use super::time::Timestamp;
use super::timeline::Moment;
use super::version::Version;

/// The tests that a change breaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// Those that fail first before the others.
    pub tests: Vec<BrokenTest>,
    /// Tests of which it takes too long to find out.
    pub unknown: Vec<Id>,
}

/// The tests that a change breaks. Those of the version before are judged too, also where the change removes them. A test
/// that was going to fail at that moment is not broken; one that is new, and fails at any moment, is.
pub fn broken_tests(
    before: Option<&Version<'_>>,
    after: Option<&Version<'_>>,
    now: Timestamp,
    budget: &Budget,
) -> Broken {
    let tests = |version: Option<&Version<'_>>| version.map(|version| Arc::clone(&version.organization.tests));
    let (old, new) = (tests(before).unwrap_or_default(), tests(after).unwrap_or_default());
    let was: HashSet<_> = old.iter().map(PolicyTest::assertion).collect();
    let is: HashSet<_> = new.iter().map(PolicyTest::assertion).collect();
    let removed = old.iter().filter(|test| !is.contains(&test.assertion()));
    let tests: Vec<&PolicyTest> = new.iter().chain(removed).collect();
    let addresses = tests.iter().map(|test| test.address).collect();
    let comparison = Comparison::of_versions(before, after, addresses, now);
    let (mut broken, mut unknown) = (BTreeMap::new(), BTreeSet::new());
    for test in tests {
        let event = test.breaking(before, after, was.contains(&test.assertion())).filter(|_| test.is_on(now));
        let first = match event {
            None => continue,
            Some(None) => Ok(Some(Moment::Now)),
            Some(Some(event)) => comparison.first(event, test.address, test.connection_type, budget),
        };
        match first.map(|first| first.filter(|first| test.holds_at(*first))) {
            Ok(None) => {}
            // A test that the change rewrites can break as it was and as it is.
            Ok(Some(from)) => match broken.entry(&test.id) {
                Entry::Vacant(entry) => drop(entry.insert((from, test))),
                Entry::Occupied(mut entry) if from < entry.get().0 => drop(entry.insert((from, test))),
                Entry::Occupied(_) => {}
            },
            Err(TooCostly) => {
                unknown.insert(test.id.clone());
            }
        }
    }
    let told =
        |(from, test): (Moment, &PolicyTest)| BrokenTest::new(test, !was.contains(&test.assertion()), from, after, now);
    let mut tests: Vec<BrokenTest> = broken.into_values().map(told).collect();
    tests.sort_by_key(|test| test.from);
    Broken { tests, unknown: unknown.into_iter().collect() }
}

/// When each of these tests fails first, from `now` on.
pub fn failures(
    tests: &[&PolicyTest],
    version: &Version<'_>,
    now: Timestamp,
) -> Vec<Result<Option<Moment>, TooCostly>> {
    let comparison = Comparison::of_versions(None, Some(version), tests.iter().map(|test| test.address).collect(), now);
    let budget = Budget::default();
    let first = |test: &&PolicyTest| {
        let event = test.breaking(None, Some(version), false).filter(|_| test.is_on(now));
        let first = match event {
            None => None,
            Some(None) => Some(Moment::Now),
            Some(Some(event)) => comparison.first(event, test.address, test.connection_type, &budget)?,
        };
        Ok(first.filter(|first| test.holds_at(*first)))
    };
    tests.iter().map(first).collect()
}

impl PolicyTest {
    /// What a test says, whatever its id and description are.
    fn assertion(&self) -> (Address, ConnectionType, &str, bool, Option<Timestamp>) {
        let Self { id: _, address, connection_type, endpoint, expected, description: _, end_time } = self;
        (*address, *connection_type, endpoint, *expected == Decision::Allow, *end_time)
    }

    /// What a version of the policy decides about the test's connection.
    pub fn actual(&self, version: &Version<'_>, now: Timestamp) -> Decision {
        version.decision(self.address, self.connection_type, &self.endpoint, now)
    }

    /// Whether it says something about a moment from `now` on.
    pub fn is_on(&self, now: Timestamp) -> bool {
        self.end_time.is_none_or(|end| now < end)
    }

    /// Whether it says something about a moment.
    fn holds_at(&self, moment: Moment) -> bool {
        self.end_time.is_none_or(|end| moment < Moment::At(end))
    }

    /// What the firewalls have to decide for the test to be broken: none where it is not, whatever they decide, and none
    /// inside where it always is. `was` says whether the version before had the test.
    #[expect(clippy::option_option, reason = "three cases, each told to one place")]
    fn breaking(&self, before: Option<&Version<'_>>, after: Option<&Version<'_>>, was: bool) -> Option<Option<Event>> {
        let permits = |version: &Version<'_>| version.permits_beside_firewall(self.address, &self.endpoint);
        let (before, after) = (before.is_some_and(permits), after.is_some_and(permits));
        match (self.expected, was) {
            (Decision::Allow, true) => before.then_some(Some(if after { Event::Lost } else { Event::AllowedBefore })),
            (Decision::Allow, false) => Some(after.then_some(Event::DeniedAfter)),
            (Decision::Deny, true) => after.then_some(Some(if before { Event::Gained } else { Event::AllowedAfter })),
            (Decision::Deny, false) => after.then_some(Some(Event::AllowedAfter)),
        }
    }
}
