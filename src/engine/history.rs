//! The history of the policy: every revision, read back from the policy journal.
//!
//! The journal holds each change, so a revision is rebuilt from the changes up to it. An index in memory tells which
//! records change which organization. The first call builds it from the whole journal; later calls read only new
//! records. It is not kept in the state store, because it names actors, who must stay erasable.
//!
//! Invariant: what is acknowledged when a call begins is in its answer. Reading the journal does not delay the writer.
//! Not here: going back to a revision, which is a change like any other (`planning`).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use thiserror::Error;

use super::Engine;
use super::change::ChangeError;
use crate::audit::policy_change::{Room, changes_within};
use crate::audit::record::ObjectChange;
use crate::locks::IgnorePoison;
use crate::policy::change::{Change, Delta, Effect};
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::rule::Rule;
use crate::policy::state::{Outcome, PolicyState};
use crate::policy::time::Timestamp;
use crate::store::codec::{CodecError, decode_change};
use crate::store::{JournalError, OwnedRecords};

/// A change that led to a revision, without what it changed.
#[derive(Clone, Debug)]
pub struct RevisionEntry {
    /// The revision.
    pub revision: u64,
    /// When the change was made.
    pub time: Timestamp,
    /// Who made it.
    pub actor: Arc<str>,
    /// The comment.
    pub comment: Arc<str>,
    /// When it was to be undone unless confirmed.
    pub confirm_until: Option<Timestamp>,
    /// The policy tests that it broke on purpose.
    pub overridden_tests: Vec<Id>,
    sequence: u64,
    creates: bool,
}

/// A revision with what led to it.
#[derive(Debug)]
pub struct RevisionDetail {
    /// The change.
    pub entry: RevisionEntry,
    /// What it altered.
    pub changes: Vec<ObjectChange>,
    /// The organization after it; none where it was deleted.
    pub organization: Option<Arc<Organization>>,
}

/// Why the history cannot be read.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The writer did not answer.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The journal cannot be read.
    #[error("the policy journal cannot be read: {0}")]
    Journal(#[from] JournalError),
    /// A record does not decode.
    #[error("record {0} of the policy journal: {1}")]
    Record(u64, CodecError),
}

/// Where the changes of each organization are.
#[derive(Default)]
pub(super) struct History {
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    /// How often it was emptied.
    generation: u64,
    /// The last record that is in it.
    through: u64,
    by_organization: HashMap<Id, Vec<RevisionEntry>>,
}

impl Index {
    fn add(&mut self, sequence: u64, change: Change) {
        self.through = sequence;
        let Change { time, actor, comment, confirm_until, overridden_tests, effect } = change;
        let Some(id) = effect.organization() else { return };
        let revisions = self.by_organization.entry(id.clone()).or_default();
        // A few actors make most changes of an organization: share their names.
        let actor = match revisions.last() {
            Some(last) if last.actor == actor => Arc::clone(&last.actor),
            _ => actor,
        };
        revisions.push(RevisionEntry {
            revision: effect.revision(),
            time,
            actor,
            comment,
            confirm_until,
            overridden_tests,
            sequence,
            creates: matches!(effect, Effect::CreateOrganization { .. }),
        });
    }
}

impl History {
    /// Empties the index, because records of the journal were rewritten.
    pub(super) fn forget(&self) {
        let mut index = self.index.lock().ignore_poison();
        *index = Index { generation: index.generation + 1, ..Index::default() };
    }

    /// Adds records to the index; false where it was emptied after they were asked for.
    fn extend(&self, generation: u64, records: OwnedRecords) -> Result<bool, HistoryError> {
        let mut index = self.index.lock().ignore_poison();
        if index.generation != generation {
            return Ok(false);
        }
        for record in records {
            let (sequence, change) = read(record)?;
            if sequence > index.through {
                index.add(sequence, change);
            }
        }
        Ok(true)
    }
}

fn read(record: Result<(u64, Vec<u8>), JournalError>) -> Result<(u64, Change), HistoryError> {
    let (sequence, bytes) = record?;
    let change = decode_change(&bytes).map_err(|error| HistoryError::Record(sequence, error))?;
    Ok((sequence, change))
}

impl Engine {
    /// Brings the index up to date. Files are read on a thread that may block.
    async fn index(&self) -> Result<(), HistoryError> {
        loop {
            let (generation, through) = {
                let index = self.history.index.lock().ignore_poison();
                (index.generation, index.through)
            };
            let records = self.journal_records(through + 1).await??;
            let history = Arc::clone(&self.history);
            let extend = move || history.extend(generation, records);
            if tokio::task::spawn_blocking(extend).await.map_err(|_| ChangeError::ShuttingDown)?? {
                return Ok(());
            }
        }
    }

    /// The changes that led to an organization's revisions below `before` (all where there is none), newest first, at most
    /// `count_max`.
    pub async fn revisions(
        &self,
        id: &Id,
        before: Option<u64>,
        count_max: usize,
    ) -> Result<Vec<RevisionEntry>, HistoryError> {
        self.index().await?;
        let index = self.history.index.lock().ignore_poison();
        let revisions = index.by_organization.get(id).map(Vec::as_slice).unwrap_or_default();
        let below = |entry: &&RevisionEntry| before.is_none_or(|before| entry.revision < before);
        Ok(revisions.iter().rev().filter(below).take(count_max).cloned().collect())
    }

    /// A revision of an organization; none where there is none.
    pub async fn revision(&self, id: &Id, revision: u64) -> Result<Option<RevisionDetail>, HistoryError> {
        self.rebuilt(id, revision, false).await
    }

    /// The policy of a revision as it may be brought back: rules that were marked as expired since are marked.
    pub async fn restorable(&self, id: &Id, revision: u64) -> Result<Option<Arc<Organization>>, HistoryError> {
        Ok(self.rebuilt(id, revision, true).await?.and_then(|detail| detail.organization))
    }

    async fn rebuilt(
        &self,
        id: &Id,
        revision: u64,
        with_later_marks: bool,
    ) -> Result<Option<RevisionDetail>, HistoryError> {
        self.index().await?;
        let (entry, first) = {
            let index = self.history.index.lock().ignore_poison();
            let revisions = index.by_organization.get(id).map(Vec::as_slice).unwrap_or_default();
            let Some(at) = revisions.iter().position(|entry| entry.revision == revision) else { return Ok(None) };
            let created = revisions.iter().take(at + 1).rev().find(|entry| entry.creates);
            let Some((entry, created)) = revisions.get(at).zip(created) else { return Ok(None) };
            (entry.clone(), created.sequence)
        };
        let records = self.journal_records(first).await??;
        let id = id.clone();
        let replay = move || replay(&id, &entry, records, with_later_marks);
        tokio::task::spawn_blocking(replay).await.map_err(|_| ChangeError::ShuttingDown)?
    }
}

/// Rules that are on the record as expired, with the expire time that has passed.
type Marks = HashSet<(Id, Option<Timestamp>)>;

/// Adds the marks that a change set.
fn add_marks(change: &Change, before: Option<&Organization>, marks: &mut Marks) {
    let Effect::Organization { deltas, .. } = &change.effect else { return };
    let mut add = |rule: &Rule| {
        marks.insert((rule.id.clone(), rule.expire_time));
    };
    for delta in deltas {
        match delta {
            Delta::ExpireRules { indexes } => {
                let rules = before.map(|before| before.rules.as_slice()).unwrap_or_default();
                indexes.iter().filter_map(|index| rules.get(*index as usize)).for_each(|rule| add(rule));
            }
            Delta::InsertRule { rule, .. } | Delta::SetRule { rule } if rule.expired => add(rule),
            Delta::ReplaceRules { rules } => rules.iter().filter(|rule| rule.expired).for_each(&mut add),
            _ => {}
        }
    }
}

fn with_marks(organization: Arc<Organization>, marks: &Marks) -> Arc<Organization> {
    if marks.is_empty() {
        return organization;
    }
    let mut organization = (*organization).clone();
    for rule in Arc::make_mut(&mut organization.rules) {
        if !rule.expired && marks.contains(&(rule.id.clone(), rule.expire_time)) {
            Arc::make_mut(rule).expired = true;
        }
    }
    Arc::new(organization)
}

/// Rebuilds the organization, change by change, up to an entry; with the marks that its rules got later if they are asked
/// for.
fn replay(
    id: &Id,
    entry: &RevisionEntry,
    records: OwnedRecords,
    with_later_marks: bool,
) -> Result<Option<RevisionDetail>, HistoryError> {
    let mut organization: Option<Arc<Organization>> = None;
    let (mut found, mut marks) = (None, Marks::new());
    for record in records {
        let (sequence, change) = read(record)?;
        if change.effect.organization() != Some(id) {
            continue;
        }
        let outcome = PolicyState::outcome(&change, organization.as_ref());
        if found.is_some() {
            add_marks(&change, organization.as_deref(), &mut marks);
        }
        if sequence == entry.sequence {
            let changes = changes_within(Room::ANSWER, &change, organization.as_deref(), None, &outcome);
            let organization = outcome.organization().cloned();
            found = Some(RevisionDetail { entry: entry.clone(), changes, organization });
            if !with_later_marks {
                break;
            }
        }
        if let Outcome::Organization(made) = outcome {
            organization = Some(made);
        }
    }
    Ok(found.map(|found| {
        let organization = found.organization.map(|organization| with_marks(organization, &marks));
        RevisionDetail { organization, ..found }
    }))
}
