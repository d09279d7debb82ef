//! Words for connections, decisions and access modes, in flags and in policy files.
//!
//! Invariant: a word is one value of the protocol, and the same in flags and files.
//! Not here: how values are shown (`table`).

use clap::{Args, ValueEnum};
use serde::Serialize;

use portcullis_proto::v1;

/// The connection that is decided.
#[derive(Args, Debug)]
pub(super) struct ConnectionArgs {
    /// The address that the user comes from
    #[arg(long, value_name = "ADDRESS")]
    pub(super) ip: String,
    /// What the user opens
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(super) connection_type: ConnectionType,
    /// The node that the user connects to: a full name, or `projects/…` of the organization
    #[arg(long, value_name = "NAME")]
    pub(super) endpoint: String,
}

/// A connection type.
#[derive(ValueEnum, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ConnectionType {
    // No doc comments here and below: clap would show them in every `--help`.
    Shell,
    Preview,
}

/// A decision, or the action of a rule.
#[derive(ValueEnum, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Decision {
    Allow,
    Deny,
}

/// The access mode of a node.
#[derive(ValueEnum, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AccessMode {
    /// The parent's effective access
    Inherit,
    /// Everything, within what the levels above permit
    AllowAll,
    /// The given ranges and groups, nothing else
    AllowList,
}

impl From<AccessMode> for v1::AccessMode {
    fn from(mode: AccessMode) -> Self {
        match mode {
            AccessMode::Inherit => Self::Inherit,
            AccessMode::AllowAll => Self::AllowAll,
            AccessMode::AllowList => Self::AllowList,
        }
    }
}

impl From<ConnectionType> for v1::ConnectionType {
    fn from(connection_type: ConnectionType) -> Self {
        match connection_type {
            ConnectionType::Shell => Self::Shell,
            ConnectionType::Preview => Self::Preview,
        }
    }
}

impl From<Decision> for v1::Decision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Allow => Self::Allow,
            Decision::Deny => Self::Deny,
        }
    }
}

impl From<Decision> for v1::Action {
    fn from(action: Decision) -> Self {
        match action {
            Decision::Allow => Self::Allow,
            Decision::Deny => Self::Deny,
        }
    }
}
