//! The flags of every command that changes something.
//!
//! Invariant: an option that was not given is not set in the request.
//! Not here: the meaning of the gates, which the server checks.

use std::time::Duration;

use clap::Args;

use super::difference::Told;
use portcullis_policy::time::parse_duration;
use portcullis_proto::v1;

/// How a change is to be made.
#[derive(Args, Debug)]
#[command(next_help_heading = "Change options")]
pub(super) struct ChangeArgs {
    /// Why the change is made, for the audit record
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Check the change and answer as if it were made, but change nothing
    #[arg(long)]
    pub(super) validate_only: bool,
    #[command(flatten)]
    gates: GateArgs,
    /// Undo the change unless `portcullis revisions confirm` comes within this time, such as `5m`
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = "Change options")]
    confirm_within: Option<Duration>,
}

/// Whether a change is previewed instead of made.
#[derive(Args, Debug)]
#[command(next_help_heading = "Change options")]
pub(super) struct PreviewArgs {
    /// Show the exact effect of the change, but change nothing; exits with 3 if a gate would refuse it
    #[arg(long)]
    pub(super) preview: bool,
}

/// Gates for one change, besides those of the organization.
#[derive(Args, Debug)]
#[command(next_help_heading = "Gates")]
pub(super) struct GateArgs {
    /// Refuse the change if it would deny this address anything that it is allowed now; may be given several times
    #[arg(long = "guard-ip", value_name = "ADDRESS")]
    guard_ips: Vec<String>,
    /// Refuse the change if it would revoke more active sessions than this
    #[arg(long, value_name = "COUNT")]
    max_revocations: Option<i64>,
    /// Refuse the change if it would open something to every IPv4 or every IPv6 address
    #[arg(long)]
    refuse_open_to_internet: bool,
    /// Make the change even if it breaks policy tests; the audit record names the tests
    #[arg(long)]
    override_tests: bool,
}

impl GateArgs {
    /// Whether any was given.
    pub(super) fn given(&self) -> bool {
        !self.guard_ips.is_empty()
            || self.max_revocations.is_some()
            || self.refuse_open_to_internet
            || self.override_tests
    }

    /// The gates as options of a request.
    pub(super) fn options(&self) -> v1::ChangeOptions {
        v1::ChangeOptions {
            guard_ips: self.guard_ips.clone(),
            max_revocations: self.max_revocations,
            refuse_open_to_internet: self.refuse_open_to_internet,
            override_tests: self.override_tests,
            ..v1::ChangeOptions::default()
        }
    }
}

/// The etag that an object must still have.
#[derive(Args, Debug)]
#[command(next_help_heading = "Change options")]
pub(super) struct EtagArgs {
    /// Make the change only if this etag is still current
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,
}

/// Whether nodes may be deleted in a way that lets somebody in.
#[derive(Args, Debug)]
#[command(next_help_heading = "Gates")]
pub(super) struct ForceArgs {
    /// Make the change also where it deletes a node in a way that permits addresses which the node keeps out now
    #[arg(long)]
    pub(super) force: bool,
}

impl ChangeArgs {
    /// The options of the request; absent where none was given.
    pub(super) fn options(&self) -> Option<v1::ChangeOptions> {
        let given = self.validate_only || self.comment.is_some() || self.gates.given() || self.confirm_within.is_some();
        given.then(|| v1::ChangeOptions {
            validate_only: self.validate_only,
            comment: self.comment.clone().unwrap_or_default(),
            confirm_within: self.confirm_within.and_then(|within| within.try_into().ok()),
            ..self.gates.options()
        })
    }
}

impl ChangeArgs {
    /// How to tell what the change did: it was not made where it was only validated.
    pub(super) fn told(&self) -> Told {
        if self.validate_only { Told::Would } else { Told::Is }
    }

    /// Whether the change is undone unless it is confirmed.
    pub(super) fn waits(&self) -> bool {
        self.confirm_within.is_some()
    }
}

impl EtagArgs {
    /// The etag of the request; empty where none was given.
    pub(super) fn etag(&self) -> String {
        self.given().unwrap_or_default()
    }

    /// The etag as it was given, perhaps empty.
    pub(super) fn given(&self) -> Option<String> {
        self.etag.clone()
    }
}
