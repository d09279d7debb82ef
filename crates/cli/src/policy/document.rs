//! The schema of a policy file, as Rust types.
//!
//! Invariant: an unknown key is refused, never ignored. A key that is left out has the default of a new object.
//! Not here: the meaning of the values, which the server checks.

use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use crate::words::{AccessMode, ConnectionType, Decision};

/// The whole file.
#[derive(Serialize, Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    /// The id of the organization. Absent: the one that the command names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) organization: Option<Spanned<String>>,
    /// The file has no ranges of address groups; applying it keeps the present ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) ranges_omitted: bool,
    /// The firewall, first rule first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rules: Option<Vec<Spanned<Rule>>>,
    /// The address groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<Spanned<Group>>,
    /// The organization itself and the nodes below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) nodes: Vec<Spanned<Node>>,
    /// The decisions that the policy must make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tests: Vec<Spanned<Test>>,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Spanned<String>>,
    pub(super) action: Decision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) range: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) types: Vec<ConnectionType>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) disabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<Spanned<String>>,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) id: Spanned<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ranges: Vec<Spanned<String>>,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    /// `organization`, or the name below it from `projects/` on.
    #[serde(rename = "node")]
    pub(super) name: Spanned<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) display_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) require_projects: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<AccessMode>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) entries: Vec<Spanned<Entry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gates: Option<Spanned<Gates>>,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) range: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Gates {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) guard_ips: Vec<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_revocations: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) refuse_open_to_internet: bool,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Spanned<String>>,
    pub(super) ip: Spanned<String>,
    #[serde(rename = "type")]
    pub(super) connection_type: ConnectionType,
    /// `organization`, or the name below it from `projects/` on.
    pub(super) endpoint: Spanned<String>,
    pub(super) expect: Decision,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
}

/// The name that stands for the organization itself among the nodes.
pub(super) const ORGANIZATION: &str = "organization";
