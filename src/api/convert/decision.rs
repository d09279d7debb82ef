//! Decisions, reasons and connection types in messages.
//!
//! Invariant: a connection type, an action or a decision that is unspecified or unknown is a fault where one must be given.
//! Not here: whole answers (`api::decision`) and records (`audit`).

use super::Faults;
use crate::audit::session::RevokeReason;
use crate::policy::decision::{Decision, Level, Reason};
use crate::policy::name::{CLUSTER, NodePath};
use crate::policy::rule::{Action, ConnectionType};
use crate::proto::{same_variants, v1};

same_variants!(pub(in crate::api) to_decision, from_decision: Decision => v1::Decision { Allow Deny });
same_variants!(pub(in crate::api) to_action, from_action: Action => v1::Action { Allow Deny });
same_variants!(
    pub(in crate::api) to_connection_type, from_connection_type: ConnectionType => v1::ConnectionType { Shell Preview }
);
same_variants!(
    pub(in crate::api) to_reason: Reason => v1::Reason {
        AllowRule DefaultAllow UnknownEndpoint OutsideCluster DenyRule OutsideOrganization OutsideEndpoint
    }
);

/// Why a session was revoked.
pub(in crate::api) fn to_revoke_reason(reason: RevokeReason) -> v1::Reason {
    match reason {
        RevokeReason::Denied(reason) => to_reason(reason),
        RevokeReason::AddressErased => v1::Reason::AddressErased,
    }
}

impl Faults {
    /// A connection type that must be given.
    pub(in crate::api) fn connection_type(&mut self, field: &str, value: i32) -> Option<ConnectionType> {
        let advice = "use CONNECTION_TYPE_SHELL or CONNECTION_TYPE_PREVIEW";
        self.choice(field, value, from_connection_type, "connection type", advice)
    }

    /// An action that must be given.
    pub(in crate::api) fn action(&mut self, field: &str, value: i32) -> Option<Action> {
        self.choice(field, value, from_action, "action", "use ACTION_ALLOW or ACTION_DENY")
    }

    /// A decision that must be given.
    pub(in crate::api) fn decision(&mut self, field: &str, value: i32) -> Option<Decision> {
        self.choice(field, value, from_decision, "decision", "use DECISION_ALLOW or DECISION_DENY")
    }
}

/// The part of a node's name that a level is.
pub(in crate::api) fn node_name<'a>(level: Level, target: &NodePath<'a>) -> &'a str {
    match level {
        Level::Cluster => CLUSTER,
        Level::Organization => target.ancestor(0),
        Level::Project => target.ancestor(1),
        Level::Workspace => target.ancestor(2),
        Level::Endpoint => target.ancestor(3),
    }
}
