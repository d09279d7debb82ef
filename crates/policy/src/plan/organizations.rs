//! Planning changes above the nodes: creating and deleting an organization, and the cluster's node.
//!
//! Invariant: neither a new organization nor the cluster inherits or names address groups.
//! Not here: the organization's own node once it exists (`nodes`).

use super::confirm::check_pending;
use super::entries::edited;
use super::error::{PlanError, Violation, refuse};
use super::etag::check_etag;
use super::task::{INHERIT_REFUSED, Planner, REQUIRE_PROJECTS_REFUSED};
use crate::change::Effect;
use crate::name::{CLUSTER, Id, Name};
use crate::node::{Access, EntriesEdit, Node, NodePatch};
use crate::organization::Organization;
use crate::rule::Source;

const GROUPS_REFUSED: &str = "belongs to an organization, and the cluster has no address groups: list ranges";

impl Planner<'_> {
    /// The effect of creating an organization.
    ///
    /// `exists` tells whether there is one of this id, `organizations` how many there are. `last_revision` is the last
    /// revision of a deleted organization of this id, or 0.
    ///
    /// # Errors
    ///
    /// [`PlanError`] says what is wrong with the request, or which limit is reached.
    pub fn create_organization(
        &self,
        id: Id,
        patch: &NodePatch,
        exists: bool,
        last_revision: u64,
        organizations: usize,
        mut violations: Vec<Violation>,
    ) -> Result<Effect, PlanError> {
        if exists {
            return Err(PlanError::AlreadyExists(Name::organization(&id).to_string()));
        }
        check_top(
            patch,
            &mut violations,
            "does not exist, because a new organization has no address groups: list ranges",
        );
        refuse(violations)?;
        let (what, max, would_be) = ("organizations".to_owned(), self.limits.organizations_max, organizations + 1);
        if would_be > max {
            return Err(PlanError::LimitReached { what, max, would_be });
        }
        self.check_entry_limit(patch, || Name::organization(&id).to_string())?;
        let revision = last_revision + 1;
        let node = patch.applied_to(&Node::new(Access::AllowAll, self.now, revision));
        Ok(Effect::CreateOrganization { id, revision, node })
    }

    /// The effect of deleting an organization; one that has nodes is deleted only with `force`.
    ///
    /// # Errors
    ///
    /// [`PlanError`] says why the organization cannot be deleted.
    pub fn delete_organization(
        &self,
        organization: &Organization,
        etag: Option<&str>,
        force: bool,
        violations: Vec<Violation>,
    ) -> Result<Effect, PlanError> {
        let name = Name::organization(&organization.id).to_string();
        check_pending(organization)?;
        check_etag(&name, etag, &self.etags.node(organization.node.changed_at))?;
        refuse(violations)?;
        if organization.has_children(None) && !force {
            return Err(PlanError::HasChildren(name));
        }
        Ok(Effect::DeleteOrganization { id: organization.id.clone(), revision: organization.revision + 1 })
    }

    /// The effect of updating the cluster's node; none when nothing changes.
    ///
    /// # Errors
    ///
    /// [`PlanError`] says what is wrong with the request.
    pub fn update_cluster(
        &self,
        etag: Option<&str>,
        patch: &NodePatch,
        mut violations: Vec<Violation>,
    ) -> Result<Option<Effect>, PlanError> {
        let cluster = self.cluster;
        check_etag(CLUSTER, etag, &self.etags.node(cluster.node.changed_at))?;
        let only_removes = patch.only_removes_entries();
        let edited;
        let patch = if let Some(edit) = &patch.entries {
            edited = edited_cluster(&cluster.node.access, edit, &mut violations)?;
            &edited
        } else {
            check_top(patch, &mut violations, GROUPS_REFUSED);
            if patch.require_projects == Some(true) {
                violations.push(Violation::new("node.require_projects", REQUIRE_PROJECTS_REFUSED));
            }
            patch
        };
        refuse(violations)?;
        if !only_removes {
            self.check_entry_limit(patch, || CLUSTER.to_owned())?;
        }
        let revision = cluster.revision + 1;
        Ok(self.changed_node(&cluster.node, patch, revision).map(|node| Effect::Cluster { revision, node }))
    }
}

/// The patch that an edit of the cluster's entries means.
fn edited_cluster(
    access: &Access,
    edit: &EntriesEdit,
    violations: &mut Vec<Violation>,
) -> Result<NodePatch, PlanError> {
    if let EntriesEdit::Add(entries) = edit {
        for (index, entry) in entries.iter().enumerate() {
            if let Source::Group(id) = &entry.source {
                let text = format!("`{id}` {GROUPS_REFUSED}");
                violations.push(Violation::new(format!("entries[{index}].address_group"), text));
            }
        }
    }
    let access = edited(CLUSTER, access, edit, None, violations)?;
    Ok(NodePatch { access: Some(access), ..NodePatch::default() })
}

/// Adds violations for what a node without a parent and without address groups cannot have.
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
