//! Where in a file the fields stand that a server refused.
//!
//! Invariant: a field is found by the schema that it was read by, or else the nearest part that it is in.
//! Not here: faults that are found without a server (`walk`).

use portcullis_client::{CallError, Violation};

use super::faults::{of_file, place};
use super::kinds::full_name;
use super::schema::{Kind, Object, POLICY};
use super::yaml::{Node, Position};
use crate::advice::{at_last, in_values};
use crate::names::OrganizationArgs;

/// The values of a file with their places.
#[derive(Default)]
pub(crate) struct Locations {
    root: Option<Node>,
    /// The nodes of the request by their indexes in the file: the organization itself is the first of the request.
    nodes: Vec<usize>,
}

impl Locations {
    pub(super) fn new(root: Node, names: &OrganizationArgs) -> Self {
        let own = names.name();
        let is_own =
            |node: &Node| node.map().and_then(|map| map.text("node")).is_some_and(|name| full_name(name, names) == own);
        let listed = root.map().map_or(&[][..], |map| map.items("nodes"));
        let (mut nodes, below): (Vec<_>, Vec<_>) =
            (0..listed.len()).partition(|index| listed.get(*index).is_some_and(is_own));
        nodes.extend(below);
        Self { root: Some(root), nodes }
    }

    /// Names refused fields by their line and column in the file, and by its keys, in the order of the file. `prefix` is the
    /// path of the policy in the request.
    pub(crate) fn locate(&self, mut error: CallError, file: &str, prefix: &str) -> CallError {
        let CallError::Refused(refusal) = &mut error else { return error };
        // The server says so of what it left out, with the field of the next fault.
        let left_out = |violation: &Violation| {
            let count = violation.description.strip_prefix("and ")?.strip_suffix(" more")?;
            let number: usize = count.strip_prefix("at least ").unwrap_or(count).parse().ok()?;
            Some((number, count.starts_with("at least ")))
        };
        let more = refusal.violations.last().and_then(left_out);
        let rest = if more.is_some() { refusal.violations.pop() } else { None };
        let mut located = Vec::new();
        let mut others = Vec::new();
        for mut violation in std::mem::take(&mut refusal.violations) {
            match violation.field.strip_prefix(prefix).and_then(|field| self.find(field)) {
                Some((at, path)) => {
                    violation.field = format!("{}{path}", place(file, at));
                    violation.description = in_words_of_a_file(&violation.description);
                    located.push((at, violation));
                }
                None => others.push(violation),
            }
        }
        located.sort_by_key(|(at, _)| *at);
        let is_of_file = others.is_empty() && !located.is_empty();
        let count = located.len() + more.map_or(0, |(number, _)| number);
        refusal.violations = located.into_iter().map(|(_, violation)| violation).chain(others).collect();
        match refusal.violations.as_slice() {
            [only] if is_of_file && more.is_none() => {
                refusal.message = only.to_string();
                refusal.violations.clear();
            }
            _ if is_of_file => {
                let at_least = if more.is_some_and(|(_, is_least)| is_least) { "at least " } else { "" };
                refusal.message = format!("{} has {at_least}{count} faults", of_file(file));
                refusal.violations.extend(rest.map(|rest| Violation { field: of_file(file).to_owned(), ..rest }));
            }
            _ => refusal.violations.extend(rest),
        }
        error
    }

    /// The same for an error that may be another than that of a call.
    pub(crate) fn locate_in(&self, error: anyhow::Error, file: &str, prefix: &str) -> anyhow::Error {
        match error.downcast::<CallError>() {
            Ok(call) => self.locate(call, file, prefix).into(),
            Err(error) => error,
        }
    }

    /// The place of a field, and its path in the words of the file.
    fn find(&self, field: &str) -> Option<(Position, String)> {
        let mut at = self.root.as_ref()?;
        let (mut place, mut path, mut kind) = (at.at, String::new(), Kind::Object(&POLICY));
        let mut rest = field;
        while !rest.is_empty() {
            let Kind::Object(object) = kind else { break };
            let Some((key, index, behind)) = part(object, rest) else { break };
            let Some(entry) = at.map().and_then(|map| map.entry(key.name)) else { break };
            let dot = if path.is_empty() { "" } else { "." };
            path = format!("{path}{dot}{}", key.name);
            (at, place, kind, rest) = (&entry.value, entry.value.at, key.kind, behind);
            let Some(index) = index else { continue };
            let index = if key.name == "nodes" { self.nodes.get(index).copied()? } else { index };
            let (Kind::List(item, _), Some(node)) = (kind, at.items().get(index)) else { break };
            path = format!("{path}[{index}]");
            (at, place, kind) = (node, node.at, *item);
        }
        Some((place, path))
    }
}

/// The key that the first part of a field stands for, the index behind it, and the rest.
fn part<'a>(object: &'static Object, field: &'a str) -> Option<(&'static super::schema::Key, Option<usize>, &'a str)> {
    // The key with the longest field: `access.entries` before `access`.
    let fits = |name: &str| field.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    let keys = object.keys.iter().filter_map(|key| fits(key.field).map(|rest| (key, rest)));
    let (key, rest) = keys.max_by_key(|(key, _)| key.field.len())?;
    let (index, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((index, rest)) => (Some(index.parse().ok()?), rest),
        None => (None, rest),
    };
    Some((key, index, rest.strip_prefix('.').unwrap_or(rest)))
}

/// A message of the server in which what it advises has the names of the file. What was written in the file stays.
fn in_words_of_a_file(message: &str) -> String {
    in_values(&at_last(message, "give a `range` or an `address_group`", "give a `range` or a `group`"))
}
