//! Errors as the command line shows them.
//!
//! Invariant: what a server said is shown whole: its message and every field violation; control characters in it never
//! reach a terminal.
//! Not here: the codes and messages themselves (`api`).

use std::error::Error;
use std::fmt;

use thiserror::Error as ThisError;
use tonic::{ConnectError, Status};
use tonic_types::StatusExt;

use super::table::clean;

/// An error with its causes. One that the text before already ends with is not said twice.
pub(super) fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        said if said.ends_with(&cause) => told,
        said => format!("{said}: {cause}"),
    })
}

/// A command that was well-formed for the parser and still cannot be meant.
#[derive(Debug, ThisError)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

/// The reasons that gates have.
const GATES: [&str; 4] = ["GUARD_VIOLATED", "TOO_MANY_REVOCATIONS", "OPEN_TO_INTERNET", "TESTS_FAILED"];

/// A call without the answer that was asked for.
#[derive(Debug)]
pub(super) enum CallError {
    /// There is no connection to the server.
    Unreachable {
        /// Why not.
        cause: String,
    },
    /// There was a connection, and it ended before the answer.
    Broken {
        /// Why.
        cause: String,
    },
    /// The server answered with an error.
    Refused {
        /// What the server said.
        message: String,
        /// The fields that it refused.
        violations: Vec<Violation>,
        /// Whether a gate refused a change.
        gated: bool,
    },
}

/// A field of a request that the server refused.
#[derive(Debug)]
pub(super) struct Violation {
    field: String,
    description: String,
}

impl CallError {
    /// Renames the fields that `name` has a better name for, such as the line of a file.
    pub(super) fn with_fields(mut self, name: impl Fn(&str) -> Option<String>) -> Self {
        if let Self::Refused { violations, .. } = &mut self {
            for violation in violations {
                violation.field = name(&violation.field).unwrap_or_else(|| std::mem::take(&mut violation.field));
            }
        }
        self
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let causes: Vec<&(dyn Error + 'static)> =
            std::iter::successors(status.source(), |cause| (*cause).source()).collect();
        if let Some(innermost) = causes.last() {
            let cause = innermost.to_string();
            let connecting = causes.iter().any(|cause| cause.is::<ConnectError>());
            return if connecting { Self::Unreachable { cause } } else { Self::Broken { cause } };
        }
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        let gated = GATES.contains(&reason.as_str());
        let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
        let violations: Vec<_> = violations
            .into_iter()
            .map(|violation| Violation { field: violation.field, description: violation.description })
            .collect();
        let message = match status.message() {
            "" => status.code().description(),
            message => without_violations(message, &violations),
        };
        Self::Refused { message: message.to_owned(), violations, gated }
    }
}

/// A message up to where it tells the violations, which are shown one by one below it.
fn without_violations<'a>(message: &'a str, violations: &[Violation]) -> &'a str {
    let told = violations.first().map(|Violation { field, description }| format!("{field}: {description}"));
    let before = told.and_then(|told| message.split_once(&told)).map(|(before, _)| before.trim_end_matches(": "));
    before.filter(|before| !before.is_empty()).unwrap_or(message)
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { cause } => write!(
                f,
                "{}: start a server with `portcullis serve`, or say where it is with `--server` or \
                 `PORTCULLIS_SERVER`",
                clean(cause)
            ),
            Self::Broken { cause } => write!(f, "the connection to the server broke: {}", clean(cause)),
            Self::Refused { message, violations, gated: _ } => {
                f.write_str(&clean(message))?;
                violations.iter().try_for_each(|Violation { field, description }| {
                    write!(f, "\n  {}: {}", clean(field), clean(description))
                })
            }
        }
    }
}

impl Error for CallError {}
