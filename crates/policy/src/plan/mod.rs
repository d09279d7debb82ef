//! From a mutation that an administrator asks for to the change that it makes, or the reason why it is refused.
//!
//! Invariant: planning alters nothing. What it returns can be applied to the state that it was given. The checks come
//! in this order: the object exists, the etag is current, the fields are valid (all violations at once), references,
//! preconditions and limits hold.
//! Not here: parsing of requests (`api`), durability (`store`).

mod confirm;
mod document;
mod entries;
mod error;
mod etag;
mod groups;
mod identity;
mod made_up;
mod mutation;
mod nodes;
mod organizations;
mod permitting;
mod rules;
mod shadow;
mod task;
mod tests;
mod widening;

pub use error::{PlanError, VIOLATIONS_MAX, Violation};
pub use etag::Etags;
pub use mutation::{Mutation, ShadowStep};
pub use permitting::{Permitted, Permitting};
pub use task::Planner;

use confirm::check_pending;
use task::Task;

use super::change::Delta;
use super::organization::Organization;

impl Planner<'_> {
    /// The steps by which a mutation changes the organization; none when it has no effect. `violations` are those that
    /// were found while the mutation was read from the request.
    ///
    /// # Errors
    ///
    /// [`PlanError`] says why the mutation is refused.
    pub fn plan(
        &self,
        organization: &Organization,
        mutation: Mutation,
        violations: Vec<Violation>,
    ) -> Result<Vec<Delta>, PlanError> {
        let ends_pending =
            matches!(mutation, Mutation::Confirm { .. } | Mutation::ReplacePolicy { goes_back: true, .. });
        if !ends_pending {
            check_pending(organization)?;
        }
        let task = Task { planner: *self, organization, revision: organization.revision + 1, violations };
        match mutation {
            Mutation::CreateRule { id, position, patch } => task.create_rule(id, position, &patch),
            Mutation::UpdateRule { id, etag, patch } => task.update_rule(&id, etag.as_deref(), &patch),
            Mutation::DeleteRule { id, etag } => task.delete_rule(id, etag.as_deref()),
            Mutation::MoveRule { id, position, etag } => task.move_rule(id, position, etag.as_deref()),
            Mutation::ReorderRules { order, etag } => task.reorder_rules(&order, etag.as_deref()),
            Mutation::ReplaceRules { rules, etag } => task.replace_rules(rules, etag.as_deref()),
            Mutation::CreateGroup { id, description, ranges } => {
                let id = task.group_id(id);
                task.create_group(id, description, ranges)
            }
            Mutation::UpdateGroup { id, etag, description } => task.update_group(id, etag.as_deref(), description),
            Mutation::DeleteGroup { id, etag } => task.delete_group(id, etag.as_deref()),
            Mutation::AddRanges { id, ranges } => task.add_ranges(id, &ranges),
            Mutation::RemoveRanges { id, ranges } => task.remove_ranges(id, &ranges),
            Mutation::ReplaceRanges { id, etag, ranges } => task.replace_ranges(id, etag.as_deref(), ranges),
            Mutation::PatchRanges { id, etag, added, removed } => {
                task.patch_ranges(id, etag.as_deref(), &added, &removed)
            }
            Mutation::CreateNode { key, patch } => task.create_node(key, &patch),
            Mutation::UpdateNode { key: None, etag, patch } => task.update_organization(etag.as_deref(), &patch),
            Mutation::UpdateNode { key: Some(key), etag, patch } => task.update_node(key, etag.as_deref(), &patch),
            Mutation::DeleteNode { key, etag, force } => task.delete_node(key, etag.as_deref(), force),
            Mutation::CreateTest { test } => task.create_test(test),
            Mutation::DeleteTest { id } => task.delete_test(&id),
            Mutation::ReplacePolicy { document, etag, goes_back, force } => {
                let deltas = task.replace_policy(*document, etag.as_deref(), force)?;
                // A rollback to the present policy still ends the waiting, as a confirmation.
                let pending = organization.pending.as_deref().filter(|_| goes_back && deltas.is_empty());
                Ok(pending.map_or(deltas, |pending| vec![Delta::Confirm { revision: pending.revision }]))
            }
            Mutation::SetShadowPolicy { steps } => self.set_shadow_policy(task, steps),
            Mutation::RemoveShadowPolicy => task.remove_shadow_policy(),
            Mutation::PromoteShadowPolicy { force } => task.promote_shadow_policy(force),
            Mutation::Confirm { revision } => task.confirm(revision),
        }
    }

    /// The steps of one change that makes several mutations one after the other, and the organization after it.
    ///
    /// # Errors
    ///
    /// The 0-based index of the mutation that is refused, and why.
    pub fn plan_all(
        &self,
        organization: &Organization,
        mutations: Vec<(Mutation, Vec<Violation>)>,
    ) -> Result<(Vec<Delta>, Organization), (usize, PlanError)> {
        let (mut after, mut all) = (organization.clone(), Vec::new());
        for (index, (mutation, violations)) in mutations.into_iter().enumerate() {
            let deltas = self.plan(&after, mutation, violations).map_err(|error| (index, error))?;
            after.apply(organization.revision + 1, self.now, &deltas);
            // All of them are one change, so each is planned for the same revision.
            after.revision = organization.revision;
            after.pending = None;
            all.extend(deltas);
        }
        if !all.is_empty() {
            after.revision = organization.revision + 1;
        }
        Ok((all, after))
    }

    fn set_shadow_policy(&self, mut task: Task<'_>, steps: Vec<ShadowStep>) -> Result<Vec<Delta>, PlanError> {
        task.refuse()?;
        let step = |ShadowStep { path, mutation, violations }| (path, (mutation, violations));
        let (paths, mutations): (Vec<String>, Vec<_>) = steps.into_iter().map(step).unzip();
        let organization = Organization { shadow: None, ..task.organization.clone() };
        let planned = self.plan_all(&organization, mutations);
        let (deltas, _) = planned.map_err(|(index, error)| match paths.get(index) {
            Some(path) => error.below(path),
            None => error,
        })?;
        Ok(vec![Delta::SetShadowPolicy { deltas }])
    }
}
