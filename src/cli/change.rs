//! What every command that changes something takes.
//!
//! Invariant: an option that was not given is not set in the request.
//! Not here: options that no server supports yet.

use clap::Args;

use super::output::Output;
use super::table::clean;
use crate::proto::v1;

/// How a change is to be made.
#[derive(Args, Debug)]
#[command(next_help_heading = "Change options")]
pub(super) struct ChangeArgs {
    /// Why the change is made, for the audit record
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Have the change judged and answered as if it were made, and change nothing
    #[arg(long)]
    pub(super) validate_only: bool,
}

/// The etag that an object must still have.
#[derive(Args, Debug)]
#[command(next_help_heading = "Change options")]
pub(super) struct EtagArgs {
    /// Make the change only if this etag is still current
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,
}

impl ChangeArgs {
    /// The options of the request; absent where none was given.
    pub(super) fn options(&self) -> Option<v1::ChangeOptions> {
        let given = self.validate_only || self.comment.is_some();
        given.then(|| v1::ChangeOptions {
            validate_only: self.validate_only,
            comment: self.comment.clone().unwrap_or_default(),
            ..v1::ChangeOptions::default()
        })
    }

    /// What a deletion did, or would have done.
    pub(super) fn deleted(&self, name: &str) -> String {
        let did = if self.validate_only { "would delete" } else { "deleted" };
        format!("{did} {}\n", clean(name))
    }

    /// Says on the standard error that nothing was changed, where that is so.
    pub(super) fn say_if_validated(&self, output: &mut Output) {
        if self.validate_only {
            output.note("note: validated only, nothing was changed");
        }
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
