//! Documents put in place of random policies: the sections that they have become theirs and the others stay, what is the
//! same is recognized without ids, and a deletion that widens is what enumerating every address finds.
//!
//! Invariant: that of `problems`, whose universe this is.
//! Not here: how documents are read (`policy_sections`), whole ones with ids (`impact`).

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis::policy::decision::Decision;
use portcullis::policy::document::Document;
use portcullis::policy::limits::Limits;
use portcullis::policy::name::{NodeKey, NodePath};
use portcullis::policy::node::{Access, Node, NodePatch};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::plan::{Etags, Mutation, PlanError, Planner};
use portcullis::policy::policy_test::PolicyTest;
use portcullis::policy::rule::{ConnectionType, Rule, RulePatch};
use portcullis::policy::time::Timestamp;
use proptest::prelude::*;

use crate::campaign::rounds;
use crate::problems::{NOW, Naive, and, and_not, id, is_empty, model, point};

fn key(name: &str) -> NodeKey {
    NodeKey::of(&NodePath::parse(&format!("organizations/default/{name}")).unwrap()).unwrap()
}

/// Tests of the organization; some look the same.
fn tests() -> impl Strategy<Value = Vec<PolicyTest>> {
    let test = (0..3_usize, any::<bool>()).prop_map(|(at, allow)| PolicyTest {
        id: id("x"),
        address: point(at),
        connection_type: ConnectionType::Shell,
        endpoint: "organizations/default".into(),
        expected: if allow { Decision::Allow } else { Decision::Deny },
        description: "".into(),
        end_time: None,
    });
    prop::collection::vec(test, 0..6).prop_map(|tests| {
        tests.into_iter().enumerate().map(|(at, test)| PolicyTest { id: id(&format!("t{at}")), ..test }).collect()
    })
}

/// A policy in which some nodes are missing.
fn policy() -> impl Strategy<Value = (Organization, Cluster)> {
    (model(), 0..3_usize, any::<bool>(), tests()).prop_map(|((mut organization, cluster), kept, required, tests)| {
        organization.node = Arc::new(Node { require_projects: required, ..(*organization.node).clone() });
        organization.tests = Arc::new(tests);
        for name in ["projects/p", "projects/p/workspaces/w"].iter().skip(kept) {
            organization.nodes.remove(&key(name));
        }
        (organization, cluster)
    })
}

fn planner<'a>(cluster: &'a Cluster, limits: &'a Limits) -> Planner<'a> {
    Planner { now: Timestamp::from_millis(NOW), limits, cluster, etags: Etags::of_lineage(0) }
}

fn without_ids(mut document: Document) -> Document {
    document.rules.iter_mut().flatten().for_each(|rule| rule.id = None);
    document.tests.iter_mut().flatten().for_each(|test| test.id = None);
    document
}

fn replacement(document: Document, force: bool) -> Mutation {
    Mutation::ReplacePolicy { document: Box::new(document), etag: None, goes_back: false, force }
}

/// The same with all rules marked that have expired, as planning marks those that a document brings.
pub(crate) fn marked(mut document: Document) -> Document {
    for rule in document.rules.iter_mut().flatten() {
        let has_expired = |time: Option<Timestamp>| time.is_some_and(|time| time <= Timestamp::from_millis(NOW));
        rule.patch.expired |= rule.patch.expire_time.is_some_and(has_expired);
    }
    document
}

/// Applying a policy without ids makes it, and applying it again changes nothing.
fn recognize(before: &(Organization, Cluster), after: &Organization) {
    let limits = Limits::default();
    let planner = planner(&before.1, &limits);
    let document = without_ids(Document::of(after));
    assert_eq!(
        planner.plan(&before.0, replacement(without_ids(Document::of(&before.0)), true), Vec::new()).unwrap(),
        []
    );
    let deltas = planner.plan(&before.0, replacement(document.clone(), true), Vec::new()).unwrap();
    let mut made = before.0.clone();
    made.apply(made.revision + 1, planner.now, &deltas);
    assert_eq!(planner.plan(&made, replacement(document.clone(), true), Vec::new()).unwrap(), []);
    assert_eq!(marked(without_ids(Document::of(&made))).rules, marked(document).rules);
    // As many rules are the ones that were there as can be.
    let settings = |organization: &Organization| {
        let mut counts = BTreeMap::<String, usize>::new();
        for rule in organization.rules.iter() {
            *counts.entry(format!("{:?}", RulePatch::of(rule))).or_default() += 1;
        }
        counts
    };
    let old = settings(&before.0);
    let possible: usize =
        settings(after).iter().map(|(rule, count)| (*count).min(old.get(rule).copied().unwrap_or(0))).sum();
    let is_kept = |rule: &&Arc<Rule>| before.0.rules.contains(rule);
    assert_eq!(made.rules.iter().filter(is_kept).count(), possible);
}

/// A document of some sections replaces those and leaves the others.
fn replace_sections(before: &(Organization, Cluster), after: &Organization, sections: [bool; 4]) {
    let limits = Limits::default();
    let [nodes, groups, rules, tests] = sections;
    let whole = Document::of(after);
    let document = Document {
        own: if nodes { whole.own } else { NodePatch::default() },
        nodes: whole.nodes.filter(|_| nodes),
        groups: whole.groups.filter(|_| groups),
        rules: whole.rules.filter(|_| rules),
        tests: whole.tests.filter(|_| tests),
    };
    let planned = planner(&before.1, &limits).plan(&before.0, replacement(document.clone(), true), Vec::new());
    if document.is_empty() {
        assert!(matches!(planned, Err(PlanError::Invalid(violations)) if violations[0].field == "policy"));
        return;
    }
    // Every model has the same groups, so nothing can name one that is missing.
    let mut made = before.0.clone();
    made.apply(made.revision + 1, Timestamp::from_millis(NOW), &planned.unwrap());
    let (made, old) = (marked(Document::of(&made)), marked(Document::of(&before.0)));
    let document = marked(document);
    assert_eq!((&made.own, &made.nodes), if nodes { (&document.own, &document.nodes) } else { (&old.own, &old.nodes) });
    assert_eq!(made.groups, if groups { document.groups } else { old.groups });
    assert_eq!(made.rules, if rules { document.rules } else { old.rules });
    assert_eq!(made.tests, if tests { document.tests } else { old.tests });
}

/// Without force, a policy is refused exactly where a node goes and some address gets in there that it kept out.
fn widen(before: &(Organization, Cluster), after: &Organization) {
    let limits = Limits::default();
    let (naive_before, naive_after) = (Naive::new(&before.0, &before.1), Naive::new(after, &before.1));
    let above = and(&naive_after.access(&after.node.access), &naive_after.access(&before.1.node.access));
    let mut expected = Vec::new();
    for name in ["projects/p", "projects/p/workspaces/w"] {
        let Some(node) = before.0.nodes.get(&key(name)) else { continue };
        if after.nodes.get(&key(name)).is_some() || node.access == Access::Inherit {
            continue;
        }
        // Only the project can be above, and it does not inherit.
        let permitted = match after.nodes.get(&key("projects/p")) {
            Some(project) => naive_after.access(&project.access),
            None if after.node.require_projects => continue,
            None => naive_after.access(&Access::AllowAll),
        };
        if !is_empty(&and_not(&and(&permitted, &above), &naive_before.access(&node.access))) {
            expected.push(format!("organizations/default/{name}"));
        }
    }
    match planner(&before.1, &limits).plan(&before.0, replacement(Document::of(after), false), Vec::new()) {
        Ok(_) => assert_eq!(expected, Vec::<String>::new()),
        Err(PlanError::WouldWidenAccess { nodes, count }) => assert_eq!((&nodes, count), (&expected, expected.len())),
        Err(other) => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(2_000, 20_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_document_becomes_the_policy_and_nothing_else_changes(
        before in policy(),
        other in policy(),
        sections in any::<[bool; 4]>(),
        shuffled in any::<prop::sample::Index>(),
    ) {
        let mut after = other.0;
        recognize(&before, &after);
        replace_sections(&before, &after, sections);
        widen(&before, &after);
        // Most of what is applied is what was there, moved and with something in between.
        let mut rules = (*before.0.rules).clone();
        rules.extend(after.rules.first().cloned());
        if !rules.is_empty() {
            let at = shuffled.index(rules.len());
            rules.rotate_left(at);
        }
        after.rules = Arc::new(rules);
        recognize(&before, &after);
    }
}
