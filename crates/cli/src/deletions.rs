//! What a change deletes, said by name also where nobody reads its answer.
//!
//! Invariant: a deletion is never said in the answer only, unless that is a text on a terminal: a script may throw the
//! answer away. Deletions that are not named are counted.
//! Not here: answers as text, which list all changes (`comparison`).

use std::collections::BTreeMap;

use super::change::ChangeArgs;
use super::difference::Told;
use super::output::{Format, Output};
use super::record;
use super::table::{clean, number};
use portcullis_proto::v1;

/// The most deletions that are named.
const NAMED_MAX: usize = 100;

/// Says on the standard error what was deleted, or would be. Who reads a text answer on a terminal has it already.
pub(super) fn note(output: &mut Output, change: &ChangeArgs, changes: &[v1::ObjectChange]) {
    if output.format() == Format::Table && output.is_terminal() {
        return;
    }
    for line in lines(changes, change.told()) {
        output.note(&clean(&line));
    }
}

/// The deletions, one a line: as many as are named, and then the number of the others.
fn lines(changes: &[v1::ObjectChange], told: Told) -> Vec<String> {
    let is_deletion = |change: &&v1::ObjectChange| change.before.is_some() && change.after.is_none();
    let (mut lines, mut others) = (Vec::new(), BTreeMap::new());
    for change in changes.iter().filter(is_deletion) {
        match record::counted(change) {
            None if lines.len() < NAMED_MAX => lines.push(format!("note: {}", record::change(change, told))),
            None => *others.entry(record::collection(change)).or_insert(0) += 1,
            Some((collection, count)) => *others.entry(collection).or_insert(0) += count,
        }
    }
    let verb = if told == Told::Would { "would delete" } else { "deleted" };
    lines.extend(
        others.iter().map(|(collection, count)| format!("note: {}", record::more(verb, collection, *count, told))),
    );
    // Older servers do not tell what was done to the objects that they only count.
    let untold: i64 =
        changes.iter().filter_map(record::counted).filter(|(of, _)| of.is_empty()).map(|(_, count)| count).sum();
    if untold > 0 {
        lines.push(format!("note: there are {} more altered objects, which may be deleted too", number(untold)));
    }
    lines
}
