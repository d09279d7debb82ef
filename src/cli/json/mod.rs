//! Answers as JSON, by the protocol buffers mapping: what grpcurl prints for the same call.
//!
//! Invariant: fields stand in their order in the proto, in lowerCamelCase; 64-bit numbers are strings, enum values full
//! names, times RFC 3339; fields with the default value are left out, but not the list that a list command is about.
//! Every message is taken apart whole, so that a new field does not compile until it is printed.
//! Not here: reading JSON (`rules::file`).

mod analysis;
mod audit;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost_types::Timestamp;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::proto::v1;

pub(super) use analysis::{
    applied, comparison, divergence, explain_response, policy_test, preview, revision, shadow_policy,
};
pub(super) use audit::{audit_record, erase_user_response, overview, session, verify_audit_result};

/// A JSON value whose objects keep their order.
#[derive(Clone, Debug)]
pub(super) enum Json {
    Object(Object),
    List(Vec<Json>),
    Text(String),
    Number(i32),
    Bool(bool),
}

/// A JSON object that is being built; fields with the default value are left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Object(Vec<(&'static str, Json)>);

impl Json {
    /// An object without fields yet.
    pub(super) fn object() -> Object {
        Object::default()
    }
}

impl Object {
    pub(super) fn text(self, key: &'static str, value: &str) -> Self {
        self.field(key, (!value.is_empty()).then(|| Json::Text(value.to_owned())))
    }

    pub(super) fn int64(self, key: &'static str, value: i64) -> Self {
        self.field(key, (value != 0).then(|| Json::Text(value.to_string())))
    }

    /// Bytes in standard Base64.
    fn bytes(self, key: &'static str, value: &[u8]) -> Self {
        self.text(key, &STANDARD.encode(value))
    }

    fn int32(self, key: &'static str, value: i32) -> Self {
        self.field(key, (value != 0).then_some(Json::Number(value)))
    }

    fn bool(self, key: &'static str, value: bool) -> Self {
        self.field(key, value.then_some(Json::Bool(true)))
    }

    fn time(self, key: &'static str, value: Option<&Timestamp>) -> Self {
        self.field(key, value.map(|time| Json::Text(rfc3339(time))))
    }

    /// An enum value: its name, or its number where this program does not know it.
    fn value(self, key: &'static str, number: i32, name: impl Fn(i32) -> Option<&'static str>) -> Self {
        self.field(key, (number != 0).then(|| enum_value(number, name)))
    }

    fn list(self, key: &'static str, items: Vec<Json>) -> Self {
        self.field(key, (!items.is_empty()).then_some(Json::List(items)))
    }

    fn texts(self, key: &'static str, items: &[String]) -> Self {
        self.list(key, items.iter().cloned().map(Json::Text).collect())
    }

    /// The list that a command is about: there even when it is empty, so that a program can always read it.
    pub(super) fn items(self, key: &'static str, items: Vec<Json>) -> Self {
        self.field(key, Some(Json::List(items)))
    }

    pub(super) fn problems(self, problems: &[v1::Problem]) -> Self {
        self.list("problems", problems.iter().map(problem).collect())
    }

    fn field(mut self, key: &'static str, value: Option<Json>) -> Self {
        self.0.extend(value.map(|value| (key, value)));
        self
    }
}

impl From<Object> for Json {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(Object(fields)) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Self::List(items) => items.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
            Self::Number(number) => number.serialize(serializer),
            Self::Bool(bool) => bool.serialize(serializer),
        }
    }
}

/// A time in RFC 3339, with 0, 3, 6 or 9 digits of a second; an invalid one as its numbers.
pub(super) fn rfc3339(time: &Timestamp) -> String {
    let precision = match time.nanos {
        0 => 0,
        n if n % 1_000_000 == 0 => 3,
        n if n % 1_000 == 0 => 6,
        _ => 9,
    };
    match jiff::Timestamp::new(time.seconds, time.nanos) {
        Ok(timestamp) => format!("{timestamp:.precision$}"),
        Err(_) => format!("{}.{:09}", time.seconds, time.nanos),
    }
}

/// What `delete` answers with.
pub(super) fn empty() -> Json {
    Json::object().into()
}

pub(super) fn check_response(response: &v1::CheckResponse) -> Json {
    let v1::CheckResponse {
        decision,
        reason,
        message,
        rule,
        node,
        session,
        revision,
        cluster_revision,
        decision_id,
        error: _, // set by StreamCheck only, which no command calls
    } = response;
    Json::object()
        .value("decision", *decision, |n| v1::Decision::try_from(n).ok().map(|value| value.as_str_name()))
        .value("reason", *reason, |n| v1::Reason::try_from(n).ok().map(|value| value.as_str_name()))
        .text("message", message)
        .text("rule", rule)
        .text("node", node)
        .text("session", session)
        .int64("revision", *revision)
        .int64("clusterRevision", *cluster_revision)
        .text("decisionId", decision_id)
        .into()
}

pub(super) fn rule(rule: &v1::Rule) -> Json {
    let v1::Rule {
        name,
        action,
        source,
        connection_types,
        description,
        position,
        disabled,
        expire_time,
        create_time,
        update_time,
        etag,
        match_count,
        match_count_start_time,
        last_match_time,
        revision,
    } = rule;
    let object = Json::object()
        .text("name", name)
        .value("action", *action, |n| v1::Action::try_from(n).ok().map(|value| value.as_str_name()));
    let object = match source {
        Some(v1::rule::Source::Range(range)) => object.text("range", range),
        Some(v1::rule::Source::AddressGroup(group)) => object.text("addressGroup", group),
        None => object,
    };
    object
        .list("connectionTypes", connection_types.iter().map(|n| enum_value(*n, connection_type_name)).collect())
        .text("description", description)
        .int32("position", *position)
        .bool("disabled", *disabled)
        .time("expireTime", expire_time.as_ref())
        .time("createTime", create_time.as_ref())
        .time("updateTime", update_time.as_ref())
        .text("etag", etag)
        .int64("matchCount", *match_count)
        .time("matchCountStartTime", match_count_start_time.as_ref())
        .time("lastMatchTime", last_match_time.as_ref())
        .int64("revision", *revision)
        .into()
}

pub(super) fn address_group(group: &v1::AddressGroup) -> Json {
    let v1::AddressGroup { name, description, ranges, range_count, etag, create_time, update_time, revision } = group;
    Json::object()
        .text("name", name)
        .text("description", description)
        .texts("ranges", ranges)
        .int64("rangeCount", *range_count)
        .text("etag", etag)
        .time("createTime", create_time.as_ref())
        .time("updateTime", update_time.as_ref())
        .int64("revision", *revision)
        .into()
}

pub(super) fn node(node: &v1::Node) -> Json {
    let v1::Node {
        name,
        display_name,
        require_projects,
        revision,
        access,
        etag,
        create_time,
        update_time,
        change_gates,
        pending_revision,
    } = node;
    let object = Json::object()
        .text("name", name)
        .text("displayName", display_name)
        .bool("requireProjects", *require_projects)
        .int64("revision", *revision);
    let object = match access {
        None => object,
        Some(v1::Access { mode, entries }) => {
            let access = Json::object().value("mode", *mode, access_mode_name).list("entries", access_entries(entries));
            object.field("access", Some(access.into()))
        }
    };
    object
        .text("etag", etag)
        .time("createTime", create_time.as_ref())
        .time("updateTime", update_time.as_ref())
        .field("changeGates", change_gates.as_ref().map(analysis::change_gates))
        .field("pendingRevision", pending_revision.as_ref().map(analysis::pending_revision))
        .into()
}

pub(super) fn effective_access(access: &v1::EffectiveAccess) -> Json {
    let v1::EffectiveAccess {
        name,
        mode,
        source,
        entries,
        organization_entries,
        cluster_entries,
        permitted_ranges,
        problems,
        truncated,
    } = access;
    Json::object()
        .text("name", name)
        .value("mode", *mode, access_mode_name)
        .text("source", source)
        .list("entries", access_entries(entries))
        .list("organizationEntries", access_entries(organization_entries))
        .list("clusterEntries", access_entries(cluster_entries))
        .list("permittedRanges", permitted_ranges.iter().map(permitted).collect())
        .problems(problems)
        .bool("truncated", *truncated)
        .into()
}

fn permitted(permitted: &v1::PermittedRanges) -> Json {
    let v1::PermittedRanges { connection_type, ranges } = permitted;
    Json::object().value("connectionType", *connection_type, connection_type_name).texts("ranges", ranges).into()
}

fn access_entries(entries: &[v1::AccessEntry]) -> Vec<Json> {
    let entry = |v1::AccessEntry { source, description }: &v1::AccessEntry| {
        let object = match source {
            Some(v1::access_entry::Source::Range(range)) => Json::object().text("range", range),
            Some(v1::access_entry::Source::AddressGroup(group)) => Json::object().text("addressGroup", group),
            None => Json::object(),
        };
        object.text("description", description).into()
    };
    entries.iter().map(entry).collect()
}

pub(super) fn problem(problem: &v1::Problem) -> Json {
    let v1::Problem { code, severity, resource, message, ranges, related } = problem;
    Json::object()
        .value("code", *code, |n| v1::ProblemCode::try_from(n).ok().map(|value| value.as_str_name()))
        .value("severity", *severity, |n| v1::Severity::try_from(n).ok().map(|value| value.as_str_name()))
        .text("resource", resource)
        .text("message", message)
        .texts("ranges", ranges)
        .texts("related", related)
        .into()
}

fn enum_value(number: i32, name: impl Fn(i32) -> Option<&'static str>) -> Json {
    name(number).map_or(Json::Number(number), |name| Json::Text(name.to_owned()))
}

fn connection_type_name(number: i32) -> Option<&'static str> {
    v1::ConnectionType::try_from(number).ok().map(|value| value.as_str_name())
}

fn access_mode_name(number: i32) -> Option<&'static str> {
    v1::AccessMode::try_from(number).ok().map(|value| value.as_str_name())
}
