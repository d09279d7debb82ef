//! The eraser removes a user's personal data (design.md §2.8), in these steps:
//!
//! 1. Write the mark that an erasure is under way. It tells a start whom to erase, because the record does not.
//! 2. Find the openings in sealed units.
//! 3. Note in the mark which records are durable now, behind which the record will be. Queue the ERASED record, and erase
//!    the sessions whose opening was queued before it. The writer adds the openings of the tail: all that records before
//!    this one refer to. When it is durable, no reader finds them in the tail; the mark then says which record it is.
//! 4. Erase the openings in the journal, part by part, and in the sealed units, one by one; save the sessions; on request,
//!    erase the actor in the policy journal, part by part.
//! 5. Remove the mark.
//!
//! So what was recorded before the ERASED record is erased, and what comes after it is a new person's. A step that fails is
//! tried again. Between two steps other maintenance is done, and the erasure ends where the service does; the next start
//! finishes it.
//!
//! Invariant: only openings that a durable ERASED record lists are erased, and all of them are, over any number of crashes
//! and failed writes. While the record is not durable, nothing is sealed.
//! Not here: what a record commits to (`audit::commitment`), what is left of an erasure at a start (`erasing`).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::erasing::{Erasing, Erasure, Stage};
use super::error::AuditError;
use super::held::{erase_sealed, holders_of, openings_of};
use super::inbox::EraseTask;
use super::orders::{EraseOrder, ErasurePlace, Order, RecordedErasure, RedactOrder};
use super::ports::{ActorFiles, ErasedPart, SessionFiles};
use super::shared::Shared;
use crate::audit::record::{Content, Entry, ErasedRecord, ErasedUnit, slots_of};
use crate::engine::clock::Clock;
use crate::store::codec::audit::{ErasureMark, decode_erasure_mark, encode_erasure_mark};
use crate::store::folder::Folder;

/// The mark that erasures are under way.
const ERASING: &str = "erasing";

/// Erasures that may wait for the one that is under way.
const WAITING_MAX: usize = 1_024;

/// What a step leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is another step to take.
    Going,
    /// The audit writer or the policy writer is to answer, and will wake the thread.
    Waiting,
    /// There is nothing to do.
    Idle,
}

/// See the module.
pub(super) struct Eraser {
    shared: Arc<Shared>,
    clock: Clock,
    actors: Box<dyn ActorFiles>,
    /// Asked for and not begun.
    waiting: VecDeque<EraseTask>,
    /// In the order in which they were begun. All but the last wait for the policy journal.
    erasures: Vec<Erasure>,
    /// The mark may say something else, because it could not be written.
    is_mark_stale: bool,
}

impl Eraser {
    pub(super) fn new(shared: Arc<Shared>, clock: Clock, actors: Box<dyn ActorFiles>, erasing: Erasing) -> Self {
        let erasures = erasing.erasures;
        if !erasures.is_empty() {
            tracing::info!(erasures = erasures.len(), "erasures that were unfinished go on");
        }
        Self { shared, clock, actors, waiting: VecDeque::new(), erasures, is_mark_stale: false }
    }

    /// Takes what is asked for.
    pub(super) fn take(&mut self, tasks: Vec<EraseTask>) {
        for task in tasks {
            if self.waiting.len() >= WAITING_MAX {
                let refused = AuditError::not_writable("too many erasures are waiting");
                drop(task.reply.send(Err(refused)));
            } else {
                self.waiting.push_back(task);
            }
        }
    }

    /// Tells what the next start has to finish.
    pub(super) fn tell_unfinished(&self) {
        let erasures = self.erasures.len();
        if erasures > 0 {
            tracing::warn!(erasures, "erasures are unfinished: the next start goes on with them");
        }
    }

    /// Whether somebody waits for an erasure to begin.
    pub(super) fn is_asked(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether units may be sealed: an opening must not move while its erasure is being recorded.
    pub(super) fn may_seal(&self) -> bool {
        !self.erasures.iter().any(|erasure| matches!(erasure.stage, Stage::Record { .. }))
    }

    /// Takes a step of an erasure, or begins one that is asked for. After an error nobody
    /// waits any more: everybody is told, and what was begun is tried again.
    pub(super) fn step_openings(&mut self, sessions: &mut dyn SessionFiles) -> Result<Progress, AuditError> {
        let stepped = match self.erasures.iter().position(|erasure| !erasure.waits_for_policy()) {
            Some(at) => self.step(at, sessions),
            None => Ok(self.begin()),
        };
        stepped.inspect_err(|error| {
            for task in self.waiting.drain(..) {
                drop(task.reply.send(Err(error.clone())));
            }
        })
    }

    /// Takes a step in the policy journal. No erasure of a user waits for it.
    pub(super) fn step_rest(&mut self, sessions: &mut dyn SessionFiles) -> Result<Progress, AuditError> {
        match self.erasures.iter().position(Erasure::waits_for_policy) {
            Some(at) => self.step(at, sessions),
            None if self.is_mark_stale => self.write_mark().map(|()| Progress::Idle),
            None => Ok(Progress::Idle),
        }
    }

    /// Begins the next erasure that is asked for.
    fn begin(&mut self) -> Progress {
        // Erasures of users do not wait for the policy journal, so they come before those of actors that do.
        let may_begin = |task: &EraseTask| self.erasures.is_empty() || !task.request.including_actor;
        let next = self.waiting.iter().position(may_begin).unwrap_or(0);
        let Some(EraseTask { request, reply }) = self.waiting.remove(next) else { return Progress::Idle };
        // The caller has given up before anything was done.
        if reply.is_closed() {
            return Progress::Going;
        }
        if request.including_actor && !self.erasures.is_empty() {
            // At most one is left over: names that cannot be erased now must not pile up.
            return match self.step_actor(0) {
                Ok(progress) => {
                    self.waiting.push_front(EraseTask { request, reply });
                    progress
                }
                Err(error) => {
                    drop(reply.send(Err(error)));
                    Progress::Going
                }
            };
        }
        self.erasures.push(Erasure::new(request, self.shared.newest(), Some(reply)));
        if let Err(error) = self.write_mark()
            && let Some(mut refused) = self.erasures.pop()
        {
            refused.answer(Err(error));
        }
        Progress::Going
    }

    /// Takes a step of an erasure. Its caller is told an error.
    fn step(&mut self, at: usize, sessions: &mut dyn SessionFiles) -> Result<Progress, AuditError> {
        let stepped = match self.erasures.get(at).map(|erasure| &erasure.stage) {
            None => Ok(Progress::Idle),
            Some(Stage::Find { .. }) => self.find(at, sessions),
            Some(Stage::Record { .. }) => self.await_record(at),
            Some(Stage::Note) => self.note_record(at),
            Some(Stage::Journal { .. }) => self.redact(at),
            Some(Stage::Units { .. }) => self.erase_unit(at),
            Some(Stage::Sessions) => self.save_sessions(at, sessions),
            Some(Stage::Actor { .. } | Stage::Finished) => self.step_actor(at),
        };
        if let Err(error) = &stepped
            && let Some(erasure) = self.erasures.get_mut(at)
        {
            erasure.answer(Err(error.clone()));
        }
        stepped
    }

    /// Looks into the next sealed unit; after the last, has the erasure recorded. No unit is sealed in between.
    fn find(&mut self, at: usize, sessions: &mut dyn SessionFiles) -> Result<Progress, AuditError> {
        let Self { shared, erasures, .. } = self;
        let Some(Erasure { request, after_sequence, before, listed, stage, .. }) = erasures.get_mut(at) else {
            return Ok(Progress::Idle);
        };
        let Stage::Find { from, found } = stage else { return Ok(Progress::Going) };
        let units = shared.units.list();
        if let Some(unit) = units.into_iter().find(|unit| unit.first_sequence >= *from) {
            let mut slots = openings_of(shared, request, &unit, *before)?;
            let of_unit = |listed: &&ErasedUnit| listed.first_sequence == unit.first_sequence;
            let known: HashSet<u32> = listed.iter().filter(of_unit).flat_map(|listed| &listed.slots).copied().collect();
            slots.retain(|slot| !known.contains(slot));
            if !slots.is_empty() {
                found.push(ErasedUnit { first_sequence: unit.first_sequence, slots });
            }
            *from = unit.next_sequence();
            return Ok(Progress::Going);
        }
        if before.is_none() {
            // A mark that was left by an earlier start may name a sequence that the log has not reached again.
            *after_sequence = shared.newest();
            self.write_mark()?;
        }
        Ok(self.record(at, sessions))
    }

    /// Has the erasure recorded, and the sessions erased that were opened before.
    fn record(&mut self, at: usize, sessions: &mut dyn SessionFiles) -> Progress {
        let Self { shared, clock, erasures, .. } = self;
        let Some(erasure) = erasures.get_mut(at) else { return Progress::Idle };
        let Stage::Find { found, .. } = &mut erasure.stage else { return Progress::Going };
        let sealed = std::mem::take(found);
        let (reply, answer) = oneshot::channel();
        let request = erasure.request.clone();
        let order = |place| Order::Erase(EraseOrder { request: request.clone(), sealed: sealed.clone(), place, reply });
        if let Some(before) = erasure.before {
            shared.queue.order(order(ErasurePlace::Durable(before)));
        } else {
            let mut order = Some(order);
            let erased = sessions.erase(request.organization.as_ref(), &request.email, &mut || {
                let content = Content::Erased(ErasedRecord { opening_count: 0, units: Vec::new() });
                let entry = Entry { time: clock.now(), organization: request.organization.clone(), content };
                if let Some(order) = order.take() {
                    let order = |sequence| order(ErasurePlace::Queued(sequence));
                    shared.queue.push_with(entry, request.recorded_actor(), order);
                }
            });
            erasure.answer.sessions = erased as u64;
        }
        erasure.stage = Stage::Record { sealed, answer };
        Progress::Waiting
    }

    fn await_record(&mut self, at: usize) -> Result<Progress, AuditError> {
        let Some(erasure) = self.erasures.get_mut(at) else { return Ok(Progress::Idle) };
        let Stage::Record { sealed, answer } = &mut erasure.stage else { return Ok(Progress::Going) };
        let recorded = match answer.try_recv() {
            Ok(recorded) => recorded?,
            Err(TryRecvError::Empty) => return Ok(Progress::Waiting),
            Err(TryRecvError::Closed) => return Err(AuditError::ShuttingDown),
        };
        let RecordedErasure { first, sequence, count, tail, policy_sequence } = recorded;
        (erasure.answer.openings, erasure.answer.sequence) = (count, sequence);
        if erasure.before.is_none() {
            erasure.policy_sequence = policy_sequence;
            erasure.before = Some(first);
        }
        erasure.listed.extend(std::mem::take(sealed).into_iter().chain(tail));
        erasure.stage = Stage::Note;
        Ok(Progress::Going)
    }

    /// Has the mark say which record it is: retention may remove the record before all is erased.
    fn note_record(&mut self, at: usize) -> Result<Progress, AuditError> {
        if self.erasures.get(at).is_some_and(|erasure| !erasure.is_nameless()) {
            self.write_mark()?;
        }
        let Self { shared, erasures, .. } = self;
        let Some(erasure) = erasures.get_mut(at) else { return Ok(Progress::Idle) };
        let holders = Arc::new(holders_of(shared, &erasure.listed));
        erasure.stage = Stage::Journal { holders, part: 0, answer: None };
        Ok(Progress::Going)
    }

    /// Has the next part of the journal rewritten: records are written in between.
    fn redact(&mut self, at: usize) -> Result<Progress, AuditError> {
        let Self { shared, erasures, .. } = self;
        let Some(Erasure { stage, listed, .. }) = erasures.get_mut(at) else { return Ok(Progress::Idle) };
        let Stage::Journal { holders, part, answer } = stage else { return Ok(Progress::Going) };
        let Some(asked) = answer else {
            let (reply, asked) = oneshot::channel();
            let order = RedactOrder { part: *part, holders: Arc::clone(holders), reply };
            *answer = Some(asked);
            shared.queue.order(Order::Redact(order));
            return Ok(Progress::Waiting);
        };
        let next = match asked.try_recv() {
            Err(TryRecvError::Empty) => return Ok(Progress::Waiting),
            Ok(redacted) => redacted.map_err(AuditError::not_writable),
            Err(TryRecvError::Closed) => Err(AuditError::ShuttingDown),
        };
        *answer = None;
        if let Some(next) = next? {
            *part = next;
        } else {
            let mut left: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
            for ErasedUnit { first_sequence, slots } in listed {
                left.entry(*first_sequence).or_default().extend(&*slots);
            }
            *stage = Stage::Units { left };
        }
        Ok(Progress::Going)
    }

    /// Erases the openings of the next sealed unit.
    fn erase_unit(&mut self, at: usize) -> Result<Progress, AuditError> {
        let Self { shared, erasures, .. } = self;
        let Some(Erasure { stage, .. }) = erasures.get_mut(at) else { return Ok(Progress::Idle) };
        let Stage::Units { left } = stage else { return Ok(Progress::Going) };
        let Some((first_sequence, slots)) = left.first_key_value() else {
            shared.decoded.clear();
            *stage = Stage::Sessions;
            return Ok(Progress::Going);
        };
        {
            let _layout = shared.layout.hold();
            // One in the tail was erased there, and will be sealed so. One that was removed is gone.
            if shared.units.find(*first_sequence).is_some_and(|unit| unit.first_sequence == *first_sequence) {
                erase_sealed(shared, *first_sequence, slots)?;
            }
        }
        left.pop_first();
        Ok(Progress::Going)
    }

    fn save_sessions(&mut self, at: usize, sessions: &mut dyn SessionFiles) -> Result<Progress, AuditError> {
        sessions.save()?;
        if let Some(Erasure { stage, request, .. }) = self.erasures.get_mut(at) {
            let actor = Stage::Actor { part: 0, fault: None, answer: None };
            *stage = if request.including_actor { actor } else { Stage::Finished };
        }
        Ok(Progress::Going)
    }

    /// Has the actor erased in the next part of the policy journal, without waiting for the policy writer; after the last
    /// part the erasure is finished.
    fn step_actor(&mut self, at: usize) -> Result<Progress, AuditError> {
        let Some(Erasure { stage, request, policy_sequence, .. }) = self.erasures.get_mut(at) else {
            return Ok(Progress::Idle);
        };
        let Stage::Actor { part, fault, answer } = stage else { return self.finish(at) };
        let Some(asked) = answer else {
            let (organization, name) = (request.organization.as_ref(), &request.email);
            *answer = Some(self.actors.erase(organization, name, *policy_sequence, *part)?);
            return Ok(Progress::Waiting);
        };
        let erased = match asked.try_recv() {
            Err(TryRecvError::Empty) => return Ok(Progress::Waiting),
            Ok(erased) => erased,
            Err(TryRecvError::Closed) => Err(AuditError::ShuttingDown),
        };
        *answer = None;
        let ErasedPart { next, fault: found } = erased?;
        *fault = fault.take().or(found);
        *part = next.unwrap_or(0);
        if next.is_none() {
            self.actors.forget();
            if let Some(fault) = fault.take() {
                return Err(fault);
            }
            *stage = Stage::Finished;
        }
        Ok(Progress::Going)
    }

    /// Removes the erasure from the mark, and answers.
    fn finish(&mut self, at: usize) -> Result<Progress, AuditError> {
        let mut finished = self.erasures.remove(at);
        if let Err(error) = self.write_mark() {
            self.erasures.insert(at, finished);
            return Err(error);
        }
        self.shared.erased.send_modify(|count| *count += 1);
        let answer = finished.answer;
        tracing::info!(openings = slots_of(&finished.listed), record = finished.before, "an erasure is finished");
        finished.answer(Ok(answer));
        Ok(Progress::Going)
    }

    /// Has the mark say what is under way. It does not change while a backup notes what the files are: whom the backup
    /// holds is erased where it is restored, or was erased before.
    fn write_mark(&mut self) -> Result<(), AuditError> {
        let layout = self.shared.layout.hold();
        let folder = &self.shared.folder;
        let written = if self.erasures.is_empty() {
            folder.remove(ERASING)
        } else {
            let unfinished: Vec<_> = self.erasures.iter().map(Erasure::to_mark).collect();
            folder.write(ERASING, &encode_erasure_mark(&unfinished)).map(drop)
        };
        drop(layout);
        self.is_mark_stale = written.is_err();
        written.map_err(AuditError::not_writable)
    }
}

/// The mark of erasures that were under way; none where there is no mark.
pub(super) fn read_mark(folder: &Folder) -> std::io::Result<Option<ErasureMark>> {
    let Some(mark) = folder.read(ERASING)? else { return Ok(None) };
    decode_erasure_mark(&mark).map(Some).map_err(|error| {
        let path = folder.file(ERASING);
        std::io::Error::other(format!(
            "`{}` does not decode: {error}; use the version that wrote it, or restore it from a backup of the same moment, \
             or remove it and erase again whoever was being erased when the service ended",
            path.display()
        ))
    })
}
