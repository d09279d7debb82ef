//! The eraser removes a user's personal data (design.md §2.8), in these steps:
//!
//! 1. Write the mark that an erasure is under way. For an actor it holds the name, because the record does not.
//! 2. Make the ERASED record durable. It lists every opening.
//! 3. Erase the openings in the journal, the sealed units and the saved sessions; on request, the actor in the policy
//!    journal.
//! 4. Remove the mark.
//!
//! Invariant: only openings that a durable ERASED record names are erased, and all of them are, over any number of
//! crashes and failed writes.
//! Not here: what a record commits to (`audit::commitment`).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::error::AuditError;
use super::log::AuditLog;
use super::openings;
use super::orders::{EraseOrder, EraseRequest, Order, RecordedErasure};
use super::ports::{ActorFiles, SessionFiles};
use super::shared::Shared;
use super::units::UnitInfo;
use crate::audit::commitment::Commitment;
use crate::audit::filter::RecordFilter;
use crate::audit::record::{Content, ErasedUnit, RecordType};
use crate::policy::name::Id;
use crate::store::codec::audit::{ActorErasure, decode_actor_erasure, encode_actor_erasure};
use crate::store::folder::Folder;
use crate::store::sealed::StoredOpening;

/// The mark that an erasure is under way.
const ERASING: &str = "erasing";

/// Records in one read when unfinished erasures are looked for.
const PAGE: usize = 100;

/// Recorded erasures that may be unfinished.
#[derive(Default)]
pub(crate) struct Erasing {
    pub(super) unfinished: Vec<ErasedUnit>,
    sessions_unsaved: bool,
    /// An actor whose erasure is recorded and who may still be in the policy journal.
    actor: Option<ActorErasure>,
    /// An actor whose erasure was under way when the service ended. Its progress is unknown, so it is repeated.
    interrupted: Option<ActorErasure>,
}

/// See the module.
pub(super) struct Eraser {
    shared: Arc<Shared>,
    actors: Box<dyn ActorFiles>,
    erasing: Erasing,
}

impl AuditLog {
    /// The openings that records name as erased. Read only if an erasure was under way when the service ended.
    pub(super) fn erased_units(&self) -> Result<Vec<ErasedUnit>, AuditError> {
        let filter = RecordFilter { types: vec![RecordType::Erased], ..RecordFilter::default() };
        let (mut units, mut before) = (Vec::new(), None);
        loop {
            let page = self.list(&filter, before, PAGE)?;
            for record in page.records {
                if let Content::Erased(erased) = record.entry.content {
                    units.extend(erased.units);
                }
            }
            match page.next_before {
                Some(next) => before = Some(next),
                None => return Ok(units),
            }
        }
    }
}

impl Eraser {
    pub(super) fn new(shared: Arc<Shared>, actors: Box<dyn ActorFiles>, erasing: Erasing) -> Self {
        Self { shared, actors, erasing }
    }

    /// Carries out an erasure.
    pub(super) fn erase(
        &mut self,
        request: EraseRequest,
        sessions: &mut dyn SessionFiles,
    ) -> Result<(u64, u64), AuditError> {
        self.resume(sessions)?;
        self.erase_now(request, sessions)
    }

    /// Finishes erasures that an earlier attempt, or an earlier run of the service, left unfinished.
    pub(super) fn resume(&mut self, sessions: &mut dyn SessionFiles) -> Result<(), AuditError> {
        match self.erasing.interrupted.clone() {
            Some(ActorErasure { organization, name, asked_by }) => {
                let request = EraseRequest { organization, email: name, including_actor: true, asked_by };
                self.erase_now(request, sessions).map(drop)
            }
            None => self.finish(sessions),
        }
    }

    fn erase_now(&mut self, request: EraseRequest, sessions: &mut dyn SessionFiles) -> Result<(u64, u64), AuditError> {
        sessions.erase(request.organization.as_ref(), &request.email);
        self.erasing.sessions_unsaved = true;
        let sealed = self.openings_of(&request)?;
        let actor = request.including_actor.then(|| ActorErasure {
            organization: request.organization.clone(),
            name: request.email.clone(),
            asked_by: request.asked_by.clone(),
        });
        let mark = actor.as_ref().map(encode_actor_erasure).unwrap_or_default();
        self.shared.folder.write(ERASING, &mark).map_err(AuditError::not_writable)?;
        let (reply, answer) = oneshot::channel();
        self.shared.queue.order(Order::Erase(EraseOrder { request, sealed: sealed.clone(), reply }));
        let RecordedErasure { sequence, count, tail } =
            answer.blocking_recv().unwrap_or(Err(AuditError::ShuttingDown))?;
        self.erasing.unfinished.extend(sealed.into_iter().chain(tail));
        self.erasing.actor = actor;
        // It is recorded now, so the remaining steps are known.
        self.erasing.interrupted = None;
        self.finish(sessions)?;
        Ok((count, sequence))
    }

    /// The openings to erase in sealed units.
    fn openings_of(&self, request: &EraseRequest) -> Result<Vec<ErasedUnit>, AuditError> {
        let scope = request.organization.as_ref().map(Id::as_str);
        let mut found = Vec::new();
        for UnitInfo { first_sequence, .. } in self.shared.units.list() {
            let openings = self.shared.units.openings(first_sequence)?;
            let mut slots = Vec::new();
            for slot in openings.slots_of_email(scope, &request.email).map_err(AuditError::not_readable)? {
                let opening = openings.get(slot).map_err(AuditError::not_readable)?;
                if let Some(StoredOpening::Present { email, address, scope, .. }) = opening
                    && request.concerns(&scope, &email, address.is_empty())
                {
                    slots.push(slot);
                }
            }
            if !slots.is_empty() {
                found.push(ErasedUnit { first_sequence, slots });
            }
        }
        Ok(found)
    }

    /// Carries out the recorded erasures that are unfinished.
    fn finish(&mut self, sessions: &mut dyn SessionFiles) -> Result<(), AuditError> {
        let Erasing { unfinished, sessions_unsaved, actor, interrupted: _ } = &self.erasing;
        if unfinished.is_empty() && !sessions_unsaved && actor.is_none() {
            return Ok(());
        }
        let shared = &self.shared;
        let layout = shared.layout();
        let (reply, answer) = oneshot::channel();
        shared.queue.order(Order::Redact { units: self.erasing.unfinished.clone(), reply });
        let redacted = answer.blocking_recv().map_err(|_| AuditError::ShuttingDown)?;
        redacted.map_err(AuditError::not_writable)?;
        let mut units: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for ErasedUnit { first_sequence, slots } in &self.erasing.unfinished {
            units.entry(*first_sequence).or_default().extend(slots);
        }
        for unit in shared.units.list() {
            if let Some(slots) = units.get(&unit.first_sequence) {
                self.erase_sealed(unit.first_sequence, slots)?;
            }
        }
        shared.decoded.clear();
        drop(layout);
        sessions.save()?;
        if let Some(ActorErasure { organization, name, .. }) = &self.erasing.actor {
            self.actors.erase(organization.as_ref(), name)?;
        }
        self.shared.folder.remove(ERASING).map_err(AuditError::not_writable)?;
        self.erasing = Erasing::default();
        Ok(())
    }

    fn erase_sealed(&self, first_sequence: u64, slots: &[u32]) -> Result<(), AuditError> {
        let units = &self.shared.units;
        let stored = units.openings(first_sequence)?;
        let mut erased: Vec<(u32, [u8; Commitment::BYTES])> = Vec::new();
        for slot in slots {
            let opening = stored.get(*slot).map_err(AuditError::not_readable)?;
            if let Some(present @ StoredOpening::Present { .. }) = opening {
                erased.push((*slot, *openings::to_tail(present).commitment.as_bytes()));
            }
        }
        if erased.is_empty() {
            return Ok(());
        }
        units.files.erase_openings(first_sequence, &erased).map_err(AuditError::not_writable)?;
        units.forget_openings(first_sequence);
        let bytes = units.files.bytes(first_sequence).map_err(AuditError::not_readable)?;
        units.set_bytes(first_sequence, bytes);
        Ok(())
    }
}

/// The mark of an erasure that was under way; none where there is no mark.
pub(super) fn read_mark(folder: &Folder) -> io::Result<Option<Erasing>> {
    let Some(mark) = folder.read(ERASING)? else { return Ok(None) };
    let interrupted = decode_actor_erasure(&mark).map_err(io::Error::other)?;
    Ok(Some(Erasing { sessions_unsaved: true, interrupted, ..Erasing::default() }))
}
