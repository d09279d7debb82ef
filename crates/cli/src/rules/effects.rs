//! What a change of rules causes besides: rules that never win, and a firewall that denies nothing any more.
//!
//! Invariant: a change that was made is never told as failed because one of these questions was not answered.
//! Not here: finding problems, which the server does.

use std::collections::HashMap;

use portcullis_client::answer;

use super::view;
use crate::alterations;
use crate::change::ChangeArgs;
use crate::comparison;
pub(super) use crate::consequences::{is_denying, nothing_denied};
use crate::context::Context;
use crate::difference::Told;
use crate::exit::Exit;
use crate::names::organization_of;
use crate::pages::{self, PAGE_SIZE};
use crate::record;
use crate::settings;
use crate::table::{clean, number};
use portcullis_proto::v1;
use portcullis_proto::v1::mutation::Request as Asked;

/// The most deleted or updated rules that are named after a replacement.
const CHANGES_NOTED: usize = 100;

/// Tells the problems that a rule has or gives to others. A change that was only validated made none.
pub(super) async fn of_rule(change: &ChangeArgs, name: &str, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    if !change.validate_only {
        let request = v1::GetRuleRequest { name: name.to_owned(), include_problems: true };
        if let Ok(rule) = answer(context.client.firewall().get_rule(request).await) {
            context.note_problems(&caused(&rule.problems, std::slice::from_ref(&rule)));
        }
    }
    Ok(Exit::Success)
}

/// Shows the rules after a change of all of them, and tells their problems.
pub(super) async fn of_list(
    change: &ChangeArgs,
    parent: &str,
    list: v1::ListRulesResponse,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    let did = if change.validate_only { "would be" } else { "are" };
    let head = format!("these {did} the rules of {parent}, revision {}\n", list.revision);
    context.list(&list, |list| clean(head.trim_end()) + "\n" + &view::rules(list))?;
    let full = i32::try_from(list.rules.len()).is_ok_and(|count| count >= PAGE_SIZE);
    if full {
        let note = format!("note: there may be more than these {PAGE_SIZE}: see them with `portcullis rules list`");
        context.output.note(&note);
    }
    if !change.validate_only {
        let request = v1::ListRulesRequest { parent: parent.to_owned(), page_size: PAGE_SIZE, ..Default::default() };
        if let Ok(list) = answer(context.client.firewall().list_rules(request).await) {
            context.note_problems(&caused(&list.problems, &list.rules));
        }
    }
    Ok(Exit::Success)
}

/// Whether a rule that exists denies anything now.
pub(super) async fn denies(name: &str, context: &Context<'_>) -> bool {
    let request = v1::GetRuleRequest { name: name.to_owned(), ..Default::default() };
    answer(context.client.firewall().get_rule(request).await).is_ok_and(|rule| is_denying(&rule))
}

/// Says so where no rule is left that denies.
pub(super) async fn of_denials(change: &ChangeArgs, name: &str, context: &mut Context<'_>) -> anyhow::Result<()> {
    if change.validate_only {
        return Ok(());
    }
    let parent = organization_of(name);
    let mut client = context.client.firewall();
    let mut page_token = String::new();
    loop {
        let request = v1::ListRulesRequest { parent: parent.clone(), page_size: PAGE_SIZE, page_token };
        let Ok(page) = answer(client.list_rules(request).await) else { return Ok(()) };
        if page.rules.iter().any(is_denying) {
            return Ok(());
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    context.output.note(&nothing_denied(&parent, Told::Is));
    Ok(())
}

/// All rules of an organization; none where they cannot be read.
pub(super) async fn all(parent: &str, context: &Context<'_>) -> Option<Vec<v1::Rule>> {
    let mut client = context.client.firewall();
    let list = pages::all(async |page_size, page_token| {
        client.list_rules(v1::ListRulesRequest { parent: parent.to_owned(), page_size, page_token }).await
    });
    list.await.ok().map(|list| list.rules)
}

/// Says which rules a replacement deleted, and which settings of the others it altered.
pub(super) async fn of_replacement(parent: &str, before: Option<Vec<v1::Rule>>, context: &mut Context<'_>) {
    let Some((before, after)) = before.zip(all(parent, context).await) else { return };
    let after: HashMap<&str, &v1::Rule> = after.iter().map(|rule| (rule.name.as_str(), rule)).collect();
    let note = |before: &v1::Rule| match after.get(before.name.as_str()) {
        None => {
            Some(format!("note: deleted {}: {} {}", before.name, view::action(before), settings::rule_source(before)))
        }
        Some(after) => {
            let altered = alterations::of_rule(before, after);
            (!altered.is_empty()).then(|| format!("note: updated {}: {}", before.name, altered.join(", ")))
        }
    };
    let notes: Vec<String> = before.iter().filter_map(note).collect();
    for note in notes.iter().take(CHANGES_NOTED) {
        context.output.note(&clean(note));
    }
    if let more @ 1.. = notes.len().saturating_sub(CHANGES_NOTED) {
        context.output.note(&format!("note: and {more} more rules were deleted or updated"));
    }
}

/// Says which rules a replacement that was only validated would delete, and which settings of the others it would alter.
pub(super) async fn of_judged_replacement(request: v1::ReplaceRulesRequest, context: &mut Context<'_>) {
    let parent = request.parent.clone();
    let Ok(preview) = context.ask_preview(&parent, Asked::ReplaceRules(request)).await else { return };
    let (others, altered): (Vec<_>, Vec<_>) =
        preview.changes.iter().filter(|of| of.before.is_some()).partition(|of| record::counted(of).is_some());
    let told = altered.iter().take(CHANGES_NOTED).copied().cloned().collect::<Vec<_>>();
    for line in comparison::changes(&told, Told::Would).lines() {
        context.output.note(&format!("note: {line}"));
    }
    let more = (altered.len() - told.len()).try_into().unwrap_or(i64::MAX);
    if let more @ 1.. = record::objects(others) + more {
        context.output.note(&format!("note: and {} more rules would be deleted or updated", number(more)));
    }
    context.note_consequences(&parent, &preview.changes).await;
}

/// The problems that a change of these rules can cause and that its author has not meant. An exception above a rule for
/// everybody is meant. That a rule has not matched for long, or alters nothing yet, comes with time.
fn caused(problems: &[v1::Problem], rules: &[v1::Rule]) -> Vec<v1::Problem> {
    let is_for_everybody = |name: &str| rules.iter().any(|rule| rule.name == name && names_a_whole_family(rule));
    let is_caused = |problem: &&v1::Problem| match problem.code() {
        v1::ProblemCode::UnusedRule | v1::ProblemCode::RedundantRule => false,
        v1::ProblemCode::PartlyShadowedRule => !is_for_everybody(&problem.resource),
        _ => true,
    };
    problems.iter().filter(is_caused).cloned().collect()
}

fn names_a_whole_family(rule: &v1::Rule) -> bool {
    matches!(&rule.source, Some(v1::rule::Source::Range(range)) if ["any", "0.0.0.0/0", "::/0"].contains(&range.as_str()))
}
