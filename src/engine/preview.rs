//! Previews: a change is planned on the published policy and shown, but not made.
//!
//! Invariant: the code that plans and judges changes also plans and judges previews; no preview reaches the writer.
//! Not here: what differs (`policy::impact`), the past (`replay`), words for people (`api`).

use std::collections::HashMap;
use std::sync::Arc;

use super::Engine;
use super::prospect::{Compiled, Prospect};
use crate::audit::policy_change::{Room, changes_within};
use crate::audit::record::ObjectChange;
use crate::policy::change::{Change, Delta, Effect};
use crate::policy::document::Document;
use crate::policy::limits::Limits;
use crate::policy::name::{Id, Name};
use crate::policy::node::NodePatch;
use crate::policy::organization::{Cluster, Organization};
use crate::policy::plan::{Etags, Mutation, PlanError, Planner, Violation};
use crate::policy::rule::Rule;
use crate::policy::state::{Outcome, PolicyState};

/// A change that is shown and not made.
#[derive(Debug)]
pub struct Preview {
    /// The policy with and without it.
    pub prospect: Prospect,
    /// What it alters.
    pub changes: Vec<ObjectChange>,
}

impl Engine {
    /// Plans mutations of an organization as one change. An error comes with the index of the mutation that
    /// it is about.
    pub fn preview(
        &self,
        id: &Id,
        mutations: Vec<(Mutation, Vec<Violation>)>,
        limits: &Limits,
    ) -> Result<Preview, (usize, PlanError)> {
        let published = self.directory.organization(id.as_str());
        let Some(published) = published else {
            return Err((0, PlanError::NotFound(Name::organization(id).to_string())));
        };
        let (now, cluster) = (self.clock.now(), self.directory.cluster());
        let before = &published.view.organization;
        let planner = Planner { now, limits, cluster: &cluster.cluster, etags: self.etags() };
        let (deltas, after) = planner.plan_all(before, mutations)?;
        let compiled = Compiled::published(&published);
        let after = Arc::new(after);
        let next = compiled.after(Arc::clone(&after), &deltas);
        let changes =
            altered(before, &after, Effect::Organization { id: id.clone(), revision: after.revision, deltas });
        let prospect = Prospect::of_organization(now, cluster, id.clone(), Some(compiled), Some(next));
        Ok(Preview { prospect, changes })
    }

    /// Shows what deleting an organization would do.
    pub fn preview_deletion(
        &self,
        id: &Id,
        etag: Option<&str>,
        force: bool,
        limits: &Limits,
    ) -> Result<Preview, (usize, PlanError)> {
        let not_found = || (0, PlanError::NotFound(Name::organization(id).to_string()));
        let published = self.directory.organization(id.as_str()).ok_or_else(not_found)?;
        let (now, cluster) = (self.clock.now(), self.directory.cluster());
        let planner = Planner { now, limits, cluster: &cluster.cluster, etags: self.etags() };
        let before = &published.view.organization;
        let effect = planner.delete_organization(before, etag, force, Vec::new()).map_err(|error| (0, error))?;
        let compiled = Compiled::published(&published);
        let change = Change::new(now, effect);
        let outcome = PolicyState::outcome(&change, Some(before));
        let changes = changes_within(Room::ANSWER, &change, Some(before), None, &outcome);
        let prospect = Prospect::of_organization(now, cluster, id.clone(), Some(compiled), None);
        Ok(Preview { prospect, changes })
    }

    /// Plans changes of the cluster's node as one.
    pub fn preview_cluster(
        &self,
        patches: Vec<(Option<String>, NodePatch, Vec<Violation>)>,
        limits: &Limits,
    ) -> Result<Preview, (usize, PlanError)> {
        let (now, before) = (self.clock.now(), self.directory.cluster());
        let mut cluster = (*before.cluster).clone();
        let mut effect = None;
        for (index, (etag, patch, violations)) in patches.into_iter().enumerate() {
            let planner = Planner { now, limits, cluster: &cluster, etags: self.etags() };
            let change = planner.update_cluster(etag.as_deref(), &patch, violations);
            if let Some(made @ Effect::Cluster { .. }) = change.map_err(|error| (index, error))? {
                if let Effect::Cluster { node, .. } = &made {
                    cluster = Cluster { revision: before.cluster.revision, node: Arc::new(node.clone()) };
                }
                effect = Some(made);
            }
        }
        let after = Arc::new(cluster);
        let changes = effect.map_or_else(Vec::new, |effect| {
            let change = Change::new(now, effect);
            changes_within(Room::ANSWER, &change, None, Some(&before.cluster), &Outcome::Cluster(Arc::clone(&after)))
        });
        let published = self.directory.organizations_after(None, usize::MAX);
        let organizations = published.iter().map(|published| Compiled::published(published));
        let prospect = Prospect::of_cluster(now, before, after, organizations);
        Ok(Preview { prospect, changes })
    }

    /// The objects that differ between two versions of an organization.
    pub fn alterations(before: &Organization, after: &Arc<Organization>) -> Vec<ObjectChange> {
        let now = after.node.update_time;
        // The mutation has no etag, so any will do.
        let planner =
            Planner { now, limits: &Limits::none(), cluster: &Cluster::new(now), etags: Etags::of_lineage(0) };
        let document = Box::new(Document::of(after));
        let mutation = Mutation::ReplacePolicy { document, etag: None, goes_back: true, force: true };
        let mut deltas = planner.plan(before, mutation, Vec::new()).unwrap_or_default();
        deltas.push(Delta::ExpireRules { indexes: marked_otherwise(before, after) });
        altered(before, after, Effect::Organization { id: after.id.clone(), revision: after.revision, deltas })
    }

    /// Two versions of an organization, compiled to compare how they decide now.
    pub fn compare(&self, id: &Id, base: &Arc<Organization>, other: &Arc<Organization>) -> Prospect {
        let compiled = |organization: &Arc<Organization>| Some(Compiled::of(Arc::clone(organization)));
        let (now, cluster) = (self.clock.now(), self.directory.cluster());
        Prospect::of_organization(now, cluster, id.clone(), compiled(base), compiled(other))
    }
}

impl Preview {
    /// The cluster's revision before the change, where it is one of the cluster.
    pub fn of_cluster(&self) -> Option<u64> {
        let Prospect { scope, cluster_before, .. } = &self.prospect;
        (*scope == super::sessions::Scope::All).then_some(cluster_before.cluster.revision)
    }
}

/// The indexes of the rules that only one of two versions marks as expired: no plan takes a mark away.
fn marked_otherwise(before: &Organization, after: &Organization) -> Vec<u32> {
    let marks: HashMap<&Id, bool> = after.rules.iter().map(|rule| (&rule.id, rule.expired)).collect();
    let is_other = |rule: &Rule| marks.get(&rule.id).is_some_and(|expired| *expired != rule.expired);
    (0..).zip(before.rules.iter()).filter(|(_, rule)| is_other(rule)).map(|(index, _)| index).collect()
}

/// What a change inside an organization alters.
fn altered(before: &Organization, after: &Arc<Organization>, effect: Effect) -> Vec<ObjectChange> {
    let outcome = Outcome::Organization(Arc::clone(after));
    changes_within(Room::ANSWER, &Change::new(after.node.update_time, effect), Some(before), None, &outcome)
}
