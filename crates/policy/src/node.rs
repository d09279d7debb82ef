//! A node of the hierarchy and its access setting (design.md §2.3).
//!
//! Invariant: entries exist only in an allowlist.
//! Not here: inheritance (`organization` for the editable form, `snapshot` for decisions).

use std::sync::Arc;

use super::gates::Gates;
use super::rule::Source;
use super::time::Timestamp;

/// A node's own access setting.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Access {
    /// The parent's effective access applies; workspaces and endpoints only.
    Inherit,
    /// Every address is permitted, within what the levels above permit.
    #[default]
    AllowAll,
    /// The listed sources are permitted, and nothing else.
    AllowList(Arc<[AccessEntry]>),
}

impl Access {
    /// An empty allowlist, which permits nobody: the default of a project.
    pub fn nobody() -> Self {
        Self::AllowList(Arc::new([]))
    }

    /// The entries of an allowlist; empty for the other settings.
    pub fn entries(&self) -> &[AccessEntry] {
        match self {
            Self::Inherit | Self::AllowAll => &[],
            Self::AllowList(entries) => entries,
        }
    }
}

/// An entry of an allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessEntry {
    /// The addresses.
    pub source: Source,
    /// Free text.
    pub description: Arc<str>,
}

/// A node: cluster, organization, project, workspace or endpoint. The key that it is kept under tells which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The name that people read.
    pub display_name: Arc<str>,
    /// Whether the project named in a Check must exist; organizations only.
    pub require_projects: bool,
    /// Its own access setting.
    pub access: Access,
    /// The conditions for changes; organizations and the cluster only.
    pub gates: Arc<Gates>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When its settable fields were last changed.
    pub update_time: Timestamp,
    /// The revision that last changed its settable fields: what its etag holds. The cluster's node has revisions of the
    /// cluster, every other node those of its organization.
    pub changed_at: u64,
}

impl Node {
    /// A node with default settings, created at `now`.
    pub fn new(access: Access, now: Timestamp, revision: u64) -> Self {
        Self {
            display_name: Arc::default(),
            require_projects: false,
            access,
            gates: Arc::default(),
            create_time: now,
            update_time: now,
            changed_at: revision,
        }
    }
}

/// A change of some entries of an allowlist, which leaves the others as they are.
#[derive(Clone, Debug, PartialEq)]
pub enum EntriesEdit {
    /// Adds entries. One whose source is there already changes the description of that entry, unless its own is empty.
    Add(Vec<AccessEntry>),
    /// Removes the entries that have these sources.
    Remove(Vec<Source>),
}

/// New values for the settable fields of a node. An absent field stays as it is; in a new node it has its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePatch {
    /// See [`Node::display_name`].
    pub display_name: Option<Arc<str>>,
    /// See [`Node::require_projects`].
    pub require_projects: Option<bool>,
    /// See [`Node::access`].
    pub access: Option<Access>,
    /// Instead of an access: a change of some entries of the node's own allowlist. For existing nodes only.
    pub entries: Option<EntriesEdit>,
    /// See [`Node::gates`].
    pub gates: Option<Arc<Gates>>,
}

impl NodePatch {
    /// A patch with the values of all fields of `node`.
    pub fn of(node: &Node) -> Self {
        Self {
            display_name: Some(Arc::clone(&node.display_name)),
            require_projects: Some(node.require_projects),
            access: Some(node.access.clone()),
            entries: None,
            gates: Some(Arc::clone(&node.gates)),
        }
    }

    /// Whether it does no more than remove entries, which is also permitted where a limit was lowered below what is there.
    pub(crate) fn only_removes_entries(&self) -> bool {
        matches!(self.entries, Some(EntriesEdit::Remove(_)))
    }

    /// `node` with the values of the patch. The caller sets the times and `changed_at`.
    pub(crate) fn applied_to(&self, node: &Node) -> Node {
        Node {
            display_name: self.display_name.clone().unwrap_or_else(|| Arc::clone(&node.display_name)),
            require_projects: self.require_projects.unwrap_or(node.require_projects),
            access: self.access.clone().unwrap_or_else(|| node.access.clone()),
            gates: self.gates.clone().unwrap_or_else(|| Arc::clone(&node.gates)),
            ..node.clone()
        }
    }
}
