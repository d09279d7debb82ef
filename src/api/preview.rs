//! Previews: what mutations would do if they were made in order, as one change.
//!
//! Invariant: the code that reads a call also reads the mutation of a preview.
//! Not here: planning (`engine::preview`), replaying past connections (`engine::replay`).

use std::sync::Arc;
use std::time::Duration;

use tonic::{Response, Status};
use tonic_types::StatusExt;

use super::convert::names::{self, NodeName};
use super::convert::reader::{ReadChange, Unreadable};
use super::convert::{Faults, audit, to_time};
use super::differences::{Differences, fitting_changes};
use super::problem_changes::Beginnings;
use super::problems::{self, Fitting, Known};
use super::{Api, at_revision, status, to_i64};
use crate::engine::change::{ChangeRequest, ChangeTarget};
use crate::engine::preview::Preview;
use crate::engine::prospect::{GateOptions, Prospect};
use crate::engine::{Engine, Flipped, Replay};
use crate::policy::forecast::Budget;
use crate::policy::limits::Limits;
use crate::policy::name::{CLUSTER, Id, Name};
use crate::policy::node::NodePatch;
use crate::policy::plan::{Mutation, PlanError, Violation};
use crate::policy::problems::Problem;
use crate::policy::time::Timestamp;
use crate::policy::version::Version;
use crate::proto::v1;
use crate::proto::v1::mutation::Request as Asked;

/// Mutations of one preview.
const MUTATIONS_MAX: usize = 1_000;

/// Sessions and users that a preview names.
const NAMED_MAX: usize = 1_000;

/// Problems that a preview shows of each kind.
const PROBLEMS_BYTES_MAX: usize = 256 * 1024;

/// How far back a replay goes by default, and at most.
const REPLAY_DEFAULT: Duration = Duration::from_hours(24);
const REPLAY_MAX: Duration = Duration::from_hours(366 * 24);

/// What is to be planned, once read.
enum Plan {
    Organization(Id, Vec<(Mutation, Vec<Violation>)>),
    Deletion(Id, Option<String>, bool),
    Cluster(Vec<(Option<String>, NodePatch, Vec<Violation>)>),
}

impl Api {
    pub(super) async fn preview_change(
        &self,
        request: v1::PreviewChangeRequest,
    ) -> Result<Response<v1::PreviewChangeResponse>, Status> {
        let v1::PreviewChangeRequest { parent, mutations, replay_within } = request;
        self.check_mutations(&mutations)?;
        let mut faults = Faults::default();
        let named = faults.note("parent", names::node(&parent)).and_then(|named| match named {
            NodeName::Cluster => Some(None),
            NodeName::Organization(id) => Some(Some(id)),
            NodeName::Below(..) => {
                faults.add("parent", "name an organization, or `cluster`");
                None
            }
        });
        check_count(&mut faults, mutations.len());
        let within = replay_within.map_or(Some(REPLAY_DEFAULT), |within| Duration::try_from(within).ok());
        let within = within.filter(|within| *within <= REPLAY_MAX);
        if within.is_none() {
            faults.add("replay_within", "must be from 0 to 366 days");
        }
        let (owner, within) = faults.result(named.zip(within))?;
        let (paths, reads): (Vec<String>, Vec<ReadChange>) = self.read_mutations(mutations).await?.into_iter().unzip();
        let (plan, options) = to_plan(owner, reads, &paths)?;
        let (engine, limits) = (Arc::clone(self.engine()?), self.limits);
        let previewed = self.shared.heavy.run(move || previewed(&engine, plan, &options, within, &limits)).await?;
        let answer = previewed.map_err(|(index, error)| refused(paths.get(index), error))??;
        let revision = u64::try_from(answer.revision).unwrap_or_default();
        Ok(at_revision(answer, revision))
    }

    /// Reads mutations, each with its path in the request.
    pub(super) async fn read_mutations(
        &self,
        mutations: Vec<v1::Mutation>,
    ) -> Result<Vec<(String, ReadChange)>, Status> {
        let mut reads = Vec::with_capacity(mutations.len());
        for (index, v1::Mutation { request }) in mutations.into_iter().enumerate() {
            let (name, read) = self.read_mutation(request).await.map_err(|status| at_path(index, status))?;
            reads.push((format!("mutations[{index}].{name}"), read));
        }
        Ok(reads)
    }

    /// Reads one mutation, with the name of its field.
    async fn read_mutation(&self, asked: Option<Asked>) -> Result<(&'static str, ReadChange), Status> {
        Ok(match asked {
            None => return Err(status::invalid_field("", "is empty: give the request that would make the change")),
            Some(Asked::CreateRule(request)) => ("create_rule", self.read_create_rule(request)),
            Some(Asked::UpdateRule(request)) => ("update_rule", self.read_update_rule(request)),
            Some(Asked::DeleteRule(request)) => ("delete_rule", self.read_delete_rule(request)),
            Some(Asked::ReorderRules(request)) => ("reorder_rules", self.read_reorder_rules(request)),
            Some(Asked::MoveRule(request)) => ("move_rule", self.read_move_rule(request)),
            Some(Asked::ReplaceRules(request)) => ("replace_rules", self.read_replace_rules(request)),
            Some(Asked::CreateAddressGroup(request)) => ("create_address_group", self.read_create_group(request)),
            Some(Asked::UpdateAddressGroup(request)) => ("update_address_group", self.read_update_group(request)),
            Some(Asked::DeleteAddressGroup(request)) => ("delete_address_group", self.read_delete_group(request)),
            Some(Asked::AddRanges(request)) => ("add_ranges", self.read_add_ranges(request)),
            Some(Asked::RemoveRanges(request)) => ("remove_ranges", self.read_remove_ranges(request)),
            Some(Asked::ReplaceRanges(request)) => ("replace_ranges", self.read_replace_ranges(request)),
            Some(Asked::PatchRanges(request)) => ("patch_ranges", self.read_patch_ranges(request)?),
            Some(Asked::CreateNode(request)) => ("create_node", self.read_create_node(request)),
            Some(Asked::UpdateNode(request)) => ("update_node", self.read_update_node(request)),
            Some(Asked::DeleteNode(request)) => ("delete_node", self.read_delete_node(request)?),
            Some(Asked::AddAccessEntries(request)) => ("add_access_entries", self.read_add_entries(request)),
            Some(Asked::RemoveAccessEntries(request)) => ("remove_access_entries", self.read_remove_entries(request)),
            Some(Asked::RollbackRevision(request)) => {
                ("rollback_revision", self.read_rollback_revision(request).await?)
            }
            Some(Asked::ApplyPolicy(request)) => ("apply_policy", self.read_apply_policy(request)),
            Some(Asked::CreatePolicyTest(request)) => ("create_policy_test", self.read_create_policy_test(request)),
            Some(Asked::DeletePolicyTest(request)) => ("delete_policy_test", self.read_delete_policy_test(request)),
        })
    }
}

/// Notes that there are too few mutations, or too many.
pub(super) fn check_count(faults: &mut Faults, count: usize) {
    if count == 0 || count > MUTATIONS_MAX {
        faults.add("mutations", format!("are {count}: give from 1 to {MUTATIONS_MAX}"));
    }
}

/// Puts the mutations of one owner together. `paths` are those of the mutations.
fn to_plan(owner: Option<Id>, reads: Vec<ReadChange>, paths: &[String]) -> Result<(Plan, GateOptions), Status> {
    let mut options = GateOptions::default();
    let (mut inside, mut of_cluster, mut deletion) = (Vec::new(), Vec::new(), None);
    let count = reads.len();
    for (read, path) in reads.into_iter().zip(paths) {
        let ChangeRequest { target, violations, gates, .. } = read.map_err(|fault| unreadable(path, fault))?;
        options.gates = options.gates.and(&gates.gates);
        options.override_tests |= gates.override_tests;
        let foreign = |what: &str| Err(status::invalid_field(path, format!("is not about `{what}`: preview it apart")));
        match (target, &owner) {
            (ChangeTarget::Organization { id, mutation }, Some(owner)) if id == *owner => {
                inside.push((mutation, violations));
            }
            (ChangeTarget::Cluster { etag, patch }, None) => of_cluster.push((etag, patch, violations)),
            (ChangeTarget::DeleteOrganization { id, etag, force }, Some(owner)) if id == *owner && count == 1 => {
                deletion = Some((id, etag, force));
            }
            (ChangeTarget::CreateOrganization { .. }, _) => {
                let description = "creates an organization, which alters nothing that exists: use `validate_only`";
                return Err(status::invalid_field(path, description));
            }
            (_, Some(owner)) => return foreign(&Name::organization(owner).to_string()),
            (_, None) => return foreign(CLUSTER),
        }
    }
    let plan = match (owner, deletion) {
        (_, Some((id, etag, force))) => Plan::Deletion(id, etag, force),
        (Some(id), None) => Plan::Organization(id, inside),
        (None, None) => Plan::Cluster(of_cluster),
    };
    Ok((plan, options))
}

type Planned = Result<Result<v1::PreviewChangeResponse, Status>, (usize, PlanError)>;

fn previewed(engine: &Engine, plan: Plan, options: &GateOptions, within: Duration, limits: &Limits) -> Planned {
    let preview = match plan {
        Plan::Organization(id, mutations) => engine.preview(&id, mutations, limits)?,
        Plan::Deletion(id, etag, force) => engine.preview_deletion(&id, etag.as_deref(), force, limits)?,
        Plan::Cluster(patches) => engine.preview_cluster(patches, limits)?,
    };
    Ok(answer(engine, &preview, options, within))
}

fn answer(
    engine: &Engine,
    preview: &Preview,
    options: &GateOptions,
    within: Duration,
) -> Result<v1::PreviewChangeResponse, Status> {
    let prospect = &preview.prospect;
    let mut differences = Differences::default();
    differences.add(prospect);
    let revoked = prospect.revoked(engine.sessions(), NAMED_MAX, &Budget::default());
    let (refusals, _) = prospect.refusals(options, engine.sessions());
    let refusals = refusals.iter().map(|refusal| v1::Refusal {
        reason: status::refusal_reason(refusal).into(),
        message: refusal.to_string(),
        from_time: refusal.from().time().map(to_time),
    });
    // The two slowest parts run in parallel.
    let (problems, replay) = std::thread::scope(|scope| {
        let replayed = (!within.is_zero() && preview.of_cluster().is_none()).then(|| {
            scope.spawn(|| {
                let from = prospect.now.before(within);
                engine.replay(prospect, from).map(|replay| to_replay(from, replay))
            })
        });
        let problems = problems_of(engine, prospect);
        (problems, replayed.map(std::thread::ScopedJoinHandle::join))
    });
    let replay = match replay {
        None => None,
        Some(Ok(replay)) => Some(replay.map_err(status::audit)?),
        Some(Err(_)) => return Err(status::internal(&std::io::Error::other("a replay panicked"))),
    };
    let (added, resolved, cut) = problems;
    let of_cluster = preview.of_cluster();
    let one = prospect.organizations.first().filter(|_| of_cluster.is_none());
    let before = one.and_then(|one| one.before.as_ref()).map(|before| before.organization.revision);
    let (owner, revision) = (one.map(|one| &one.id), of_cluster.or(before).unwrap_or_default());
    let (changes, changes_cut) =
        fitting_changes(audit::object_changes(engine.etags(), &preview.changes, owner, revision + 1));
    let (differences, differences_cut) = differences.finish();
    Ok(v1::PreviewChangeResponse {
        revision: to_i64(revision),
        differences,
        revocation_count: to_i64(revoked.count()),
        revoked_sessions: revoked
            .listed
            .iter()
            .map(|session| Name::session(&session.organization, session.record.id).to_string())
            .collect(),
        problems_added: added,
        problems_resolved: resolved,
        truncated: differences_cut || changes_cut || cut || revoked.uncounted_in.is_some(),
        changes,
        refusals: refusals.collect(),
        replay,
        later_revocation_count: to_i64(revoked.later()),
        etag: if of_cluster.is_some() { String::new() } else { engine.etags().policy(revision) },
    })
}

/// The problems that come and go, and whether some are left out.
fn problems_of(engine: &Engine, prospect: &Prospect) -> (Vec<v1::Problem>, Vec<v1::Problem>, bool) {
    let (mut added, mut resolved) = (Fitting::new(PROBLEMS_BYTES_MAX), Fitting::new(PROBLEMS_BYTES_MAX));
    let mut cut = false;
    for prospected in &prospect.organizations {
        let known = engine.directory().organization(prospected.id.as_str()).map(|published| Known::of(&published.view));
        let known = known.unwrap_or_default();
        let find = |version: Option<Version<'_>>| {
            version.map(|version| problems::of_version(engine, &version, &known, prospect.now)).unwrap_or_default()
        };
        let (before, after) = std::thread::scope(|scope| {
            let before = scope.spawn(|| find(prospected.before(prospect)));
            let after = find(prospected.after(prospect));
            (before.join().unwrap_or_default(), after)
        });
        cut |= before.incomplete || after.incomplete;
        let of = |problem: &Problem| problems::to_problem(Some(&prospected.id), problem);
        let (old, new) = (Beginnings::of(&before), Beginnings::of(&after));
        added.extend(after.problems.iter().filter(|problem| old.lacks_or_has_later(problem)).map(of));
        resolved.extend(before.problems.iter().filter(|problem| new.lacks(problem)).map(of));
    }
    cut |= added.cut || resolved.cut;
    (added.problems, resolved.problems, cut)
}
fn to_replay(from: Timestamp, replay: Replay) -> v1::Replay {
    let Replay { decisions, flipped, users, truncated } = replay;
    let user_count = i32::try_from(users.len()).unwrap_or(i32::MAX);
    let mut users: Vec<(Arc<str>, Flipped)> = users.into_iter().collect();
    let concerned = |flipped: &Flipped| flipped.denied + flipped.permitted;
    users.sort_by(|(one, of_one), (other, of_other)| {
        concerned(of_other).cmp(&concerned(of_one)).then_with(|| one.cmp(other))
    });
    let user = |(email, flipped): (Arc<str>, Flipped)| v1::ReplayedUser {
        user_email: email.to_string(),
        newly_denied_count: to_i64(flipped.denied),
        newly_permitted_count: to_i64(flipped.permitted),
    };
    v1::Replay {
        from_time: Some(to_time(from)),
        decision_count: to_i64(decisions),
        newly_denied_count: to_i64(flipped.denied),
        newly_permitted_count: to_i64(flipped.permitted),
        users: users.into_iter().take(NAMED_MAX).map(user).collect(),
        user_count,
        truncated,
    }
}

/// A mutation's refusal, with its violations below the mutation's path.
pub(super) fn refused(path: Option<&String>, error: PlanError) -> Status {
    let (PlanError::Invalid(violations), Some(path)) = (&error, path) else { return status::plan(error) };
    let violations = violations.iter().map(|Violation { field, description }| below(path, field, description));
    status::invalid(violations.collect())
}

/// The refusal of a mutation of which there is nothing to judge.
pub(super) fn unreadable(path: &String, fault: Unreadable) -> Status {
    match fault {
        Unreadable::Invalid(violations) => refused(Some(path), PlanError::Invalid(violations)),
        fault @ Unreadable::Etag(_) => fault.into(),
    }
}

/// The status of a mutation that could not be read, at its path.
fn at_path(index: usize, status: Status) -> Status {
    let details = status.get_error_details();
    let Some(bad) = details.bad_request() else { return status };
    let path = format!("mutations[{index}]");
    let violations = bad.field_violations.iter().map(|fault| below(&path, &fault.field, &fault.description));
    super::status::invalid(violations.collect())
}

/// A violation of a field of the message at a path.
fn below(path: &str, field: &str, description: &str) -> Violation {
    let separator = if field.is_empty() { "" } else { "." };
    Violation::new(format!("{path}{separator}{field}"), description)
}
