//! Changes that wait for their confirmation, and are undone when it does not come.
//!
//! Invariant: a change whose time is over is undone before anything else is changed, and before the first answer after a
//! start; where the disk refuses, it is tried again until it does not.
//! Not here: confirming, which is a change like any other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::change::{ChangeRequest, ChangeTarget};
use super::writer::{Order, Writer};
use crate::policy::document::Document;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::plan::Mutation;
use crate::policy::state::PolicyState;
use crate::policy::time::Timestamp;

/// The organizations with a change that waits, by when it is undone.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    by_time: BTreeSet<(Timestamp, Id)>,
}

impl Unconfirmed {
    /// Those of a state.
    pub(super) fn of(state: &PolicyState) -> Self {
        let mut unconfirmed = Self::default();
        for organization in state.organizations.values() {
            unconfirmed.follow(&organization.id, None, Some(organization));
        }
        unconfirmed
    }

    /// Notes that an organization changed.
    pub(super) fn follow(&mut self, id: &Id, before: Option<&Organization>, after: Option<&Organization>) {
        let until = |organization: Option<&Organization>| Some(organization?.pending.as_ref()?.until);
        if let Some(time) = until(before) {
            self.by_time.remove(&(time, id.clone()));
        }
        if let Some(time) = until(after) {
            self.by_time.insert((time, id.clone()));
        }
    }

    /// How long until the next is undone.
    pub(super) fn next_in(&self, now: Timestamp) -> Option<Duration> {
        let (time, _) = self.by_time.first()?;
        let micros = time.micros().saturating_sub(now.micros()).max(0);
        Some(Duration::from_micros(micros.unsigned_abs()))
    }

    fn due(&self, now: Timestamp) -> Vec<Id> {
        self.by_time.iter().take_while(|(time, _)| *time <= now).map(|(_, id)| id.clone()).collect()
    }
}

impl Writer {
    /// Undoes the changes whose time is over.
    pub(super) fn undo_unconfirmed(&mut self) {
        for id in self.unconfirmed.due(self.clock.now()) {
            let Some(pending) = self.state.organizations.get(&id).and_then(|organization| organization.pending.clone())
            else {
                continue;
            };
            let document = Box::new(Document::of(&pending.base));
            let mutation = Mutation::ReplacePolicy { document, etag: None, goes_back: true };
            let comment = format!("revision {} was not confirmed in time", pending.revision);
            let mut request = ChangeRequest::new(ChangeTarget::Organization { id: id.clone(), mutation });
            request.comment = comment.into();
            // Going back is what was agreed on when the change was made: no gate has a say.
            request.is_gated = false;
            let (reply, mut answer) = tokio::sync::oneshot::channel();
            self.serve(std::iter::once(Order::Change { request: Box::new(request), reply }));
            let organization = id.as_str();
            match answer.try_recv() {
                Ok(Ok(changed)) => {
                    tracing::warn!(
                        organization,
                        undone = pending.revision,
                        revision = changed.revision,
                        "a change was not confirmed in time and is undone"
                    );
                }
                Ok(Err(error)) => tracing::error!(organization, %error, "an unconfirmed change cannot be undone yet"),
                Err(_) => {}
            }
        }
    }
}

impl ChangeRequest {
    /// A change without a comment and without conditions.
    pub fn new(target: ChangeTarget) -> Self {
        Self {
            target,
            violations: Vec::new(),
            actor: Arc::default(),
            comment: Arc::default(),
            validate_only: false,
            gates: super::prospect::GateOptions::default(),
            is_gated: true,
            confirm_within: None,
        }
    }
}
