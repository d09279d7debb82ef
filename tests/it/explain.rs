//! Explain: the trace of random policies agrees with the decision and with the naive evaluator, and over gRPC with
//! Check.
//!
//! Invariant: what a trace says of a rule or an entry is checked against the policy as it was written, not against the
//! code that made the trace.
//! Not here: whether decisions are right (`decisions`).

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis::policy::address::{Address, Range};
use portcullis::policy::decision::Reason;
use portcullis::policy::explain::{AccessTrace, Attempt, RuleOutcome, Trace, explain};
use portcullis::policy::name::NodePath;
use portcullis::policy::node::Access;
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::rule::Source;
use portcullis::policy::snapshot::ClusterSnapshot;
use portcullis::policy::time::Timestamp;
use portcullis::policy::version::Version;
use portcullis::proto::v1::analysis_service_client::AnalysisServiceClient;
use portcullis::proto::v1::{
    self, Action, ConnectionType, ExplainRequest, ExplainResponse, RuleOutcome as Outcome, TraceOutcome, TraceStage,
};
use proptest::prelude::*;
use tonic::Code;

use crate::decisions::{access, build, connection_type};
use crate::harness::{Service, allow_list, assert_error};
use crate::naive;
use crate::strategies::{policy, probes};

const DEFAULT: &str = "organizations/default";

/// The ranges of a source, as they were written.
fn ranges(organization: &Organization, source: &Source) -> Vec<Range> {
    match source {
        Source::Range(range) => vec![*range],
        Source::Group(id) => organization.groups.get(id.as_str()).map(|group| group.ranges().iter().collect()).unwrap(),
    }
}

fn is_same_family(range: Range, address: Address) -> bool {
    matches!((range, address), (Range::V4(_), Address::V4(_)) | (Range::V6(_), Address::V6(_)))
}

fn check_access(organization: &Organization, trace: &AccessTrace<'_>, address: Address) {
    let listed: Vec<Range> =
        trace.access.entries().iter().flat_map(|entry| ranges(organization, &entry.source)).collect();
    let containing: Vec<Range> = listed.iter().copied().filter(|range| range.contains(address)).collect();
    let allows_all = matches!(trace.access, Access::AllowAll);
    assert_eq!(trace.permitted, allows_all || !containing.is_empty(), "{trace:?}");
    assert_eq!(trace.matched.is_some(), !containing.is_empty(), "{trace:?}");
    if let Some(matched) = trace.matched {
        assert!(containing.contains(&matched.range), "{trace:?}");
        // None of the others lies within it.
        let inner = |range: &Range| match (*range, matched.range) {
            (Range::V4(range), Range::V4(matched)) => range.prefix_length() > matched.prefix_length(),
            (Range::V6(range), Range::V6(matched)) => range.prefix_length() > matched.prefix_length(),
            (range, Range::Any) => range != Range::Any,
            _ => false,
        };
        assert!(!containing.iter().any(inner), "{trace:?} {containing:?}");
    }
    let near: Vec<Range> = listed.iter().copied().filter(|range| is_same_family(*range, address)).collect();
    assert_eq!(trace.nearest.is_some(), !trace.permitted && !near.is_empty(), "{trace:?}");
    if let Some(nearest) = trace.nearest {
        let gap = |range: &Range| match (*range, address) {
            (Range::V4(block), Address::V4(word)) => {
                u128::from(word.abs_diff(block.first()).min(word.abs_diff(block.last())))
            }
            (Range::V6(block), Address::V6(word)) => word.abs_diff(block.first()).min(word.abs_diff(block.last())),
            _ => panic!("of another family"),
        };
        assert_eq!(Some(gap(&nearest.range)), near.iter().map(gap).min(), "{trace:?}");
    }
}

fn check_rules(organization: &Organization, trace: &Trace<'_>, question: &Attempt<'_>) {
    let Some(firewall) = &trace.firewall else { return };
    let mut expected = Vec::new();
    for (place, rule) in organization.rules.iter().enumerate() {
        if !ranges(organization, &rule.source).iter().any(|range| range.contains(question.address)) {
            continue;
        }
        let matched_before = expected.iter().any(|(_, outcome)| *outcome == RuleOutcome::Matched);
        let expired = rule.expire_time.is_some_and(|time| question.at >= time);
        let outcome = match (rule.disabled, expired, rule.connection_types.applies_to(question.connection_type)) {
            (true, ..) => RuleOutcome::Disabled,
            (_, true, _) => RuleOutcome::Expired,
            (_, _, false) => RuleOutcome::OtherConnectionType,
            _ if matched_before => RuleOutcome::NotReached,
            _ => RuleOutcome::Matched,
        };
        expected.push((place, outcome));
    }
    let found: Vec<(usize, RuleOutcome)> = firewall.rules.iter().map(|rule| (rule.index, rule.outcome)).collect();
    assert_eq!(found, expected);
    for rule in &firewall.rules {
        assert!(rule.listed.range.contains(question.address), "{rule:?}");
        assert!(ranges(organization, &rule.rule.source).contains(&rule.listed.range), "{rule:?}");
    }
    let tried = firewall.verdict.first_match.map_or(organization.rules.len(), |place| place + 1);
    assert_eq!(firewall.tried, tried);
}

/// The first step that refuses is the one that decided.
fn check_order(trace: &Trace<'_>) {
    let refuses = |trace: &Option<AccessTrace<'_>>| trace.as_ref().is_some_and(|trace| !trace.permitted);
    let denies = trace.firewall.as_ref().is_some_and(|firewall| firewall.verdict.reason == Reason::DenyRule);
    let allows = trace.firewall.as_ref().is_some_and(|firewall| firewall.verdict.reason == Reason::AllowRule);
    let expected = match () {
        () if !trace.known => Reason::UnknownEndpoint,
        () if refuses(&trace.cluster) => Reason::OutsideCluster,
        () if denies => Reason::DenyRule,
        () if refuses(&trace.organization) => Reason::OutsideOrganization,
        () if refuses(&trace.effective) => Reason::OutsideEndpoint,
        () if allows => Reason::AllowRule,
        () => Reason::DefaultAllow,
    };
    assert_eq!(trace.verdict.reason, expected);
}

fn compare(model: &naive::Policy) {
    let mut cluster = Cluster::new(Timestamp::default());
    let mut node = (*cluster.node).clone();
    node.access = access(&model.cluster);
    cluster.node = Arc::new(node);
    let cluster_snapshot = ClusterSnapshot::compile(&cluster);
    let built: BTreeMap<&str, _> =
        model.organizations.iter().map(|(id, model)| (id.as_str(), build(id, model))).collect();
    for probe in probes(model).sweep() {
        let target = NodePath::parse(&probe.endpoint).unwrap();
        let Some(built) = built.get(target.organization) else { continue };
        let (organization, snapshot) = (&built.organization, &built.compiled);
        let question = Attempt {
            address: probe.ip.parse().unwrap(),
            connection_type: connection_type(probe.connection_type),
            target,
            at: Timestamp::from_millis(probe.now_ms),
        };
        let policy = Version { organization, snapshot, cluster: &cluster, cluster_snapshot: &cluster_snapshot };
        let trace = explain(&policy, &question);
        let verdict =
            snapshot.decide(&cluster_snapshot, question.address, question.connection_type, &target, question.at);
        assert_eq!(
            (trace.verdict.reason, trace.verdict.rule, trace.verdict.first_match, trace.verdict.level),
            (verdict.reason, verdict.rule, verdict.first_match, verdict.level),
            "{probe:?}"
        );
        check_order(&trace);
        check_rules(organization, &trace, &question);
        for step in [&trace.cluster, &trace.organization, &trace.effective].into_iter().flatten() {
            check_access(organization, step, question.address);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    /// Each policy with some hundreds of questions.
    #[test]
    fn a_trace_says_how_the_decision_came_about(model in policy()) {
        compare(&model);
    }
}

async fn ask(service: &Service, ip: &str, endpoint: &str) -> ExplainResponse {
    let request = ExplainRequest {
        ip: ip.to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: endpoint.to_owned(),
        at_time: None,
    };
    let explained = AnalysisServiceClient::new(service.channel.clone()).explain(request).await.unwrap().into_inner();
    let answer = service.check(ip, endpoint).await;
    let said = (explained.decision(), explained.reason(), &explained.message, &explained.rule, &explained.node);
    assert_eq!(said, (answer.decision(), answer.reason(), &answer.message, &answer.rule, &answer.node));
    assert_eq!((explained.revision, explained.cluster_revision), (answer.revision, answer.cluster_revision));
    explained
}

fn outcomes(explained: &ExplainResponse) -> Vec<(TraceStage, TraceOutcome)> {
    explained.steps.iter().map(|step| (step.stage(), step.outcome())).collect()
}

#[tokio::test]
async fn explain_agrees_with_check_and_names_what_decided_at_every_step() {
    use TraceOutcome::{Passed, Refused, Skipped};
    use TraceStage::{ClusterAccess, EffectiveAccess, Firewall, OrganizationAccess, Target};

    let service = Service::start().await;
    service.add_rule("offices", Action::Allow, "10.0.0.0/8").await;
    service.add_rule("lab", Action::Deny, "10.0.5.0/24").await;
    service.add_rule("rest", Action::Deny, "0.0.0.0/0").await;
    service.add_node(DEFAULT, "web", Some(allow_list(&["10.1.0.0/16", "10.1.2.0/24", "10.9.0.0/16"]))).await;
    let web = format!("{DEFAULT}/projects/web");

    let explained = ask(&service, "10.0.5.15", DEFAULT).await;
    let firewall = &explained.steps[2];
    assert_eq!((firewall.stage(), firewall.outcome()), (TraceStage::Firewall, TraceOutcome::Passed));
    assert_eq!(firewall.tried_rule_count, 1);
    let rules: Vec<_> = firewall.rules.iter().map(|rule| (rule.position, rule.outcome())).collect();
    assert_eq!(rules, [(1, Outcome::Matched), (2, Outcome::NotReached), (3, Outcome::NotReached)]);
    assert_eq!(firewall.rules[1].matched_range, "10.0.5.0/24");
    assert_eq!(explained.steps[4].outcome(), TraceOutcome::Skipped, "the organization has no level below it");

    let explained = ask(&service, "10.1.2.3", &web).await;
    assert_eq!(explained.steps[4].outcome(), TraceOutcome::Passed);
    assert_eq!((&*explained.steps[4].matched_range, &*explained.steps[4].node), ("10.1.2.0/24", &*web));

    let explained = ask(&service, "10.8.0.1", &format!("{web}/workspaces/main/endpoints/unregistered")).await;
    assert_eq!(explained.reason(), v1::Reason::OutsideEndpoint);
    let step = &explained.steps[4];
    assert_eq!((step.outcome(), &*step.nearest_range, &*step.node), (TraceOutcome::Refused, "10.9.0.0/16", &*web));

    // Steps behind the one that refuses are judged too.
    let explained = ask(&service, "8.8.8.8", &web).await;
    let steps = [
        (Target, Passed),
        (ClusterAccess, Passed),
        (Firewall, Refused),
        (OrganizationAccess, Passed),
        (EffectiveAccess, Refused),
    ];
    assert_eq!(outcomes(&explained), steps);

    for unknown in [format!("{DEFAULT}/projects/unknown"), "organizations/unknown".to_owned()] {
        let explained = ask(&service, "10.1.2.3", &unknown).await;
        assert_eq!(explained.reason(), v1::Reason::UnknownEndpoint);
        let steps = [Target, ClusterAccess, Firewall, OrganizationAccess, EffectiveAccess];
        assert_eq!(outcomes(&explained), steps.map(|step| (step, if step == Target { Refused } else { Skipped })));
    }
}

#[tokio::test]
async fn explaining_records_nothing_and_takes_the_moment_that_is_asked_for() {
    let service = Service::start().await;
    let mut temporary = crate::harness::rule(Action::Deny, "10.0.0.0/8");
    temporary.expire_time = Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 });
    let request = v1::CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(temporary),
        rule_id: "temporary".to_owned(),
        ..Default::default()
    };
    service.firewall().create_rule(request).await.unwrap();
    let list = v1::ListAuditRecordsRequest {
        parent: DEFAULT.to_owned(),
        types: vec![v1::AuditType::Decision.into()],
        ..Default::default()
    };
    for (seconds, reason) in [(3_999_999_999, v1::Reason::DenyRule), (4_000_000_000, v1::Reason::DefaultAllow)] {
        let request = ExplainRequest {
            ip: "10.0.0.1".to_owned(),
            connection_type: ConnectionType::Preview.into(),
            endpoint: DEFAULT.to_owned(),
            at_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        };
        let explained = AnalysisServiceClient::new(service.channel.clone()).explain(request).await.unwrap();
        assert_eq!(explained.into_inner().reason(), reason);
    }
    let recorded = service.audit().list_audit_records(list).await.unwrap().into_inner();
    assert_eq!(recorded.audit_records, []);
}

#[tokio::test]
async fn a_malformed_question_is_refused_with_every_field_that_is_wrong() {
    let service = Service::start().await;
    let request = ExplainRequest {
        ip: "10.0.0.256".to_owned(),
        connection_type: 7,
        endpoint: "projects/web".to_owned(),
        at_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
    };
    let result = AnalysisServiceClient::new(service.channel.clone()).explain(request).await;
    let status = assert_error(result, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(crate::harness::fields(&status), ["ip", "connection_type", "endpoint", "at_time"]);
}
