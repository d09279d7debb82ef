//! A node that a call asks about, with the policy that answers the call.
//!
//! Invariant: organization and cluster are each of one version for the whole answer.
//! Not here: what is asked about it (`permitted`, `problems`).

use std::sync::Arc;

use tonic::Status;

use super::{Api, status};
use crate::engine::directory::{Published, PublishedCluster};
use crate::policy::name::{Id, NodeKey};
use crate::policy::version::Version;

/// See the module.
pub(super) struct NodeScope {
    pub(super) published: Arc<Published>,
    pub(super) cluster: Arc<PublishedCluster>,
    /// None: the organization itself.
    pub(super) key: Option<NodeKey>,
}

impl NodeScope {
    /// The policy.
    pub(super) fn version(&self) -> Version<'_> {
        version(&self.published, &self.cluster)
    }
}

/// The policy of an organization below a cluster.
pub(super) fn version<'a>(published: &'a Published, cluster: &'a PublishedCluster) -> Version<'a> {
    Version {
        organization: &published.view.organization,
        snapshot: &published.snapshot,
        cluster: &cluster.cluster,
        cluster_snapshot: &cluster.snapshot,
    }
}

impl Api {
    /// The current version of an organization that a read names.
    pub(super) fn published(&self, id: &Id) -> Result<Arc<Published>, Status> {
        let published = self.engine()?.directory().organization(id.as_str());
        published.ok_or_else(|| status::not_found(&crate::policy::name::Name::organization(id).to_string()))
    }

    /// The scope of a node, registered or not. Its project must be registered if the organization requires projects.
    pub(super) fn node_scope(&self, name: &str, organization: &Id, key: Option<NodeKey>) -> Result<NodeScope, Status> {
        let published = self.published(organization)?;
        let known_project = key.as_ref().is_none_or(|key| {
            let project = NodeKey { project: key.project.clone(), workspace: None, endpoint: None };
            published.view.organization.nodes.get(&project).is_some()
        });
        if !known_project && published.view.organization.node.require_projects {
            return Err(status::not_found(name));
        }
        Ok(NodeScope { published, cluster: self.engine()?.directory().cluster(), key })
    }
}
