//! What a command that asks a server works with, and the ends that such commands have in common.
//!
//! Invariant: a change that was only validated is never shown as one that was made. A change that is undone unless it is
//! confirmed says how to confirm it, and until when.
//! Not here: what is asked, and how an answer looks as a table: each command knows that.

use std::time::Duration;

use portcullis_client::{CallError, Client, DEFAULT_ADDRESS, answer};
use prost::{Message, Name};
use tonic::{Response, Status};

use super::answered::Answered;
use super::change::ChangeArgs;
use super::color::{ColorWhen, Colors};
use super::comparison;
use super::consequences;
use super::difference::Told;
use super::error::{of_call, with_violations};
use super::exit::Exit;
use super::flags::Flags;
use super::forced::{self, Previewed};
use super::names::organization_of;
use super::output::Output;
use super::pages::{self, LimitArgs, Page};
use super::table::{self, clean};
use super::times::local;
use portcullis_proto::v1;
use portcullis_proto::v1::mutation::Request as Asked;

/// The server that is asked, and where the answer is written.
pub(super) struct Context<'a> {
    pub(super) client: Client,
    pub(super) output: &'a mut Output,
    /// The address of the server, as it was typed.
    server: &'a str,
    /// What the server calls by its fields, in the words of the command.
    flags: &'a Flags,
    /// The organization of a change that may wait for its confirmation.
    waiting: Option<String>,
}

impl<'a> Context<'a> {
    pub(super) fn new(client: Client, server: &'a str, flags: &'a Flags, output: &'a mut Output) -> Self {
        Self { client, output, server, flags, waiting: None }
    }

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
    pub(super) fn changed<M: Message + Name + Answered>(
        &mut self,
        change: &ChangeArgs,
        message: &M,
        table: impl FnOnce(&M) -> String,
    ) -> anyhow::Result<Exit> {
        self.note_change(change, message.organization());
        self.show(message, table)
    }

    /// Shows that an object was deleted, or would be.
    pub(super) fn deleted(&mut self, change: &ChangeArgs, name: &str) -> anyhow::Result<Exit> {
        // What is deleted may be described before its name.
        self.note_change(change, name.rsplit(' ').next().map(organization_of));
        let did = if change.validate_only { "would delete" } else { "deleted" };
        self.show(&(), |()| format!("{did} {}\n", clean(name)))
    }

    /// Says on the standard error that nothing was changed, where that is so. Otherwise remembers a change that is to be
    /// confirmed.
    pub(super) fn note_change(&mut self, change: &ChangeArgs, organization: Option<String>) {
        if change.validate_only {
            self.output.note("note: validated only, nothing was changed");
        } else if change.waits() {
            match organization {
                Some(_) => self.waiting = organization,
                None => self.output.note(NOTHING_WAITS),
            }
        }
    }

    /// Says how to confirm the change that was made, and until when.
    pub(super) async fn tell_confirmation(&mut self) {
        let Some(organization) = self.waiting.take() else { return };
        let request = v1::GetNodeRequest { name: organization.clone() };
        let pending = match answer(self.client.hierarchy().get_node(request).await) {
            Ok(node) => node.pending_revision,
            Err(error) => {
                let error = of_call(&error);
                let note = format!(
                    "note: the change was made, and is undone unless it is confirmed; how it is called cannot be told: \
                     {error}; see `portcullis nodes get {organization}`"
                );
                return self.output.note(&note);
            }
        };
        let Some(v1::PendingRevision { revision, revert_time }) = pending else {
            return self.output.note(NOTHING_WAITS);
        };
        let until = revert_time.unwrap_or_default();
        self.output.note(&format!(
            "note: revision {revision} of {organization} is undone at {} local time ({}) unless it is confirmed before:\n  \
             portcullis revisions confirm {organization}/revisions/{revision}{}",
            local(&until),
            table::time(Some(&until)),
            self.server_flag()
        ));
    }

    /// The flag that leads a command to this server; empty where it goes there anyway.
    fn server_flag(&self) -> String {
        let usual = std::env::var("PORTCULLIS_SERVER").unwrap_or_else(|_| DEFAULT_ADDRESS.to_owned());
        if self.server == usual { String::new() } else { format!(" --server {}", self.server) }
    }

    /// What a request would do to the organization or the cluster that `name` belongs to.
    pub(super) async fn ask_preview(
        &self,
        name: &str,
        request: Asked,
        replay: Option<Duration>,
    ) -> Result<v1::PreviewChangeResponse, CallError> {
        let request = preview_of(name, request, replay);
        answer(self.client.analysis().preview_change(request).await).map_err(in_words_of_change)
    }

    /// Shows what a request would do to the organization or the cluster that `name` belongs to.
    pub(super) async fn preview(&mut self, name: &str, request: Asked) -> anyhow::Result<Exit> {
        let parent = organization_of(name);
        let previewed =
            forced::preview(&self.client, preview_of(name, request, None)).await.map_err(in_words_of_change)?;
        let exit = self.previewed(&previewed.preview, ColorWhen::Auto)?;
        self.note_consequences(&parent, &previewed.preview.changes).await;
        if exit == Exit::Denied {
            self.output.note("error: a gate would refuse the change");
        }
        Ok(self.note_force(&previewed).unwrap_or(exit))
    }

    /// Says that a change needs `--force`, where it does. Returns the exit status for that.
    pub(super) fn note_force(&mut self, previewed: &Previewed) -> Option<Exit> {
        let needs_force = previewed.needs_force(self.flags)?;
        self.output.note(&needs_force);
        Some(Exit::Failure)
    }

    /// Shows a preview, and tells by the exit status whether a gate would refuse it.
    pub(super) fn previewed(&mut self, preview: &v1::PreviewChangeResponse, when: ColorWhen) -> anyhow::Result<Exit> {
        let colors = Colors::of(when, self.output);
        let text = comparison::preview(&self.in_words(preview), colors);
        self.output.show(preview, |_| text)?;
        Ok(if preview.refusals.is_empty() { Exit::Success } else { Exit::Denied })
    }

    /// A preview whose refusals are in the words of the command line.
    pub(super) fn in_words(&self, preview: &v1::PreviewChangeResponse) -> v1::PreviewChangeResponse {
        let mut preview = preview.clone();
        for refusal in &mut preview.refusals {
            refusal.message = self.flags.in_words(&refusal.message);
        }
        preview
    }

    /// Says on the standard error what the changes of a preview would bring about besides.
    pub(super) async fn note_consequences(&mut self, parent: &str, changes: &[v1::ObjectChange]) {
        for note in consequences::of_preview(parent, changes, Told::Would, &self.client).await {
            self.output.note(&note);
        }
    }

    /// Says on the standard error what changes that were made, or only validated, bring about besides.
    pub(super) async fn note_change_consequences(&mut self, parent: &str, changes: &[v1::ObjectChange], told: Told) {
        for note in consequences::of_preview(parent, changes, told, &self.client).await {
            self.output.note(&note);
        }
    }

    /// Says a note on the standard error, if there is one.
    pub(super) fn note_if_any(&mut self, note: Option<String>) {
        if let Some(note) = note {
            self.output.note(&note);
        }
    }

    /// Says problems on the standard error, the worst first.
    pub(super) fn note_problems(&mut self, problems: &[v1::Problem]) {
        for problem in problems.iter().take(PROBLEMS_NOTED) {
            let line = table::problem(problem);
            self.output.note(&line);
        }
        if let more @ 1.. = problems.len().saturating_sub(PROBLEMS_NOTED) {
            self.output.note(&format!("note: and {more} more problems: see them with `portcullis problems`"));
        }
    }
}

/// The preview of one change of the organization or the cluster that `name` belongs to.
fn preview_of(name: &str, request: Asked, replay: Option<Duration>) -> v1::PreviewChangeRequest {
    v1::PreviewChangeRequest {
        parent: organization_of(name),
        mutations: vec![v1::Mutation { request: Some(request) }],
        replay_within: replay.and_then(|replay| replay.try_into().ok()),
    }
}

/// The error of a preview with the fields that the change itself would name.
fn in_words_of_change(error: CallError) -> CallError {
    with_violations(error, |violation| violation.field = of_change(&violation.field))
}

/// A field of a preview as the change itself has it.
fn of_change(field: &str) -> String {
    match field.strip_prefix("mutations[0].") {
        Some(mutation) => mutation.split_once('.').map_or("preview", |(_, field)| field).to_owned(),
        None => field.to_owned(),
    }
}

const NOTHING_WAITS: &str = "note: nothing waits for a confirmation, because the change altered nothing";

/// The most problems that a change is told with.
const PROBLEMS_NOTED: usize = 10;
