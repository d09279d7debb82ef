//! Errors as the command line shows them.
//!
//! Invariant: what a server said is shown whole: its message and every field violation; control characters in it never
//! reach a terminal.
//! Not here: the errors of calls themselves (`portcullis-client`).

use portcullis_client::{CallError, Violation};
use thiserror::Error as ThisError;

use super::table::clean;
use portcullis_proto::v1::ErrorReason;

/// Wrong usage that the parser cannot see.
#[derive(Debug, ThisError)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

/// The reasons with which gates refuse changes.
const GATES: [ErrorReason; 4] = [
    ErrorReason::GuardViolated,
    ErrorReason::TooManyRevocations,
    ErrorReason::OpenToInternet,
    ErrorReason::TestsFailed,
];

/// An error with its causes. A cause that the text already ends with is not repeated.
pub(super) fn with_causes(error: &anyhow::Error) -> String {
    let causes = error.chain().map(|cause| cause.downcast_ref().map_or_else(|| cause.to_string(), of_call));
    causes.fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        before if before.ends_with(&cause) => text,
        before => format!("{before}: {cause}"),
    })
}

/// The error of a call, safe for a terminal, and what to do about it.
pub(super) fn of_call(error: &CallError) -> String {
    match error {
        CallError::Unreachable { cause } => format!(
            "{}: start a server with `portcullis serve`, or say where it is with `--server` or `PORTCULLIS_SERVER`",
            clean(cause)
        ),
        CallError::Broken { .. } => clean(&error.to_string()),
        CallError::Refused(refusal) => {
            let violations =
                refusal.violations.iter().map(|violation| format!("\n  {}", clean(&violation.to_string())));
            clean(&refusal.message) + &violations.collect::<String>()
        }
    }
}

/// Whether a gate refused a change.
pub(super) fn is_gated(error: &CallError) -> bool {
    let reason = error.refusal().map_or("", |refusal| &refusal.reason);
    GATES.iter().any(|gate| gate.as_str_name().strip_prefix("ERROR_REASON_") == Some(reason))
}

/// Alters the message.
pub(super) fn with_message(mut error: CallError, alter: impl FnOnce(&str) -> String) -> CallError {
    if let CallError::Refused(refusal) = &mut error {
        refusal.message = alter(&refusal.message);
    }
    error
}

/// Alters what is said of refused fields.
pub(super) fn with_violations(mut error: CallError, mut alter: impl FnMut(&mut Violation)) -> CallError {
    if let CallError::Refused(refusal) = &mut error {
        refusal.violations.iter_mut().for_each(&mut alter);
    }
    error
}

/// Renames the refused fields for which `name` has a better name, such as the line of a file.
pub(super) fn with_fields(error: CallError, name: impl Fn(&str) -> Option<String>) -> CallError {
    with_violations(error, |violation| {
        if let Some(name) = name(&violation.field) {
            violation.field = name;
        }
    })
}
