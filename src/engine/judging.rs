//! The gates of a change, judged where the change is planned: on exactly the version that it alters.
//!
//! Invariant: a change that a gate refuses leaves no trace; one that breaks tests on purpose says so on the record.
//! Not here: the gates themselves (`policy::gates`).

use std::sync::Arc;

use super::change::ChangeError;
use super::prospect::{Compiled, GateOptions, Prospect};
use super::staged::Staged;
use super::writer::Writer;
use crate::policy::change::{Change, Effect, OVERRIDDEN_TESTS_MAX};
use crate::policy::state::Outcome;

impl Writer {
    /// Refuses the change, or notes in it the policy tests that it breaks on purpose.
    pub(super) fn judge(
        &self,
        staged: &Staged,
        change: &mut Change,
        outcome: &Outcome,
        options: &GateOptions,
    ) -> Result<(), ChangeError> {
        let before = change.effect.organization().and_then(|id| self.organization(staged, id));
        let own = match (&change.effect, &before) {
            (Effect::Cluster { .. }, _) => &staged.cluster.as_ref().unwrap_or(&self.state.cluster).node.gates,
            (_, Some(before)) => &before.node.gates,
            (_, None) => &options.gates,
        };
        let options = GateOptions { gates: options.gates.and(own), override_tests: options.override_tests };
        let concerns_all = matches!(change.effect, Effect::Cluster { .. });
        let any_tests =
            concerns_all && self.state.organizations.values().any(|organization| !organization.tests.is_empty());
        if !Prospect::is_gated(&options.gates, &change.effect, before.as_deref(), any_tests) {
            return Ok(());
        }
        let prospect = self.prospect(staged, change, outcome);
        let (refusals, overridden) = prospect.refusals(&options, &self.sessions);
        if !refusals.is_empty() {
            return Err(ChangeError::Gated(refusals));
        }
        change.overridden_tests = overridden.into_iter().take(OVERRIDDEN_TESTS_MAX).collect();
        Ok(())
    }

    fn prospect(&self, staged: &Staged, change: &Change, outcome: &Outcome) -> Prospect {
        let cluster = self.directory.cluster();
        let Some(id) = change.effect.organization() else {
            let after = match outcome {
                Outcome::Cluster(after) => Arc::clone(after),
                Outcome::Organization(_) | Outcome::Deleted(..) => Arc::clone(&cluster.cluster),
            };
            return Prospect::of_cluster(change.time, cluster, after, &self.directory);
        };
        let published = self.directory.organization(id.as_str());
        let before = self.organization(staged, id).map(|before| Compiled::of(before, published.as_deref()));
        let after = match (outcome, &before, &change.effect) {
            (Outcome::Organization(after), Some(before), Effect::Organization { deltas, .. }) => {
                Some(before.after(Arc::clone(after), deltas))
            }
            (Outcome::Organization(after), ..) => Some(Compiled::of(Arc::clone(after), None)),
            (Outcome::Deleted(..) | Outcome::Cluster(_), ..) => None,
        };
        Prospect::of_organization(change.time, cluster, id.clone(), before, after)
    }
}
