//! Planning candidates: policies that are tried beside the one that is enforced.
//!
//! Invariant: promoting a candidate never undoes a change that was made since it was set.
//! Not here: how a candidate is tried (`engine`).

use super::error::PlanError;
use super::task::Task;
use crate::change::Delta;
use crate::document::Document;
use crate::name::Name;
use crate::organization::Candidate;

impl Task<'_> {
    pub(super) fn remove_candidate(mut self) -> Result<Vec<Delta>, PlanError> {
        self.candidate()?;
        self.refuse()?;
        Ok(vec![Delta::RemoveCandidate])
    }

    pub(super) fn promote_candidate(mut self) -> Result<Vec<Delta>, PlanError> {
        let candidate = self.candidate()?;
        self.refuse()?;
        if candidate.revision != self.organization.revision {
            return Err(PlanError::CandidateOutdated {
                organization: Name::organization(&self.organization.id).to_string(),
                revision: candidate.revision,
            });
        }
        let document = Document::of(&candidate.organization);
        let mut deltas = self.replace_policy(document, None)?;
        deltas.push(Delta::RemoveCandidate);
        Ok(deltas)
    }

    fn candidate(&self) -> Result<Candidate, PlanError> {
        let candidate = self.organization.candidate.as_deref().cloned();
        candidate
            .ok_or_else(|| PlanError::NotFound(format!("the shadow policy of organizations/{}", self.organization.id)))
    }
}
