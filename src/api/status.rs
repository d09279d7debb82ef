//! Every error of the service as a gRPC status: one table (design.md §3.7).
//!
//! Invariant: each has an `ErrorInfo` of the domain `portcullis` whose reason is a value of `ErrorReason`.
//! Not here: errors that tonic makes by itself (`transport`).

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::audit::lineage::Lineage;
use crate::engine::HistoryError;
use crate::engine::audit::AuditError;
use crate::engine::change::ChangeError;
use crate::engine::question::CheckError;
use crate::policy::judging::{Judged, Refusal};
use crate::policy::plan::{PlanError, VIOLATIONS_MAX, Violation};
use crate::proto::v1::ErrorReason;

/// The domain of every error.
pub(super) const DOMAIN: &str = "portcullis";

/// Details travel in a header, whose size clients limit. Violations that do not fit are counted instead.
const DETAILS_BYTES_MAX: usize = 4 * 1024;

/// The most bytes of a message.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// A status with its reason.
pub(super) fn error(code: Code, reason: ErrorReason, message: impl Into<String>) -> Status {
    Status::with_error_details(code, shortened(message.into()), details(reason))
}

/// Keeps a message, which travels in a header, within what clients take.
fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push('…');
    }
    message
}

fn details(reason: ErrorReason) -> ErrorDetails {
    details_with(reason, [])
}

fn details_with<const N: usize>(reason: ErrorReason, metadata: [(&str, String); N]) -> ErrorDetails {
    let name = reason.as_str_name();
    let name = name.strip_prefix("ERROR_REASON_").unwrap_or(name);
    ErrorDetails::with_error_info(name, DOMAIN, metadata.map(|(key, value)| (key.to_owned(), value)))
}

/// All malformed fields.
pub(super) fn invalid(violations: Vec<Violation>) -> Status {
    invalid_because(ErrorReason::InvalidField, violations)
}

/// Malformed fields, for a reason that has a name of its own.
pub(super) fn invalid_because(reason: ErrorReason, violations: Vec<Violation>) -> Status {
    let mut details = details(reason);
    let (mut bytes, count) = (0, violations.len());
    let message = shortened(PlanError::Invalid(violations.clone()).to_string());
    for (index, Violation { field, description }) in violations.into_iter().enumerate() {
        bytes += field.len() + description.len();
        if bytes > DETAILS_BYTES_MAX && index > 0 {
            let at_least = if count < VIOLATIONS_MAX { "" } else { "at least " };
            details.add_bad_request_violation(field, format!("and {at_least}{} more", count - index - 1));
            break;
        }
        details.add_bad_request_violation(field, description);
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// One malformed field.
pub(super) fn invalid_field(field: &str, description: impl Into<String>) -> Status {
    invalid(vec![Violation::new(field, description)])
}

/// Something that is named does not exist.
pub(super) fn not_found(name: &str) -> Status {
    plan(PlanError::NotFound(name.to_owned()))
}

/// The policy is not recovered yet.
pub(super) fn starting() -> Status {
    error(Code::Unavailable, ErrorReason::Starting, "the service is starting: try again in a moment")
}

/// Too many calls of this kind are under way.
pub(super) fn overloaded(what: &str) -> Status {
    error(Code::Unavailable, ErrorReason::Overloaded, format!("{what}: try again in a moment"))
}

/// A list was changed while it was paged through.
pub(super) fn list_changed() -> Status {
    let message = "the list was changed since the page token was made: begin again without a token";
    error(Code::Aborted, ErrorReason::ListChanged, message)
}

/// A page token of another lineage.
pub(super) fn list_of_other_lineage() -> Status {
    let message = "the page token is of another lineage, because the service was restored from a backup or is another \
                   one: begin again without a token";
    error(Code::Aborted, ErrorReason::LineageChanged, message)
}

/// The start of an event stream that is of another lineage; the details name the present one.
pub(super) fn sequence_of_other_lineage(given: Lineage, present: Lineage) -> Status {
    let message = format!(
        "`after_sequence` is of lineage `{given}`, and this is lineage `{present}`, because the service was restored from \
         a backup or is another one: begin again without `after_sequence`, and read again what you know from events"
    );
    let details = details_with(ErrorReason::LineageChanged, [("lineage", present.to_string())]);
    Status::with_error_details(Code::OutOfRange, message, details)
}

/// A fault of the service itself. It is logged, and the caller is not told what it was.
pub(super) fn internal(fault: &dyn std::error::Error) -> Status {
    tracing::error!(error = %fault, "internal fault");
    error(Code::Internal, ErrorReason::Internal, "internal fault: see the log of the service")
}

/// What feeds a stream has ended and did not say why.
pub(super) fn no_end() -> Status {
    let message = "the stream ended by a fault of the service: go on from what you have";
    error(Code::Internal, ErrorReason::Internal, message)
}

/// An answer that would be too large.
pub(super) fn answer_too_large(advice: &str) -> Status {
    let message = format!("the answer would exceed {} bytes: {advice}", super::ANSWER_BYTES_MAX);
    error(Code::ResourceExhausted, ErrorReason::AnswerTooLarge, message)
}

pub(super) fn plan(refusal: PlanError) -> Status {
    let message = refusal.to_string();
    let (code, reason) = match refusal {
        PlanError::Invalid(violations) => return invalid(violations),
        PlanError::NotFound(_) => (Code::NotFound, ErrorReason::NotFound),
        PlanError::AlreadyExists(_) => (Code::AlreadyExists, ErrorReason::AlreadyExists),
        PlanError::Stale { .. } => (Code::Aborted, ErrorReason::StaleEtag),
        PlanError::HasChildren(_) => (Code::FailedPrecondition, ErrorReason::HasChildren),
        PlanError::WouldWidenAccess { .. } => (Code::FailedPrecondition, ErrorReason::WouldWidenAccess),
        PlanError::GroupInUse { .. } => (Code::FailedPrecondition, ErrorReason::GroupInUse),
        PlanError::NoAllowlist { .. } => (Code::FailedPrecondition, ErrorReason::NoAllowlist),
        PlanError::ConfirmationPending { .. } => (Code::FailedPrecondition, ErrorReason::ConfirmationPending),
        PlanError::ShadowOutdated { .. } => (Code::FailedPrecondition, ErrorReason::ShadowOutdated),
        PlanError::NothingToConfirm { .. } => (Code::FailedPrecondition, ErrorReason::NothingToConfirm),
        PlanError::LimitReached { .. } => (Code::ResourceExhausted, ErrorReason::LimitReached),
    };
    error(code, reason, message)
}

pub(super) fn change(refusal: ChangeError) -> Status {
    let message = refusal.to_string();
    match refusal {
        ChangeError::Refused(refusal) => plan(refusal),
        ChangeError::Gated(refusals) => {
            let reason = refusals.first().map_or(ErrorReason::Internal, refusal_reason);
            error(Code::FailedPrecondition, reason, shortened(message))
        }
        ChangeError::NotWritable(_) => error(Code::Unavailable, ErrorReason::JournalNotWritable, message),
        ChangeError::NotRecordable(refusal) => audit(refusal),
        ChangeError::TooLarge(_) => error(Code::ResourceExhausted, ErrorReason::LimitReached, message),
        ChangeError::Overloaded => error(Code::Unavailable, ErrorReason::Overloaded, message),
        ChangeError::ShuttingDown => error(Code::Unavailable, ErrorReason::ShuttingDown, message),
    }
}

/// The reason that a gate's refusal has.
pub(super) fn refusal_reason(refusal: &Refusal) -> ErrorReason {
    match refusal {
        Refusal::GuardViolated { .. } | Refusal::CannotJudge { judged: Judged::Guards, .. } => {
            ErrorReason::GuardViolated
        }
        Refusal::TooManyRevocations { .. } | Refusal::CannotJudge { judged: Judged::Revocations, .. } => {
            ErrorReason::TooManyRevocations
        }
        Refusal::OpenToInternet { .. } | Refusal::CannotJudge { judged: Judged::Openness, .. } => {
            ErrorReason::OpenToInternet
        }
        Refusal::TestsFailed { .. } | Refusal::CannotJudge { judged: Judged::Tests, .. } => ErrorReason::TestsFailed,
    }
}

pub(super) fn history(refusal: HistoryError) -> Status {
    match refusal {
        HistoryError::Change(refusal) => change(refusal),
        refusal => internal(&refusal),
    }
}

pub(super) fn check(refusal: CheckError) -> Status {
    let message = refusal.to_string();
    match refusal {
        CheckError::RevisionNotReached { .. } => error(Code::Unavailable, ErrorReason::RevisionNotReached, message),
        CheckError::ClusterRevisionNotReached { .. } => {
            error(Code::Unavailable, ErrorReason::ClusterRevisionNotReached, message)
        }
        CheckError::Audit(refusal) => audit(refusal),
        CheckError::TooManySessions(_) => error(Code::ResourceExhausted, ErrorReason::LimitReached, message),
    }
}

/// The error of one Check as the error of its batch: the message begins with its index.
pub(super) fn check_of_batch(index: usize, refusal: CheckError) -> Status {
    let status = check(refusal);
    let message = shortened(format!("requests[{index}]: {}", status.message()));
    Status::with_error_details(status.code(), message, status.get_error_details())
}

pub(super) fn audit(refusal: AuditError) -> Status {
    let message = refusal.to_string();
    match refusal {
        AuditError::NotWritable(_) => error(Code::Unavailable, ErrorReason::AuditNotWritable, message),
        AuditError::NotReadable(_) => {
            tracing::error!(error = message, "the audit log cannot be read");
            error(Code::Unavailable, ErrorReason::Internal, message)
        }
        AuditError::Removed { first } | AuditError::Overtaken { first } => {
            out_of_range(ErrorReason::PositionRemoved, message, first)
        }
        AuditError::NotReached { newest, .. } => out_of_range(ErrorReason::PositionNotReached, message, newest),
        AuditError::Invalid { field, description } => invalid_field(field, description),
        AuditError::Busy => error(Code::Unavailable, ErrorReason::Overloaded, message),
        AuditError::Failed(_) | AuditError::ShuttingDown => {
            error(Code::Unavailable, ErrorReason::ShuttingDown, message)
        }
    }
}

/// A sequence that the log does not have; the details name the nearest that it has.
fn out_of_range(reason: ErrorReason, message: String, sequence: u64) -> Status {
    let key = if reason == ErrorReason::PositionRemoved { "first_sequence" } else { "newest_sequence" };
    Status::with_error_details(Code::OutOfRange, message, details_with(reason, [(key, sequence.to_string())]))
}
