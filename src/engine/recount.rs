//! Match counts after a start: the stored ones, and what the audit log has after them.
//!
//! A rule that decides is named by the record. An allow rule that matched first while an allowlist refused is not: it is
//! found by asking the firewall again, as it is now.
//!
//! Invariant: no decision that the log holds is missing in a count, however the service ended.
//! Not here: storing the counts (`mirror`).

use std::collections::HashMap;
use std::sync::Arc;

use super::audit::{AuditError, AuditLog};
use super::directory::{Directory, Published, PublishedCluster};
use super::mirror::StoredCounters;
use crate::audit::record::{Content, DecisionRecord, Record, Subject};
use crate::policy::decision::Reason;
use crate::policy::name::{Id, NodePath};
use crate::policy::rule::Rule;
use crate::policy::time::Timestamp;

/// Records that are read at a time.
const RECORDS_MAX: usize = 256;

/// The rules of an organization as it is.
struct Rules {
    positions: HashMap<Id, usize>,
    /// The revisions that made them, by the time of that in microseconds. None: what was stored of the counts is newer.
    made: HashMap<i64, Option<u64>>,
}

/// Adds to the published counters what the log has after what is stored.
pub(super) fn recount(directory: &Directory, log: &AuditLog, stored: &StoredCounters) {
    let Some(counted) = stored.counted else { return };
    match add_from(directory, log, counted + 1) {
        Ok(0) => {}
        Ok(added) => tracing::info!(decisions = added, "match counts were completed from the audit log"),
        Err(error) => tracing::warn!(%error, "match counts lack decisions that were not stored with them"),
    }
}

fn add_from(directory: &Directory, log: &AuditLog, from: u64) -> Result<u64, AuditError> {
    let (cluster, mut rules, mut added) = (directory.cluster(), HashMap::new(), 0);
    // The first pass sees no decision of a rule before what it is made by.
    each(log, from, |record| {
        let (Some(id), Content::PolicyChanged(change)) = (&record.entry.organization, &record.entry.content) else {
            return;
        };
        if let Some((_, rules)) = rules_of(&mut rules, directory, id) {
            rules.note(record.entry.time, change.revision);
        }
    })?;
    each(log, from, |record| {
        let (Some(id), Content::Decision(decision)) = (&record.entry.organization, &record.entry.content) else {
            return;
        };
        if let Some((published, rules)) = rules_of(&mut rules, directory, id) {
            added += u64::from(add(published, &cluster, rules, record, decision));
        }
    })?;
    Ok(added)
}

/// Calls something for each record of the log from one on.
fn each(log: &AuditLog, from: u64, mut of: impl FnMut(&Record)) -> Result<(), AuditError> {
    let mut next = from;
    while next <= log.newest_sequence() {
        let records = log.read(next, RECORDS_MAX)?;
        let Some(last) = records.last() else { break };
        next = last.sequence + 1;
        for record in &records {
            of(record);
        }
    }
    Ok(())
}

/// What is published of an organization, and its rules.
fn rules_of<'a>(
    known: &'a mut HashMap<Id, Option<(Arc<Published>, Rules)>>,
    directory: &Directory,
    id: &Id,
) -> Option<(&'a Published, &'a mut Rules)> {
    let of = || directory.organization(id.as_str()).map(|published| (Arc::clone(&published), Rules::of(&published)));
    let (published, rules) = known.entry(id.clone()).or_insert_with(of).as_mut()?;
    Some((&**published, rules))
}

impl Rules {
    fn of(published: &Published) -> Self {
        let rules = || published.view.organization.rules.iter().enumerate();
        Self {
            positions: rules().map(|(position, rule)| (rule.id.clone(), position)).collect(),
            made: rules().map(|(_, rule)| (rule.create_time.micros(), None)).collect(),
        }
    }

    /// Notes a change. It made the rules that have its time; each change of an organization has a time of its own.
    fn note(&mut self, time: Timestamp, revision: u64) {
        if let Some(made) = self.made.get_mut(&time.micros()) {
            made.get_or_insert(revision);
        }
    }

    /// Whether a rule was there at a revision. By time alone this cannot be told where the clock was corrected.
    fn was_there(&self, rule: &Rule, revision: u64) -> bool {
        self.made.get(&rule.create_time.micros()).is_none_or(|made| made.is_none_or(|made| revision >= made))
    }
}

/// Counts a decision for the rule that matched first; false where that is none there is.
fn add(
    published: &Published,
    cluster: &PublishedCluster,
    rules: &Rules,
    record: &Record,
    decision: &DecisionRecord,
) -> bool {
    let position = match (&decision.rule, decision.reason) {
        (Some(rule), _) => rules.positions.get(rule).copied(),
        (None, Reason::OutsideOrganization | Reason::OutsideEndpoint) => matched(published, cluster, record, decision),
        (None, _) => None,
    };
    let Some(position) = position else { return false };
    let view = &published.view;
    let (Some(rule), Some(counter)) = (view.organization.rules.get(position), view.counters.at(position)) else {
        return false;
    };
    // One of the same name that was deleted decided before this one was made.
    let is_its_own = rules.was_there(rule, decision.revision);
    if is_its_own {
        counter.recount(record.sequence, record.entry.time);
    }
    is_its_own
}

/// The rule that matches first, by the policy as it is.
fn matched(
    published: &Published,
    cluster: &PublishedCluster,
    record: &Record,
    decision: &DecisionRecord,
) -> Option<usize> {
    let Subject::Person(person) = &record.subject else { return None };
    let target = NodePath::parse(&decision.endpoint).ok()?;
    let verdict = published.snapshot.decide(
        &cluster.snapshot,
        person.address,
        decision.connection_type,
        &target,
        record.entry.time,
    );
    verdict.first_match
}
