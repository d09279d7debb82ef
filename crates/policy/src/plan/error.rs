//! Why a mutation is refused.
//!
//! Invariant: messages are for people: lowercase, what was wrong with which input, what to do.
//! Not here: how errors are answered (`api`).

use thiserror::Error;

/// A field of a request that is malformed, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request, such as `rule.range` or `rules[3].address_group`.
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
    /// The object, or the parent of the one to create, does not exist.
    #[error("`{0}` does not exist")]
    NotFound(String),
    /// The id is taken.
    #[error("`{0}` exists already: choose another id or update it")]
    AlreadyExists(String),
    /// The caller's etag is not the current one.
    #[error("`{name}` was changed since etag `{given}` was read: read it again and repeat the change")]
    Stale {
        /// What the etag guards.
        name: String,
        /// The caller's etag.
        given: String,
    },
    /// Fields are malformed.
    #[error("{} invalid: {}", plural(.0.len()), list(.0))]
    Invalid(Vec<Violation>),
    /// A node with children is not deleted without `force`.
    #[error("`{0}` has nodes below it: delete them first, or set `force` to delete them with it")]
    HasChildren(String),
    /// Deleting the node would let addresses in that are kept out now.
    #[error("deleting `{0}` would permit addresses that it keeps out now: set `force` if that is meant")]
    WouldWidenAccess(String),
    /// A group that is named somewhere is not deleted.
    #[error("`{group}` is in use by `{user}`: remove it there first")]
    GroupInUse {
        /// The group.
        group: String,
        /// One of its users.
        user: String,
    },
    /// A change waits for its confirmation, and nothing else is changed meanwhile.
    #[error("revision {revision} of `{organization}` waits for its confirmation: confirm it, or roll it back, first")]
    ConfirmationPending {
        /// The organization's name.
        organization: String,
        /// The revision that waits.
        revision: u64,
    },
    /// There is nothing to confirm.
    #[error(
        "revision {revision} of `{organization}` does not wait for a confirmation: it was confirmed or undone before"
    )]
    NothingToConfirm {
        /// The organization's name.
        organization: String,
        /// The revision that was named.
        revision: u64,
    },
    /// The policy was changed since the candidate was set.
    #[error("`{organization}` was changed since revision {revision}, at which its shadow policy was set: set it again")]
    CandidateOutdated {
        /// The organization's name.
        organization: String,
        /// The revision at which the candidate was set.
        revision: u64,
    },
    /// A limit of the policy's size is reached.
    #[error("{what} are limited to {max}, and this change would make it {would_be}")]
    LimitReached {
        /// What is limited.
        what: &'static str,
        /// How many are permitted.
        max: usize,
        /// How many there would be.
        would_be: usize,
    },
}

impl PlanError {
    /// The error with its violations below a path.
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

fn plural(count: usize) -> String {
    if count == 1 { "1 field is".to_owned() } else { format!("{count} fields are") }
}

/// The first few violations in one line; the details carry all of them.
fn list(violations: &[Violation]) -> String {
    const SHOWN_MAX: usize = 3;
    let shown: Vec<String> =
        violations.iter().take(SHOWN_MAX).map(|v| format!("{}: {}", v.field, v.description)).collect();
    let more = if violations.len() > SHOWN_MAX { "; …" } else { "" };
    format!("{}{more}", shown.join("; "))
}

pub(super) fn refuse(violations: Vec<Violation>) -> Result<(), PlanError> {
    if violations.is_empty() { Ok(()) } else { Err(PlanError::Invalid(violations)) }
}
