//! Where in a file the fields stand that a server refused.
//!
//! Invariant: a field is found by the schema that it was read by, or else the nearest part that it is in.
//! Not here: faults that are found without a server (`walk`).

use portcullis_client::CallError;

use super::faults::place;
use super::kinds::full_name;
use super::schema::{Kind, Object, POLICY};
use super::yaml::{Node, Position};
use crate::error::with_violations;
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

    /// Names refused fields by their line and column in the file, and by its keys. `prefix` is the path of the policy in
    /// the request.
    pub(crate) fn locate(&self, error: CallError, file: &str, prefix: &str) -> CallError {
        with_violations(error, |violation| {
            let Some((at, path)) = violation.field.strip_prefix(prefix).and_then(|field| self.find(field)) else {
                return;
            };
            violation.field = format!("{}{path}", place(file, at));
            violation.description = in_words_of_a_file(&violation.description);
        })
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

/// A message of the server in which the fields of the API have the names of the file.
fn in_words_of_a_file(message: &str) -> String {
    let words = [
        ("`address_group`", "`group`"),
        ("`address_groups`", "`groups`"),
        ("`policy_tests`", "`tests`"),
        ("`expire_time`", "`expires`"),
        ("`end_time`", "`until`"),
        ("ACCESS_MODE_INHERIT", "`inherit`"),
        ("ACCESS_MODE_ALLOW_ALL", "`allow-all`"),
        ("ACCESS_MODE_ALLOW_LIST", "`allow-list`"),
    ];
    words.into_iter().fold(message.to_owned(), |message, (field, word)| message.replace(field, word))
}
