//! The rules that `portcullis rules replace` reads: JSON, as `portcullis rules list --output json` prints it.
//!
//! Invariant: a field that this program does not know is refused, never dropped; fields that only the server sets are
//! read over.
//! Not here: whether the rules are valid: the server judges them, and names them by their index.

use anyhow::Context;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::cli::names::{OrganizationArgs, below, group_beside};
use crate::cli::ranges_file::read_text;
use crate::cli::times::parse_time;
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

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::cli::json::{self, Json};

    /// The hazard: list, edit, replace loses what nobody touched.
    #[test]
    fn what_list_prints_is_what_replace_reads() -> anyhow::Result<()> {
        let settable = v1::Rule {
            name: "organizations/acme/rules/office".to_owned(),
            action: v1::Action::Deny.into(),
            source: Some(v1::rule::Source::AddressGroup("organizations/acme/addressGroups/office".to_owned())),
            connection_types: vec![v1::ConnectionType::Shell.into(), v1::ConnectionType::Preview.into()],
            description: "the \"office\"".to_owned(),
            disabled: true,
            expire_time: Some(Timestamp { seconds: 1_900_000_000, nanos: 123_000_000 }),
            ..v1::Rule::default()
        };
        let listed = v1::Rule {
            position: 1,
            create_time: Some(Timestamp::default()),
            update_time: Some(Timestamp::default()),
            etag: "rule-1".to_owned(),
            match_count: 1,
            match_count_start_time: Some(Timestamp::default()),
            last_match_time: Some(Timestamp { seconds: 1, nanos: 1_000 }),
            revision: 9,
            ..settable.clone()
        };
        let list =
            Json::object().items("rules", vec![json::rule(&listed)]).text("etag", "rules-1").int64("revision", 9);
        let text = serde_json::to_string(&Json::from(list))?;
        let file = parse(&text, "organizations/acme")?;
        assert_eq!((file.rules, file.etag.as_str()), (vec![settable], "rules-1"));
        Ok(())
    }

    #[test]
    fn list_of_rules_with_short_names_is_read() -> anyhow::Result<()> {
        let text =
            r#"[{"name": "a", "action": "deny", "addressGroup": "g"}, {"action": "ACTION_ALLOW", "range": "any"}]"#;
        let file = parse(text, "organizations/acme")?;
        let names: Vec<_> = file.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["organizations/acme/rules/a", ""]);
        let group = "organizations/acme/addressGroups/g".to_owned();
        let source = file.rules.into_iter().next().and_then(|rule| rule.source);
        assert_eq!(source, Some(v1::rule::Source::AddressGroup(group)));
        Ok(())
    }

    /// The hazard: a mistyped `disabled` puts a rule in force, a missing action takes a default.
    #[test]
    fn what_is_not_understood_is_refused() {
        for rule in [
            r#"{"action": "deny", "range": "any", "disable": true}"#,
            r#"{"range": "any"}"#,
            r#"{"action": "ACTION_UNSPECIFIED", "range": "any"}"#,
            r#"{"action": "deny", "range": "any", "connectionTypes": ["telnet"]}"#,
            r#"{"action": "deny", "range": "any", "addressGroup": "g"}"#,
            r#"{"action": "deny", "range": "any", "expireTime": "tomorrow"}"#,
        ] {
            assert!(parse(&format!("[{rule}]"), "organizations/acme").is_err(), "{rule}");
        }
    }
}
