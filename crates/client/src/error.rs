//! What a call ends with when there is no answer.
//!
//! Invariant: what a server said is kept whole: code, reason, message and every field violation, as it was sent. It is
//! not made safe for a terminal.
//! Not here: the codes and reasons themselves, which are in `portcullis/v1/error_reason.proto`.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;

use thiserror::Error;
use tonic::{Code, ConnectError, Status};
use tonic_types::StatusExt;

/// A call without the answer that was asked for. A caller that waits for a decision treats each of these as a denial.
#[derive(Clone, Debug, Error)]
pub enum CallError {
    /// There is no connection to the server. Nothing was done; trying again may help.
    #[error("cannot connect to the server: {cause}")]
    Unreachable {
        /// Why not.
        cause: String,
    },
    /// There was a connection, and it ended before the answer. The server may have done what it was asked for.
    #[error("the connection to the server broke: {cause}")]
    Broken {
        /// Why.
        cause: String,
    },
    /// The server answered with an error.
    #[error("{0}")]
    Refused(Box<Refusal>),
}

/// An error that a server answered with.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The gRPC status code, which says whether trying again may help.
    pub code: Code,
    /// The reason in `google.rpc.ErrorInfo`, such as `GUARD_VIOLATED`. Empty where there is none.
    pub reason: String,
    /// What more the reason says, by key.
    pub metadata: HashMap<String, String>,
    /// The message, without the violations that it ends with.
    pub message: String,
    /// The fields of the request that were refused.
    pub violations: Vec<Violation>,
}

/// A field of a request that the server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field, such as `rule.range`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl CallError {
    /// What the server answered; absent where it did not.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Unreachable { .. } | Self::Broken { .. } => None,
        }
    }
}

impl From<Status> for CallError {
    /// A status that has a source was made here, by the transport; one without came from the server.
    fn from(status: Status) -> Self {
        let causes: Vec<&(dyn StdError + 'static)> =
            std::iter::successors(status.source(), |cause| (*cause).source()).collect();
        if let Some(innermost) = causes.last() {
            let cause = innermost.to_string();
            let connecting = causes.iter().any(|cause| cause.is::<ConnectError>());
            return if connecting { Self::Unreachable { cause } } else { Self::Broken { cause } };
        }
        let (reason, metadata) =
            status.get_details_error_info().map(|info| (info.reason, info.metadata)).unwrap_or_default();
        let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
        let violations: Vec<_> = violations
            .into_iter()
            .map(|violation| Violation { field: violation.field, description: violation.description })
            .collect();
        let message = match status.message() {
            "" => status.code().description(),
            message => without_violations(message, &violations),
        };
        let message = message.to_owned();
        Self::Refused(Box::new(Refusal { code: status.code(), reason, metadata, message, violations }))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

/// A message up to where it lists the violations.
fn without_violations<'a>(message: &'a str, violations: &[Violation]) -> &'a str {
    let listed = violations.first().map(ToString::to_string);
    let before = listed.and_then(|listed| message.split_once(&listed)).map(|(before, _)| before.trim_end_matches(": "));
    before.filter(|before| !before.is_empty()).unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn what_the_server_said_is_kept_and_violations_are_said_once() {
        let mut details =
            ErrorDetails::with_error_info("INVALID_FIELD", "portcullis", [("first".to_owned(), "7".to_owned())]);
        details.add_bad_request_violation("ip", "`x` is no address");
        details.add_bad_request_violation("endpoint", "is missing");
        let message = "the request is wrong: ip: `x` is no address; endpoint: is missing";
        let status = Status::with_error_details(Code::InvalidArgument, message, details);
        let error = CallError::from(status);
        let refusal = error.refusal().unwrap();
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
        assert_eq!(refusal.metadata["first"], "7");
        assert_eq!(error.to_string(), "the request is wrong\n  ip: `x` is no address\n  endpoint: is missing");
        assert_eq!(CallError::from(Status::new(Code::NotFound, "")).to_string(), Code::NotFound.description());
    }

    #[test]
    fn error_of_the_transport_is_no_refusal() {
        let cause = std::io::Error::other("reset");
        let error = CallError::from(Status::from_error(Box::new(cause)));
        assert!(matches!(error, CallError::Broken { cause } if cause == "reset"));
    }
}
