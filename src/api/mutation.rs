//! What all mutations share on their way from request to engine.
//!
//! Invariant: faults of a request reach the engine with the change, so that it judges in one order: does the object
//! exist, is the etag current, are the fields valid.
//! Not here: the parsing of particular requests (`rules`, `groups`, `hierarchy`).

use tonic::{Code, Status};

use super::caller::Caller;
use super::convert::Faults;
use super::convert::options::Options;
use super::{Api, status};
use crate::engine::change::{After, ChangeRequest, ChangeTarget, Changed};
use crate::engine::directory::OrganizationView;
use crate::policy::name::Id;
use crate::policy::plan::Mutation;
use crate::proto::v1::ErrorReason;

/// An organization after a change.
pub(super) struct ChangedOrganization {
    /// What it looks like, or would.
    pub(super) view: OrganizationView,
    /// The revision that holds.
    pub(super) revision: u64,
    /// Whether the change was only judged.
    pub(super) validate_only: bool,
    /// The rule or group that it was about, where it was about one.
    pub(super) object: Option<Id>,
}

impl ChangedOrganization {
    /// The etag of what was changed; none where nothing was, for an etag that was never given out must not fit.
    pub(super) fn etag(&self, etag: String) -> String {
        if self.validate_only { String::new() } else { etag }
    }
}

/// A request for a change, read.
pub(super) struct ChangeCall {
    /// What is to change; none where its name could not be read, and then the faults say so.
    pub(super) target: Option<ChangeTarget>,
    /// The rule or group that it is about, where it is about one.
    pub(super) object: Option<Id>,
    /// What is wrong with the request.
    pub(super) faults: Faults,
    /// How the change is to be made.
    pub(super) options: Options,
}

impl ChangeCall {
    /// A change inside an organization. `id` is none where its name could not be read, and then the faults say so.
    pub(super) fn inside(
        id: Option<Id>,
        mutation: Option<Mutation>,
        object: Option<Id>,
        faults: Faults,
        options: Options,
    ) -> Self {
        let target = id.zip(mutation).map(|(id, mutation)| ChangeTarget::Organization { id, mutation });
        Self { target, object, faults, options }
    }
}

impl Api {
    /// Carries out a change.
    pub(super) async fn change(
        &self,
        caller: Caller,
        target: ChangeTarget,
        faults: Faults,
        options: Options,
    ) -> Result<Changed, Status> {
        let Options { validate_only, comment, gates, confirm_within } = options;
        if confirm_within.is_some() && !matches!(target, ChangeTarget::Organization { .. }) {
            let message = "change option `confirm_within` is for changes inside an organization only: leave it unset";
            return Err(status::error(Code::Unimplemented, ErrorReason::UnsupportedOption, message));
        }
        let violations = faults.into_violations();
        let request = ChangeRequest {
            violations,
            actor: caller.actor(),
            comment,
            validate_only,
            gates,
            confirm_within,
            ..ChangeRequest::new(target)
        };
        self.engine()?.change(request).await.map_err(status::change)
    }

    /// Carries out a mutation inside an organization.
    pub(super) async fn make(&self, caller: Caller, call: ChangeCall) -> Result<ChangedOrganization, Status> {
        let ChangeCall { target, object, faults, options } = call;
        let Some(target) = target else { return Err(status::invalid(faults.into_violations())) };
        let validate_only = options.validate_only;
        let Changed { after, revision } = self.change(caller, target, faults, options).await?;
        match after {
            After::Organization(view) => Ok(ChangedOrganization { view, revision, validate_only, object }),
            After::Cluster(_) | After::Deleted => Err(status::not_found("the organization")),
        }
    }
}

/// An etag that was given.
pub(super) fn etag(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
