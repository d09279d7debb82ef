//! AnalysisService (design.md §3.6): which call goes where, and explaining decisions.
//!
//! Invariant: explaining records nothing and changes nothing.
//! Not here: the analysis itself (`policy`).

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::convert::decision::{node_name, to_action, to_decision, to_reason};
use super::convert::node::to_mode;
use super::convert::{Faults, to_time};
use super::node_scope::version;
use super::serve::serve;
use super::{Api, at_revision, to_i64};
use crate::engine::directory::{Published, PublishedCluster};
use crate::policy::address::Address;
use crate::policy::decision::{Reason, Verdict};
use crate::policy::explain::{self, AccessTrace, FirewallTrace, Listed, RuleOutcome, RuleTrace, Trace};
use crate::policy::name::{Id, Name, NodePath};
use crate::policy::node::Access;
use crate::policy::rule::{Action, ConnectionType};
use crate::policy::snapshot::unknown_organization;
use crate::policy::time::Timestamp;
use crate::proto::same_variants;
use crate::proto::v1::analysis_service_server::AnalysisService;
use crate::proto::v1::{self, TraceOutcome, TraceStage, TraceStep};

serve!(AnalysisService, type WatchDivergencesStream = super::shadow::Divergences {
    waits explain(v1::ExplainRequest) -> v1::ExplainResponse;
    waits list_problems(v1::ListProblemsRequest) -> v1::ListProblemsResponse;
    waits preview_change(v1::PreviewChangeRequest) -> v1::PreviewChangeResponse;
    waits list_revisions(v1::ListRevisionsRequest) -> v1::ListRevisionsResponse;
    waits get_revision(v1::GetRevisionRequest) -> v1::Revision;
    waits compare_revisions(v1::CompareRevisionsRequest) -> v1::CompareRevisionsResponse;
    changes confirm_revision(v1::ConfirmRevisionRequest) -> v1::Revision;
    changes rollback_revision(v1::RollbackRevisionRequest) -> v1::Revision;
    at_once export_policy(v1::ExportPolicyRequest) -> v1::Policy;
    changes apply_policy(v1::ApplyPolicyRequest) -> v1::ApplyPolicyResponse;
    changes set_shadow_policy(v1::SetShadowPolicyRequest) -> v1::ShadowPolicy;
    at_once get_shadow_policy(v1::GetShadowPolicyRequest) -> v1::ShadowPolicy;
    changes delete_shadow_policy(v1::DeleteShadowPolicyRequest) -> ();
    changes promote_shadow_policy(v1::PromoteShadowPolicyRequest) -> v1::Revision;
    at_once list_divergences(v1::ListDivergencesRequest) -> v1::ListDivergencesResponse;
    at_once watch_divergences(v1::WatchDivergencesRequest) -> super::shadow::Divergences;
    changes create_policy_test(v1::CreatePolicyTestRequest) -> v1::PolicyTest;
    waits list_policy_tests(v1::ListPolicyTestsRequest) -> v1::ListPolicyTestsResponse;
    changes delete_policy_test(v1::DeletePolicyTestRequest) -> ();
});

/// What is to be explained, for the pool for heavy work.
struct Explained {
    published: Option<Arc<Published>>,
    cluster: Arc<PublishedCluster>,
    address: Address,
    connection_type: ConnectionType,
    endpoint: String,
    at: Timestamp,
}

impl Api {
    async fn explain(&self, request: v1::ExplainRequest) -> Result<Response<v1::ExplainResponse>, Status> {
        let v1::ExplainRequest { ip, connection_type, endpoint, at_time } = request;
        let mut faults = Faults::default();
        let address = faults.address("ip", &ip);
        let connection_type = faults.connection_type("connection_type", connection_type);
        let target = faults.note("endpoint", NodePath::parse(&endpoint));
        let organization = target.map(|target| target.organization.to_owned());
        let at = at_time.and_then(|time| faults.time("at_time", time));
        let (address, (connection_type, organization)) =
            faults.result(address.zip(connection_type.zip(organization)))?;
        let engine = self.engine()?;
        let at = at.unwrap_or_else(|| engine.clock().now());
        let (published, cluster) = (engine.directory().organization(&organization), engine.directory().cluster());
        let revision = published.as_ref().map_or(0, |published| published.view.organization.revision);
        let explained = Explained { published, cluster, address, connection_type, endpoint, at };
        // Finding the narrowest range scans whole groups.
        let answer = self.shared.heavy.run(move || explained.explain()).await?;
        Ok(at_revision(answer, revision))
    }
}

impl Explained {
    fn explain(&self) -> v1::ExplainResponse {
        let unknown = || Trace {
            verdict: unknown_organization(),
            known: false,
            cluster: None,
            firewall: None,
            organization: None,
            effective: None,
        };
        let Ok(target) = NodePath::parse(&self.endpoint) else { return v1::ExplainResponse::default() };
        let trace = self.published.as_deref().map_or_else(unknown, |published| {
            let policy = version(published, &self.cluster);
            let Self { address, connection_type, at, .. } = *self;
            explain::explain(&policy, &explain::Attempt { address, connection_type, target, at })
        });
        let organization = self.published.as_deref().map(|published| &published.view.organization.id);
        let Verdict { reason, rule, level, first_match: _ } = trace.verdict;
        v1::ExplainResponse {
            decision: to_decision(reason.decision()).into(),
            reason: to_reason(reason).into(),
            message: reason.message().to_owned(),
            rule: rule.map(|(_, rule)| Name::rule(target.organization, &rule.id).to_string()).unwrap_or_default(),
            node: level.map(|level| node_name(level, &target).to_owned()).unwrap_or_default(),
            revision: to_i64(self.published.as_ref().map_or(0, |published| published.view.organization.revision)),
            cluster_revision: to_i64(self.cluster.cluster.revision),
            at_time: Some(to_time(self.at)),
            steps: vec![
                target_step(&target, organization, &trace),
                access_step(TraceStage::ClusterAccess, &target, trace.cluster.as_ref()),
                firewall_step(&target, trace.firewall.as_ref()),
                access_step(TraceStage::OrganizationAccess, &target, trace.organization.as_ref()),
                access_step(TraceStage::EffectiveAccess, &target, trace.effective.as_ref()),
            ],
        }
    }
}

fn group_name(target: &NodePath<'_>, id: Option<&Id>) -> String {
    id.map(|id| Name::group(target.organization, id).to_string()).unwrap_or_default()
}

fn skipped(stage: TraceStage, message: &str) -> TraceStep {
    TraceStep {
        stage: stage.into(),
        outcome: TraceOutcome::Skipped.into(),
        message: message.to_owned(),
        ..TraceStep::default()
    }
}

fn outcome(passes: bool) -> i32 {
    if passes { TraceOutcome::Passed } else { TraceOutcome::Refused }.into()
}

fn target_step(target: &NodePath<'_>, organization: Option<&Id>, trace: &Trace<'_>) -> TraceStep {
    let message = match (trace.known, organization, target.project) {
        (_, None, _) => format!("organization `{}` does not exist", target.organization),
        (false, Some(_), _) => {
            format!("the organization requires projects, and `{}` does not exist", target.ancestor(1))
        }
        (true, Some(_), None) => "the organization exists".to_owned(),
        (true, Some(_), Some(_)) => "the organization exists, and so does the project where it is required".to_owned(),
    };
    TraceStep {
        stage: TraceStage::Target.into(),
        outcome: outcome(trace.known),
        message,
        node: target.text.to_owned(),
        ..TraceStep::default()
    }
}

fn access_step(stage: TraceStage, target: &NodePath<'_>, trace: Option<&AccessTrace<'_>>) -> TraceStep {
    let Some(AccessTrace { level, access, permitted, matched, nearest }) = trace else {
        return skipped(stage, "there is nothing to judge");
    };
    let node = node_name(*level, target);
    let message = match (access, permitted, matched, nearest) {
        (Access::AllowAll | Access::Inherit, ..) => format!("`{node}` allows all"),
        (_, true, Some(Listed { range, .. }), _) => format!("`{node}` permits `{range}`"),
        (_, true, None, _) => format!("`{node}` permits the address"),
        (Access::AllowList(entries), false, ..) if entries.is_empty() => {
            format!("`{node}` permits nobody: its allowlist is empty")
        }
        (_, false, _, Some(Listed { range, .. })) => {
            format!("`{node}` does not permit the address; the nearest that it permits is `{range}`")
        }
        (_, false, _, None) => format!("`{node}` does not permit the address, nor any other of its family"),
    };
    let range = |listed: &Option<Listed<'_>>| listed.map(|listed| listed.range.to_string()).unwrap_or_default();
    let group = |listed: &Option<Listed<'_>>| group_name(target, listed.and_then(|listed| listed.group));
    TraceStep {
        stage: stage.into(),
        outcome: outcome(*permitted),
        message,
        node: node.to_owned(),
        mode: to_mode(access).into(),
        matched_range: range(matched),
        address_group: group(matched),
        rules: Vec::new(),
        nearest_range: range(nearest),
        nearest_address_group: group(nearest),
        tried_rule_count: 0,
    }
}

fn firewall_step(target: &NodePath<'_>, trace: Option<&FirewallTrace<'_>>) -> TraceStep {
    let Some(FirewallTrace { verdict, tried, rules }) = trace else {
        return skipped(TraceStage::Firewall, "there is nothing to judge");
    };
    let message = match (verdict.rule, tried) {
        (Some((index, rule)), _) => {
            let action = match rule.action {
                Action::Allow => "allows",
                Action::Deny => "denies",
            };
            format!("rule {} of the list, `{}`, is the first that matches, and {action}", index + 1, rule.id)
        }
        (None, 0) => "there is no rule: the firewall lets it through".to_owned(),
        (None, tried) => format!("none of the {tried} rules matches: the firewall lets it through"),
    };
    TraceStep {
        stage: TraceStage::Firewall.into(),
        outcome: outcome(verdict.reason != Reason::DenyRule),
        message,
        rules: rules.iter().map(|rule| rule_trace(target, rule)).collect(),
        tried_rule_count: i32::try_from(*tried).unwrap_or(i32::MAX),
        ..TraceStep::default()
    }
}

same_variants!(
    to_outcome: RuleOutcome => v1::RuleOutcome { Matched Disabled Expired OtherConnectionType NotReached }
);

fn rule_trace(target: &NodePath<'_>, trace: &RuleTrace<'_>) -> v1::RuleTrace {
    let RuleTrace { index, rule, outcome, listed } = trace;
    v1::RuleTrace {
        rule: Name::rule(target.organization, &rule.id).to_string(),
        position: i32::try_from(index + 1).unwrap_or(i32::MAX),
        action: to_action(rule.action).into(),
        outcome: to_outcome(*outcome).into(),
        matched_range: listed.range.to_string(),
        address_group: group_name(target, listed.group),
    }
}
