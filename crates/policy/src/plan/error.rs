//! Why a mutation is refused.
//!
//! Invariant: a message stands alone as a sentence. It names the input in backticks, says what is wrong with it and
//! what to do, in lowercase and without a full stop (design.md §3.7).
//! Not here: how errors are answered (`api`).

use thiserror::Error;

/// An invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field in the request, such as `rule.range` or `rules[3].address_group`.
    pub field: String,
    /// What is wrong and what to do; lowercase, no full stop.
    pub description: String,
}

impl Violation {
    /// A violation of one field.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Why a mutation is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The object, or the parent of the object to create, does not exist. Holds its name.
    #[error("`{0}` does not exist")]
    NotFound(String),
    /// The id is taken. Holds the name of the object that has it.
    #[error("`{0}` exists already: choose another id or update it")]
    AlreadyExists(String),
    /// The caller's etag is not the current one.
    #[error("`{name}` was changed since etag `{given}` was read: read it again and repeat the change")]
    Stale {
        /// The name of the object that the etag guards.
        name: String,
        /// The caller's etag.
        given: String,
    },
    /// Fields are invalid. Holds a violation for each of them.
    #[error("{} invalid: {}", fields_are(.0.len()), list(.0))]
    Invalid(Vec<Violation>),
    /// A node with nodes below it is not deleted without `force`. Holds its name.
    #[error("`{0}` has nodes below it: delete them first, or set `force` to delete them with it")]
    HasChildren(String),
    /// Deleting nodes would permit addresses that they keep out now (design.md §2.3).
    #[error("deleting {} now: set `force` if that is meant", widened(nodes, *count))]
    WouldWidenAccess {
        /// The names of the first nodes.
        nodes: Vec<String>,
        /// How many nodes there are.
        count: usize,
    },
    /// An address group that is in use is not deleted (design.md §2.6).
    #[error("`{group}` is in use by `{user}`: remove it there first")]
    GroupInUse {
        /// The name of the group.
        group: String,
        /// The name of a rule or node that uses it.
        user: String,
    },
    /// Only an allowlist has entries that can be added or removed one by one (design.md §3.4).
    #[error(
        "`{node}` has no allowlist, it {}: set `access` with `UpdateNode`, as an allowlist with all of its entries",
        if *inherits { "inherits its access" } else { "permits every address" }
    )]
    NoAllowlist {
        /// The name of the node.
        node: String,
        /// Whether it inherits; otherwise it permits everything.
        inherits: bool,
    },
    /// A change waits for its confirmation, and until then nothing else is changed.
    #[error("revision {revision} of `{organization}` waits for its confirmation: confirm it or roll it back first")]
    ConfirmationPending {
        /// The organization's name.
        organization: String,
        /// The revision that the change made.
        revision: u64,
    },
    /// The change does not wait for a confirmation.
    #[error(
        "revision {revision} of `{organization}` does not wait for a confirmation: it never did, or it was confirmed or \
         undone before"
    )]
    NothingToConfirm {
        /// The organization's name.
        organization: String,
        /// The revision that the caller named.
        revision: u64,
    },
    /// The policy was changed after the shadow policy was set.
    #[error("`{organization}` was changed since revision {revision}, at which its shadow policy was set: set it again")]
    ShadowOutdated {
        /// The organization's name.
        organization: String,
        /// The revision at which the shadow policy was set.
        revision: u64,
    },
    /// A limit of the policy's size is reached (design.md §3.8).
    #[error(
        "the {what} are limited to {max}, and the change would make them {would_be}: remove some, or raise the limit \
         in the server's configuration"
    )]
    LimitReached {
        /// What is limited, in the plural, and of which object.
        what: String,
        /// The limit.
        max: usize,
        /// The number after the change.
        would_be: usize,
    },
}

impl PlanError {
    /// The error with the paths of its violations below another path.
    pub(super) fn below(self, path: &str) -> Self {
        match self {
            Self::Invalid(violations) => Self::Invalid(
                violations
                    .into_iter()
                    .map(|of| Violation::new(format!("{path}.{}", of.field), of.description))
                    .collect(),
            ),
            error => error,
        }
    }
}

/// The most violations that are collected: a request can have far more than anybody reads.
pub const VIOLATIONS_MAX: usize = 1_000;

fn fields_are(count: usize) -> String {
    match count {
        1 => "1 field is".to_owned(),
        // There may be more, which nobody looked for.
        VIOLATIONS_MAX.. => format!("at least {count} fields are"),
        count => format!("{count} fields are"),
    }
}

/// The nodes whose deletion would permit addresses, and that it would.
fn widened(nodes: &[String], count: usize) -> String {
    let named = nodes.iter().map(|node| format!("`{node}`")).collect::<Vec<_>>().join(", ");
    let keeps = if count == 1 { "it keeps" } else { "they keep" };
    match count - nodes.len().min(count) {
        0 => format!("{named} would permit addresses that {keeps} out"),
        1 => format!("{named} and 1 other node would permit addresses that {keeps} out"),
        others => format!("{named} and {others} other nodes would permit addresses that {keeps} out"),
    }
}

/// The first violations in one line. The error's details hold all of them.
fn list(violations: &[Violation]) -> String {
    const SHOWN_MAX: usize = 3;
    let shown: Vec<String> =
        violations.iter().take(SHOWN_MAX).map(|v| format!("{}: {}", v.field, v.description)).collect();
    let more = if violations.len() > SHOWN_MAX { "; …" } else { "" };
    format!("{}{more}", shown.join("; "))
}

/// Refuses the mutation when there is a violation.
pub(super) fn refuse(violations: Vec<Violation>) -> Result<(), PlanError> {
    if violations.is_empty() { Ok(()) } else { Err(PlanError::Invalid(violations)) }
}
