//! An erasure that is under way: its steps, and what a start has to know to finish one.
//!
//! Invariant: a step may be repeated; what is erased stays so. Only openings that records before the erasure's first record
//! refer to are concerned.
//! Not here: taking the steps (`eraser`), the record (`committer`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::error::AuditError;
use super::log::AuditLog;
use super::orders::{EraseRequest, Erased, RecordedErasure};
use super::ports::ActorAnswer;
use crate::audit::filter::RecordFilter;
use crate::audit::record::{Actor, Content, ErasedUnit, Record, RecordType, Subject};
use crate::policy::name::Id;
use crate::store::JournalError;
use crate::store::codec::audit::{ErasureMark, UnfinishedErasure};

/// Records in one read when the records of erasures are looked for.
const PAGE: usize = 100;

/// Where the answer to a request goes.
pub(super) type EraseReply = oneshot::Sender<Result<Erased, AuditError>>;

/// An erasure that is under way.
pub(super) struct Erasure {
    pub(super) request: EraseRequest,
    /// Its first record is the first ERASED record behind this sequence. That must be durable: what is only queued may be
    /// lost in a crash, and its sequences are given again.
    pub(super) after_sequence: u64,
    /// That record, once it is durable.
    pub(super) before: Option<u64>,
    /// The openings that its records list.
    pub(super) listed: Vec<ErasedUnit>,
    /// Up to which record of the policy journal the actor is erased.
    pub(super) policy_sequence: u64,
    pub(super) stage: Stage,
    /// What the caller is answered once it is finished.
    pub(super) answer: Erased,
    pub(super) reply: Option<EraseReply>,
}

/// The steps of an erasure, in their order.
pub(super) enum Stage {
    /// Looks for the openings in sealed units, from this sequence on.
    Find { from: u64, found: Vec<ErasedUnit> },
    /// Waits until the record is durable.
    Record { sealed: Vec<ErasedUnit>, answer: oneshot::Receiver<Result<RecordedErasure, AuditError>> },
    /// Notes in the mark where the record is.
    Note,
    /// Removes the openings from the journal, part by part.
    Journal { holders: Arc<HashSet<u64>>, part: u64, answer: Option<oneshot::Receiver<JournalAnswer>> },
    /// Removes them from these sealed units.
    Units { left: BTreeMap<u64, Vec<u32>> },
    /// Saves the sessions.
    Sessions,
    /// Removes the actor from the policy journal, part by part.
    Actor { part: u64, fault: Option<AuditError>, answer: Option<ActorAnswer> },
    /// Nothing is left but its mark.
    Finished,
}

pub(super) type JournalAnswer = Result<Option<u64>, JournalError>;

/// What a start found of erasures that were under way.
#[derive(Default)]
pub(crate) struct Erasing {
    pub(super) erasures: Vec<Erasure>,
}

impl Erasure {
    pub(super) fn new(request: EraseRequest, after_sequence: u64, reply: Option<EraseReply>) -> Self {
        Self {
            request,
            after_sequence,
            before: None,
            listed: Vec::new(),
            policy_sequence: 0,
            stage: Stage::Find { from: 0, found: Vec::new() },
            answer: Erased { openings: 0, sequence: 0, sessions: 0 },
            reply,
        }
    }

    /// Whether the next step is to erase the actor in the policy journal. Erasures of users do not wait for that.
    pub(super) fn waits_for_policy(&self) -> bool {
        matches!(self.stage, Stage::Actor { .. })
    }

    /// What a start needs to finish it.
    pub(super) fn to_mark(&self) -> UnfinishedErasure {
        let EraseRequest { organization, email, including_actor, asked_by } = self.request.clone();
        let (after_sequence, recorded) = (self.after_sequence, self.before);
        UnfinishedErasure { organization, name: email, including_actor, asked_by, after_sequence, recorded }
    }

    /// Whether it goes by the mark of an earlier build, which names nobody and cannot say more.
    pub(super) fn is_nameless(&self) -> bool {
        self.request.email.is_empty()
    }

    pub(super) fn answer(&mut self, answer: Result<Erased, AuditError>) {
        if let Some(reply) = self.reply.take() {
            drop(reply.send(answer));
        }
    }
}

impl Erasing {
    /// Whether a user's data of this sequence, or up to it, is to be erased: a record of the erasure that is durable comes
    /// after it.
    pub(crate) fn is_erased(&self, sequence: u64, organization: &Id, subject: &Subject) -> bool {
        let Subject::Person(person) = subject else { return false };
        self.erasures.iter().any(|erasure| {
            erasure.before.is_some_and(|before| sequence < before)
                && erasure.request.concerns(organization.as_str(), &person.email, false)
        })
    }

    /// The erasures that a mark names, as far as the log tells how far they came. `policy_sequence`: the last record of
    /// the policy journal whose record in the log was removed.
    pub(super) fn resumed(mark: ErasureMark, log: &AuditLog, policy_sequence: u64) -> Result<Self, AuditError> {
        let unfinished = match mark {
            ErasureMark::Erasures(erasures) => erasures,
            ErasureMark::Recorded => {
                let records = erased_records(log, 0)?;
                let nobody = Actor { name: "".into() };
                let request =
                    EraseRequest { organization: None, email: String::new(), including_actor: false, asked_by: nobody };
                let mut erasure = Erasure::new(request, 0, None);
                // Whom they concern is not known: only what they list.
                erasure.before = Some(0);
                erasure.listed = units_of(records);
                return Ok(Self { erasures: vec![erasure] });
            }
        };
        let mut erasures = Vec::new();
        for UnfinishedErasure { organization, name, including_actor, asked_by, after_sequence, recorded } in unfinished
        {
            let request = EraseRequest { organization, email: name, including_actor, asked_by };
            let mut erasure = Erasure::new(request, after_sequence, None);
            let records = erased_records(log, recorded.map_or(after_sequence, |recorded| recorded.saturating_sub(1)))?;
            // Retention may have removed the record that the mark names, and with it all units that it lists.
            if let Some(first) = recorded.or_else(|| records.iter().map(|record| record.sequence).min()) {
                erasure.before = Some(first);
                // Those of later erasures do no harm.
                erasure.listed = units_of(records);
                if including_actor {
                    erasure.policy_sequence = last_change(log, first)?.unwrap_or(policy_sequence);
                }
            }
            erasures.push(erasure);
        }
        Ok(Self { erasures })
    }
}

/// The ERASED records behind a sequence.
fn erased_records(log: &AuditLog, after: u64) -> Result<Vec<Record>, AuditError> {
    let filter = RecordFilter { types: vec![RecordType::Erased], ..RecordFilter::default() };
    let (mut records, mut before) = (Vec::new(), None);
    loop {
        let page = log.list(&filter, before, PAGE)?;
        records.extend(page.records.into_iter().filter(|record| record.sequence > after));
        match page.next_before.filter(|next| *next > after) {
            Some(next) => before = Some(next),
            None => return Ok(records),
        }
    }
}

/// The record of the policy journal that the last change before a record of the log was.
fn last_change(log: &AuditLog, before: u64) -> Result<Option<u64>, AuditError> {
    let filter = RecordFilter { types: vec![RecordType::PolicyChanged], ..RecordFilter::default() };
    let mut before = before;
    loop {
        let page = log.list(&filter, Some(before), 1)?;
        if let Some(Content::PolicyChanged(change)) = page.records.first().map(|record| &record.entry.content) {
            return Ok(Some(change.policy_sequence));
        }
        match page.next_before {
            Some(next) => before = next,
            None => return Ok(None),
        }
    }
}

fn units_of(records: Vec<Record>) -> Vec<ErasedUnit> {
    let units = records.into_iter().map(|record| match record.entry.content {
        Content::Erased(erased) => erased.units,
        _ => Vec::new(),
    });
    units.flatten().collect()
}
