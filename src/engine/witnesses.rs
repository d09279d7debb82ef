//! What the audit log and the saved sessions have seen, compared at the start with what the journal and the log hold.
//!
//! The order of writing makes them witnesses: a change of policy is durable in its journal before the audit log records
//! it, and a record is durable before the saved sessions or stored match counts include it. So no crash leaves a witness
//! that has seen more than there is: then somebody cut files back or exchanged them, or a disk lost what it had confirmed.
//! The journal is a witness of the audit log, too: a regular stop leaves no change without its record, and a crash few.
//!
//! Invariant: nothing here changes anything, neither files nor sessions.
//! Not here: reading them back (`read_back`), the log against its own checkpoints (`audit`), and the mirror (`mirror`).

use std::fmt;

use super::apply::OWED_MAX;
use super::audit::{AuditError, AuditLog, LeftAs, ReadBack};
use crate::audit::filter::RecordFilter;
use crate::audit::record::{Content, RecordType};
use crate::policy::change::{Change, ChangeIdentity};
use crate::store::advice::{FROM_COPY, OR_ACCEPT};
use crate::store::codec::audit::SessionSnapshot;

/// What the audit log has seen of the policy journal.
#[derive(Clone, Debug, Default)]
pub(super) struct Audited {
    /// The last record of the policy journal that it has a record of.
    pub(super) sequence: u64,
    /// That change; none where an earlier version removed the record.
    newest: Option<ChangeIdentity>,
}

impl Audited {
    /// Only its sequence is known.
    pub(super) fn up_to(sequence: u64) -> Self {
        Self { sequence, newest: None }
    }

    pub(super) fn by(audit: &ReadBack) -> Result<Self, AuditError> {
        let (log, sequence) = (&audit.log, audit.policy_sequence);
        let filter = RecordFilter { types: vec![RecordType::PolicyChanged], ..RecordFilter::default() };
        let mut before = None;
        loop {
            let page = log.list(&filter, before, 1)?;
            if let Some(record) = page.records.first() {
                let newest = match &record.entry.content {
                    Content::PolicyChanged(change) if change.policy_sequence == sequence => Some(ChangeIdentity {
                        time: record.entry.time,
                        organization: record.entry.organization.clone(),
                        revision: change.revision,
                    }),
                    _ => None,
                };
                return Ok(Self { sequence, newest });
            }
            match page.next_before {
                Some(next) => before = Some(next),
                None => break,
            }
        }
        // Retention has removed the record, and kept what it was of.
        let removed = log.removed_change()?.filter(|(removed, _)| *removed == sequence);
        Ok(Self { sequence, newest: removed.map(|(_, change)| change) })
    }

    /// Whether the journal's record of the newest audited change is that change.
    pub(super) fn is_of(&self, change: &Change) -> bool {
        self.newest.as_ref().is_none_or(|newest| *newest == change.identity())
    }
}

/// How the saved sessions and the audit log disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionsDisagree {
    /// The sessions include a record that the log does not have.
    LogCutOff {
        /// How many records there are.
        records: u64,
        /// The record that the sessions include.
        seen: u64,
    },
    /// The newest checkpoint that the sessions have seen is not kept.
    CheckpointsCutOff {
        /// How many records the newest one kept covers.
        signed: u64,
        /// How many that one covers.
        seen: u64,
    },
    /// The log is not the one that the sessions were saved beside.
    OtherLog {
        /// How many records of that log are known.
        seen: u64,
    },
}

impl fmt::Display for SessionsDisagree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogCutOff { records, seen } => write!(
                f,
                "the audit log ends at record {records}, but the saved sessions include record {seen}: records are \
                 missing; restore the files in `audit` {FROM_COPY}{OR_ACCEPT}"
            ),
            Self::CheckpointsCutOff { signed, seen } => write!(
                f,
                "the newest checkpoint of the audit log covers {signed} records, but one of {seen} was written: \
                 checkpoints are missing; restore `audit/checkpoints` {FROM_COPY}{OR_ACCEPT}"
            ),
            Self::OtherLog { seen } => write!(
                f,
                "the first {seen} records of the audit log are not those that the saved sessions belong to: put the \
                 right `sessions` back, or remove `sessions` to have them made again from the audit log, with the \
                 leases as they were first given"
            ),
        }
    }
}

impl std::error::Error for SessionsDisagree {}

/// Compares saved sessions with the log.
pub(super) fn compare_sessions(saved: &SessionSnapshot, log: &AuditLog) -> Result<(), SessionsDisagree> {
    let records = log.newest_sequence();
    let included = saved.shards.iter().map(|shard| shard.sequence).max().unwrap_or_default();
    let signed = saved.signed.map_or(0, |head| head.size);
    let seen = included.max(signed);
    if seen > records {
        return Err(SessionsDisagree::LogCutOff { records, seen });
    }
    let Some(head) = saved.signed else { return Ok(()) };
    if !log.had(head) {
        return Err(SessionsDisagree::OtherLog { seen: head.size });
    }
    match log.signed().map_or(0, |head| head.size) {
        kept if kept < head.size => Err(SessionsDisagree::CheckpointsCutOff { signed: kept, seen: head.size }),
        _ => Ok(()),
    }
}

/// The audit log has no record of more changes than the end of the process can have kept out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditBehind {
    /// How many changes have no record.
    changes: usize,
    /// The last one that has.
    audited: u64,
    left: LeftAs,
}

impl fmt::Display for AuditBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { changes, audited, left } = self;
        let noun = if *changes == 1 { "change" } else { "changes" };
        write!(
            f,
            "the audit log has no record of the last {changes} {noun} of policy, after record {audited} of its journal, "
        )?;
        match left {
            LeftAs::Clean => f.write_str("and a regular stop leaves none without its record")?,
            _ => write!(f, "and a crash leaves at most {OWED_MAX} without theirs")?,
        }
        write!(
            f,
            ": it is older than the policy, and records are missing; restore the newest files in `audit` {FROM_COPY}{OR_ACCEPT}"
        )
    }
}

impl std::error::Error for AuditBehind {}

/// Compares how many changes the audit log has no record of with how it was left. A log without any records is a new one,
/// where the loss of the old one was accepted or the first start was interrupted; `BEGUN` tells where it is missing.
pub(super) fn compare_owed(changes: usize, audit: &ReadBack) -> Result<(), AuditBehind> {
    let ReadBack { log, policy_sequence: audited, left, .. } = audit;
    let most = if *left == LeftAs::Clean { 0 } else { OWED_MAX };
    if changes <= most || log.newest_sequence() == 0 {
        return Ok(());
    }
    Err(AuditBehind { changes, audited: *audited, left: *left })
}

/// The witnesses that have seen more of the policy journal than there is.
#[derive(Debug, Default)]
pub struct SeenMore(Vec<(&'static str, u64)>);

impl SeenMore {
    /// Notes what a witness has seen.
    pub(super) fn note(&mut self, witness: &'static str, seen: u64, journal: u64) {
        if seen > journal {
            self.0.push((witness, seen));
        }
    }

    /// Whether none has.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for SeenMore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (witness, seen)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", and " };
            write!(f, "{separator}{witness} has seen record {seen}")?;
        }
        Ok(())
    }
}
