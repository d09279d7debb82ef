//! What a caller brings of another lineage is refused (design.md §2.11).
//!
//! Etags, page tokens and the starts of event streams name a point of a history. After a restore from a backup the same
//! revisions and sequences are given out again, so such a point means something else, or nothing.
//!
//! Invariant: it is refused before anything else of its call is judged.
//! Not here: making etags (`policy::plan::Etags`) and page tokens (`paging`).

use tonic::{Code, Status};

use super::{Api, status};
use crate::policy::plan::Etags;
use crate::proto::v1::mutation::Request as Asked;
use crate::proto::v1::{self, ErrorReason};

/// An etag of another lineage.
#[derive(Debug)]
pub(super) struct ForeignEtag(String);

impl From<ForeignEtag> for Status {
    fn from(ForeignEtag(etag): ForeignEtag) -> Self {
        let message = format!(
            "etag `{etag}` is of another lineage, because the service was restored from a backup or is another one: read \
             the object again and repeat the change"
        );
        status::error(Code::Aborted, ErrorReason::LineageChanged, message)
    }
}

impl Api {
    /// The etags that are current.
    pub(super) fn etags(&self) -> Result<Etags, Status> {
        Ok(self.engine()?.etags())
    }

    /// An etag that a caller gave; an empty one was not given.
    pub(super) fn given_etag(&self, etag: String) -> Result<Option<String>, ForeignEtag> {
        self.check_etag(&etag)?;
        Ok((!etag.is_empty()).then_some(etag))
    }

    /// Refuses mutations one of which has an etag of another lineage.
    pub(super) fn check_mutations(&self, mutations: &[v1::Mutation]) -> Result<(), ForeignEtag> {
        let asked = mutations.iter().filter_map(|mutation| mutation.request.as_ref());
        asked.filter_map(etag_of).try_for_each(|etag| self.check_etag(etag))
    }

    fn check_etag(&self, etag: &str) -> Result<(), ForeignEtag> {
        // Without an engine the call is refused anyway.
        if self.engine.get().is_some_and(|engine| engine.etags().is_foreign(etag)) {
            return Err(ForeignEtag(etag.to_owned()));
        }
        Ok(())
    }
}

/// The etag that guards what a mutation changes, as its RPC reads it.
fn etag_of(mutation: &Asked) -> Option<&str> {
    let etag = match mutation {
        Asked::CreateRule(_)
        | Asked::CreateAddressGroup(_)
        | Asked::CreateNode(_)
        | Asked::AddRanges(_)
        | Asked::RemoveRanges(_)
        | Asked::CreatePolicyTest(_)
        | Asked::DeletePolicyTest(_) => return None,
        Asked::UpdateRule(request) => &request.rule.as_ref()?.etag,
        Asked::UpdateAddressGroup(request) => &request.address_group.as_ref()?.etag,
        Asked::UpdateNode(request) => &request.node.as_ref()?.etag,
        Asked::DeleteRule(request) => &request.etag,
        Asked::ReorderRules(request) => &request.etag,
        Asked::MoveRule(request) => &request.etag,
        Asked::ReplaceRules(request) => &request.etag,
        Asked::DeleteAddressGroup(request) => &request.etag,
        Asked::ReplaceRanges(request) => &request.etag,
        Asked::PatchRanges(request) => &request.etag,
        Asked::DeleteNode(request) => &request.etag,
        Asked::AddAccessEntries(request) => &request.etag,
        Asked::RemoveAccessEntries(request) => &request.etag,
        Asked::RollbackRevision(request) => &request.etag,
        Asked::ApplyPolicy(request) => &request.etag,
    };
    Some(etag)
}
