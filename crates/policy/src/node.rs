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
    /// The parent's effective access; workspaces and endpoints only.
    Inherit,
    /// Everything, within what stands above.
    #[default]
    AllowAll,
    /// The listed sources, nothing else.
    AllowList(Arc<[AccessEntry]>),
}

impl Access {
    /// An allowlist that permits nobody: what a project starts with.
    pub fn nobody() -> Self {
        Self::AllowList(Arc::new([]))
    }

    /// The entries of an allowlist; none of other settings.
    pub fn entries(&self) -> &[AccessEntry] {
        match self {
            Self::Inherit | Self::AllowAll => &[],
            Self::AllowList(entries) => entries,
        }
    }
}

/// One line of an allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessEntry {
    /// The addresses.
    pub source: Source,
    /// Free text.
    pub description: Arc<str>,
}

/// A node: cluster, organization, project, workspace or endpoint; where it stands is its key's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// A name for people.
    pub display_name: Arc<str>,
    /// Whether the project named in a Check must exist; organizations only.
    pub require_projects: bool,
    /// Its own access setting.
    pub access: Access,
    /// What refuses changes; organizations and the cluster only.
    pub gates: Arc<Gates>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When its settable fields were last changed.
    pub update_time: Timestamp,
    /// The organization's (for the cluster: its own) revision that last changed its settable fields: its etag.
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

/// Values for settable fields of a node; what is absent stays, or takes the node's default in a new one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePatch {
    /// See [`Node::display_name`].
    pub display_name: Option<Arc<str>>,
    /// See [`Node::require_projects`].
    pub require_projects: Option<bool>,
    /// See [`Node::access`].
    pub access: Option<Access>,
    /// See [`Node::gates`].
    pub gates: Option<Arc<Gates>>,
}

impl NodePatch {
    /// All that `node` has.
    pub fn of(node: &Node) -> Self {
        Self {
            display_name: Some(Arc::clone(&node.display_name)),
            require_projects: Some(node.require_projects),
            access: Some(node.access.clone()),
            gates: Some(Arc::clone(&node.gates)),
        }
    }

    /// `node` with the patch's values; times and etag are the caller's.
    pub fn applied_to(&self, node: &Node) -> Node {
        Node {
            display_name: self.display_name.clone().unwrap_or_else(|| Arc::clone(&node.display_name)),
            require_projects: self.require_projects.unwrap_or(node.require_projects),
            access: self.access.clone().unwrap_or_else(|| node.access.clone()),
            gates: self.gates.clone().unwrap_or_else(|| Arc::clone(&node.gates)),
            ..node.clone()
        }
    }
}
