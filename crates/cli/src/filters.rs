//! The filters that lists of sessions and of audit records have in common.
//!
//! Invariant: a filter that was not given is not set in the request.
//! Not here: applying the filters, which the server does.

use clap::{Args, ValueEnum};
use prost_types::Timestamp;

use super::error::UsageError;
use super::names::{Parent, ParentArgs};
use super::table::clean;
use super::times::parse_moment;
use super::words::{ConnectionType, Decision};
use portcullis_policy::name::CLUSTER;
use portcullis_proto::v1;

/// The filters of both lists. A session or record must match all that are given.
#[derive(Args, Debug)]
#[command(next_help_heading = "Filters")]
pub(super) struct FilterArgs {
    /// Only this connection type
    #[arg(long, value_enum, value_name = "TYPE")]
    connection_type: Option<ConnectionType>,
    /// Only this user, by the email address as it was recorded
    #[arg(long = "user", alias = "user-email", value_name = "EMAIL")]
    user_email: Option<String>,
    /// Only users who came from this range: an address, CIDR notation or `any`
    #[arg(long, value_name = "RANGE")]
    ip_range: Option<String>,
    /// Only this node and all below it: a full name, or `projects/…` of the organization
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only this firewall rule: its id or full name
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// Only from this time on: in RFC 3339, or how long ago, such as `30m`, `2h` or `7d`
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<Timestamp>,
    /// Only before this time, in the same format
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<Timestamp>,
}

/// The filters that only audit records have.
#[derive(Args, Debug)]
#[command(next_help_heading = "Filters")]
pub(super) struct RecordFilterArgs {
    /// Only records of this type; may be given several times
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    types: Vec<AuditType>,
    /// Only checks with this decision
    #[arg(long, value_enum, value_name = "DECISION")]
    decision: Option<Decision>,
    #[command(flatten)]
    filters: FilterArgs,
}

/// A type of audit records as it is typed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuditType {
    // No doc comments: clap would show them below every `--help`.
    Decision,
    SessionEnded,
    SessionRevoked,
    PolicyChanged,
    Gap,
    Pruned,
    Erased,
    ClockChanged,
    KeyChanged,
    Restored,
}

impl FilterArgs {
    /// The request for the first page of sessions.
    pub(super) fn sessions(&self, parent: &ParentArgs) -> Result<v1::ListSessionsRequest, UsageError> {
        let (Parent { name: parent, node }, names) = (parent.parent()?, parent.names());
        let endpoint = self.endpoint.as_ref().map(|given| names.node(given)).transpose()?;
        if let (Some(node), Some(endpoint)) = (&node, &endpoint) {
            let (node, endpoint) = (clean(node), clean(endpoint));
            return Err(UsageError(format!(
                "PARENT is the node `{node}`, and `--endpoint` is `{endpoint}`: give one of them"
            )));
        }
        let endpoint = endpoint.or(node);
        Ok(v1::ListSessionsRequest {
            parent,
            page_size: 0,
            page_token: String::new(),
            state: v1::SessionState::Unspecified.into(),
            connection_type: connection_type(self.connection_type),
            user_email: self.user_email.clone().unwrap_or_default(),
            ip_range: self.ip_range.clone().unwrap_or_default(),
            endpoint: endpoint.unwrap_or_default(),
            rule: self.rule.as_ref().map(|given| names.rule(given)).unwrap_or_default(),
            start_time: self.since,
            end_time: self.until,
        })
    }
}

impl RecordFilterArgs {
    /// What to say about these filters for a parent.
    pub(super) fn note(&self, parent: &str) -> Option<String> {
        note_of_types(&self.types, parent)
    }

    /// The request for the first page of records.
    pub(super) fn records(&self, parent: &ParentArgs) -> Result<v1::ListAuditRecordsRequest, UsageError> {
        let filters = self.filters.sessions(parent)?;
        Ok(v1::ListAuditRecordsRequest {
            parent: filters.parent,
            page_size: 0,
            page_token: String::new(),
            connection_type: filters.connection_type,
            decision: self.decision.map_or(v1::Decision::Unspecified, v1::Decision::from).into(),
            user_email: filters.user_email,
            ip_range: filters.ip_range,
            endpoint: filters.endpoint,
            rule: filters.rule,
            start_time: filters.start_time,
            end_time: filters.end_time,
            types: audit_types(&self.types),
        })
    }
}

/// What to say where records of a type are asked of an organization that only the cluster has.
pub(super) fn note_of_types(types: &[AuditType], parent: &str) -> Option<String> {
    use AuditType::{ClockChanged, Erased, Gap, KeyChanged, Pruned, Restored};
    if parent == CLUSTER {
        return None;
    }
    let word = |given: &AuditType| given.to_possible_value().map(|value| format!("`{}`", value.get_name()));
    let only = types.iter().filter(|given| matches!(given, Gap | Pruned | ClockChanged | KeyChanged | Restored));
    let only: Vec<_> = only.filter_map(word).collect();
    if !only.is_empty() {
        return Some(format!(
            "note: records of the type {} belong to no organization: ask for them with `cluster` as PARENT",
            only.join(", ")
        ));
    }
    types.contains(&Erased).then(|| {
        "note: erasures in all organizations (`--parent cluster`) are not among these: ask for them with `cluster` as PARENT"
            .to_owned()
    })
}

/// A connection type as a request has it.
pub(super) fn connection_type(given: Option<ConnectionType>) -> i32 {
    given.map_or(v1::ConnectionType::Unspecified, v1::ConnectionType::from).into()
}

/// Types of records as a request has them.
pub(super) fn audit_types(given: &[AuditType]) -> Vec<i32> {
    given.iter().map(|given| v1::AuditType::from(*given).into()).collect()
}

impl From<AuditType> for v1::AuditType {
    fn from(given: AuditType) -> Self {
        match given {
            AuditType::Decision => Self::Decision,
            AuditType::SessionEnded => Self::SessionEnded,
            AuditType::SessionRevoked => Self::SessionRevoked,
            AuditType::PolicyChanged => Self::PolicyChanged,
            AuditType::Gap => Self::Gap,
            AuditType::Pruned => Self::Pruned,
            AuditType::Erased => Self::Erased,
            AuditType::ClockChanged => Self::ClockChanged,
            AuditType::KeyChanged => Self::KeyChanged,
            AuditType::Restored => Self::Restored,
        }
    }
}
