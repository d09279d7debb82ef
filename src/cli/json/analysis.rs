//! What the analysis answers with, as JSON.
//!
//! Invariant: that of the module above.
//! Not here: how it is shown to people.

use super::Json;
use crate::proto::v1;

pub(in crate::cli) fn explain_response(response: &v1::ExplainResponse) -> Json {
    let v1::ExplainResponse { decision, reason, message, rule, node, revision, cluster_revision, at_time, steps } =
        response;
    Json::object()
        .value("decision", *decision, |n| v1::Decision::try_from(n).ok().map(|value| value.as_str_name()))
        .value("reason", *reason, |n| v1::Reason::try_from(n).ok().map(|value| value.as_str_name()))
        .text("message", message)
        .text("rule", rule)
        .text("node", node)
        .int64("revision", *revision)
        .int64("clusterRevision", *cluster_revision)
        .time("atTime", at_time.as_ref())
        .list("steps", steps.iter().map(trace_step).collect())
        .into()
}

fn trace_step(step: &v1::TraceStep) -> Json {
    let v1::TraceStep {
        stage,
        outcome,
        message,
        node,
        mode,
        matched_range,
        address_group,
        rules,
        nearest_range,
        nearest_address_group,
        tried_rule_count,
    } = step;
    Json::object()
        .value("stage", *stage, |n| v1::TraceStage::try_from(n).ok().map(|value| value.as_str_name()))
        .value("outcome", *outcome, |n| v1::TraceOutcome::try_from(n).ok().map(|value| value.as_str_name()))
        .text("message", message)
        .text("node", node)
        .value("mode", *mode, |n| v1::AccessMode::try_from(n).ok().map(|value| value.as_str_name()))
        .text("matchedRange", matched_range)
        .text("addressGroup", address_group)
        .list("rules", rules.iter().map(rule_trace).collect())
        .text("nearestRange", nearest_range)
        .text("nearestAddressGroup", nearest_address_group)
        .int32("triedRuleCount", *tried_rule_count)
        .into()
}

fn rule_trace(trace: &v1::RuleTrace) -> Json {
    let v1::RuleTrace { rule, position, action, outcome, matched_range, address_group } = trace;
    Json::object()
        .text("rule", rule)
        .int32("position", *position)
        .value("action", *action, |n| v1::Action::try_from(n).ok().map(|value| value.as_str_name()))
        .value("outcome", *outcome, |n| v1::RuleOutcome::try_from(n).ok().map(|value| value.as_str_name()))
        .text("matchedRange", matched_range)
        .text("addressGroup", address_group)
        .into()
}
