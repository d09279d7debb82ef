//! The answer to a Check (design.md §2.4).
//!
//! Invariant: a verdict has a rule if and only if its reason is `AllowRule` or `DenyRule`, and a level if and only if
//! its reason is one of `Outside…`.
//! Not here: how a decision is made (`snapshot`).

use super::rule::Rule;

/// What a Check answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The connection is let through.
    Allow,
    /// The connection is refused.
    Deny,
}

/// Why a connection is allowed or denied: the step of the decision that settled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The first matching rule allows, and all allowlists permit the address.
    AllowRule,
    /// No rule matches, and all allowlists permit the address.
    DefaultAllow,
    /// The organization is unknown, or it requires projects and the project is unknown.
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
    /// The decision that this is a reason for.
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

    /// The message for the user, as in the table of design.md §2.4; empty when the connection is allowed.
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

/// A level of the hierarchy: tells which part of the checked name, or the cluster, had the access setting that applied.
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

/// A decision and what led to it, borrowed from the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'a> {
    /// The reason, which implies the decision.
    pub reason: Reason,
    /// For `AllowRule` and `DenyRule`: the rule that decided, and its 0-based index.
    pub rule: Option<(usize, &'a Rule)>,
    /// The 0-based index of the first matching rule, even when an allowlist refused afterwards.
    pub first_match: Option<usize>,
    /// For the `Outside…` reasons: the level of the node whose access refused.
    pub level: Option<Level>,
}

impl Verdict<'_> {
    /// The decision.
    pub fn decision(&self) -> Decision {
        self.reason.decision()
    }
}
