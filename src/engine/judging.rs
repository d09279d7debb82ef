//! The gates of a change, judged where the change is planned: on exactly the version that it alters, and on the
//! cluster and the organizations as the changes before it leave them.
//!
//! Invariant: two changes of one batch are judged as if the first was already made. A change that a gate refuses leaves no trace; one that breaks tests on purpose says so on the record.
//! Not here: the gates themselves (`policy::gates`).

use std::sync::Arc;

use super::change::ChangeError;
use super::directory::Directory;
use super::prospect::{Compiled, GateOptions, Prospect};
use super::sessions::SessionTable;
use super::staged::Staged;
use crate::policy::change::{Change, Effect, OVERRIDDEN_TESTS_MAX};
use crate::policy::node::Node;
use crate::policy::organization::Organization;
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
        if !self.is_gated(change, outcome, before.map(|before| &**before), options) {
            return Ok(());
        }
        let prospect = self.prospect(change, outcome);
        let (refusals, overridden) = prospect.refusals(options, self.sessions);
        if !refusals.is_empty() {
            return Err(ChangeError::Gated(refusals));
        }
        change.overridden_tests = overridden.into_iter().take(OVERRIDDEN_TESTS_MAX).collect();
        // The next change of the batch begins with what this one leads to.
        let after = prospect.organizations.iter().filter_map(|prospected| prospected.after.as_ref());
        after.filter(|_| change.effect.organization().is_some()).for_each(|after| self.staged.keep(after));
        Ok(())
    }

    /// Whether there is anything that could refuse the change.
    fn is_gated(
        &self,
        change: &Change,
        outcome: &Outcome,
        before: Option<&Organization>,
        options: &GateOptions,
    ) -> bool {
        let gates_of = |node: &Node| !node.gates.is_empty();
        let own = match outcome {
            Outcome::Cluster(after) => gates_of(&self.staged.cluster().node) || gates_of(&after.node),
            Outcome::Organization(after) => gates_of(&after.node) || !after.tests.is_empty(),
            Outcome::Deleted(..) => false,
        };
        let was = before.is_some_and(|before| gates_of(&before.node) || !before.tests.is_empty());
        let any_tests = matches!(change.effect, Effect::Cluster { .. }) && self.staged.has_tests();
        own || was || any_tests || !options.gates.is_empty()
    }

    fn prospect(&self, change: &Change, outcome: &Outcome) -> Prospect {
        let cluster = self.staged.compiled_cluster(self.directory);
        let Some(id) = change.effect.organization() else {
            let after = match outcome {
                Outcome::Cluster(after) => Arc::clone(after),
                Outcome::Organization(_) | Outcome::Deleted(..) => Arc::clone(&cluster.cluster),
            };
            return Prospect::of_cluster(change.time, cluster, after, self.staged.all_compiled(self.directory));
        };
        let before = self.staged.compiled(id, self.directory);
        let after = outcome.organization().map(|after| match (&before, &change.effect) {
            (Some(before), Effect::Organization { deltas, .. }) => before.after(Arc::clone(after), deltas),
            _ => Compiled::of(Arc::clone(after)),
        });
        Prospect::of_organization(change.time, cluster, id.clone(), before, after)
    }
}
