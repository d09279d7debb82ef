//! Nodes and their access as tables.
//!
//! Invariant: an empty allowlist is shown as one that permits nobody, never left out.
//! Not here: the JSON form (`portcullis-proto`).

use crate::{settings, table};
use portcullis_proto::v1;

/// The most ranges that a table shows; JSON has all.
const RANGES_SHOWN: usize = 100;

/// Nodes, one a line, and below them their problems.
pub(super) fn nodes(list: &v1::ListNodesResponse) -> String {
    let row = |node: &v1::Node| {
        let entry_count = node.access.as_ref().map_or(0, |access| access.entries.len());
        [node.name.clone(), own_mode(node), entry_count.to_string(), node.display_name.clone()]
    };
    table::grid(["NODE", "ACCESS", "ENTRIES", "DISPLAY NAME"], list.nodes.iter().map(row))
        + &table::problems(&list.problems)
}

/// One node with every field.
pub(super) fn node(node: &v1::Node) -> String {
    let record = table::record([
        ("name", node.name.clone()),
        ("display name", node.display_name.clone()),
        ("require projects", if node.require_projects() { "true".to_owned() } else { String::new() }),
        ("access", own_mode(node)),
        ("gates", settings::gates(node.change_gates.as_ref())),
        ("waits for confirmation", pending(node.pending_revision.as_ref())),
        ("created", table::time(node.create_time.as_ref())),
        ("updated", table::time(node.update_time.as_ref())),
        ("etag", node.etag.clone()),
        ("revision", node.revision.to_string()),
    ]);
    match &node.access {
        Some(access) if access.mode() == v1::AccessMode::AllowList => record + &entries("entries", &access.entries),
        _ => record,
    }
}

fn pending(pending: Option<&v1::PendingRevision>) -> String {
    let shown = |pending: &v1::PendingRevision| {
        format!("revision {}, else undone at {}", pending.revision, table::time(pending.revert_time.as_ref()))
    };
    pending.map(shown).unwrap_or_default()
}

/// The effective access of a node, and the ranges it permits.
pub(super) fn effective_access(access: &v1::EffectiveAccess) -> String {
    let mut text = table::record([
        ("name", access.name.clone()),
        ("access", mode(access.mode())),
        ("set by", access.source.clone()),
    ]);
    if access.mode() == v1::AccessMode::AllowList {
        text += &entries("entries", &access.entries);
    }
    if !access.organization_entries.is_empty() {
        text += &entries("entries of the organization", &access.organization_entries);
    }
    if !access.cluster_entries.is_empty() {
        text += &entries("entries of the cluster", &access.cluster_entries);
    }
    for permitted in &access.permitted_ranges {
        text += &ranges(&permitted.ranges, &table::connection_type(permitted.connection_type));
    }
    if access.truncated {
        text += "\nthese are not all permitted ranges: list them with `portcullis nodes permitted`\n";
    }
    text + &table::problems(&access.problems)
}

fn ranges(ranges: &[String], connection_type: &str) -> String {
    let count = match ranges.len() {
        0 => return format!("\npermitted for {connection_type}: nobody\n"),
        1 => "1 range".to_owned(),
        count => format!("{count} ranges"),
    };
    let shown = table::lines(ranges.get(..RANGES_SHOWN).unwrap_or(ranges));
    let rest = match ranges.len().saturating_sub(RANGES_SHOWN) {
        0 => String::new(),
        rest => format!("and {rest} more: list them with `portcullis nodes permitted`\n"),
    };
    format!("\npermitted for {connection_type}: {count}\n{shown}{rest}")
}

fn entries(heading: &str, entries: &[v1::AccessEntry]) -> String {
    if entries.is_empty() {
        return format!("\n{heading}: none, so nobody is permitted\n");
    }
    let row = |entry: &v1::AccessEntry| [settings::entry_source(entry), entry.description.clone()];
    format!("\n{heading}:\n{}", table::grid(["SOURCE", "DESCRIPTION"], entries.iter().map(row)))
}

fn own_mode(node: &v1::Node) -> String {
    node.access.as_ref().map(|access| mode(access.mode())).unwrap_or_default()
}

fn mode(mode: v1::AccessMode) -> String {
    table::word(mode.as_str_name(), "ACCESS_MODE_")
}
