//! Match counts after a start: the stored ones, and what the audit log has after them.
//!
//! A rule that decides is named by the record. An allow rule that matched first while an allowlist refused is not: it is
//! found by asking the firewall again, as it is now.
//!
//! Invariant: no decision that the log holds is missing in a count, however the service ended.
//! Not here: storing the counts (`mirror`).

use std::collections::HashMap;

use super::audit::{AuditError, AuditLog};
use super::directory::{Directory, Published, PublishedCluster};
use super::mirror::StoredCounters;
use crate::audit::record::{Content, DecisionRecord, Record, Subject};
use crate::policy::decision::Reason;
use crate::policy::name::{Id, NodePath};

/// Records that are read at a time.
const RECORDS_MAX: usize = 256;

/// The positions of an organization's rules.
type Positions = HashMap<Id, usize>;

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
    let cluster = directory.cluster();
    let mut positions: HashMap<Id, Positions> = HashMap::new();
    let (mut next, mut added) = (from, 0);
    while next <= log.newest_sequence() {
        let records = log.read(next, RECORDS_MAX)?;
        let Some(last) = records.last() else { break };
        next = last.sequence + 1;
        for record in &records {
            let (Some(id), Content::Decision(decision)) = (&record.entry.organization, &record.entry.content) else {
                continue;
            };
            let Some(published) = directory.organization(id.as_str()) else { continue };
            let rules = positions.entry(id.clone()).or_insert_with(|| positions_of(&published));
            added += u64::from(add(&published, &cluster, rules, record, decision));
        }
    }
    Ok(added)
}

fn positions_of(published: &Published) -> Positions {
    let rules = published.view.organization.rules.iter().enumerate();
    rules.map(|(position, rule)| (rule.id.clone(), position)).collect()
}

/// Counts a decision for the rule that matched first; false where that is none there is.
fn add(
    published: &Published,
    cluster: &PublishedCluster,
    rules: &Positions,
    record: &Record,
    decision: &DecisionRecord,
) -> bool {
    let position = match (&decision.rule, decision.reason) {
        (Some(rule), _) => rules.get(rule).copied(),
        (None, Reason::OutsideOrganization | Reason::OutsideEndpoint) => matched(published, cluster, record, decision),
        (None, _) => None,
    };
    let Some(position) = position else { return false };
    let view = &published.view;
    let (Some(rule), Some(counter)) = (view.organization.rules.get(position), view.counters.at(position)) else {
        return false;
    };
    // One of the same name that was deleted decided before this one was made.
    let is_its_own = record.entry.time >= rule.create_time;
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
