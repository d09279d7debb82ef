//! Planning a request: the change that it means on top of the changes of its batch, or why it is refused.
//!
//! Invariant: a request is planned on the state that holds once all changes before it are durable, so that its revision
//! follows theirs. Nothing is written or published here.
//! Not here: what each mutation does (`policy::plan`), gates (`judging`), writing (`writer`).

use super::advance::counters_after;
use super::change::{ChangeError, ChangeRequest, ChangeTarget, Changed};
use super::clock::Clock;
use super::directory::Directory;
use super::judging::Judge;
use super::sessions::SessionTable;
use super::staged::Staged;
use super::unconfirmed::deadline;
use crate::policy::change::{Change, Effect};
use crate::policy::limits::Limits;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::plan::{Etags, PlanError, Planner, Violation};
use crate::policy::state::{Outcome, PolicyState};
use crate::store::codec::encode_change;

/// The result of planning a request.
pub(super) enum Planned {
    /// The change, the record to write for it, and what it leads to.
    Change { change: Box<Change>, record: Vec<u8>, before: Outcome, outcome: Outcome },
    /// Nothing is to be written: the change has no effect, or was only to be judged.
    Nothing(Changed),
}

/// The state that requests are planned on, and what they are planned and judged by.
pub(super) struct Planning<'a> {
    pub(super) staged: Staged<'a>,
    pub(super) directory: &'a Directory,
    pub(super) sessions: &'a SessionTable,
    pub(super) limits: &'a Limits,
    pub(super) clock: &'a Clock,
    /// The etags that are current.
    pub(super) etags: Etags,
}

impl Planning<'_> {
    /// Plans a request and judges it. The next request is planned on top of it.
    pub(super) fn plan(&mut self, request: ChangeRequest) -> Result<Planned, ChangeError> {
        let ChangeRequest { target, violations, actor, comment, validate_only, gates, is_gated, confirm_within } =
            request;
        let now = self.clock.now();
        // Going back to an earlier policy is allowed even where limits were lowered since.
        let unlimited = Limits::none();
        let limits = if is_gated { self.limits } else { &unlimited };
        let planner = Planner { now, limits, cluster: self.staged.cluster(), etags: self.etags };
        let organization = target.organization().cloned();
        let Some(effect) = self.effect(&planner, target, violations)? else {
            let current = self.staged.current(organization.as_ref());
            let revision = current.revision();
            return Ok(Planned::Nothing(changed(current.clone(), current, revision, self.directory, self.clock)));
        };
        let before = organization.as_ref().and_then(|id| self.staged.organization(id)).cloned();
        let confirm_until = confirm_within.map(|within| {
            let (asked, waiting) = (now.after(within), before.as_deref().and_then(deadline));
            // What nobody confirmed yet does not stay longer than its author asked for.
            waiting.map_or(asked, |waiting| waiting.min(asked))
        });
        let mut change = Change { actor, comment, confirm_until, ..Change::new(now, effect) };
        let outcome = PolicyState::outcome(&change, before.as_ref());
        if is_gated {
            let judge = Judge { staged: &self.staged, directory: self.directory, sessions: self.sessions };
            judge.judge(&mut change, &outcome, &gates)?;
        }
        let before = self.staged.current(organization.as_ref());
        if validate_only {
            let revision = outcome.revision() - 1;
            return Ok(Planned::Nothing(changed(before, outcome, revision, self.directory, self.clock)));
        }
        self.staged.set(outcome.clone());
        Ok(Planned::Change { record: encode_change(&change), change: Box::new(change), before, outcome })
    }

    /// The effect of a change; none where it changes nothing.
    fn effect(
        &self,
        planner: &Planner<'_>,
        target: ChangeTarget,
        violations: Vec<Violation>,
    ) -> Result<Option<Effect>, PlanError> {
        match target {
            ChangeTarget::Cluster { etag, patch } => planner.update_cluster(etag.as_deref(), &patch, violations),
            ChangeTarget::CreateOrganization { id, patch } => {
                let exists = self.staged.organization(&id).is_some();
                let (last, count) = (self.staged.last_revision(&id), self.staged.count_organizations());
                planner.create_organization(id, &patch, exists, last, count, violations).map(Some)
            }
            ChangeTarget::DeleteOrganization { id, etag, force } => {
                let organization = self.existing(&id)?;
                planner.delete_organization(organization, etag.as_deref(), force, violations).map(Some)
            }
            ChangeTarget::Organization { id, mutation } => {
                let organization = self.existing(&id)?;
                let deltas = planner.plan(organization, mutation, violations)?;
                let revision = organization.revision + 1;
                Ok((!deltas.is_empty()).then_some(Effect::Organization { id, revision, deltas }))
            }
        }
    }

    fn existing(&self, id: &Id) -> Result<&Organization, PlanError> {
        let organization = self.staged.organization(id);
        organization
            .map(|organization| &**organization)
            .ok_or_else(|| PlanError::NotFound(format!("organizations/{id}")))
    }
}

/// The answer to a request with this outcome, at this revision.
pub(super) fn changed(
    before: Outcome,
    outcome: Outcome,
    revision: u64,
    directory: &Directory,
    clock: &Clock,
) -> Changed {
    let counters = outcome.organization().map(|organization| {
        let current = directory.organization(organization.id.as_str());
        counters_after(current.as_ref().map(|current| &current.view), organization, clock.now())
    });
    Changed { outcome, before, revision, counters: counters.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::directory::{OrganizationView, Published, PublishedCluster};
    use super::super::sessions::SessionOptions;
    use super::*;
    use crate::policy::cow_map::CowMap;
    use crate::policy::decision::Decision;
    use crate::policy::gates::Gates;
    use crate::policy::judging::Refusal;
    use crate::policy::members::MembersCache;
    use crate::policy::node::{Access, AccessEntry, Node, NodePatch};
    use crate::policy::organization::Cluster;
    use crate::policy::plan::Mutation;
    use crate::policy::policy_test::PolicyTest;
    use crate::policy::rule::{Action, ConnectionType, Rule, Source};
    use crate::policy::snapshot::{ClusterSnapshot, Snapshot};
    use crate::policy::time::Timestamp;

    fn id(id: &str) -> Id {
        Id::parse(id).unwrap()
    }

    /// A cluster that allows one network, and an organization that denies everybody, with a test that says so and a gate.
    fn state(now: Timestamp) -> PolicyState {
        let source = Source::Range("192.0.2.0/24".parse().unwrap());
        let entry = AccessEntry { source, description: Arc::default() };
        let node = Node::new(Access::AllowList([entry].into_iter().collect()), now, 1);
        let mut organization = Organization::new(id("default"), 1, Node::new(Access::AllowAll, now, 1));
        Arc::make_mut(&mut organization.node).gates =
            Arc::new(Gates { refuse_open_to_internet: true, ..Gates::default() });
        organization.rules = Arc::new(vec![Arc::new(Rule {
            id: id("deny"),
            action: Action::Deny,
            source: Source::Range("any".parse().unwrap()),
            connection_types: std::iter::empty().collect(),
            description: Arc::default(),
            disabled: false,
            expire_time: None,
            expired: false,
            create_time: now,
            update_time: now,
            changed_at: 1,
        })]);
        organization.tests = Arc::new(vec![PolicyTest {
            id: id("world"),
            address: "8.8.8.8".parse().unwrap(),
            connection_type: ConnectionType::Shell,
            endpoint: "organizations/default".into(),
            expected: Decision::Deny,
            description: Arc::default(),
            end_time: None,
        }]);
        let mut state = PolicyState::empty();
        state.set(Outcome::Cluster(Arc::new(Cluster { revision: 1, node: Arc::new(node) })));
        state.set(Outcome::Organization(Arc::new(organization)));
        state
    }

    /// Plans changes as one batch; tells what each is refused for.
    fn refused(targets: Vec<ChangeTarget>) -> Vec<Vec<Refusal>> {
        let clock = Clock::system();
        let state = state(clock.now());
        let published = state.organizations.values().map(|organization| Published {
            view: OrganizationView::uncounted(Arc::clone(organization)),
            snapshot: Snapshot::compile(organization, &mut MembersCache::default()),
            shadow: None,
        });
        let cluster = Arc::clone(&state.cluster);
        let cluster = PublishedCluster { snapshot: ClusterSnapshot::compile(&cluster), cluster };
        let directory = Directory::new(cluster, CowMap::default(), published);
        let (sessions, limits) = (SessionTable::new(1, &SessionOptions::default()), Limits::default());
        let staged = Staged::new(&state);
        let mut planning = Planning {
            staged,
            directory: &directory,
            sessions: &sessions,
            limits: &limits,
            clock: &clock,
            etags: Etags::of_lineage(0),
        };
        let refusals = targets.into_iter().map(|target| match planning.plan(ChangeRequest::new(target)) {
            Ok(_) => Vec::new(),
            Err(ChangeError::Gated(refusals)) => refusals,
            Err(error) => panic!("{error}"),
        });
        refusals.collect()
    }

    fn open_cluster() -> ChangeTarget {
        ChangeTarget::Cluster {
            etag: None,
            patch: NodePatch { access: Some(Access::AllowAll), ..NodePatch::default() },
        }
    }

    fn delete_rule() -> ChangeTarget {
        let mutation = Mutation::DeleteRule { id: id("deny"), etag: None };
        ChangeTarget::Organization { id: id("default"), mutation }
    }

    #[test]
    fn two_changes_of_one_batch_do_no_more_together_than_each_may() {
        assert_eq!(refused(vec![open_cluster()]), [vec![]]);
        assert_eq!(refused(vec![delete_rule()]), [vec![]]);
        let is_test = |refusal: &Refusal| matches!(refusal, Refusal::TestsFailed { .. });
        let is_open = |refusal: &Refusal| matches!(refusal, Refusal::OpenToInternet { .. });
        let second = refused(vec![open_cluster(), delete_rule()]);
        assert!(second[0].is_empty() && second[1].iter().any(is_test) && second[1].iter().any(is_open), "{second:?}");
        let second = refused(vec![delete_rule(), open_cluster()]);
        assert!(second[0].is_empty() && second[1].iter().any(is_test), "{second:?}");
        // What was refused does not count.
        let third = refused(vec![open_cluster(), delete_rule(), delete_rule()]);
        assert_eq!(third[1], third[2]);
    }
}
