//! Planning candidates: policies that are tried beside the one that is enforced.
//!
//! Invariant: promoting a candidate never undoes a change that was made since it was set.
//! Not here: how a candidate is tried (`engine`).

use super::{CandidateStep, PlanError, Task, Violation};
use crate::change::Delta;
use crate::document::Document;
use crate::organization::{Candidate, Organization};

impl Task<'_> {
    pub(super) fn set_candidate(mut self, steps: Vec<CandidateStep>) -> Result<Vec<Delta>, PlanError> {
        self.refuse()?;
        let mut working = Organization { candidate: None, ..self.organization.clone() };
        let mut all = Vec::new();
        for CandidateStep { path, mutation, violations } in steps {
            let planned = self.planner.plan(&working, mutation, violations);
            let deltas = planned.map_err(|error| below(&path, error))?;
            working.apply(self.revision, self.planner.now, &deltas);
            // They are one change, so every one of them is planned for the same revision.
            working.revision = self.organization.revision;
            all.extend(deltas);
        }
        Ok(vec![Delta::SetCandidate { deltas: all }])
    }

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
                organization: format!("organizations/{}", self.organization.id),
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

/// An error with its violations below a path.
fn below(path: &str, error: PlanError) -> PlanError {
    match error {
        PlanError::Invalid(violations) => PlanError::Invalid(
            violations.into_iter().map(|of| Violation::new(format!("{path}.{}", of.field), of.description)).collect(),
        ),
        error => error,
    }
}
