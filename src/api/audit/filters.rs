//! Filters in requests.
//!
//! Invariant: all faults of a filter are reported together. Page tokens are bound to personal data only by a keyed hash.
//! Not here: what passes a filter (`audit::filter`).

use std::hash::BuildHasher;

use tonic::Status;

use super::super::convert::Faults;
use super::super::convert::audit::{from_state, from_type};
use super::super::convert::names;
use super::super::{Api, status};
use super::AuditReads;
use crate::audit::filter::{RecordFilter, SessionFilter};
use crate::audit::record::RecordType;
use crate::policy::name::{CLUSTER, Id, Name, NodePath};
use crate::proto::v1;

/// Whose records: an organization's, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    Cluster,
    Organization(Id),
}

impl Parent {
    pub(super) fn organization(&self) -> Option<&Id> {
        match self {
            Self::Cluster => None,
            Self::Organization(id) => Some(id),
        }
    }
}

/// Reads a parent.
pub(super) fn parent(faults: &mut Faults, text: &str) -> Option<Parent> {
    if text == CLUSTER {
        return Some(Parent::Cluster);
    }
    names::organization(faults, "parent", text).map(Parent::Organization)
}

/// The fields that the filters of all lists have.
pub(super) struct Common {
    pub(super) connection_type: i32,
    pub(super) user_email: String,
    pub(super) ip_range: String,
    pub(super) endpoint: String,
    pub(super) rule: String,
    pub(super) start_time: Option<prost_types::Timestamp>,
    pub(super) end_time: Option<prost_types::Timestamp>,
}

impl Common {
    /// Reads them into a filter that passes records of all types and decisions.
    fn read(&self, faults: &mut Faults, parent: Option<&Parent>) -> RecordFilter {
        let of = parent.and_then(Parent::organization);
        let connection_type =
            (self.connection_type != 0).then(|| faults.connection_type("connection_type", self.connection_type));
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let range = if self.ip_range.is_empty() { None } else { faults.parse("ip_range", &self.ip_range) };
        let mut time = |field, time: Option<prost_types::Timestamp>| time.and_then(|time| faults.time(field, time));
        let (start_time, end_time) = (time("start_time", self.start_time), time("end_time", self.end_time));
        if let (Some(start), Some(end)) = (start_time, end_time)
            && start > end
        {
            faults.add("end_time", "is before `start_time`: nothing lies between them");
        }
        RecordFilter {
            organization: of.cloned(),
            connection_type: connection_type.flatten(),
            email: text(&self.user_email),
            range,
            endpoint: read_endpoint(faults, of, &self.endpoint),
            rule: read_rule(faults, of, &self.rule),
            start_time,
            end_time,
            ..RecordFilter::default()
        }
    }

    /// What a page token is bound to, the personal fields keyed.
    pub(super) fn binding(&self, reads: &AuditReads) -> String {
        let Self { connection_type, user_email, ip_range, endpoint, rule, start_time, end_time } = self;
        let personal = match (user_email.is_empty(), ip_range.is_empty()) {
            (true, true) => 0,
            _ => reads.token_key.hash_one((user_email, ip_range)),
        };
        let time = |time: &Option<prost_types::Timestamp>| time.map(|time| (time.seconds, time.nanos));
        format!("{connection_type} {personal:x} {endpoint} {rule} {:?} {:?}", time(start_time), time(end_time))
    }
}

fn read_endpoint(faults: &mut Faults, of: Option<&Id>, text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let path = faults.note("endpoint", NodePath::parse(text))?;
    if of.is_none_or(|of| of.as_str() == path.organization) {
        return Some(text.to_owned());
    }
    faults.add("endpoint", format!("`{text}` is not in the parent: name one of its nodes, or it"));
    None
}

fn read_rule(faults: &mut Faults, of: Option<&Id>, text: &str) -> Option<(Id, Id)> {
    if text.is_empty() {
        return None;
    }
    let named = faults.note("rule", names::rule(text))?;
    if of.is_none_or(|of| *of == named.0) {
        return Some(named);
    }
    faults.add("rule", format!("`{text}` is not a rule of the parent: name one of its rules"));
    None
}

/// Reads the filter of a list of records.
pub(super) fn records(
    faults: &mut Faults,
    parent: Option<&Parent>,
    common: &Common,
    types: &[i32],
    decision: i32,
) -> RecordFilter {
    let filter = common.read(faults, parent);
    let decision = if decision == 0 { None } else { faults.decision("decision", decision) };
    RecordFilter { decision, types: read_types(faults, types), ..filter }
}

/// Reads the filter of a list of sessions.
pub(super) fn sessions(faults: &mut Faults, parent: Option<&Parent>, common: &Common, state: i32) -> SessionFilter {
    let RecordFilter {
        organization,
        types: _,
        connection_type,
        decision: _,
        email,
        range,
        endpoint,
        rule,
        start_time,
        end_time,
    } = common.read(faults, parent);
    let advice = "use SESSION_STATE_ACTIVE or SESSION_STATE_ENDED";
    let state = if state == 0 { None } else { faults.choice("state", state, from_state, "state", advice) };
    SessionFilter { organization, state, connection_type, email, range, endpoint, rule, start_time, end_time }
}

/// Reads a list of types of records.
pub(super) fn read_types(faults: &mut Faults, types: &[i32]) -> Vec<RecordType> {
    let mut read = Vec::new();
    for (index, number) in types.iter().enumerate() {
        let Some(record_type) = v1::AuditType::try_from(*number).ok().and_then(from_type) else {
            let description = format!("`{number}` is no type of records: use one such as AUDIT_TYPE_DECISION");
            faults.add(format!("types[{index}]"), description);
            continue;
        };
        if !read.contains(&record_type) {
            read.push(record_type);
        }
    }
    read
}

impl Api {
    /// Checks that the organization exists, or once did: its records stay readable.
    pub(super) fn check_parent(&self, parent: &Parent) -> Result<(), Status> {
        let Parent::Organization(id) = parent else { return Ok(()) };
        let directory = self.engine()?.directory();
        if directory.organization(id.as_str()).is_some() || directory.was_deleted(id.as_str()) {
            return Ok(());
        }
        Err(status::not_found(&Name::organization(id).to_string()))
    }
}
