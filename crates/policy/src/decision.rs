//! The answer to a Check (design.md §2.4).
//!
//! Invariant: a verdict has a rule exactly when its reason is a rule's, and a level exactly when its reason is an
//! allowlist's.
//! Not here: how it is reached (`snapshot`).

use super::rule::Rule;

/// Whether a connection is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is.
    Allow,
    /// It is not.
    Deny,
}

/// At which step a decision fell, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A rule allows, and all allowlists permit.
    AllowRule,
    /// No rule matches, and all allowlists permit.
    DefaultAllow,
    /// The organization, or the project that it requires, is unknown.
    UnknownEndpoint,
    /// The cluster does not permit the address.
    OutsideCluster,
    /// The first matching rule denies.
    DenyRule,
    /// The organization does not permit the address.
    OutsideOrganization,
    /// The endpoint's effective access does not permit the address.
    OutsideEndpoint,
}

impl Reason {
    /// The decision that goes with the reason.
    pub fn decision(self) -> Decision {
        match self {
            Self::AllowRule | Self::DefaultAllow => Decision::Allow,
            Self::UnknownEndpoint
            | Self::OutsideCluster
            | Self::DenyRule
            | Self::OutsideOrganization
            | Self::OutsideEndpoint => Decision::Deny,
        }
    }

    /// What the user is told; empty when the connection is let through.
    pub fn message(self) -> &'static str {
        match self {
            Self::AllowRule | Self::DefaultAllow => "",
            Self::UnknownEndpoint => "unknown_endpoint",
            Self::OutsideCluster => "cluster_restricted",
            Self::DenyRule => "firewall_blocked",
            Self::OutsideOrganization => "organization_restricted",
            Self::OutsideEndpoint => "endpoint_restricted",
        }
    }
}

/// The node whose own setting decided, as a level of the name that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The cluster.
    Cluster,
    /// The organization of the name.
    Organization,
    /// The project of the name.
    Project,
    /// The workspace of the name.
    Workspace,
    /// The endpoint of the name.
    Endpoint,
}

/// A decision with what led to it; borrowed from the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'a> {
    /// At which step it fell, and how.
    pub reason: Reason,
    /// The rule that decided and its place in the order (0 is the first), for `AllowRule` and `DenyRule`.
    pub rule: Option<(usize, &'a Rule)>,
    /// The place of the rule that was the first match, also where an allowlist then refused.
    pub first_match: Option<usize>,
    /// The node that refused, for the `Outside…` reasons.
    pub level: Option<Level>,
}

impl Verdict<'_> {
    /// Whether the connection is let through.
    pub fn decision(&self) -> Decision {
        self.reason.decision()
    }
}
