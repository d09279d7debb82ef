//! Settings of rules and nodes in words.
//!
//! Invariant: the words are those that the flags take, so that what is shown can be typed.
//! Not here: which settings a command shows, and where.

use super::difference::Told;
use super::names::id;
use super::table::{self, clean};
use portcullis_proto::v1;

/// Which addresses a rule is about: a range, or a group by its id.
pub(super) fn rule_source(rule: &v1::Rule) -> String {
    match &rule.source {
        Some(v1::rule::Source::Range(range)) => range.clone(),
        Some(v1::rule::Source::AddressGroup(group)) => format!("group {}", id(group)),
        None => String::new(),
    }
}

/// The connection types of a rule in words.
pub(super) fn rule_types(rule: &v1::Rule) -> String {
    if rule.connection_types.is_empty() {
        return "all".to_owned();
    }
    rule.connection_types.iter().map(|number| table::connection_type(*number)).collect::<Vec<_>>().join(", ")
}

/// The gates in words; empty if there are none.
pub(super) fn gates(gates: Option<&v1::ChangeGates>) -> String {
    let Some(v1::ChangeGates { guard_ips, max_revocations, refuse_open_to_internet }) = gates else {
        return String::new();
    };
    let guarded = (!guard_ips.is_empty()).then(|| format!("guards {}", guard_ips.join(" ")));
    let revoked = max_revocations.map(|max| format!("revokes at most {max}"));
    let open = refuse_open_to_internet.then(|| "opens nothing to the internet".to_owned());
    guarded.into_iter().chain(revoked).chain(open).collect::<Vec<_>>().join(", ")
}

/// Which gates a node has, or would have, after a change.
pub(super) fn gates_told(node: &v1::Node, told: Told) -> String {
    let gates = match gates(node.change_gates.as_ref()) {
        empty if empty.is_empty() => "none".to_owned(),
        words => words,
    };
    let are = match told {
        Told::Is => "are now",
        Told::Would => "would be",
    };
    format!("note: the gates of {} {are}: {}", clean(&node.name), clean(&gates))
}

/// What an entry permits: a range, or a group by its id.
pub(super) fn entry_source(entry: &v1::AccessEntry) -> String {
    match &entry.source {
        Some(v1::access_entry::Source::Range(range)) => range.clone(),
        Some(v1::access_entry::Source::AddressGroup(group)) => format!("group {}", id(group)),
        None => String::new(),
    }
}
