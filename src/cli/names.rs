//! Resource names from what was typed: full names as they are, ids below an organization.
//!
//! Invariant: a text with a `/` that is no short form goes to the server unaltered, so that its message shows what was
//! typed.
//! Not here: whether a name is well-formed or exists: the server says so.

use clap::Args;

use super::error::UsageError;
use crate::policy::name::{CLUSTER, NodePath};

/// The organization that ids belong to.
#[derive(Args, Debug)]
pub(super) struct OrganizationArgs {
    /// The organization that ids belong to; a full name (`organizations/…`) says its own [default: default]
    #[arg(long, global = true, value_name = "ID")]
    organization: Option<String>,
}

/// The organization that a fresh server has.
const DEFAULT_ORGANIZATION: &str = "default";

impl OrganizationArgs {
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

    /// The full name of a node: `cluster`, an organization's id, `projects/…` of the organization, or a full name.
    pub(super) fn node(&self, given: &str) -> String {
        match given {
            CLUSTER => CLUSTER.to_owned(),
            _ if given.starts_with("projects/") => format!("{}/{given}", self.name()),
            _ => organization(given),
        }
    }
}

/// The full name of an organization.
fn organization(given: &str) -> String {
    if given.contains('/') { given.to_owned() } else { format!("organizations/{given}") }
}

/// The full name of what is directly below an organization.
pub(super) fn below(organization: &str, collection: &str, given: &str) -> String {
    if given.contains('/') { given.to_owned() } else { format!("{organization}/{collection}/{given}") }
}

/// The full name of an address group that is named beside a resource of the same organization.
pub(super) fn group_beside(resource: &str, given: &str) -> String {
    below(&organization_of(resource), "addressGroups", given)
}

/// The organization that a full name belongs to.
fn organization_of(name: &str) -> String {
    name.split('/').take(2).collect::<Vec<_>>().join("/")
}

/// The parent and the id of a node that is to be created; an organization has the empty parent.
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
