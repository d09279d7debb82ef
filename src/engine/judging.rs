//! The gates of a change, judged where the change is planned: on exactly the version that it alters.
//!
//! Invariant: a change that a gate refuses leaves no trace; one that breaks tests on purpose says so on the record.
//! Not here: the gates themselves (`policy::gates`).

use std::sync::Arc;

use super::change::ChangeError;
use super::directory::Directory;
use super::prospect::{Compiled, GateOptions, Prospect};
use super::sessions::SessionTable;
use super::staged::Staged;
use crate::policy::change::{Change, Effect, OVERRIDDEN_TESTS_MAX};
use crate::policy::state::Outcome;

/// What a change is judged by.
pub(super) struct Judge<'a> {
    pub(super) staged: &'a Staged<'a>,
    pub(super) directory: &'a Directory,
    pub(super) sessions: &'a SessionTable,
}

impl Judge<'_> {
    /// Refuses the change, or notes in it the policy tests that it breaks on purpose.
    pub(super) fn judge(
        &self,
        change: &mut Change,
        outcome: &Outcome,
        options: &GateOptions,
    ) -> Result<(), ChangeError> {
        let before = change.effect.organization().and_then(|id| self.staged.organization(id));
        let own = match (&change.effect, before) {
            (Effect::Cluster { .. }, _) => &self.staged.cluster().node.gates,
            (_, Some(before)) => &before.node.gates,
            (_, None) => &options.gates,
        };
        let options = GateOptions { gates: options.gates.and(own), override_tests: options.override_tests };
        let any_tests = matches!(change.effect, Effect::Cluster { .. }) && self.staged.has_tests();
        if !Prospect::is_gated(&options.gates, &change.effect, before.map(|before| &**before), any_tests) {
            return Ok(());
        }
        let (refusals, overridden) = self.prospect(change, outcome).refusals(&options, self.sessions);
        if !refusals.is_empty() {
            return Err(ChangeError::Gated(refusals));
        }
        change.overridden_tests = overridden.into_iter().take(OVERRIDDEN_TESTS_MAX).collect();
        Ok(())
    }

    fn prospect(&self, change: &Change, outcome: &Outcome) -> Prospect {
        let cluster = self.directory.cluster();
        let Some(id) = change.effect.organization() else {
            let after = match outcome {
                Outcome::Cluster(after) => Arc::clone(after),
                Outcome::Organization(_) | Outcome::Deleted(..) => Arc::clone(&cluster.cluster),
            };
            return Prospect::of_cluster(change.time, cluster, after, self.directory);
        };
        let published = self.directory.organization(id.as_str());
        let before = self.staged.organization(id);
        let before = before.map(|before| Compiled::of(Arc::clone(before), published.as_deref()));
        let after = outcome.organization().map(|after| match (&before, &change.effect) {
            (Some(before), Effect::Organization { deltas, .. }) => before.after(Arc::clone(after), deltas),
            _ => Compiled::of(Arc::clone(after), None),
        });
        Prospect::of_organization(change.time, cluster, id.clone(), before, after)
    }
}
