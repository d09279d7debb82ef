//! What a change of all rules did: their new order, and which were deleted or altered.
//!
//! Invariant: what was only validated is told with "would".
//! Not here: what a change causes besides (`crate::effects`).

use super::view;
use crate::alterations;
use crate::change::ChangeArgs;
pub(super) use crate::consequences::nothing_denied;
use crate::context::Context;
use crate::difference::Told;
use crate::exit::Exit;
use crate::pages::PAGE_SIZE;
use crate::record::with_description;
use crate::settings;
use crate::table::clean;
use portcullis_proto::v1;
use portcullis_proto::v1::policy_object::Object;

/// The most deleted or updated rules that are named after a replacement.
const CHANGES_NOTED: usize = 100;

/// Shows the rules after a change of all of them.
pub(super) fn show(
    change: &ChangeArgs,
    parent: &str,
    list: &v1::ListRulesResponse,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    let did = if change.validate_only { "would be" } else { "are" };
    let head = format!("these {did} the rules of {parent}, revision {}\n", list.revision);
    context.list(list, |list| clean(head.trim_end()) + "\n" + &view::rules(list))?;
    let full = i32::try_from(list.rules.len()).is_ok_and(|count| count >= PAGE_SIZE);
    if full {
        let note = format!("note: there may be more than these {PAGE_SIZE}: see them with `portcullis rules list`");
        context.output.note(&note);
    }
    Ok(Exit::Success)
}

/// What a firewall without rules does.
pub(super) fn no_rules(change: &ChangeArgs, parent: &str) -> String {
    let has = if change.validate_only { "would have" } else { "has" };
    format!("note: the list is empty: {} {has} no rules, and the firewall allows every address", clean(parent))
}

/// Says which rules a replacement deletes, and which settings of the others it alters.
pub(super) fn of_replacement(change: &ChangeArgs, changes: &[v1::ObjectChange], context: &mut Context<'_>) {
    let (deleted, updated) = match change.told() {
        Told::Is => ("deleted", "updated"),
        Told::Would => ("would delete", "would update"),
    };
    let rule = |object: &v1::PolicyObject| match &object.object {
        Some(Object::Rule(rule)) => Some(rule.clone()),
        _ => None,
    };
    let note = |change: &v1::ObjectChange| {
        let before = change.before.as_ref().and_then(rule)?;
        let Some(after) = change.after.as_ref().and_then(rule) else {
            let source = with_description(&settings::rule_source(&before), &before.description);
            let action = view::action(&before);
            return Some(format!("note: {deleted} {}: {action} {source}", before.name));
        };
        let altered = alterations::of_rule(&before, &after);
        (!altered.is_empty()).then(|| format!("note: {updated} {}: {}", before.name, altered.join(", ")))
    };
    let notes: Vec<String> = changes.iter().filter_map(note).collect();
    for note in notes.iter().take(CHANGES_NOTED) {
        context.output.note(&clean(note));
    }
    if let more @ 1.. = notes.len().saturating_sub(CHANGES_NOTED) {
        context.output.note(&format!("note: and {more} more rules: {deleted} or {updated}"));
    }
}
