//! Planning changes of the hierarchy: projects, workspaces, endpoints, organizations and the cluster.
//!
//! Invariant: nothing but workspaces and endpoints inherits; a node's parent exists; no deletion lets more addresses
//! in unless the caller forces it.
//! Not here: what a node's setting means for a decision (`snapshot`).

use super::{PlanError, Planner, Task, Violation, check_etag, check_limit, etag_of_node, refuse};
use crate::change::{Delta, Effect};
use crate::name::{CLUSTER, Id, Name, NodeKey, NodeKind};
use crate::node::{Access, Node, NodePatch};
use crate::rule::Source;

const INHERIT_REFUSED: &str = "cannot inherit, for only workspaces and endpoints have a node to inherit from: use \
                               ACCESS_MODE_ALLOW_ALL or ACCESS_MODE_ALLOW_LIST";
const REQUIRE_PROJECTS_REFUSED: &str = "only organizations have it";
const GATES_REFUSED: &str = "only organizations and the cluster have them";

impl Task<'_> {
    pub(super) fn create_node(mut self, key: NodeKey, patch: &NodePatch) -> Result<Vec<Delta>, PlanError> {
        let organization = self.organization;
        if organization.nodes.get(&key).is_some() {
            return Err(PlanError::AlreadyExists(self.node_name(&key)));
        }
        if let Some(parent) = key.parent()
            && organization.nodes.get(&parent).is_none()
        {
            return Err(PlanError::NotFound(self.node_name(&parent)));
        }
        self.check_node_patch(Some(key.kind()), patch, "node");
        self.refuse()?;
        check_limit(
            "nodes of an organization",
            organization.nodes.len() + 1,
            self.planner.limits.nodes_per_organization_max,
        )?;
        self.check_entry_limit(patch)?;
        let default = if key.kind() == NodeKind::Project { Access::nobody() } else { Access::Inherit };
        let node = patch.applied_to(&Node::new(default, self.planner.now, self.revision));
        let first_project = key.kind() == NodeKind::Project && organization.nodes.is_empty();
        let mut deltas = vec![Delta::SetNode { key, node }];
        if first_project && !organization.node.require_projects {
            let node = Node {
                require_projects: true,
                update_time: self.planner.now,
                changed_at: self.revision,
                ..(*organization.node).clone()
            };
            deltas.push(Delta::SetOrganization { node });
        }
        Ok(deltas)
    }

    pub(super) fn update_organization(
        mut self,
        etag: Option<&str>,
        patch: &NodePatch,
    ) -> Result<Vec<Delta>, PlanError> {
        let old = &self.organization.node;
        let name = Name::organization(&self.organization.id).to_string();
        check_etag(&name, etag, &etag_of_node(old.changed_at))?;
        self.check_node_patch(None, patch, "node");
        self.refuse()?;
        self.check_entry_limit(patch)?;
        let node = self.changed_node(old, patch);
        Ok(node.map(|node| Delta::SetOrganization { node }).into_iter().collect())
    }

    pub(super) fn update_node(
        mut self,
        key: NodeKey,
        etag: Option<&str>,
        patch: &NodePatch,
    ) -> Result<Vec<Delta>, PlanError> {
        let name = self.node_name(&key);
        let Some(old) = self.organization.nodes.get(&key) else { return Err(PlanError::NotFound(name)) };
        check_etag(&name, etag, &etag_of_node(old.changed_at))?;
        self.check_node_patch(Some(key.kind()), patch, "node");
        self.refuse()?;
        self.check_entry_limit(patch)?;
        let node = self.changed_node(old, patch);
        Ok(node.map(|node| Delta::SetNode { key, node }).into_iter().collect())
    }

    pub(super) fn delete_node(
        mut self,
        key: NodeKey,
        etag: Option<&str>,
        force: bool,
    ) -> Result<Vec<Delta>, PlanError> {
        let name = self.node_name(&key);
        let Some(node) = self.organization.nodes.get(&key) else { return Err(PlanError::NotFound(name)) };
        check_etag(&name, etag, &etag_of_node(node.changed_at))?;
        self.refuse()?;
        if !force {
            if self.organization.has_children(Some(&key)) {
                return Err(PlanError::HasChildren(name));
            }
            if self.deletion_widens(&key, node) {
                return Err(PlanError::WouldWidenAccess(name));
            }
        }
        Ok(vec![Delta::RemoveNode { key }])
    }

    /// Whether an address that the organization and the cluster permit is kept out by the node now and would not be
    /// once it is gone. The firewall is left out of account: its rules come and go by themselves.
    fn deletion_widens(&self, key: &NodeKey, node: &Node) -> bool {
        let organization = self.organization;
        if key.kind() == NodeKind::Project && organization.node.require_projects {
            return false;
        }
        if node.access == Access::Inherit {
            return false;
        }
        let after = match key.parent().and_then(|parent| organization.effective_access(&parent)) {
            Some((_, access)) => organization.access_set(access),
            None => organization.access_set(&Access::AllowAll),
        };
        let bounds = organization
            .access_set(&organization.node.access)
            .intersection(&organization.access_set(&self.planner.cluster.node.access));
        !after.intersection(&bounds).is_subset(&organization.access_set(&node.access))
    }

    /// The node with the patch's values; none when nothing changes.
    pub(super) fn changed_node(&self, old: &Node, patch: &NodePatch) -> Option<Node> {
        let mut node = patch.applied_to(old);
        if node == *old {
            return None;
        }
        (node.update_time, node.changed_at) = (self.planner.now, self.revision);
        Some(node)
    }

    /// Notes what the kind of node cannot have; no kind means the organization.
    pub(super) fn check_node_patch(&mut self, kind: Option<NodeKind>, patch: &NodePatch, field: &str) {
        let inherits = matches!(kind, Some(NodeKind::Workspace | NodeKind::Endpoint));
        if patch.access == Some(Access::Inherit) && !inherits {
            self.violation(&format!("{field}.access.mode"), INHERIT_REFUSED);
        }
        if kind.is_some() && patch.require_projects == Some(true) {
            self.violation(&format!("{field}.require_projects"), REQUIRE_PROJECTS_REFUSED);
        }
        if kind.is_some() && patch.gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
            self.violation(&format!("{field}.change_gates"), GATES_REFUSED);
        }
        for (index, entry) in patch.access.iter().flat_map(Access::entries).enumerate() {
            self.check_group(&format!("{field}.access.entries[{index}].address_group"), Some(&entry.source));
        }
    }

    pub(super) fn check_entry_limit(&self, patch: &NodePatch) -> Result<(), PlanError> {
        check_entry_limit(&self.planner, patch)
    }

    fn node_name(&self, key: &NodeKey) -> String {
        Name::node(&self.organization.id, key).to_string()
    }
}

fn check_entry_limit(planner: &Planner<'_>, patch: &NodePatch) -> Result<(), PlanError> {
    let entries = patch.access.as_ref().map_or(0, |access| access.entries().len());
    check_limit("entries of a node", entries, planner.limits.entries_per_node_max)
}

pub(super) fn create_organization(
    planner: &Planner<'_>,
    id: Id,
    patch: &NodePatch,
    last_revision: u64,
    organizations: usize,
    mut violations: Vec<Violation>,
) -> Result<Effect, PlanError> {
    check_top(patch, &mut violations, "does not exist: a new organization has no groups yet");
    refuse(violations)?;
    check_limit("organizations", organizations + 1, planner.limits.organizations_max)?;
    check_entry_limit(planner, patch)?;
    let revision = last_revision + 1;
    let node = patch.applied_to(&Node::new(Access::AllowAll, planner.now, revision));
    Ok(Effect::CreateOrganization { id, revision, node })
}

pub(super) fn update_cluster(
    planner: &Planner<'_>,
    etag: Option<&str>,
    patch: &NodePatch,
    mut violations: Vec<Violation>,
) -> Result<Option<Effect>, PlanError> {
    let cluster = planner.cluster;
    check_etag(CLUSTER, etag, &etag_of_node(cluster.node.changed_at))?;
    check_top(patch, &mut violations, "belongs to an organization: the cluster's entries are ranges only");
    if patch.require_projects == Some(true) {
        violations.push(Violation::new("node.require_projects", REQUIRE_PROJECTS_REFUSED));
    }
    refuse(violations)?;
    check_entry_limit(planner, patch)?;
    let revision = cluster.revision + 1;
    let mut node = patch.applied_to(&cluster.node);
    if node == *cluster.node {
        return Ok(None);
    }
    (node.update_time, node.changed_at) = (planner.now, revision);
    Ok(Some(Effect::Cluster { revision, node }))
}

/// Notes what a node without a parent and without groups cannot have.
fn check_top(patch: &NodePatch, violations: &mut Vec<Violation>, groups_refused: &str) {
    if patch.access == Some(Access::Inherit) {
        violations.push(Violation::new("node.access.mode", INHERIT_REFUSED));
    }
    for (index, entry) in patch.access.iter().flat_map(Access::entries).enumerate() {
        if let Source::Group(id) = &entry.source {
            let field = format!("node.access.entries[{index}].address_group");
            violations.push(Violation::new(field, format!("`{id}` {groups_refused}")));
        }
    }
}
