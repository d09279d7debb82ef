//! Resource names and the ids in them (design.md §3.1).
//!
//! Invariant: a value of these types is well-formed.
//! Not here: whether the object with a name exists.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// The name of the node above all organizations.
pub const CLUSTER: &str = "cluster";

/// The length of the longest id, in characters.
pub const ID_LENGTH_MAX: usize = 63;

/// The last segment of a resource name: 1–63 of `a-z 0-9 -`, starting and ending with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Arc<str>);

/// A kind of object whose creator need not choose an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MadeUpKind {
    /// A rule.
    Rule,
    /// An address group.
    Group,
    /// A policy test.
    Test,
}

/// Why a text is not a resource name of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// The text is empty. Holds the expected form.
    #[error("is empty: give a name of the form `{0}`")]
    Empty(&'static str),
    /// The text does not have the expected form. Holds both.
    #[error("`{0}` is not of the form `{1}`")]
    Form(String, &'static str),
    /// One of the ids is not valid. Holds that id.
    #[error("`{0}` is not a valid id: use 1 to 63 of `a-z`, `0-9` and `-`, with a letter or digit at both ends")]
    Id(String),
}

impl Id {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id that the service makes up for an object of a kind, from a number.
    pub(crate) fn made_up(kind: MadeUpKind, number: u64) -> Self {
        let kind = match kind {
            MadeUpKind::Rule => "rule",
            MadeUpKind::Group => "group",
            MadeUpKind::Test => "test",
        };
        Self(format!("{kind}-{number:016x}").into())
    }

    /// Parses an id.
    ///
    /// # Errors
    ///
    /// [`NameError::Id`] when the text is not an id.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_id(text)?;
        Ok(Self(text.into()))
    }
}

impl Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

/// Whether an id may contain a byte.
#[expect(clippy::indexing_slicing, reason = "while compiling, with every byte but the last")]
const ID_BYTES: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0_u8);
    while byte < u8::MAX {
        table[byte as usize] = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        byte += 1;
    }
    table
};

/// The number of leading bytes that an id may contain.
fn id_bytes(text: &str) -> usize {
    let is_other = |byte: &u8| !ID_BYTES.get(usize::from(*byte)).copied().unwrap_or_default();
    text.as_bytes().iter().position(is_other).unwrap_or(text.len())
}

/// Whether a text, all bytes of which an id may contain, is an id.
fn is_id(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    text.len() <= ID_LENGTH_MAX && edge(text.as_bytes().first()) && edge(text.as_bytes().last())
}

fn check_id(text: &str) -> Result<(), NameError> {
    if id_bytes(text) == text.len() && is_id(text) { Ok(()) } else { Err(NameError::Id(shorten(text))) }
}

/// The id that a text begins with, and the rest after the slash; none when there is no slash.
fn split_id(text: &str) -> Result<(&str, Option<&str>), NameError> {
    let fault = || NameError::Id(shorten(text.split('/').next().unwrap_or(text)));
    let (id, behind) = text.split_at_checked(id_bytes(text)).ok_or_else(fault)?;
    let rest = if behind.is_empty() { None } else { Some(behind.strip_prefix('/').ok_or_else(fault)?) };
    if is_id(id) { Ok((id, rest)) } else { Err(fault()) }
}

/// The name of a node, split into its ids and borrowed from the text: the target of a Check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePath<'a> {
    /// The whole name.
    pub text: &'a str,
    /// The organization's id.
    pub organization: &'a str,
    /// The project's id; none for an organization.
    pub project: Option<&'a str>,
    /// The workspace's id, for a workspace and an endpoint.
    pub workspace: Option<&'a str>,
    /// The endpoint's id, for an endpoint.
    pub endpoint: Option<&'a str>,
}

/// The form that messages show for a node name.
const NODE_FORM: &str =
    "organizations/{organization}[/projects/{project}[/workspaces/{workspace}[/endpoints/{endpoint}]]]";

impl<'a> NodePath<'a> {
    /// Splits the name of an organization, project, workspace or endpoint.
    ///
    /// # Errors
    ///
    /// [`NameError`] says why the text is not such a name.
    pub fn parse(text: &'a str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty(NODE_FORM));
        }
        let form = || NameError::Form(shorten(text), NODE_FORM);
        let mut rest = Some(text);
        let mut level = |collection: &str| {
            let Some(text) = rest else { return Ok(None) };
            let (id, behind) = split_id(text.strip_prefix(collection).ok_or_else(form)?)?;
            rest = behind;
            Ok(Some(id))
        };
        let organization = level("organizations/")?.ok_or_else(form)?;
        let project = level("projects/")?;
        let workspace = level("workspaces/")?;
        let endpoint = level("endpoints/")?;
        match rest {
            None => Ok(Self { text, organization, project, workspace, endpoint }),
            Some(_) => Err(form()),
        }
    }

    /// The name of the node at a depth of this path: 0 for the organization, 1 for its project, and so on. Borrowed
    /// from the whole name.
    pub fn ancestor(&self, depth: usize) -> &'a str {
        let mut end = 0;
        for (count, segment) in self.text.split('/').enumerate() {
            if count >= 2 * (depth + 1) {
                break;
            }
            end += segment.len() + usize::from(count > 0);
        }
        self.text.get(..end).unwrap_or(self.text)
    }

    /// The part of the name below the organization, as [`NodeKey`] displays it; empty for the organization itself.
    pub fn key(&self) -> &'a str {
        self.text.get("organizations/".len() + self.organization.len() + 1..).unwrap_or("")
    }
}

/// The key of a node below an organization: a project, a workspace or an endpoint. In the order of keys, a node comes
/// directly before all nodes below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey {
    /// The project's id.
    pub project: Id,
    /// The workspace's id, for a workspace and an endpoint.
    pub workspace: Option<Id>,
    /// The endpoint's id, for an endpoint.
    pub endpoint: Option<Id>,
}

/// The kinds of nodes below an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeKind {
    /// Directly below an organization.
    Project,
    /// Below a project.
    Workspace,
    /// Below a workspace.
    Endpoint,
}

impl NodeKey {
    /// The key of a path; none for the organization itself.
    pub fn of(path: &NodePath<'_>) -> Option<Self> {
        let id = |text: &str| Id(text.into());
        path.project.map(|project| Self {
            project: id(project),
            workspace: path.workspace.map(id),
            endpoint: path.endpoint.map(id),
        })
    }

    /// The kind of the node.
    pub fn kind(&self) -> NodeKind {
        match (&self.workspace, &self.endpoint) {
            (None, _) => NodeKind::Project,
            (Some(_), None) => NodeKind::Workspace,
            (Some(_), Some(_)) => NodeKind::Endpoint,
        }
    }

    /// The key of the parent; none for a project, whose parent is the organization.
    pub fn parent(&self) -> Option<Self> {
        match self.kind() {
            NodeKind::Project => None,
            NodeKind::Workspace => Some(Self { project: self.project.clone(), workspace: None, endpoint: None }),
            NodeKind::Endpoint => Some(Self { endpoint: None, ..self.clone() }),
        }
    }

    /// The key of a child with the given id; none below an endpoint.
    pub fn child(&self, id: Id) -> Option<Self> {
        match self.kind() {
            NodeKind::Project => Some(Self { workspace: Some(id), ..self.clone() }),
            NodeKind::Workspace => Some(Self { endpoint: Some(id), ..self.clone() }),
            NodeKind::Endpoint => None,
        }
    }

    /// Whether `self` is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        self.project == ancestor.project
            && (ancestor.workspace.is_none() || self.workspace == ancestor.workspace)
            && (ancestor.endpoint.is_none() || self.endpoint == ancestor.endpoint)
    }
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}", self.project)?;
        if let Some(workspace) = &self.workspace {
            write!(f, "/workspaces/{workspace}")?;
        }
        if let Some(endpoint) = &self.endpoint {
            write!(f, "/endpoints/{endpoint}")?;
        }
        Ok(())
    }
}

/// The name of an organization, or of something in it. [`Display`](fmt::Display) writes it.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a, T> {
    organization: &'a str,
    /// The part between the two ids, with its slashes; empty for the organization itself.
    collection: &'static str,
    id: T,
}

impl<'a, T> Name<'a, T> {
    fn below(organization: &'a (impl AsRef<str> + ?Sized), collection: &'static str, id: T) -> Self {
        Self { organization: organization.as_ref(), collection, id }
    }

    /// The name of a rule.
    pub fn rule(organization: &'a (impl AsRef<str> + ?Sized), id: T) -> Self {
        Self::below(organization, "/rules/", id)
    }

    /// The name of an address group.
    pub fn group(organization: &'a (impl AsRef<str> + ?Sized), id: T) -> Self {
        Self::below(organization, "/addressGroups/", id)
    }

    /// The name of a policy test.
    pub fn policy_test(organization: &'a (impl AsRef<str> + ?Sized), id: T) -> Self {
        Self::below(organization, "/policyTests/", id)
    }

    /// The name of a revision.
    pub fn revision(organization: &'a (impl AsRef<str> + ?Sized), number: T) -> Self {
        Self::below(organization, "/revisions/", number)
    }

    /// The name of a session.
    pub fn session(organization: &'a (impl AsRef<str> + ?Sized), id: T) -> Self {
        Self::below(organization, "/sessions/", id)
    }

    /// The name of a node below an organization.
    pub fn node(organization: &'a (impl AsRef<str> + ?Sized), key: T) -> Self {
        Self::below(organization, "/", key)
    }
}

impl<'a> Name<'a, &'static str> {
    /// The name of an organization.
    pub fn organization(id: &'a (impl AsRef<str> + ?Sized)) -> Self {
        Self::below(id, "", "")
    }
}

impl<T: fmt::Display> fmt::Display for Name<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "organizations/{}{}{}", self.organization, self.collection, self.id)
    }
}

/// Splits `organizations/{organization}/{collection}/{id}` into the two ids. `form` is the form that messages show.
///
/// # Errors
///
/// [`NameError`] says why the text is not such a name.
pub fn parse_below_organization(text: &str, collection: &str, form: &'static str) -> Result<(Id, Id), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(form));
    }
    let mut segments = text.split('/');
    let parts = (segments.next(), segments.next(), segments.next(), segments.next(), segments.next());
    match parts {
        (Some("organizations"), Some(organization), Some(found), Some(id), None) if found == collection => {
            Ok((Id::parse(organization)?, Id::parse(id)?))
        }
        _ => Err(NameError::Form(shorten(text), form)),
    }
}

/// Keeps a message readable when the input is very long.
fn shorten(text: &str) -> String {
    const CHARACTERS_MAX: usize = 320;
    let mut shown: String = text.chars().take(CHARACTERS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
