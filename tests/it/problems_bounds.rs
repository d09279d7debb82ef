//! Problems of policies in which thousands of rules expire one after the other: found in a bounded number of steps, and
//! those that are not found are left out.
//!
//! Invariant: steps are counted, not time. What is listed of a policy that is too large is compared with what was made.
//! Not here: that problems are exact (`problems`).

use std::sync::Arc;

use portcullis::policy::members::MembersCache;
use portcullis::policy::node::{Access, Node};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::problems::{self, Code, Found, Resource};
use portcullis::policy::rule::{Action, Rule, Source};
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::time::Timestamp;

use crate::problems::{NOW, examined, id};

const RULES: u32 = 10_000;

fn single(number: u32) -> String {
    // Not adjacent, so that between two of them only the other rules match.
    format!("10.{}.{}.{}", number / 32_768, number / 128 % 256, number % 128 * 2)
}

/// The problems of a policy of rules with these ranges and, in seconds from now, expire times.
fn found(rule: impl Fn(u32) -> (String, Action, Option<u32>)) -> Found {
    let now = Timestamp::from_millis(NOW);
    let mut organization = Organization::new(id("default"), 1, Node::new(Access::AllowAll, now, 1));
    let rule = |number: u32| {
        let (range, action, expires) = rule(number);
        Arc::new(Rule {
            id: id(&format!("r{number}")),
            action,
            source: Source::Range(range.parse().unwrap()),
            connection_types: std::iter::empty().collect(),
            description: "".into(),
            disabled: false,
            expire_time: expires.map(|expires| Timestamp::from_millis(NOW + 1_000 * i64::from(expires))),
            create_time: now,
            update_time: now,
            changed_at: 1,
            expired: false,
        })
    };
    organization.rules = Arc::new((0..RULES).map(rule).collect());
    let snapshot = Snapshot::compile(&organization, &mut MembersCache::default());
    let cluster = Cluster::new(now);
    let of_cluster = ClusterSnapshot::compile(&cluster);
    problems::of_organization(&examined(&organization, &snapshot, &cluster, &of_cluster))
}

fn count(found: &Found, code: Code) -> usize {
    found.problems.iter().filter(|problem| problem.code == code).count()
}

fn action(number: u32) -> Action {
    if (number / 2).is_multiple_of(2) { Action::Deny } else { Action::Allow }
}

#[test]
fn rules_that_end_one_after_the_other_take_a_few_steps_each() {
    for mixed in [true, false] {
        let found = found(|number| {
            let is_single = if mixed { number.is_multiple_of(2) } else { number < RULES / 2 };
            (if is_single { single(number) } else { "any".to_owned() }, action(number), Some(number + 1))
        });
        assert!(found.steps < 40 * u64::from(RULES), "{} steps", found.steps);
        assert_eq!(count(&found, Code::ShadowedRule), 0, "each ends later than all before it");
    }
}

/// Each of the addresses hides thousands of rules and uncovers them again.
#[test]
fn what_takes_too_many_steps_is_left_out_and_nothing_else_is_said() {
    let half = RULES / 2;
    let found = found(|number| match number {
        number if number < half => (single(number), Action::Allow, None),
        // One more after the last never wins.
        number if number == RULES - 1 => ("any".to_owned(), Action::Deny, Some(1)),
        number => ("any".to_owned(), action(number), Some(number)),
    });
    assert!(found.incomplete);
    assert!(found.steps < 2 * (500_000 + 16 * 2 * u64::from(RULES)), "{} steps", found.steps);
    // Whether a rule never wins is found out all the same, and why.
    let shadowed: Vec<_> = found.problems.iter().filter(|problem| problem.code == Code::ShadowedRule).collect();
    assert_eq!(shadowed.len(), 1, "{shadowed:?}");
    assert_eq!(shadowed[0].resource, Resource::Rule(id(&format!("r{}", RULES - 1))));
    // Rules for all addresses are not fully known, so nothing is said of them.
    for problem in &found.problems {
        let rule = match &problem.resource {
            Resource::Rule(id) => id.as_str().trim_start_matches('r').parse::<u32>().unwrap(),
            Resource::Organization => continue,
            other => panic!("{other:?}"),
        };
        assert!(rule < half || rule == RULES - 1, "{problem:?}");
        assert_ne!(problem.code, Code::PartlyShadowedRule, "{problem:?}");
    }
}
