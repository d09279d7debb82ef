//! The eraser removes a user's personal data (design.md §2.8), in these steps:
//!
//! 1. Write the mark that an erasure is under way. For an actor it holds the name, because the record does not.
//! 2. Make the ERASED record durable. It lists every opening.
//! 3. Erase the openings in the journal, the sealed units and the saved sessions; on request, the actor in the policy
//!    journal.
//! 4. Remove the mark.
//!
//! A step that fails is tried again. Sealing waits for the openings; nothing waits for the later steps, except another
//! erasure of an actor.
//!
//! What is done in a user's or an actor's name after the ERASED record was queued keeps the name, in the audit log and in
//! the policy journal alike.
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

/// What is left to do of recorded erasures. A step that is done is not repeated.
#[derive(Default)]
pub(crate) struct Erasing {
    /// The journal may still hold these openings, and so may the sealed units.
    pub(super) in_journal: Option<Vec<ErasedUnit>>,
    /// The sealed units may still hold these.
    in_units: Option<Vec<ErasedUnit>>,
    sessions_unsaved: bool,
    /// An actor whose erasure is recorded and who may still be in the policy journal, up to that record of it.
    actor: Option<(ActorErasure, u64)>,
    /// The mark may be there.
    marked: bool,
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
        self.resume_openings(sessions)?;
        let including_actor = request.including_actor;
        if including_actor {
            // The mark holds one actor.
            self.erase_actor()?;
        }
        let recorded = self.record(request, sessions)?;
        self.erase_openings()?;
        self.save_sessions(sessions)?;
        if including_actor {
            self.erase_actor()?;
        }
        self.remove_mark()?;
        Ok(recorded)
    }

    /// Erases the openings that an earlier attempt, or an earlier run of the service, left over. Nothing may be sealed
    /// before.
    pub(super) fn resume_openings(&mut self, sessions: &mut dyn SessionFiles) -> Result<(), AuditError> {
        if let Some(ActorErasure { organization, name, asked_by }) = self.erasing.interrupted.clone() {
            self.record(EraseRequest { organization, email: name, including_actor: true, asked_by }, sessions)?;
        }
        self.erase_openings()
    }

    /// Carries out the steps after the openings that are left over. Nothing else waits for them.
    pub(super) fn resume_rest(&mut self, sessions: &mut dyn SessionFiles) -> Result<(), AuditError> {
        let saved = self.save_sessions(sessions);
        let erased = self.erase_actor();
        saved.and(erased).and_then(|()| self.remove_mark())
    }

    /// Makes the record of an erasure durable. Its remaining steps are known then.
    fn record(&mut self, request: EraseRequest, sessions: &mut dyn SessionFiles) -> Result<(u64, u64), AuditError> {
        sessions.erase(request.organization.as_ref(), &request.email);
        self.erasing.sessions_unsaved = true;
        let sealed = self.openings_of(&request)?;
        let actor = request.including_actor.then(|| ActorErasure {
            organization: request.organization.clone(),
            name: request.email.clone(),
            asked_by: request.asked_by.clone(),
        });
        // An actor who is left over stays in the mark.
        let marked = actor.as_ref().or(self.erasing.actor.as_ref().map(|(actor, _)| actor));
        let mark = marked.map(encode_actor_erasure).unwrap_or_default();
        self.erasing.marked = true;
        self.shared.folder.write(ERASING, &mark).map_err(AuditError::not_writable)?;
        let (reply, answer) = oneshot::channel();
        self.shared.queue.order(Order::Erase(EraseOrder { request, sealed: sealed.clone(), reply }));
        let recorded = answer.blocking_recv().unwrap_or(Err(AuditError::ShuttingDown));
        // After an error a part of the records may be durable: the mark stays for the next start.
        self.erasing.marked = recorded.is_ok();
        let RecordedErasure { sequence, count, tail, policy_sequence } = recorded?;
        self.erasing.in_journal.get_or_insert_default().extend(sealed.into_iter().chain(tail));
        if let Some(actor) = actor {
            self.erasing.actor = Some((actor, policy_sequence));
        }
        self.erasing.interrupted = None;
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

    /// Erases the recorded openings in the journal, in memory and in the sealed units.
    fn erase_openings(&mut self) -> Result<(), AuditError> {
        let Self { shared, erasing, .. } = self;
        if erasing.in_journal.is_none() && erasing.in_units.is_none() {
            return Ok(());
        }
        let _layout = shared.layout();
        if let Some(units) = &erasing.in_journal {
            let (reply, answer) = oneshot::channel();
            shared.queue.order(Order::Redact { units: units.clone(), reply });
            let redacted = answer.blocking_recv().map_err(|_| AuditError::ShuttingDown)?;
            redacted.map_err(AuditError::not_writable)?;
            erasing.in_units.get_or_insert_default().extend(erasing.in_journal.take().into_iter().flatten());
        }
        if let Some(erased) = &erasing.in_units {
            let mut units: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
            for ErasedUnit { first_sequence, slots } in erased {
                units.entry(*first_sequence).or_default().extend(slots);
            }
            for unit in shared.units.list() {
                if let Some(slots) = units.get(&unit.first_sequence) {
                    erase_sealed(shared, unit.first_sequence, slots)?;
                }
            }
            shared.decoded.clear();
            erasing.in_units = None;
        }
        Ok(())
    }

    fn save_sessions(&mut self, sessions: &mut dyn SessionFiles) -> Result<(), AuditError> {
        if self.erasing.sessions_unsaved {
            sessions.save()?;
            self.erasing.sessions_unsaved = false;
        }
        Ok(())
    }

    fn erase_actor(&mut self) -> Result<(), AuditError> {
        if let Some((ActorErasure { organization, name, .. }, to_sequence)) = &self.erasing.actor {
            self.actors.erase(organization.as_ref(), name, *to_sequence)?;
            self.erasing.actor = None;
        }
        Ok(())
    }

    /// Removes the mark once nothing is left to do.
    fn remove_mark(&mut self) -> Result<(), AuditError> {
        let Erasing { in_journal, in_units, sessions_unsaved, actor, interrupted, marked } = &self.erasing;
        let is_left = in_journal.is_some() || in_units.is_some() || actor.is_some() || interrupted.is_some();
        if *marked && !is_left && !sessions_unsaved {
            self.shared.folder.remove(ERASING).map_err(AuditError::not_writable)?;
            self.erasing.marked = false;
        }
        Ok(())
    }
}

/// Erases openings in a sealed unit. Those that are erased already stay so.
fn erase_sealed(shared: &Shared, first_sequence: u64, slots: &[u32]) -> Result<(), AuditError> {
    let units = &shared.units;
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

/// The mark of an erasure that was under way; none where there is no mark.
pub(super) fn read_mark(folder: &Folder) -> io::Result<Option<Erasing>> {
    let Some(mark) = folder.read(ERASING)? else { return Ok(None) };
    let interrupted = decode_actor_erasure(&mark).map_err(io::Error::other)?;
    Ok(Some(Erasing { sessions_unsaved: true, marked: true, interrupted, ..Erasing::default() }))
}
