//! What the audit log answers with, as JSON.
//!
//! Invariant: that of the module above: every message is taken apart whole.
//! Not here: records as lines and rows for people (`cli::record`).

use super::{Json, Object, address_group, connection_type_name, node, rule};
use crate::proto::v1;
use crate::proto::v1::audit_record::Content;

pub(in crate::cli) fn overview(overview: &v1::Overview) -> Json {
    let v1::Overview { active_sessions, denials_last_hour, denials_last_day, firewall_events } = overview;
    let count = |v1::ActiveSessionCount { connection_type, count }: &v1::ActiveSessionCount| {
        Json::object().value("connectionType", *connection_type, connection_type_name).int64("count", *count).into()
    };
    Json::object()
        .list("activeSessions", active_sessions.iter().map(count).collect())
        .int64("denialsLastHour", *denials_last_hour)
        .int64("denialsLastDay", *denials_last_day)
        .list("firewallEvents", firewall_events.iter().map(firewall_event).collect())
        .into()
}

fn firewall_event(event: &v1::FirewallEvent) -> Json {
    let v1::FirewallEvent { sequence, time, ip, user_email, connection_type, endpoint, reason, rule, node } = event;
    Json::object()
        .int64("sequence", *sequence)
        .time("time", time.as_ref())
        .text("ip", ip)
        .text("userEmail", user_email)
        .value("connectionType", *connection_type, connection_type_name)
        .text("endpoint", endpoint)
        .value("reason", *reason, reason_name)
        .text("rule", rule)
        .text("node", node)
        .into()
}

pub(in crate::cli) fn session(session: &v1::Session) -> Json {
    let v1::Session {
        name,
        user_email,
        ip,
        connection_type,
        endpoint,
        state,
        start_time,
        last_seen_time,
        end_time,
        end_reason,
        request_count,
        rule,
        revision,
        lease_expire_time,
        revoke_time,
        revoke_reason,
        revoke_rule,
        revoke_node,
        revoke_revision,
    } = session;
    Json::object()
        .text("name", name)
        .text("userEmail", user_email)
        .text("ip", ip)
        .value("connectionType", *connection_type, connection_type_name)
        .text("endpoint", endpoint)
        .value("state", *state, |n| v1::SessionState::try_from(n).ok().map(|value| value.as_str_name()))
        .time("startTime", start_time.as_ref())
        .time("lastSeenTime", last_seen_time.as_ref())
        .time("endTime", end_time.as_ref())
        .value("endReason", *end_reason, |n| v1::EndReason::try_from(n).ok().map(|value| value.as_str_name()))
        .int64("requestCount", *request_count)
        .text("rule", rule)
        .int64("revision", *revision)
        .time("leaseExpireTime", lease_expire_time.as_ref())
        .time("revokeTime", revoke_time.as_ref())
        .value("revokeReason", *revoke_reason, reason_name)
        .text("revokeRule", revoke_rule)
        .text("revokeNode", revoke_node)
        .int64("revokeRevision", *revoke_revision)
        .into()
}

pub(in crate::cli) fn audit_record(record: &v1::AuditRecord) -> Json {
    let v1::AuditRecord { sequence, organization_sequence, time, r#type, organization, content } = record;
    let object = Json::object()
        .int64("sequence", *sequence)
        .int64("organizationSequence", *organization_sequence)
        .time("time", time.as_ref())
        .value("type", *r#type, |n| v1::AuditType::try_from(n).ok().map(|value| value.as_str_name()))
        .text("organization", organization);
    let (key, value) = match content {
        None => return object.into(),
        Some(Content::Decision(content)) => ("decision", decision(content)),
        Some(Content::Session(content)) => ("session", session(content)),
        Some(Content::PolicyChange(content)) => ("policyChange", policy_change(content)),
        Some(Content::Gap(content)) => ("gap", gap(content)),
        Some(Content::Pruned(content)) => ("pruned", pruning(content)),
        Some(Content::Erased(content)) => ("erased", erasure(content)),
    };
    object.field(key, Some(value)).into()
}

pub(in crate::cli) fn erase_user_response(response: &v1::EraseUserResponse) -> Json {
    let v1::EraseUserResponse { opening_count, sequence } = response;
    Json::object().int64("openingCount", *opening_count).int64("sequence", *sequence).into()
}

pub(in crate::cli) fn verify_audit_result(result: &v1::VerifyAuditResult) -> Json {
    let v1::VerifyAuditResult { intact, tree_size, root_hash, faults } = result;
    let fault = |v1::AuditFault { sequence, message }: &v1::AuditFault| {
        Json::object().int64("sequence", *sequence).text("message", message).into()
    };
    Json::object()
        .bool("intact", *intact)
        .int64("treeSize", *tree_size)
        .bytes("rootHash", root_hash)
        .list("faults", faults.iter().map(fault).collect())
        .into()
}

fn decision(record: &v1::DecisionRecord) -> Json {
    let v1::DecisionRecord {
        decision_id,
        decision,
        reason,
        ip,
        user_email,
        connection_type,
        endpoint,
        rule,
        node,
        session,
        revision,
        cluster_revision,
        request_id,
    } = record;
    Json::object()
        .text("decisionId", decision_id)
        .value("decision", *decision, |n| v1::Decision::try_from(n).ok().map(|value| value.as_str_name()))
        .value("reason", *reason, reason_name)
        .text("ip", ip)
        .text("userEmail", user_email)
        .value("connectionType", *connection_type, connection_type_name)
        .text("endpoint", endpoint)
        .text("rule", rule)
        .text("node", node)
        .text("session", session)
        .int64("revision", *revision)
        .int64("clusterRevision", *cluster_revision)
        .text("requestId", request_id)
        .into()
}

pub(super) fn policy_change(change: &v1::PolicyChange) -> Json {
    let v1::PolicyChange { actor, revision, comment, changes, overridden_tests, revert_time } = change;
    Json::object()
        .text("actor", actor)
        .int64("revision", *revision)
        .text("comment", comment)
        .list("changes", changes.iter().map(object_change).collect())
        .texts("overriddenTests", overridden_tests)
        .time("revertTime", revert_time.as_ref())
        .into()
}

pub(super) fn object_change(v1::ObjectChange { before, after }: &v1::ObjectChange) -> Json {
    Json::object()
        .field("before", before.as_ref().map(policy_object))
        .field("after", after.as_ref().map(policy_object))
        .into()
}

fn policy_object(v1::PolicyObject { object }: &v1::PolicyObject) -> Json {
    use v1::policy_object::Object as Of;
    let (key, value) = match object {
        None => return Object::default().into(),
        Some(Of::Rule(object)) => ("rule", rule(object)),
        Some(Of::AddressGroup(object)) => ("addressGroup", address_group(object)),
        Some(Of::PolicyTest(object)) => ("policyTest", super::analysis::policy_test(object)),
        Some(Of::Node(object)) => ("node", node(object)),
        Some(Of::RuleOrder(v1::RuleOrder { rules })) => ("ruleOrder", Json::object().texts("rules", rules).into()),
        Some(Of::Digest(object)) => ("digest", digest(object)),
    };
    Json::object().field(key, Some(value)).into()
}

fn digest(digest: &v1::ObjectDigest) -> Json {
    let v1::ObjectDigest { name, item_count, sha256, first_ranges } = digest;
    Json::object()
        .text("name", name)
        .int64("itemCount", *item_count)
        .bytes("sha256", sha256)
        .texts("firstRanges", first_ranges)
        .into()
}

fn gap(v1::Gap { from_time, to_time, count }: &v1::Gap) -> Json {
    Json::object().time("fromTime", from_time.as_ref()).time("toTime", to_time.as_ref()).int64("count", *count).into()
}

fn pruning(v1::Pruning { to_sequence, root_hash }: &v1::Pruning) -> Json {
    Json::object().int64("toSequence", *to_sequence).bytes("rootHash", root_hash).into()
}

fn erasure(v1::Erasure { actor, opening_count }: &v1::Erasure) -> Json {
    Json::object().text("actor", actor).int64("openingCount", *opening_count).into()
}

fn reason_name(number: i32) -> Option<&'static str> {
    v1::Reason::try_from(number).ok().map(|value| value.as_str_name())
}
