//! Small parts of records in both directions: ids that may be absent, and enums.
//!
//! Invariant: each value has one stored number, and a stored number that no version wrote is none.
//! Not here: the records (`entry`, `session`).

use super::super::error::{CodecError, Decoded};
use super::super::object::id;
use crate::policy::decision::{Level, Reason};
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;
use crate::proto::storage as stored;

pub(super) fn optional_id(text: &str) -> Decoded<Option<Id>> {
    if text.is_empty() { Ok(None) } else { id(text).map(Some) }
}

pub(super) fn to_reason(reason: Reason) -> stored::AuditReason {
    match reason {
        Reason::AllowRule => stored::AuditReason::AllowRule,
        Reason::DefaultAllow => stored::AuditReason::DefaultAllow,
        Reason::UnknownEndpoint => stored::AuditReason::UnknownEndpoint,
        Reason::OutsideCluster => stored::AuditReason::OutsideCluster,
        Reason::DenyRule => stored::AuditReason::DenyRule,
        Reason::OutsideOrganization => stored::AuditReason::OutsideOrganization,
        Reason::OutsideEndpoint => stored::AuditReason::OutsideEndpoint,
    }
}

pub(super) fn from_reason(reason: stored::AuditReason) -> Option<Reason> {
    match reason {
        stored::AuditReason::Unspecified => None,
        stored::AuditReason::AllowRule => Some(Reason::AllowRule),
        stored::AuditReason::DefaultAllow => Some(Reason::DefaultAllow),
        stored::AuditReason::UnknownEndpoint => Some(Reason::UnknownEndpoint),
        stored::AuditReason::OutsideCluster => Some(Reason::OutsideCluster),
        stored::AuditReason::DenyRule => Some(Reason::DenyRule),
        stored::AuditReason::OutsideOrganization => Some(Reason::OutsideOrganization),
        stored::AuditReason::OutsideEndpoint => Some(Reason::OutsideEndpoint),
    }
}

pub(super) fn to_level(level: Option<Level>) -> stored::AuditLevel {
    match level {
        None => stored::AuditLevel::Unspecified,
        Some(Level::Cluster) => stored::AuditLevel::Cluster,
        Some(Level::Organization) => stored::AuditLevel::Organization,
        Some(Level::Project) => stored::AuditLevel::Project,
        Some(Level::Workspace) => stored::AuditLevel::Workspace,
        Some(Level::Endpoint) => stored::AuditLevel::Endpoint,
    }
}

pub(super) fn from_level(level: stored::AuditLevel) -> Option<Level> {
    match level {
        stored::AuditLevel::Unspecified => None,
        stored::AuditLevel::Cluster => Some(Level::Cluster),
        stored::AuditLevel::Organization => Some(Level::Organization),
        stored::AuditLevel::Project => Some(Level::Project),
        stored::AuditLevel::Workspace => Some(Level::Workspace),
        stored::AuditLevel::Endpoint => Some(Level::Endpoint),
    }
}

pub(super) fn to_connection_type(connection_type: ConnectionType) -> stored::AuditConnectionType {
    match connection_type {
        ConnectionType::Shell => stored::AuditConnectionType::Shell,
        ConnectionType::Preview => stored::AuditConnectionType::Preview,
    }
}

pub(super) fn from_connection_type(connection_type: stored::AuditConnectionType) -> Decoded<ConnectionType> {
    match connection_type {
        stored::AuditConnectionType::Unspecified => Err(CodecError::Invalid("connection type")),
        stored::AuditConnectionType::Shell => Ok(ConnectionType::Shell),
        stored::AuditConnectionType::Preview => Ok(ConnectionType::Preview),
    }
}
