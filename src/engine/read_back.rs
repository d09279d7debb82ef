//! Reading back what is stored, at a start: the audit log, the saved sessions and the policy, compared with one another.
//!
//! Invariant: what is handed on agrees. Where something does not, nothing that was stored is changed, and all faults that
//! can be seen are told at once.
//! Not here: how each is read (`recovery`, `session_files`, `audit::recovery`), and what disagreeing is (`witnesses`).

use std::fmt;

use super::OpenError;
use super::audit::{AuditOpenError, ReadBack};
use super::clock::Clock;
use super::mirror::Mirror;
use super::recovery::{self, Recovered, RecoveryError};
use super::session_files::SessionStores;
use super::witnesses::{self, Audited};
use crate::store::codec::audit::SessionSnapshot;
use crate::store::{Log, Snapshots, StateStores};

/// Where the policy is kept, and its copy.
pub(super) struct PolicyFiles<'a> {
    pub(super) journal: &'a mut dyn Log,
    pub(super) snapshots: &'a dyn Snapshots,
    pub(super) copies: &'a dyn StateStores,
}

/// What was read back, and agrees.
pub(super) struct Heard {
    pub(super) audit: ReadBack,
    pub(super) sessions: Option<SessionSnapshot>,
    pub(super) policy: Recovered,
}

/// Reads audit log, sessions and policy back and compares them. After a fault the others are still looked at, so that all
/// faults are told at once. `restored`: any number of changes may have no audit record.
pub(super) fn hear(
    audit: Result<ReadBack, AuditOpenError>,
    sessions: &SessionStores,
    files: &mut PolicyFiles<'_>,
    clock: &Clock,
    restored: bool,
) -> Result<Heard, OpenError> {
    let mut faults = Faults::default();
    let mut audited = Audited::default();
    let audit = faults.catch(audit.map_err(|error| RecoveryError::Audit(error).into()));
    let saved = audit.as_ref().and_then(|audit| {
        audited = faults.catch(Audited::by(audit).map_err(Into::into))?;
        faults.catch(sessions.saved(&audit.log))
    });
    if let (Some(audit), Some(sessions), true) = (audit, saved, faults.is_empty()) {
        if files.journal.next_sequence() == 1 {
            // The first changes are written only where nothing has seen a journal.
            compare_journal(files, &audited)?;
        }
        match recovery::recover(&mut *files.journal, files.snapshots, clock, &audited) {
            Ok(policy) => {
                if !restored {
                    witnesses::compare_owed(policy.owed.len(), &audit)?;
                }
                return Ok(Heard { audit, sessions, policy });
            }
            Err(RecoveryError::JournalCutOff { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Err(error) = compare_journal(files, &audited) {
        faults.add(error);
    }
    Err(faults.into_error())
}

/// Compares the end of the journal with everything that may have seen more of it.
fn compare_journal(files: &PolicyFiles<'_>, audited: &Audited) -> Result<(), OpenError> {
    let last = files.journal.next_sequence() - 1;
    let mut seen = recovery::seen_more(files.snapshots, audited, last)?;
    match Mirror::mark(files.copies) {
        Ok(mark) => seen.note(Mirror::NAME, mark.unwrap_or_default(), last),
        Err(error) => tracing::warn!(%error, "the state store cannot be compared with the policy journal"),
    }
    Ok(recovery::refuse(seen, last)?)
}

/// The faults of a start, in the order in which they were found.
#[derive(Debug, Default)]
pub struct Faults(Vec<OpenError>);

impl Faults {
    /// The value; the fault is kept where there is none.
    fn catch<T>(&mut self, result: Result<T, OpenError>) -> Option<T> {
        result.map_err(|fault| self.0.push(fault)).ok()
    }

    fn add(&mut self, fault: OpenError) {
        self.0.push(fault);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn into_error(mut self) -> OpenError {
        match self.0.pop() {
            Some(only) if self.0.is_empty() => only,
            last => {
                self.0.extend(last);
                OpenError::Several(self)
            }
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in (1..).zip(&self.0) {
            let separator = if number == 1 { "" } else { "; " };
            write!(f, "{separator}({number}) {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
