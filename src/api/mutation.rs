//! What all mutations share on their way from request to engine.
//!
//! Invariant: faults of a request reach the engine with the change, so that it judges in one order: does the object
//! exist, is the etag current, are the fields valid.
//! Not here: the parsing of particular requests (`rules`, `groups`, `hierarchy`).

use std::sync::Arc;

use tonic::{Request, Status};

use super::convert::Faults;
use super::convert::options::Options;
use super::{Api, status};
use crate::engine::change::{After, ChangeRequest, ChangeTarget, Changed};
use crate::engine::directory::OrganizationView;
use crate::policy::name::Id;
use crate::policy::plan::Mutation;

/// An organization after a change.
pub(super) struct ChangedOrganization {
    /// What it looks like, or would.
    pub(super) view: OrganizationView,
    /// The revision that holds.
    pub(super) revision: u64,
    /// Whether the change was only judged.
    pub(super) validate_only: bool,
}

impl ChangedOrganization {
    /// The etag of what was changed; none where nothing was, for an etag that was never given out must not fit.
    pub(super) fn etag(&self, etag: String) -> String {
        if self.validate_only { String::new() } else { etag }
    }
}

/// Who calls: without authentication, the address that the call came from.
pub(super) fn actor<T>(request: &Request<T>) -> Arc<str> {
    request.remote_addr().map(|address| address.ip().to_canonical().to_string()).unwrap_or_default().into()
}

impl Api {
    /// The services for one call, which know who calls.
    pub(super) fn acting<T>(&self, request: &Request<T>) -> Self {
        Self { actor: actor(request), ..self.clone() }
    }

    /// Carries out a change.
    pub(super) async fn change(
        &self,
        target: ChangeTarget,
        faults: Faults,
        options: Options,
    ) -> Result<Changed, Status> {
        let Options { validate_only, comment } = options;
        let violations = faults.into_violations();
        let request = ChangeRequest { target, violations, actor: Arc::clone(&self.actor), comment, validate_only };
        self.engine()?.change(request).await.map_err(status::change)
    }

    /// Carries out a mutation inside an organization. `id` is none where its name could not be read, and then the
    /// faults say so.
    pub(super) async fn change_organization(
        &self,
        id: Option<Id>,
        mutation: Option<Mutation>,
        faults: Faults,
        options: Options,
    ) -> Result<ChangedOrganization, Status> {
        let (Some(id), Some(mutation)) = (id, mutation) else {
            return Err(status::invalid(faults.into_violations()));
        };
        let name = format!("organizations/{id}");
        let validate_only = options.validate_only;
        let target = ChangeTarget::Organization { id, mutation };
        let Changed { after, revision } = self.change(target, faults, options).await?;
        match after {
            After::Organization(view) => Ok(ChangedOrganization { view, revision, validate_only }),
            After::Cluster(_) | After::Deleted => Err(status::not_found(&name)),
        }
    }
}

/// An etag that was given.
pub(super) fn etag(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
