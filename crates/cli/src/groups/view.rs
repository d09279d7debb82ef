//! Address groups as tables.
//!
//! Invariant: a group never shows its ranges here, however few: `portcullis groups ranges` does.
//! Not here: the JSON form (`portcullis-proto`).

use crate::{names, table};
use portcullis_proto::v1;

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
