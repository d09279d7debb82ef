//! Resource names from what was typed: full names as they are, ids below an organization.
//!
//! Invariant: a text with a `/` that is not a short form goes to the server unchanged, so that an error shows what was
//! typed. An id alone stands for a node only where one kind of node is possible.
//! Not here: whether a name is well-formed or exists, which the server checks.

use clap::Args;

use super::error::UsageError;
use super::table::clean;
use portcullis_policy::name::{CLUSTER, NodePath};

/// The organization that ids belong to.
#[derive(Args, Debug)]
pub(super) struct OrganizationArgs {
    /// The organization that ids belong to; a full name (`organizations/…`) has its own [default: default]
    #[arg(long, global = true, value_name = "ID")]
    organization: Option<String>,
}

/// Whose sessions or records are asked for.
#[derive(Args, Debug)]
pub(super) struct ParentArgs {
    /// Whose to show: an organization, a node inside one, or `cluster` for all [default: the organization that
    /// `--organization` names]
    #[arg(value_name = "PARENT")]
    parent: Option<String>,
    #[command(flatten)]
    organization: OrganizationArgs,
}

/// The word of policy files for the organization itself.
const ORGANIZATION: &str = "organization";

/// The organization that a fresh server has.
const DEFAULT_ORGANIZATION: &str = "default";

impl OrganizationArgs {
    /// The organization as it was typed, or not.
    pub(super) fn of(organization: Option<String>) -> Self {
        Self { organization }
    }

    /// The full name of the organization.
    pub(super) fn name(&self) -> String {
        self.given().unwrap_or_else(|| organization(DEFAULT_ORGANIZATION))
    }

    /// The full name of the organization, where one was typed.
    pub(super) fn given(&self) -> Option<String> {
        self.organization.as_deref().map(organization)
    }

    /// The full name of a rule.
    pub(super) fn rule(&self, given: &str) -> String {
        below(&self.name(), "rules", given)
    }

    /// The full name of an address group.
    pub(super) fn group(&self, given: &str) -> String {
        below(&self.name(), "addressGroups", given)
    }

    /// The full name of a policy test.
    pub(super) fn test(&self, given: &str) -> String {
        below(&self.name(), "policyTests", given)
    }

    /// The full name of a revision.
    pub(super) fn revision(&self, given: &str) -> String {
        below(&self.name(), "revisions", given)
    }

    /// The full name of a session.
    pub(super) fn session(&self, given: &str) -> String {
        below(&self.name(), "sessions", given)
    }

    /// The full name of a node: `cluster`, `projects/…` of the organization, or a full name. An id alone is the
    /// organization itself where it has that id; any other could be a project as well, and is refused.
    pub(super) fn node(&self, given: &str) -> Result<String, UsageError> {
        let own = self.name();
        match given {
            CLUSTER => Ok(CLUSTER.to_owned()),
            _ if given.starts_with("projects/") => Ok(format!("{own}/{given}")),
            _ if given.contains('/') => Ok(given.to_owned()),
            _ if organization(given) == own => Ok(own),
            ORGANIZATION => {
                Err(UsageError(format!("`{ORGANIZATION}` is the word of policy files: write `{}`", clean(&own))))
            }
            _ => Err(UsageError(format!(
                "`{0}` can be a project or an organization: write `projects/{0}` or `organizations/{0}`",
                clean(given)
            ))),
        }
    }

    /// The full name of the node of a connection: as `node`, and `organization` as in a policy file.
    pub(super) fn endpoint(&self, given: &str) -> Result<String, UsageError> {
        if given == ORGANIZATION { Ok(self.name()) } else { self.node(given) }
    }

    /// The full name of what has records and sessions: `cluster`, or an organization by its id or full name.
    pub(super) fn parent(&self, given: &str) -> String {
        match given {
            CLUSTER => CLUSTER.to_owned(),
            _ if given.starts_with("projects/") => format!("{}/{given}", self.name()),
            _ => organization(given),
        }
    }
}

impl ParentArgs {
    /// Whose records are asked for. A node inside an organization is that organization, seen at this node.
    pub(super) fn parent(&self) -> Result<Parent, UsageError> {
        let given = self.parent.as_deref();
        let Some(given) = given.filter(|given| given.starts_with("projects/") || given.matches('/').count() > 1) else {
            let name = given.map_or_else(|| self.organization.name(), |given| self.organization.parent(given));
            return Ok(Parent { name, node: None });
        };
        let node = self.organization.node(given)?;
        NodePath::parse(&node).map_err(|error| UsageError(format!("PARENT: {error}")))?;
        Ok(Parent { name: organization_of(&node), node: Some(node) })
    }

    /// The full name of the parent, for what only organizations and the cluster have.
    pub(super) fn whole(&self, what: &str) -> Result<String, UsageError> {
        match self.parent()? {
            Parent { name, node: None } => Ok(name),
            Parent { name, node: Some(node) } => Err(UsageError(format!(
                "PARENT: `{}` is inside an organization, and {what} of an organization or of `cluster` only: write `{}`",
                clean(&node),
                clean(id(&name))
            ))),
        }
    }

    /// The organization that ids belong to: the one that was given, otherwise the parent if it is one.
    pub(super) fn names(&self) -> OrganizationArgs {
        let given = self.organization.organization.clone();
        let parent = || self.parent().ok().map(|parent| parent.name).filter(|parent| parent != CLUSTER);
        OrganizationArgs { organization: given.or_else(parent) }
    }
}

/// Whose sessions or records are asked for.
pub(super) struct Parent {
    /// The full name of an organization, or `cluster`.
    pub(super) name: String,
    /// The node inside the organization to which they are limited.
    pub(super) node: Option<String>,
}

/// The full name of an organization.
pub(super) fn organization(given: &str) -> String {
    if given.contains('/') { given.to_owned() } else { format!("organizations/{given}") }
}

/// The full name of what is directly below an organization.
fn below(organization: &str, collection: &str, given: &str) -> String {
    if given.contains('/') { given.to_owned() } else { format!("{organization}/{collection}/{given}") }
}

/// The full name of an address group that is named beside a resource of the same organization.
pub(super) fn group_beside(resource: &str, given: &str) -> String {
    below(&organization_of(resource), "addressGroups", given)
}

/// The organization that a full name belongs to.
pub(super) fn organization_of(name: &str) -> String {
    name.split('/').take(2).collect::<Vec<_>>().join("/")
}

/// The parent and the id of a node to create. The parent of an organization is empty.
pub(super) fn split_node(name: &str) -> Result<(&str, &str), UsageError> {
    if name == CLUSTER {
        return Err(UsageError("`cluster` always exists: change it with `portcullis nodes update cluster`".to_owned()));
    }
    let path = NodePath::parse(name).map_err(|error| UsageError(format!("NAME {error}")))?;
    let below_organizations = path.project.and_then(|_| path.text.rsplit_once('/'));
    let (parent, id) = match below_organizations {
        Some((rest, id)) => (rest.rsplit_once('/').map_or("", |(parent, _collection)| parent), id),
        None => ("", path.organization),
    };
    Ok((parent, id))
}

/// The last part of a name: the id.
pub(super) fn id(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_a_full_name() {
        let names = OrganizationArgs { organization: Some("acme".to_owned()) };
        assert_eq!(names.rule("office"), "organizations/acme/rules/office");
        assert_eq!(names.rule("organizations/other/rules/office"), "organizations/other/rules/office");
        assert_eq!(names.parent("other"), "organizations/other");
        assert_eq!(OrganizationArgs { organization: None }.name(), "organizations/default");
        let full = OrganizationArgs { organization: Some("organizations/acme".to_owned()) };
        assert_eq!(full.group("office"), "organizations/acme/addressGroups/office");
    }

    /// The hazard: the id of a project is taken for an organization, which is then created, deleted or asked about.
    #[test]
    fn id_alone_is_no_node_unless_it_is_the_organization() {
        let names = OrganizationArgs { organization: Some("acme".to_owned()) };
        let node = |given: &str| names.node(given).map_err(|error| error.to_string());
        for (given, expected) in [
            ("cluster", "cluster"),
            ("acme", "organizations/acme"),
            ("organizations/web", "organizations/web"),
            ("projects/web/workspaces/dev", "organizations/acme/projects/web/workspaces/dev"),
        ] {
            assert_eq!(node(given).as_deref(), Ok(expected));
        }
        let refused = node("web").unwrap_err();
        assert!(refused.contains("`projects/web` or `organizations/web`"), "{refused}");
    }

    /// The hazard: a filter by a rule of another organization, which matches nothing, so that the log looks quiet.
    #[test]
    fn ids_beside_a_parent_belong_to_it_unless_another_organization_is_given() {
        let parent = |parent: &str, organization: Option<&str>| ParentArgs {
            parent: Some(parent.to_owned()),
            organization: OrganizationArgs { organization: organization.map(str::to_owned) },
        };
        let whole = |of: ParentArgs| of.whole("").unwrap();
        assert_eq!(whole(parent("acme", None)), "organizations/acme");
        assert_eq!(parent("acme", None).names().rule("office"), "organizations/acme/rules/office");
        assert_eq!(whole(parent("cluster", None)), "cluster");
        let inside = parent("organizations/acme/projects/web", None);
        assert_eq!(inside.parent().unwrap().name, "organizations/acme");
        assert_eq!(inside.parent().unwrap().node.as_deref(), Some("organizations/acme/projects/web"));
        assert_eq!(inside.names().rule("office"), "organizations/acme/rules/office");
        assert!(inside.whole("x").is_err() && parent("organizations/acme/rules/a", None).parent().is_err());
        assert_eq!(parent("cluster", Some("acme")).names().rule("office"), "organizations/acme/rules/office");
        let given =
            ParentArgs { parent: None, organization: OrganizationArgs { organization: Some("acme".to_owned()) } };
        assert_eq!(whole(given), "organizations/acme");
    }

    /// The hazard: a group of the same id in another organization.
    #[test]
    fn group_is_of_the_organization_of_the_resource_beside_it() {
        assert_eq!(group_beside("organizations/a/rules/r", "office"), "organizations/a/addressGroups/office");
    }

    /// The hazard: a mistyped collection creates another kind of node.
    #[test]
    fn node_is_created_below_the_parent_that_its_name_says() {
        assert_eq!(split_node("organizations/a").ok(), Some(("", "a")));
        assert_eq!(split_node("organizations/a/projects/b").ok(), Some(("organizations/a", "b")));
        let endpoint = "organizations/a/projects/b/workspaces/c/endpoints/d";
        assert_eq!(split_node(endpoint).ok(), Some(("organizations/a/projects/b/workspaces/c", "d")));
        for wrong in
            ["cluster", "organizations/a/workspaces/c", "organizations/a/rules/b", "organizations/a/projects", ""]
        {
            assert!(split_node(wrong).is_err(), "{wrong}");
        }
    }
}
