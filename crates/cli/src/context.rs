//! What a command that asks a server works with, and the ends that such commands have in common.
//!
//! Invariant: a change that was only validated is never shown as one that was made.
//! Not here: what is asked, and how an answer looks as a table: each command knows that.

use portcullis_client::{Client, answer};
use prost::{Message, Name};
use tonic::{Response, Status};

use super::change::ChangeArgs;
use super::color::{ColorWhen, Colors};
use super::comparison;
use super::exit::Exit;
use super::names::organization_of;
use super::output::Output;
use super::pages::{self, LimitArgs, Page};
use super::table::clean;
use portcullis_proto::v1;
use portcullis_proto::v1::mutation::Request as Asked;

/// The server that is asked, and where the answer is written.
pub(super) struct Context<'a> {
    pub(super) client: Client,
    pub(super) output: &'a mut Output,
}

impl Context<'_> {
    /// Shows an answer.
    pub(super) fn show<M: Message + Name>(
        &mut self,
        message: &M,
        table: impl FnOnce(&M) -> String,
    ) -> anyhow::Result<Exit> {
        self.output.show(message, table)?;
        Ok(Exit::Success)
    }

    /// Shows a list. Its JSON has the list even when that is empty, so that a program can always read it.
    pub(super) fn list<P: Page>(&mut self, page: &P, table: impl FnOnce(&P) -> String) -> anyhow::Result<Exit> {
        self.output.list(page, table)?;
        Ok(Exit::Success)
    }

    /// Shows the first items of a list, and says where there are more.
    pub(super) async fn list_first<P: Page>(
        &mut self,
        limit: &LimitArgs,
        fetch: impl AsyncFnMut(i32, String) -> Result<Response<P>, Status>,
        table: impl FnOnce(&P) -> String,
    ) -> anyhow::Result<Exit> {
        let (page, more) = pages::first(limit.limit, fetch).await?;
        self.list(&page, table)?;
        if more {
            let note = format!("note: there are more than these {}: see them with `--limit`", page.items().len());
            self.output.note(&note);
        }
        Ok(Exit::Success)
    }

    /// Shows what a change made of an object, or would make of it.
    pub(super) fn changed<M: Message + Name>(
        &mut self,
        change: &ChangeArgs,
        message: &M,
        table: impl FnOnce(&M) -> String,
    ) -> anyhow::Result<Exit> {
        self.note_if_validated(change);
        self.show(message, table)
    }

    /// Shows that an object was deleted, or would be.
    pub(super) fn deleted(&mut self, change: &ChangeArgs, name: &str) -> anyhow::Result<Exit> {
        let did = if change.validate_only { "would delete" } else { "deleted" };
        self.changed(change, &(), |()| format!("{did} {}\n", clean(name)))
    }

    /// Says on the standard error that nothing was changed, where that is so.
    pub(super) fn note_if_validated(&mut self, change: &ChangeArgs) {
        if change.validate_only {
            self.output.note("note: validated only, nothing was changed");
        }
    }

    /// Shows what a request would do to the organization or the cluster that `name` belongs to.
    pub(super) async fn preview(&mut self, name: &str, request: Asked) -> anyhow::Result<Exit> {
        let request = v1::PreviewChangeRequest {
            parent: organization_of(name),
            mutations: vec![v1::Mutation { request: Some(request) }],
            replay_within: None,
        };
        let preview = answer(self.client.analysis().preview_change(request).await)?;
        let exit = self.previewed(&preview, ColorWhen::Auto)?;
        if exit == Exit::Denied {
            self.output.note("error: a gate would refuse the change");
        }
        Ok(exit)
    }

    /// Shows a preview, and tells by the exit status whether a gate would refuse it.
    pub(super) fn previewed(&mut self, preview: &v1::PreviewChangeResponse, when: ColorWhen) -> anyhow::Result<Exit> {
        let colors = Colors::of(when, self.output);
        self.output.show(preview, |preview| comparison::preview(preview, colors))?;
        Ok(if preview.refusals.is_empty() { Exit::Success } else { Exit::Denied })
    }
}
