//! Values of enums as they are typed.
//!
//! Invariant: a value that is typed has one value of the protocol.
//! Not here: how values are shown (`table`), and those that only one command has.

use clap::ValueEnum;

use crate::proto::v1;

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
