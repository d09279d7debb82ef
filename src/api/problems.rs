//! Problems as the API has them, and the list of them (design.md §3.6).
//!
//! Invariant: a list is of one version of the policy and one moment.
//! Not here: finding problems (`policy::problems`), their messages (`problem_words`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tonic::{Response, Status};

use super::convert::names::{self, NodeName};
use super::convert::{Faults, to_time};
use super::node_scope::NodeScope;
use super::paging::PageRequest;
use super::problem_words::{message, name};
use super::{ANSWER_BYTES_MAX, Api, Shared, at_revision, status};
use crate::engine::Engine;
use crate::engine::directory::{OrganizationView, Published};
use crate::policy::members::MembersCache;
use crate::policy::name::Id;
use crate::policy::organization::{Cluster, Organization};
use crate::policy::problems::{self, Code, Found, Problem};
use crate::policy::rule::RuleMatches;
use crate::policy::snapshot::{ClusterSnapshot, Snapshot};
use crate::policy::time::Timestamp;
use crate::policy::version::Version;
use crate::proto::v1;

/// Bytes of a list's answer that its items and problems leave free.
const LIST_BYTES_RESERVED: usize = 1024;

/// A rule without a match for as long is unused.
const UNUSED_AFTER: Duration = Duration::from_hours(30 * 24);

impl Api {
    pub(super) async fn list_problems(
        &self,
        request: v1::ListProblemsRequest,
    ) -> Result<Response<v1::ListProblemsResponse>, Status> {
        let v1::ListProblemsRequest { parent, page_size, page_token } = request;
        let mut faults = Faults::default();
        let named = faults.note("parent", names::node(&parent));
        let page = self.page_request(&mut faults, format!("problems {parent}"), page_size, &page_token)?;
        let (id, key) = match faults.result(named)? {
            NodeName::Cluster => return self.problems_of_cluster(page),
            NodeName::Organization(id) => (id, None),
            NodeName::Below(id, key) => (id, Some(key)),
        };
        let scope = self.node_scope(&parent, &id, key)?;
        let (revision, cluster) = (scope.published.view.organization.revision, scope.cluster.cluster.revision);
        // The moment is part of the state, so that rules that expire meanwhile do not shift the pages.
        let now = match page.state().split('-').collect::<Vec<_>>().as_slice() {
            [""] => Timestamp::from_millis(self.engine()?.clock().now().millis()),
            [r, c, at] if *r == revision.to_string() && *c == cluster.to_string() => {
                Timestamp::from_millis(at.parse().unwrap_or_default())
            }
            _ => return Err(status::list_changed()),
        };
        let page = page.in_state(format!("{revision}-{cluster}-{}", now.millis()));
        let engine = Arc::clone(self.engine()?);
        let find = move || {
            examine(&engine, &scope, now, |examined| match &scope.key {
                None => problems::of_organization(examined),
                Some(key) => problems::of_node(examined, key),
            })
        };
        let Found { problems, incomplete, .. } = self.shared.heavy.run(find).await?;
        let messages = problems.iter().skip(page.offset()).map(|problem| to_problem(Some(&id), problem));
        let (problems, next_page_token) = page.page_by_offset(messages);
        Ok(at_revision(v1::ListProblemsResponse { problems, next_page_token, incomplete }, revision))
    }

    /// The problems that concern the rules or groups of an answer, the worst first, as many as fit beside `answer_bytes`.
    ///
    /// One sweep finds those of the whole organization. It is kept for the other pages and other lists, until the policy
    /// changes, a rule expires or a minute ends. It has a pool of its own, so that a list does not wait for previews.
    pub(super) async fn problems_of_listed(
        &self,
        published: Arc<Published>,
        answer_bytes: usize,
        is_listed: impl Fn(&Problem) -> bool,
    ) -> Result<Vec<v1::Problem>, Status> {
        let (cluster, now) = (self.engine()?.directory().cluster(), self.engine()?.clock().now());
        let id = published.view.organization.id.clone();
        let (revision, minute) = (published.view.organization.revision, now.seconds() / 60);
        let expired = published.view.organization.count_expired(now);
        let key = format!("{id} {revision} {} {minute} {expired}", cluster.cluster.revision);
        let scope = NodeScope { published, cluster, key: None };
        let Shared { list_work, list_problems, .. } = &*self.shared;
        let engine = Arc::clone(self.engine()?);
        let find = move || examine(&engine, &scope, now, problems::of_firewall).problems;
        let found = list_work.recall(list_problems, key, find).await?;
        let listed = found.iter().filter(|problem| is_listed(problem));
        let room = (ANSWER_BYTES_MAX - LIST_BYTES_RESERVED).saturating_sub(answer_bytes);
        let messages = listed.map(|problem| to_problem(Some(&id), problem));
        Ok(fitting(messages, room.min(ANSWER_BYTES_MAX / 4)).0)
    }

    fn problems_of_cluster(&self, page: PageRequest) -> Result<Response<v1::ListProblemsResponse>, Status> {
        let cluster = self.engine()?.directory().cluster();
        let page = page.of_state(cluster.cluster.revision.to_string())?;
        let found = problems::of_cluster(&cluster.cluster);
        let messages = found.iter().map(|problem| to_problem(None, problem));
        let (problems, next_page_token) = page.page_by_offset(messages.skip(page.offset()));
        let answer = v1::ListProblemsResponse { problems, next_page_token, incomplete: false };
        Ok(at_revision(answer, cluster.cluster.revision))
    }
}

/// The known match counts, by rule.
#[derive(Default)]
pub(super) struct Known {
    matches: HashMap<(Id, Timestamp), RuleMatches>,
}

impl Known {
    /// Of the rules of an organization.
    pub(super) fn of(view: &OrganizationView) -> Self {
        let rules = view.organization.rules.iter().enumerate();
        let known = rules.filter_map(|(index, rule)| {
            view.matches(index).map(|matches| ((rule.id.clone(), rule.create_time), matches))
        });
        Self { matches: known.collect() }
    }
}

/// The problems of a version that is not published.
pub(super) fn of_version(engine: &Engine, version: &Version<'_>, known: &Known, now: Timestamp) -> Found {
    let organization = version.organization;
    let matches = |index: usize| {
        let rule = organization.rules.get(index)?;
        known.matches.get(&(rule.id.clone(), rule.create_time)).copied()
    };
    problems::of_organization(&problems::Examined {
        organization,
        snapshot: version.snapshot,
        cluster: version.cluster,
        cluster_snapshot: version.cluster_snapshot,
        now,
        matches: &matches,
        unused_since: now.before(UNUSED_AFTER),
        nat64_prefixes: engine.nat64_prefixes(),
    })
}

/// The problems of an organization, as many as fit an answer beside other fields, and whether some are left out.
pub(super) fn of_organization(
    engine: &Engine,
    organization: &Arc<Organization>,
    cluster: &Cluster,
    now: Timestamp,
) -> (Vec<v1::Problem>, bool) {
    let snapshot = Snapshot::compile(organization, &mut MembersCache::default());
    let cluster_snapshot = ClusterSnapshot::compile(cluster);
    let version = Version { organization, snapshot: &snapshot, cluster, cluster_snapshot: &cluster_snapshot };
    let Found { problems, incomplete, .. } = of_version(engine, &version, &Known::default(), now);
    let messages = problems.iter().map(|problem| to_problem(Some(&organization.id), problem));
    let (problems, cut) = fitting(messages, ANSWER_BYTES_MAX / 4);
    (problems, cut || incomplete)
}

/// The first problems, as many as fit, and whether some are left out.
pub(super) fn fitting(problems: impl IntoIterator<Item = v1::Problem>, bytes_max: usize) -> (Vec<v1::Problem>, bool) {
    let mut fitting = Fitting::new(bytes_max);
    fitting.extend(problems);
    (fitting.problems, fitting.cut)
}

/// The first of many problems, as many as fit.
pub(super) struct Fitting {
    pub(super) problems: Vec<v1::Problem>,
    /// Whether some are left out.
    pub(super) cut: bool,
    bytes_left: usize,
}

impl Fitting {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { problems: Vec::new(), cut: false, bytes_left: bytes_max }
    }

    /// Adds problems until one does not fit. From then on none is added.
    pub(super) fn extend(&mut self, problems: impl IntoIterator<Item = v1::Problem>) {
        for problem in problems {
            let left = self.bytes_left.checked_sub(problem.encoded_len() + 6);
            self.cut |= left.is_none();
            if self.cut {
                return;
            }
            self.bytes_left = left.unwrap_or_default();
            self.problems.push(problem);
        }
    }
}

/// Examines the organization of a scope.
pub(super) fn examine<T>(
    engine: &Engine,
    scope: &NodeScope,
    now: Timestamp,
    examine: impl FnOnce(&problems::Examined<'_>) -> T,
) -> T {
    let NodeScope { published, cluster, key: _ } = scope;
    examine(&problems::Examined {
        organization: &published.view.organization,
        snapshot: &published.snapshot,
        cluster: &cluster.cluster,
        cluster_snapshot: &cluster.snapshot,
        now,
        matches: &|index| published.view.matches(index),
        unused_since: now.before(UNUSED_AFTER),
        nat64_prefixes: engine.nat64_prefixes(),
    })
}

/// A problem as the API has it.
pub(super) fn to_problem(organization: Option<&Id>, problem: &Problem) -> v1::Problem {
    let Problem { code, resource, ranges, related, connection_types: _, since: _, from, unregistered: _ } = problem;
    let (api_code, severity) = code_and_severity(*code);
    v1::Problem {
        code: api_code.into(),
        severity: severity.into(),
        resource: name(organization, resource),
        message: message(organization, problem),
        ranges: ranges.iter().map(ToString::to_string).collect(),
        related: related.iter().map(|resource| name(organization, resource)).collect(),
        from_time: from.map(to_time),
    }
}

fn code_and_severity(code: Code) -> (v1::ProblemCode, v1::Severity) {
    use v1::Severity::{Error, Info, Warning};
    match code {
        Code::LocksEveryoneOut => (v1::ProblemCode::LocksEveryoneOut, Error),
        Code::GuardedAddressLockedOut => (v1::ProblemCode::GuardedAddressLockedOut, Error),
        Code::FailingTest => (v1::ProblemCode::FailingTest, Error),
        Code::OpenToInternet => (v1::ProblemCode::OpenToInternet, Error),
        Code::NoAddresses => (v1::ProblemCode::NoAddresses, Warning),
        Code::ShadowedRule => (v1::ProblemCode::ShadowedRule, Warning),
        Code::Ipv4OnlyCatchAll => (v1::ProblemCode::Ipv4OnlyCatchAll, Warning),
        Code::ExceedsOrganization => (v1::ProblemCode::ExceedsOrganization, Warning),
        Code::AllowsAll => (v1::ProblemCode::AllowsAll, Warning),
        Code::UnreachableEntry => (v1::ProblemCode::UnreachableEntry, Warning),
        Code::EmptyGroup => (v1::ProblemCode::EmptyGroup, Warning),
        Code::RedundantRule => (v1::ProblemCode::RedundantRule, Info),
        Code::ExpiredRule => (v1::ProblemCode::ExpiredRule, Info),
        Code::UnusedRule => (v1::ProblemCode::UnusedRule, Info),
        Code::UnusedGroup => (v1::ProblemCode::UnusedGroup, Info),
        Code::PartlyShadowedRule => (v1::ProblemCode::PartlyShadowedRule, Info),
        Code::TranslatedAddress => (v1::ProblemCode::TranslatedAddress, Info),
    }
}
