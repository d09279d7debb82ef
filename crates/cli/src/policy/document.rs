//! The form in which a policy file is written.
//!
//! Invariant: all sections are written, so that applying the file gives the whole policy. A key that is left out has the
//! default of a new object.
//! Not here: reading a file, which follows `schema`.

use serde::Serialize;

use crate::words::{AccessMode, ConnectionType, Decision};

/// The whole file.
#[derive(Serialize, Debug)]
pub(super) struct Document {
    /// The id of the organization.
    pub(super) organization: String,
    /// The file has no ranges of address groups; applying it keeps the present ones.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) ranges_omitted: bool,
    /// The firewall, first rule first.
    pub(super) rules: Vec<Rule>,
    /// The address groups.
    pub(super) groups: Vec<Group>,
    /// The organization itself and the nodes below it.
    pub(super) nodes: Vec<Node>,
    /// The decisions that the policy must make.
    pub(super) tests: Vec<Test>,
}

#[derive(Serialize, Debug)]
pub(super) struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    pub(super) action: Decision,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) types: Vec<ConnectionType>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<String>,
}

#[derive(Serialize, Debug)]
pub(super) struct Group {
    pub(super) id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    /// Absent where the file leaves the ranges out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ranges: Option<Vec<String>>,
}

#[derive(Serialize, Debug)]
pub(super) struct Node {
    /// `organization`, or the name below it from `projects/` on.
    #[serde(rename = "node")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) require_projects: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<AccessMode>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) entries: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gates: Option<Gates>,
}

#[derive(Serialize, Debug)]
pub(super) struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
}

#[derive(Serialize, Debug)]
pub(super) struct Gates {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) guard_ips: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_revocations: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) refuse_open_to_internet: bool,
}

#[derive(Serialize, Debug)]
pub(super) struct Test {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    pub(super) ip: String,
    #[serde(rename = "type")]
    pub(super) connection_type: ConnectionType,
    /// `organization`, or the name below it from `projects/` on.
    pub(super) endpoint: String,
    pub(super) expect: Decision,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<String>,
}
