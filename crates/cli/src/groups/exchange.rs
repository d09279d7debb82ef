//! How many ranges a replacement adds to a group, and how many it drops.
//!
//! Invariant: ranges are compared as the server keeps them, not as they were typed.
//! Not here: replacing them.

use std::collections::HashSet;

use portcullis_policy::address::Range;
use portcullis_proto::v1;

use crate::change::ChangeArgs;
use crate::context::Context;
use crate::pages;

/// The most ranges that are read to be compared.
const RANGES_MAX: i64 = 200_000;

/// The ranges of a group before they are replaced.
pub(super) struct Before {
    count: i64,
    /// None where they are too many.
    ranges: Option<Vec<String>>,
}

/// The present ranges of a group; none where they cannot be read.
pub(super) async fn before(name: &str, context: &Context<'_>) -> Option<Before> {
    let mut client = context.client.firewall();
    let group = client.get_address_group(v1::GetAddressGroupRequest { name: name.to_owned() }).await.ok()?;
    let count = group.into_inner().range_count;
    if count > RANGES_MAX {
        return Some(Before { count, ranges: None });
    }
    let ranges = pages::all(async |page_size, page_token| {
        client.list_ranges(v1::ListRangesRequest { name: name.to_owned(), page_size, page_token }).await
    });
    ranges.await.ok().map(|list| Before { count, ranges: Some(list.ranges) })
}

/// How many ranges come and go; only how many there are, where they are too many to be compared.
pub(super) fn told(change: &ChangeArgs, before: &Before, after: &[String], after_count: i64) -> String {
    let Some(ranges_before) = &before.ranges else {
        let has = if change.validate_only { "would have" } else { "has" };
        return format!("note: the group {has} {after_count} ranges, and had {} before", before.count);
    };
    let set = |ranges: &[String]| -> HashSet<Range> { ranges.iter().filter_map(|range| range.parse().ok()).collect() };
    let (before, after) = (set(ranges_before), set(after));
    let would = if change.validate_only { "would be " } else { "" };
    let ranges = |count: usize| if count == 1 { "1 range".to_owned() } else { format!("{count} ranges") };
    let (added, dropped) = (after.difference(&before).count(), before.difference(&after).count());
    format!("note: {} {would}added, {} {would}dropped", ranges(added), ranges(dropped))
}
