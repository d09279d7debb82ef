//! The rules that `portcullis rules replace` reads: JSON, as `portcullis rules list --output json` prints it.
//!
//! Invariant: a field that this program does not know is refused, never dropped; fields that only the server sets are
//! read over.
//! Not here: whether the rules are valid: the server judges them, and names them by their index.

use anyhow::Context;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::args::parse_time;
use crate::cli::names::{OrganizationArgs, below, group_beside};
use crate::cli::ranges_file::read_text;
use crate::proto::v1;

/// What a file holds.
#[derive(Debug)]
pub(super) struct RulesFile {
    /// The rules, in their order.
    pub(super) rules: Vec<v1::Rule>,
    /// The etag of the list that the file was made from. Empty where it has none.
    pub(super) etag: String,
}

/// What may stand in a file: the answer of a list, or only the rules in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    rules: Vec<Rule>,
    #[serde(default)]
    etag: String,
    #[serde(default, rename = "revision")]
    _revision: IgnoredAny,
    #[serde(default, rename = "problems")]
    _problems: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    action: Action,
    range: Option<String>,
    address_group: Option<String>,
    #[serde(default)]
    connection_types: Vec<ConnectionType>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    disabled: bool,
    expire_time: Option<String>,
    #[serde(default, rename = "position")]
    _position: IgnoredAny,
    #[serde(default, rename = "createTime")]
    _create_time: IgnoredAny,
    #[serde(default, rename = "updateTime")]
    _update_time: IgnoredAny,
    #[serde(default, rename = "etag")]
    _etag: IgnoredAny,
    #[serde(default, rename = "matchCount")]
    _match_count: IgnoredAny,
    #[serde(default, rename = "matchCountStartTime")]
    _match_count_start_time: IgnoredAny,
    #[serde(default, rename = "lastMatchTime")]
    _last_match_time: IgnoredAny,
    #[serde(default, rename = "revision")]
    _revision: IgnoredAny,
}

#[derive(Deserialize)]
enum Action {
    #[serde(rename = "ACTION_ALLOW", alias = "allow")]
    Allow,
    #[serde(rename = "ACTION_DENY", alias = "deny")]
    Deny,
}

#[derive(Deserialize)]
enum ConnectionType {
    #[serde(rename = "CONNECTION_TYPE_SHELL", alias = "shell")]
    Shell,
    #[serde(rename = "CONNECTION_TYPE_PREVIEW", alias = "preview")]
    Preview,
}

/// Reads a file, `-` being the standard input.
pub(super) fn read(file: &str, names: &OrganizationArgs) -> anyhow::Result<RulesFile> {
    let text = read_text(file)?;
    parse(&text, &names.name()).with_context(|| format!("cannot use the rules of `{file}`"))
}

fn parse(text: &str, organization: &str) -> anyhow::Result<RulesFile> {
    let list = if text.trim_start().starts_with('[') {
        List { rules: serde_json::from_str(text)?, etag: String::new(), _revision: IgnoredAny, _problems: IgnoredAny }
    } else {
        serde_json::from_str(text)?
    };
    let rules = list
        .rules
        .into_iter()
        .enumerate()
        .map(|(index, rule)| rule.into_proto(organization).with_context(|| format!("rules[{index}]")));
    Ok(RulesFile { rules: rules.collect::<anyhow::Result<_>>()?, etag: list.etag })
}

impl Rule {
    fn into_proto(self, organization: &str) -> anyhow::Result<v1::Rule> {
        let source = match (self.range, self.address_group) {
            (Some(_), Some(_)) => anyhow::bail!("has both `range` and `addressGroup`, leave one of them out"),
            (Some(range), None) => Some(v1::rule::Source::Range(range)),
            (None, group) => group.map(|group| v1::rule::Source::AddressGroup(group_beside(organization, &group))),
        };
        let expire_time = self.expire_time.map(|text| {
            parse_time(&text).map_err(|advice| anyhow::anyhow!("expireTime: `{text}` is not a time: {advice}"))
        });
        let name = if self.name.is_empty() { self.name } else { below(organization, "rules", &self.name) };
        Ok(v1::Rule {
            name,
            action: match self.action {
                Action::Allow => v1::Action::Allow.into(),
                Action::Deny => v1::Action::Deny.into(),
            },
            source,
            connection_types: self.connection_types.into_iter().map(Into::into).collect(),
            description: self.description,
            disabled: self.disabled,
            expire_time: expire_time.transpose()?,
            ..v1::Rule::default()
        })
    }
}

impl From<ConnectionType> for i32 {
    fn from(connection_type: ConnectionType) -> Self {
        match connection_type {
            ConnectionType::Shell => v1::ConnectionType::Shell.into(),
            ConnectionType::Preview => v1::ConnectionType::Preview.into(),
        }
    }
}
