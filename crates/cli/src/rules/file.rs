//! The rules that `portcullis rules replace` reads: of a policy file, or as `portcullis rules list` prints them.
//!
//! Invariant: all rules are deleted only by an empty list that is in the file, never by a file without one.
//! Not here: the two forms themselves, which `policy::read` and `portcullis-proto` read.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::UsageError;
use crate::names::OrganizationArgs;
use crate::policy::read::{self, ReadRules};
use portcullis_proto::{from_json, v1};

/// What tells printed rules from those of a policy file: the revision, and the full names of actions.
#[derive(Deserialize)]
struct Printed {
    rules: Vec<PrintedRule>,
    revision: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct PrintedRule {
    #[serde(default)]
    action: String,
}

/// Reads the rules in `text`, and the etag of the list that they were made from: empty if there is none.
pub(super) fn parse(file: &str, text: &str, names: &OrganizationArgs) -> Result<(ReadRules, String), UsageError> {
    let Some(printed) = printed(text) else {
        return Ok((read::rules(file, text, names)?, String::new()));
    };
    let mut list: v1::ListRulesResponse =
        from_json(&printed).map_err(|error| UsageError(format!("{file}: {error}")))?;
    for rule in &mut list.rules {
        if !rule.name.is_empty() {
            rule.name = names.rule(&rule.name);
        }
        if let Some(v1::rule::Source::AddressGroup(group)) = &mut rule.source {
            *group = names.group(group);
        }
    }
    Ok((ReadRules { rules: list.rules, ..ReadRules::default() }, list.etag))
}

/// The text as the JSON of a `ListRulesResponse`, if it is that or the list in it; none if it is a policy file.
fn printed(text: &str) -> Option<String> {
    let is_list = text.trim_start().starts_with('[');
    let text = if is_list { format!("{{\"rules\":{text}}}") } else { text.to_owned() };
    let Printed { rules, revision } = serde_json::from_str(&text).ok()?;
    (revision.is_some() || rules.iter().any(|rule| rule.action.starts_with("ACTION_"))).then_some(text)
}
