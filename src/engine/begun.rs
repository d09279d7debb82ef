//! A Check between its record's place in the queue and its answer.
//!
//! Invariant: a session whose answer never leaves is ended as abandoned.
//! Not here: deciding and recording (`check`), how the disk is waited for (`audit`).

use std::ops::Deref;
use std::sync::Arc;

use tokio::time::Instant;

use super::Engine;
use super::audit::{AuditError, OnAuditFailure};
use super::check::{Answer, CheckError};
use crate::audit::session::{EndReason, SessionId};
use crate::policy::name::Id;

/// A session whose answer has not left yet. Nobody knows it where it never does, so it is ended then.
struct Unanswered<E: Deref<Target = Engine>> {
    engine: E,
    session: Option<(Id, SessionId)>,
}

impl<E: Deref<Target = Engine>> Drop for Unanswered<E> {
    fn drop(&mut self) {
        if let Some((organization, session)) = self.session.take() {
            self.engine.end_by(&organization, session, EndReason::Abandoned);
        }
    }
}

/// A Check that is decided and whose record is queued, on its way to the answer. Dropped before that, the session that
/// it opened is abandoned.
pub struct Begun<E: Deref<Target = Engine>> {
    answer: Answer,
    /// The record that must be on the disk before the answer leaves.
    awaited: Option<u64>,
    unanswered: Unanswered<E>,
}

impl<'a> Begun<&'a Engine> {
    /// `awaited` is the record that must be on the disk first, `session` the one that was opened.
    pub(super) fn new(
        engine: &'a Engine,
        answer: Answer,
        awaited: Option<u64>,
        session: Option<(Id, SessionId)>,
    ) -> Self {
        Self { answer, awaited, unanswered: Unanswered { engine, session } }
    }

    /// The same, with an engine of its own to hold.
    pub fn holding(mut self, engine: Arc<Engine>) -> Begun<Arc<Engine>> {
        let session = self.unanswered.session.take();
        Begun { answer: self.answer, awaited: self.awaited, unanswered: Unanswered { engine, session } }
    }

    /// Waits for the disk where the connection type asks for it. To be polled whenever it is woken.
    pub async fn wait(&mut self) -> Result<(), CheckError> {
        let Some(sequence) = self.awaited else { return Ok(()) };
        let waited = self.unanswered.engine.audit.durable(sequence).await;
        self.waited(waited)
    }
}

impl Begun<Arc<Engine>> {
    /// The same for whoever might not be polled when it is woken; the deadline counts from `begun`.
    pub async fn wait_apart(&mut self, begun: Instant) -> Result<(), CheckError> {
        let Some(sequence) = self.awaited else { return Ok(()) };
        let waited = self.unanswered.engine.audit.durable_apart(sequence, begun).await;
        self.waited(waited)
    }
}

impl<E: Deref<Target = Engine>> Begun<E> {
    /// Whether the disk is to be waited for.
    pub fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    fn waited(&mut self, waited: Result<(), AuditError>) -> Result<(), CheckError> {
        match waited {
            Err(error) if self.unanswered.engine.audit.options().on_failure == OnAuditFailure::Deny => {
                Err(error.into())
            }
            // It is queued: it comes on the record once that can be written.
            _ => {
                self.awaited = None;
                Ok(())
            }
        }
    }

    /// The answer, to be made ready for its way before it may leave.
    pub fn prepared(&self) -> &Answer {
        &self.answer
    }

    /// The answer, which leaves now. To be waited for before.
    pub fn answer(self) -> Answer {
        let Self { answer, mut unanswered, .. } = self;
        unanswered.session = None;
        answer
    }
}
