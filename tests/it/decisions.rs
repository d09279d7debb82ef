//! The compiled policy decides as the naive evaluator does, for random policies and addresses.
//!
//! Invariant: the policy under test is built by planning and applying mutations one by one, and its snapshot is both
//! advanced along with them and compiled at the end: all three must agree.
//! Not here: the way over gRPC.

use std::collections::BTreeMap;

use portcullis::policy::address::Address;
use portcullis::policy::change::Effect;
use portcullis::policy::decision::{Level, Verdict};
use portcullis::policy::limits::Limits;
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{Id, NodeKey, NodePath};
use portcullis::policy::node::{Access, AccessEntry, NodePatch};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::plan::{Etags, Mutation, Planner};
use portcullis::policy::rule::{Action, ConnectionType, RulePatch, Source};
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot, unknown_organization};
use portcullis::policy::time::Timestamp;
use proptest::prelude::*;

use crate::campaign::rounds;
use crate::naive;
use crate::strategies::{Probe, policy, probes};

/// One organization under construction.
pub(crate) struct Built {
    pub(crate) organization: Organization,
    advanced: Snapshot,
    pub(crate) compiled: Snapshot,
}

fn source(source: &naive::Source) -> Source {
    match source {
        naive::Source::Range(text) => Source::Range(text.parse().unwrap()),
        naive::Source::Group(id) => Source::Group(Id::parse(id).unwrap()),
    }
}

pub(crate) fn access(access: &naive::Access) -> Access {
    match access {
        naive::Access::Inherit => Access::Inherit,
        naive::Access::AllowAll => Access::AllowAll,
        naive::Access::AllowList(sources) => Access::AllowList(
            sources.iter().map(|entry| AccessEntry { source: source(entry), description: "".into() }).collect(),
        ),
    }
}

pub(crate) fn connection_type(connection_type: naive::ConnectionType) -> ConnectionType {
    match connection_type {
        naive::ConnectionType::Shell => ConnectionType::Shell,
        naive::ConnectionType::Preview => ConnectionType::Preview,
    }
}

fn access_patch(setting: &naive::Access) -> NodePatch {
    NodePatch { access: Some(access(setting)), ..NodePatch::default() }
}

/// The mutations that make the model's organization, in an order that recompiles what exists already: rules and nodes
/// first stand on empty groups, which are filled last.
fn mutations(model: &naive::Organization) -> Vec<Mutation> {
    let mut mutations = Vec::new();
    for id in model.groups.keys() {
        let id = Id::parse(id).unwrap();
        mutations.push(Mutation::CreateGroup {
            id: Some(id),
            description: "".into(),
            ranges: std::iter::empty().collect(),
        });
    }
    for rule in &model.rules {
        let patch = RulePatch {
            action: Some(match rule.action {
                naive::Action::Allow => Action::Allow,
                naive::Action::Deny => Action::Deny,
            }),
            source: Some(source(&rule.source)),
            connection_types: Some(rule.connection_types.iter().copied().map(connection_type).collect()),
            description: None,
            disabled: Some(rule.disabled),
            expire_time: Some(rule.expire_time_ms.map(Timestamp::from_millis)),
            expired: false,
        };
        mutations.push(Mutation::CreateRule { id: Some(Id::parse(&rule.id).unwrap()), position: Some(1), patch });
    }
    let order = model.rules.iter().map(|rule| Some(Id::parse(&rule.id).unwrap())).collect();
    mutations.push(Mutation::ReorderRules { order, etag: None });
    for (name, setting) in &model.nodes {
        let key = NodeKey::of(&NodePath::parse(name).unwrap()).unwrap();
        mutations.push(Mutation::CreateNode { key, patch: access_patch(setting) });
    }
    let patch = NodePatch { require_projects: Some(model.require_projects), ..access_patch(&model.access) };
    mutations.push(Mutation::UpdateNode { key: None, etag: None, patch });
    for (id, ranges) in &model.groups {
        let ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
        mutations.push(Mutation::AddRanges { id: Id::parse(id).unwrap(), ranges });
    }
    mutations
}

pub(crate) fn build(id: &str, model: &naive::Organization) -> Built {
    let (limits, now) = (Limits::default(), Timestamp::from_millis(0));
    let cluster = Cluster::new(now);
    let planner = Planner { now, limits: &limits, cluster: &cluster, etags: Etags::of_lineage(0) };
    let created =
        planner.create_organization(Id::parse(id).unwrap(), &NodePatch::default(), false, 0, 0, vec![]).unwrap();
    let Effect::CreateOrganization { id, revision, node } = created else { panic!("not a creation") };
    let mut organization = Organization::new(id, revision, node);
    let mut lists = MembersCache::default();
    let mut advanced = Snapshot::compile(&organization, &mut lists);
    for mutation in mutations(model) {
        let deltas = planner.plan(&organization, mutation, vec![]).unwrap();
        if deltas.is_empty() {
            continue;
        }
        organization.apply(organization.revision + 1, now, &deltas);
        advanced = advanced.advance(&organization, &deltas, &mut lists);
    }
    let compiled = Snapshot::compile(&organization, &mut MembersCache::default());
    Built { organization, advanced, compiled }
}

fn answer(verdict: &Verdict<'_>, probe: &Probe) -> (bool, String, &'static str, Option<String>, Option<String>) {
    let path = NodePath::parse(&probe.endpoint).unwrap();
    let rule = verdict.rule.map(|(_, rule)| format!("organizations/{}/rules/{}", path.organization, rule.id));
    let node = verdict.level.map(|level| match level {
        Level::Cluster => "cluster".to_owned(),
        Level::Organization => path.ancestor(0).to_owned(),
        Level::Project => path.ancestor(1).to_owned(),
        Level::Workspace => path.ancestor(2).to_owned(),
        Level::Endpoint => path.ancestor(3).to_owned(),
    });
    let reason = format!("{:?}", verdict.reason);
    let allow = verdict.decision() == portcullis::policy::decision::Decision::Allow;
    (allow, reason, verdict.reason.message(), rule, node)
}

fn compare(model: &naive::Policy) -> Result<(), TestCaseError> {
    let mut cluster = Cluster::new(Timestamp::default());
    let mut node = (*cluster.node).clone();
    node.access = access(&model.cluster);
    cluster.node = std::sync::Arc::new(node);
    let cluster = ClusterSnapshot::compile(&cluster);
    let built: BTreeMap<&str, Built> =
        model.organizations.iter().map(|(id, model)| (id.as_str(), build(id, model))).collect();
    for probe in probes(model).sweep() {
        let expected = naive::decide(model, probe.address, probe.connection_type, &probe.endpoint, probe.now_ms);
        let expected =
            (expected.allow, format!("{:?}", expected.reason), expected.message, expected.rule, expected.node);
        let path = NodePath::parse(&probe.endpoint).unwrap();
        let address: Address = probe.ip.parse().unwrap();
        let now = Timestamp::from_millis(probe.now_ms);
        let Some(built) = built.get(path.organization) else {
            prop_assert_eq!(&answer(&unknown_organization(), &probe), &expected, "{:?}", &probe);
            continue;
        };
        for (way, snapshot) in [("advanced", &built.advanced), ("compiled", &built.compiled)] {
            let verdict = snapshot.decide(&cluster, address, connection_type(probe.connection_type), &path, now);
            prop_assert_eq!(&answer(&verdict, &probe), &expected, "{} {:?} {:?}", way, &probe, &built.organization);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(100, 300), max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    /// Hundreds of policies with some hundreds of questions each.
    #[test]
    fn compiled_and_advanced_policies_decide_as_the_naive_evaluator(model in policy()) {
        compare(&model)?;
    }
}

fn organization(rules: Vec<naive::Rule>, groups: BTreeMap<String, Vec<String>>) -> naive::Policy {
    let organization = naive::Organization {
        revision: 1,
        require_projects: false,
        access: naive::Access::AllowAll,
        rules,
        groups,
        nodes: BTreeMap::new(),
    };
    naive::Policy {
        cluster: naive::Access::AllowAll,
        cluster_revision: 1,
        organizations: [("default".to_owned(), organization)].into(),
    }
}

/// Rules that expire one after the other, so many over the same addresses that chains do not remember them all: by
/// ranges of their own, by one range, and by a group.
#[test]
fn hundreds_of_rules_that_expire_one_after_the_other_decide_as_the_naive_evaluator() {
    let sources = ["any", "10.0.0.0/8", "0.0.0.0/0", "10.1.0.0/16", "::/0"];
    let rule = |number: usize| {
        let source = match number % 3 {
            0 => naive::Source::Group("offices".to_owned()),
            1 => naive::Source::Range("10.0.0.0/8".to_owned()),
            _ => naive::Source::Range(sources[number / 3 % sources.len()].to_owned()),
        };
        naive::Rule {
            id: format!("r{number}"),
            action: if number.is_multiple_of(2) { naive::Action::Allow } else { naive::Action::Deny },
            source,
            connection_types: if number.is_multiple_of(7) { vec![naive::ConnectionType::Shell] } else { Vec::new() },
            disabled: number.is_multiple_of(11),
            expire_time_ms: (number % 97 != 96).then_some(1_000 + i64::try_from(number).unwrap()),
        }
    };
    let groups = [("offices".to_owned(), vec!["10.0.0.0/9".to_owned(), "2001:db8::/32".to_owned()])].into();
    let model = organization((0..200).map(rule).collect(), groups);
    let built = build("default", &model.organizations["default"]);
    let cluster = ClusterSnapshot::compile(&Cluster::new(Timestamp::default()));
    let path = NodePath::parse("organizations/default").unwrap();
    for now_ms in (990..1_210).chain([i64::MAX / 2_000_000]) {
        let now = Timestamp::from_millis(now_ms);
        for kind in naive::ConnectionType::ALL {
            let allowed = built.compiled.firewall().allowed(connection_type(kind), now);
            for ip in ["10.0.0.1", "10.1.2.3", "10.200.0.1", "192.0.2.1", "2001:db8::1", "2001:db9::1"] {
                let address: Address = ip.parse().unwrap();
                let expected = naive::decide(&model, naive::parse_address(ip).unwrap(), kind, path.text, now_ms);
                let verdict = built.compiled.decide(&cluster, address, connection_type(kind), &path, now);
                let rule = verdict.rule.map(|(_, rule)| format!("organizations/default/rules/{}", rule.id));
                assert_eq!(rule, expected.rule, "{ip} at {now_ms}");
                assert_eq!(allowed.contains(address), expected.allow, "{ip} at {now_ms}");
            }
        }
    }
}

/// Lists that share a group which is too large to be copied into each of them.
#[test]
fn lists_that_share_a_large_group_decide_as_the_naive_evaluator() {
    let group: Vec<String> = (0..5_000).map(|number| format!("10.{}.{}.0/25", number / 256, number % 256)).collect();
    let mut model = organization(Vec::new(), [("offices".to_owned(), group)].into());
    let nodes = (0..20).map(|number| {
        let own = naive::Source::Range(format!("192.0.2.{number}"));
        let list = naive::Access::AllowList(vec![naive::Source::Group("offices".to_owned()), own]);
        (format!("organizations/default/projects/p{number}"), list)
    });
    model.organizations.get_mut("default").unwrap().nodes = nodes.collect();
    let built = build("default", &model.organizations["default"]);
    let cluster = ClusterSnapshot::compile(&Cluster::new(Timestamp::default()));
    for project in 0..20 {
        let name = format!("organizations/default/projects/p{project}");
        let path = NodePath::parse(&name).unwrap();
        for ip in ["10.3.7.1", "10.3.7.128", "10.19.135.127", "10.19.136.0", "192.0.2.7", "192.0.2.19"] {
            let kind = naive::ConnectionType::Shell;
            let expected = naive::decide(&model, naive::parse_address(ip).unwrap(), kind, &name, 0);
            for snapshot in [&built.advanced, &built.compiled] {
                let address = ip.parse().unwrap();
                let verdict = snapshot.decide(&cluster, address, ConnectionType::Shell, &path, Timestamp::default());
                let allow = verdict.decision() == portcullis::policy::decision::Decision::Allow;
                assert_eq!(allow, expected.allow, "{ip} {name}");
            }
        }
    }
}
