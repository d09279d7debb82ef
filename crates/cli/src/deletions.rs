//! What a change deletes, said by name also where nobody reads its answer.
//!
//! Invariant: a deletion is never said in the answer only where that is JSON, which a script may throw away.
//! Not here: answers as text, which list all changes (`comparison`).

use super::change::ChangeArgs;
use super::output::{Format, Output};
use super::record;
use super::table::clean;
use portcullis_proto::v1;

/// The most deletions that are named.
const NAMED_MAX: usize = 100;

/// Says on the standard error what was deleted, or would be. Text answers have it already.
pub(super) fn note(output: &mut Output, change: &ChangeArgs, changes: &[v1::ObjectChange]) {
    if output.format() == Format::Table {
        return;
    }
    let deleted: Vec<_> = changes.iter().filter(|change| change.before.is_some() && change.after.is_none()).collect();
    let would = if change.validate_only { "would be " } else { "" };
    for change in deleted.iter().take(NAMED_MAX) {
        output.note(&clean(&format!("note: {would}{}", record::change(change))));
    }
    if deleted.len() > NAMED_MAX {
        output.note(&format!("note: {would}deleted: {} more", deleted.len() - NAMED_MAX));
    }
}
