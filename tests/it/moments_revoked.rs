//! The sessions that a change revokes, now and later, and the gate that bounds them: equal to what enumerating every
//! session and every moment finds.
//!
//! Invariant: there is a session for each address, place and connection type of the universe, so none is overlooked.
//! Not here: what a connection loses (`moments_judged`), the same through the API (`moments_api`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis::engine::prospect::GateOptions;
use portcullis::engine::sessions::{AdmissionKey, SessionOptions, SessionTable};
use portcullis::policy::forecast::Budget;
use portcullis::policy::gates::Gates;
use portcullis::policy::judging::Refusal;
use portcullis::policy::name::Id;
use portcullis::policy::organization::Cluster;
use portcullis::policy::rule::ConnectionType;
use portcullis::policy::timeline::Moment;
use portcullis::store::journal::MemoryJournal;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::campaign::rounds;
use crate::clock::Hand;
use crate::engine::open;
use crate::moments::{NOW, Oracle, PLACES, POINTS, World, change_of_rules, change_of_the_rest, moments, point, time};

/// A session for each address, place and connection type.
fn all_sessions() -> SessionTable {
    let table = SessionTable::new(1, &SessionOptions::default());
    let organization = Id::parse("default").unwrap();
    for at in 0..POINTS {
        for endpoint in PLACES {
            for connection_type in ConnectionType::ALL {
                let (email, address) = ("ada@example.com", point(at));
                let key = AdmissionKey { organization: &organization, endpoint, connection_type, email, address };
                table.admit(&key, |_| (), |admission| admission.allow(time(NOW), None, 1, None)).unwrap();
            }
        }
    }
    table
}

/// How many sessions are denied first at each moment, of those that would be allowed then without the change.
fn enumerated(before: &World, after: &World) -> BTreeMap<i64, u64> {
    let (was, is) = (Oracle::new(before), Oracle::new(after));
    let mut first = BTreeMap::new();
    for place in PLACES {
        for of in ConnectionType::ALL {
            let mut seen = 0;
            for at in moments([before, after]) {
                let lost = was.permitted(place, of, at) & !is.permitted(place, of, at) & !seen;
                seen |= lost;
                *first.entry(at).or_default() += u64::from(lost.count_ones());
            }
        }
    }
    first.retain(|_, count| *count > 0);
    first
}

#[test]
fn a_change_revokes_the_sessions_that_enumerating_them_at_every_moment_finds() {
    let hand = Hand::at(Duration::from_millis(NOW.unsigned_abs()));
    let (engine, sessions) = (open(MemoryJournal::new(), &hand), all_sessions());
    let cases = rounds(10_000, 100_000);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let changes = prop_oneof![2 => change_of_rules(), 1 => change_of_the_rest()];
    let judge = |(mut before, mut after): (World, World), max: u64| {
        let (Some(old), Some(new)) = (before.organization.clone(), after.organization.clone()) else { return };
        // The engine's own cluster permits everything.
        for world in [&mut before, &mut after] {
            world.cluster = Cluster::new(time(0));
        }
        let expected = enumerated(&before, &after);
        let prospect = engine.compare(&old.id.clone(), &Arc::new(old), &Arc::new(new));
        let revoked = prospect.revoked(&sessions, 0, &Budget::default());
        let (all, now) = (expected.values().sum::<u64>(), expected.get(&NOW).copied().unwrap_or_default());
        assert_eq!((revoked.count(), revoked.later()), (all, all - now));
        let mut so_far = 0;
        let beyond = expected.iter().find_map(|(at, count)| {
            so_far += count;
            (so_far > max).then_some((if *at == NOW { Moment::Now } else { Moment::At(time(*at)) }, so_far))
        });
        let gates = Gates { max_revocations: Some(max), ..Gates::default() };
        let (refusals, _) = prospect.refusals(&GateOptions { gates, override_tests: false }, &sessions);
        let expected = beyond.map(|(from, by_then)| Refusal::TooManyRevocations { would_be: all, by_then, max, from });
        assert_eq!(refusals, Vec::from_iter(expected));
    };
    let run = TestRunner::new(config).run(&(changes, prop_oneof![Just(0), 1..60_u64]), |(change, max)| {
        judge(change, max);
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}
