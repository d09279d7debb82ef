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
use crate::policy::document::TestSpec;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::plan::{Etags, Mutation};
use crate::proto::v1::{self, ErrorReason};

/// An organization after a change.
pub(super) struct ChangedOrganization {
    /// The organization as the change leaves it, or would leave it.
    pub(super) view: OrganizationView,
    /// The etags that are current.
    pub(super) etags: Etags,
    /// Its revision.
    pub(super) revision: u64,
    /// Whether the change was only judged.
    pub(super) validate_only: bool,
    /// The organization before the change.
    pub(super) before: Option<Arc<Organization>>,
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
        let request = read?;
        let (validate_only, object) = (request.validate_only, ChangedObject::of(&request.target));
        let changed = self.change(caller, request).await?;
        let view = changed.view().ok_or_else(|| status::not_found("the organization"))?;
        let before = changed.before.organization().cloned();
        let object = object.id(before.as_deref(), &view.organization);
        let etags = self.etags()?;
        Ok(ChangedOrganization { view, etags, before, revision: changed.revision, validate_only, object })
    }
}

/// What an answer shows of a change: the rule, group or policy test that it leaves behind.
enum ChangedObject {
    None,
    Known(Id),
    NewRule,
    NewGroup,
    NewTest,
}

impl ChangedObject {
    fn of(target: &ChangeTarget) -> Self {
        let ChangeTarget::Organization { mutation, .. } = target else { return Self::None };
        match mutation {
            Mutation::CreateRule { id: None, .. } => Self::NewRule,
            Mutation::CreateGroup { id: None, .. } => Self::NewGroup,
            Mutation::CreateTest { test: TestSpec { id: None, .. } } => Self::NewTest,
            Mutation::CreateRule { id: Some(id), .. }
            | Mutation::UpdateRule { id, .. }
            | Mutation::MoveRule { id, .. }
            | Mutation::CreateGroup { id: Some(id), .. }
            | Mutation::UpdateGroup { id, .. }
            | Mutation::AddRanges { id, .. }
            | Mutation::RemoveRanges { id, .. }
            | Mutation::ReplaceRanges { id, .. }
            | Mutation::PatchRanges { id, .. }
            | Mutation::CreateTest { test: TestSpec { id: Some(id), .. } } => Self::Known(id.clone()),
            _ => Self::None,
        }
    }

    /// Its id. That of a new object is found by comparing the organization with the one before the change.
    fn id(self, before: Option<&Organization>, after: &Organization) -> Option<Id> {
        let before = before?;
        let was_changed = |changed_at: u64| changed_at > before.revision;
        match self {
            Self::None => None,
            Self::Known(id) => Some(id),
            Self::NewRule => {
                let new = after.rules.iter().find(|rule| was_changed(rule.changed_at));
                new.map(|rule| rule.id.clone())
            }
            Self::NewGroup => {
                let new = after.groups.values().find(|group| was_changed(group.changed_at));
                new.map(|group| group.id.clone())
            }
            Self::NewTest => {
                let is_known = |id: &Id| before.tests.binary_search_by(|known| known.id.cmp(id)).is_ok();
                let new = after.tests.iter().find(|test| !is_known(&test.id));
                new.map(|test| test.id.clone())
            }
        }
    }
}
