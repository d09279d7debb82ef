//! Who is permitted: effective access, and the fewest ranges that it covers (design.md §3.4).
//!
//! Invariant: cluster, firewall, organization and effective access all permit a listed range, at the answer's revisions
//! and moment. All pages of a list are of one moment.
//! Not here: decisions (`engine::check`).

use std::sync::Arc;

use prost::Message;
use tonic::{Response, Status};

use super::convert::Faults;
use super::convert::decision::to_connection_type;
use super::convert::names::{self, NodeName};
use super::convert::node::{to_entries, to_mode};
use super::node_scope::NodeScope;
use super::problems::{examine, to_problem};
use super::{ANSWER_BYTES_MAX, Api, Shared, at_revision, status, to_i64};
use crate::engine::Engine;
use crate::policy::address::Range;
use crate::policy::impact::{self, TargetClass};
use crate::policy::name::{CLUSTER, Name};
use crate::policy::node::Access;
use crate::policy::problems;
use crate::policy::ranges::RangeSet;
use crate::policy::rule::ConnectionType;
use crate::policy::time::Timestamp;
use crate::proto::v1;

/// Ranges that an effective access shows for each connection type. `ListPermittedRanges` has all of them.
const RANGES_SHOWN_MAX: usize = 10_000;

impl NodeScope {
    /// The access that applies, and the name of the node that sets it.
    fn effective(&self) -> (String, &Access) {
        let organization = &self.published.view.organization;
        let name = Name::organization(&organization.id).to_string();
        match self.key.as_ref().and_then(|key| organization.effective_access(key)) {
            Some((key, access)) => (format!("{name}/{key}"), access),
            None => (name, &organization.node.access),
        }
    }

    /// The addresses that every level permits.
    fn permitted(&self, connection_type: ConnectionType, now: Timestamp) -> RangeSet {
        let class = self.key.clone().map_or(TargetClass::Organization, TargetClass::Node);
        impact::permitted(self.version(), &class, connection_type, now)
    }
}

impl Api {
    pub(super) async fn get_effective_access(
        &self,
        request: v1::GetEffectiveAccessRequest,
    ) -> Result<Response<v1::EffectiveAccess>, Status> {
        let v1::GetEffectiveAccessRequest { name } = request;
        let named = names::node(&name).map_err(|error| status::invalid_field("name", error.to_string()))?;
        let (id, key) = match named {
            NodeName::Cluster => return self.effective_access_of_cluster(),
            NodeName::Organization(id) => (id, None),
            NodeName::Below(id, key) => (id, Some(key)),
        };
        let scope = self.node_scope(&name, &id, key)?;
        let (revision, now) = (scope.published.view.organization.revision, self.engine()?.clock().now());
        let engine = Arc::clone(self.engine()?);
        let answer = self.shared.heavy.run(move || effective_access(&engine, name, &scope, now)).await?;
        if answer.encoded_len() > ANSWER_BYTES_MAX {
            return Err(status::answer_too_large("read the nodes one by one with GetNode"));
        }
        Ok(at_revision(answer, revision))
    }

    fn effective_access_of_cluster(&self) -> Result<Response<v1::EffectiveAccess>, Status> {
        let cluster = Arc::clone(&self.engine()?.directory().cluster().cluster);
        let entries = to_entries(None, &cluster.node.access);
        let answer = v1::EffectiveAccess {
            name: CLUSTER.to_owned(),
            mode: to_mode(&cluster.node.access).into(),
            source: CLUSTER.to_owned(),
            cluster_entries: entries.clone(),
            entries,
            organization_entries: Vec::new(),
            permitted_ranges: Vec::new(),
            problems: problem(CLUSTER, &cluster.node.access).into_iter().collect(),
            truncated: false,
        };
        Ok(at_revision(answer, cluster.revision))
    }

    pub(super) async fn list_permitted_ranges(
        &self,
        request: v1::ListPermittedRangesRequest,
    ) -> Result<Response<v1::ListPermittedRangesResponse>, Status> {
        let v1::ListPermittedRangesRequest { name, connection_type, page_size, page_token } = request;
        let mut faults = Faults::default();
        let wanted = faults.connection_type("connection_type", connection_type);
        let named = faults.note("name", names::node(&name)).and_then(|named| match named {
            NodeName::Organization(id) => Some((id, None)),
            NodeName::Below(id, key) => Some((id, Some(key))),
            NodeName::Cluster => {
                faults.add("name", "name an organization or a node below one: connections are made to these");
                None
            }
        });
        let list = format!("permitted {name} {connection_type}");
        let page = self.page_request(&mut faults, list.clone(), page_size, &page_token)?;
        let (connection_type, (id, key)) = faults.result(wanted.zip(named))?;
        let scope = self.node_scope(&name, &id, key)?;
        let (revision, cluster_revision) = (scope.published.view.organization.revision, scope.cluster.cluster.revision);
        // The moment is part of the state, so that rules that expire meanwhile do not shift the pages.
        let at = match page.state().split('-').collect::<Vec<_>>().as_slice() {
            [""] => self.engine()?.clock().now(),
            [r, c, at] if *r == revision.to_string() && *c == cluster_revision.to_string() => {
                Timestamp::from_millis(at.parse().unwrap_or_default())
            }
            _ => return Err(status::list_changed()),
        };
        let page = page.in_state(format!("{revision}-{cluster_revision}-{}", at.millis()));
        let at = Timestamp::from_millis(at.millis());
        let key = format!("{list} {}", page.state());
        let Shared { heavy, permitted, .. } = &*self.shared;
        let ranges = heavy.recall(permitted, key, move || scope.permitted(connection_type, at)).await?;
        let first = match page.cursor.as_deref().map(str::parse) {
            None => Range::Any,
            Some(Ok(first)) => first,
            Some(Err(_)) => return Err(status::invalid_field("page_token", "is no token of this list")),
        };
        // The token names the first range of the next page.
        let mut rest = ranges.ranges_from(first).map(|range| range.to_string());
        let (ranges, next) = page.take_until(&mut rest, String::len);
        let next_page_token = next.map(|next| page.token(&next)).unwrap_or_default();
        Ok(at_revision(
            v1::ListPermittedRangesResponse { ranges, next_page_token, revision: to_i64(revision) },
            revision,
        ))
    }
}

fn effective_access(engine: &Engine, name: String, scope: &NodeScope, now: Timestamp) -> v1::EffectiveAccess {
    let organization = &scope.published.view.organization;
    let id = Some(organization.id.as_str());
    let (source, access) = scope.effective();
    let mut truncated = false;
    let mut permitted_ranges = Vec::new();
    for connection_type in ConnectionType::ALL {
        let permitted = scope.permitted(connection_type, now);
        let mut ranges: Vec<String> =
            permitted.ranges().take(RANGES_SHOWN_MAX + 1).map(|range| range.to_string()).collect();
        truncated |= ranges.len() > RANGES_SHOWN_MAX;
        ranges.truncate(RANGES_SHOWN_MAX);
        let connection_type = to_connection_type(connection_type).into();
        permitted_ranges.push(v1::PermittedRanges { connection_type, ranges });
    }
    v1::EffectiveAccess {
        mode: to_mode(access).into(),
        entries: to_entries(id, access),
        organization_entries: to_entries(id, &organization.node.access),
        cluster_entries: to_entries(None, &scope.cluster.cluster.node.access),
        permitted_ranges,
        problems: of_access(engine, scope, now),
        truncated,
        source,
        name,
    }
}

/// What is wrong with the access of the node itself, inherited or not.
fn of_access(engine: &Engine, scope: &NodeScope, now: Timestamp) -> Vec<v1::Problem> {
    let organization = &scope.published.view.organization;
    let Some(key) = &scope.key else {
        let name = Name::organization(&organization.id).to_string();
        return problem(&name, &organization.node.access).into_iter().collect();
    };
    let of_node = examine(engine, scope, now, |examined| problems::of_node(examined, key)).problems.into_iter();
    let own = of_node.filter(|problem| problem.resource == problems::Resource::Node(key.clone()));
    own.map(|problem| to_problem(Some(&organization.id), &problem)).collect()
}

/// An allowlist that permits nobody is reported: a new project has one until it is set.
fn problem(name: &str, access: &Access) -> Option<v1::Problem> {
    matches!(access, Access::AllowList(entries) if entries.is_empty()).then(|| no_addresses(name))
}

/// Whether a listed node permits nobody.
pub(super) fn problem_of(node: &v1::Node) -> Option<v1::Problem> {
    let access = node.access.as_ref()?;
    (access.mode() == v1::AccessMode::AllowList && access.entries.is_empty()).then(|| no_addresses(&node.name))
}

fn no_addresses(name: &str) -> v1::Problem {
    v1::Problem {
        code: v1::ProblemCode::NoAddresses.into(),
        severity: v1::Severity::Warning.into(),
        resource: name.to_owned(),
        message: "the allowlist has no entries, so nobody is permitted: add ranges or a group".to_owned(),
        ..v1::Problem::default()
    }
}
