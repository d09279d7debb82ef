//! Planning changes of the hierarchy: projects, workspaces, endpoints, and an organization's own node.
//!
//! Invariant: only workspaces and endpoints inherit. A node's parent exists. No deletion permits more addresses unless
//! the caller forces it.
//! Not here: what a node's setting means for a decision (`snapshot`).

use std::borrow::Cow;

use super::entries::edited;
use super::error::PlanError;
use super::etag::check_etag;
use super::task::{INHERIT_REFUSED, REQUIRE_PROJECTS_REFUSED, Task};
use super::widening::refuse_widening;
use crate::change::Delta;
use crate::name::{Name, NodeKey, NodeKind};
use crate::node::{Access, EntriesEdit, Node, NodePatch};

const GATES_REFUSED: &str = "are settings of organizations and the cluster only: leave them out";

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
        self.check_own_limit("nodes", organization.nodes.len() + 1, self.planner.limits.nodes_per_organization_max)?;
        self.planner.check_entry_limit(patch, || self.node_name(&key))?;
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
        check_etag(&name, etag, &self.planner.etags.node(old.changed_at))?;
        let asked = patch;
        let patch = &*self.checked(&name, old, None, asked)?;
        self.refuse()?;
        if !asked.only_removes_entries() {
            self.planner.check_entry_limit(patch, || name)?;
        }
        let node = self.planner.changed_node(old, patch, self.revision);
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
        check_etag(&name, etag, &self.planner.etags.node(old.changed_at))?;
        let asked = patch;
        let patch = &*self.checked(&name, old, Some(key.kind()), asked)?;
        self.refuse()?;
        if !asked.only_removes_entries() {
            self.planner.check_entry_limit(patch, || name)?;
        }
        let node = self.planner.changed_node(old, patch, self.revision);
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
        check_etag(&name, etag, &self.planner.etags.node(node.changed_at))?;
        self.refuse()?;
        if !force {
            if self.organization.has_children(Some(&key)) {
                return Err(PlanError::HasChildren(name));
            }
            let mut after = self.organization.clone();
            after.nodes.remove(&key);
            refuse_widening(self.organization, [(&key, node)], &after, self.planner.cluster)?;
        }
        Ok(vec![Delta::RemoveNode { key }])
    }

    /// The patch for a node that exists. Adds violations for what this kind of node cannot have.
    fn checked<'p>(
        &mut self,
        name: &str,
        old: &Node,
        kind: Option<NodeKind>,
        patch: &'p NodePatch,
    ) -> Result<Cow<'p, NodePatch>, PlanError> {
        let Some(edit) = &patch.entries else {
            self.check_node_patch(kind, patch, "node");
            return Ok(Cow::Borrowed(patch));
        };
        if let EntriesEdit::Add(entries) = edit {
            for (index, entry) in entries.iter().enumerate() {
                self.check_group(&format!("entries[{index}].address_group"), Some(&entry.source));
            }
        }
        let access = edited(name, &old.access, edit, Some(self.organization), &mut self.violations)?;
        Ok(Cow::Owned(NodePatch { access: Some(access), ..NodePatch::default() }))
    }

    /// Adds violations for what this kind of node cannot have. No kind means the organization.
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

    fn node_name(&self, key: &NodeKey) -> String {
        Name::node(&self.organization.id, key).to_string()
    }
}
