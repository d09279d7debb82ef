//! Planning changes of single entries of an allowlist (design.md §3.4).
//!
//! Invariant: entries that a change does not name stay as they are, in their order. Only an allowlist is edited: the
//! first entry of a node that inherits, or that permits everything, would deny everybody else.
//! Not here: whether the groups of new entries exist (`nodes`), limits (`task`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::{PlanError, Violation};
use super::permitting::{Permitted, Permitting};
use crate::name::Name;
use crate::node::{Access, AccessEntry, EntriesEdit};
use crate::organization::Organization;
use crate::rule::Source;

/// The most bytes that the entries of a node may have in an answer, as for entries that are set as a whole.
const ENTRIES_BYTES_MAX: usize = 1 << 20;

/// The bytes of an entry in an answer, beside its texts.
const BYTES_BESIDE_TEXTS: usize = 12;

/// The length of the longest range in text.
const RANGE_BYTES_MAX: usize = 43;

/// The entries that still permit an absent source and are named.
const ENTRIES_SHOWN_MAX: usize = 3;

/// The absent sources for which entries that still permit them are looked for. Nobody reads more, and each takes a
/// pass over all entries.
const COVERED_SHOWN_MAX: usize = 100;

/// The access of a node after an edit of its entries. Adds a violation for each source to remove that no entry has.
/// `organization` is that of the node, unless it is the cluster.
pub(super) fn edited(
    node: &str,
    access: &Access,
    edit: &EntriesEdit,
    organization: Option<&Organization>,
    violations: &mut Vec<Violation>,
) -> Result<Access, PlanError> {
    let Access::AllowList(present) = access else {
        return Err(PlanError::NoAllowlist { node: node.to_owned(), inherits: *access == Access::Inherit });
    };
    match edit {
        EntriesEdit::Add(added) => {
            let entries = with(present, added);
            let bytes: usize = entries.iter().map(|entry| bytes_of(entry, organization)).sum();
            if bytes > ENTRIES_BYTES_MAX {
                let advice = "use an address group, or shorter descriptions";
                let text = format!("would make the node larger than {ENTRIES_BYTES_MAX} bytes: {advice}");
                violations.push(Violation::new("entries", text));
            }
            Ok(Access::AllowList(entries.into()))
        }
        EntriesEdit::Remove(sources) => {
            let known: HashSet<&Source> = present.iter().map(|entry| &entry.source).collect();
            let absent = sources.iter().enumerate().filter(|(_, source)| !known.contains(source));
            let mut absent = absent.peekable();
            let permitting = absent.peek().map(|_| Permitting::new(present, organization));
            violations.extend(absent.enumerate().map(|(count, (index, source))| {
                let permitting = permitting.as_ref().filter(|_| count < COVERED_SHOWN_MAX);
                absent_source(index, source, permitting, organization)
            }));
            let removed: HashSet<&Source> = sources.iter().collect();
            let left = present.iter().filter(|entry| !removed.contains(&entry.source)).cloned();
            Ok(Access::AllowList(left.collect()))
        }
    }
}

/// The entries with others added to them.
fn with(present: &[AccessEntry], added: &[AccessEntry]) -> Vec<AccessEntry> {
    let mut entries: Vec<AccessEntry> = Vec::with_capacity(present.len() + added.len());
    let mut places: HashMap<&Source, Vec<usize>> = HashMap::new();
    for entry in present {
        places.entry(&entry.source).or_default().push(entries.len());
        entries.push(entry.clone());
    }
    for entry in added {
        let same = places.entry(&entry.source).or_default();
        if same.is_empty() {
            same.push(entries.len());
            entries.push(entry.clone());
        } else if !entry.description.is_empty() {
            for place in same {
                if let Some(other) = entries.get_mut(*place) {
                    other.description = Arc::clone(&entry.description);
                }
            }
        }
    }
    entries
}

fn bytes_of(entry: &AccessEntry, organization: Option<&Organization>) -> usize {
    let source = match (&entry.source, organization) {
        (Source::Group(id), Some(organization)) => Name::group(&organization.id, id).to_string().len(),
        (Source::Range(_) | Source::Group(_), _) => RANGE_BYTES_MAX,
    };
    source + entry.description.len() + BYTES_BESIDE_TEXTS
}

fn absent_source(
    index: usize,
    source: &Source,
    permitting: Option<&Permitting<'_>>,
    organization: Option<&Organization>,
) -> Violation {
    let name = |source: &Source| match (source, organization) {
        (Source::Range(range), _) => range.to_string(),
        (Source::Group(id), Some(organization)) => Name::group(&organization.id, id).to_string(),
        (Source::Group(id), None) => id.to_string(),
    };
    let field = match source {
        Source::Range(_) => "range",
        Source::Group(_) => "address_group",
    };
    let what = match permitting.map(|permitting| permitting.of(source)) {
        Some(Some(Permitted { entries, is_whole, .. })) => {
            let shown = entries.iter().take(ENTRIES_SHOWN_MAX).map(|entry| format!("`{}`", name(&entry.source)));
            let more = if entries.len() > ENTRIES_SHOWN_MAX { ", …" } else { "" };
            let part = if is_whole { "it" } else { "a part of it" };
            let (noun, verb, those) = match entries.len() {
                1 => ("entry", "permits", "that one if it is"),
                _ => ("entries", "permit", "those if they are"),
            };
            let shown = shown.collect::<Vec<_>>().join(", ");
            format!("its {noun} {shown}{more} still {verb} {part}: remove {those} meant")
        }
        Some(None) => "no other permits any of it: name the entries as they are".to_owned(),
        None => "name the entries as they are".to_owned(),
    };
    Violation::new(
        format!("sources[{index}].{field}"),
        format!("`{}` is no entry of the allowlist; {what}", name(source)),
    )
}
