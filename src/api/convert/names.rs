//! Resource names in requests.
//!
//! Invariant: a name of another organization than the one that is changed is a fault.
//! Not here: whether what is named exists.

use tonic::Status;

use super::Faults;
use crate::api::status;
use crate::policy::name::{CLUSTER, Id, NameError, NodeKey, NodePath, parse_below_organization};
use crate::policy::rule::Source;

const ORGANIZATION_FORM: &str = "organizations/{organization}";
const RULE_FORM: &str = "organizations/{organization}/rules/{rule}";
const GROUP_FORM: &str = "organizations/{organization}/addressGroups/{address_group}";
const TEST_FORM: &str = "organizations/{organization}/policyTests/{policy_test}";
const REVISION_FORM: &str = "organizations/{organization}/revisions/{revision}";

/// What a node name names.
#[derive(Clone, Debug)]
pub(in crate::api) enum NodeName {
    /// The cluster.
    Cluster,
    /// An organization.
    Organization(Id),
    /// A node below one.
    Below(Id, NodeKey),
}

/// The id of an organization, from its name.
pub(in crate::api) fn organization(faults: &mut Faults, field: &str, text: &str) -> Option<Id> {
    faults.note(field, parse_organization(text))
}

/// The organization in `parent`, for a request without other fields to read.
pub(in crate::api) fn parent(text: &str) -> Result<Id, Status> {
    parse_organization(text).map_err(|error| status::invalid_field("parent", error.to_string()))
}

fn parse_organization(text: &str) -> Result<Id, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(ORGANIZATION_FORM));
    }
    let path = NodePath::parse(text).map_err(|error| match error {
        NameError::Form(text, _) => NameError::Form(text, ORGANIZATION_FORM),
        error => error,
    })?;
    if path.project.is_some() {
        return Err(NameError::Form(text.to_owned(), ORGANIZATION_FORM));
    }
    Id::parse(path.organization)
}

/// Organization and rule, from a rule's name.
pub(in crate::api) fn rule(text: &str) -> Result<(Id, Id), NameError> {
    parse_below_organization(text, "rules", RULE_FORM)
}

/// Organization and group, from a group's name.
pub(in crate::api) fn group(text: &str) -> Result<(Id, Id), NameError> {
    parse_below_organization(text, "addressGroups", GROUP_FORM)
}

/// Organization and policy test, from a test's name.
pub(in crate::api) fn policy_test(text: &str) -> Result<(Id, Id), NameError> {
    parse_below_organization(text, "policyTests", TEST_FORM)
}

/// Organization and number, from a revision's name, or what is wrong with the name.
pub(in crate::api) fn revision(text: &str) -> Result<(Id, u64), String> {
    let (organization, number) =
        parse_below_organization(text, "revisions", REVISION_FORM).map_err(|error| error.to_string())?;
    let parsed = number.as_str().parse().ok().filter(|revision| *revision > 0);
    let revision = parsed.ok_or_else(|| format!("`{number}` is no revision: its number comes last in the name"))?;
    Ok((organization, revision))
}

/// The rule that a name names. It must be of the given organization, if that could be read.
pub(in crate::api) fn rule_of(faults: &mut Faults, field: &str, organization: Option<&Id>, text: &str) -> Option<Id> {
    let fault = match (rule(text), organization) {
        (Ok((of, _)), Some(organization)) if of != *organization => {
            format!("`{text}` is not a rule of `organizations/{organization}`")
        }
        (Ok((_, id)), _) => return Some(id),
        (Err(error), _) => error.to_string(),
    };
    faults.add(field, fault);
    None
}

/// The group of a source. It must be of the organization that is changed, if that could be read.
pub(super) fn group_id(faults: &mut Faults, field: &str, organization: Option<&str>, text: &str) -> Option<Source> {
    let fault = match group(text) {
        Ok((of, id)) if organization.is_none_or(|organization| organization == of.as_str()) => {
            return Some(Source::Group(id));
        }
        Ok(_) => format!("`{text}` belongs to another organization: name a group of the same one"),
        Err(error) => error.to_string(),
    };
    faults.add(field, fault);
    None
}

/// A node's name, the cluster's included.
pub(in crate::api) fn node(text: &str) -> Result<NodeName, NameError> {
    if text == CLUSTER {
        return Ok(NodeName::Cluster);
    }
    let path = NodePath::parse(text)?;
    let organization = Id::parse(path.organization)?;
    Ok(match NodeKey::of(&path) {
        None => NodeName::Organization(organization),
        Some(key) => NodeName::Below(organization, key),
    })
}

/// The id that the caller chose; none where planning is to make one up, and for one with a fault, so that the rest of the
/// change can be judged.
pub(in crate::api) fn optional_id(faults: &mut Faults, field: &str, text: &str) -> Option<Id> {
    if text.is_empty() { None } else { faults.note(field, Id::parse(text)) }
}

/// An id that the caller must choose. One with a fault is replaced by a random one, so that the rest of the change can be
/// judged.
pub(in crate::api) fn chosen_id(faults: &mut Faults, field: &str, text: &str) -> Option<Id> {
    match Id::parse(text) {
        Ok(id) => Some(id),
        Err(_) if text.is_empty() => {
            faults.add(field, "is required: choose an id of 1 to 63 of `a-z`, `0-9` and `-`");
            random_id()
        }
        Err(error) => {
            faults.add(field, error.to_string());
            random_id()
        }
    }
}

/// A random id. `None` if the system gives no random numbers.
fn random_id() -> Option<Id> {
    let random = getrandom::u64().ok()?;
    Id::parse(&format!("unnamed-{random:016x}")).ok()
}
