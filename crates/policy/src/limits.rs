//! The limits of a policy's size (design.md §3.8).
//!
//! Invariant: a change that exceeds a limit is refused. Nothing is truncated.
//! Not here: limits of requests and answers (`api`).

/// The greatest numbers that a policy state may have. The default is that of design.md §3.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Organizations of a server.
    pub organizations_max: usize,
    /// Rules of an organization.
    pub rules_per_organization_max: usize,
    /// Address groups of an organization.
    pub groups_per_organization_max: usize,
    /// Ranges of an address group.
    pub ranges_per_group_max: usize,
    /// Ranges of all address groups of an organization.
    pub ranges_per_organization_max: usize,
    /// Nodes below an organization.
    pub nodes_per_organization_max: usize,
    /// Entries of a node's allowlist.
    pub entries_per_node_max: usize,
    /// Policy tests of an organization.
    pub tests_per_organization_max: usize,
    /// Characters of a description, a display name or a comment.
    pub description_characters_max: usize,
}

impl Limits {
    /// No limits, for changes that only restore a policy that was accepted before.
    pub fn none() -> Self {
        Self {
            organizations_max: usize::MAX,
            rules_per_organization_max: usize::MAX,
            groups_per_organization_max: usize::MAX,
            ranges_per_group_max: usize::MAX,
            ranges_per_organization_max: usize::MAX,
            nodes_per_organization_max: usize::MAX,
            entries_per_node_max: usize::MAX,
            tests_per_organization_max: usize::MAX,
            description_characters_max: usize::MAX,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            organizations_max: 100_000,
            rules_per_organization_max: 100_000,
            groups_per_organization_max: 10_000,
            ranges_per_group_max: 1_000_000,
            ranges_per_organization_max: 2_000_000,
            nodes_per_organization_max: 100_000,
            entries_per_node_max: 10_000,
            tests_per_organization_max: 1_000,
            description_characters_max: 1_024,
        }
    }
}
