//! Erasing a user's personal data (design.md §2.8).
//!
//! A mark that an erasure is under way; the ERASED record, which lists every opening, durable; then the openings
//! themselves: in the journal, in the sealed units, in the saved sessions; then the mark goes.
//!
//! Invariant: an opening is gone only where an ERASED record names it, and once it is named it goes, over any number of
//! crashes and failing disks.
//! Not here: what a record commits to (`audit::commitment`).

use std::collections::BTreeMap;
use std::io;

use tokio::sync::oneshot;

use super::committer::Erasure;
use super::queue::{Command, EraseCommand};
use super::sealer::Sealer;
use super::units::{UnitInfo, unreadable};
use super::{AuditError, AuditLog, Task};
use crate::audit::commitment::Commitment;
use crate::audit::filter::RecordFilter;
use crate::audit::record::{Content, ErasedUnit, RecordType};
use crate::policy::name::Id;
use crate::store::disk::{Disk, write_whole};
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
}

impl AuditLog {
    /// Erases a user in an organization, or everywhere. Answers how many openings went and the sequence of the record.
    pub(crate) async fn erase(
        &self,
        organization: Option<Id>,
        email: String,
        actor: String,
    ) -> Result<(u64, u64), AuditError> {
        let (reply, answer) = oneshot::channel();
        self.shared.queue.check_writable()?;
        self.shared.inbox.send(Task::Erase { organization, email, actor, reply });
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
    pub(super) fn erase(
        &mut self,
        organization: Option<Id>,
        email: String,
        actor: String,
    ) -> Result<(u64, u64), AuditError> {
        self.finish_erasing()?;
        self.sessions.erase(organization.as_ref(), &email);
        self.erasing.sessions_unsaved = true;
        let sealed = self.openings_of(organization.as_ref(), &email)?;
        let path = self.shared.units.directory().join(ERASING);
        write_whole(&*self.shared.units.disk, &path, b"").map_err(not_written)?;
        let (reply, answer) = oneshot::channel();
        let command = EraseCommand { organization, email, actor, sealed: sealed.clone(), reply };
        self.shared.queue.command(Command::Erase(command));
        let Erasure { sequence, count, tail } = answer.blocking_recv().unwrap_or(Err(AuditError::ShuttingDown))?;
        self.erasing.unfinished.extend(sealed.into_iter().chain(tail));
        self.finish_erasing()?;
        Ok((count, sequence))
    }

    /// A user's openings in sealed units.
    fn openings_of(&self, organization: Option<&Id>, email: &str) -> Result<Vec<ErasedUnit>, AuditError> {
        let mut found = Vec::new();
        for UnitInfo { first_sequence, .. } in self.shared.units.list() {
            let openings = self.shared.units.openings(first_sequence)?;
            let slots = openings.slots_of_email(organization.map(Id::as_str), email);
            let mut slots = slots.map_err(|error| unreadable(&error))?;
            slots.sort_unstable();
            if !slots.is_empty() {
                found.push(ErasedUnit { first_sequence, slots });
            }
        }
        Ok(found)
    }

    /// Takes away what is on record as erased. No effect where nothing is left to do.
    pub(super) fn finish_erasing(&mut self) -> Result<(), AuditError> {
        if self.erasing.unfinished.is_empty() && !self.erasing.sessions_unsaved {
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

/// Whether an erasure was under way.
pub(super) fn is_marked(disk: &dyn Disk, directory: &std::path::Path) -> io::Result<bool> {
    Ok(disk.list(directory)?.iter().any(|name| name == ERASING))
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
