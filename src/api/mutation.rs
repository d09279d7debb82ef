//! What all mutations share between request and engine.
//!
//! Invariant: faults of a request reach the engine with the change, which judges in one order: does the object exist, is
//! the etag current, are the fields valid.
//! Not here: the parsing of particular requests (`rules`, `groups`, `hierarchy`).

use std::sync::Arc;

use tonic::{Code, Status};

use super::caller::Caller;
use super::convert::reader::{ReadChange, Reader};
use super::{Api, status};
use crate::engine::change::{ChangeRequest, ChangeTarget, Changed};
use crate::engine::directory::OrganizationView;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::plan::Mutation;
use crate::proto::v1::{self, ErrorReason};

/// An organization after a change.
pub(super) struct ChangedOrganization {
    /// The organization as the change leaves it, or would leave it.
    pub(super) view: OrganizationView,
    /// The organization before it.
    pub(super) before: Option<Arc<Organization>>,
    /// Its revision.
    pub(super) revision: u64,
    /// Whether the change was only judged.
    pub(super) validate_only: bool,
    /// The rule, group or policy test that it was about, if any.
    pub(super) object: Option<Id>,
}

impl ChangedOrganization {
    /// The etag of what was changed. Empty if the change was only judged: an etag that does not exist must not match later.
    pub(super) fn etag(&self, etag: String) -> String {
        if self.validate_only { String::new() } else { etag }
    }
}

impl Api {
    /// Reads a request for a change, its options first.
    pub(super) fn change_reader(&self, options: Option<v1::ChangeOptions>) -> Reader {
        Reader::new(&self.limits, options)
    }

    /// Carries out a change for a caller.
    pub(super) async fn change(&self, caller: Caller, request: ChangeRequest) -> Result<Changed, Status> {
        if request.confirm_within.is_some() && !matches!(request.target, ChangeTarget::Organization { .. }) {
            let message = "change option `confirm_within` is for changes inside an organization only: leave it unset";
            return Err(status::error(Code::Unimplemented, ErrorReason::UnsupportedOption, message));
        }
        let request = ChangeRequest { actor: caller.actor(), ..request };
        self.engine()?.change(request).await.map_err(status::change)
    }

    /// Carries out a mutation inside an organization for a caller.
    pub(super) async fn make(&self, caller: Caller, read: ReadChange) -> Result<ChangedOrganization, Status> {
        let request = read.map_err(status::invalid)?;
        let (validate_only, object) = (request.validate_only, object(&request.target).cloned());
        let changed = self.change(caller, request).await?;
        let view = changed.view().ok_or_else(|| status::not_found("the organization"))?;
        let before = changed.before.organization().cloned();
        Ok(ChangedOrganization { view, before, revision: changed.revision, validate_only, object })
    }
}

/// What an answer shows of a change: the rule, group or policy test that it leaves behind.
fn object(target: &ChangeTarget) -> Option<&Id> {
    let ChangeTarget::Organization { mutation, .. } = target else { return None };
    match mutation {
        Mutation::CreateRule { id, .. }
        | Mutation::UpdateRule { id, .. }
        | Mutation::MoveRule { id, .. }
        | Mutation::CreateGroup { id, .. }
        | Mutation::UpdateGroup { id, .. }
        | Mutation::AddRanges { id, .. }
        | Mutation::RemoveRanges { id, .. }
        | Mutation::ReplaceRanges { id, .. }
        | Mutation::PatchRanges { id, .. } => Some(id),
        Mutation::CreateTest { test } => Some(&test.id),
        _ => None,
    }
}

/// A text field that may be left out: an empty one was not given.
pub(super) fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
