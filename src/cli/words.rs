//! Connections and decisions as they are typed, for the commands that have them in common.
//!
//! Invariant: a typed value is one value of the protocol.
//! Not here: how values are shown (`table`).

use clap::{Args, ValueEnum};

use crate::proto::v1;

/// The connection that is decided.
#[derive(Args, Debug)]
pub(super) struct ConnectionArgs {
    /// The address that the user comes from
    #[arg(long, value_name = "ADDRESS")]
    pub(super) ip: String,
    /// What the user opens
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(super) connection_type: ConnectionType,
    /// The node that the user connects to: a full name, `projects/…` of the organization, or an organization's id
    #[arg(long, value_name = "NAME")]
    pub(super) endpoint: String,
}

// No doc comments on the values: clap would show them below every `--help`.

/// A connection type as it is typed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionType {
    Shell,
    Preview,
}

/// A decision, or the action of a rule, as it is typed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allow,
    Deny,
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
