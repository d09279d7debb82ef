//! What the parts of a file must be together: names that are there once, groups and parents that are there at all.
//!
//! Invariant: only what the file alone decides is a fault here. A section that it does not name may hold anything.
//! Not here: single values (`kinds`), and what depends on the present policy, which the server judges.

use std::collections::{HashMap, HashSet};

use super::faults::{Faults, shown};
use super::kinds::{full_id, full_name, is_id, is_node};
use super::yaml::{Entry, Map, Node};
use crate::names::OrganizationArgs;

/// Checks a file whose values are checked already.
pub(super) fn check(policy: &Map, names: &OrganizationArgs, faults: &mut Faults) {
    let mut across = Across { names, faults };
    across.once(policy, "rules", "id", "rules");
    across.once(policy, "groups", "id", "addressGroups");
    across.once(policy, "tests", "id", "policyTests");
    let nodes = across.once(policy, "nodes", "node", "");
    across.parents(policy, &nodes);
    if policy.get("groups").is_some_and(|groups| groups.map().is_none() && groups.text().is_none()) {
        across.references(policy);
    }
    across.ranges(policy);
}

/// Checks the rules of a file of which nothing else is used.
pub(super) fn check_rules(policy: &Map, names: &OrganizationArgs, faults: &mut Faults) {
    Across { names, faults }.once(policy, "rules", "id", "rules");
}

struct Across<'a> {
    names: &'a OrganizationArgs,
    faults: &'a mut Faults,
}

impl Across<'_> {
    /// Every name of a section may be there once. Returns the names. `collection` is that of the ids; empty for nodes.
    fn once(&mut self, policy: &Map, section: &str, key: &str, collection: &str) -> HashMap<String, (usize, u32)> {
        let mut seen = HashMap::new();
        for (index, node) in policy.items(section).iter().enumerate() {
            let Some(entry) = node.map().and_then(|map| map.entry(key)) else { continue };
            let Some(given) = entry.value.text() else { continue };
            let is_malformed = match collection {
                "" => !is_node(given, self.names),
                collection => !is_id(given, collection, self.names),
            };
            if is_malformed {
                continue;
            }
            let full = match collection {
                "" => full_name(given, self.names),
                collection => full_id(given, collection, self.names),
            };
            if let Some((first, line)) = seen.get(&full) {
                let message = format!("{} is that of {section}[{first}] in line {line} already", shown(given));
                self.faults.add(entry.value.at, &format!("{section}[{index}].{key}"), message);
                continue;
            }
            seen.insert(full, (index, entry.value.at.line));
        }
        seen
    }

    /// The parent of every node must be in the file too, which names all nodes where it names any.
    fn parents(&mut self, policy: &Map, nodes: &HashMap<String, (usize, u32)>) {
        let own = self.names.name();
        for (index, node) in policy.items("nodes").iter().enumerate() {
            let Some(entry) = node.map().and_then(|map| map.entry("node")) else { continue };
            let Some(given) = entry.value.text() else { continue };
            if !is_node(given, self.names) {
                continue;
            }
            let full = full_name(given, self.names);
            // `…/projects/web/workspaces/main` is below `…/projects/web`.
            let parent = full.rsplit_once('/').and_then(|(above, _)| above.rsplit_once('/')).map(|(parent, _)| parent);
            let below = parent.and_then(|parent| parent.strip_prefix(&own)?.strip_prefix('/'));
            if let (Some(parent), Some(below)) = (parent, below)
                && !nodes.contains_key(parent)
            {
                let message = format!("its parent {} is not among the nodes: add it", shown(below));
                self.faults.add(entry.value.at, &format!("nodes[{index}].node"), message);
            }
        }
    }

    /// Groups that rules and nodes name must be in the file, where it names its groups.
    fn references(&mut self, policy: &Map) {
        let ids = policy.items("groups").iter().filter_map(|group| group.map()?.text("id"));
        let known: HashSet<String> = ids.map(|id| self.names.group(id)).collect();
        for (index, rule) in policy.items("rules").iter().enumerate() {
            let entry = rule.map().and_then(|map| map.entry("group"));
            self.reference(entry, &known, || format!("rules[{index}].group"));
        }
        for (index, node) in policy.items("nodes").iter().enumerate() {
            let entries: &[Node] = node.map().map_or(&[], |map| map.items("entries"));
            for (at, of) in entries.iter().enumerate() {
                let entry = of.map().and_then(|map| map.entry("group"));
                self.reference(entry, &known, || format!("nodes[{index}].entries[{at}].group"));
            }
        }
    }

    fn reference(&mut self, entry: Option<&Entry>, known: &HashSet<String>, path: impl FnOnce() -> String) {
        let Some((entry, given)) = entry.and_then(|entry| entry.value.text().map(|given| (entry, given))) else {
            return;
        };
        // One that is malformed is a fault already.
        if is_id(given, "addressGroups", self.names) && !known.contains(&self.names.group(given)) {
            let message = format!("{} is not among the groups of the file: add it, or name another", shown(given));
            self.faults.add(entry.value.at, &path(), message);
        }
    }

    /// A file that leaves the ranges out has none, and any other has those of every group: a group never comes out empty
    /// because somebody forgot its ranges.
    fn ranges(&mut self, policy: &Map) {
        let are_omitted = policy.flag("ranges_omitted") == Some(true);
        for (index, group) in policy.items("groups").iter().enumerate() {
            let Some(map) = group.map() else { continue };
            let path = format!("groups[{index}]");
            match map.entry("ranges") {
                Some(entry) if are_omitted && !entry.value.items().is_empty() => {
                    let message = "are given, and `ranges_omitted` says that they are left out: remove one of the two";
                    self.faults.add(entry.at, &format!("{path}.ranges"), message);
                }
                None if !are_omitted && !has_unknown(map) => {
                    let message = "`ranges` is missing: write them, `ranges: []` for none, or `ranges_omitted: true` at the top \
                                   of the file, which keeps those of all groups";
                    self.faults.add(group.at, &path, message);
                }
                _ => {}
            }
        }
    }
}

/// Whether a group has a key that is refused: it may be misspelled, or merge others.
fn has_unknown(group: &Map) -> bool {
    group.entries.iter().any(|entry| !matches!(&*entry.key, "id" | "description"))
}
