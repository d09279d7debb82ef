//! Erasing a user's personal data (design.md §2.8).
//!
//! A mark that an erasure is under way; the ERASED record, which lists every opening, durable; then the openings
//! themselves: in the journal, in the sealed units, in the saved sessions; where it is asked for, the actor in the policy
//! journal; then the mark goes. The mark of an actor's erasure says whom, for the record does not.
//!
//! Invariant: an opening is gone only where an ERASED record names it, and once it is named it goes, over any number of
//! crashes and failing disks.
//! Not here: what a record commits to (`audit::commitment`).

use std::collections::BTreeMap;
use std::{fmt, io};

use tokio::sync::oneshot;

use super::committer::Erasure;
use super::queue::{Command, EraseCommand};
use super::sealer::Sealer;
use super::units::{UnitInfo, unreadable};
use super::{AuditError, AuditLog, Task};
use crate::audit::commitment::Commitment;
use crate::audit::filter::RecordFilter;
use crate::audit::record::{Actor, Content, ErasedUnit, Identity, RecordType};
use crate::policy::name::Id;
use crate::store::codec::audit::{ActorErasure, decode_actor_erasure, encode_actor_erasure};
use crate::store::disk::{Disk, read_whole, write_whole};
use crate::store::sealed::{self, Openings, StoredOpening};

/// The mark that an erasure is under way.
pub(super) const ERASING: &str = "erasing";

/// Records that are read at a time when unfinished erasures are looked for.
const PAGE: usize = 100;

/// What is on record as erased and perhaps still there.
#[derive(Default)]
pub(crate) struct Erasing {
    pub(super) unfinished: Vec<ErasedUnit>,
    pub(super) sessions_unsaved: bool,
    /// An actor who is on record as erased and may still be in the policy journal.
    pub(super) actor: Option<ActorErasure>,
    /// An actor whose erasure was under way when the service ended: how far it came is unknown, so it is done again.
    pub(super) interrupted: Option<ActorErasure>,
}

/// Whom to erase.
#[derive(Clone, PartialEq, Eq)]
pub struct EraseRequest {
    /// Where; none: everywhere.
    pub organization: Option<Id>,
    /// The user's email, as it was recorded.
    pub email: String,
    /// Whether the name also goes from what they did as an actor, in the policy journal too.
    pub including_actor: bool,
    /// Who asks for it.
    pub asked_by: Actor,
}

impl EraseRequest {
    /// Whether an opening is to be erased: its organization's id (empty: of none), its name, and whether it is an actor's.
    pub(super) fn concerns(&self, scope: &str, name: &str, is_actor: bool) -> bool {
        name == self.email
            && (self.including_actor || !is_actor)
            && self.organization.as_ref().is_none_or(|organization| organization.as_str() == scope)
    }

    /// Whom the record of the erasure names; nobody where actors erase themselves.
    pub(super) fn recorded_actor(&self) -> Option<Identity> {
        let erases_itself = self.including_actor && *self.asked_by.name == *self.email;
        (!erases_itself).then(|| Identity::Actor(self.asked_by.clone()))
    }
}

impl fmt::Debug for EraseRequest {
    /// Without personal data, which must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EraseRequest")
    }
}

impl AuditLog {
    /// Erases a user. Answers how many openings went and the sequence of the record.
    pub(crate) async fn erase(&self, request: EraseRequest) -> Result<(u64, u64), AuditError> {
        let (reply, answer) = oneshot::channel();
        self.shared.queue.check_writable()?;
        self.shared.inbox.send(Task::Erase { request, reply });
        answer.await.unwrap_or(Err(AuditError::ShuttingDown))
    }

    /// What is on record as erased. Looked for only where an erasure was under way when the service ended.
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

impl Sealer {
    /// Carries out an erasure.
    pub(super) fn erase(&mut self, request: EraseRequest) -> Result<(u64, u64), AuditError> {
        self.resume_erasing()?;
        self.erase_now(request)
    }

    /// Finishes what an earlier attempt, or the service before this start, has left. No effect where nothing is.
    pub(super) fn resume_erasing(&mut self) -> Result<(), AuditError> {
        match self.erasing.interrupted.clone() {
            Some(ActorErasure { organization, name, asked_by }) => {
                let request = EraseRequest { organization, email: name, including_actor: true, asked_by };
                self.erase_now(request).map(drop)
            }
            None => self.finish_erasing(),
        }
    }

    fn erase_now(&mut self, request: EraseRequest) -> Result<(u64, u64), AuditError> {
        self.sessions.erase(request.organization.as_ref(), &request.email);
        self.erasing.sessions_unsaved = true;
        let sealed = self.openings_of(&request)?;
        let actor = request.including_actor.then(|| ActorErasure {
            organization: request.organization.clone(),
            name: request.email.clone(),
            asked_by: request.asked_by.clone(),
        });
        let mark = actor.as_ref().map(encode_actor_erasure).unwrap_or_default();
        let path = self.shared.units.directory().join(ERASING);
        write_whole(&*self.shared.units.disk, &path, &mark).map_err(not_written)?;
        let (reply, answer) = oneshot::channel();
        self.shared.queue.command(Command::Erase(EraseCommand { request, sealed: sealed.clone(), reply }));
        let Erasure { sequence, count, tail } = answer.blocking_recv().unwrap_or(Err(AuditError::ShuttingDown))?;
        self.erasing.unfinished.extend(sealed.into_iter().chain(tail));
        self.erasing.actor = actor;
        // It is on the record now: what is left to do is known.
        self.erasing.interrupted = None;
        self.finish_erasing()?;
        Ok((count, sequence))
    }

    /// The openings to erase in sealed units.
    fn openings_of(&self, request: &EraseRequest) -> Result<Vec<ErasedUnit>, AuditError> {
        let scope = request.organization.as_ref().map(Id::as_str);
        let mut found = Vec::new();
        for UnitInfo { first_sequence, .. } in self.shared.units.list() {
            let openings = self.shared.units.openings(first_sequence)?;
            let mut slots = Vec::new();
            for slot in openings.slots_of_email(scope, &request.email).map_err(|error| unreadable(&error))? {
                let opening = openings.get(slot).map_err(|error| unreadable(&error))?;
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

    /// Takes away what is on record as erased. No effect where nothing is left to do.
    fn finish_erasing(&mut self) -> Result<(), AuditError> {
        let Erasing { unfinished, sessions_unsaved, actor, interrupted: _ } = &self.erasing;
        if unfinished.is_empty() && !sessions_unsaved && actor.is_none() {
            return Ok(());
        }
        let shared = &self.shared;
        let layout = shared.layout();
        let (reply, answer) = oneshot::channel();
        shared.queue.command(Command::Redact { units: self.erasing.unfinished.clone(), reply });
        let redacted = answer.blocking_recv().map_err(|_| AuditError::ShuttingDown)?;
        redacted.map_err(|error| AuditError::NotWritable(error.to_string()))?;
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
        self.sessions.save()?;
        if let Some(ActorErasure { organization, name, .. }) = &self.erasing.actor {
            self.actors.erase(organization.as_ref(), name)?;
        }
        remove_mark(&*self.shared.units.disk, self.shared.units.directory()).map_err(not_written)?;
        self.erasing = Erasing::default();
        Ok(())
    }

    fn erase_sealed(&self, first_sequence: u64, slots: &[u32]) -> Result<(), AuditError> {
        let units = &self.shared.units;
        let openings = units.openings(first_sequence)?;
        let mut erased: Vec<(u32, [u8; Commitment::BYTES])> = Vec::new();
        for slot in slots {
            let opening = openings.get(*slot).map_err(|error| unreadable(&error))?;
            if let Some(present @ StoredOpening::Present { .. }) = opening {
                erased.push((*slot, *super::recovery::to_tail_opening(present).commitment.as_bytes()));
            }
        }
        if erased.is_empty() {
            return Ok(());
        }
        Openings::erase(&*units.disk, units.directory(), first_sequence, &erased)
            .map_err(|error| AuditError::NotWritable(error.to_string()))?;
        units.forget_openings(first_sequence);
        sealed::unit_bytes(&*units.disk, units.directory(), first_sequence)
            .map(|bytes| units.set_bytes(first_sequence, bytes))
            .map_err(|error| unreadable(&error))
    }
}

/// What was left of an erasure that was under way; none where none was.
pub(super) fn read_mark(disk: &dyn Disk, directory: &std::path::Path) -> io::Result<Option<Erasing>> {
    match read_whole(disk, &directory.join(ERASING)) {
        Ok(mark) => {
            let interrupted = decode_actor_erasure(&mark).map_err(io::Error::other)?;
            Ok(Some(Erasing { sessions_unsaved: true, interrupted, ..Erasing::default() }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove_mark(disk: &dyn Disk, directory: &std::path::Path) -> io::Result<()> {
    match disk.remove(&directory.join(ERASING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => disk.sync_directory(directory),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn not_written(error: io::Error) -> AuditError {
    AuditError::NotWritable(error.to_string())
}
