//! What the parts of a file must be together: names that are there once, groups and parents that are there at all.
//!
//! Invariant: only what the file alone decides is a fault here. A section that it does not name may hold anything.
//! Not here: single values (`kinds`), and what depends on the present policy, which the server judges.

use std::collections::{HashMap, HashSet};

use super::faults::{Faults, shown};
use super::kinds::{full_name, is_id, is_node};
use super::yaml::{Entry, Map, Node};
use crate::names::OrganizationArgs;

/// Checks a file whose values are checked already.
pub(super) fn check(policy: &Map, names: &OrganizationArgs, faults: &mut Faults) {
    let mut across = Across { names, faults };
    across.once(policy, "rules", "id", |id| names.rule(id));
    across.once(policy, "groups", "id", |id| names.group(id));
    across.once(policy, "tests", "id", |id| names.test(id));
    let nodes = across.once(policy, "nodes", "node", |name| full_name(name, names));
    across.parents(policy, &nodes);
    if policy.get("groups").is_some_and(|groups| groups.map().is_none() && groups.text().is_none()) {
        across.references(policy);
    }
    across.omitted(policy);
}

/// Checks the rules of a file of which nothing else is used.
pub(super) fn check_rules(policy: &Map, names: &OrganizationArgs, faults: &mut Faults) {
    Across { names, faults }.once(policy, "rules", "id", |id| names.rule(id));
}

struct Across<'a> {
    names: &'a OrganizationArgs,
    faults: &'a mut Faults,
}

impl Across<'_> {
    /// Every name of a section may be there once. Returns the names.
    fn once(
        &mut self,
        policy: &Map,
        section: &str,
        key: &str,
        name: impl Fn(&str) -> String,
    ) -> HashMap<String, (usize, u32)> {
        let mut seen = HashMap::new();
        for (index, node) in policy.items(section).iter().enumerate() {
            let Some(entry) = node.map().and_then(|map| map.entry(key)) else { continue };
            let Some(given) = entry.value.text() else { continue };
            let full = name(given);
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
        let is_name = !given.is_empty() && !known.contains(&self.names.group(given));
        if is_name && is_id(given) {
            let message = format!("{} is not among the groups of the file: add it, or name another", shown(given));
            self.faults.add(entry.value.at, &path(), message);
        }
    }

    /// A file that leaves the ranges out has none.
    fn omitted(&mut self, policy: &Map) {
        if policy.flag("ranges_omitted") != Some(true) {
            return;
        }
        for (index, group) in policy.items("groups").iter().enumerate() {
            if let Some(entry) = group.map().and_then(|map| map.entry("ranges"))
                && !entry.value.items().is_empty()
            {
                let message = "are given, and `ranges_omitted` says that they are left out: remove one of the two";
                self.faults.add(entry.at, &format!("groups[{index}].ranges"), message);
            }
        }
    }
}
