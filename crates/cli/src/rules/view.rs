//! Rules as tables.
//!
//! Invariant: a row has what decides a check: position, action, source, types, and whether the rule is in force.
//! Not here: the JSON form (`portcullis-proto`).

use crate::{names, settings, table};
use portcullis_proto::v1;

/// Rules, one a line, and below them their problems.
pub(super) fn rules(list: &v1::ListRulesResponse) -> String {
    let headings = ["POSITION", "RULE", "ACTION", "SOURCE", "TYPES", "STATE", "MATCHES", "DESCRIPTION"];
    let row = |rule: &v1::Rule| {
        [
            rule.position.to_string(),
            names::id(&rule.name).to_owned(),
            action(rule),
            settings::rule_source(rule),
            settings::rule_types(rule),
            state(rule),
            rule.match_count.to_string(),
            rule.description.clone(),
        ]
    };
    table::grid(headings, list.rules.iter().map(row)) + &table::problems(&list.problems)
}

/// One rule with every field.
pub(super) fn rule(rule: &v1::Rule) -> String {
    table::record([
        ("name", rule.name.clone()),
        ("position", rule.position.to_string()),
        ("action", action(rule)),
        ("source", settings::rule_source(rule)),
        ("types", settings::rule_types(rule)),
        ("state", state(rule)),
        ("description", rule.description.clone()),
        ("created", table::time(rule.create_time.as_ref())),
        ("updated", table::time(rule.update_time.as_ref())),
        ("matches", rule.match_count.to_string()),
        ("counted since", table::time(rule.match_count_start_time.as_ref())),
        ("last match", table::time(rule.last_match_time.as_ref())),
        ("etag", rule.etag.clone()),
        ("revision", rule.revision.to_string()),
    ]) + &table::problems(&rule.problems)
}

pub(super) fn action(rule: &v1::Rule) -> String {
    table::word(rule.action().as_str_name(), "ACTION_")
}

/// Whether the rule is in force. Expiry goes by the clock of the server.
fn state(rule: &v1::Rule) -> String {
    let time = table::time(rule.expire_time.as_ref());
    match (rule.disabled, rule.expired, &rule.expire_time) {
        (true, _, None) => "disabled".to_owned(),
        (true, false, Some(_)) => format!("disabled, until {time}"),
        (true, true, Some(_)) => format!("disabled, expired {time}"),
        (false, _, None) => "enabled".to_owned(),
        (false, false, Some(_)) => format!("until {time}"),
        (false, true, Some(_)) => format!("expired {time}"),
    }
}
