//! Problems in words, and the list of them (design.md §3.6).
//!
//! Invariant: a list is of one version of the policy; the words say what is wrong and what to do.
//! Not here: finding problems (`policy::problems`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tonic::{Response, Status};

use super::convert::Faults;
use super::convert::decision::to_connection_type;
use super::convert::names::{self, NodeName};
use super::node_scope::NodeScope;
use super::paging::PageRequest;
use super::{ANSWER_BYTES_MAX, Api, at_revision, status};
use crate::engine::directory::OrganizationView;
use crate::policy::members::MembersCache;
use crate::policy::name::{CLUSTER, Id, Name};
use crate::policy::organization::{Cluster, Organization};
use crate::policy::problems::{self, Code, Problem, Resource};
use crate::policy::rule::RuleMatches;
use crate::policy::snapshot::{ClusterSnapshot, Snapshot};
use crate::policy::time::Timestamp;
use crate::policy::version::Version;
use crate::proto::v1;

/// A rule without a match for as long is unused.
const UNUSED_AFTER: Duration = Duration::from_hours(30 * 24);

impl Api {
    pub(super) async fn problems(
        &self,
        request: v1::ListProblemsRequest,
    ) -> Result<Response<v1::ListProblemsResponse>, Status> {
        let v1::ListProblemsRequest { parent, page_size, page_token } = request;
        let mut faults = Faults::default();
        let named = faults.note("parent", names::node(&parent));
        let page = PageRequest::new(&mut faults, format!("problems {parent}"), page_size, &page_token);
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
        let problems = self.shared.heavy.run(move || of_scope(&scope, now)).await?;
        let messages = problems.iter().map(|problem| to_problem(Some(&id), problem));
        let (problems, next_page_token) = page.page_by_offset(messages.skip(page.offset()));
        Ok(at_revision(v1::ListProblemsResponse { problems, next_page_token }, revision))
    }

    fn problems_of_cluster(&self, page: PageRequest) -> Result<Response<v1::ListProblemsResponse>, Status> {
        let cluster = self.engine()?.directory().cluster();
        let page = page.of_state(cluster.cluster.revision.to_string())?;
        let found = problems::of_cluster(&cluster.cluster);
        let messages = found.iter().map(|problem| to_problem(None, problem));
        let (problems, next_page_token) = page.page_by_offset(messages.skip(page.offset()));
        Ok(at_revision(v1::ListProblemsResponse { problems, next_page_token }, cluster.cluster.revision))
    }
}

/// What is known of how often rules matched, by rule.
#[derive(Default)]
pub(super) struct Known {
    matches: HashMap<(Id, Timestamp), RuleMatches>,
}

impl Known {
    /// Of the rules of an organization.
    pub(super) fn of(view: &OrganizationView) -> Self {
        let rules = view.organization.rules.iter().enumerate();
        let known = rules.filter_map(|(place, rule)| {
            view.matches(place).map(|matches| ((rule.id.clone(), rule.create_time), matches))
        });
        Self { matches: known.collect() }
    }
}

/// The problems of a version that is not published.
pub(super) fn of_version(version: &Version<'_>, known: &Known, now: Timestamp) -> Vec<Problem> {
    let organization = version.organization;
    let matches = |place: usize| {
        let rule = organization.rules.get(place)?;
        known.matches.get(&(rule.id.clone(), rule.create_time)).copied()
    };
    problems::of_organization(&problems::Examined {
        organization,
        snapshot: version.snapshot,
        cluster: version.cluster,
        now,
        matches: &matches,
        unused_since: now.before(UNUSED_AFTER),
    })
}

/// The problems of an organization in messages, as far as an answer holds them beside others; and whether some are left
/// out.
pub(super) fn of_organization(
    organization: &Arc<Organization>,
    cluster: &Cluster,
    now: Timestamp,
) -> (Vec<v1::Problem>, bool) {
    let snapshot = Snapshot::compile(organization, &mut MembersCache::default());
    let cluster_snapshot = ClusterSnapshot::compile(cluster);
    let version = Version { organization, snapshot: &snapshot, cluster, cluster_snapshot: &cluster_snapshot };
    let problems = of_version(&version, &Known::default(), now);
    fitting(problems.iter().map(|problem| to_problem(Some(&organization.id), problem)), ANSWER_BYTES_MAX / 4)
}

/// The first problems, as many as fit; and whether some are left out.
pub(super) fn fitting(problems: impl IntoIterator<Item = v1::Problem>, bytes_max: usize) -> (Vec<v1::Problem>, bool) {
    let (mut bytes, mut cut) = (0, false);
    let fits = |problem: &v1::Problem| {
        bytes += problem.encoded_len() + 6;
        cut |= bytes > bytes_max;
        !cut
    };
    let problems = problems.into_iter().take_while(fits).collect();
    (problems, cut)
}

fn of_scope(scope: &NodeScope, now: Timestamp) -> Vec<Problem> {
    let NodeScope { published, cluster, key } = scope;
    let examined = problems::Examined {
        organization: &published.view.organization,
        snapshot: &published.snapshot,
        cluster: &cluster.cluster,
        now,
        matches: &|place| published.view.matches(place),
        unused_since: now.before(UNUSED_AFTER),
    };
    match key {
        None => problems::of_organization(&examined),
        Some(key) => problems::of_node(&examined, key),
    }
}

/// A problem as the API has it.
pub(super) fn to_problem(organization: Option<&Id>, problem: &Problem) -> v1::Problem {
    let Problem { code, resource, ranges, related, connection_types: _, since: _ } = problem;
    let (api_code, severity) = code_and_severity(*code);
    v1::Problem {
        code: api_code.into(),
        severity: severity.into(),
        resource: name(organization, resource),
        message: message(organization, problem),
        ranges: ranges.iter().map(ToString::to_string).collect(),
        related: related.iter().map(|resource| name(organization, resource)).collect(),
    }
}

fn name(organization: Option<&Id>, resource: &Resource) -> String {
    let organization = organization.map(|id| Name::organization(id).to_string()).unwrap_or_default();
    match resource {
        Resource::Cluster => CLUSTER.to_owned(),
        Resource::Organization => organization,
        Resource::Node(key) => format!("{organization}/{key}"),
        Resource::Rule(id) => format!("{organization}/rules/{id}"),
        Resource::Group(id) => format!("{organization}/addressGroups/{id}"),
    }
}

fn code_and_severity(code: Code) -> (v1::ProblemCode, v1::Severity) {
    use v1::Severity::{Error, Info, Warning};
    match code {
        Code::LocksEveryoneOut => (v1::ProblemCode::LocksEveryoneOut, Error),
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
    }
}

fn message(organization: Option<&Id>, problem: &Problem) -> String {
    let named = |resources: &[Resource]| {
        let shown: Vec<String> =
            resources.iter().take(3).map(|resource| format!("`{}`", name(organization, resource))).collect();
        let more = resources.len().saturating_sub(shown.len());
        if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(" and ") }
    };
    let types = match problem.connection_types.as_slice() {
        [one] => format!(" for {}", to_connection_type(*one).as_str_name()),
        _ => String::new(),
    };
    let first = problem.ranges.first().map(|range| format!("`{range}`")).unwrap_or_default();
    let ranges = match problem.ranges.len() {
        0 | 1 => first,
        more => format!("{first} and {} more ranges", more - 1),
    };
    let related = named(&problem.related);
    match problem.code {
        Code::LocksEveryoneOut => {
            format!("cluster, firewall and organization together let nobody in{types}: allow some addresses at each")
        }
        Code::OpenToInternet => {
            format!("every address of a whole family gets in{types}: restrict it unless it is meant for everybody")
        }
        Code::NoAddresses => "its access permits nobody: add ranges or a group".to_owned(),
        Code::ShadowedRule => {
            format!("it never wins, for {related} cover all of it before: move it up, or delete it")
        }
        Code::Ipv4OnlyCatchAll => format!(
            "it denies all of one address family and leaves {ranges} of the other open{types}: give it the range `any`"
        ),
        Code::ExceedsOrganization => {
            format!("it lists {ranges}, which the organization does not permit: these have no effect")
        }
        Code::AllowsAll => "it allows a whole address family: list the ranges that are meant".to_owned(),
        Code::UnreachableEntry if related.is_empty() => {
            format!("the firewall denies all of the entry {ranges}: nobody gets in by it")
        }
        Code::UnreachableEntry => format!("the firewall denies all of the entry {related}: nobody gets in by it"),
        Code::EmptyGroup => format!("{related} has no ranges, so it stands for nobody: add some"),
        Code::RedundantRule => "no decision would be another without it: delete it unless it says something".to_owned(),
        Code::ExpiredRule => "it is expired and matches nothing any more: delete it, or give it more time".to_owned(),
        Code::UnusedRule => {
            let since = problem.since.map(Timestamp::seconds).unwrap_or_default();
            let since = jiff::Timestamp::from_second(since).map(|time| time.to_string()).unwrap_or_default();
            format!("it has not matched since {since}: delete it if nobody needs it")
        }
        Code::UnusedGroup => "no rule and no entry names it: delete it if nobody needs it".to_owned(),
        Code::PartlyShadowedRule => format!("rules before it decide for {ranges} of its addresses always"),
    }
}
