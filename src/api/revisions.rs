//! Revisions: the policy's history, who made each change, and going back to a revision.
//!
//! Invariant: a revision is read from the policy journal, so it is the policy that decided then.
//! Not here: reading the journal (`engine::history`).

use std::sync::Arc;

use tonic::{Response, Status};

use super::caller::Caller;
use super::convert::names;
use super::convert::reader::ReadChange;
use super::convert::{audit, to_time};
use super::differences::{Differences, fitting_changes};
use super::{Api, at_revision, status, to_i64};
use crate::audit::record::ObjectChange;
use crate::engine::{Engine, RevisionDetail, RevisionEntry};
use crate::policy::document::Document;
use crate::policy::name::{Id, Name};
use crate::policy::organization::Organization;
use crate::policy::plan::{Etags, Mutation};
use crate::proto::v1;

impl Api {
    pub(super) async fn list_revisions(
        &self,
        request: v1::ListRevisionsRequest,
    ) -> Result<Response<v1::ListRevisionsResponse>, Status> {
        let v1::ListRevisionsRequest { parent, page_size, page_token } = request;
        let (id, page) = self.page_of_organization("revisions", &parent, page_size, &page_token)?;
        let published = self.published(&id)?;
        let present = &published.view.organization;
        let before = match page.cursor.as_deref().map(str::parse) {
            None => None,
            Some(Ok(before)) => Some(before),
            Some(Err(_)) => return Err(status::invalid_field("page_token", "is no token of this list")),
        };
        let etags = self.etags()?;
        let entries = self.engine()?.revisions(&id, before, page.size + 1).await.map_err(status::history)?;
        let revisions = entries.iter().map(|entry| to_revision(etags, &id, entry, None, Some(present)));
        let (revisions, more) = page.take(revisions, prost::Message::encoded_len);
        let last = revisions.last().filter(|_| more);
        let next_page_token = last.map(|last| page.token(&last.revision.to_string())).unwrap_or_default();
        Ok(at_revision(v1::ListRevisionsResponse { revisions, next_page_token }, present.revision))
    }

    pub(super) async fn get_revision(&self, request: v1::GetRevisionRequest) -> Result<Response<v1::Revision>, Status> {
        let v1::GetRevisionRequest { name } = request;
        let (id, revision) = read_name("name", &name)?;
        let detail = self.detail(&name, &id, revision).await?;
        // The revisions of an organization that was deleted can still be read.
        let published = self.published(&id).ok();
        let present = published.as_ref().map(|published| &*published.view.organization);
        let revision = to_revision(self.etags()?, &id, &detail.entry, Some(&detail.changes), present);
        Ok(at_revision(revision, present.map_or(0, |present| present.revision)))
    }

    async fn detail(&self, name: &str, id: &Id, revision: u64) -> Result<RevisionDetail, Status> {
        let found = self.engine()?.revision(id, revision).await.map_err(status::history)?;
        found.ok_or_else(|| status::not_found(name))
    }

    /// What an organization was at a revision.
    async fn organization_at(&self, name: &str, id: &Id, revision: u64) -> Result<Arc<Organization>, Status> {
        self.detail(name, id, revision).await?.organization.ok_or_else(|| status::not_found(name))
    }

    pub(super) async fn compare_revisions(
        &self,
        request: v1::CompareRevisionsRequest,
    ) -> Result<Response<v1::CompareRevisionsResponse>, Status> {
        let v1::CompareRevisionsRequest { base, name } = request;
        let (of_base, base_revision) = read_name("base", &base)?;
        let (id, revision) = read_name("name", &name)?;
        if of_base != id {
            return Err(status::invalid_field("name", format!("is not a revision of `organizations/{of_base}`")));
        }
        let before = self.organization_at(&base, &id, base_revision).await?;
        let after = self.organization_at(&name, &id, revision).await?;
        let engine = Arc::clone(self.engine()?);
        let compare = move || {
            let prospect = engine.compare(&id, &before, &after);
            let mut differences = Differences::default();
            differences.add(&prospect);
            let changes = Engine::alterations(&before, &after);
            let (changes, changes_cut) =
                fitting_changes(audit::object_changes(engine.etags(), &changes, Some(&id), revision));
            let (differences, differences_cut) = differences.finish();
            v1::CompareRevisionsResponse { changes, differences, truncated: differences_cut || changes_cut }
        };
        Ok(Response::new(self.shared.heavy.run(compare).await?))
    }

    pub(super) async fn confirm_revision(
        &self,
        caller: Caller,
        request: v1::ConfirmRevisionRequest,
    ) -> Result<Response<v1::Revision>, Status> {
        let v1::ConfirmRevisionRequest { name, options } = request;
        let mut read = self.change_reader(options);
        read.refuse_confirm_within();
        let (id, revision) = read.note("name", names::revision(&name)).unzip();
        let mutation = revision.map(|revision| Mutation::Confirm { revision });
        self.to_new_revision(caller, read.change_inside(id, mutation)).await
    }

    pub(super) async fn rollback_revision(
        &self,
        caller: Caller,
        request: v1::RollbackRevisionRequest,
    ) -> Result<Response<v1::Revision>, Status> {
        let read = self.read_rollback_revision(request).await?;
        self.to_new_revision(caller, read).await
    }

    pub(super) async fn read_rollback_revision(
        &self,
        request: v1::RollbackRevisionRequest,
    ) -> Result<ReadChange, Status> {
        let v1::RollbackRevisionRequest { name, etag, force, options } = request;
        let etag = self.given_etag(etag)?;
        let mut read = self.change_reader(options);
        let (id, revision) = read_name("name", &name)?;
        let organization = self.engine()?.restorable(&id, revision).await.map_err(status::history)?;
        let organization = organization.ok_or_else(|| status::not_found(&name))?;
        if read.options.comment.is_empty() {
            read.options.comment = format!("back to revision {revision}").into();
        }
        let document = Box::new(Document::of(&organization));
        let mutation = Mutation::ReplacePolicy { document, etag, goes_back: true, force };
        Ok(read.change_inside(Some(id), Some(mutation)))
    }

    /// Makes a change and answers with the revision that it led to.
    pub(super) async fn to_new_revision(
        &self,
        caller: Caller,
        read: ReadChange,
    ) -> Result<Response<v1::Revision>, Status> {
        let changed = self.make(caller, read).await?;
        let etags = changed.etags;
        let id = changed.view.organization.id.clone();
        let entries = self.engine()?.revisions(&id, Some(changed.revision + 1), 1).await.map_err(status::history)?;
        let entry = entries.into_iter().next().ok_or_else(|| status::not_found("the revision"))?;
        let (before, after, validate_only) = (changed.before, changed.view.organization, changed.validate_only);
        let answer = self.shared.heavy.run(move || {
            let altered = before.map(|before| Engine::alterations(&before, &after)).unwrap_or_default();
            let mut revision = to_revision(etags, &id, &entry, Some(&altered), Some(&after));
            if validate_only && let Some(change) = &mut revision.policy_change {
                // Who made the present revision, and why, says nothing about a change that was not made.
                revision.revert_time = None;
                *change = v1::PolicyChange {
                    revision: change.revision,
                    changes: std::mem::take(&mut change.changes),
                    truncated: change.truncated,
                    ..v1::PolicyChange::default()
                };
            }
            revision
        });
        Ok(at_revision(answer.await?, changed.revision))
    }
}

fn read_name(field: &str, name: &str) -> Result<(Id, u64), Status> {
    names::revision(name).map_err(|description| status::invalid_field(field, description))
}

/// A revision. `present` is the organization as it is now, which may wait for the revision to be confirmed.
fn to_revision(
    etags: Etags,
    id: &Id,
    entry: &RevisionEntry,
    changes: Option<&[ObjectChange]>,
    present: Option<&Organization>,
) -> v1::Revision {
    let RevisionEntry { revision, time, actor, comment, confirm_until, overridden_tests, .. } = entry;
    let changes = changes.map(|changes| audit::object_changes(etags, changes, Some(id), *revision)).unwrap_or_default();
    let (changes, truncated) = fitting_changes(changes);
    let pending = present.and_then(|present| present.pending.as_ref()).filter(|pending| pending.revision == *revision);
    v1::Revision {
        name: Name::revision(id, revision).to_string(),
        revision: to_i64(*revision),
        create_time: Some(to_time(*time)),
        policy_change: Some(v1::PolicyChange {
            actor: actor.to_string(),
            revision: to_i64(*revision),
            comment: comment.to_string(),
            changes,
            overridden_tests: overridden_tests.iter().map(|test| Name::policy_test(id, test).to_string()).collect(),
            revert_time: confirm_until.map(to_time),
            truncated,
        }),
        revert_time: pending.map(|pending| to_time(pending.until)),
    }
}
