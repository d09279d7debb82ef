//! What the analysis answers with, as JSON.
//!
//! Invariant: that of the module above.
//! Not here: how it is shown to people.

use super::{Json, audit, connection_type_name};
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

pub(in crate::cli) fn policy_test(test: &v1::PolicyTest) -> Json {
    let v1::PolicyTest { name, ip, connection_type, endpoint, expected_decision, description, actual_decision } = test;
    let decision = |n| v1::Decision::try_from(n).ok().map(|value| value.as_str_name());
    Json::object()
        .text("name", name)
        .text("ip", ip)
        .value("connectionType", *connection_type, connection_type_name)
        .text("endpoint", endpoint)
        .value("expectedDecision", *expected_decision, decision)
        .text("description", description)
        .value("actualDecision", *actual_decision, decision)
        .into()
}

pub(super) fn change_gates(gates: &v1::ChangeGates) -> Json {
    let v1::ChangeGates { guard_ips, max_revocations, refuse_open_to_internet } = gates;
    let object = Json::object().texts("guardIps", guard_ips);
    let object = match max_revocations {
        None => object,
        Some(max) => object.field("maxRevocations", Some(Json::Text(max.to_string()))),
    };
    object.bool("refuseOpenToInternet", *refuse_open_to_internet).into()
}

pub(super) fn pending_revision(pending: &v1::PendingRevision) -> Json {
    let v1::PendingRevision { revision, revert_time } = pending;
    Json::object().int64("revision", *revision).time("revertTime", revert_time.as_ref()).into()
}

pub(in crate::cli) fn revision(revision: &v1::Revision) -> Json {
    let v1::Revision { name, revision, create_time, policy_change } = revision;
    Json::object()
        .text("name", name)
        .int64("revision", *revision)
        .time("createTime", create_time.as_ref())
        .field("policyChange", policy_change.as_ref().map(audit::policy_change))
        .into()
}

pub(in crate::cli) fn comparison(comparison: &v1::CompareRevisionsResponse) -> Json {
    let v1::CompareRevisionsResponse { differences, changes, truncated } = comparison;
    Json::object()
        .list("differences", differences.iter().map(difference).collect())
        .list("changes", changes.iter().map(audit::object_change).collect())
        .bool("truncated", *truncated)
        .into()
}

pub(in crate::cli) fn preview(preview: &v1::PreviewChangeResponse) -> Json {
    let v1::PreviewChangeResponse {
        revision,
        differences,
        revocation_count,
        revoked_sessions,
        problems_added,
        problems_resolved,
        truncated,
        changes,
        refusals,
        replay,
    } = preview;
    Json::object()
        .int64("revision", *revision)
        .list("differences", differences.iter().map(difference).collect())
        .int64("revocationCount", *revocation_count)
        .texts("revokedSessions", revoked_sessions)
        .list("problemsAdded", problems_added.iter().map(super::problem).collect())
        .list("problemsResolved", problems_resolved.iter().map(super::problem).collect())
        .bool("truncated", *truncated)
        .list("changes", changes.iter().map(audit::object_change).collect())
        .list("refusals", refusals.iter().map(refusal).collect())
        .field("replay", replay.as_ref().map(replayed))
        .into()
}

pub(in crate::cli) fn applied(applied: &v1::ApplyPolicyResponse) -> Json {
    let v1::ApplyPolicyResponse { revision, etag, changes, problems, truncated } = applied;
    Json::object()
        .int64("revision", *revision)
        .text("etag", etag)
        .list("changes", changes.iter().map(audit::object_change).collect())
        .list("problems", problems.iter().map(super::problem).collect())
        .bool("truncated", *truncated)
        .into()
}

fn difference(difference: &v1::AccessDifference) -> Json {
    let v1::AccessDifference { node, connection_type, newly_permitted, newly_denied, truncated } = difference;
    Json::object()
        .text("node", node)
        .value("connectionType", *connection_type, connection_type_name)
        .texts("newlyPermitted", newly_permitted)
        .texts("newlyDenied", newly_denied)
        .bool("truncated", *truncated)
        .into()
}

fn refusal(refusal: &v1::Refusal) -> Json {
    let v1::Refusal { reason, message } = refusal;
    Json::object()
        .value("reason", *reason, |n| v1::ErrorReason::try_from(n).ok().map(|value| value.as_str_name()))
        .text("message", message)
        .into()
}

fn replayed(replay: &v1::Replay) -> Json {
    let v1::Replay {
        from_time,
        decision_count,
        newly_denied_count,
        newly_permitted_count,
        users,
        user_count,
        truncated,
    } = replay;
    let user = |v1::ReplayedUser { user_email, newly_denied_count, newly_permitted_count }: &v1::ReplayedUser| {
        Json::object()
            .text("userEmail", user_email)
            .int64("newlyDeniedCount", *newly_denied_count)
            .int64("newlyPermittedCount", *newly_permitted_count)
            .into()
    };
    Json::object()
        .time("fromTime", from_time.as_ref())
        .int64("decisionCount", *decision_count)
        .int64("newlyDeniedCount", *newly_denied_count)
        .int64("newlyPermittedCount", *newly_permitted_count)
        .list("users", users.iter().map(user).collect())
        .int32("userCount", *user_count)
        .bool("truncated", *truncated)
        .into()
}

pub(in crate::cli) fn shadow_policy(shadow: &v1::ShadowPolicy) -> Json {
    let v1::ShadowPolicy {
        organization,
        revision,
        set_time,
        count_start_time,
        check_count,
        newly_denied_count,
        newly_permitted_count,
        policy: _,
    } = shadow;
    Json::object()
        .text("organization", organization)
        .int64("revision", *revision)
        .time("setTime", set_time.as_ref())
        .time("countStartTime", count_start_time.as_ref())
        .int64("checkCount", *check_count)
        .int64("newlyDeniedCount", *newly_denied_count)
        .int64("newlyPermittedCount", *newly_permitted_count)
        .into()
}

pub(in crate::cli) fn divergence(divergence: &v1::Divergence) -> Json {
    let v1::Divergence {
        number,
        time,
        ip,
        user_email,
        connection_type,
        endpoint,
        decision,
        reason,
        rule,
        shadow_decision,
        shadow_reason,
        shadow_rule,
    } = divergence;
    let decision_name = |n| v1::Decision::try_from(n).ok().map(|value| value.as_str_name());
    let reason_name = |n| v1::Reason::try_from(n).ok().map(|value| value.as_str_name());
    Json::object()
        .int64("number", *number)
        .time("time", time.as_ref())
        .text("ip", ip)
        .text("userEmail", user_email)
        .value("connectionType", *connection_type, connection_type_name)
        .text("endpoint", endpoint)
        .value("decision", *decision, decision_name)
        .value("reason", *reason, reason_name)
        .text("rule", rule)
        .value("shadowDecision", *shadow_decision, decision_name)
        .value("shadowReason", *shadow_reason, reason_name)
        .text("shadowRule", shadow_rule)
        .into()
}
