//! Which settings of an object a change alters, in words.
//!
//! Invariant: a setting that is lost is told as one that is altered.
//! Not here: which objects a change alters (`comparison`).

use std::collections::{HashMap, HashSet};

use super::settings;
use super::table::{self, clean};
use super::times::rfc3339;
use portcullis_proto::v1;
use portcullis_proto::v1::policy_object::Object;

/// The most entries of an allowlist that are named.
const ENTRIES_SHOWN: usize = 8;

/// The altered settings of an object, such as `types preview -> all`; none where they cannot be told.
pub(super) fn of(before: &v1::PolicyObject, after: &v1::PolicyObject) -> Vec<String> {
    match (&before.object, &after.object) {
        (Some(Object::Rule(before)), Some(Object::Rule(after))) => of_rule(before, after),
        (Some(Object::Node(before)), Some(Object::Node(after))) => of_node(before, after),
        (Some(Object::AddressGroup(before)), Some(Object::AddressGroup(after))) => of_group(before, after),
        (Some(Object::PolicyTest(before)), Some(Object::PolicyTest(after))) => of_test(before, after),
        (Some(Object::Digest(before)), Some(Object::Digest(after))) => of_digest(before, after),
        _ => Vec::new(),
    }
}

/// The altered settings of a rule.
pub(super) fn of_rule(before: &v1::Rule, after: &v1::Rule) -> Vec<String> {
    let action = |rule: &v1::Rule| table::word(rule.action().as_str_name(), "ACTION_");
    let state = |rule: &v1::Rule| match (rule.disabled, rule.expired) {
        (true, _) => "disabled".to_owned(),
        (false, true) => "expired".to_owned(),
        (false, false) => "enabled".to_owned(),
    };
    let expiry = |rule: &v1::Rule| rule.expire_time.as_ref().map_or_else(|| "never".to_owned(), rfc3339);
    let fields = [
        ("action", action(before), action(after)),
        ("source", settings::rule_source(before), settings::rule_source(after)),
        ("types", settings::rule_types(before), settings::rule_types(after)),
        ("state", state(before), state(after)),
        ("expires", expiry(before), expiry(after)),
        ("description", quoted(&before.description), quoted(&after.description)),
    ];
    altered(fields)
}

fn of_node(before: &v1::Node, after: &v1::Node) -> Vec<String> {
    let mode = |node: &v1::Node| {
        node.access.as_ref().map(|access| table::word(access.mode().as_str_name(), "ACCESS_MODE_")).unwrap_or_default()
    };
    let required = |node: &v1::Node| node.require_projects().to_string();
    let mut texts = altered([
        ("access", mode(before), mode(after)),
        ("require projects", required(before), required(after)),
        ("gates", gates(before), gates(after)),
        ("display name", quoted(&before.display_name), quoted(&after.display_name)),
    ]);
    let entries = |node: &v1::Node| -> Vec<v1::AccessEntry> {
        node.access.iter().flat_map(|access| access.entries.iter().cloned()).collect()
    };
    let (old, new) = (entries(before), entries(after));
    let only = |these: &[v1::AccessEntry], others: &[v1::AccessEntry]| -> Vec<String> {
        let known: HashSet<String> = others.iter().map(settings::entry_source).collect();
        these.iter().map(settings::entry_source).filter(|source| !known.contains(source)).collect()
    };
    for (sign, sources) in [("+", only(&new, &old)), ("-", only(&old, &new))] {
        let rest = sources.len().saturating_sub(ENTRIES_SHOWN);
        texts.extend(sources.iter().take(ENTRIES_SHOWN).map(|source| format!("{sign} entry {}", clean(source))));
        texts.extend((rest > 0).then(|| format!("{sign} {rest} more entries")));
    }
    let described: HashMap<String, &str> =
        old.iter().map(|entry| (settings::entry_source(entry), entry.description.as_str())).collect();
    let anew: Vec<String> = new.iter().filter_map(|entry| described_anew(entry, &described)).collect();
    let rest = anew.len().saturating_sub(ENTRIES_SHOWN);
    texts.extend(anew.into_iter().take(ENTRIES_SHOWN));
    texts.extend((rest > 0).then(|| format!("{rest} more descriptions of entries")));
    texts
}

/// An entry whose description alone is another.
fn described_anew(entry: &v1::AccessEntry, before: &HashMap<String, &str>) -> Option<String> {
    let source = settings::entry_source(entry);
    let old = before.get(&source).filter(|old| **old != entry.description)?;
    let (old, new) = (quoted(old), quoted(&entry.description));
    Some(format!("entry {} description {} -> {}", clean(&source), clean(&old), clean(&new)))
}

fn of_group(before: &v1::AddressGroup, after: &v1::AddressGroup) -> Vec<String> {
    // A change holds the ranges that it took away before it, and those that it added after it.
    let (removed, added) = (before.ranges.len(), after.ranges.len());
    let is_exchanged = before.range_count == after.range_count && removed + added > 0;
    let mut texts = altered([
        ("ranges", before.range_count.to_string(), after.range_count.to_string()),
        ("description", quoted(&before.description), quoted(&after.description)),
    ]);
    texts.extend(is_exchanged.then(|| format!("ranges {added} added and {removed} removed")));
    texts
}

/// What is left of an object that is too large to be compared here: how many parts it has.
fn of_digest(before: &v1::ObjectDigest, after: &v1::ObjectDigest) -> Vec<String> {
    // Of objects that are only counted, both have the number of them.
    if before.item_count == after.item_count && before.sha256 == after.sha256 {
        return Vec::new();
    }
    let parts = match after.name.matches('/').count() {
        _ if after.name.contains("/addressGroups/") => "ranges",
        // It is the organization, or the order of its rules.
        1 => "entries or rules",
        _ => "entries",
    };
    let others = if before.item_count == after.item_count { ", not the same" } else { "" };
    vec![format!("{parts} {} -> {}{others}", before.item_count, after.item_count)]
}

fn of_test(before: &v1::PolicyTest, after: &v1::PolicyTest) -> Vec<String> {
    let expected = |test: &v1::PolicyTest| table::word(test.expected_decision().as_str_name(), "DECISION_");
    let end = |test: &v1::PolicyTest| test.end_time.as_ref().map_or_else(|| "never".to_owned(), rfc3339);
    altered([
        ("address", before.ip.clone(), after.ip.clone()),
        ("type", table::connection_type(before.connection_type), table::connection_type(after.connection_type)),
        ("endpoint", before.endpoint.clone(), after.endpoint.clone()),
        ("expected", expected(before), expected(after)),
        ("ends", end(before), end(after)),
        ("description", quoted(&before.description), quoted(&after.description)),
    ])
}

/// Gates in words, those without as `none`.
fn gates(node: &v1::Node) -> String {
    match settings::gates(node.change_gates.as_ref()) {
        empty if empty.is_empty() => "none".to_owned(),
        words => words,
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn altered<const N: usize>(fields: [(&str, String, String); N]) -> Vec<String> {
    let text = |(name, before, after): (&str, String, String)| {
        (before != after).then(|| format!("{name} {} -> {}", clean(&before), clean(&after)))
    };
    fields.into_iter().filter_map(text).collect()
}
