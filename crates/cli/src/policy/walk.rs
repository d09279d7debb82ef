//! Walks a file along the schema, and notes each fault with its place and path.
//!
//! Invariant: a fault is noted once, at the value or key that has it; what follows from it only is not noted.
//! Not here: the schema (`schema`), single values (`kinds`), what values mean together (`across`).

use std::collections::HashMap;

use super::faults::{Faults, shown};
use super::kinds::{self, nearest, what};
use super::schema::{Key, Kind, Object, POLICY, SECTIONS};
use super::yaml::{Map, Node, Position, Value, ends_in_colon, lacks_space, split_key};
use crate::names::OrganizationArgs;

/// Checks the value of a whole file, or of its rules alone.
pub(super) fn check(root: &Node, kind: &Kind, path: &str, names: &OrganizationArgs, faults: &mut Faults) {
    check_as(root, kind, path, Use::Policy, names, faults);
}

/// What a file is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// All of its sections.
    Policy,
    /// The rules, which must be there.
    Rules,
}

/// Checks the value of a file for a use.
pub(super) fn check_as(
    root: &Node,
    kind: &Kind,
    path: &str,
    purpose: Use,
    names: &OrganizationArgs,
    faults: &mut Faults,
) {
    let mut walk = Walk { names, faults, purpose, path: path.to_owned() };
    walk.value(root, kind, root.at, true);
}

struct Walk<'a> {
    names: &'a OrganizationArgs,
    faults: &'a mut Faults,
    purpose: Use,
    /// The path of the value that is checked, in the words of the file.
    path: String,
}

impl Walk<'_> {
    fn fault(&mut self, at: Position, message: impl Into<String>) {
        self.faults.add(at, &self.path, message);
    }

    /// Checks what is one level deeper.
    fn below(&mut self, part: std::fmt::Arguments<'_>, check: impl FnOnce(&mut Self)) {
        use std::fmt::Write;
        let length = self.path.len();
        // Writing to a string does not fail.
        let _ = self.path.write_fmt(part);
        check(self);
        self.path.truncate(length);
    }

    /// `at` is the place of the key, or of the value where it has none.
    fn value(&mut self, node: &Node, kind: &Kind, at: Position, is_optional: bool) {
        match (&node.value, kind) {
            (Value::Unreadable, _) => {}
            (Value::Nothing, _) => self.missing_value(at, kind, is_optional),
            (Value::Map(map), Kind::Object(object)) => self.object(node.at, map, object),
            (Value::List(items), Kind::List(kind, max)) => {
                if items.len() > *max {
                    self.fault(at, format!("has {} items: write {max} at most", items.len()));
                }
                for (index, item) in items.iter().enumerate() {
                    self.below(format_args!("[{index}]"), |walk| walk.value(item, kind, item.at, true));
                }
            }
            (Value::Map(map), _) if cut_address(map).is_some() => {
                let address = cut_address(map).unwrap_or_default();
                self.fault(node.at, format!("`{address}` ends in a colon: quote it, as in `\"{address}\"`"));
            }
            (Value::Scalar { text, quoted: false }, Kind::List(..) | Kind::Object(_)) if split_key(text).is_some() => {
                self.fault(node.at, lacks_space(text));
            }
            (_, Kind::List(item, _)) => {
                let form = "one below the other, each behind a `-`, or between `[` and `]`";
                self.fault(node.at, format!("is not a list: write its items {form}; each is {}", what(item)));
            }
            (_, Kind::Object(object)) => {
                let keys: Vec<_> = object.keys.iter().map(|key| format!("`{}`", key.name)).collect();
                self.fault(node.at, format!("is not {}: write its keys, {}", object.what, keys.join(", ")));
            }
            _ => {
                if let Err(message) = kinds::check(node, kind, self.names) {
                    self.fault(node.at, message);
                }
            }
        }
    }

    fn missing_value(&mut self, at: Position, kind: &Kind, is_optional: bool) {
        let key = self.path.rsplit('.').next().unwrap_or_default();
        let is_section = SECTIONS.contains(&key) && key == self.path;
        let (advice, otherwise) = match kind {
            _ if key.ends_with(']') => (format!("write {}", what(kind)), "leave the item out"),
            Kind::List(..) if self.purpose == Use::Rules && self.path == "rules" => {
                ("write the rules, or `rules: []` to delete all of them".to_owned(), "")
            }
            Kind::List(..) if is_section => {
                (format!("write `{key}: []` to empty it"), "leave the line out to keep what is there")
            }
            Kind::List(..) => (format!("write `{key}: []` for none"), "leave the line out"),
            Kind::Object(_) => (format!("write `{key}: {{}}` for none"), "leave the line out"),
            Kind::Text => (format!("write `{key}: \"\"` for none, quote the text"), "leave the line out"),
            _ => (format!("write {}", what(kind)), "leave the line out"),
        };
        let otherwise = if is_optional && !otherwise.is_empty() { format!(", or {otherwise}") } else { String::new() };
        self.fault(at, format!("has no value: {advice}{otherwise}"));
    }

    fn object(&mut self, at: Position, map: &Map, object: &'static Object) {
        let mut meant = Vec::new();
        let mut seen: HashMap<&str, Position> = HashMap::new();
        for entry in &map.entries {
            let Some(key) = object.key(&entry.key) else {
                meant.extend(self.unknown(&entry.key, entry.at, object));
                continue;
            };
            let dot = if self.path.is_empty() { "" } else { "." };
            self.below(format_args!("{dot}{}", key.name), |walk| {
                if let Some(first) = seen.get(key.name) {
                    let line = first.line;
                    walk.fault(entry.at, format!("is there twice, first in line {line}: keep one of them"));
                } else {
                    walk.value(&entry.value, &key.kind, entry.at, object.may_lack(key));
                }
            });
            seen.entry(key.name).or_insert(entry.at);
        }
        // What is merged may have the keys that are not here.
        if !map.is_cut && map.entry("<<").is_none() {
            self.missing(at, map, object, &meant);
        }
        for (key, message) in (object.check)(map) {
            let at = map.entry(key).map_or(at, |entry| entry.at);
            self.below(format_args!(".{key}"), |walk| walk.fault(at, message));
        }
    }

    /// Notes an unknown key. Returns the known one that is probably meant.
    fn unknown(&mut self, given: &str, at: Position, object: &'static Object) -> Option<&'static str> {
        let names = object.keys.iter().map(|key: &'static Key| key.name);
        let near = nearest(given, names.clone());
        if let Some((key, _)) = split_key(given) {
            self.fault(at, lacks_space(given));
            return object.key(key).map(|key| key.name);
        }
        let message = match near {
            _ if given == "<<" => "merges keys, which a policy file cannot do: write the keys out".to_owned(),
            Some(near) => format!("is not a key of {}: did you mean `{near}`?", object.what),
            None => {
                let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
                format!("is not a key of {}: its keys are {}", object.what, names.join(", "))
            }
        };
        let message = format!("{} {message}", shown(given));
        self.fault(at, message);
        near
    }

    /// Notes keys that must be there. Not those for which a misspelled one stands.
    fn missing(&mut self, at: Position, map: &Map, object: &'static Object, meant: &[&str]) {
        let is_there = |name: &str| map.entry(name).is_some() || meant.contains(&name);
        for key in object.keys.iter().filter(|key| key.is_required && !is_there(key.name)) {
            self.fault(at, format!("`{}` is missing: write {}", key.name, what(&key.kind)));
        }
        let Some((one, other)) = object.either else { return };
        match (is_there(one), is_there(other)) {
            (true, true) => self.fault(at, format!("{} has a `{one}` or a `{other}`, not both", object.what)),
            (false, false) => self.fault(at, format!("`{one}` or `{other}` is missing: write one of them")),
            _ => {}
        }
    }
}

/// Checks that a file has any section: one without is the output of a failed command rather than a policy.
pub(super) fn check_sections(root: &Node, faults: &mut Faults) {
    let names_one = |map: &Map| map.entries.iter().any(|entry| SECTIONS.contains(&&*entry.key));
    let has_unknown = |map: &Map| map.entries.iter().any(|entry| POLICY.key(&entry.key).is_none());
    let is_empty = match &root.value {
        Value::Nothing => true,
        Value::Map(map) => !map.is_cut && !names_one(map) && !has_unknown(map),
        _ => false,
    };
    if is_empty {
        let message = format!("empty document: it names none of {}", SECTIONS.join(", "));
        faults.add(Position { line: 1, column: 1 }, "", message);
    }
}

/// The address that ends in a colon, which was read as a key without a value.
fn cut_address(map: &Map) -> Option<String> {
    match map.entries.as_slice() {
        [only] if matches!(only.value.value, Value::Nothing) => {
            Some(format!("{}:", only.key)).filter(|address| ends_in_colon(address))
        }
        _ => None,
    }
}
