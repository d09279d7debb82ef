//! HierarchyService (design.md §3.4): the cluster, organizations and the nodes below them.
//!
//! Invariant: what kind of node a call is about follows from the name alone.
//! Not here: inheritance as decisions see it (`policy::snapshot`), permitted ranges (`permitted`).

use std::sync::Arc;

use prost::Message;
use tonic::{Code, Request, Response, Status};

use super::caller::Caller;
use super::convert::Faults;
use super::convert::names::{self, NodeName, chosen_id};
use super::convert::node::{SETTABLE, patch, to_node, to_own_node};
use super::convert::options::Mask;
use super::convert::reader::ReadChange;
use super::paging::PageRequest;
use super::serve::serve;
use super::{Api, at_revision, permitted, status, to_i64};
use crate::engine::change::{ChangeTarget, Changed};
use crate::engine::directory::Directory;
use crate::policy::name::{CLUSTER, Id, Name, NodeKey};
use crate::policy::node::{Node, NodePatch};
use crate::policy::organization::Organization;
use crate::policy::plan::{Etags, Mutation};
use crate::policy::state::Outcome;
use crate::proto::v1::hierarchy_service_server::HierarchyService;
use crate::proto::v1::{
    self, AddAccessEntriesRequest, AddAccessEntriesResponse, CreateNodeRequest, DeleteNodeRequest, EffectiveAccess,
    ErrorReason, GetEffectiveAccessRequest, GetNodeRequest, ListNodesRequest, ListNodesResponse,
    ListPermittedRangesRequest, ListPermittedRangesResponse, RemoveAccessEntriesRequest, RemoveAccessEntriesResponse,
    UpdateNodeRequest,
};

serve!(HierarchyService {
    changes create_node(CreateNodeRequest) -> v1::Node;
    at_once get_node(GetNodeRequest) -> v1::Node;
    at_once list_nodes(ListNodesRequest) -> ListNodesResponse;
    changes update_node(UpdateNodeRequest) -> v1::Node;
    changes delete_node(DeleteNodeRequest) -> ();
    changes add_access_entries(AddAccessEntriesRequest) -> AddAccessEntriesResponse;
    changes remove_access_entries(RemoveAccessEntriesRequest) -> RemoveAccessEntriesResponse;
    waits get_effective_access(GetEffectiveAccessRequest) -> EffectiveAccess;
    waits list_permitted_ranges(ListPermittedRangesRequest) -> ListPermittedRangesResponse;
});

impl Api {
    async fn create_node(&self, caller: Caller, request: CreateNodeRequest) -> Result<Response<v1::Node>, Status> {
        self.change_node(caller, self.read_create_node(request)).await
    }

    fn get_node(&self, request: GetNodeRequest) -> Result<Response<v1::Node>, Status> {
        let GetNodeRequest { name } = request;
        let (node, revision) = find(self.etags()?, self.engine()?.directory(), &name)?;
        Ok(at_revision(node, revision))
    }

    fn list_nodes(&self, request: ListNodesRequest) -> Result<Response<ListNodesResponse>, Status> {
        let ListNodesRequest { parent, page_size, page_token, recursive } = request;
        let mut faults = Faults::default();
        let list = format!("nodes {parent} {recursive}");
        let page = self.page_request(&mut faults, list, page_size, &page_token)?;
        let above = read_list_parent(&mut faults, &parent);
        let above = faults.result(above)?;
        let directory = self.engine()?.directory();
        let (nodes, revision) = match above {
            None => (organizations(directory, &page, recursive)?, None),
            Some((id, root)) => {
                let (nodes, revision) = below_parent(directory, &page, &parent, &id, root.as_ref(), recursive)?;
                (nodes, Some(revision))
            }
        };
        let etags = self.etags()?;
        let (nodes, more) = page.take(nodes.iter().map(|listed| listed.to_node(etags)), v1::Node::encoded_len);
        let end = nodes.last().filter(|_| more);
        let next_page_token = end.map(|node| page.token(&node.name)).unwrap_or_default();
        let problems = nodes.iter().filter_map(permitted::problem_of).collect();
        let etag = revision.map(|revision| etags.nodes(revision)).unwrap_or_default();
        let shown = revision.map_or(0, to_i64);
        let answer = ListNodesResponse { nodes, next_page_token, etag, revision: shown, problems };
        Ok(match revision {
            Some(revision) => at_revision(answer, revision),
            None => Response::new(answer),
        })
    }

    async fn update_node(&self, caller: Caller, request: UpdateNodeRequest) -> Result<Response<v1::Node>, Status> {
        self.change_node(caller, self.read_update_node(request)).await
    }

    async fn delete_node(&self, caller: Caller, request: DeleteNodeRequest) -> Result<Response<()>, Status> {
        let request = self.read_delete_node(request)??;
        let Changed { revision, .. } = self.change(caller, request).await?;
        Ok(at_revision((), revision))
    }

    pub(super) fn read_create_node(&self, request: CreateNodeRequest) -> ReadChange {
        let CreateNodeRequest { parent, node_id, node, options } = request;
        let mut read = self.change_reader(options);
        let id = chosen_id(&mut read, "node_id", &node_id);
        let parent = read_parent(&mut read, &parent);
        let organization = match &parent {
            Some(Some(NodeName::Organization(id) | NodeName::Below(id, _))) => Some(id.clone()),
            _ => None,
        };
        let patch =
            patch(&mut read, "node", organization.as_ref().map(Id::as_str), node.unwrap_or_default(), &Mask::Populated);
        let target = match (parent, id) {
            (Some(None), Some(id)) => Some(ChangeTarget::CreateOrganization { id, patch }),
            (Some(Some(NodeName::Organization(organization))), Some(id)) => {
                let key = NodeKey { project: id, workspace: None, endpoint: None };
                Some(below(organization, Mutation::CreateNode { key, patch }))
            }
            (Some(Some(NodeName::Below(organization, parent))), Some(id)) => {
                parent.child(id).map(|key| below(organization, Mutation::CreateNode { key, patch }))
            }
            _ => None,
        };
        read.change(target)
    }

    pub(super) fn read_update_node(&self, request: UpdateNodeRequest) -> ReadChange {
        let UpdateNodeRequest { node, update_mask, options } = request;
        let mut read = self.change_reader(options);
        let mut node = node.unwrap_or_default();
        let etag = self.given_etag(std::mem::take(&mut node.etag))?;
        let name = std::mem::take(&mut node.name);
        let named = read.note("node.name", names::node(&name));
        let mask = read.mask(update_mask, SETTABLE);
        let organization = match &named {
            Some(NodeName::Organization(id) | NodeName::Below(id, _)) => Some(id),
            Some(NodeName::Cluster) | None => None,
        };
        let patch = patch(&mut read, "node", organization.map(Id::as_str), node, &mask);
        read.change(named.map(|named| update_of(named, etag, patch)))
    }

    pub(super) fn read_delete_node(&self, request: DeleteNodeRequest) -> Result<ReadChange, Status> {
        let DeleteNodeRequest { name, etag, force, options } = request;
        let mut read = self.change_reader(options);
        let etag = self.given_etag(etag)?;
        let target = match read.note("name", names::node(&name)) {
            None => None,
            Some(NodeName::Cluster) => {
                let message = "`cluster` cannot be deleted: set its access to ACCESS_MODE_ALLOW_ALL to lift it";
                return Err(status::error(Code::InvalidArgument, ErrorReason::ClusterUndeletable, message));
            }
            Some(NodeName::Organization(id)) => Some(ChangeTarget::DeleteOrganization { id, etag, force }),
            Some(NodeName::Below(id, key)) => Some(below(id, Mutation::DeleteNode { key, etag, force })),
        };
        Ok(read.change(target))
    }

    async fn change_node(&self, caller: Caller, read: ReadChange) -> Result<Response<v1::Node>, Status> {
        let request = read?;
        let (name, validate_only) = (target_name(&request.target), request.validate_only);
        let changed = self.change(caller, request).await?;
        Ok(at_revision(shown_node(self.etags()?, &changed, &name, validate_only)?, changed.revision))
    }
}

/// The change of a node that exists.
pub(super) fn update_of(named: NodeName, etag: Option<String>, patch: NodePatch) -> ChangeTarget {
    match named {
        NodeName::Cluster => ChangeTarget::Cluster { etag, patch },
        NodeName::Organization(id) => below(id, Mutation::UpdateNode { key: None, etag, patch }),
        NodeName::Below(id, key) => below(id, Mutation::UpdateNode { key: Some(key), etag, patch }),
    }
}

/// The node that was changed, as the change leaves it or would leave it.
pub(super) fn shown_node(etags: Etags, changed: &Changed, name: &str, validate_only: bool) -> Result<v1::Node, Status> {
    let revision = changed.revision;
    let node = match &changed.outcome {
        Outcome::Cluster(cluster) => Some(to_node(etags, CLUSTER.to_owned(), None, revision, &cluster.node)),
        Outcome::Organization(organization) => node_in(etags, organization, name),
        Outcome::Deleted(..) => None,
    };
    let mut node = node.ok_or_else(|| status::not_found(name))?;
    node.revision = to_i64(revision);
    if validate_only {
        node.etag = String::new();
    }
    Ok(node)
}

fn below(id: Id, mutation: Mutation) -> ChangeTarget {
    ChangeTarget::Organization { id, mutation }
}

/// The name of the node that is created or updated.
pub(super) fn target_name(target: &ChangeTarget) -> String {
    match target {
        ChangeTarget::Cluster { .. } => CLUSTER.to_owned(),
        ChangeTarget::Organization { id, mutation } => match mutation {
            Mutation::CreateNode { key, .. } | Mutation::UpdateNode { key: Some(key), .. } => {
                Name::node(id, key).to_string()
            }
            _ => Name::organization(id).to_string(),
        },
        ChangeTarget::CreateOrganization { id, .. } | ChangeTarget::DeleteOrganization { id, .. } => {
            Name::organization(id).to_string()
        }
    }
}

/// Reads the parent of a new node. The inner `None` stands for the empty parent, below which organizations are.
#[expect(clippy::option_option, reason = "no parent and an unreadable one are different answers")]
fn read_parent(faults: &mut Faults, parent: &str) -> Option<Option<NodeName>> {
    if parent.is_empty() {
        return Some(None);
    }
    let named = faults.note("parent", names::node(parent))?;
    let fault = match &named {
        NodeName::Cluster => "leave it empty to create an organization: `cluster` has no nodes of its own",
        NodeName::Below(_, key) if key.endpoint.is_some() => "an endpoint has no nodes below it",
        NodeName::Organization(_) | NodeName::Below(..) => return Some(Some(named)),
    };
    faults.add("parent", fault);
    None
}

/// Reads the node whose children are listed. The inner `None` stands for the empty parent, below which organizations are.
#[expect(clippy::option_option, reason = "no parent and an unreadable one are different answers")]
fn read_list_parent(faults: &mut Faults, parent: &str) -> Option<Option<(Id, Option<NodeKey>)>> {
    if parent.is_empty() {
        return Some(None);
    }
    match faults.note("parent", names::node(parent))? {
        NodeName::Cluster => {
            faults.add("parent", "leave it empty to list organizations: `cluster` has no nodes of its own");
            None
        }
        NodeName::Organization(id) => Some(Some((id, None))),
        NodeName::Below(id, key) => Some(Some((id, Some(key)))),
    }
}

/// A node of an organization by its full name.
fn node_in(etags: Etags, organization: &Organization, name: &str) -> Option<v1::Node> {
    let id = organization.id.as_str();
    let node = match names::node(name).ok()? {
        NodeName::Cluster => return None,
        NodeName::Organization(_) => return Some(to_own_node(etags, organization)),
        NodeName::Below(_, key) => organization.nodes.get(&key)?,
    };
    Some(to_node(etags, name.to_owned(), Some(id), organization.revision, node))
}

fn find(etags: Etags, directory: &Directory, name: &str) -> Result<(v1::Node, u64), Status> {
    let id = match names::node(name).map_err(|error| status::invalid_field("name", error.to_string()))? {
        NodeName::Cluster => {
            let cluster = &directory.cluster().cluster;
            return Ok((to_node(etags, CLUSTER.to_owned(), None, cluster.revision, &cluster.node), cluster.revision));
        }
        NodeName::Organization(id) | NodeName::Below(id, _) => id,
    };
    let published = directory.organization(id.as_str()).ok_or_else(|| status::not_found(name))?;
    let organization = &published.view.organization;
    let node = node_in(etags, organization, name).ok_or_else(|| status::not_found(name))?;
    Ok((node, organization.revision))
}

/// A node that may be on a page. Only what fits is written out: a thousand nodes can be far larger than an answer.
struct Listed {
    organization: Arc<Organization>,
    /// None: the organization itself.
    key: Option<NodeKey>,
    node: Arc<Node>,
}

impl Listed {
    fn to_node(&self, etags: Etags) -> v1::Node {
        let id = self.organization.id.as_str();
        match &self.key {
            None => to_own_node(etags, &self.organization),
            Some(key) => {
                to_node(etags, Name::node(id, key).to_string(), Some(id), self.organization.revision, &self.node)
            }
        }
    }
}

/// One more than a page of the organizations after the cursor, with `recursive` each followed by its nodes.
fn organizations(directory: &Directory, page: &PageRequest, recursive: bool) -> Result<Vec<Listed>, Status> {
    let wanted = page.size + 1;
    let mut nodes = Vec::new();
    let mut after: Option<Id> = None;
    if let Some(cursor) = &page.cursor {
        let (organization, key) = match names::node(cursor) {
            Ok(NodeName::Organization(id)) => (id, None),
            Ok(NodeName::Below(id, key)) => (id, Some(key)),
            Ok(NodeName::Cluster) | Err(_) => {
                return Err(status::invalid_field("page_token", "is no token of this list"));
            }
        };
        if recursive && let Some(published) = directory.organization(organization.as_str()) {
            push_nodes(&mut nodes, &published.view.organization, key.as_ref(), wanted, |_| true);
        }
        after = Some(organization);
    }
    while nodes.len() < wanted {
        let some = directory.organizations_after(after.as_ref().map(Id::as_str), wanted);
        let Some(last) = some.last() else { break };
        after = Some(last.view.organization.id.clone());
        for published in &some {
            let organization = &published.view.organization;
            let node = Arc::clone(&organization.node);
            nodes.push(Listed { organization: Arc::clone(organization), key: None, node });
            if recursive {
                push_nodes(&mut nodes, organization, None, wanted, |_| true);
            }
            if nodes.len() >= wanted {
                break;
            }
        }
    }
    Ok(nodes)
}

/// Adds the nodes after a key that `is_listed` accepts, until there are `wanted`.
fn push_nodes(
    nodes: &mut Vec<Listed>,
    organization: &Arc<Organization>,
    after: Option<&NodeKey>,
    wanted: usize,
    is_listed: impl Fn(&NodeKey) -> bool,
) {
    let listed = organization.nodes.iter_after(after).filter(|(key, _)| is_listed(key));
    let listed = listed.map(|(key, node)| Listed {
        organization: Arc::clone(organization),
        key: Some(key.clone()),
        node: Arc::clone(node),
    });
    nodes.extend(listed.take(wanted.saturating_sub(nodes.len())));
}

/// One more than a page of the nodes below a parent.
fn below_parent(
    directory: &Directory,
    page: &PageRequest,
    parent: &str,
    id: &Id,
    root: Option<&NodeKey>,
    recursive: bool,
) -> Result<(Vec<Listed>, u64), Status> {
    let published = directory.organization(id.as_str()).ok_or_else(|| status::not_found(parent))?;
    let organization = &published.view.organization;
    if let Some(root) = root
        && organization.nodes.get(root).is_none()
    {
        return Err(status::not_found(parent));
    }
    let cursor = match page.cursor.as_deref().map(names::node) {
        Some(Ok(NodeName::Below(_, key))) => Some(key),
        Some(_) => return Err(status::invalid_field("page_token", "is no token of this list")),
        None => root.cloned(),
    };
    let is_listed = |key: &NodeKey| {
        let inside = root.is_none_or(|root| key.is_within(root) && key != root);
        inside && (recursive || key.parent().as_ref() == root)
    };
    let mut nodes = Vec::new();
    push_nodes(&mut nodes, organization, cursor.as_ref(), page.size + 1, is_listed);
    Ok((nodes, organization.revision))
}
