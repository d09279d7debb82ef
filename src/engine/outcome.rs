//! The outcome of a Check, from its decision until its answer is sent.
//!
//! Invariant: where the connection type asks for `sync`, no answer is sent before its record is durable. A session whose
//! answer is never sent is ended as abandoned.
//! Not here: deciding and recording (`check`), waiting for a sync (`audit::waiting`).

use std::ops::Deref;
use std::sync::Arc;

use tokio::time::Instant;

use super::Engine;
use super::audit::{AuditError, OnAuditFailure};
use super::question::{Answer, CheckError};
use crate::audit::session::{EndReason, SessionId};
use crate::policy::name::Id;

/// A Check that is decided and whose record is queued.
pub enum Outcome<E: Deref<Target = Engine>> {
    /// The answer may be sent now.
    Ready(Unsent<E>),
    /// The answer may be sent once its record is durable.
    Waiting(Waiting<E>),
}

/// An answer that was not sent yet. Where it is dropped instead, the session that it opened is ended as abandoned.
pub struct Unsent<E: Deref<Target = Engine>> {
    answer: Answer,
    opened: Opened<E>,
}

/// An answer that waits for the sync of its record.
pub struct Waiting<E: Deref<Target = Engine>> {
    unsent: Unsent<E>,
    /// The record.
    sequence: u64,
}

/// The session that an answer opened, until the answer is sent.
struct Opened<E: Deref<Target = Engine>> {
    engine: E,
    session: Option<(Id, SessionId)>,
}

impl<E: Deref<Target = Engine>> Drop for Opened<E> {
    fn drop(&mut self) {
        if let Some((organization, session)) = self.session.take() {
            self.engine.end_by(&organization, session, EndReason::Abandoned);
        }
    }
}

impl<'a> Outcome<&'a Engine> {
    /// `awaited` is the record that must be durable first, `session` the one that was opened.
    pub(super) fn new(
        engine: &'a Engine,
        answer: Answer,
        awaited: Option<u64>,
        session: Option<(Id, SessionId)>,
    ) -> Self {
        let unsent = Unsent { answer, opened: Opened { engine, session } };
        match awaited {
            Some(sequence) => Self::Waiting(Waiting { unsent, sequence }),
            None => Self::Ready(unsent),
        }
    }
}

impl<E: Deref<Target = Engine>> Outcome<E> {
    /// Waits for the sync where there is one to wait for.
    pub async fn settled(self) -> Result<Unsent<E>, CheckError> {
        match self {
            Self::Ready(unsent) => Ok(unsent),
            Self::Waiting(waiting) => waiting.durable().await,
        }
    }
}

impl Unsent<&Engine> {
    /// The same answer, holding an `Arc` of the engine.
    pub fn holding(mut self, engine: Arc<Engine>) -> Unsent<Arc<Engine>> {
        Unsent { answer: self.answer, opened: Opened { engine, session: self.opened.session.take() } }
    }
}

impl<E: Deref<Target = Engine>> Unsent<E> {
    /// The answer, to be encoded before it leaves.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The answer, to be sent now.
    pub fn leave(self) -> Answer {
        let Self { answer, mut opened } = self;
        opened.session = None;
        answer
    }
}

impl Waiting<&Engine> {
    /// The same wait, holding an `Arc` of the engine.
    pub fn holding(self, engine: Arc<Engine>) -> Waiting<Arc<Engine>> {
        Waiting { unsent: self.unsent.holding(engine), sequence: self.sequence }
    }
}

impl<E: Deref<Target = Engine>> Waiting<E> {
    /// The answer, to be encoded before it leaves.
    pub fn answer(&self) -> &Answer {
        &self.unsent.answer
    }

    /// Waits for the sync of the record, no longer than the audit deadline. The task must poll this when woken, because
    /// it then wakes the other waiters of its thread (`audit::waiting`).
    pub async fn durable(self) -> Result<Unsent<E>, CheckError> {
        let Self { unsent, sequence } = self;
        let waited = unsent.opened.engine.audit.durable(sequence).await;
        unsent.after(waited)
    }

    /// As [`Waiting::durable`], but no longer than until `limit`; none where that comes first.
    pub async fn durable_until(self, limit: Instant) -> Option<Result<Unsent<E>, CheckError>> {
        let Self { unsent, sequence } = self;
        let waited = unsent.opened.engine.audit.durable_until(sequence, limit).await?;
        Some(unsent.after(waited))
    }

    /// As [`Waiting::durable`], for tasks that may not poll it when woken: no other waiter depends on it. The audit
    /// deadline counts from `since`.
    pub async fn durable_apart(self, since: Instant) -> Result<Unsent<E>, CheckError> {
        let Self { unsent, sequence } = self;
        let waited = unsent.opened.engine.audit.durable_apart(sequence, since).await;
        unsent.after(waited)
    }
}

impl<E: Deref<Target = Engine>> Unsent<E> {
    /// What becomes of the answer after the wait for its record.
    fn after(self, waited: Result<(), AuditError>) -> Result<Self, CheckError> {
        match waited {
            Err(error) if self.opened.engine.audit.options().on_failure == OnAuditFailure::Deny => Err(error.into()),
            // The record stays queued, and is written once the disk accepts writes again.
            _ => Ok(self),
        }
    }
}
