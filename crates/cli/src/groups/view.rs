//! Address groups as tables.
//!
//! Invariant: a group never shows its ranges here, however few: `portcullis groups ranges` does.
//! Not here: the JSON form (`portcullis-proto`).

use crate::{names, table};
use portcullis_proto::v1;

/// The most ranges without effect that a table names.
const RANGES_SHOWN: usize = 20;

/// Address groups, one a line, and below them their problems.
pub(super) fn groups(list: &v1::ListAddressGroupsResponse) -> String {
    let row = |group: &v1::AddressGroup| {
        [
            names::id(&group.name).to_owned(),
            group.range_count.to_string(),
            table::time(group.update_time.as_ref()),
            group.description.clone(),
        ]
    };
    let headings = ["GROUP", "RANGES", "UPDATED", "DESCRIPTION"];
    table::grid(headings, list.address_groups.iter().map(row)) + &table::problems(&list.problems)
}

/// One address group with every field.
pub(super) fn group(group: &v1::AddressGroup) -> String {
    table::record([
        ("name", group.name.clone()),
        ("ranges", group.range_count.to_string()),
        ("description", group.description.clone()),
        ("created", table::time(group.create_time.as_ref())),
        ("updated", table::time(group.update_time.as_ref())),
        ("etag", group.etag.clone()),
        ("revision", group.revision.to_string()),
    ])
}

/// What adding or removing ranges did, or would do where it was not made.
pub(super) fn patched(patched: &v1::PatchRangesResponse, adds: bool, is_made: bool) -> String {
    let v1::PatchRangesResponse {
        address_group,
        added_count,
        removed_count,
        present_count,
        absent_count,
        absent_ranges,
        still_covered_count,
        still_covered_ranges,
    } = patched;
    let record = group(address_group.as_ref().unwrap_or(&v1::AddressGroup::default()));
    let would = if is_made { "" } else { "would be " };
    let (did, rest) = if adds {
        (format!("{} {would}added", ranges(*added_count)), and_were(*present_count, "in the group already"))
    } else {
        (format!("{} {would}removed", ranges(*removed_count)), and_were(*absent_count, "not in the group"))
    };
    let absent = listed("not in the group", absent_ranges, *absent_count);
    let covered = listed("still covered", still_covered_ranges, *still_covered_count);
    format!("{record}\n{did}{rest}\n{absent}{covered}")
}

/// Ranges that were to be removed, one a line, and how many more there are.
fn listed(what: &str, removals: &[v1::RangeToRemove], count: i64) -> String {
    let line = |removal: &v1::RangeToRemove| {
        let by = table::some_of(&removal.covering_ranges, removal.covering_count);
        let stay = match removal.covering_count {
            0 => String::new(),
            _ if removal.partly => format!(", some of its addresses stay in the group by {by}"),
            _ => format!(", its addresses stay in the group by {by}"),
        };
        table::clean(&format!("{what}: {}{stay}", removal.range)) + "\n"
    };
    let lines: String = removals.iter().take(RANGES_SHOWN).map(line).collect();
    let shown = i64::try_from(removals.len().min(RANGES_SHOWN)).unwrap_or(i64::MAX);
    match count.saturating_sub(shown) {
        more if more > 0 => format!("{lines}{what}: {more} more\n"),
        _ => lines,
    }
}

fn ranges(count: i64) -> String {
    if count == 1 { "1 range".to_owned() } else { format!("{count} ranges") }
}

/// How many of what was given had no effect; empty if all had one.
fn and_were(count: i64, what: &str) -> String {
    match count {
        0 => String::new(),
        1 => format!(", 1 was {what}"),
        count => format!(", {count} were {what}"),
    }
}
